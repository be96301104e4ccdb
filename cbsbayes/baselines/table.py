"""S = S_min (1 + B_noise/B) by least squares, at every threshold and on every axis a sweep varies.

Two methods: `least_squares` is common practice, and its faults are kept: S is the first evaluation
at or above the threshold (rounded up to the evaluation grid), runs that never cross are left out,
large S dominate, the start value depends on the order of the runs, R² is the only measure of fit.
`log_least_squares` is the same law fitted fairly, to log S with a bootstrap over runs.
`comparison_table` shows them beside the posterior: the file ``comparison.csv``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from cbsbayes.baselines.least_squares import (
    fit_log_law,
    fit_raw_law,
    interval_midpoints,
    r_squared,
)
from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.models.parameters import SATURATION
from cbsbayes.posterior.fit import Fit, table_to_json
from cbsbayes.sweep.dataset import is_one_axis

__all__ = ["COMPARISON_COLUMNS", "BaselineFit", "comparison_table", "fit_baselines",
           "least_squares", "log_least_squares", "percentile_interval", "with_comparison"]

COMPARISON_COLUMNS = ["group", "threshold", "axis", "at", "method", "S_min", "B_noise", "ci_lower",
                      "ci_upper", "n_runs_used", "n_runs_dropped", "r2"]
"""Columns of ``comparison.csv``."""
_BATCH = {"total": "total_batch", "prompts": "n_prompts", "rollouts": "n_rollouts"}
_POSTERIOR = {"prompts": "cbs_prompts", "rollouts": "cbs_rollouts"}
_LEAST_BATCHES = 3
_LEAST_CROSSINGS = 3


class BaselineFit(NamedTuple):
    """A hyperbola S = S_min (1 + B_noise/B) fitted by least squares at one threshold.

    Attributes
    ----------
    method : str
        ``least_squares`` or ``log_least_squares``.
    n_runs_used, n_runs_dropped : int
        Runs that entered and runs that did not.
    S_min, B_noise : float
        Updates, and the unit of the batch. B_noise 0 with the log fit: S is flat over the batches
        that were run; inf (then S_min is 0): S falls as 1/B throughout. NaN: no fit, see `note`.
    ci_lower, ci_upper : float
        Bootstrap percentile interval of B_noise; NaN where the method has none.
    r2 : float
        Coefficient of determination, of S (``least_squares``) or log S (``log_least_squares``).
    note : str
        Why there is no fit; empty otherwise.
    """

    method: str
    n_runs_used: int
    n_runs_dropped: int
    S_min: float = np.nan
    B_noise: float = np.nan
    ci_lower: float = np.nan
    ci_upper: float = np.nan
    r2: float = np.nan
    note: str = ""


def _read(method: str, batch: npt.ArrayLike, steps: npt.ArrayLike
          ) -> tuple[BaselineFit, np.ndarray, np.ndarray, np.ndarray]:
    """Return a fit without values, batches and steps of the runs that crossed, and their mask."""
    batch, steps = np.asarray(batch, dtype=float), np.asarray(steps, dtype=float)
    if batch.ndim != 1 or batch.shape != steps.shape:
        raise CBSDataError(f"batch and steps have shapes {batch.shape} and {steps.shape}; "
                           "give one batch and one step count per run")
    used = np.isfinite(steps)
    for name, values in (("batch", batch), ("steps", steps[used])):
        bad = values[~(np.isfinite(values) & (values > 0))]
        if bad.size:
            raise CBSDataError(f"{name} holds {bad[0]:g}; only positive numbers are valid: "
                               "remove that run or correct it")
    few = "" if used.sum() >= _LEAST_CROSSINGS else (
        f"{used.sum()} of {used.size} runs have a crossing to fit; three are needed")
    fit = BaselineFit(method, int(used.sum()), int(np.sum(~used)), note=few)
    return fit, batch[used], steps[used], used


def least_squares(batch: npt.ArrayLike, steps: npt.ArrayLike) -> BaselineFit:
    """Fit S = S_min (1 + B_noise/B) to raw S, as is common practice.

    Runs with one rollout under a group estimator are kept, as in common practice. Updates are
    optimizer updates; where a trainer step is several updates common practice counts trainer
    steps.

    Parameters
    ----------
    batch : array_like, shape (run,)
        Batch sizes in any one unit, in the order in which the runs were read.
    steps : array_like, shape (run,)
        Updates at the first evaluation at or above the threshold; NaN or inf where never.

    Returns
    -------
    BaselineFit
        Without values, and with a note, where fewer than three runs crossed or the search does
        not converge.

    Raises
    ------
    CBSDataError
        If the lengths differ or a batch or a step count is not positive.
    """
    fit, batch, steps, _ = _read("least_squares", batch, steps)
    if fit.note:
        return fit
    start = [steps.min(), batch[len(batch) // 2]]
    found, _ = fit_raw_law(get_law("total"), batch, np.ones(len(batch)), steps, start)
    s_min, b_noise = found.tolist()
    if np.isnan(s_min):
        return fit._replace(note="curve_fit did not converge in 10000 evaluations")
    return fit._replace(S_min=s_min, B_noise=b_noise,
                        r2=r_squared(steps, s_min + s_min * b_noise / batch))


def log_least_squares(
    batch: npt.ArrayLike, steps: npt.ArrayLike, *, replicates: npt.ArrayLike | None = None,
    ci_prob: float = 0.9, n_bootstrap: int = 200, random_seed: int = 0,
) -> BaselineFit:
    """Fit log S = log S_min + log(1 + B_noise/B), with a run bootstrap.

    The result does not depend on units. Runs with one rollout under a group estimator belong
    to another estimator: leave them out (`fit_baselines` does). On the rollout axis this is the
    same hyperbola in G as that of `least_squares`, so that the two methods estimate one quantity.

    Parameters
    ----------
    batch : array_like, shape (run,)
        Batch sizes in any one unit.
    steps : array_like, shape (run,)
        Updates to the threshold (`interval_midpoints`); NaN or inf where only a bound is known.
    replicates : array_like, shape (run,) or (run, axis), optional
        Runs of equal values are replicates in the bootstrap; default: the batch.
    ci_prob : float
        Probability of the interval.
    n_bootstrap, random_seed : int
        Resamples of the runs, and their seed.

    Returns
    -------
    BaselineFit
        B_noise 0 or inf where S is flat or falls as 1/B over the batches that were run; without
        values, and with a note, where fewer than three runs or only one batch size crossed.

    Raises
    ------
    CBSDataError
        If the lengths differ or a batch or a step count is not positive.
    """
    fit, batch, steps, used = _read("log_least_squares", batch, steps)
    if fit.note:
        return fit
    if np.unique(batch).size < 2:
        return fit._replace(note="one batch size only: B_noise is not identified")
    found = fit_log_law(get_law("total"), batch, np.ones(len(batch)), steps,
                        replicates=None if replicates is None else np.asarray(replicates)[used],
                        n_bootstrap=n_bootstrap, random_seed=random_seed)
    s_min, b_noise = found.parameters.tolist()
    lower, upper = percentile_interval(found.draws[:, 1], ci_prob)
    return fit._replace(S_min=s_min, B_noise=b_noise, r2=found.r2, ci_lower=lower, ci_upper=upper)


def percentile_interval(values: np.ndarray, ci_prob: float) -> tuple[float, float]:
    """Return the central interval of draws that may hold 0 and inf, without interpolating.

    Parameters
    ----------
    values : ndarray, shape (draw,)
        Draws; none, or any that is NaN, gives NaN.
    ci_prob : float
        Probability inside, between 0 and 1.
    """
    if values.size == 0 or np.isnan(values).any():
        return np.nan, np.nan
    tail = round((1 - ci_prob) / 2, 9)
    lower = np.quantile(values, tail, method="lower")
    return float(lower), float(np.quantile(values, 1 - tail, method="higher"))


def fit_baselines(
    ds: xr.Dataset, crossings: xr.Dataset, thresholds: npt.ArrayLike, *,
    metric: str | None = None, group_baseline: bool = True, ci_prob: float = 0.9,
    n_bootstrap: int = 200, random_seed: int = 0,
) -> pd.DataFrame:
    """Fit both methods at every threshold and on every axis.

    The axes are the total batch, prompts at every n_rollouts with three or more n_prompts, and
    rollouts at every n_prompts with three or more n_rollouts; data with a total batch only have
    only that. Common least squares takes first crossings of all runs, those with one rollout
    included. The log fit takes `crossings` and leaves out runs with one rollout, which have no
    group baseline, unless estimators have none.

    Parameters
    ----------
    ds : xarray.Dataset
        The usable runs of one group, dims run and metric, step or threshold.
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
    batches = np.column_stack([ds[name].values
                               for name in ("n_prompts", "n_rollouts", "total_batch")])
    no_group = group_baseline & (batches[:, 1] == 1)
    axes, rows = list(_axes(ds)), []
    for threshold in thresholds.tolist():
        raw = _bound(first, "upper", ds, threshold)
        middle = interval_midpoints(*(_bound(crossings, name, ds, threshold)
                                      for name in ("lower", "upper")))
        middle = np.where(no_group, np.nan, middle)
        for axis, at, runs in axes:
            batch = ds[_BATCH[axis]].values[runs]
            for fit in (least_squares(batch, raw[runs]),
                        log_least_squares(batch, middle[runs], replicates=batches[runs],
                                          ci_prob=ci_prob, n_bootstrap=n_bootstrap,
                                          random_seed=random_seed)):
                rows.append({"threshold": threshold, "axis": axis, "at": at, **fit._asdict()})
    return pd.DataFrame(rows, columns=COMPARISON_COLUMNS[1:])


def _axes(ds: xr.Dataset) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield axes that vary: name, what is held fixed, and the positions of the runs."""
    yield "total", "", np.arange(ds.sizes["run"])
    if is_one_axis(ds):
        return
    for axis, held in (("prompts", "n_rollouts"), ("rollouts", "n_prompts")):
        for value in np.unique(ds[held].values):
            runs = np.flatnonzero(ds[held].values == value)
            if np.unique(ds[_BATCH[axis]].values[runs]).size >= _LEAST_BATCHES:
                yield axis, f"{held}={value}", runs


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
                            key=lambda c: c.map(list(_BATCH).index) if c.name == "axis" else c)


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
