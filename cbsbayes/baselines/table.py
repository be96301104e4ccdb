"""Both least-squares methods at every threshold and on every axis a sweep varies, and their table.

`comparison_table` shows them beside the posterior: the file ``comparison.csv``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from cbsbayes.baselines.least_squares import least_squares
from cbsbayes.baselines.log_space import interval_midpoints, log_least_squares
from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.models.laws import get_law
from cbsbayes.models.parameters import SATURATION
from cbsbayes.posterior.fit import Fit, table_to_json
from cbsbayes.sweep.dataset import is_one_axis

__all__ = ["COMPARISON_COLUMNS", "comparison_table", "fit_baselines", "with_comparison"]

COMPARISON_COLUMNS = ["group", "threshold", "axis", "at", "method", "S_min", "B_noise", "ci_lower",
                      "ci_upper", "n_runs_used", "n_runs_dropped", "r2"]
"""Columns of ``comparison.csv``."""
_POSTERIOR = {"prompts": "cbs_prompts", "rollouts": "cbs_rollouts"}
_ORDER = {"total": 0, "prompts": 1, "rollouts": 2}
_LEAST_BATCHES = 3


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
        if np.unique(batch[runs][usable[runs]]).size >= _LEAST_BATCHES:
            axes.append(_Axis(name, f"{fixed}={value}", runs, batch[runs]))
    return axes


def _axes(ds: xr.Dataset) -> list[_Axis]:
    every = np.arange(ds.sizes["run"])
    total = _Axis("total", "", every, ds["total_batch"].values.astype(float))
    if is_one_axis(ds):
        return [total]
    return [total, *_slices(ds, "n_prompts", "n_rollouts", "prompts"),
            *_slices(ds, "n_rollouts", "n_prompts", "rollouts")]


def fit_baselines(
    ds: xr.Dataset, crossings: xr.Dataset, thresholds: npt.ArrayLike, *,
    metric: str | None = None, group_baseline: bool = True, ci_prob: float = 0.9,
    n_bootstrap: int = 200, random_seed: int = 0,
) -> pd.DataFrame:
    """Fit both methods at every threshold and on every axis.

    The axes are the total batch, prompts at every n_rollouts with three or more n_prompts, and
    rollouts at every n_prompts with three or more n_rollouts; data with a total batch only have
    only that. Common least squares takes first crossings of all usable runs, those with one
    rollout included. The log fit takes `crossings` and leaves out runs with one rollout, which
    have no group baseline, unless estimators have none.

    Parameters
    ----------
    ds : xarray.Dataset
        The sweep of one group, dims run and metric, step or threshold.
    crossings : xarray.Dataset
        Intervals ``lower``, ``upper`` with dims (run, threshold), see
        `cbsbayes.crossings.intervals.find_crossings`; runs of `ds` it does not hold count as
        dropped.
    thresholds : array_like
        Targets to fit, among those of `crossings`.
    metric : str, optional
        Validation set for the first crossings; default as in `find_crossings`.
    group_baseline : bool
        False for estimators without one.
    ci_prob : float
        Probability of the intervals of the log fit.
    n_bootstrap, random_seed
        Resamples of the runs, and the seed of each bootstrap.

    Returns
    -------
    pandas.DataFrame
        Columns ``threshold, axis, at, method, S_min, B_noise, ci_lower, ci_upper, n_runs_used,
        n_runs_dropped, r2``: threshold by threshold, axis by axis, common practice first. With
        fewer than three crossings the values are NaN.
    """
    thresholds = np.atleast_1d(np.asarray(thresholds, dtype=float))
    first = find_crossings(ds, thresholds, metric=metric, rule="first")
    axes_of_batch = ("n_prompts", "n_rollouts", "total_batch")
    batches = np.column_stack([ds[name].values for name in axes_of_batch])
    no_group = group_baseline & (batches[:, 1] == 1)
    axes, rows = _axes(ds), []
    for threshold in thresholds.tolist():
        raw = _bound(first, "upper", ds, threshold)
        middle = interval_midpoints(*(_bound(crossings, name, ds, threshold)
                                      for name in ("lower", "upper")))
        middle = np.where(no_group, np.nan, middle)
        for axis in axes:
            for fit in (least_squares(axis.batch, raw[axis.runs]),
                        log_least_squares(axis.batch, middle[axis.runs],
                                          replicates=batches[axis.runs], ci_prob=ci_prob,
                                          n_bootstrap=n_bootstrap, random_seed=random_seed)):
                rows.append((threshold, axis.name, axis.at, fit.method, fit.S_min, fit.B_noise,
                             fit.ci_lower, fit.ci_upper, fit.n_used, fit.n_dropped, fit.r2))
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS[1:])


def _bound(crossings: xr.Dataset, name: str, ds: xr.Dataset, threshold: float) -> np.ndarray:
    """Return a bound per run of `ds`; NaN for runs that `crossings` does not hold."""
    column = crossings[name].sel(threshold=threshold, method="nearest", tolerance=1e-9)
    return column.reindex(run=ds["run"].values).values.astype(float)


def comparison_table(
    baselines: pd.DataFrame, cbs: pd.DataFrame, total: pd.DataFrame | None, group: str, *,
    n_runs: int,
) -> pd.DataFrame:
    """Return the table of ``comparison.csv``.

    `B_noise` is, for every method, the batch on that axis at which S is twice its limit. The
    posterior's rows on the prompt and rollout axes are the default law's, those on the total
    batch the total-batch law's, which is the hyperbola that least squares fits. `S_min` is the
    limit of S on that axis; the posterior's stays empty where that is not the law's S_min: on the
    rollout axis of a two-axis law, and on the prompt axis where group sizes have ceilings.

    Parameters
    ----------
    baselines : pandas.DataFrame
        Of `fit_baselines`.
    cbs : pandas.DataFrame
        Table of the law fitted.
    total : pandas.DataFrame or None
        Table of the total-batch law, where it was fitted as well.
    group : str
        Label of the runs.
    n_runs : int
        Runs that the posterior was fitted to; all of them inform every axis.
    """
    rows = baselines.assign(group=group)[COMPARISON_COLUMNS]
    found = [{"group": group, "threshold": threshold, "axis": axis, "at": at,
              "method": "posterior", "n_runs_used": n_runs, "n_runs_dropped": 0, **row}
             for threshold, axis, at in rows[["threshold", "axis", "at"]].drop_duplicates().values
             for row in _posterior(total if total is not None and axis == "total" else cbs,
                                   threshold, axis, at)]
    both = pd.concat([rows, pd.DataFrame(found, columns=COMPARISON_COLUMNS)]) if found else rows
    return both.sort_values(["threshold", "axis", "at"], kind="stable", ignore_index=True,
                            key=lambda c: c.map(_ORDER) if c.name == "axis" else c)


def _posterior(cbs: pd.DataFrame, threshold: float, axis: str, at: str) -> list[dict[str, float]]:
    """Return the posterior's numbers on an axis, if it has any; empty as they are in `cbs`."""
    law = str(cbs["law"].iloc[0])
    quantity = _POSTERIOR.get(axis, "B_noise" if law == "total" else "cbs_samples")
    here = cbs[cbs["threshold"] == threshold]
    s_min = here.loc[here["quantity"] == "S_min", "median"].iloc[0]
    by_group = SATURATION in set(cbs["quantity"])
    if get_law(law).two_axis and (axis == "rollouts" or by_group):
        s_min = np.nan
    rows = here[(here["quantity"] == quantity) & (here["at"] == at)]
    return [{"S_min": s_min, "B_noise": row["median"], "ci_lower": row["ci_lower"],
             "ci_upper": row["ci_upper"]} for row in rows.to_dict("records")]


def with_comparison(fit: Fit) -> Fit:
    """Return the fit with least squares of all usable runs in `Fit.comparison`, if it has not."""
    if "table_comparison" in fit.tree.attrs:
        return fit
    usable = fit.sweep.isel(run=np.flatnonzero(fit.sweep["usable"].values == 1))
    baselines = fit_baselines(
        usable, fit.crossings, fit.thresholds, metric=fit.settings["metric"] or None,
        group_baseline=fit.law.group_baseline, ci_prob=fit.settings["ci_prob"],
        random_seed=fit.settings["random_seed"])
    table = comparison_table(baselines, fit.cbs, fit.others.get("total"), fit.group,
                             n_runs=fit.crossings.sizes["run"])
    tree = fit.tree.copy()
    tree.attrs["table_comparison"] = table_to_json(table)
    return Fit(tree)
