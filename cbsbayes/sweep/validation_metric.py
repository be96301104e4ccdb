"""The validation metric, chosen once for the whole dataset and never by the order of columns.

verl logs ``val-core/<data_source>/<variable>/<statistic>@N`` with N validation samples per
item. Of the statistics ``mean@N`` is the accuracy; ``maj@N`` and ``best@N`` stand in only where no
run has a mean, and ``acc`` goes before ``reward`` of the same validation set. All sets that
remain are kept along the dataset's dim ``metric``; one of them is the default of a fit:

1. the one the user names (a whole key, a set's name, or a part that only one has);
2. the only one there is;
3. GSM8K, if at least half of the runs have it;
4. MATH, if all runs have it;
5. the only one that all runs have;

and otherwise nothing is guessed: the error lists the candidates, those that look like validation
first. Other trainers' keys are taken by name only, unless a run has but one that looks like it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.history import column, listed
from cbsbayes.logs.keys import Score, canonical_key, is_validation, read_score

__all__ = ["MetricPlan", "Series", "choose_metric", "series_values"]

_RANK = {"mean": 0, "maj": 1, "best": 2}
_GSM8K = re.compile(r"gsm[-_ ]?8k", re.IGNORECASE)
_MATH = re.compile(r"(?<![a-z])math(?![a-z])", re.IGNORECASE)
_NO_SCORE = re.compile(r"loss|runtime|per_second|epoch|step|count|length|num_|(?:^|/)(?:std|min|"
                       r"max)|[@/](?:std|worst)", re.IGNORECASE)


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


def choose_metric(
    histories: Mapping[str, pd.DataFrame], metric: str | None = None
) -> MetricPlan:
    """Choose the validation sets to keep and the default one.

    Parameters
    ----------
    histories : mapping of str to DataFrame
        For every run its history; columns without a number do not count.
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
    columns = {run: _logged(history) for run, history in histories.items()}
    found = {run: [score for key in keys if (score := read_score(key)) and score.core]
             for run, keys in columns.items()}
    series, notes = _series(found, columns)
    exact = _exact_series(columns, metric, series)
    if exact is not None:
        series = [*(s for s in series if s.label != exact.label), exact]
    if not series:
        seen = sorted({key for keys in columns.values() for key in keys},
                      key=lambda key: (not is_validation(key), bool(_NO_SCORE.search(key)), key))
        raise CBSDataError("no run has a validation metric (val-core/<set>/<variable>/mean@N); "
                           f"columns found: {listed(seen) or 'none'}; name one with --metric")
    runs_with = {s.label: [run for run, keys in columns.items() if set(s.keys) & set(keys)]
                 for s in series}
    n_runs = len({run for runs in runs_with.values() for run in runs})
    default = exact.label if exact else _default(runs_with, n_runs, metric)
    series.sort(key=lambda s: s.label)
    labels = [s.label for s in series]
    if len(labels) > 1:
        notes.insert(0, f"the default metric is {default}, of {len(labels)} kept: "
                        f"{listed(labels)}")
    return MetricPlan(tuple(series), default, (*notes, *_sample_notes(series, found)))


def _logged(history: pd.DataFrame) -> list[str]:
    known = history.notna().any(axis=0)
    return [str(key) for key in history.columns[known.to_numpy()]]


def _series(
    found: Mapping[str, Sequence[Score]], columns: Mapping[str, Sequence[str]]
) -> tuple[list[Series], list[str]]:
    """Group the columns of all runs into validation sets, keeping the best kind of statistic."""
    scores = sorted({score for each in found.values() for score in each})
    if not scores:
        return [], []
    rank = min(_RANK[score.statistic] for score in scores)
    scores = [score for score in scores if _RANK[score.statistic] == rank]
    scores, notes = _of_all_items(scores, columns)
    with_acc = {score.source for score in scores if score.variable == "acc"}
    grouped: dict[str, list[Score]] = {}
    for score in scores:
        label = score.source
        if score.variable != "acc" and score.source in with_acc:
            label += f" ({score.variable})"
        if rank:
            label += f" ({score.statistic})"
        grouped.setdefault(label, []).append(score)
    return [Series(label, tuple(s.key for s in sorted(group, key=lambda s: -s.samples)),
                   all(s.variable == "acc" for s in group))
            for label, group in grouped.items()], notes


def _of_all_items(
    scores: Sequence[Score], columns: Mapping[str, Sequence[str]]
) -> tuple[list[Score], list[str]]:
    """Put ``mean@1`` for a core ``mean@k`` that covers only prompts that came k times.

    verl 0.4 and 0.5 group items by their prompt's text and call the largest group core.
    """
    every = {key for keys in columns.values() for key in keys}
    mended, notes = [], []
    for score in scores:
        aux = score.key.replace("val-core/", "val-aux/", 1)
        one = re.sub(r"@\d+", "@1", aux)
        if score.samples > 1 and one in every and one != aux:
            mended.append(replace(score, samples=1, key=one))
            notes.append(f"{score.source}: mean@{score.samples} covers only prompts that come "
                         f"{score.samples} times in the validation set; mean@1 is taken")
        else:
            mended.append(score)
    return sorted(set(mended)), notes


def _exact_series(
    columns: Mapping[str, Sequence[str]], metric: str | None, series: Sequence[Series]
) -> Series | None:
    """Return the series of the column that the user named, by its key or a part of it."""
    every = sorted({key for keys in columns.values() for key in keys})
    key = canonical_key(metric) if metric else ""
    if key in every:
        known = next((one for one in series if key in one.keys), Series(key, (key,), False))
        return replace(known, keys=(key,))
    if series:
        return None
    like = [name for name in every if is_validation(name) and not _NO_SCORE.search(name)]
    fits = [name for name in (like if not key else every) if key.lower() in name.lower()]
    preferred = [name for name in fits if name in like] or fits
    if len(preferred) > 1 and key:
        raise CBSDataError(f"--metric {metric!r} fits {len(preferred)} columns: "
                           f"{listed(preferred)}; give one of them whole")
    return Series(preferred[0], (preferred[0],), False) if len(preferred) == 1 else None


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


def _sample_notes(
    series: Sequence[Series], found: Mapping[str, Sequence[Score]]
) -> list[str]:
    """Say which runs validated with another number of samples per item than most."""
    notes = []
    for one in series:
        used = {run: max((s.samples for s in scores if s.key in one.keys), default=0)
                for run, scores in found.items()}
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
        values = np.where(np.isnan(values), column(history, key), values)
    logged = ~np.isnan(values)
    return history.index.to_numpy(dtype=np.float64)[logged], values[logged]
