"""A user's table as checked columns: what a cell may say, and what a run must agree on.

Nothing is guessed: a numeric cell is a number, blank, or a word for NaN or infinity; anything else
is an error that names the row, the column and the value.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.history import NoRunsError, listed, to_number
from cbsbayes.logs.run_columns import RUN_COLUMNS, STATED
from cbsbayes.logs.text import open_bytes

__all__ = ["PER_RUN", "Table", "load_table"]

PER_RUN = (*STATED, "direction")
"""Columns that a run has one value of."""

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


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

    def has(self, *columns: str) -> bool:
        """Return whether all the columns are there."""
        return set(columns) <= set(self.frame.columns)

    def require(self, columns: Sequence[str], kind: str) -> None:
        """Raise `NoRunsError` unless the columns are there."""
        missing = [name for name in columns if not self.has(name)]
        if missing:
            there = [str(name) for name in self.frame.columns]
            near = difflib.get_close_matches(missing[0], there, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise NoRunsError(
                f"{self.origin} has no column {missing[0]!r}{hint}, only {listed(there)}; {kind} "
                f"needs {', '.join(columns)} and n_prompts, n_rollouts or total_batch")

    def unused(self, known: Iterable[str]) -> list[str]:
        """Return a note that names the columns that nothing reads."""
        unknown = [str(name) for name in self.frame.columns if name not in set(known)]
        return [f"{self.origin}: columns not used: {listed(unknown, 20)}"] if unknown else []

    def numbers(self, column: str) -> np.ndarray:
        """Return a column as float64, blank cells as NaN; raise where a cell is no number."""
        values = self.frame[column]
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        cells = values.astype(object).to_numpy()
        return np.array([self._number(cell, row, column) for row, cell in enumerate(cells)])

    def _number(self, cell: Any, row: int, column: str) -> float:
        if isinstance(cell, str):
            text = cell.strip()
            number = float(text) if _NUMBER.fullmatch(text) else to_number(text)
        else:
            number = None if isinstance(cell, bool) else to_number(None if cell is pd.NA else cell)
        if number is None:
            self.fault(row, column, cell, "a number, or blank or NaN where unknown")
        return number

    def texts(self, column: str) -> list[str]:
        """Return a column as stripped text, missing cells as ``""``."""
        return [_text(cell) for cell in self.frame[column].astype(object)]

    def fault(self, row: int, column: str, value: object, valid: str) -> NoReturn:
        """Raise the error for one cell."""
        shown = f"{value:g}" if isinstance(value, float) else repr(value)
        raise CBSDataError(
            f"{self.origin}, data row {row + 1}: {column} is {shown}; valid: {valid}")

    def check(self, column: str, values: np.ndarray, good: np.ndarray, valid: str) -> None:
        """Raise for the first value that is not good."""
        if not good.all():
            row = int(np.argmin(good))
            self.fault(row, column, float(values[row]), valid)

    def runs(self) -> tuple[list[str], np.ndarray]:
        """Return the runs in order of appearance and each row's place among them."""
        names = self.texts("run")
        if "" in names:
            self.fault(names.index(""), "run", "", "a text that names the run")
        codes, unique = pd.factorize(np.array(names, dtype=object))
        return [str(name) for name in unique], codes

    def settings(self) -> list[dict[str, Any]]:
        """Return what the table states about each run, in the order of `runs`.

        A column may be filled in every row or in some rows of a run.

        Raises
        ------
        CBSDataError
            Where a value is impossible or changes within a run.
        """
        runs, codes = self.runs()
        stated: list[dict[str, Any]] = [{} for _ in runs]
        for column in filter(self.has, PER_RUN):
            for row, (run, value) in enumerate(zip(codes, self._values(column), strict=True)):
                if value is not None and stated[run].setdefault(column, value) != value:
                    raise CBSDataError(
                        f"{self.origin}, data row {row + 1}: run {runs[run]!r} has several values "
                        f"of {column} ({stated[run][column]}, {value}); give every run an id of "
                        "its own in column 'run'")
        return stated

    def _values(self, column: str) -> Iterable[Any]:
        """Yield the checked value of each row, None where it is unknown."""
        known = RUN_COLUMNS.get(column, RUN_COLUMNS["phase"])
        if known.dtype is np.str_:
            yield from (text or None for text in self.texts(column))
            return
        for row, number in enumerate(self.numbers(column).tolist()):
            try:
                yield known.read(number) if known.known(number) else None
            except ValueError as error:
                self.fault(row, column, number, str(error))


def _text(cell: Any) -> str:
    if cell is None or cell is pd.NA or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


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
        with open_bytes(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, delimiter=tabs, strict=True) if row]
    except (UnicodeDecodeError, csv.Error, EOFError) as error:
        raise NoRunsError(f"{path} is no CSV in UTF-8 ({error}); save it as such") from None
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
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:  # ParquetFile, because read_table makes columns out of folder names like a=b
        frame = pq.ParquetFile(path).read().to_pandas()
        frame = frame.astype({name: object for name in frame.select_dtypes("string")})
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise NoRunsError(f"{path} is no readable Parquet file ({reason}); write it anew") from None
    named = [name for name in frame.index.names if name is not None]
    return frame.reset_index(level=[n for n in named if n not in frame]).reset_index(drop=True)
