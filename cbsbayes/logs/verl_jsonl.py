"""verl's ``file`` logger: one JSON object per line, ``{"step": 12, "data": {...}}``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cbsbayes.logs.history import NoRunsError, history_from_rows, listed
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.side_car import find_config, run_name
from cbsbayes.logs.text import DAMAGED, read_lines

__all__ = ["is_verl_jsonl", "read_verl_jsonl"]

_SNIFFED = 20  # lines looked at to tell verl's log from any other JSONL


def is_verl_jsonl(path: Path) -> bool:
    """Return whether one of the first 20 lines is a row of verl's file logger."""
    return any(_row(line) for line, _ in zip(read_lines(path), range(_SNIFFED), strict=False))


def read_verl_jsonl(path: Path, root: Path) -> RunLog:
    """Read one run from the log of verl's ``file`` logger.

    NaN and infinity are ``null`` there (NaN here). A line that is no row is left out with a
    note; a crash can cut the last one.

    Parameters
    ----------
    path : Path
        The ``.jsonl`` file.
    root : Path
        The folder given by the user: ids are relative to it, configurations are looked for
        beside the file and up to it.

    Returns
    -------
    RunLog
        With the side-car configuration where there is one.

    Raises
    ------
    NoRunsError
        Where no line is a row of verl's logger.
    OSError
        Where the file cannot be read.
    """
    broken: list[int] = []
    history, notes = history_from_rows(_rows(path, broken))
    if history.empty:
        raise NoRunsError(
            f"{path} holds no row of verl's file logger; "
            'each line should read {"step": 12, "data": {"val-core/...": 0.5}}'
        )
    config, config_notes = find_config(path, root)
    return RunLog(
        id=path.relative_to(root).as_posix(),
        name=run_name(path),
        source="verl_jsonl",
        history=history,
        config=config,
        notes=(*_broken_note(path, broken), *notes, *config_notes),
    )


def _rows(path: Path, broken: list[int]) -> Iterator[tuple[float, Mapping[str, Any]]]:
    """Yield the file's rows; numbers of lines that are none go into `broken`."""
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        row = _row(line)
        if row is None:
            broken.append(number)
        else:
            yield row


def _row(line: str) -> tuple[float, Mapping[str, Any]] | None:
    if DAMAGED in line:
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("data"), dict):
        return None
    step = entry.get("step")
    if isinstance(step, bool) or not isinstance(step, int | float):
        return None
    return (float(step), entry["data"]) if math.isfinite(step) and step >= 0 else None


def _broken_note(path: Path, broken: list[int]) -> list[str]:
    if not broken:
        return []
    places = listed(map(str, broken))
    return [f"{path.name}: {len(broken)} line(s) cut or damaged, left out (line {places})"]
