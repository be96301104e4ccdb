r"""Least squares of :math:`\log S = \log S_{min} + \alpha \log(1 + \sum_j B_j x_j)`.

The inverse batches x are 1/B for one axis, and 1/P and 1/(P (G - 1)) for two. S_min is
projected out (it enters linearly), the log scales are found by a grid over their whole range
followed by Levenberg-Marquardt. All resamples of a bootstrap are solved in one go: they share
y and x and differ in the weights of the runs only. S and x are divided by their geometric
means first, so units do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["HyperbolaFit", "covariance", "solve"]

NEGLIGIBLE = 1e-3
"""A term that changes no fitted S by more than this share is at its limit."""
LOG_REACH = np.log(1e6)
"""How far beyond the batches tried the scales are looked for."""
GRID_POINTS = {1: 129, 2: 33}
N_ITERATIONS = 100


@dataclass(frozen=True)
class HyperbolaFit:
    """One solution per row of weights.

    Attributes
    ----------
    S_min : ndarray, shape (draw,)
        In the unit of S; 0 in the steep limit.
    scales : ndarray, shape (draw, scale)
        In the units of 1/x; 0 where flat, inf in the steep limit.
    log_S_min : ndarray, shape (draw,)
        Its logarithm where the search ended, before limits are taken: finite.
    log_scales : ndarray, shape (draw, scale)
        Logarithms of the scales where the search ended: finite.
    at_limit : ndarray of bool, shape (draw,)
        Whether any scale is 0 or inf.
    """

    S_min: np.ndarray
    scales: np.ndarray
    log_S_min: np.ndarray
    log_scales: np.ndarray
    at_limit: np.ndarray


def _centre(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Subtract the weighted mean over runs (axis 1)."""
    shape = weights.shape + (1,) * (values.ndim - 2)
    weights = weights.reshape(shape)
    return values - (weights * values).sum(1, keepdims=True) / weights.sum(1, keepdims=True)


def _grid_start(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, bounds: np.ndarray, alpha: float
) -> np.ndarray:
    """Return the best point of a grid over the box for each row of weights."""
    axes = [np.linspace(low, high, GRID_POINTS[x.shape[1]]) for low, high in bounds.T]
    grid = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)
    residual = y[:, None] - alpha * np.log1p(x @ np.exp(grid.T))
    total = weights.sum(1, keepdims=True)
    loss = weights @ residual**2 - (weights @ residual) ** 2 / total
    return grid[np.argmin(loss, axis=1)]


def _residual(beta: np.ndarray, x: np.ndarray, y: np.ndarray, weights: np.ndarray, alpha: float
              ) -> tuple[np.ndarray, np.ndarray]:
    """Return residuals (draw, run) without S_min, and their weighted sum of squares (draw,)."""
    residual = _centre(y - alpha * np.log1p(np.exp(beta) @ x.T), weights)
    return residual, (weights * residual**2).sum(1)


def _jacobian(beta: np.ndarray, x: np.ndarray, alpha: float) -> np.ndarray:
    """Return d log S / d log scale, shape (draw, run, scale)."""
    terms = np.exp(beta)[:, None, :] * x
    return alpha * terms / (1 + terms.sum(2, keepdims=True))


def _step(
    beta: np.ndarray, jacobian: np.ndarray, residual: np.ndarray, weights: np.ndarray,
    damping: np.ndarray, bounds: np.ndarray,
) -> np.ndarray:
    """Return a damped Gauss-Newton step; coordinates pressed against the box stay."""
    normal = np.einsum("rnj,rn,rnk->rjk", jacobian, weights, jacobian)
    slope = np.einsum("rnj,rn,rn->rj", jacobian, weights, residual)
    held = ((beta <= bounds[0]) & (slope < 0)) | ((beta >= bounds[1]) & (slope > 0))
    free = ~held[:, :, None] & ~held[:, None, :]
    diagonal = np.einsum("rjj->rj", normal)
    tiny = np.finfo(float).tiny
    damped = normal + np.eye(beta.shape[1]) * (damping[:, None] * diagonal + tiny)[:, None, :]
    damped = np.where(free, damped, np.eye(beta.shape[1]))
    return np.linalg.solve(damped, np.where(held, 0.0, slope)[..., None])[..., 0]


def _polish(
    beta: np.ndarray, x: np.ndarray, y: np.ndarray, weights: np.ndarray, bounds: np.ndarray,
    alpha: float,
) -> np.ndarray:
    """Run Levenberg-Marquardt from `beta`, inside the box, for all rows at once."""
    damping = np.full(len(beta), 1e-3)
    residual, loss = _residual(beta, x, y, weights, alpha)
    for _ in range(N_ITERATIONS):
        jacobian = _centre(_jacobian(beta, x, alpha), weights)
        step = _step(beta, jacobian, residual, weights, damping, bounds)
        trial = np.clip(beta + np.clip(step, -3, 3), *bounds)
        trial_residual, trial_loss = _residual(trial, x, y, weights, alpha)
        better = trial_loss <= loss
        moved = np.abs(trial - beta).max(1)
        beta = np.where(better[:, None], trial, beta)
        residual = np.where(better[:, None], trial_residual, residual)
        loss = np.where(better, trial_loss, loss)
        damping = np.where(better, damping / 5, damping * 10).clip(1e-12, 1e12)
        if moved.max() < 1e-10:
            break
    return beta


def solve(
    design: np.ndarray, steps: np.ndarray, weights: np.ndarray, alpha: float = 1.0
) -> HyperbolaFit:
    """Fit the law to every row of weights.

    Parameters
    ----------
    design : ndarray, shape (run, scale)
        Inverse batches x, positive; one or two scales.
    steps : ndarray, shape (run,)
        Updates to the threshold, positive.
    weights : ndarray, shape (draw, run)
        Weight of each run in each fit.
    alpha : float
        The exponent.

    Returns
    -------
    HyperbolaFit
        In the units of `design` and `steps`.
    """
    log_unit = np.mean(np.log(design), axis=0)
    x = design / np.exp(log_unit)
    y = np.log(steps)
    level = y.mean()
    reach = np.log(np.stack([1 / x.max(0), 1 / x.min(0)]))
    bounds = reach + np.array([[-LOG_REACH], [LOG_REACH]])
    start = _grid_start(x, y - level, weights, bounds, alpha)
    beta = _polish(start, x, y - level, weights, bounds, alpha)
    ratio = alpha * np.log1p(np.exp(beta) @ x.T)
    log_s_min = (weights * (y - ratio)).sum(1) / weights.sum(1)
    return _with_limits(beta, x, log_s_min, log_unit)


def _with_limits(
    beta: np.ndarray, x: np.ndarray, log_s_min: np.ndarray, log_unit: np.ndarray
) -> HyperbolaFit:
    terms = np.exp(beta)[:, None, :] * x
    total = terms.sum(2)
    flat = (terms / (1 + total[:, :, None])).max(1) < NEGLIGIBLE
    steep = total.min(1) > 1 / NEGLIGIBLE
    log_scales = beta - log_unit
    scales = np.where(steep[:, None], np.inf, np.exp(log_scales))
    return HyperbolaFit(
        S_min=np.where(steep, 0.0, np.exp(log_s_min)), scales=np.where(flat, 0.0, scales),
        log_S_min=log_s_min, log_scales=log_scales, at_limit=steep | flat.any(1))


def covariance(
    design: np.ndarray, steps: np.ndarray, log_scales: np.ndarray, alpha: float = 1.0
) -> np.ndarray:
    """Return the covariance of log S_min and the log scales from the Jacobian.

    Parameters
    ----------
    design : ndarray, shape (run, scale)
        Inverse batches.
    steps : ndarray, shape (run,)
        Updates to the threshold.
    log_scales : ndarray, shape (scale,)
        The solution.
    alpha : float
        The exponent.

    Returns
    -------
    ndarray, shape (1 + scale, 1 + scale)
        Residual variance (n - 1 - scale degrees of freedom) times (J'J)^-1; NaN without
        degrees of freedom.
    """
    n_runs, n_scales = design.shape
    degrees = n_runs - 1 - n_scales
    if degrees < 1:
        return np.full((1 + n_scales, 1 + n_scales), np.nan)
    jacobian = np.column_stack([np.ones(n_runs), _jacobian(log_scales[None], design, alpha)[0]])
    ratio = alpha * np.log1p(design @ np.exp(log_scales))
    residual = np.log(steps) - ratio
    variance = np.sum((residual - residual.mean()) ** 2) / degrees
    return variance * np.linalg.inv(jacobian.T @ jacobian)
