"""What of a run's metrics is kept: validation curves, and one number for each fact of training.

The validation metric is chosen once for the whole dataset and never by the order of columns. verl
logs ``val-core/<data_source>/<variable>/<statistic>@N`` with N validation samples per item. Of the
statistics ``mean@N`` is the accuracy; ``maj@N`` and ``best@N`` stand in only where no run has a
mean, and ``acc`` goes before ``reward`` of the same validation set. All sets that remain are kept
along the dataset's dim ``metric``; one of them is the default of a fit:

1. the one the user names (a whole key, a set's name, or a part that only one has);
2. the only one there is;
3. GSM8K, if at least half of the runs have it;
4. MATH, if all runs have it;
5. the only one that all runs have;

and otherwise nothing is guessed: the error lists the candidates, those that look like validation
first. Other trainers' keys are taken by name only, unless a run has but one that looks like it.

verl's ``perf/time_per_step`` (``timing_s/step``) counts validation up to 0.5 and leaves it out
from 0.6.1 on; the first step warms caches up and steps that save a checkpoint wait for the disk.
So the median is taken over the steps without any of these. Where every step validates,
``timing_s/testing`` is taken off if the parts that verl times do not fill the step without it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError, listed
from cbsbayes.logs.run_log import Score, canonical_key, column, is_validation, read_score
from cbsbayes.sweep.schema import VARIABLES

__all__ = ["LEFT_OUT", "Series", "plan_metrics", "series_values", "signal_fraction",
           "squared_norms", "step_seconds", "training_means"]

LEFT_OUT = ("median over trainer steps without the first logged step, steps that save a "
            "checkpoint and steps that validate (where the log tells)")
"""What `step_seconds` leaves out, for the variable's attributes."""

_RANK = {"mean": 0, "maj": 1, "best": 2}
_GSM8K = re.compile(r"gsm[-_ ]?8k", re.IGNORECASE)
_MATH = re.compile(r"(?<![a-z])math(?![a-z])", re.IGNORECASE)
_NO_SCORE = re.compile(r"loss|runtime|per_second|epoch|step|count|length|num_|(?:^|/)(?:std|min|"
                       r"max)|[@/](?:std|worst)", re.IGNORECASE)
_STEP_KEYS = ("perf/time_per_step", "timing_s/step")
_PART_KEYS = tuple(f"timing_s/{part}" for part in (
    "gen", "reward", "old_log_prob", "ref", "values", "adv", "update_critic", "update_actor",
    "update_weights", "save_checkpoint"))


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
    checked: bool = False


def plan_metrics(
    histories: Mapping[str, pd.DataFrame], metric: str | None = None
) -> tuple[list[Series], str, list[str]]:
    """Choose the validation sets to keep and the default one.

    Parameters
    ----------
    histories : mapping of str to DataFrame
        For every run its history; columns without a number do not count.
    metric : str, optional
        What the user asks for.

    Returns
    -------
    series : list of Series
        The validation sets kept, sorted by label.
    default : str
        The label of the default one.
    notes : list of str
        What had to be decided.

    Raises
    ------
    CBSDataError
        If no run has a validation metric, `metric` fits none or several, or no default is
        clear.
    """
    columns = {run: [str(key) for key in history.columns[history.notna().any().to_numpy()]]
               for run, history in histories.items()}
    every = sorted({key for keys in columns.values() for key in keys})
    series, notes = _validation_sets(every)
    exact = _named_column(every, series, metric)
    if exact is not None:
        series = [*(s for s in series if s.label != exact.label), exact]
    if not series:
        seen = sorted(every, key=lambda key: (not is_validation(key), bool(_NO_SCORE.search(key)),
                                              key))
        raise CBSDataError("no run has a validation metric (val-core/<set>/<variable>/mean@N); "
                           f"columns found: {listed(seen) or 'none'}; name one with --metric")
    series.sort(key=lambda s: s.label)
    runs_with = {s.label: [run for run, keys in columns.items() if set(s.keys) & set(keys)]
                 for s in series}
    default = exact.label if exact else _default(runs_with, metric)
    if len(runs_with) > 1:
        notes.insert(0, f"the default metric is {default}, of {len(runs_with)} kept: "
                        f"{listed(runs_with)}")
    return series, default, [*notes, *_sample_notes(series, columns)]


def _validation_sets(every: Sequence[str]) -> tuple[list[Series], list[str]]:
    """Group columns into validation sets, keeping the best kind of statistic.

    verl 0.4 and 0.5 group items by their prompt's text and call the largest group core: ``mean@1``
    is put for a core ``mean@k`` that covers only prompts that came k times.
    """
    scores = [score for key in every if (score := read_score(key)) and score.core]
    rank = min((_RANK[score.statistic] for score in scores), default=0)
    kept: set[Score] = set()
    notes = []
    for score in scores:
        one = re.sub(r"@\d+", "@1", score.key.replace("val-core/", "val-aux/", 1))
        if _RANK[score.statistic] != rank:
            continue
        if score.samples > 1 and one in every:
            kept.add(replace(score, samples=1, key=one))
            notes.append(f"{score.source}: mean@{score.samples} covers only prompts that come "
                         f"{score.samples} times in the validation set; mean@1 is taken")
        else:
            kept.add(score)
    with_acc = {score.source for score in kept if score.variable == "acc"}
    grouped: dict[str, list[Score]] = {}
    for score in sorted(kept):
        reward = score.variable != "acc" and score.source in with_acc
        label = (score.source + (f" ({score.variable})" if reward else "")
                 + (f" ({score.statistic})" if rank else ""))
        grouped.setdefault(label, []).append(score)
    return [Series(label, tuple(s.key for s in sorted(group, key=lambda s: -s.samples)),
                   all(s.variable == "acc" for s in group))
            for label, group in grouped.items()], notes


def _named_column(
    every: Sequence[str], series: Sequence[Series], metric: str | None
) -> Series | None:
    """Return the series of the column that the user named, by its key or a part of it."""
    key = canonical_key(metric) if metric else ""
    if key in every:
        known = next((one for one in series if key in one.keys), Series(key, (key,)))
        return replace(known, keys=(key,))
    if series:
        return None
    like = [name for name in every if is_validation(name) and not _NO_SCORE.search(name)]
    fits = [name for name in (every if key else like) if key.lower() in name.lower()]
    preferred = [name for name in fits if name in like] or fits
    if len(preferred) > 1 and key:
        raise CBSDataError(f"--metric {metric!r} fits {len(preferred)} columns: "
                           f"{listed(preferred)}; give one of them whole")
    return Series(preferred[0], (preferred[0],)) if len(preferred) == 1 else None


def _default(runs_with: Mapping[str, Sequence[str]], metric: str | None) -> str:
    labels = list(runs_with)
    candidates = ", ".join(f"{label} ({len(runs)} run{'s' * (len(runs) != 1)})"
                           for label, runs in runs_with.items())
    if metric:
        same = [label for label in labels if label.lower() == metric.lower()]
        matches = same or [label for label in labels if metric.lower() in label.lower()]
        if len(matches) != 1:
            what = (f"fits {len(matches)} validation metrics" if matches
                    else "is no validation metric")
            raise CBSDataError(f"--metric {metric!r} {what}; candidates: {candidates}")
        return matches[0]
    n_runs = len({run for runs in runs_with.values() for run in runs})
    gsm8k = [label for label in labels if _GSM8K.search(label)]
    whole = [label for label in labels if len(runs_with[label]) == n_runs]
    for clear in (labels, [label for label in gsm8k if 2 * len(runs_with[label]) >= n_runs],
                  [label for label in whole if _MATH.search(label) and label not in gsm8k], whole):
        if len(clear) == 1:
            return clear[0]
    raise CBSDataError(f"no one validation metric is clear: {candidates} of {n_runs} runs; choose "
                       "one with --metric")


def _sample_notes(
    series: Sequence[Series], columns: Mapping[str, Sequence[str]]
) -> list[str]:
    """Say which runs validated with another number of samples per item than most."""
    notes = []
    for one in series:
        samples = {key: score.samples for key in one.keys if (score := read_score(key))}
        used = {run: max(own) for run, keys in columns.items()
                if (own := [samples[key] for key in keys if key in samples])}
        counts = Counter(used.values())
        if len(counts) > 1:
            usual = max(counts, key=lambda n: (counts[n], n))
            others = [f"{run} (mean@{n})" for run, n in used.items() if n != usual]
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
    values = history.reindex(columns=list(series.keys)).bfill(axis=1).iloc[:, 0].dropna()
    return values.index.to_numpy(np.float64), values.to_numpy(np.float64)


def training_means(
    histories: Sequence[pd.DataFrame], updates_per_step: Sequence[int]
) -> dict[str, list[float]]:
    """Return each run's facts of training: signal fraction and what the schema has keys for.

    Parameters
    ----------
    histories : sequence of DataFrame
        One per run, index trainer steps.
    updates_per_step : sequence of int
        Optimizer updates per trainer step, one per run.

    Returns
    -------
    dict
        Variable to a value per run, NaN where not logged; variables that no run logged are left
        out, and the off-policy ones where every run makes one update per trainer step.
    """
    on_policy = max(updates_per_step, default=1) <= 1
    means = {name: [_mean(history, field.keys, field.last) for history in histories]
             for name, field in VARIABLES.items()
             if field.keys and not (on_policy and field.off_policy)}
    means["signal_fraction"] = [signal_fraction(history) for history in histories]
    return {name: values for name, values in means.items() if np.isfinite(values).any()}


def _logged(history: pd.DataFrame, keys: Sequence[str]) -> pd.Series:
    """Return the finite values of the first of several keys that has some."""
    logged = (history.loc[np.isfinite(history[key]), key] for key in keys if key in history)
    return next((values for values in logged if len(values)), pd.Series(dtype=np.float64))


def _mean(history: pd.DataFrame, keys: Sequence[str], last: bool) -> float:
    values = _logged(history, keys).to_numpy(np.float64)
    return float((values[-1:] if last else values).mean()) if values.size else np.nan


def squared_norms(
    history: pd.DataFrame, updates_per_step: int, evaluated: np.ndarray
) -> np.ndarray:
    """Return the mean squared gradient norm over the trainer steps since the evaluation before.

    Parameters
    ----------
    history : pandas.DataFrame
        A `RunLog`'s history, index trainer steps.
    updates_per_step : int
        Optimizer updates per trainer step.
    evaluated : numpy.ndarray
        Updates of the run's evaluations, shape (step,), increasing; NaN where it has none.

    Returns
    -------
    numpy.ndarray
        Shape (step,); NaN without an evaluation or a norm.
    """
    norms = _logged(history, VARIABLES["grad_norm"].keys)
    places = np.flatnonzero(~np.isnan(evaluated))
    which = np.searchsorted(evaluated[places], norms.index.to_numpy(float) * updates_per_step)
    # Steps after the last evaluation fall into a bin of their own.
    count, total = (np.bincount(which, weights, places.size + 1)[:-1]
                    for weights in (None, norms**2))
    found = np.full(evaluated.shape, np.nan)
    found[places] = total / np.where(count > 0, count, np.nan)
    return found


def step_seconds(history: pd.DataFrame) -> float:
    """Return the typical duration of one trainer step.

    Parameters
    ----------
    history : pandas.DataFrame
        A `RunLog`'s history, index trainer steps.

    Returns
    -------
    float
        Seconds; NaN where the log has no durations beyond its first step.
    """
    key = next((key for key in _STEP_KEYS if key in history.columns), "")
    seconds = column(history, key)
    usable = np.isfinite(seconds) & (seconds > 0)
    if not usable.any():
        return np.nan
    usable[np.argmax(usable)] = False
    usable &= ~(column(history, "timing_s/save_checkpoint") > 0)
    testing = np.nan_to_num(column(history, "timing_s/testing"))
    if (usable & (testing <= 0)).any():
        usable &= testing <= 0
    else:  # validation is inside the step where the timed parts leave room for it
        parts = np.nansum([column(history, key) for key in _PART_KEYS], axis=0)
        inside = (parts > 0) & (seconds - parts > 0.5 * testing)
        seconds = seconds - np.where(inside, testing, 0.0)
    return float(np.median(seconds[usable])) if usable.any() else np.nan


def signal_fraction(history: pd.DataFrame) -> float:
    """Return the mean share of prompt groups with non-zero advantage over training.

    Read from the first column called ``signal_fraction``, else from 1 minus the one called
    ``frac_zero_adv`` or ``frac_reward_zero_std``, with or without a prefix; NaN where the log has
    none.
    """
    for name in ("signal_fraction", "frac_zero_adv", "frac_reward_zero_std"):
        keys = sorted(str(c) for c in history.columns if str(c).rpartition("/")[2] == name)
        share = _mean(history, keys, last=False)
        if np.isfinite(share):
            return share if name == "signal_fraction" else 1 - share
    return np.nan
