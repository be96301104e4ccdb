"""Least-squares intervals on the same crossings, for every quantity the posterior gives.

==================  ===========================================================================
``curve_fit``       the usual practice: first crossings, raw S, runs that never cross dropped,
                    `scipy.optimize.curve_fit`, interval from its covariance
``log_fit_t``       log least squares at midpoints of isotonic crossings, t-interval
``log_fit_boot``    the same fit, percentile interval of its bootstrap over runs
==================  ===========================================================================

Intervals from a covariance carry over to derived quantities by the delta method: as value ± 1.645
standard errors for ``curve_fit``, on the log scale for ``log_fit_t``. A log fit that ended at a
limit (a scale of 0 or infinity) has no t-interval, a ``curve_fit`` that did not converge has none.
The exponent is the law's, 1 where the law leaves it free.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import stats
from scipy.optimize import OptimizeWarning, curve_fit

from cbsbayes.baselines import hyperbola, interval_midpoints
from cbsbayes.baselines.bootstrap import resample_weights
from cbsbayes.models.crossing_data import batch_axes
from cbsbayes.models.laws import Law, get_law, group_divisor
from cbsbayes.validation.reading import Reading

__all__ = ["Intervals", "fixed_law", "least_squares_intervals", "log_estimates"]

Intervals = dict[str, np.ndarray]
"""Quantity to log estimate, lower and upper end, shape (3, threshold)."""

_STEP = 1e-4  # of numeric derivatives, in log parameters or standard errors


@dataclass(frozen=True)
class _LogFit:
    """Log fits by threshold; first axis threshold, parameters log S_min and log scales."""

    best: np.ndarray
    spread: np.ndarray
    draws: np.ndarray
    half: np.ndarray


def fixed_law(law: Law) -> Law:
    """Return the law of the same form whose exponent is 1, or the law itself if it has one."""
    if law.alpha is not None:
        return law
    return get_law("total" if law.name == "power" else law.name.replace("_free", ""))


def least_squares_intervals(
    first: xr.Dataset, isotonic: xr.Dataset, law: Law, reading: Reading, *, ci_prob: float = 0.9,
    n_bootstrap: int = 200, random_seed: int = 0,
) -> dict[str, Intervals]:
    """Return the intervals of all three methods.

    Parameters
    ----------
    first, isotonic : xarray.Dataset
        Crossings (run, threshold) by either rule, `cbsbayes.crossings.intervals.find_crossings`.
    law : Law
        The law of the posterior.
    reading : Reading
        At which batch quantities are stated.
    ci_prob, n_bootstrap, random_seed
        Probability of the intervals; resamples of the runs and their seed.

    Returns
    -------
    dict
        Method to quantity to log estimate and ends, shape (3, threshold).
    """
    law = fixed_law(law)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # limits 0 and infinity
        raw = _curve_fit(first, law, reading, ci_prob)
        fit = _log_fit(isotonic, law, ci_prob, n_bootstrap, random_seed)
        by_t = _delta(fit, law, reading)
        boot = _read(np.exp(fit.draws), law, reading)
        by_boot = {name: np.vstack([by_t[name][:1], _percentiles(draws, ci_prob)])
                   for name, draws in boot.items()}
    return {"curve_fit": raw, "log_fit_t": by_t, "log_fit_boot": by_boot}


def log_estimates(isotonic: xr.Dataset, law: Law, reading: Reading) -> dict[str, np.ndarray]:
    """Return the log fit's estimates alone, quantity to logarithms, shape (threshold,)."""
    law = fixed_law(law)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        best = _log_fit(isotonic, law, 0.9, 0, 0).best
        return {name: logs[0] for name, logs in _read(np.exp(best)[None], law, reading).items()}


def _read(values: np.ndarray, law: Law, reading: Reading) -> dict[str, np.ndarray]:
    """Return logarithms (draw, threshold) of the quantities from (draw, threshold, parameter)."""
    dims = ("chain", "draw", "threshold")
    names = ("S_min", *law.scales)
    posterior = xr.Dataset({name: (dims, values[None, :, :, j]) for j, name in enumerate(names)})
    return {name: logs.transpose(*dims).values[0]
            for name, logs in reading.logs(law, posterior).items()}


def _inverse_batches(crossings: xr.Dataset, law: Law) -> np.ndarray:
    """Return the columns that the law's scales multiply, shape (run, scale)."""
    prompts, rollouts = batch_axes(crossings)
    if not law.two_axis:
        return (1 / (prompts * rollouts))[:, None]
    return np.column_stack([1 / prompts,
                            1 / (prompts * group_divisor(rollouts, plain=law.plain))])


def _separable(design: np.ndarray) -> bool:
    if len(design) < 1 + design.shape[1]:
        return False
    scaled = design / np.exp(np.mean(np.log(design), axis=0))
    return bool(np.linalg.matrix_rank(np.column_stack([np.ones(len(design)), scaled]))
                == 1 + design.shape[1])


def _curve_fit(first: xr.Dataset, law: Law, reading: Reading, ci_prob: float) -> Intervals:
    """Return value ± so many standard errors, as logarithms, of raw S of runs seen to cross."""
    design = _inverse_batches(first, law)
    upper = first["upper"].transpose("threshold", "run").values
    best, spread = (np.array(part) for part in zip(
        *(_raw_fit(design, steps, law.alpha or 1.0) for steps in upper), strict=True))
    step = _STEP * np.sqrt(np.einsum("tjj->tj", spread))
    moved = np.concatenate([best[None], best + np.einsum("tj,jk->jtk", step, np.eye(len(step.T)))])
    half = stats.norm.ppf(0.5 + ci_prob / 2)
    out = {}
    for name, logs in _read(moved, law, reading).items():
        values = np.exp(logs)
        gradient = (values[1:] - values[0]) / step.T
        margin = half * _standard_error(gradient, spread)
        out[name] = np.log(np.maximum([values[0], values[0] - margin, values[0] + margin], 0.0))
    return out


def _raw_fit(design: np.ndarray, steps: np.ndarray, alpha: float
             ) -> tuple[np.ndarray, np.ndarray]:
    """Return S_min, scales and their covariance, absolute weights; NaN without convergence."""
    size = 1 + design.shape[1]
    none = np.full(size, np.nan), np.full((size, size), np.nan)
    used = np.isfinite(steps)
    if used.sum() < size:
        return none
    x, y = design[used], steps[used]

    def law_of(_: np.ndarray, s_min: float, *scales: float) -> np.ndarray:
        return s_min * (1 + x @ np.array(scales)) ** alpha

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # infinite covariance: no interval
            return curve_fit(law_of, x[:, 0], y, p0=[y.min(), *np.median(1 / x, axis=0)],
                             bounds=([0] * size, np.inf), maxfev=10000)
    except RuntimeError:  # no convergence
        return none


def _log_fit(isotonic: xr.Dataset, law: Law, ci_prob: float, n_bootstrap: int, random_seed: int
             ) -> _LogFit:
    design = _inverse_batches(isotonic, law)
    cell = np.column_stack(batch_axes(isotonic))
    middle = interval_midpoints(isotonic["lower"].transpose("threshold", "run").values,
                                isotonic["upper"].transpose("threshold", "run").values)
    parts = [_log_fit_at(design, cell, steps, law.alpha or 1.0, ci_prob, n_bootstrap, random_seed)
             for steps in middle]
    best, spread, draws, half = (np.array(part) for part in zip(*parts, strict=True))
    return _LogFit(best, spread, draws.transpose(1, 0, 2), half)


def _log_fit_at(
    design: np.ndarray, cell: np.ndarray, steps: np.ndarray, alpha: float, ci_prob: float,
    n_bootstrap: int, random_seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return log parameters, covariance, log parameters of resamples, and t quantile."""
    size = 1 + design.shape[1]
    used = np.isfinite(steps)
    x, y = design[used], steps[used]
    if not _separable(x):
        return (np.full(size, np.nan), np.full((size, size), np.nan),
                np.full((n_bootstrap, size), np.nan), np.nan)
    rng = np.random.default_rng(random_seed)
    weights = resample_weights(cell[used], x, n_bootstrap, rng) if n_bootstrap else ()
    fit = hyperbola.solve(x, y, np.vstack([np.ones(len(y)), *weights]), alpha)
    logs = np.log(np.column_stack([fit.S_min, fit.scales]))
    spread = (np.full((size, size), np.nan) if fit.at_limit[0]
              else hyperbola.covariance(x, y, fit.log_scales[0], alpha))
    half = stats.t.ppf(0.5 + ci_prob / 2, max(len(y) - size, 1))
    return logs[0], spread, logs[1:], float(half)


def _delta(fit: _LogFit, law: Law, reading: Reading) -> Intervals:
    """Return log intervals from log parameters, their covariance and t quantiles."""
    moved = np.concatenate([fit.best[None], fit.best + _STEP * np.eye(fit.best.shape[1])[:, None]])
    out = {}
    for name, logs in _read(np.exp(moved), law, reading).items():
        margin = fit.half * _standard_error((logs[1:] - logs[0]) / _STEP, fit.spread)
        out[name] = np.array([logs[0], logs[0] - margin, logs[0] + margin])
    return out


def _standard_error(gradient: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return standard errors (threshold,) from gradients (parameter, threshold)."""
    return np.sqrt(np.einsum("jt,tjk,kt->t", gradient, spread, gradient))


def _percentiles(draws: np.ndarray, ci_prob: float) -> np.ndarray:
    """Return ends (2, threshold) of draws with limits in them; draws of no value are left out."""
    tail = (1 - ci_prob) / 2
    ends: Callable[[np.ndarray], np.ndarray] = lambda known: (  # noqa: E731
        np.quantile(known, [tail, 1 - tail], method="nearest") if known.size
        else np.full(2, np.nan))
    return np.array([ends(column[~np.isnan(column)]) for column in draws.T]).T
