"""From logged rows to one history frame: canonical keys, numbers only, one row per step.

The step is the logger's own; ``training/global_step`` is no substitute for it, because verl's
validation before training (and the one after a resume) is logged without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.keys import canonical_key

__all__ = ["NoRunsError", "column", "empty_history", "history_from_rows", "listed", "to_number"]

_UNKNOWN = ("", "none", "null", "na", "n/a")
_NOT_FINITE = ("nan", "inf", "infinity")


class NoRunsError(CBSDataError):
    """The file holds nothing that its reader knows; among others in a folder it is passed over."""


def to_number(value: object) -> float | None:
    """Return a logged value as a float, or None where it is no number.

    Parameters
    ----------
    value : object
        A number, a bool, None (NaN) or a word for NaN or infinity in any case, as loggers
        without a literal for them write it.

    Returns
    -------
    float or None
        None for every other string, list or mapping.
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
                skipped.add(logged)
            elif not (math.isnan(number) and key in row):
                if not math.isnan(row.get(key, math.nan)):
                    repeated.add(step)
                row[key] = number
    notes = []
    if repeated:
        notes.append(f"{len(repeated)} step(s) were logged twice; the later values were kept")
    if skipped:
        notes.append(f"not numbers, left out: {listed(sorted(skipped))}")
    return _frame(merged), notes


def _frame(rows: Mapping[float, Mapping[str, float]]) -> pd.DataFrame:
    steps = sorted(rows)
    keys = sorted({key for row in rows.values() for key in row})
    values = np.full((len(steps), len(keys)), np.nan)
    place = {key: i for i, key in enumerate(keys)}
    for i, step in enumerate(steps):
        for key, value in rows[step].items():
            values[i, place[key]] = value
    index = pd.Index(np.asarray(steps, dtype=np.float64), name="step")
    return pd.DataFrame(values, index=index, columns=pd.Index(keys, dtype=object))


def empty_history() -> pd.DataFrame:
    """Return a history without rows, for sources that know crossings only."""
    return _frame({})


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
