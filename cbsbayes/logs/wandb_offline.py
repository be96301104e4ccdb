"""Offline wandb runs: the transaction logs ``run-<id>.wandb`` that every wandb run writes.

Nothing but the log is sure to be there: an offline run's folder holds neither configuration
nor summary files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cbsbayes.logs.history import NoRunsError
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.wandb_log import WandbLog
from cbsbayes.logs.wandb_rows import history_from_wandb, import_wandb

__all__ = ["read_wandb_file"]

_LIVE_SECONDS = 3600.0  # a log without an exit record that changed this lately may still grow


@dataclass
class _Content:
    """What the records of one log say."""

    records: int = 0
    unreadable: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    step_metrics: list[tuple[str, str]] = field(default_factory=list)
    run: Any = None
    exit_code: int | None = None

    def take(self, record: Any) -> None:
        """Add one record to what is known of the run."""
        kind = record.WhichOneof("record_type")
        if kind == "history":
            self.rows.append({".".join(item.nested_key) or item.key: json.loads(item.value_json)
                              for item in record.history.item})
        elif kind == "config":
            _configure(self.config, record.config)
        elif kind == "metric" and record.metric.step_metric:
            name = record.metric.name or record.metric.glob_name
            self.step_metrics.append((name, record.metric.step_metric))
        elif kind == "run":
            self.run = record.run
            _configure(self.config, record.run.config)
        elif kind == "exit":
            self.exit_code = record.exit.exit_code


def read_wandb_file(path: Path, root: Path) -> RunLog:
    """Read one wandb log.

    Parameters
    ----------
    path : Path
        The ``.wandb`` file.
    root : Path
        The folder given by the user: the id is the file's path relative to it.

    Returns
    -------
    RunLog
        A log cut short or damaged gives the rows that are whole, and a note says how many bytes
        were not.

    Raises
    ------
    NoRunsError
        If there is no readable record.
    CBSDataError
        If the wandb extra is missing.
    OSError
        If the file cannot be read.
    """
    decode = import_wandb("wandb.proto.wandb_internal_pb2").Record.FromString
    not_decoded = import_wandb("google.protobuf.message").DecodeError
    log = WandbLog(path.read_bytes())
    content = _Content()
    for payload in log:
        content.records += 1
        try:
            content.take(decode(payload))
        except (ValueError, RecursionError, not_decoded):  # a frame around what wandb never wrote
            content.unreadable += 1
    if not content.records:
        raise NoRunsError(f"{path} holds no wandb record; give a log that wandb wrote")
    history, notes = history_from_wandb(content.rows, content.step_metrics)
    run_id = content.run.run_id if content.run else path.stem.removeprefix("run-")
    return RunLog(
        id=path.relative_to(root).as_posix(),
        name=(content.run.display_name if content.run else "") or run_id,
        source="wandb_file",
        history=history,
        config=content.config,
        state=_state(content.exit_code, path),
        created=_started(content.run),
        notes=(*notes, *_damage(content, log)),
    )


def _configure(config: dict[str, Any], change: Any) -> None:
    """Apply a configuration record's updates and removals."""
    for item in change.update:
        *above, own = _path(item)
        _inside(config, above)[own] = json.loads(item.value_json)
    for item in change.remove:
        *above, own = _path(item)
        inside: Any = config
        for key in above:
            inside = inside.get(key) if isinstance(inside, dict) else None
        if isinstance(inside, dict):
            inside.pop(own, None)
    config.pop("_wandb", None)


def _path(item: Any) -> list[str]:
    return list(item.nested_key) or [item.key]


def _inside(config: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    for key in keys:
        if not isinstance(config.get(key), dict):
            config[key] = {}
        config = config[key]
    return config


def _state(exit_code: int | None, path: Path) -> str:
    if exit_code is not None:
        return "finished" if exit_code == 0 else "failed"
    age = time.time() - path.stat().st_mtime
    return "running" if age < _LIVE_SECONDS else "crashed"


def _started(run: Any) -> str:
    if run is None or not run.HasField("start_time"):
        return ""
    started = datetime.fromtimestamp(run.start_time.seconds, UTC)
    return started.replace(microsecond=run.start_time.nanos // 1000).isoformat()


def _damage(content: _Content, log: WandbLog) -> list[str]:
    """Return a sentence for everything of the log that could not be read."""
    notes = []
    if log.lost_bytes:
        notes.append(f"{log.lost_bytes} bytes in {log.damaged} place(s) of the log were damaged "
                     "or cut")
    if content.unreadable:
        notes.append(f"{content.unreadable} record(s) of the log could not be decoded")
    if content.run is None:
        notes.append("the log has no record of the run; its name is the file's")
    elif content.run.forked:
        notes.append("the run is a fork; only the rows of this log are read")
    return notes
