r"""Squared gradient norms against 1/P: a line whose slope is tr Σ(G) and whose intercept is |G|².

The error of a mean square goes with its size, so the weights are one over the square of the line's
own value. Errors are from drawing whole runs anew, made wider by what a line takes of few runs.
"""

from __future__ import annotations

import numpy as np

__all__ = ["MIN_BATCHES", "norm_line"]

MIN_BATCHES = 3  # sizes of a range; through two a line fits whatever they are
_ITERATIONS = 30  # of the weights


def norm_line(
    batch: np.ndarray, norm_sq: np.ndarray, updates: np.ndarray, n_draws: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return slope and intercept, shape (2,), and draws of them, shape (2, draw).

    Runs drawn anew scatter too little, by the two degrees of freedom that the line takes; draws are
    widened for that. How little so few runs tell of their scatter is Student's factor, which is not
    in them.

    Parameters
    ----------
    batch, norm_sq, updates : numpy.ndarray
        Shape (run,), three and more: batch size, mean squared norm, and the updates behind it.
    n_draws : int
        Of whole runs.
    rng : numpy.random.Generator
        Where they come from.
    """
    count = len(batch)
    picked = rng.multinomial(count, np.full(count, 1 / count), size=n_draws)
    lines = _lines(1 / np.asarray(batch, dtype=float), norm_sq,
                   np.vstack([np.ones(count, dtype=int), picked]) * updates)
    own, drawn = lines[:, :1], lines[:, 1:]
    return own[:, 0], own + (drawn - own) * np.sqrt(count / (count - 2))


def _lines(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return slope and intercept of weighted lines, shape (2, draw); weights (draw, run)."""
    line = np.broadcast_to(y, weight.shape)
    slope = intercept = np.empty(0)
    for _ in range(_ITERATIONS):
        w = weight / line**2
        w = w / w.sum(axis=1, keepdims=True)
        x_mean, y_mean = w @ x, w @ y
        across = x - x_mean[:, None]
        spread = (w * across**2).sum(axis=1)
        slope = np.divide((w * across * y).sum(axis=1), spread, out=np.zeros(len(w)),
                          where=spread > 1e-12 * x_mean**2)
        intercept = y_mean - slope * x_mean
        line = np.maximum(intercept[:, None] + slope[:, None] * x, 0.05 * y_mean[:, None])
    return np.stack([slope, intercept])
