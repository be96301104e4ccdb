"""Columns of a user's table as checked arrays: what a cell may say, and what a run must agree on.

Nothing is guessed: a cell of a numeric column is a number, blank, or one of the words for NaN
and infinity; anything else is an error that names the row, the column and the value.
"""

from __future__ import annotations

import csv
import difflib
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.history import NoRunsError, listed, to_number

__all__ = ["Table", "load_table"]

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_COUNTS = ("n_prompts", "n_rollouts", "mini_batch_prompts", "ppo_epochs", "seed")
_AMOUNTS = ("total_batch", "learning_rate")
_LABELS = ("phase", "model", "dataset", "algorithm")
_DIRECTIONS = ("increasing", "decreasing")


def load_table(path: Path) -> Table:
    """Read a CSV or Parquet file without interpreting its cells.

    Parameters
    ----------
    path : Path
        ``.csv`` (UTF-8, comma-separated, one header line) or ``.parquet``.

    Returns
    -------
    Table
        All cells of a CSV as text; a Parquet file's columns with their own types.

    Raises
    ------
    CBSDataError
        Where the file is no such table, has no rows, or repeats a column.
    OSError
        Where the file cannot be read.
    """
    frame = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise CBSDataError(f"{path} has column {repeated[0]!r} twice; keep one of them")
    if frame.empty:
        raise CBSDataError(f"{path} has no rows; a table needs a header and one row per evaluation")
    return Table(frame, str(path))


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CBSDataError(f"{path} is no CSV in UTF-8 ({error}); save it as such") from None
    if not rows:
        raise CBSDataError(f"{path} is empty; a table needs a header and one row per evaluation")
    header = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise CBSDataError(
                f"{path}, data row {number}: {len(row)} cells under {len(header)} columns; "
                "write one cell per column, quoted where it holds a comma"
            )
    return pd.DataFrame(rows[1:], columns=pd.Index(header, dtype=object), dtype=object)


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:  # ParquetFile, because read_table makes columns out of folder names like a=b
        frame = pq.ParquetFile(path).read().to_pandas()
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise CBSDataError(
            f"{path} is no readable Parquet file ({reason}); write it anew"
        ) from None
    named = [name for name in frame.index.names if name is not None]
    return frame.reset_index(level=named).reset_index(drop=True) if named else frame


class Table:
    """A table and where it came from; every column comes out checked.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row per evaluation or crossing.
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
        """Check that the columns and a batch size are there.

        Parameters
        ----------
        columns : sequence of str
            Required columns besides the batch size.
        kind : str
            What the table would be, for the message.

        Raises
        ------
        NoRunsError
            Names the first missing column, the nearest one there is, and all that is needed.
        """
        one_axis = self.has("total_batch") and not self.has("n_prompts", "n_rollouts")
        batch = ["total_batch"] if one_axis else ["n_prompts", "n_rollouts"]
        missing = [name for name in [*columns, *batch] if not self.has(name)]
        if not missing:
            return
        there = [str(name) for name in self.frame.columns]
        near = difflib.get_close_matches(missing[0], there, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        separator = "; cells are separated by commas" if len(there) == 1 else ""
        raise NoRunsError(
            f"{self.origin} has no column {missing[0]!r}{hint}, only {listed(there)}; {kind} "
            f"needs {', '.join(columns)} and n_prompts, n_rollouts or total_batch{separator}"
        )

    def unused(self, known: Iterable[str]) -> list[str]:
        """Return a note that names the columns that nothing reads."""
        unknown = [str(name) for name in self.frame.columns if name not in set(known)]
        if not unknown:
            return []
        return [f"{self.origin}: columns not used: {listed(unknown, 20)}"]

    def numbers(self, column: str) -> np.ndarray:
        """Return a column as float64, blank cells as NaN.

        Raises
        ------
        CBSDataError
            Where a cell is no number; names the row, the column and the value.
        """
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
        """Raise the error for one cell.

        Raises
        ------
        CBSDataError
            Always.
        """
        shown = f"{value:g}" if isinstance(value, float) else repr(value)
        raise CBSDataError(
            f"{self.origin}, data row {row + 1}: {column} is {shown}; valid: {valid}"
        )

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

        A column may be filled in every row or in some rows of a run; it must not change
        within one.

        Returns
        -------
        list of dict
            Batch sizes, seed, labels and so on under the dataset's names, unknown ones left out.

        Raises
        ------
        CBSDataError
            Where a value is impossible or changes within a run.
        """
        runs, codes = self.runs()
        stated: list[dict[str, Any]] = [{} for _ in runs]
        for column in (*_COUNTS, *_AMOUNTS):
            if self.has(column):
                self._state(stated, runs, codes, column, self._positive(column))
        for column in (*_LABELS, "direction"):
            if self.has(column):
                values = np.array(self.texts(column), dtype=object)
                self._state(stated, runs, codes, column, values)
        self._check_direction({s["direction"] for s in stated if "direction" in s})
        for name, one in zip(runs, stated, strict=True):
            if "total_batch" not in one and not {"n_prompts", "n_rollouts"} <= one.keys():
                raise CBSDataError(
                    f"{self.origin}: run {name!r} has no batch size; "
                    "fill in n_prompts and n_rollouts, or total_batch"
                )
        return stated

    def _positive(self, column: str) -> np.ndarray:
        """Return a per-run column of numbers, NaN where unknown."""
        values = self.numbers(column)
        unknown = ["seed", "mini_batch_prompts"]  # -1 in the dataset's own long table
        if self.has("total_batch"):
            unknown += ["n_prompts", "n_rollouts"]
        values = np.where((values == -1) & (column in unknown), np.nan, values)
        whole = column in _COUNTS
        low = values >= 0 if column == "seed" else values > 0
        good = np.isnan(values) | (low & np.isfinite(values))
        if whole:
            good &= np.isnan(values) | (np.mod(values, 1) == 0)
        kind = f"a {'whole ' if whole else ''}number {'from' if column == 'seed' else 'above'} 0"
        self.check(column, values, good, kind)
        return values

    def _state(
        self,
        stated: list[dict[str, Any]],
        runs: Sequence[str],
        codes: np.ndarray,
        column: str,
        values: np.ndarray,
    ) -> None:
        known = pd.DataFrame({"run": codes, "value": values})
        known = known[known["value"].notna() & (known["value"] != "")].drop_duplicates()
        twice = known["run"].duplicated(keep=False)
        if twice.any():
            run = known["run"][twice].iloc[0]
            got = listed(str(v) for v in known["value"][known["run"] == run])
            raise CBSDataError(
                f"{self.origin}: run {runs[run]!r} has several values of {column} ({got}); "
                "give every run an id of its own in column 'run'"
            )
        for run, value in zip(known["run"], known["value"], strict=True):
            stated[run][column] = int(value) if column in _COUNTS else value

    def _check_direction(self, found: set[str]) -> None:
        if len(found) > 1 or not found <= set(_DIRECTIONS):
            raise CBSDataError(
                f"{self.origin}: direction is {' and '.join(sorted(found))}; "
                "valid: increasing or decreasing, the same in all rows"
            )


def _text(cell: Any) -> str:
    if cell is None or cell is pd.NA or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
