"""The genuine wandb client on this machine: a loopback server for it, and fixtures.

The client's HTTP is done by its own sidecar process, so nothing patched in Python is seen by
it; a server is the only double that leaves the client whole. It speaks as much of the protocol as
reading needs: listing of runs, live history and Parquet exports. Faults are put in by name of the
operation.
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
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

__all__ = ["Fault", "StoredRun", "WandbServer"]

API_KEY = "local-" + "0123456789" * 4
HISTORY = ("RunHistoryKeys", "RunParquetHistory", "HistoryPage", "export")
VIEWER = {"id": "u", "entity": "ent", "username": "u", "name": "u", "email": "", "flags": "{}",
          "teams": {"edges": []}, "apiKeys": {"edges": []}, "admin": False, "deletedAt": None}


@dataclass
class StoredRun:
    """One run as the server holds it; `rows` are what was logged, with `_step`."""

    id: str
    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    state: str = "finished"
    heartbeat: str = "2026-01-01T01:00:00Z"
    exported: int = 0  # so many of the first rows lie in a Parquet export
    seam: int = 0  # so many of the exported rows are answered as live rows too

    def node(self) -> dict[str, Any]:
        config = {key: {"value": value} for key, value in self.config.items()}
        return {
            "id": self.id, "name": self.id, "displayName": self.name, "sweepName": None,
            "description": None, "notes": None, "tags": [], "state": self.state,
            "config": json.dumps(config), "group": None, "jobType": None, "commit": None,
            "readOnly": False, "createdAt": "2026-01-01T00:00:00Z", "heartbeatAt": self.heartbeat,
            "systemMetrics": "{}", "summaryMetrics": "{}", "historyLineCount": len(self.rows),
            "user": {"name": "u", "username": "u"}, "historyKeys": {"lastStep": self.last_step},
            "projectId": "1",
        }  # fmt: skip

    @property
    def last_step(self) -> int:
        return max((int(row["_step"]) for row in self.rows), default=-1)

    @property
    def live(self) -> list[dict[str, Any]]:
        return self.rows[self.exported - self.seam :]

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


class WandbServer(ThreadingHTTPServer):
    """The server; `runs` maps a run's id to what is stored of it."""

    daemon_threads = True
    request_queue_size = 64
    delay = 0.0  # seconds before every answer

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, StoredRun] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str | None]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about clients that hang up; anything else would fail the client's call."""

    def add(self, *runs: StoredRun) -> None:
        self.runs.update({run.id: run for run in runs})

    def history_requests(self, run: str | None = None) -> int:
        return sum(name in HISTORY and run in (None, who) for name, who in self.requests)

    def fault_of(self, operation: str, run: str | None) -> int | str | None:
        """Note a request and return what is to go wrong with it."""
        with self.lock:
            self.requests.append((operation, run))
            return next((f.kind for f in self.faults if f.strikes(operation, run)), None)

    def answer(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """Return the GraphQL answer of one operation."""
        if name in ("Viewer", "GetDefaultEntity"):
            data: dict[str, Any] = {"viewer": VIEWER}
        elif name == "ServerFeaturesQuery":
            data = {"serverInfo": {"features": []}}
        elif name == "Runs":
            data = {"project": self._listing(given) if given["project"] == "proj" else None}
        elif name in HISTORY:
            data = {"project": {"run": self._history(name, given)}}
        else:
            return {"errors": [{"message": f"unknown operation {name}"}]}
        return {"data": data}

    def _listing(self, given: dict[str, Any]) -> dict[str, Any]:
        start = int(given.get("cursor") or 0)
        stop = start + given["perPage"]
        edges = [{"node": run.node(), "cursor": str(at)}
                 for at, run in enumerate(list(self.runs.values())[start:stop], start=start + 1)]
        info = {"endCursor": str(stop), "hasNextPage": stop < len(self.runs)}
        return {"internalId": "1", "runCount": len(self.runs), "readOnly": False,
                "runs": {"edges": edges, "pageInfo": info}}

    def _history(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[_run_of(given)]
        if name == "RunHistoryKeys":
            return {"historyKeys": {"lastStep": run.last_step, "sets": [], "keys": {}}}
        if name == "RunParquetHistory":
            urls = [f"{self.url}/export/{run.id}.parquet"] if run.exported else []
            live = [{"_step": row["_step"]} for row in run.live]
            return {"parquetHistory": {"parquetUrls": urls, "liveData": live}}
        return {"history": [
            json.dumps({key: _on_the_wire(value) for key, value in row.items()})
            for row in run.live if given["minStep"] <= row["_step"] < given["maxStep"]]}


def _run_of(given: dict[str, Any]) -> str:
    return given.get("run") or given.get("name") or given.get("runName")


def _on_the_wire(value: Any) -> Any:
    """Return non-finite numbers as the strings that the service answers with."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        run = re.fullmatch(r"/export/(.+)\.parquet", self.path)
        if run is None:
            self._reply(b"not found", 404)
        else:
            self._answer("export", run[1], self.server.runs[run[1]].export())

    def do_POST(self) -> None:
        body = self._body()
        if self.path != "/graphql":
            self._reply(b"")  # telemetry of the client
            return
        asked = json.loads(body)
        named = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
        name, given = named[1] if named else "", asked.get("variables") or {}
        time.sleep(self.server.delay)
        self._answer(name, _run_of(given), json.dumps(self.server.answer(name, given)).encode())

    def _answer(self, operation: str, run: str | None, body: bytes) -> None:
        """Answer, or do what a fault has it do instead."""
        kind = self.server.fault_of(operation, run)
        if isinstance(kind, int):
            self._reply(b"fault", kind)
        elif kind == "short":
            answer = json.loads(body)
            lines = answer["data"]["project"]["run"]["history"]
            del lines[len(lines) // 2 :]
            self._reply(json.dumps(answer).encode())
        elif kind != "drop":
            self._reply(body[: len(body) // 2] if kind == "half" else body, length=len(body))
        if kind in ("drop", "half"):
            self.close_connection = True

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


@pytest.fixture(scope="module")
def wandb_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give wandb a home of its own and a fresh sidecar process."""
    wandb = pytest.importorskip("wandb")
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_"))]:
            patch.delenv(name)
        for name in ("HOME", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(home))
        patch.setenv("NETRC", str(home / "netrc"))
        patch.setenv("WANDB_API_KEY", API_KEY)
        patch.setenv("WANDB_X_DISABLE_STATS", "true")
        _end_service(wandb)
        yield home
        _end_service(wandb)


def _end_service(wandb: Any) -> None:
    """End wandb's sidecar; killed where it has not heard of it.

    Where the client closes its connection while the sidecar still answers, the sidecar drops what
    it was told last, and the client would wait for its end without bound.
    """
    ending = threading.Thread(target=wandb.teardown, daemon=True)
    ending.start()
    ending.join(60.0)
    if ending.is_alive():
        for child in psutil.Process().children():
            if child.name() == "wandb-core":
                child.kill()
        ending.join()


@pytest.fixture
def server(wandb_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """Start a server and point the client at it."""
    with WandbServer() as started:
        thread = threading.Thread(target=started.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("WANDB_BASE_URL", started.url)
        yield started
        started.shutdown()
        thread.join()
