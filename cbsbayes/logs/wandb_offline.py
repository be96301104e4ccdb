"""Offline wandb runs: the transaction logs ``run-<id>.wandb`` that every wandb run writes.

Nothing but the log is sure to be there: an offline run's folder holds neither configuration
nor summary files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.history import listed
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.wandb_log import WandbLog, record_field
from cbsbayes.logs.wandb_rows import history_from_wandb, import_wandb

__all__ = ["read_wandb_files"]

_HISTORY, _CONFIG, _RUN, _EXIT = 2, 5, 17, 18  # fields of wandb_internal.Record
_WANTED = frozenset({_HISTORY, _CONFIG, _RUN, _EXIT})
_LIVE_SECONDS = 3600.0  # a log without an exit record that changed this lately may still grow


def read_wandb_files(folder: Path) -> list[RunLog]:
    """Read every wandb log at or below a folder.

    Parameters
    ----------
    folder : Path
        A folder (``wandb/``, one ``offline-run-…`` or any folder above), or one ``.wandb`` file.

    Returns
    -------
    list of RunLog
        One per file, in the order they were started; attempts of one run stay apart. The id
        is the file's path relative to the folder. A log cut short or damaged gives the rows
        that are whole, and a note says how many bytes were not.

    Raises
    ------
    CBSDataError
        If there is no log, none holds a readable record, a file cannot be opened, or the
        wandb extra is missing.
    """
    root = Path(folder)
    paths = _log_files(root)
    decode = _decoder()
    logs, records = [], 0
    for path in paths:
        content = _read_log(path, decode)
        logs.append(_run_log(content, path, root))
        records += content.records
    if not records:
        raise CBSDataError(
            f"{root} holds {len(paths)} .wandb file(s) but no wandb record in "
            f"{listed([str(path) for path in paths], 3)}; give a folder of logs that wandb wrote"
        )
    return sorted(logs, key=lambda log: (log.created, log.id))


def _log_files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise CBSDataError(
            f"no folder {root}; give a folder that holds wandb runs (run-<id>.wandb)"
        )
    paths = sorted(path for path in root.rglob("*.wandb") if path.is_file())
    if not paths:
        raise CBSDataError(
            f"no wandb run in {root}: looked for *.wandb in it and below; "
            "give the folder that holds wandb's offline-run-… folders"
        )
    return paths


@dataclass
class _Content:
    """What the records of one log say."""

    records: int = 0
    unreadable: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    run: Any = None
    exit_code: int | None = None
    lost: tuple[int, int] = (0, 0)  # bytes, places


def _read_log(path: Path, decode: Callable[[bytes], Any]) -> _Content:
    try:
        log = WandbLog(path.read_bytes())
    except OSError as error:
        raise CBSDataError(
            f"cannot read {path}: {error.strerror}; make it readable or move it away"
        ) from error
    content = _Content()
    for payload in log:
        content.records += 1
        try:
            if kind := record_field(payload, _WANTED):
                _take(content, kind, decode(payload))
        except (ValueError, RecursionError):  # an intact frame around what wandb did not write
            content.unreadable += 1
    content.lost = (log.lost_bytes, log.damaged)
    return content


def _decoder() -> Callable[[bytes], Any]:
    """Return wandb's own decoder of a record; bytes that are none raise ValueError."""
    record = import_wandb("wandb.proto.wandb_internal_pb2").Record
    not_decoded = import_wandb("google.protobuf.message").DecodeError

    def decode(payload: bytes) -> Any:
        try:
            return record.FromString(payload)
        except not_decoded as error:
            raise ValueError(str(error)) from error

    return decode


def _take(content: _Content, kind: int, record: Any) -> None:
    """Add one record to what is known of the run."""
    if kind == _HISTORY:
        content.rows.append(
            {
                ".".join(item.nested_key) or item.key: json.loads(item.value_json)
                for item in record.history.item
            }
        )
    elif kind == _CONFIG:
        _configure(content.config, record.config)
    elif kind == _RUN:
        content.run = record.run
        _configure(content.config, record.run.config)
    else:
        content.exit_code = record.exit.exit_code


def _configure(config: dict[str, Any], change: Any) -> None:
    """Apply a configuration record's updates and removals."""
    for item in change.update:
        *above, own = _path(item)
        _inside(config, above)[own] = json.loads(item.value_json)
    for item in change.remove:
        *above, own = _path(item)
        _existing(config, above).pop(own, None)
    config.pop("_wandb", None)


def _path(item: Any) -> list[str]:
    return list(item.nested_key) or [item.key]


def _inside(config: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    for key in keys:
        if not isinstance(config.get(key), dict):
            config[key] = {}
        config = config[key]
    return config


def _existing(config: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    for key in keys:
        below = config.get(key)
        config = below if isinstance(below, dict) else {}
    return config


def _run_log(content: _Content, path: Path, root: Path) -> RunLog:
    history, notes = history_from_wandb(content.rows)
    run_id = content.run.run_id if content.run else path.stem.removeprefix("run-")
    return RunLog(
        id=path.relative_to(root).as_posix() if path != root else path.name,
        name=(content.run.display_name if content.run else "") or run_id,
        source="wandb_file",
        history=history,
        config=content.config,
        state=_state(content.exit_code, path),
        created=_started(content.run),
        notes=(*notes, *_damage(content)),
    )


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


def _damage(content: _Content) -> list[str]:
    """Return a sentence for everything of the log that could not be read."""
    notes = []
    if content.lost[0]:
        notes.append("{} bytes in {} place(s) of the log were damaged or cut".format(*content.lost))
    if content.unreadable:
        notes.append(f"{content.unreadable} record(s) of the log could not be decoded")
    if content.run is None:
        notes.append("the log has no record of the run; its name is the file's")
    elif content.run.forked:
        notes.append("the run is a fork; only the rows of this log are read")
    return notes
