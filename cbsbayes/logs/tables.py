"""Tables of a user: curves, crossings, and histories of one run as other tools export them.

A table of curves has a row per run, step and validation set: ``run, step, accuracy`` and a batch
(``n_prompts, n_rollouts``, or ``total_batch`` for one-axis data); optional ``metric, n_items,
seconds_per_step``, ``signal_fraction`` or ``frac_zero_adv``, ``direction`` and whatever
`cbsbayes.logs.run_log` lets a user state. A table of crossings has ``run, threshold``, a batch,
and ``steps`` or ``steps_lower, steps_upper``: the last evaluation below the threshold (0: it was
passed at the first one) and the first at or above it (``inf``: never reached).

Nothing is guessed: a numeric cell is a number, blank, or a word for NaN or infinity; anything else
is an error that names the row, the column and the value.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError, listed
from cbsbayes.logs.run_log import (
    RUN_COLUMNS,
    STATED,
    Field,
    NoRunsError,
    Origin,
    RunLog,
    history_from_rows,
    to_number,
    validation_key,
)
from cbsbayes.logs.run_name import run_name
from cbsbayes.logs.text import read_bytes

__all__ = ["Table", "load_table", "logs_of", "read_crossings", "read_curves", "read_runs",
           "read_table"]

_PER_RUN = (*STATED, "direction")
_CURVES = ("run", "step", "accuracy", "metric", "n_items", "seconds_per_step", "signal_fraction",
           "frac_zero_adv", *_PER_RUN)
_CROSSINGS = ("run", "threshold", "steps", "steps_lower", "steps_upper", *_PER_RUN)
_STEPS = ("_step", "step", "Step", "global_step", "train/global_step", "training/global_step")
_RANGES = ("__MIN", "__MAX")  # of a wandb chart's export
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)

_SHARE = (lambda x: np.isnan(x) | ((x >= 0) & (x <= 1)), "from 0 to 1")
_VALID = {  # what numbers may be that no later step checks
    "step": (lambda x: np.isfinite(x) & (x >= 0), "a finite number from 0"),
    "signal_fraction": _SHARE, "frac_zero_adv": _SHARE}
_COLUMNS = {**RUN_COLUMNS, "direction": RUN_COLUMNS["phase"],
            "n_items": Field("validation items", dtype="int64")}
_EXTRAS = {"seconds_per_step": "perf/time_per_step", "signal_fraction": "signal_fraction",
           "frac_zero_adv": "frac_zero_adv"}  # to the keys that logs use for them


class Table:
    """A table and where it came from; every column comes out checked.

    Parameters
    ----------
    frame : pandas.DataFrame
        Cells as text or as numbers.
    origin : str
        The file, for messages.
    """

    def __init__(self, frame: pd.DataFrame, origin: str) -> None:
        self.frame = frame.reset_index(drop=True)
        self.origin = origin

    def has(self, column: str) -> bool:
        """Return whether the column is there."""
        return column in self.frame.columns

    def require(self, columns: Iterable[str], kind: str) -> None:
        """Raise `NoRunsError` unless the columns are there."""
        there = [str(name) for name in self.frame.columns]
        missing = next((name for name in columns if name not in there), None)
        if missing is not None:
            near = difflib.get_close_matches(missing, there, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise NoRunsError(
                f"{self.origin} has no column {missing!r}{hint}, only {listed(there)}; {kind} "
                f"needs {', '.join(columns)} and n_prompts, n_rollouts or total_batch")

    def unused(self, known: Iterable[str]) -> list[str]:
        """Return a note that names the columns that nothing reads."""
        unknown = [str(name) for name in self.frame.columns if name not in set(known)]
        return [f"{self.origin}: columns not used: {listed(unknown, 20)}"] if unknown else []

    def numbers(self, column: str) -> np.ndarray:
        """Return a column as float64, blank cells as NaN; raise where a cell is impossible."""
        values = np.array([self._number(cell, row, column)
                           for row, cell in enumerate(self.frame[column].astype(object))])
        if column in _VALID and not (good := _VALID[column][0](values)).all():
            row = int(np.argmin(good))
            self.fault(row, column, float(values[row]), _VALID[column][1])
        return values

    def _number(self, cell: Any, row: int, column: str) -> float:
        if isinstance(cell, str) and _NUMBER.fullmatch(cell.strip()):
            return float(cell)
        number = None if isinstance(cell, bool) else to_number(None if cell is pd.NA else cell)
        if number is None:
            self.fault(row, column, cell, "a number, or blank or NaN where unknown")
        return number

    def texts(self, column: str) -> list[str]:
        """Return a column as stripped text, missing cells as ``""``."""
        cells = self.frame[column].astype(object)
        return ["" if pd.isna(cell) else str(int(cell)) if isinstance(cell, float)
                and cell.is_integer() else str(cell).strip() for cell in cells]

    def fault(self, row: int, column: str, value: object, valid: str) -> NoReturn:
        """Raise the error for one cell."""
        shown = f"{value:g}" if isinstance(value, float) else repr(value)
        raise CBSDataError(
            f"{self.origin}, data row {row + 1}: {column} is {shown}; valid: {valid}")

    def runs(self) -> list[str]:
        """Return each row's run."""
        names = self.texts("run")
        if "" in names:
            self.fault(names.index(""), "run", "", "a text that names the run")
        return names

    def values(self, column: str) -> list[Any]:
        """Return each row's setting, None where it is unknown; raise where it is impossible."""
        known, values = _COLUMNS[column], []
        cells = self.texts(column) if known.kind == "U" else self.numbers(column).tolist()
        for row, cell in enumerate(cells):
            try:
                values.append(known.read(cell) if known.known(cell) else None)
            except ValueError as error:
                self.fault(row, column, cell, str(error))
        return values

    def single(self, rows: Mapping[str, Sequence[Any]]) -> dict[tuple[Any, ...], Any]:
        """Return the last column's known value for what stands in the others, the run first.

        Raises
        ------
        CBSDataError
            Where it has several.
        """
        _, *by, column = rows
        found: dict[tuple[Any, ...], Any] = {}
        for row, (run, *place, value) in enumerate(zip(*rows.values(), strict=True)):
            if pd.isna(value):
                continue
            first = found.setdefault((run, *place), value)
            if first != value:
                at = ", ".join(f"{name} {part!r}" for name, part in zip(by, place, strict=True))
                raise CBSDataError(
                    f"{self.origin}, data row {row + 1}: run {run!r} has several values of "
                    f"{column} ({first}, {value}){f' at {at}' if at else ''}; give every run an "
                    "id of its own in column 'run'")
        return found

    def settings(self, *also: str) -> dict[str, dict[str, Any]]:
        """Return what the table states about each run, in order of appearance.

        A column may be filled in every row or in some rows of a run.

        Raises
        ------
        CBSDataError
            Where a value is impossible or changes within a run.
        """
        runs = self.runs()
        stated: dict[str, dict[str, Any]] = {run: {} for run in runs}
        for column in filter(self.has, (*_PER_RUN, *also)):
            for (run,), value in self.single({"run": runs, column: self.values(column)}).items():
                stated[run][column] = value
        return stated


def load_table(path: Path) -> Table:
    """Read a CSV (``.tsv``: tabs) or Parquet file without interpreting its cells.

    Raises
    ------
    NoRunsError
        Where the file is no such table, has no rows, or repeats a column.
    OSError
        Where the file cannot be read.
    """
    parquet = path.suffix.lower() == ".parquet"
    frame = _read_parquet(path) if parquet else _read_csv(path)
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise NoRunsError(f"{path} has column {repeated[0]!r} twice; keep one of them")
    if frame.empty:
        raise NoRunsError(f"{path} has no rows; a table needs a header and one row per evaluation")
    return Table(frame, str(path))


def _read_csv(path: Path) -> pd.DataFrame:
    tabs = "\t" if ".tsv" in path.name.lower() else ","
    try:
        text = read_bytes(path).decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=tabs,
                                          strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise NoRunsError(f"{path} is no CSV in UTF-8 ({error}); save it as such") from None
    if "\0" in text:
        raise NoRunsError(f"{path} is no CSV in UTF-8 (it holds NUL bytes); save it as such")
    if not rows:
        raise NoRunsError(f"{path} is empty; a table needs a header and one row per evaluation")
    header = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise NoRunsError(
                f"{path}, data row {number}: {len(row)} cells under {len(header)} columns; "
                "write one cell per column, quoted where it holds a comma")
    return pd.DataFrame(rows[1:], columns=pd.Index(header, dtype=object), dtype=object)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:  # without partitioning a folder called a=b would become a column
        frame = pd.read_parquet(path, engine="pyarrow", partitioning=None)
        frame = frame.astype(dict.fromkeys(frame.select_dtypes("string"), object))
    except Exception as error:  # whatever a damaged file makes pyarrow and pandas stumble over
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).partition("\n")[0]
        raise NoRunsError(f"{path} is no readable Parquet file ({reason}); write it anew") from None
    named: list[Any] = [level for level in frame.index.names
                        if level is not None and level not in frame]
    return frame.reset_index(level=named)


def read_table(path: Path, root: Path) -> tuple[list[RunLog], list[str]]:
    """Read the runs of a table, whatever kind its columns make it.

    Parameters
    ----------
    path : Path
        A CSV, TSV or Parquet file.
    root : Path
        The folder given by the user.

    Returns
    -------
    logs : list of RunLog
        One per run, in order of appearance.
    notes : list of str
        Columns that nothing reads, rows written twice.

    Raises
    ------
    NoRunsError
        Where the file holds no table of runs.
    CBSDataError
        Where a cell is impossible, a per-run column changes within a run, or two rows give one
        evaluation or crossing different values.
    """
    return logs_of(load_table(path), path, root)


def logs_of(table: Table, path: Path, root: Path) -> tuple[list[RunLog], list[str]]:
    """Return the runs of a table in memory; see `read_table`."""
    columns = set(table.frame.columns)
    if columns.isdisjoint({"run", "accuracy", "n_prompts", "total_batch"}):
        return _histories(table, run_name(path, root), path.relative_to(root).as_posix()), []
    if columns.isdisjoint({"step", "accuracy"}) and columns & set(_CROSSINGS[1:5]):
        return read_crossings(table)
    return read_curves(table)


def _histories(table: Table, name: str, ident: str) -> list[RunLog]:
    """Return the runs of an exported history, or of a wandb chart's ``RUN - METRIC`` columns."""
    steps = next(filter(table.has, _STEPS), None)
    if steps is None:
        table.require(("run", "step", "accuracy"), "a table of curves")
        raise NoRunsError(f"{table.origin} has no column of steps ({', '.join(_STEPS)})")
    columns = [str(column) for column in table.frame.columns
               if column and column not in (steps, "Wall time")
               and not str(column).startswith(("_", "Unnamed"))
               and not str(column).endswith(_RANGES)]
    chart = any(" - " in column for column in columns)
    parts: dict[str, dict[str, str]] = {}
    for column in columns:
        run, separator, key = column.rpartition(" - ")
        if not chart:
            alone = steps == "Step" and columns == ["Value"]  # TensorBoard's export of one tag
            parts.setdefault(name, {})[column] = validation_key("value") if alone else column
        elif separator:
            parts.setdefault(run, {})[column] = key
    logs = []
    at = table.numbers(steps)
    for run, keys in parts.items():
        rows = table.frame[list(keys)].rename(columns=keys).apply(pd.to_numeric, errors="coerce")
        rows = rows.dropna(axis=1, how="all")  # text, lists and media are no metrics
        good = np.isfinite(at) & (at >= 0) & rows.notna().any(axis=1).to_numpy()
        history, notes = history_from_rows(zip(at[good], rows[good].to_dict("records"),
                                               strict=True))
        logs.append(RunLog(f"{ident}#{run}" if chart else ident, run, "history", history,
                           notes=tuple(notes)))
    if all(log.history.empty for log in logs):
        raise NoRunsError(f"{table.origin} holds no metric of numbers beside {steps}")
    return logs


def read_curves(table: Table) -> tuple[list[RunLog], list[str]]:
    """Read the runs of a table of curves; the set m is logged under ``val-core/m/acc/mean@1``."""
    table.require(("run", "step", "accuracy"), "a table of curves")
    metric = table.texts("metric") if table.has("metric") else [""] * len(table.frame)
    values = {"accuracy": table.numbers("accuracy"),
              **{key: table.numbers(name) for name, key in _EXTRAS.items() if table.has(name)}}
    where = {"run": table.runs(), "metric": [name or "accuracy" for name in metric]}
    rows = pd.DataFrame({**where, "step": table.numbers("step"), **values})
    table.single({name: rows[name].tolist() for name in (*where, "step", "accuracy")})
    settings = table.settings()
    if table.has("n_items"):
        sizes = table.single({**where, "n_items": table.values("n_items")})
        for (run, name), size in sizes.items():
            settings[run].setdefault("n_items", {})[name] = size
    logs = []
    for run, own in rows.groupby("run", sort=False):
        history, _ = history_from_rows(
            (row["step"], {validation_key(row["metric"]) if key == "accuracy" else key: row[key]
                           for key in values}) for row in own.to_dict("records"))
        logs.append(RunLog(str(run), str(run), "table", history,
                           (Origin("table", settings[str(run)]),)))
    repeated = int(rows.duplicated(["run", "metric", "step"]).sum())
    twice = [f"{table.origin}: rows written twice, counted once: {repeated}"]
    return logs, [*table.unused(_CURVES), *(twice if repeated else [])]


def read_crossings(table: Table) -> tuple[list[RunLog], list[str]]:
    """Read the runs of a table of crossings; steps count optimizer updates."""
    bounds = ("steps",) if table.has("steps") else ("steps_lower", "steps_upper")
    table.require(("run", "threshold", *bounds), "a table of crossings")
    if table.has("steps") and (table.has("steps_lower") or table.has("steps_upper")):
        raise CBSDataError(f"{table.origin} has both steps and steps_lower, steps_upper; keep the "
                           "bounds, which can say more")
    rows = pd.DataFrame({"run": table.runs(), "threshold": table.numbers("threshold"),
                         "steps_lower": table.numbers(bounds[0]),
                         "steps_upper": table.numbers(bounds[-1])})
    twice = rows.duplicated(["run", "threshold"])
    if twice.any():
        row = int(twice.argmax())
        raise CBSDataError(
            f"{table.origin}, data row {row + 1}: run {rows['run'][row]!r} has threshold "
            f"{rows['threshold'][row]:g} twice; give every run an id of its own in column 'run'")
    settings, empty = table.settings(), history_from_rows([])[0]
    logs = [RunLog(str(run), str(run), "crossings", empty, (Origin("table", settings[str(run)]),),
                   own.drop(columns="run").sort_values("threshold", ignore_index=True))
            for run, own in rows.groupby("run", sort=False)]
    return logs, table.unused(_CROSSINGS)


def read_runs(path: Path) -> dict[str, dict[str, Any]]:
    """Read a user's table of runs: what is to be laid over what their logs say.

    Parameters
    ----------
    path : Path
        A CSV, TSV or Parquet file with a column ``run`` (a run's name or id) and any of those
        that `cbsbayes.logs.run_log` lets a user state, or ``n_items``.

    Returns
    -------
    dict
        What is stated, by run.

    Raises
    ------
    CBSDataError
        Where there is no column ``run``, a column is not known or a cell is impossible.
    """
    table = load_table(path)
    table.require(("run",), "a table of runs")
    unknown = table.unused(("run", "n_items", *_PER_RUN))
    if unknown:
        raise CBSDataError(f"{unknown[0]}; valid: run, {', '.join(_PER_RUN)}, n_items")
    return table.settings("n_items")
