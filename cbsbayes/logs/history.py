"""From logged rows to one history: one spelling of every key, numbers only, one row per step.

verl names a validation metric ``val-core/<data_source>/<variable>/mean@N``. Its MLflow adapter
writes the ``@`` as ``_at_`` and tensorboardX as ``_``; a worker's metrics get the prefix
``actor/``. Everything downstream sees the first form only. The data source may hold slashes itself
(``openai/gsm8k``), so keys are read from the right.

The step is the logger's own; ``training/global_step`` is no substitute for it, because verl's
validation before training (and the one after a resume) is logged without it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError

__all__ = ["NoRunsError", "Score", "canonical_key", "column", "history_from_rows",
           "is_validation", "listed", "read_score", "to_number", "validation_columns",
           "validation_key"]

_COUNTED = re.compile(r"(mean|std|best|worst|maj|pass)(?:@|_at_|_)(\d{1,9})", re.ASCII)
_OLD_KEY = re.compile(r"val/test_score/(.+)", re.DOTALL)  # verl 0.1
_LIKE = re.compile(r"(?:val|valid|validation|eval|evaluation|test)(?:[-_./@]|$)", re.IGNORECASE)
_UNKNOWN = ("", "none", "null", "na", "n/a")
_NOT_FINITE = ("nan", "inf", "infinity")


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
        if word in _UNKNOWN:
            return math.nan
        return float(word) if word.removeprefix("-").removeprefix("+") in _NOT_FINITE else None
    if isinstance(value, (bool, int, float, np.number, np.bool_)):
        try:
            return float(value)
        except OverflowError:  # an integer beyond float64's range
            return None
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


def column(history: pd.DataFrame, key: str) -> np.ndarray:
    """Return a metric of a history, dims (row,); NaN throughout where it was never logged."""
    if key not in history.columns:
        return np.full(len(history), np.nan)
    return history[key].to_numpy(dtype=np.float64)


def listed(names: Iterable[str], limit: int = 8) -> str:
    """Return names joined by commas, cut after `limit` with a count of the rest."""
    every = list(names)
    rest = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + rest
