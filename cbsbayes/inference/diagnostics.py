"""Rank-normalised split r_hat and effective sample sizes, by `arviz_stats`' array interface."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Convergence", "convergence"]

_TAILS = (0.05, 0.95)


class Convergence(NamedTuple):
    """Diagnostics, shape (column,) each; NaN where a draw is NaN or there are too few.

    Attributes
    ----------
    r_hat : numpy.ndarray
        Rank-normalised split r_hat, bulk and tails.
    ess_bulk, ess_tail : numpy.ndarray
        Effective draws.
    """

    r_hat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray


def convergence(draws: np.ndarray) -> Convergence:
    """Return the diagnostics of each column of draws.

    Parameters
    ----------
    draws : numpy.ndarray
        Shape (chain, draw, column); two chains and more for r_hat.
    """
    from arviz_stats.base import array_stats

    values, axes = np.asarray(draws, dtype=float), {"chain_axis": 0, "draw_axis": 1}
    with np.errstate(divide="ignore", invalid="ignore"):  # draws that never move, or are infinite
        return Convergence(array_stats.rhat(values, **axes),
                           array_stats.ess(values, method="bulk", **axes),
                           array_stats.ess(values, method="tail", prob=_TAILS, **axes))
