"""Which runs are fitted together, and which are set apart and why.

Runs of different models, data sets, estimators, learning rates or reuse are never pooled. Within
a group, every run that does not enter the fit is named with its reason.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.dataset import group_of

__all__ = ["choose_runs", "group_names", "of_group", "without_baseline"]

_NO_BASELINE = frozenset({"reinforce_plus_plus", "reinforce", "remax", "ppo", "gae"})


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


def choose_runs(ds: xr.Dataset, *, group_baseline: bool = True) -> dict[str, str]:
    """Return for every run why it is left out of the fit, or ``""`` where it enters.

    Parameters
    ----------
    ds : xarray.Dataset
        All runs of a group.
    group_baseline : bool
        Whether the law fitted has one, so that groups of one are left out.
    """
    remarks = ds["remark"].values
    usable = ds["usable"].values == 1
    single = ds["n_rollouts"].values == 1
    group_baseline = group_baseline and not without_baseline(ds)
    larger = bool((ds["n_rollouts"].values[usable] >= 2).any())
    reasons = {}
    for k, run in enumerate(ds["run"].values):
        reasons[str(run)] = ""
        if not usable[k]:
            reasons[str(run)] = str(remarks[k]) or "marked as not usable in the sweep"
        elif single[k] and larger and group_baseline:
            reasons[str(run)] = ("n_rollouts = 1: a group of one has no baseline, the raw reward "
                                 "is its advantage; another estimator, set apart")
    return reasons
