"""The one record that every source yields, and the one list of what is known of a run.

Nothing downstream knows where data came from. The schema of the sweep, the reader of tables and
the reader of configurations share `RUN_COLUMNS` (``run_columns.toml``); the keys under which
trainers write these values are in ``trainers.toml``.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

__all__ = ["RUN_COLUMNS", "STATED", "Field", "Origin", "RunLog", "read_fields"]

_UNKNOWN = ("", "none", "null", "nan")
_LARGEST = 2**53  # whole numbers that float64 holds


class Origin(NamedTuple):
    """Settings of a run and where they stand.

    Attributes
    ----------
    name : str
        ``--runs``, ``table``, ``configuration`` (what the log itself holds), a file's name,
        ``--config``.
    values : mapping
        A trainer's nested configuration, or values under the dataset's own names.
    """

    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class RunLog:
    """What one source says about one training run (or one attempt of it).

    Attributes
    ----------
    id : str
        Unique within its source (a wandb id, a file's path relative to the folder given).
    name : str
        Display name; need not be unique (restarts, seeds).
    source : str
        Kind of the source: ``wandb``, ``wandb_file``, ``verl_jsonl``, ``verl_console``,
        ``tensorboard``, ``history``, ``table`` or ``crossings``.
    history : pandas.DataFrame
        Index ``step`` (trainer steps, float64, sorted, unique); one float64 column per metric
        under its canonical key (`cbsbayes.logs.history`); NaN where a metric was not logged.
    settings : tuple of Origin
        What is known of its settings; the first that knows a value wins.
    crossings : pandas.DataFrame or None
        For tables of crossings: columns ``threshold, steps_lower, steps_upper`` (updates).
    state : str
        ``finished``, ``running``, ``failed``, ``crashed`` or ``unknown``.
    created : str
        ISO time the run started, or ``""``; orders attempts of one run.
    notes : tuple of str
        What the reader had to mend or leave out, one sentence each.
    """

    id: str
    name: str
    source: str
    history: pd.DataFrame
    settings: tuple[Origin, ...] = ()
    crossings: pd.DataFrame | None = None
    state: str = "unknown"
    created: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Field:
    """One variable of a sweep.

    Attributes
    ----------
    long_name, units : str
        Meaning and unit.
    dims : tuple of str
        Its dimensions.
    dtype : str
        ``str``, ``int64``, ``int8`` or ``float64``.
    default : object
        The value where it is unknown: ``""``, -1 or NaN unless given.
    least : int
        The lowest valid value of a whole number; numbers that are not whole lie above 0.
    keys : tuple of str
        Logged metrics, of which the first that was logged is averaged over training.
    last : bool
        Whether not the mean but the last value is kept.
    off_policy : bool
        Whether it is kept only where some run makes several updates per trainer step; elsewhere
        it is zero by construction.
    stated : bool
        Whether a user may state it: a column of a table, a key of a configuration.
    always : bool
        Whether every sweep has it; else only those where some run knows it.
    """

    long_name: str
    units: str = "1"
    dims: tuple[str, ...] = ("run",)
    dtype: str = "float64"
    default: Any = None
    least: int = 1
    keys: Sequence[str] = ()
    last: bool = False
    off_policy: bool = False
    stated: bool = False
    always: bool = True

    @property
    def kind(self) -> str:
        """NumPy's letter for the type: U, i or f."""
        return np.dtype(self.dtype).kind

    @property
    def blank(self) -> Any:
        """The value where it is unknown."""
        return {"U": "", "i": -1, "f": np.nan}[self.kind] if self.default is None else self.default

    def known(self, value: Any) -> bool:
        """Return whether `value` says something: not blank, not NaN, not the default."""
        if value is None or isinstance(value, Mapping | list | tuple):
            return False
        text = str(value).strip().lower()
        return text not in _UNKNOWN and not (self.blank == -1 and text in ("-1", "-1.0"))

    def read(self, value: Any) -> Any:
        """Return a value as text, int or float.

        Raises
        ------
        ValueError
            If it is impossible; the message says what is valid.
        """
        if self.kind == "U":
            return str(value).strip()
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if self.kind == "f":
            if not 0 < number < math.inf:
                raise ValueError("a number above 0")
            return number
        if not (self.least <= number <= _LARGEST and number.is_integer()):
            raise ValueError(f"a whole number from {self.least}")
        return int(number)


def read_fields(package: str, file: str) -> dict[str, Field]:
    """Return the variables that a TOML file of a package lists, by name."""
    text = (resources.files(package) / file).read_text(encoding="utf-8")
    return {name: Field(**{**entry, "dims": tuple(entry.get("dims", ["run"]))})
            for name, entry in tomllib.loads(text).items()}


RUN_COLUMNS = read_fields("cbsbayes.logs", "run_columns.toml")
"""Coordinates along ``run``."""

STATED = tuple(name for name, column in RUN_COLUMNS.items() if column.stated)
"""What a user may state of a run, in a table or a configuration, under these names."""
