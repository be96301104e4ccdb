"""wandb runs from the transaction logs ``run-<id>.wandb`` that every run writes, and wandb's rows.

Nothing but the log is sure to be there: an offline run's folder holds neither configuration nor
summary files. wandb ships no reader of the log since 0.30. It is a LevelDB log of protobuf
records: seven bytes (``:W&B``, 0xBEE1, version 0), then blocks of 32768 bytes counted from the
file's first byte. A block holds chunks: CRC-32 of type and payload, length of the payload, type
(1 whole record, 2 first, 3 middle, 4 last piece), payload; fewer than seven bytes at a block's end
are padding.
"""

from __future__ import annotations

import importlib
import json
import math
import struct
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_config import lookup, read_packages
from cbsbayes.logs.run_log import (
    NoRunsError,
    Origin,
    RunLog,
    flat_metrics,
    history_from_rows,
    to_number,
)

__all__ = ["history_from_wandb", "import_wandb", "read_wandb_file", "wandb_records"]

_FILE_HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
_CHUNK_HEADER = struct.Struct("<IHB")
_BLOCK = 32768
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_LIVE_SECONDS = 3600.0  # a log without an exit record that changed this lately may still grow
_TRAINER_STEPS = ("train/global_step", "trainer/global_step", "training/global_step",
                  "global_step")


def import_wandb(module: str = "wandb") -> ModuleType:
    """Import wandb, or one of its modules; raise `CBSDataError` where the extra is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CBSDataError(f"reading wandb runs needs the wandb client ({error}); "
                           "install it with `pip install 'cbsbayes[wandb]'`") from error


def wandb_records(data: bytes) -> tuple[list[bytes], int]:
    """Return the undamaged records of a log, and how many bytes had to be left out.

    A chunk whose checksum fails is left out together with the record it belongs to; where
    the length cannot be right, the rest of the block is. Every other record is read.
    """
    records, lost = [], 0
    pieces: list[memoryview] = []
    for kind, piece in _chunks(memoryview(data)):
        if kind in (_MIDDLE, _LAST) and pieces:
            pieces.append(piece)
        else:
            lost += sum(map(len, pieces))
            whole = kind in (_WHOLE, _FIRST)
            lost += 0 if whole else len(piece)
            pieces = [piece] if whole else []
        if kind in (_WHOLE, _LAST) and pieces:
            records.append(b"".join(pieces))
            pieces = []
    return records, lost + sum(map(len, pieces))


def _chunks(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield type and payload of each chunk; type 0 with the bytes of a damaged one."""
    at = len(_FILE_HEADER)
    if data[:at] != _FILE_HEADER:
        yield 0, data[:at]
    while at < len(data):
        block_end = at - at % _BLOCK + _BLOCK
        start = at + _CHUNK_HEADER.size
        end = min(block_end, len(data))
        if start > block_end:  # padding
            at = block_end
            continue
        checksum, length, kind = (_CHUNK_HEADER.unpack_from(data, at) if start <= end
                                  else (0, 0, 0))
        stop = start + length
        if stop > end or kind == 0:  # cut, nonsense, or zeros that were never written
            kind, start, stop = 0, at, end
        elif zlib.crc32(data[start - 1 : stop]) != checksum:
            kind, start = 0, at
        yield kind, data[start:stop]
        at = stop


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
    records, lost = wandb_records(path.read_bytes())
    if not records:
        raise NoRunsError(f"{path} holds no wandb record; give a log that wandb wrote")
    rows: list[dict[str, Any]] = []
    config: dict[str, Any] = {}
    counters: list[tuple[str, str]] = []
    run, exit_code, unreadable = None, None, 0
    for payload in records:
        try:
            record = decode(payload)
            kind = record.WhichOneof("record_type")
            if kind == "history":
                rows.append({".".join(_path(item)): json.loads(item.value_json)
                             for item in record.history.item})
            elif kind == "config":
                _configure(config, record.config)
            elif kind == "metric" and record.metric.step_metric:
                metric = record.metric
                counters.append((metric.name or metric.glob_name, metric.step_metric))
            elif kind == "run":
                run = record.run
                _configure(config, run.config)
            elif kind == "exit":
                exit_code = record.exit.exit_code
        except (ValueError, RecursionError, not_decoded):  # a frame around what wandb never wrote
            unreadable += 1
    history, notes = history_from_wandb(rows, counters)
    if lost:
        notes.append(f"{lost} bytes of the log were damaged or cut")
    if unreadable:
        notes.append(f"records of the log that could not be decoded: {unreadable}")
    if run is None:
        notes.append("the log has no record of the run; its name is the file's")
    elif run.forked:
        notes.append("the run is a fork; only the rows of this log are read")
    started = run is not None and run.HasField("start_time") and datetime.fromtimestamp(
        run.start_time.seconds, UTC).replace(microsecond=run.start_time.nanos // 1000)
    return RunLog(
        id=path.relative_to(root).as_posix(), source="wandb_file", history=history,
        name=(run and (run.display_name or run.run_id)) or path.stem.removeprefix("run-"),
        settings=(Origin("configuration", config), *read_packages(path.parent / "files")),
        state=_state(exit_code, path), created=started.isoformat() if started else "",
        notes=tuple(notes))


def _configure(config: dict[str, Any], change: Any) -> None:
    """Apply a configuration record's updates and removals."""
    for item in change.update:
        *above, own = _path(item)
        inside = config
        for key in above:
            if not isinstance(inside.get(key), dict):
                inside[key] = {}
            inside = inside[key]
        inside[own] = json.loads(item.value_json)
    for item in change.remove:
        *above, own = _path(item)
        found = lookup(config, ".".join(above)) if above else config
        if isinstance(found, dict):
            found.pop(own, None)
    config.pop("_wandb", None)


def _path(item: Any) -> list[str]:
    return list(item.nested_key) or [item.key]


def _state(exit_code: int | None, path: Path) -> str:
    if exit_code is not None:
        return "finished" if exit_code == 0 else "failed"
    age = time.time() - path.stat().st_mtime
    return "running" if age < _LIVE_SECONDS else "crashed"


def history_from_wandb(
    rows: Iterable[Mapping[str, Any]], step_metrics: Sequence[tuple[str, str]] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """Gather wandb's rows into a history; see `cbsbayes.logs.run_log.history_from_rows`.

    wandb's own ``_step`` counts calls of its logger. It is the trainer's step where the trainer
    logs so (verl does); otherwise the step is the metric that ``define_metric`` names, or
    the column ``global_step`` where that differs from ``_step``.

    Parameters
    ----------
    rows : iterable of mapping
        Each with ``_step`` and any number of metrics. Nested mappings become dotted keys;
        histograms, media and wandb's own keys (``_runtime`` …) are left out.
    step_metrics : sequence of (str, str)
        Metrics, by name or with a star at the end, and the metric that counts their steps.

    Returns
    -------
    history : pandas.DataFrame
        Index ``step`` (float64, sorted, unique), float64 columns sorted by canonical key.
    notes : list of str
        What was mended or left out.
    """
    flat = [(to_number(row.get("_step")), dict(flat_metrics(row, by="."))) for row in rows]
    counters = list(step_metrics) or [("*", key) for key in _TRAINER_STEPS if any(
        row.get(key, step) != step for step, row in flat)][:1]
    placed = list(_placed(flat, counters))
    known = [(step, row) for step, row in placed if step is not None and math.isfinite(step)]
    history, notes = history_from_rows(known)
    if len(known) < len(placed):
        notes.append(f"rows without a step left out: {len(placed) - len(known)}")
    return history, notes


def _placed(
    flat: Sequence[tuple[float | None, Mapping[str, Any]]], counters: Sequence[tuple[str, str]],
) -> Iterator[tuple[float | None, Mapping[str, Any]]]:
    """Yield each row's metrics at the steps that count them."""
    latest: dict[str, float] = {}
    names = {counter for _, counter in counters}
    for own_step, row in flat:
        latest |= {key: number for key in names & row.keys()
                   if (number := to_number(row[key])) is not None and math.isfinite(number)}
        start = 0.0 if own_step == 0 else None  # before training, whatever counts
        parts: dict[float | None, dict[str, Any]] = defaultdict(dict)
        for key, value in row.items():
            counter = _counter(key, counters)
            if key not in names:
                parts[latest.get(counter, start) if counter else own_step][key] = value
        yield from (parts or {own_step: {}}).items()


def _counter(key: str, counters: Sequence[tuple[str, str]]) -> str:
    """Return what counts the steps of a metric: its own entry, else the longest that fits."""
    fits = [(name != key, -len(name), counter) for name, counter in counters
            if name == key or (name.endswith("*") and key.startswith(name[:-1]))]
    return min(fits)[2] if fits else ""
