"""Which runs are fitted together, which are set apart and why, and which law that allows.

Runs of different models, data sets, estimators, learning rates or reuse are never pooled. Within
a group, every run that does not enter the fit is named with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from cbsbayes.crossings.rules import UNUSABLE
from cbsbayes.crossings.thresholds import MIN_BATCH_SIZES, batch_labels
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law, get_law
from cbsbayes.sweep.dataset import group_of, is_one_axis

__all__ = ["LawChoice", "check_batches", "choose_law", "choose_runs", "group_names", "of_group",
           "silent_runs", "without_baseline"]

_NO_BASELINE = frozenset({"reinforce_plus_plus", "reinforce", "remax", "ppo", "gae"})


@dataclass(frozen=True)
class LawChoice:
    """A law and the sentence that says why it is fitted."""

    law: Law
    reason: str


def group_names(ds: xr.Dataset) -> list[str]:
    """Return the groups of a sweep, sorted."""
    return sorted({str(name) for name in group_of(ds).values})


def of_group(ds: xr.Dataset, group: str) -> xr.Dataset:
    """Return the runs of one group.

    Raises
    ------
    CBSDataError
        If there is no such group; the message lists those there are.
    """
    names = group_names(ds)
    if group not in names:
        raise CBSDataError(f"no group {group!r}; the sweep's groups are: {'; '.join(names)}")
    return ds.isel(run=np.flatnonzero(group_of(ds).values == group))


def without_baseline(ds: xr.Dataset) -> bool:
    """Return whether the group's estimator has no baseline from the other rollouts (1/G law)."""
    names = {str(a).lower() for a in ds["algorithm"].values}
    return bool(names) and names <= _NO_BASELINE


def choose_law(ds: xr.Dataset, name: str = "auto") -> LawChoice:
    """Return the law to fit to the runs of a group.

    Where only prompts vary, the total-batch law is the two-axis law of exponent 1, its B_noise
    N·n_rollouts. Where only rollouts vary it is not: S falls with 1/(G - 1), and towards
    S_min (1 + B_prompt/P) instead of S_min. The two-axis law then tells what rollouts buy and the
    rollout CBS, though its two scales and S_min stay bounds at
    best.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs that will be fitted.
    name : str
        A law's name, or ``auto``: the varied axes decide.

    Raises
    ------
    CBSDataError
        If the named law needs axes that the data do not have.
    """
    one_axis = is_one_axis(ds)
    if name != "auto":
        law = get_law(name)
        if law.two_axis and one_axis:
            raise CBSDataError(f"law {name!r} needs n_prompts and n_rollouts, the data give only "
                               "total_batch; valid: total, power")
        return LawChoice(law, f"The {law.name} law was asked for.")
    if one_axis:
        return LawChoice(get_law("total"), "The data give total batches only: the total-batch law.")
    prompts = len(np.unique(ds["n_prompts"].values))
    rollouts = len(np.unique(ds["n_rollouts"].values))
    if rollouts == 1:
        return LawChoice(get_law("total"), "Only n_prompts varies: the total-batch law. B_prompt "
                         "and B_rollout cannot be told apart at one n_rollouts.")
    return _two_axis(plain=without_baseline(ds), prompts_vary=prompts > 1)


def _two_axis(*, plain: bool, prompts_vary: bool) -> LawChoice:
    what = "Prompts and rollouts both vary" if prompts_vary else "Only n_rollouts varies"
    reason = f"{what}: the two-axis law, its exponent free"
    reason += ", in 1/G because the estimator has no group baseline." if plain else "."
    if not prompts_vary:
        reason += (" B_prompt, B_rollout and S_min cannot be told apart at one n_prompts; what "
                   "rollouts buy can.")
    return LawChoice(get_law("two_axis_free_plain" if plain else "two_axis_free"), reason)


def choose_runs(ds: xr.Dataset, law: Law | None = None) -> dict[str, str]:
    """Return for every run why it is left out of the fit, or ``""`` where it enters.

    Parameters
    ----------
    ds : xarray.Dataset
        All runs of a group.
    law : Law, optional
        The law, where it is known already; a plain law takes groups of one.
    """
    remarks = ds["remark"].values
    usable = ds["usable"].values == 1
    single = ds["n_rollouts"].values == 1
    plain = without_baseline(ds) or (law is not None and law.plain)
    larger = bool((ds["n_rollouts"].values[usable] >= 2).any())
    reasons = {}
    for k, run in enumerate(ds["run"].values):
        reasons[str(run)] = ""
        if not usable[k]:
            reasons[str(run)] = str(remarks[k]) or "marked as not usable in the sweep"
        elif single[k] and larger and not plain:
            reasons[str(run)] = ("n_rollouts = 1: a group of one has no baseline, the raw reward "
                                 "is its advantage; another estimator, set apart")
    return reasons


def check_batches(ds: xr.Dataset, least: int = MIN_BATCH_SIZES) -> None:
    """Refuse runs of fewer than three batch sizes, or of another least number.

    Raises
    ------
    CBSDataError
        With the count and the remedy.
    """
    labels = batch_labels(ds)
    sizes = len(np.unique(labels[labels >= 0]))
    if sizes < least:
        raise CBSDataError(f"the runs have {sizes} batch size(s) that may be fitted; a law needs "
                           f"at least {least}: add runs with other n_prompts or "
                           "n_rollouts")


def silent_runs(crossings: xr.Dataset) -> list[str]:
    """Return the runs that say nothing about any threshold."""
    silent = (crossings["status"] == UNUSABLE).all("threshold").values
    return [str(run) for run in crossings["run"].values[silent]]
