"""Least-squares intervals on the same crossings, for every quantity the posterior gives.

==================  ===========================================================================
``curve_fit``       common practice: first crossings, raw S, runs that never cross dropped,
                    `scipy.optimize.curve_fit`, interval from its covariance
``log_fit_t``       log least squares at midpoints of isotonic crossings, t-interval
``log_fit_boot``    the same fit, percentile interval of its bootstrap over runs
==================  ===========================================================================

Intervals from a covariance carry over to derived quantities by the delta method: as value ± 1.645
standard errors for ``curve_fit``, on the log scale for ``log_fit_t``. A log fit that ended at a
limit (a scale of 0 or infinity) has no t-interval, a ``curve_fit`` that did not converge has none.
The exponent is the law's, 1 where the law leaves it free; learning rates are not looked at.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.special import ndtri

from cbsbayes.baselines.least_squares import fit_raw_law
from cbsbayes.baselines.log_space import LogFit, fit_log_law, interval_midpoints, inverse_batches
from cbsbayes.models.laws import Law, batch_axes, get_law
from cbsbayes.validation.models import Reading

__all__ = ["Intervals", "fixed_law", "least_squares_intervals", "log_estimates"]

Intervals = dict[str, np.ndarray]
"""Quantity to log estimate, lower and upper end, shape (3, threshold)."""

_STEP = 1e-4  # of numeric derivatives, in log parameters or standard errors


def fixed_law(law: Law) -> Law:
    """Return the law of the same form whose exponent is 1, or the law itself if it has one."""
    if law.alpha is not None:
        return law
    if not law.two_axis:
        return get_law("total")
    return get_law(law.name.replace("_free", "").replace("learning_rate", "two_axis"))


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
    raw = [_delta(*_raw_fit(first.isel(threshold=k), law), float(ndtri(0.5 + ci_prob / 2)), law,
                  reading, logs=False) for k in range(first.sizes["threshold"])]
    by_t, by_boot = [], []
    for k in range(isotonic.sizes["threshold"]):
        fit = _log_fit(isotonic.isel(threshold=k), law, n_bootstrap, random_seed)
        found = _delta(fit.log_parameters, fit.covariance, fit.t_quantile(ci_prob), law, reading,
                       logs=True)
        by_t.append(found)
        by_boot.append({name: [found[name][0], *_percentiles(draws, ci_prob)]
                        for name, draws in _read(fit.draws, law, reading).items()})
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


def _percentiles(draws: np.ndarray, ci_prob: float) -> tuple[float, float]:
    """Return the ends of draws with limits in them; draws without a value are left out."""
    known = draws[~np.isnan(draws)]
    if not known.size:
        return np.nan, np.nan
    levels = [(1 - ci_prob) / 2, (1 + ci_prob) / 2]
    lower, upper = np.quantile(known, levels, method="nearest")
    return float(lower), float(upper)
