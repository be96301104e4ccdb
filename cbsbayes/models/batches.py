"""Batches as the models see them: both axes, their geometric middle, and what divides a scale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from cbsbayes.models.laws import Law

__all__ = ["batch_axes", "batch_scales", "batch_weights", "middle_batch"]


def batch_axes(ds: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return n_prompts and n_rollouts, or the total batch and 1 where there is one axis."""
    prompts = ds["n_prompts"].values.astype(float)
    rollouts = ds["n_rollouts"].values.astype(float)
    one_axis = (prompts < 0) | (rollouts < 0)
    return (np.where(one_axis, ds["total_batch"].values, prompts),
            np.where(one_axis, 1.0, rollouts))


def batch_scales(law: Law, n_prompts: np.ndarray, n_rollouts: np.ndarray) -> dict[str, float]:
    """Return the log of the geometric middle of the batches tried, per noise scale."""
    divisors = law.divisors(n_prompts, n_rollouts)
    return {name: float(np.log(divisor).mean())
            for name, divisor in zip(law.scales, divisors, strict=True)}


def middle_batch(n_prompts: np.ndarray, n_rollouts: np.ndarray) -> tuple[float, float]:
    """Return the geometric means of n_prompts and n_rollouts, where the level of S is sampled."""
    return float(np.exp(np.log(n_prompts).mean())), float(np.exp(np.log(n_rollouts).mean()))


def batch_weights(
    law: Law, log_batch_scale: Mapping[str, float], n_prompts: np.ndarray, n_rollouts: np.ndarray
) -> np.ndarray:
    """Return what exp(level) of each noise scale is multiplied by, shape (scale, batch)."""
    divisors = law.divisors(n_prompts, n_rollouts)
    return np.array([np.exp(log_batch_scale[name]) / divisor
                     for name, divisor in zip(law.scales, divisors, strict=True)])
