"""Text logs: verl's console and file loggers, its forks' and other trainers' JSON.

The console logger prints ``step:12 - key:value - key:value`` among everything else; Ray puts
``(TaskRunner pid=7)`` in front, and progress bars share the line. The file logger writes
``{"step": 12, "data": {...}}``; other loggers write the metrics beside the step, the Hugging Face
Trainer a list of such rows as ``log_history`` of its state. One file may hold several runs: each
starts where the configuration is printed again or the step falls back.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cbsbayes.errors import listed
from cbsbayes.logs.run_config import lookup
from cbsbayes.logs.run_log import NoRunsError, Origin, RunLog, flat_metrics, history_from_rows
from cbsbayes.logs.run_name import run_name
from cbsbayes.logs.text import DAMAGED, PrintedConfig, read_bytes, read_lines

__all__ = ["parse_line", "parse_row", "read_records", "read_trainer_state", "read_verl"]

_START = re.compile(r"(?<![\w/.@-])step:(\d{1,15}) - ", re.ASCII)
_LITERAL = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?|nan|inf)|True|False"
_VALUE = rf"(?:np\.\w+\((?P<inner>{_LITERAL})\)|(?P<outer>{_LITERAL}))"
_FIELD = re.compile(rf"(?P<key>.+):{_VALUE}", re.ASCII)
_LAST = re.compile(rf"(?P<key>.+?):{_VALUE}(?![\d.eE])", re.ASCII)
_BOOLS = {"True": 1.0, "False": 0.0}
_STEPS = ("step", "_step", "global_step", "Step")
_GENERATIONS = frozenset({"input", "output", "prompt", "response", "completion", "messages"})
_NOT_ROWS = 1000  # lines without one row after which a file of JSON lines is no log
_OUT_OF_ORDER = 2  # steps that an asynchronous logger may be late by

type Row = tuple[float, Mapping[str, Any]]


@dataclass
class _Start:
    """What one start of the trainer logged."""

    config: Mapping[str, Any]
    rows: list[Row] = field(default_factory=list)
    last: float = -math.inf

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.last = max(self.last, row[0])

    def begins_again(self, step: float) -> bool:
        return step < self.last and (
            step <= self.rows[0][0] or step < self.last - _OUT_OF_ORDER)


def parse_line(line: str) -> tuple[float, dict[str, float], list[str]] | None:
    """Parse one line of a console log.

    Parameters
    ----------
    line : str
        Without ANSI colours, with its line feed. A line without one may have been cut, so a
        bare number at its very end is not trusted.

    Returns
    -------
    step : float
        Trainer step.
    values : dict of str to float
        By key as logged; a key may hold colons, so a value starts at the last one.
    unread : list of str
        Fields without a number.

    None where the line is no row of the logger.
    """
    start = _START.search(line)
    if start is None:
        return None
    fields = line[start.end() :].split(" - ")
    values: dict[str, float] = {}
    unread = []
    for i, text in enumerate(fields):
        last = i == len(fields) - 1
        found = _FIELD.fullmatch(text.strip())
        if found is None and last:  # a progress bar may follow the last value
            found = _LAST.match(text)
        cut = last and found is not None and found["outer"] and found.end() == len(text)
        if found is None or cut or DAMAGED in found["key"]:
            unread.append(text.strip())
        else:
            number = found["inner"] or found["outer"]
            values[found["key"]] = _BOOLS[number] if number in _BOOLS else float(number)
    return (float(start[1]), values, unread) if values else None


def parse_row(line: str) -> Row | None:
    """Parse one JSON line: a step and the metrics under ``data``, beside it or nested.

    Returns
    -------
    (float, mapping) or None
        None where the line is no such row, e.g. cut or a generated text with its score.
    """
    try:
        return _row_of(json.loads(line)) if line.startswith("{") and DAMAGED not in line else None
    except (ValueError, RecursionError):
        return None


def _row_of(entry: Any) -> Row | None:
    if not isinstance(entry, dict) or not _GENERATIONS.isdisjoint(entry):
        return None
    key = next((key for key in _STEPS if key in entry), "")
    step = entry.get(key)
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 <= step < 1e15:
        return None
    data = entry.get("data")
    if isinstance(data, dict):
        return float(step), data
    metrics = {k: v for k, v in flat_metrics(entry) if k != key}
    numeric = any(isinstance(v, int | float) for v in metrics.values())
    return (float(step), metrics) if numeric else None


def read_verl(path: Path, root: Path) -> list[RunLog]:
    """Read the runs of one text log.

    Parameters
    ----------
    path : Path
        A file of JSON lines, or saved console output, e.g. of ``| tee`` or of Slurm.
    root : Path
        The folder given by the user: ids are relative to it.

    Returns
    -------
    list of RunLog
        One per start of the trainer, with the configuration that it printed.

    Raises
    ------
    NoRunsError
        Where no line is a row of a logger.
    OSError
        Where the file cannot be read.
    """
    starts, console, notes = _starts(path)
    if not starts:
        raise NoRunsError(
            f"{path} holds no line of verl's console or file logger; such a line reads "
            'step:12 - actor/lr:1e-06 - val-core/...:0.5 or {"step": 12, "data": {...}}')
    names = [str(lookup(start.config, "trainer.experiment_name") or "") for start in starts]
    named = len(set(names)) > 1 and all(names)
    ident = path.relative_to(root).as_posix()
    logs = []
    for number, start in enumerate(starts, start=1):
        history, mended = history_from_rows(_from_one(start.rows))
        logs.append(RunLog(
            id=ident if len(starts) == 1 else f"{ident}#{number}",
            name=names[number - 1] if named else run_name(path, root),
            source="verl_console" if console else "verl_jsonl", history=history,
            settings=(Origin("configuration", start.config),) if start.config else (),
            notes=(*notes, *mended)))
    return logs


def _starts(path: Path) -> tuple[list[_Start], bool, list[str]]:
    """Return what each start of the trainer logged, whether to the console, and notes."""
    printed, starts, console = PrintedConfig(), [_Start({})], False
    unread: list[str] = []
    other: list[int] = []  # lines that are no row
    damaged: list[int] = []  # those of them that are no text
    for number, line in enumerate(read_lines(path), start=1):
        logged = parse_line(line)
        row = logged[:2] if logged else parse_row(line)
        if row is None:
            if printed.feed(line):
                starts.append(_Start(printed.config))
            elif line.strip() and len(other) < _NOT_ROWS:
                other.append(number)
                damaged += [number] if DAMAGED in line else []
            elif line.startswith("{") and not starts[-1].rows:
                break
            continue
        printed.forget()
        if starts[-1].begins_again(row[0]):
            starts.append(_Start(starts[-1].config))
        starts[-1].add(row)
        if logged:
            console = True
            unread += logged[2]
    notes = []
    if unread:
        shown = listed([text[:40] for text in dict.fromkeys(unread)], limit=3)
        notes.append(f"{path.name}: fields without a number, left out: {len(unread)}, {shown}")
    broken = damaged if console else other
    if broken:
        notes.append(f"{path.name}: lines cut or damaged, left out: {len(broken)} "
                     f"(line {listed(map(str, broken))})")
    return [start for start in starts if start.rows], console, notes


def _from_one(rows: list[Row]) -> list[Row]:
    """Count trainer steps from one; verl 0.1 called its first step 0."""
    trained = [any(key.startswith("actor/") for key in values) for _, values in rows]
    shift = any(step == 0 and own for (step, _), own in zip(rows, trained, strict=True))
    return [(step + (shift and own), values)
            for (step, values), own in zip(rows, trained, strict=True)]


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read a ``.json`` file: the ``log_history`` of a trainer's state, or records of a table.

    Raises
    ------
    NoRunsError
        Where the file holds neither.
    OSError
        Where the file cannot be read.
    """
    try:
        tree: Any = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise NoRunsError(f"{path} is no whole JSON file ({error})") from None
    rows = tree.get("log_history") if isinstance(tree, dict) else tree
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise NoRunsError(f"{path} holds no history: neither the log_history of a trainer's state "
                          "nor a list of records")
    return rows


def read_trainer_state(path: Path, root: Path, rows: list[dict[str, Any]]) -> list[RunLog]:
    """Return the run of a trainer's state from its records; raise `NoRunsError` if none is one."""
    history, notes = history_from_rows(row for entry in rows if (row := _row_of(entry)))
    if history.empty:
        raise NoRunsError(f"{path} holds no row with a step and a number")
    return [RunLog(path.relative_to(root).as_posix(), run_name(path, root), "history", history,
                   notes=tuple(notes))]
