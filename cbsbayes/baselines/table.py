"""Both least-squares methods at every threshold and on every axis a sweep varies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from cbsbayes.baselines.least_squares import least_squares
from cbsbayes.baselines.log_space import interval_midpoints, log_least_squares
from cbsbayes.baselines.result import BaselineFit
from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.sweep.dataset import is_one_axis

__all__ = ["comparison_rows", "fit_baselines"]


@dataclass(frozen=True, eq=False)
class _Axis:
    """One way to vary the batch: the runs (positions) and the batch of each on this axis."""

    name: str
    at: str
    runs: np.ndarray
    batch: np.ndarray


def _slices(ds: xr.Dataset, varied: str, fixed: str, name: str) -> list[_Axis]:
    """Return an axis per value of `fixed` at which three values of `varied` were run."""
    batch, held = ds[varied].values.astype(float), ds[fixed].values
    usable = ds["usable"].values == 1
    axes = []
    for value in np.unique(held[usable]):
        runs = np.flatnonzero(held == value)
        if np.unique(batch[runs][usable[runs]]).size >= 3:
            axes.append(_Axis(name, f"{fixed}={value}", runs, batch[runs]))
    return axes


def _axes(ds: xr.Dataset) -> list[_Axis]:
    every = np.arange(ds.sizes["run"])
    total = _Axis("total", "", every, ds["total_batch"].values.astype(float))
    if is_one_axis(ds):
        return [total]
    return [total, *_slices(ds, "n_prompts", "n_rollouts", "prompts"),
            *_slices(ds, "n_rollouts", "n_prompts", "rollouts")]


def _bound(crossings: xr.Dataset, name: str, ds: xr.Dataset, threshold: float) -> np.ndarray:
    """Return a bound per run of `ds`; NaN for runs that `crossings` does not hold."""
    column = crossings[name].sel(threshold=threshold, method="nearest", tolerance=1e-9)
    return column.reindex(run=ds["run"].values).values.astype(float)


def _first_crossings(first: xr.Dataset, ds: xr.Dataset, threshold: float) -> np.ndarray:
    """Return updates at the first evaluation that reached the threshold, NaN without one."""
    steps = _bound(first, "upper", ds, threshold)
    return np.where(np.isfinite(steps), steps, np.nan)


def _midpoints(crossings: xr.Dataset, ds: xr.Dataset, threshold: float, plain: bool) -> np.ndarray:
    steps = interval_midpoints(_bound(crossings, "lower", ds, threshold),
                               _bound(crossings, "upper", ds, threshold))
    return steps if plain else np.where(ds["n_rollouts"].values == 1, np.nan, steps)


def _or_empty(fit: BaselineFit | None, method: str, axis: _Axis, steps: np.ndarray,
              threshold: float) -> BaselineFit:
    """Return the fit, or one that says that fewer than three runs crossed."""
    if fit is not None:
        return fit
    used = np.isfinite(steps)
    return BaselineFit.failed(
        f"{int(used.sum())} of {steps.size} runs have a crossing to fit; three are needed",
        threshold=threshold, axis=axis.name, at=axis.at, method=method,
        batch=axis.batch[used], steps=steps[used], n_dropped=int(np.sum(~used)))


def fit_baselines(
    ds: xr.Dataset, crossings: xr.Dataset, thresholds: npt.ArrayLike, *,
    metric: str | None = None, plain: bool = False, ci_prob: float = 0.9,
    n_bootstrap: int = 200, random_seed: int = 0,
) -> list[BaselineFit]:
    """Fit both methods at every threshold and on every axis.

    The axes are the total batch, prompts at every n_rollouts with three or more n_prompts, and
    rollouts at every n_prompts with three or more n_rollouts; data with a total batch only have
    only that. The usual least squares takes first crossings of all usable runs, those with one
    rollout included, because it stands for the practice. The log fit takes `crossings` and
    leaves out runs with one rollout, which have no group baseline, unless `plain`.

    Parameters
    ----------
    ds : xarray.Dataset
        The sweep of one group, dims run and metric, step or threshold.
    crossings : xarray.Dataset
        Intervals ``lower``, ``upper`` with dims (run, threshold), see `crossing.find_crossings`;
        runs of `ds` it does not hold count as dropped.
    thresholds : array_like
        Targets to fit, among those of `crossings`.
    metric : str, optional
        Validation set for the first crossings; default as in `find_crossings`.
    plain : bool
        True for estimators without a group baseline.
    ci_prob : float
        Probability of the intervals of the log fit.
    n_bootstrap, random_seed
        Resamples of the runs, and the seed of each bootstrap.

    Returns
    -------
    list of BaselineFit
        Threshold by threshold, axis by axis, the usual method first. With fewer than three
        crossings the values are NaN and the note says so.
    """
    thresholds = np.atleast_1d(np.asarray(thresholds, dtype=float))
    first = find_crossings(ds, thresholds, metric=metric, rule="first")
    axes, fits = _axes(ds), []
    for threshold in thresholds.tolist():
        raw = _first_crossings(first, ds, threshold)
        middle = _midpoints(crossings, ds, threshold, plain)
        for axis in axes:
            label = {"threshold": threshold, "axis": axis.name, "at": axis.at}
            steps = raw[axis.runs]
            fits.append(_or_empty(least_squares(axis.batch, steps, **label), "least_squares",
                                  axis, steps, threshold))
            steps = middle[axis.runs]
            cell = np.column_stack([ds[name].values[axis.runs]
                                    for name in ("n_prompts", "n_rollouts", "total_batch")])
            fit = log_least_squares(axis.batch, steps, cell=cell, ci_prob=ci_prob,
                                    n_bootstrap=n_bootstrap, random_seed=random_seed, **label)
            fits.append(_or_empty(fit, "log_least_squares", axis, steps, threshold))
    return fits


def comparison_rows(baselines: Iterable[BaselineFit], group: str) -> pd.DataFrame:
    """Return the least-squares rows of comparison.csv.

    Parameters
    ----------
    baselines : iterable of BaselineFit
        Fits of one group.
    group : str
        Its label.

    Returns
    -------
    pandas.DataFrame
        Columns ``group, threshold, axis, at, method, S_min, B_noise, ci_lower, ci_upper,
        n_runs_used, n_runs_dropped, r2``.
    """
    columns = ["group", "threshold", "axis", "at", "method", "S_min", "B_noise", "ci_lower",
               "ci_upper", "n_runs_used", "n_runs_dropped", "r2"]
    rows = [(group, fit.threshold, fit.axis, fit.at, fit.method, fit.S_min, fit.B_noise,
             fit.ci_lower, fit.ci_upper, fit.n_used, fit.n_dropped, fit.r2) for fit in baselines]
    return pd.DataFrame(rows, columns=columns)
