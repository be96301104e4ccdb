"""The validation metric, chosen once for the whole dataset and never by the order of columns.

verl logs ``val-core/<data_source>/<variable>/<statistic>@N`` with N validation samples per
item. Of the statistics ``mean@N`` is the accuracy; ``maj@N`` and ``best@N`` stand in only where no
run has a mean, and ``acc`` goes before ``reward`` of the same validation set. All sets that
remain are kept along the dataset's dim ``metric``; one of them is the default of a fit:

1. the one the user names (a whole key, a set's name, or a part that only one set's name has);
2. the only one there is;
3. GSM8K, if at least half of the runs have it;
4. MATH, if all runs have it;
5. the only one that all runs have;

and otherwise nothing is guessed: the error lists the candidates.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.history import listed
from cbsbayes.logs.keys import canonical_key, parse_validation_key

__all__ = ["MetricPlan", "Series", "choose_metric", "series_values", "validation_columns"]

_OLD_KEY = re.compile(r"val/test_score/(.+)")  # verl 0.1
_RANK = {"mean": 0, "maj": 1, "best": 2}
_GSM8K = re.compile(r"gsm[-_ ]?8k", re.IGNORECASE)
_MATH = re.compile(r"(?<![a-z])math(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Series:
    """One validation set of the dataset.

    Attributes
    ----------
    label : str
        Its name along the dim ``metric``.
    keys : tuple of str
        Columns that hold it, the largest number of validation samples first.
    checked : bool
        Whether values must lie in [0, 1], as verl's ``acc`` does.
    """

    label: str
    keys: tuple[str, ...]
    checked: bool


@dataclass(frozen=True)
class MetricPlan:
    """The validation sets kept, the default one and what had to be decided."""

    series: tuple[Series, ...]
    default: str
    notes: tuple[str, ...]


@dataclass(frozen=True, order=True)
class _Column:
    """A validation column: its set, what is averaged, how, and over how many samples."""

    source: str
    variable: str
    statistic: str
    samples: int
    key: str


@lru_cache(maxsize=65536)
def _read_key(key: str) -> _Column | None:
    old = _OLD_KEY.fullmatch(key)
    if old:
        return _Column(old[1], "acc", "mean", 1, key)
    parts = parse_validation_key(key)
    if parts is None or parts.group != "val-core":
        return None
    name, _, samples = parts.statistic.removesuffix("/mean").partition("@")
    if name not in _RANK or not samples.isdecimal():
        return None
    return _Column(parts.data_source or "validation", parts.variable, name, int(samples), key)


def validation_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns that hold a validation set's mean, majority or best score, sorted."""
    return sorted(str(key) for key in columns if _read_key(str(key)) is not None)


def choose_metric(
    columns: Mapping[str, Sequence[str]], metric: str | None = None
) -> MetricPlan:
    """Choose the validation sets to keep and the default one.

    Parameters
    ----------
    columns : mapping of str to sequence of str
        For every run the canonical keys of the columns that hold at least one number.
    metric : str, optional
        What the user asks for.

    Returns
    -------
    MetricPlan

    Raises
    ------
    CBSDataError
        If no run has a validation metric, `metric` fits none or several, or no default is
        clear.
    """
    found = {run: [c for key in keys if (c := _read_key(key))] for run, keys in columns.items()}
    series = _series(found)
    exact = _exact_series(columns, metric, series)
    if exact is not None:
        series = [*(s for s in series if s.label != exact.label), exact]
    if not series:
        seen = sorted({key for keys in columns.values() for key in keys})
        raise CBSDataError("no run has a validation metric (val-core/<set>/<variable>/mean@N); "
                           f"columns found: {listed(seen) or 'none'}; name one with --metric")
    runs_with = {s.label: [run for run, keys in columns.items() if set(s.keys) & set(keys)]
                 for s in series}
    n_runs = len({run for runs in runs_with.values() for run in runs})
    default = exact.label if exact else _default(runs_with, n_runs, metric)
    series.sort(key=lambda s: s.label)
    notes = [*_kept_notes(series, default), *_sample_notes(series, found)]
    return MetricPlan(tuple(series), default, tuple(notes))


def _series(found: Mapping[str, Sequence[_Column]]) -> list[Series]:
    """Group the columns of all runs into validation sets, keeping the best kind of statistic."""
    columns = sorted({column for each in found.values() for column in each})
    if not columns:
        return []
    rank = min(_RANK[column.statistic] for column in columns)
    columns = [column for column in columns if _RANK[column.statistic] == rank]
    with_acc = {column.source for column in columns if column.variable == "acc"}
    grouped: dict[str, list[_Column]] = {}
    for column in columns:
        label = column.source
        if column.variable != "acc" and column.source in with_acc:
            label += f" ({column.variable})"
        if rank:
            label += f" ({column.statistic})"
        grouped.setdefault(label, []).append(column)
    return [Series(label, tuple(c.key for c in sorted(group, key=lambda c: -c.samples)),
                   all(c.variable == "acc" for c in group)) for label, group in grouped.items()]


def _exact_series(
    columns: Mapping[str, Sequence[str]], metric: str | None, series: Sequence[Series]
) -> Series | None:
    """Return the series of exactly the column that the user named, if there is that column."""
    key = canonical_key(metric) if metric else None
    if key is None or not any(key in keys for keys in columns.values()):
        return None
    for known in series:
        if key in known.keys:
            return replace(known, keys=(key,))
    return Series(key, (key,), checked=False)


def _default(runs_with: Mapping[str, Sequence[str]], n_runs: int, metric: str | None) -> str:
    labels = sorted(runs_with)
    if metric:
        return _named(labels, metric, runs_with)
    gsm8k = [label for label in labels if _GSM8K.search(label)]
    maths = [label for label in labels if _MATH.search(label) and label not in gsm8k]
    whole = [label for label in labels if len(runs_with[label]) == n_runs]
    for clear in (labels, [label for label in gsm8k if 2 * len(runs_with[label]) >= n_runs],
                  [label for label in maths if label in whole], whole):
        if len(clear) == 1:
            return clear[0]
    raise CBSDataError(f"no one validation metric is clear: {_candidates(runs_with)} of {n_runs} "
                       "runs; choose one with --metric")


def _named(labels: Sequence[str], metric: str, runs_with: Mapping[str, Sequence[str]]) -> str:
    wanted = metric.lower()
    same = [label for label in labels if label.lower() == wanted]
    matches = same or [label for label in labels if wanted in label.lower()]
    if len(matches) != 1:
        what = f"fits {len(matches)} validation metrics" if matches else "is no validation metric"
        raise CBSDataError(f"--metric {metric!r} {what}; candidates: {_candidates(runs_with)}")
    return matches[0]


def _candidates(runs_with: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{label} ({len(runs)} run{'s' * (len(runs) != 1)})"
                     for label, runs in sorted(runs_with.items()))


def _kept_notes(series: Sequence[Series], default: str) -> list[str]:
    labels = [s.label for s in series]
    if len(labels) == 1:
        return []
    return [f"the default metric is {default}, of {len(labels)} kept: {listed(labels)}"]


def _sample_notes(
    series: Sequence[Series], found: Mapping[str, Sequence[_Column]]
) -> list[str]:
    """Say which runs validated with another number of samples per item than most."""
    notes = []
    for one in series:
        used = {run: max((c.samples for c in columns if c.key in one.keys), default=0)
                for run, columns in found.items()}
        counts = Counter(samples for samples in used.values() if samples)
        if len(counts) < 2:
            continue
        usual = max(counts, key=lambda n: (counts[n], n))
        others = [f"{run} (mean@{n})" for run, n in used.items() if n not in (0, usual)]
        notes.append(f"{one.label}: most runs validate with mean@{usual}, these otherwise: "
                     f"{listed(others)}; the same accuracy is measured with other noise")
    return notes


def series_values(history: pd.DataFrame, series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Return where and what one run logged of a validation set.

    Parameters
    ----------
    history : pandas.DataFrame
        A `RunLog`'s history, index trainer steps.
    series : Series
        The set; where two of its columns have a value at one step, the first counts.

    Returns
    -------
    steps, values : ndarray of float64
        1-D, in the history's order, without NaN.
    """
    values = np.full(len(history), np.nan)
    for key in series.keys:
        if key in history.columns:
            column = history[key].to_numpy(dtype=np.float64)
            values = np.where(np.isnan(values), column, values)
    logged = ~np.isnan(values)
    return history.index.to_numpy(dtype=np.float64)[logged], values[logged]
