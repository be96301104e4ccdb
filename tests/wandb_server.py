"""A loopback server that speaks as much of the wandb protocol as the genuine client needs.

The client's HTTP is done by its own sidecar process, so nothing patched in Python is seen by
it; a server is the only double that leaves the client whole. Reading: listing of runs, live
history and Parquet exports. Faults are put in by name of the operation.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["API_KEY", "Fault", "StoredRun", "WandbServer", "child_environment"]

API_KEY = "local-" + "0123456789" * 4
HISTORY = ("RunHistoryKeys", "RunParquetHistory", "HistoryPage", "export")
VIEWER = {
    "id": "u", "entity": "ent", "username": "u", "name": "u", "email": "", "flags": "{}",
    "teams": {"edges": []}, "apiKeys": {"edges": []}, "admin": False, "deletedAt": None,
}  # fmt: skip


def child_environment() -> dict[str, str]:
    """Return the environment for a process that is to start a sidecar of its own."""
    return {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}


@dataclass
class StoredRun:
    """One run as the server holds it; `rows` are what was logged, with `_step`."""

    id: str
    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    state: str = "finished"
    created: str = "2026-01-01T00:00:00Z"
    heartbeat: str = "2026-01-01T01:00:00Z"
    exported: int = 0  # so many of the first rows lie in a Parquet export
    seam: int = 0  # so many of the exported rows are answered as live rows too
    withheld: int = 0  # so many of the last rows are counted but never answered

    def node(self) -> dict[str, Any]:
        config = {key: {"value": value} for key, value in self.config.items()}
        return {
            "id": self.id, "name": self.id, "displayName": self.name, "sweepName": None,
            "description": None, "notes": None, "tags": [], "state": self.state,
            "config": json.dumps(config), "group": None, "jobType": None, "commit": None,
            "readOnly": False, "createdAt": self.created, "heartbeatAt": self.heartbeat,
            "systemMetrics": "{}", "summaryMetrics": "{}", "historyLineCount": len(self.rows),
            "user": {"name": "u", "username": "u"}, "historyKeys": {"lastStep": self.last_step},
            "projectId": "1",
        }  # fmt: skip

    @property
    def last_step(self) -> int:
        return max((int(row["_step"]) for row in self.rows), default=-1)

    @property
    def live(self) -> list[dict[str, Any]]:
        return self.rows[self.exported - self.seam : len(self.rows) - self.withheld]

    def export(self) -> bytes:
        rows = self.rows[: self.exported]
        keys = sorted({key for row in rows for key in row})
        columns = {key: [row.get(key) for row in rows] for key in keys}
        out = io.BytesIO()
        pq.write_table(pa.table(columns), out)
        return out.getvalue()


@dataclass
class Fault:
    """Answer `times` requests of one operation with a fault.

    `kind` is an HTTP status, ``"drop"`` (no answer), ``"half"`` (a body cut in half) or
    ``"short"`` (a history without its second half); with `run` only requests about that run.
    """

    operation: str
    kind: int | str
    times: int | float = 1
    run: str | None = None

    def strikes(self, operation: str, run: str | None) -> bool:
        if self.times <= 0 or self.operation != operation or self.run not in (None, run):
            return False
        self.times -= 1
        return True


class WandbServer:
    """The server as a context manager; `runs` maps a run's id to what is stored of it."""

    def __init__(self, project: str = "proj", delay: float = 0.0) -> None:
        self.project = project
        self.delay = delay
        self.runs: dict[str, StoredRun] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str | None]] = []
        self.lock = threading.Lock()

    def __enter__(self) -> WandbServer:
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.store = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def add(self, *runs: StoredRun) -> None:
        self.runs.update({run.id: run for run in runs})

    def count(self, *operations: str) -> int:
        """Return how often the operations were asked for."""
        return sum(name in operations for name, _ in self.requests)

    def history_requests(self, run: str | None = None) -> int:
        return sum(name in HISTORY and run in (None, who) for name, who in self.requests)

    def fault_of(self, operation: str, run: str | None) -> Fault | None:
        with self.lock:
            self.requests.append((operation, run))
            return next((f for f in self.faults if f.strikes(operation, run)), None)

    def answer(self, name: str, given: dict[str, Any]) -> dict[str, Any] | None:
        """Return the GraphQL data of one operation; None for one this server does not know."""
        known = {
            "Viewer": lambda: {"viewer": VIEWER},
            "GetDefaultEntity": lambda: {"viewer": VIEWER},
            "ServerFeaturesQuery": lambda: {"serverInfo": {"features": []}},
            "Runs": lambda: {"project": self._listing(given)},
            "RunHistoryKeys": lambda: self._of_run(given, "historyKeys", self._history_keys),
            "RunParquetHistory": lambda: self._of_run(given, "parquetHistory", self._exports),
            "HistoryPage": lambda: self._of_run(given, "history", lambda run: _page(run, given)),
        }
        return known[name]() if name in known else None

    def _listing(self, given: dict[str, Any]) -> dict[str, Any] | None:
        if given["project"] != self.project:
            return None
        start = int(given.get("cursor") or 0)
        stop = start + given["perPage"]
        runs = list(self.runs.values())
        edges = [
            {"node": run.node(), "cursor": str(start + at + 1)}
            for at, run in enumerate(runs[start:stop])
        ]
        info = {"endCursor": str(stop), "hasNextPage": stop < len(runs)}
        return {"internalId": "1", "runCount": len(runs), "readOnly": False,
                "runs": {"edges": edges, "pageInfo": info}}  # fmt: skip

    def _of_run(self, given: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
        return {"project": {"run": {key: value(self.runs[_run_of(given)])}}}

    def _history_keys(self, run: StoredRun) -> dict[str, Any]:
        return {"lastStep": run.last_step, "sets": [], "keys": {}}

    def _exports(self, run: StoredRun) -> dict[str, Any]:
        urls = [f"{self.url}/export/{run.id}.parquet"] if run.exported else []
        live = [{"_step": row["_step"]} for row in run.live]
        return {"parquetUrls": urls, "liveData": live}


def _run_of(given: dict[str, Any]) -> str:
    return given.get("run") or given.get("name") or given.get("runName")


def _page(run: StoredRun, given: dict[str, Any]) -> list[str]:
    inside = (r for r in run.live if given["minStep"] <= r["_step"] < given["maxStep"])
    return [json.dumps({key: _on_the_wire(value) for key, value in row.items()}) for row in inside]


def _on_the_wire(value: Any) -> Any:
    """Return non-finite numbers as the strings that the service answers with."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    store: WandbServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about clients that hang up; anything else would fail the client's call."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        run = re.fullmatch(r"/export/(.+)\.parquet", self.path)
        if run is None:
            self._reply(b"not found", 404)
        else:
            export = self.server.store.runs[run[1]].export
            if not self._faulted("export", run[1], export):
                self._reply(export())

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/graphql":
            self._graphql(json.loads(body))
        else:
            self._reply(b"")  # telemetry of the client

    def _graphql(self, asked: dict[str, Any]) -> None:
        named = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
        name, given = named[1] if named else "", asked.get("variables") or {}
        time.sleep(self.server.store.delay)
        if self._faulted(name, _run_of(given), lambda: self._answer(name, given)):
            return
        self._reply(self._answer(name, given))

    def _answer(self, name: str, given: dict[str, Any]) -> bytes:
        data = self.server.store.answer(name, given)
        unknown = {"errors": [{"message": f"unknown operation {name}"}]}
        return json.dumps(unknown if data is None else {"data": data}).encode()

    def _faulted(self, operation: str, run: str | None, whole: Callable[[], bytes]) -> bool:
        fault = self.server.store.fault_of(operation, run)
        if fault is None:
            return False
        if isinstance(fault.kind, int):
            self._reply(b"fault", fault.kind)
        elif fault.kind == "short":
            answer = json.loads(whole())
            lines = answer["data"]["project"]["run"]["history"]
            del lines[len(lines) // 2 :]
            self._reply(json.dumps(answer).encode())
        else:
            body = whole()
            if fault.kind == "half":
                self._reply(body[: len(body) // 2], length=len(body))
            self.close_connection = True
        return True

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, body: bytes, status: int = 200, length: int | None = None) -> None:
        self.send_response(status)
        if status >= 400:
            self.send_header("Retry-After", "0")  # the client waits for 2, 5, 9 s … without
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
