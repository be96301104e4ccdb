"""Every method's intervals beside the truth in one sweep; in many: how often they hold it.

==================  ===========================================================================
``posterior``       the fit under the settings' model and law
``averaged``        the same averaged over the laws that a fit compares
``curve_fit``       common practice: first crossings, raw S, runs that never cross dropped,
                    `scipy.optimize.curve_fit`, interval from its covariance
``log_fit_t``       log least squares at midpoints of isotonic crossings, t-interval
``log_fit_boot``    the same fit, percentile interval of its bootstrap over runs
==================  ===========================================================================

Intervals from a covariance carry over to derived quantities by the delta method: as value ± 1.645
standard errors for ``curve_fit``, on the log scale for ``log_fit_t``. A log fit that ended at a
limit (a scale of 0 or infinity) has no t-interval, a ``curve_fit`` that did not converge has none.
The exponent is the law's, 1 where the law leaves it free; learning rates are not looked at.

Truth is that of a simulated sweep. Real runs have none, but where a batch was run with many seeds,
one seed of each makes a sweep, and the log fit of all of them says what it should have found:
whatever real runs do that no simulation thought of is in these intervals. Where the law leaves the
exponent free, which the log fit does not, only S at the middle batch and what doubling buys are
compared, which depend little on it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtri

from cbsbayes.baselines.least_squares import (
    LogFit,
    fit_log_law,
    fit_raw_law,
    interval_midpoints,
    inverse_batches,
)
from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.crossings.thresholds import batch_labels
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law, batch_axes, get_law
from cbsbayes.posterior.cautions import structure_caution
from cbsbayes.posterior.ceilings import small_group_caution
from cbsbayes.simulation.truth import progress_at, truth_of
from cbsbayes.sweep.groups import group_names, learning_rate_rule, varied_rates
from cbsbayes.validation.families import family_sweep, get_family
from cbsbayes.validation.models import (
    Reading,
    Settings,
    averaged_logs,
    fitted_runs,
    posterior_tree,
    reading_of,
    true_logs,
    worst_numbers,
)

__all__ = ["ALL", "COLUMNS", "Intervals", "check_table", "coverage_table", "fixed_law",
           "least_squares_intervals", "log_estimates", "redraw", "redrawn_sweep",
           "reference_values", "simulated_sweep"]

ALL = "all"
"""Label of the rows that pool all thresholds."""
COLUMNS = ("method", "threshold", "quantity", "truth", "estimate", "lower", "upper")
"""Of a finished sweep's rows; the last four are logarithms."""
Intervals = dict[str, np.ndarray]
"""Quantity to log estimate, lower and upper end, shape (3, threshold)."""

_STEP = 1e-4  # of numeric derivatives, in log parameters or standard errors


def simulated_sweep(family: str, settings: Settings, random_seed: int) -> dict[str, Any]:
    """Simulate a sweep of a family, fit it by every method and return the record to keep.

    Parameters
    ----------
    family : str
        One of `cbsbayes.validation.families.FAMILIES`.
    settings : Settings
        How it is fitted.
    random_seed : int
        Of simulation, sampler and bootstrap.

    Returns
    -------
    dict
        ``rows`` (columns `COLUMNS`) and ``sampling``, the sampler's worst numbers and seconds.
    """
    law, of_family = get_law(settings.law), get_family(family)
    rates = of_family.arguments.get("rates", ())
    reading = Reading(learning_rate=rates[len(rates) // 2] if len(rates) > 1 else None)
    if settings.eval_every:
        of_family = replace(of_family, arguments={**of_family.arguments,
                                                  "eval_every": settings.eval_every})
    ds = family_sweep(of_family, law, random_seed)
    truth = truth_of(ds)
    true = {t: true_logs(truth, t, reading) for t in settings.thresholds
            if progress_at(truth, t) > 0}  # an item set may show more than this before training
    if get_law(truth.law).two_axis and not law.two_axis:  # which knows nothing of rollouts
        true = {t: {name: value for name, value in values.items() if name != "gain_rollouts"}
                for t, values in true.items()}
    return _interval_rows(fitted_runs(ds, law), law, reading, settings, true, random_seed)


def check_table(ds: xr.Dataset, name: str) -> None:
    """Refuse a sweep whose seeds cannot be redrawn.

    Parameters
    ----------
    ds : xarray.Dataset
        The sweep.
    name : str
        Of its file, for the message.

    Raises
    ------
    CBSDataError
        If it holds several groups of runs, several learning rates of a batch, or no batch that
        was run more than once.
    """
    groups, labels = group_names(ds), batch_labels(ds)
    if len(groups) > 1:
        raise CBSDataError(f"{name} holds {len(groups)} groups of runs ({'; '.join(groups)}); "
                           "seeds are redrawn within one: give a file of one group")
    if len(rates := varied_rates(ds)) and learning_rate_rule(ds) is None:
        raise CBSDataError(f"{name} holds runs of one batch at several learning rates, "
                           f"{rates[0]:g} to {rates[-1]:g}; seeds are redrawn at one: give a file "
                           "of one rate")
    if np.bincount(labels[labels >= 0], minlength=1).max() < 2:
        raise CBSDataError(f"{name} holds at most one run of each batch; redrawing seeds needs "
                           "batches that were run several times")


def redraw(ds: xr.Dataset, random_seed: int) -> xr.Dataset:
    """Return one run of every batch, drawn anew."""
    labels = batch_labels(ds)
    rng = np.random.default_rng(random_seed)
    return ds.isel(run=[int(rng.choice(np.flatnonzero(labels == label)))
                        for label in np.unique(labels[labels >= 0])])


def reference_values(
    ds: xr.Dataset, settings: Settings, reading: Reading
) -> dict[float, dict[str, float]]:
    """Return the logarithms of what all seeds give by the log fit, by threshold and quantity."""
    law = get_law(settings.law)
    found = log_estimates(find_crossings(fitted_runs(ds, law), settings.thresholds), law, reading)
    if law.alpha is None:
        found = {name: logs for name, logs in found.items() if name.startswith(("S(", "gain_"))}
    values = {t: {name: float(logs[k]) for name, logs in found.items() if np.isfinite(logs[k])}
              for k, t in enumerate(settings.thresholds)}
    if not any(values.values()):
        raise CBSDataError("all seeds together give the log fit nothing to estimate; runs must be "
                           "seen to cross a threshold between two evaluations")
    return values


def redrawn_sweep(ds: xr.Dataset, settings: Settings, random_seed: int) -> dict[str, Any]:
    """Redraw one seed per batch, fit by every method, and return the record to keep.

    Parameters
    ----------
    ds : xarray.Dataset
        All runs.
    settings : Settings
        How sweeps are fitted.
    random_seed : int
        Of the redraw, the sampler and the bootstrap.
    """
    law, reading = get_law(settings.law), reading_of(ds)
    return _interval_rows(fitted_runs(redraw(ds, random_seed), law), law, reading, settings,
                         reference_values(ds, settings, reading), random_seed)


def _interval_rows(
    fitted: xr.Dataset, law: Law, reading: Reading, settings: Settings,
    true: Mapping[float, Mapping[str, float]], random_seed: int,
) -> dict[str, Any]:
    """Return the record of one sweep from the runs to be fitted and the true values."""
    fit = partial(posterior_tree, fitted, settings=settings, random_seed=random_seed)
    start = time.perf_counter()
    own = fit(law)
    sampling: dict[str, Any] = {"seconds": round(time.perf_counter() - start, 3)}
    sampling |= worst_numbers(own)
    posterior = own["posterior"].to_dataset()
    methods = {"posterior": _intervals(reading.logs(law, posterior), settings)}
    if settings.average:
        logs, weights = averaged_logs(law, own, fitted, fit, reading)
        methods["averaged"] = _intervals(logs, settings)
        sampling["structure_alarm"] = bool(structure_caution(law, weights))
    if settings.alarms:
        sampling["alarm"] = bool(small_group_caution(fitted, law, None))
    if settings.least_squares:
        first, isotonic = (find_crossings(fitted, settings.thresholds, rule=rule)
                           for rule in ("first", "isotonic"))
        methods |= least_squares_intervals(first, isotonic, law, reading, settings, random_seed)
    rows = [[method, threshold, name, *(float(f"{value:.6g}") for value in (
                values[name], *ends[:, settings.thresholds.index(threshold)]))]
            for threshold, values in true.items() for method, intervals in methods.items()
            for name, ends in intervals.items() if name in values]
    return {"rows": rows, "sampling": sampling}


def _intervals(logs: Mapping[str, xr.DataArray], settings: Settings) -> Intervals:
    """Return median and ends of the equal-tailed interval, shape (3, threshold) each."""
    tail = (1 - settings.ci_prob) / 2
    found = xr.Dataset(dict(logs)).quantile([0.5, tail, 1 - tail], ("chain", "draw"))
    found = found.sel(threshold=list(settings.thresholds), method="nearest")
    return {str(name): ends.broadcast_like(found["threshold"]).transpose("quantile", ...).values
            for name, ends in found.data_vars.items()}


def fixed_law(law: Law) -> Law:
    """Return the law of the same form whose exponent is 1, or the law itself if it has one."""
    if law.alpha is not None:
        return law
    if not law.two_axis:
        return get_law("total")
    return get_law(law.name.replace("_free", "").replace("learning_rate", "two_axis"))


def least_squares_intervals(
    first: xr.Dataset, isotonic: xr.Dataset, law: Law, reading: Reading, settings: Settings,
    random_seed: int,
) -> dict[str, Intervals]:
    """Return the intervals of all three methods of least squares, by method.

    Parameters
    ----------
    first, isotonic : xarray.Dataset
        Crossings (run, threshold) by either rule, `cbsbayes.crossings.intervals.find_crossings`.
    law : Law
        The law of the posterior.
    reading : Reading
        At which batch quantities are stated.
    settings : Settings
        Probability of the intervals, and number of bootstrap resamples.
    random_seed : int
        Of the bootstrap.
    """
    law, ci_prob = fixed_law(law), settings.ci_prob
    raw, by_t, by_boot = [], [], []
    for k in range(first.sizes["threshold"]):
        raw.append(_delta(*_raw_fit(first.isel(threshold=k), law), float(ndtri(0.5 + ci_prob / 2)),
                          law, reading, logs=False))
        fit = _log_fit(isotonic.isel(threshold=k), law, settings.n_bootstrap, random_seed)
        by_t.append(_delta(fit.log_parameters, fit.covariance, fit.t_quantile(ci_prob), law,
                           reading, logs=True))
        # Draws may be limits, between which nothing is interpolated, or have no value.
        ends = pd.DataFrame(_read(fit.draws, law, reading)).quantile(
            [(1 - ci_prob) / 2, (1 + ci_prob) / 2], interpolation="nearest")
        by_boot.append({name: [logs[0], *ends[name]] for name, logs in by_t[-1].items()})
    methods = {"curve_fit": raw, "log_fit_t": by_t, "log_fit_boot": by_boot}
    return {method: {name: np.transpose([at[name] for at in found]) for name in found[0]}
            for method, found in methods.items()}


def log_estimates(isotonic: xr.Dataset, law: Law, reading: Reading) -> dict[str, np.ndarray]:
    """Return the log fit's estimates alone, quantity to logarithms, shape (threshold,)."""
    law = fixed_law(law)
    best = [_log_fit(isotonic.isel(threshold=k), law, 0, 0).log_parameters
            for k in range(isotonic.sizes["threshold"])]
    return _read(np.exp(best), law, reading)


def _raw_fit(first: xr.Dataset, law: Law) -> tuple[np.ndarray, np.ndarray]:
    prompts, rollouts = batch_axes(first)
    steps = first["upper"].values
    used, size = np.isfinite(steps), 1 + len(law.scales)
    if used.sum() < size:
        return np.full(size, np.nan), np.full((size, size), np.nan)
    middle = np.median(1 / inverse_batches(law, prompts[used], rollouts[used]), axis=0)
    return fit_raw_law(law, prompts[used], rollouts[used], steps[used],
                       [steps[used].min(), *middle])


def _log_fit(isotonic: xr.Dataset, law: Law, n_bootstrap: int, random_seed: int) -> LogFit:
    prompts, rollouts = batch_axes(isotonic)
    steps = interval_midpoints(isotonic["lower"].values, isotonic["upper"].values)
    used = np.isfinite(steps)
    return fit_log_law(law, prompts[used], rollouts[used], steps[used], n_bootstrap=n_bootstrap,
                       random_seed=random_seed)


def _read(values: np.ndarray, law: Law, reading: Reading) -> dict[str, np.ndarray]:
    """Return logarithms of the quantities, shape (draw,), from S_min and scales of each draw."""
    posterior = xr.Dataset({name: (("chain", "draw"), column[None]) for name, column in zip(
        ("S_min", *law.scales), np.transpose(values), strict=True)})
    return {name: logs.values[0] for name, logs in reading.logs(law, posterior).items()}


def _delta(
    best: np.ndarray, covariance: np.ndarray, half: float, law: Law, reading: Reading, *,
    logs: bool,
) -> dict[str, list[float]]:
    """Return log estimate and ends by the delta method, of parameters or of their logarithms."""
    step = np.full(len(best), _STEP) if logs else _STEP * np.sqrt(np.diag(covariance))
    near = np.vstack([best, best + np.diag(step)])
    out = {}
    for name, found in _read(np.exp(near) if logs else near, law, reading).items():
        values = found if logs else np.exp(found)
        gradient = (values[1:] - values[0]) / step
        margin = half * np.sqrt(gradient @ covariance @ gradient)
        ends = values[0] + np.array([0.0, -margin, margin])
        with np.errstate(divide="ignore"):
            out[name] = (ends if logs else np.log(np.maximum(ends, 0.0))).tolist()
    return out


def coverage_table(intervals: pd.DataFrame) -> pd.DataFrame:
    """Return bias, coverage and width by method, quantity and threshold.

    Parameters
    ----------
    intervals : pandas.DataFrame
        Columns ``method, quantity, threshold, sweep`` and the logarithms ``truth, estimate,
        lower, upper``.

    Returns
    -------
    pandas.DataFrame
        Columns ``method, quantity, threshold, n, given, log_bias, coverage, coverage_se,
        log_width``; threshold "all" pools them. `given` is the share of cases with an interval,
        `coverage` counts those only; `coverage_se` is the Monte Carlo error over sweeps, whose
        thresholds are not independent; `log_bias` and `log_width` are medians.
    """
    keys = ["method", "quantity", "threshold"]
    rows = intervals.assign(
        given=intervals[["lower", "upper"]].notna().all(axis=1),
        inside=intervals["truth"].between(intervals["lower"], intervals["upper"]),
        error=intervals["estimate"] - intervals["truth"],
        width=intervals["upper"] - intervals["lower"])
    rows["threshold"] = [f"{t:g}" for t in rows["threshold"]]
    both = pd.concat([rows.assign(threshold=ALL), rows])
    return pd.DataFrame([dict(zip(keys, key, strict=True)) | _statistics(part)
                         for key, part in both.groupby(keys, sort=False)])


def _statistics(part: pd.DataFrame) -> dict[str, float]:
    given = part[part["given"]]
    by_sweep = given.groupby("sweep")["inside"].mean()
    return {"n": len(part), "given": part["given"].mean(), "log_bias": part["error"].median(),
            "coverage": given["inside"].mean(),
            "coverage_se": by_sweep.std() / np.sqrt(max(len(by_sweep), 1)),
            "log_width": given["width"].median()}
