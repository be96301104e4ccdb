"""Intervals on the same simulated sweep by four methods, and the truth they are held to.

==================  ===========================================================================
``posterior``       the crossing model on isotonic crossings, equal-tailed interval
``curve_fit``       the usual practice carried to two axes: first crossings, raw S, runs that
                    never cross dropped, `scipy.optimize.curve_fit`, interval from its covariance
``log_fit_t``       log least squares at midpoints of isotonic crossings, t-interval
``log_fit_boot``    the same fit, percentile interval of its bootstrap over runs
==================  ===========================================================================

Intervals from a covariance carry over to derived quantities by the delta method: as value ± 1.645
standard errors for ``curve_fit``, on the log scale for ``log_fit_t``. A log fit that ended at a
limit (a scale of 0 or infinity) has no t-interval, a ``curve_fit`` that did not converge has none.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats
from scipy.optimize import OptimizeWarning, curve_fit

from cbsbayes.baseline import interval_midpoints, log_least_squares_two_axis
from cbsbayes.crossing import find_crossings
from cbsbayes.grouping import choose_runs
from cbsbayes.laws import Law
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.sampling import SamplerSettings, sample_crossings
from cbsbayes.simulate import truth_of
from cbsbayes.truth import Truth, mean_noise, progress_at, true_steps
from cbsbayes.verdict import sampler_checks

__all__ = ["AT", "CI_PROB", "THRESHOLDS", "Outcome", "read_off", "sweep_intervals", "true_values"]

THRESHOLDS = (0.60, 0.625, 0.65, 0.675, 0.70, 0.72)
AT = (128, 8)
"""The batch (n_prompts, n_rollouts) at which S and the gains are stated."""
CI_PROB = 0.9
_N_BOOTSTRAP = 200
_PROMPTS_GRID = np.geomspace(1.0, 1e5, 400)  # log S is smooth in log P: interpolation is exact
_STEP = 1e-4  # of numeric derivatives, in log parameters or standard errors


@dataclass(frozen=True)
class Outcome:
    """One sweep: an interval per method, threshold and quantity, and how the sampling went."""

    intervals: pd.DataFrame
    sampling: dict[str, float]


def read_off(log_s_min: np.ndarray, log_b_prompt: np.ndarray, log_b_rollout: np.ndarray,
             alpha: np.ndarray | float) -> dict[str, np.ndarray]:
    """Return the logarithms of the quantities compared, from those of the law's parameters.

    Parameters
    ----------
    log_s_min, log_b_prompt, log_b_rollout : numpy.ndarray
        Updates, prompts, prompts x (rollouts - 1); any one shape.
    alpha : numpy.ndarray or float
        The exponent.
    """
    prompts, rollouts = AT

    def noise(n_rollouts: int) -> np.ndarray:
        return np.logaddexp(log_b_prompt, log_b_rollout - np.log(n_rollouts - 1))

    def log_steps(n_prompts: int, n_rollouts: int) -> np.ndarray:
        return log_s_min + alpha * np.logaddexp(0.0, noise(n_rollouts) - np.log(n_prompts))

    here = log_steps(prompts, rollouts)
    return {"S_min": log_s_min, "B_prompt": log_b_prompt, "B_rollout": log_b_rollout,
            "N(8)": noise(8), "S(128,8)": here,
            "gain_prompts": log_steps(2 * prompts, rollouts) - here,
            "gain_rollouts": log_steps(prompts, 2 * rollouts) - here,
            "cbs_prompts(8)": noise(8) - np.log(2.0 ** (1.0 / alpha) - 1.0)}


def true_values(truth: Truth, threshold: float) -> dict[str, float]:
    """Return the logarithms of the true quantities, S and the CBS from the integral itself."""
    (prompts, rollouts), means = AT, mean_noise(truth, threshold)
    s_min = float(progress_at(truth, threshold))
    here, more_prompts, more_rollouts = np.log(true_steps(
        truth, [prompts, 2 * prompts, prompts], [rollouts, rollouts, 2 * rollouts], threshold))
    along = np.log(true_steps(truth, _PROMPTS_GRID, 8, threshold))
    cbs = np.interp(-np.log(2 * s_min), -along, np.log(_PROMPTS_GRID))
    return {"S_min": np.log(s_min), "B_prompt": np.log(means["B_prompt"]),
            "B_rollout": np.log(means["B_rollout"]),
            "N(8)": np.log(means["B_prompt"] + means["B_rollout"] / 7), "S(128,8)": here,
            "gain_prompts": more_prompts - here, "gain_rollouts": more_rollouts - here,
            "cbs_prompts(8)": cbs, "alpha": np.log(truth.alpha)}


def sweep_intervals(ds: xr.Dataset, law: Law, random_seed: int) -> Outcome:
    """Return every method's intervals on a simulated sweep, beside the truth.

    Parameters
    ----------
    ds : xarray.Dataset
        Of `cbsbayes.simulate.simulate_sweep`.
    law : Law
        A two-axis law. The least-squares methods take its exponent, 1 where it is free.
    random_seed : int
        Of the sampler and the bootstrap.

    Returns
    -------
    Outcome
        Columns ``method, threshold, quantity, truth, estimate, lower, upper``, all logarithms.
    """
    reasons = choose_runs(ds, law)
    fitted = ds.isel(run=[k for k, run in enumerate(ds["run"].values) if not reasons[str(run)]])
    truth = truth_of(ds)
    posterior, sampling = _posterior(fitted, law, random_seed)
    first = find_crossings(fitted, THRESHOLDS, rule="first")
    isotonic = find_crossings(fitted, THRESHOLDS)
    rows = []
    for k, threshold in enumerate(THRESHOLDS):
        if not progress_at(truth, threshold) > 0:
            continue  # an item set may show more than this before training, or never get there
        true = true_values(truth, threshold)
        found = {"posterior": posterior[k],
                 "curve_fit": _curve_fit(first.isel(threshold=k), law),
                 **_log_fit(isotonic.isel(threshold=k), law, random_seed)}
        rows += [{"method": method, "threshold": threshold, "quantity": name, "truth": true[name],
                  "estimate": estimate, "lower": lower, "upper": upper}
                 for method, intervals in found.items()
                 for name, (estimate, lower, upper) in intervals.items()]
    return Outcome(pd.DataFrame(rows), sampling)


Intervals = dict[str, tuple[float, float, float]]


def _posterior(
    fitted: xr.Dataset, law: Law, random_seed: int
) -> tuple[list[Intervals], dict[str, float]]:
    data = crossing_data(find_crossings(fitted, THRESHOLDS), law)
    settings = SamplerSettings(draws=500, tune=500, chains=2, cores=1, random_seed=random_seed)
    start = time.perf_counter()
    tree = sample_crossings(data, law, settings)
    seconds = time.perf_counter() - start
    post = tree["posterior"].to_dataset().stack(sample=("chain", "draw"))
    out = []
    for k in range(len(data.threshold)):
        scales = [np.log(post[name].isel(threshold=k).values)
                  for name in ("S_min", "B_prompt", "B_rollout")]
        alpha = post["alpha"].values if law.alpha is None else law.alpha
        draws = read_off(*scales, alpha) | ({} if law.alpha else {"alpha": np.log(alpha)})
        out.append({name: _quantiles(values) for name, values in draws.items()})
    return out, sampler_checks(tree)[1] | {"seconds": seconds}


def _quantiles(draws: np.ndarray) -> tuple[float, float, float]:
    tail = (1 - CI_PROB) / 2
    middle, lower, upper = np.quantile(draws, [0.5, tail, 1 - tail])
    return float(middle), float(lower), float(upper)


def _curve_fit(crossings: xr.Dataset, law: Law) -> Intervals:
    """Return what the usual practice gives: raw S of the runs seen to cross, absolute weights."""
    alpha = law.alpha or 1.0
    used = np.isfinite(crossings["upper"].values)
    if used.sum() < 3:
        return _wald(np.full(3, np.nan), np.full((3, 3), np.nan), alpha)
    prompts, rollouts, steps = (values[used].astype(float) for values in (
        crossings["n_prompts"].values, crossings["n_rollouts"].values, crossings["upper"].values))
    divisor = rollouts if law.plain else rollouts - 1

    def steps_of(_: np.ndarray, s_min: float, b_prompt: float, b_rollout: float) -> np.ndarray:
        return s_min * (1 + (b_prompt + b_rollout / divisor) / prompts) ** alpha

    middle = np.median(prompts)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # infinite covariance: no interval
            best, spread = curve_fit(steps_of, prompts, steps,
                                     p0=[steps.min(), middle, middle * np.median(divisor)],
                                     bounds=([0, 0, 0], np.inf), maxfev=10000)
    except RuntimeError:  # no convergence
        best, spread = np.full(3, np.nan), np.full((3, 3), np.nan)
    return _wald(best, spread, alpha)


def _log_fit(crossings: xr.Dataset, law: Law, random_seed: int) -> dict[str, Intervals]:
    alpha = law.alpha or 1.0
    fit = log_least_squares_two_axis(
        crossings["n_prompts"].values, crossings["n_rollouts"].values,
        interval_midpoints(crossings["lower"].values, crossings["upper"].values), alpha, law.plain,
        ci_prob=CI_PROB, n_bootstrap=_N_BOOTSTRAP, random_seed=random_seed)
    with np.errstate(divide="ignore", invalid="ignore"):  # limits 0 and infinity
        best = np.log([fit.S_min, fit.B_prompt, fit.B_rollout])
        boot = read_off(*np.log(fit.draws).T, alpha)
        half = stats.t.ppf(0.5 + CI_PROB / 2, max(fit.n_used - 3, 1))
        by_t = _delta(best, fit.log_covariance, alpha, half)
        center = read_off(*best[:, None], alpha)
    by_boot = {name: (float(center[name][0]), *_percentiles(values))
               for name, values in boot.items()}
    return {"log_fit_t": by_t, "log_fit_boot": by_boot}


def _percentiles(draws: np.ndarray) -> tuple[float, float]:
    """Return the central interval of draws with limits in them; draws of no value are left out."""
    known = draws[~np.isnan(draws)]
    if known.size == 0:
        return float("nan"), float("nan")
    tail = (1 - CI_PROB) / 2
    lower, upper = np.quantile(known, [tail, 1 - tail], method="nearest")
    return float(lower), float(upper)


def _wald(best: np.ndarray, spread: np.ndarray, alpha: float) -> Intervals:
    """Return value ± 1.645 standard errors, as logarithms, from parameters and covariance."""
    step = _STEP * np.sqrt(np.diag(spread))
    moved = best[:, None] + np.hstack([np.zeros((3, 1)), np.diag(step)])
    half = stats.norm.ppf(0.5 + CI_PROB / 2)
    out = {}
    with np.errstate(divide="ignore", invalid="ignore"):  # log 0 is a lower end that is open
        for name, logs in read_off(*np.log(moved), alpha).items():
            values = np.exp(logs)
            gradient = (values[1:] - values[0]) / step
            sd = np.sqrt(gradient @ spread @ gradient)
            ends = np.log(np.maximum(values[0] + half * sd * np.array([-1, 1]), 0.0))
            out[name] = (float(logs[0]), *ends.tolist())
    return out


def _delta(best: np.ndarray, spread: np.ndarray, alpha: float, half: float) -> Intervals:
    """Return log intervals of `half` standard errors from log parameters and their covariance."""
    moved = best[:, None] + _STEP * np.hstack([np.zeros((3, 1)), np.eye(3)])
    out = {}
    for name, values in read_off(*moved, alpha).items():
        gradient = (values[1:] - values[0]) / _STEP
        sd = np.sqrt(gradient @ spread @ gradient)
        out[name] = (float(values[0]), float(values[0] - half * sd), float(values[0] + half * sd))
    return out
