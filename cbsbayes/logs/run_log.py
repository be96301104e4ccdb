"""The one record that every source yields: what is known of a run, and its history.

Nothing downstream knows where data came from. The schema of the sweep, the reader of tables and
the reader of configurations share `RUN_COLUMNS` (``run_columns.toml``); the keys under which
trainers write these values are in ``trainers.toml``.

A history has one spelling of every key, numbers only, one row per step. verl names a validation
metric ``val-core/<data_source>/<variable>/mean@N``. Its MLflow adapter writes the ``@`` as ``_at_``
and tensorboardX as ``_``; a worker's metrics get the prefix ``actor/``. Everything downstream sees
the first form only. The data source may hold slashes itself (``openai/gsm8k``), so keys are read
from the right. The step is the logger's own; ``training/global_step`` is no substitute for it,
because verl's validation before training (and the one after a resume) is logged without it.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError, listed

__all__ = ["RUN_COLUMNS", "STATED", "Field", "NoRunsError", "Origin", "RunLog", "Score",
           "canonical_key", "column", "flat_metrics", "history_from_rows", "is_validation",
           "read_fields", "read_score", "to_number", "validation_columns", "validation_key"]

_UNKNOWN = ("", "none", "null", "nan")
_LARGEST = 2**53  # whole numbers that float64 holds
_COUNTED = re.compile(r"(mean|std|best|worst|maj|pass)(?:@|_at_|_)(\d{1,9})", re.ASCII)
_OLD_KEY = re.compile(r"val/test_score/(.+)", re.DOTALL)  # verl 0.1
_LIKE = re.compile(r"(?:val|valid|validation|eval|evaluation|test)(?:[-_./@]|$)", re.IGNORECASE)
_BLANK = ("", "none", "null", "na", "n/a")
_NOT_FINITE = ("nan", "inf", "infinity")


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
        under its canonical key; NaN where a metric was not logged.
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


class NoRunsError(CBSDataError):
    """The file holds nothing that its reader knows; among others in a folder it is passed over."""


@dataclass(frozen=True, order=True)
class Score:
    """A validation score's key, taken apart.

    Attributes
    ----------
    source : str
        The validation set, e.g. ``openai/gsm8k``.
    variable : str
        ``acc`` where the reward function gives one, else ``reward``.
    statistic : str
        ``mean``, ``maj`` or ``best`` of the samples.
    samples : int
        Validation samples per item.
    key : str
        The canonical key.
    core : bool
        Whether verl calls it core (``val-core``) rather than auxiliary.
    """

    source: str
    variable: str
    statistic: str
    samples: int
    key: str
    core: bool


def canonical_key(key: str) -> str:
    """Return the canonical spelling of a metric's key; canonical keys come back unchanged.

    ``mean@N``, ``mean_at_N`` and ``mean_N`` become ``mean@N`` (likewise ``std``, ``best``,
    ``worst``, ``maj``, ``pass``) in the last two parts of a validation key;
    ``actor/grad_noise/x`` becomes ``grad_noise/x``; what is no valid Unicode is escaped, all else
    stays as it is.

    Examples
    --------
    >>> canonical_key("val-core/openai/gsm8k/acc/mean_at_1")
    'val-core/openai/gsm8k/acc/mean@1'
    """
    key = key.encode("utf-8", "backslashreplace").decode("utf-8")
    if key.startswith("actor/grad_noise/"):
        return key.removeprefix("actor/")
    if not key.startswith(("val-core/", "val-aux/")):
        return key
    parts = key.split("/")
    at = -1 if _COUNTED.fullmatch(parts[-1]) else -2
    if counted := _COUNTED.fullmatch(parts[at]):
        parts[at] = f"{counted[1]}@{counted[2]}"
    return "/".join(parts)


def read_score(key: str) -> Score | None:
    """Take a validation score's key apart, from the right.

    Returns
    -------
    Score or None
        None where the key is no mean, majority or best score of a validation set.
    """
    old = _OLD_KEY.fullmatch(key)
    if old:
        return Score(old[1], "acc", "mean", 1, key, core=True)
    key = canonical_key(key)
    group, *parts = key.removesuffix("/mean").split("/")
    counted = _COUNTED.fullmatch(parts[-1]) if len(parts) >= 3 else None
    if group not in ("val-core", "val-aux") or not counted or (
            counted[1] not in ("mean", "maj", "best")):
        return None
    *source, variable, _ = parts
    return Score("/".join(source) or "validation", variable, counted[1], int(counted[2]), key,
                 group == "val-core")


def is_validation(key: str) -> bool:
    """Return whether a key looks as if it were measured at an evaluation, in any trainer."""
    return _LIKE.match(key) is not None


def validation_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns that hold a validation set's core score, or what looks like one, sorted.

    Other trainers' keys count where there is no core score.
    """
    keys = sorted(str(key) for key in columns)
    core = [key for key in keys if (score := read_score(key)) and score.core]
    return core or [key for key in keys if is_validation(key)]


def validation_key(data_source: str) -> str:
    """Return the canonical key of a validation set's accuracy, e.g. of a table's column."""
    return f"val-core/{data_source}/acc/mean@1"


def to_number(value: object) -> float | None:
    """Return a logged value as a float, or None where it is no number.

    Parameters
    ----------
    value : object
        A number, a bool, None (NaN) or a word for NaN or infinity in any case, as loggers
        without a literal for them write it; every other string, list or mapping is no number.
    """
    if value is None:
        return math.nan
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _BLANK:
            return math.nan
        return float(word) if word.removeprefix("-").removeprefix("+") in _NOT_FINITE else None
    try:
        return float(value) if isinstance(value, (int, float, np.number, np.bool_)) else None
    except OverflowError:  # an integer beyond float64's range
        return None


def history_from_rows(
    rows: Iterable[tuple[float, Mapping[str, object]]],
) -> tuple[pd.DataFrame, list[str]]:
    """Gather logged rows into a history.

    Parameters
    ----------
    rows : iterable of (float, mapping)
        Step (trainer steps) and the metrics logged there, in the order of logging.

    Returns
    -------
    history : pandas.DataFrame
        Index ``step`` (float64, sorted, unique), float64 columns sorted by canonical key. Where
        a step comes twice, the later value that is not NaN wins.
    notes : list of str
        What was mended or left out.
    """
    merged: dict[float, dict[str, float]] = {}
    repeated: set[float] = set()
    skipped: set[str] = set()
    for step, values in rows:
        row = merged.setdefault(float(step), {})
        for logged, value in values.items():
            key, number = canonical_key(logged), to_number(value)
            if number is None:
                skipped.add(key)
            elif not (math.isnan(number) and key in row):
                if not math.isnan(row.get(key, math.nan)):
                    repeated.add(step)
                row[key] = number
    notes = []
    if repeated:
        notes.append(f"steps logged twice: {len(repeated)}; the later values were kept")
    if skipped:
        notes.append(f"not numbers, left out: {listed(sorted(skipped))}")
    keys = pd.Index(sorted({key for row in merged.values() for key in row}), dtype=object)
    steps = pd.Index(merged, dtype=np.float64, name="step")
    return pd.DataFrame(merged.values(), steps, keys, np.float64).sort_index(), notes


def flat_metrics(row: Mapping[str, Any], prefix: str = "", by: str = "/"
                 ) -> Iterator[tuple[str, Any]]:
    """Yield metrics of nested mappings under joined keys, without media and ``_`` keys."""
    media = {key.rpartition(".")[0] for key in row if key.rpartition(".")[2] == "_type"}
    for key, value in row.items():
        above, _, own = key.rpartition(".")
        if own.startswith("_") or above in media:
            continue
        if not isinstance(value, Mapping):
            yield prefix + key, value
        elif "_type" not in value:
            yield from flat_metrics(value, f"{prefix}{key}{by}", by)


def column(history: pd.DataFrame, key: str) -> np.ndarray:
    """Return a metric of a history, dims (row,); NaN throughout where it was never logged."""
    return history.reindex(columns=[key])[key].to_numpy(np.float64)
