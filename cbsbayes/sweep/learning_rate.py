"""How the learning rate follows the batch: one rate per batch size is a rule, not a group.

Where every batch size was trained at one learning rate, scaled with the batch, the runs form one
sweep under that rule. Only rates that differ at one batch size set runs apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

__all__ = ["LearningRateRule", "learning_rate_rule"]

_AXES = {"total_batch": "batch", "n_prompts": "prompts", "n_rollouts": "rollouts"}
_ROUNDING = 1e-9  # of a sum of squares, below which two fits are as good


class LearningRateRule(NamedTuple):
    """The learning rate as a power of the batch, fitted to one rate per batch size.

    Attributes
    ----------
    axis : str
        What it follows best: ``total_batch``, ``n_prompts`` or ``n_rollouts``.
    exponent : float
        k in lr ∝ batch^k.
    standard_error : float or None
        Of k; None of two batch sizes.
    lowest, highest : float
        The rates used.
    """

    axis: str
    exponent: float
    standard_error: float | None
    lowest: float
    highest: float

    @property
    def label(self) -> str:
        """The rule in short, for the name of a group."""
        return f"lr ∝ {_AXES[self.axis]}^{self.exponent:.2g}"

    @property
    def sentence(self) -> str:
        """The rule in words."""
        error = "" if self.standard_error is None else (
            f" (standard error {self.standard_error:.2g})")
        return (f"The learning rate changes with the batch, one rate for each batch size, from "
                f"{self.lowest:g} to {self.highest:g}: lr ∝ {_AXES[self.axis]}^{self.exponent:.2f}"
                f"{error}. All numbers hold under that rule.")


def learning_rate_rule(ds: xr.Dataset) -> LearningRateRule | None:
    """Return how the learning rate of runs follows their batch.

    Parameters
    ----------
    ds : xarray.Dataset
        A sweep or a part of it.

    Returns
    -------
    LearningRateRule or None
        None where there is only one rate, where some are unknown, and where rates differ at one
        batch size.
    """
    rates = np.array([float(f"{rate:.6g}") for rate in ds["learning_rate"].values])
    batches = np.column_stack([ds[name].values for name in _AXES])
    pairs = np.unique(np.column_stack([batches, rates]), axis=0)
    if not np.isfinite(rates).all() or (rates <= 0).any() or len(np.unique(rates)) < 2:
        return None
    if len(pairs) > len(np.unique(batches, axis=0)):
        return None
    log_rate = np.log(pairs[:, -1])
    best, least = None, np.inf
    for name, sizes in zip(_AXES, pairs.T, strict=False):
        if (sizes <= 0).any() or np.ptp(sizes) == 0:
            continue
        squares, exponent, error = _line(np.log(sizes), log_rate)
        if squares < least - _ROUNDING:
            least = squares
            best = LearningRateRule(name, exponent, error, float(rates.min()), float(rates.max()))
    return best


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float | None]:
    """Return the sum of squares left, the slope and its standard error of a straight line."""
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    squares = float(((y - slope * x)**2).sum())
    free = len(x) - 2
    return squares, slope, float(np.sqrt(squares / free / (x @ x))) if free > 0 else None
