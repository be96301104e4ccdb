"""Downloaded histories, one Parquet file per run, each written whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cbsbayes.errors import CBSDataError

__all__ = ["HistoryCache", "cache_folder", "file_name"]

_FORMAT = 2  # one more whenever the reading of rows or their keys changes
_ENTRY = b"cbsbayes"


def cache_folder(*parts: str) -> Path:
    """Return a folder below the user's cache; ``XDG_CACHE_HOME`` moves it."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = given if given.is_absolute() else Path.home() / ".cache"
    return base.joinpath("cbsbayes", *parts)


def file_name(text: str) -> str:
    """Return any text as the name of a file or folder, distinct for distinct texts."""
    return quote(text, safe="").replace(".", "%2E")


@dataclass(frozen=True)
class HistoryCache:
    """Histories kept under a version that tells whether the source has moved on.

    Attributes
    ----------
    folder : Path
        Where the files lie; made when the cache is.
    """

    folder: Path

    def __post_init__(self) -> None:
        """Make the folder.

        Raises
        ------
        CBSDataError
            If it cannot be made or written to.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            writable = os.access(self.folder, os.W_OK | os.X_OK)
        except OSError:
            writable = False
        if not writable:
            raise CBSDataError(
                f"the download cache {self.folder} cannot be written; "
                "set XDG_CACHE_HOME to a folder that can"
            )

    def load(self, run: str, version: str) -> tuple[pd.DataFrame, tuple[str, ...]] | None:
        """Return a run's history and notes, or None unless this version of it is kept whole."""
        try:
            with pq.ParquetFile(self._path(run)) as file:  # read_table takes a=b/ for a column
                table = file.read()
            entry = json.loads((table.schema.metadata or {}).get(_ENTRY, b"{}"))
        except (OSError, pa.ArrowException, ValueError):
            return None
        if (entry.get("format"), entry.get("version")) != (_FORMAT, version):
            return None
        return _frame(table), tuple(entry["notes"])

    def store(self, run: str, version: str, history: pd.DataFrame, notes: tuple[str, ...]) -> None:
        """Keep a run's history under this version, in place of any other."""
        entry = json.dumps({"format": _FORMAT, "version": version, "notes": notes})
        names = ["_step", *history.columns]  # a metric may be called step
        values = [history.index.to_numpy(), *history.to_numpy().T]
        schema = pa.schema([(name, pa.float64()) for name in names], {_ENTRY: entry})
        temporary = self._path(run).with_suffix(".tmp")
        pq.write_table(pa.table([pa.array(v) for v in values], schema=schema), temporary)
        temporary.replace(self._path(run))

    def _path(self, run: str) -> Path:
        return self.folder / f"{file_name(run)}.parquet"


def _frame(table: pa.Table) -> pd.DataFrame:
    """Return the table as it was stored: the steps first, then a column per metric."""
    step, *values = (column.to_numpy() for column in table.columns)
    stacked = np.column_stack(values) if values else np.empty((len(step), 0))
    keys = pd.Index(table.column_names[1:], dtype=object)
    return pd.DataFrame(stacked, index=pd.Index(step, name="step"), columns=keys)
