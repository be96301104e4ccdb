"""Least squares done fairly: log S at interval midpoints, with two kinds of interval.

S is the geometric middle of the interval of evaluations between which the (isotonic) curve
crosses. Runs of which only a bound is known, crossed before the first evaluation or never,
have no midpoint and cannot enter: they are counted, and they are what a likelihood with
censoring adds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from cbsbayes.baselines import hyperbola
from cbsbayes.baselines.bootstrap import percentile_interval, resample_weights
from cbsbayes.baselines.least_squares import r_squared, read_points
from cbsbayes.baselines.result import NAN, BaselineFit, TwoAxisFit
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import group_divisor

__all__ = ["interval_midpoints", "log_least_squares", "log_least_squares_two_axis"]


def interval_midpoints(lower: npt.ArrayLike, upper: npt.ArrayLike) -> np.ndarray:
    """Return the geometric middle of crossing intervals.

    Parameters
    ----------
    lower, upper : array_like
        Bounds in updates: lower 0 is left-censored, upper inf right-censored.

    Returns
    -------
    ndarray
        Updates; NaN where either bound is not a positive number.
    """
    lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
    known = (lower > 0) & np.isfinite(upper)
    return np.sqrt(np.where(known, lower, np.nan) * np.where(known, upper, np.nan))


def _solve_with_bootstrap(
    design: np.ndarray, steps: np.ndarray, cell: np.ndarray, alpha: float, n_bootstrap: int,
    random_seed: int,
) -> hyperbola.HyperbolaFit:
    """Fit all runs (row 0) and every resample (the other rows)."""
    rng = np.random.default_rng(random_seed)
    weights = resample_weights(cell, design, n_bootstrap, rng)
    return hyperbola.solve(design, steps, np.vstack([np.ones(len(steps)), weights]), alpha)


def _log_r2(design: np.ndarray, steps: np.ndarray, fit: hyperbola.HyperbolaFit, alpha: float
            ) -> float:
    ratio = alpha * np.log1p(design @ np.exp(fit.log_scales[0]))
    return r_squared(np.log(steps), fit.log_S_min[0] + ratio)


def _t_interval(design: np.ndarray, steps: np.ndarray, fit: hyperbola.HyperbolaFit, ci_prob: float
                ) -> tuple[float, float]:
    """Return the t-interval of a single scale, n - 2 degrees of freedom; NaN at a limit."""
    if fit.at_limit[0]:
        return NAN, NAN
    spread = np.sqrt(hyperbola.covariance(design, steps, fit.log_scales[0])[1, 1])
    half = stdtrit(len(steps) - 2, 0.5 + ci_prob / 2) * spread
    scale = fit.scales[0, 0]
    return float(scale * np.exp(-half)), float(scale * np.exp(half))


def log_least_squares(
    batch: npt.ArrayLike, steps: npt.ArrayLike, *, cell: npt.ArrayLike | None = None,
    threshold: float = NAN, axis: str = "total", at: str = "", ci_prob: float = 0.9,
    n_bootstrap: int = 200, random_seed: int = 0,
) -> BaselineFit | None:
    """Fit log S = log S_min + log(1 + B_noise/B), with a t-interval and a run bootstrap.

    The result does not depend on units. Runs with one rollout under a group estimator belong
    to another estimator: leave them out (`fit_baselines` does). On the rollout axis this is the
    same hyperbola in G as the usual one, so that the two methods estimate one quantity; the
    group law is fitted by `log_least_squares_two_axis`.

    Parameters
    ----------
    batch : array_like, shape (run,)
        Batch sizes in any one unit.
    steps : array_like, shape (run,)
        Updates to the threshold (`interval_midpoints`); NaN or inf where only a bound is known.
    cell : array_like, shape (run,) or (run, axis), optional
        Batch cell of each run; runs of equal cells are replicates in the bootstrap. Default:
        the batch.
    threshold, axis, at
        Labels of the result, see `BaselineFit`.
    ci_prob : float
        Probability of both intervals.
    n_bootstrap : int
        Resamples of the runs.
    random_seed : int
        Seed of the bootstrap.

    Returns
    -------
    BaselineFit or None
        None with fewer than three crossings. B_noise 0 or inf where S is flat or falls as 1/B
        over the batches tried; NaN and a note where only one batch size crossed.

    Raises
    ------
    CBSDataError
        If the lengths differ or a batch or a step count is not positive.
    """
    cell = np.asarray(batch if cell is None else cell)
    batch, steps, used = read_points(batch, steps)
    n_dropped = int(np.sum(~used))
    if batch.size < 3:
        return None
    if np.unique(batch).size < 2:
        return BaselineFit.failed(
            "one batch size only: B_noise is not identified", threshold=threshold, axis=axis,
            at=at, method="log_least_squares", batch=batch, steps=steps, n_dropped=n_dropped)
    design = 1 / batch[:, None]
    fit = _solve_with_bootstrap(design, steps, cell[used], 1.0, n_bootstrap, random_seed)
    lower, upper = percentile_interval(fit.scales[1:, 0], ci_prob)
    t_lower, t_upper = _t_interval(design, steps, fit, ci_prob)
    b_noise = float(fit.scales[0, 0])
    e_min = float(np.exp(fit.log_S_min[0] + fit.log_scales[0, 0])) if b_noise > 0 else 0.0
    return BaselineFit(
        threshold, axis, at, "log_least_squares", float(fit.S_min[0]), b_noise, lower, upper,
        batch.size, n_dropped, _log_r2(design, steps, fit, 1.0), batch, steps, E_min=e_min,
        ci_t_lower=t_lower, ci_t_upper=t_upper, ci_prob=ci_prob)


def _two_axis_points(
    n_prompts: npt.ArrayLike, n_rollouts: npt.ArrayLike, steps: npt.ArrayLike, plain: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return design, updates and cells of the runs that crossed, and how many did not."""
    prompts, crossed, used = read_points(n_prompts, steps)
    rollouts, _, _ = read_points(n_rollouts, steps)
    divisor = group_divisor(rollouts, plain=plain)
    if (divisor <= 0).any():
        raise CBSDataError("n_rollouts holds 1, which has no group baseline; valid are 2 and "
                           "more: leave those runs out or fit the plain law")
    design = np.column_stack([1 / prompts, 1 / (prompts * divisor)])
    return design, crossed, np.column_stack([prompts, rollouts]), int(np.sum(~used))


def _separable(design: np.ndarray) -> bool:
    scaled = design / np.exp(np.mean(np.log(design), axis=0))
    return bool(np.linalg.matrix_rank(np.column_stack([np.ones(len(design)), scaled])) == 3)


def log_least_squares_two_axis(
    n_prompts: npt.ArrayLike, n_rollouts: npt.ArrayLike, steps: npt.ArrayLike,
    alpha: float = 1.0, plain: bool = False, *, ci_prob: float = 0.9, n_bootstrap: int = 200,
    random_seed: int = 0,
) -> TwoAxisFit:
    """Fit log S = log S_min + alpha log(1 + (B_prompt + B_rollout/(G - 1))/P).

    Parameters
    ----------
    n_prompts, n_rollouts : array_like, shape (run,)
        P and G of each run.
    steps : array_like, shape (run,)
        Updates to the threshold (`interval_midpoints`); NaN or inf where only a bound is known.
    alpha : float
        The exponent.
    plain : bool
        Divide B_rollout by G instead of G - 1 (estimators without a group baseline).
    ci_prob, n_bootstrap, random_seed
        As in `log_least_squares`; cells are pairs (P, G).

    Returns
    -------
    TwoAxisFit
        NaN and a note where the runs that crossed do not tell the two scales and S_min apart
        (fewer than three distinct cells, or one axis not varied).

    Raises
    ------
    CBSDataError
        If lengths differ, a number is not positive, or G is 1 under a group baseline.
    """
    design, crossed, cell, n_dropped = _two_axis_points(n_prompts, n_rollouts, steps, plain)
    if crossed.size < 3 or not _separable(design):
        return TwoAxisFit(NAN, NAN, NAN, alpha, plain, crossed.size, n_dropped, NAN, ci_prob,
                          note="the runs that crossed do not tell S_min, B_prompt and "
                               "B_rollout apart")
    fit = _solve_with_bootstrap(design, crossed, cell, alpha, n_bootstrap, random_seed)
    draws = np.column_stack([fit.S_min, fit.scales])
    spread = (np.full((3, 3), NAN) if fit.at_limit[0]
              else hyperbola.covariance(design, crossed, fit.log_scales[0], alpha))
    s_min, b_prompt, b_rollout = draws[0].tolist()
    return TwoAxisFit(s_min, b_prompt, b_rollout, alpha, plain, crossed.size, n_dropped,
                      _log_r2(design, crossed, fit, alpha), ci_prob, spread, draws[1:])
