"""What decisions share: where a batch lies, the targets of a fit, and draws as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from cbsbayes.errors import CBSDataError
from cbsbayes.models.batches import batch_axes
from cbsbayes.posterior.fit import THINNED
from cbsbayes.posterior.tidy import quantiles

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["NEW_RUN", "POPULATION", "fitted_threshold", "interval_columns", "log_steps_at",
           "middle_threshold", "range_of", "share_least", "tried_batches"]

POPULATION, NEW_RUN = "population", "new run"
"""What a statement is about: the population of runs, or one run with an effect of its own."""


def tried_batches(runs: xr.Dataset) -> np.ndarray:
    """Return the batches that were run, sorted, shape (batch, 2).

    n_prompts and n_rollouts; one-axis data give the total batch and 1.
    """
    return np.unique(np.column_stack(batch_axes(runs)), axis=0)


def range_of(batches: ArrayLike, tried: np.ndarray) -> np.ndarray:
    """Return ``tried``, ``inside`` or ``extrapolated`` for each batch, shape (batch,).

    Inside means between the least and the largest value tried of prompts, of rollouts and of
    samples.

    Parameters
    ----------
    batches, tried : array_like
        n_prompts and n_rollouts, shape (batch, 2).
    """
    batches = np.asarray(batches, dtype=float)
    known = (batches[:, None] == tried).all(axis=-1).any(axis=1)
    values, limits = (np.column_stack([pairs, pairs.prod(axis=1)]) for pairs in (batches, tried))
    inside = ((values >= limits.min(axis=0)) & (values <= limits.max(axis=0))).all(axis=1)
    return np.where(known, "tried", np.where(inside, "inside", "extrapolated"))


def fitted_threshold(fit: Fit, threshold: float) -> float:
    """Return the fitted threshold that was asked for.

    Raises
    ------
    CBSDataError
        If it was not fitted; the message lists those that were.
    """
    near = np.flatnonzero(np.isclose(fit.thresholds, threshold))
    if near.size == 0:
        raise CBSDataError(f"threshold {threshold:g} was not fitted; fitted: "
                           f"{', '.join(f'{t:g}' for t in fit.thresholds)}; fit it with "
                           "python -m cbsbayes.fit --thresholds")
    return float(fit.thresholds[near[0]])


def middle_threshold(fit: Fit) -> float:
    """Return the threshold that sentences and figures are about: the middle, the upper of two."""
    ordered = sorted(fit.thresholds.tolist())
    return float(ordered[len(ordered) // 2])


def log_steps_at(
    fit: Fit, batches: np.ndarray, threshold: float, draws: int = THINNED
) -> np.ndarray:
    """Return draws of log S at batches, shape (batch, 2), of one threshold: (sample, batch)."""
    log_steps = fit.log_steps(batches[:, 0], batches[:, 1], threshold, draws=draws)
    return np.asarray(log_steps.transpose("sample", "batch").values)


def interval_columns(name: str, draws: np.ndarray, ci_prob: float) -> dict[str, np.ndarray]:
    """Return columns ``name, name_lower, name_upper``: median and interval of draws.

    Parameters
    ----------
    name : str
        Of the columns.
    draws : numpy.ndarray
        Shape (sample, …).
    ci_prob : float
        Probability of the equal-tailed interval.
    """
    found = quantiles(draws, [0.5, (1 - ci_prob) / 2, (1 + ci_prob) / 2], axis=0)
    return dict(zip((name, f"{name}_lower", f"{name}_upper"), found, strict=True))


def share_least(values: np.ndarray) -> np.ndarray:
    """Return how often each column is the least; none is where all are infinite, shape (batch,)."""
    best = values.argmin(axis=1)[np.isfinite(values.min(axis=1))]
    return np.bincount(best, minlength=values.shape[1]) / len(values)
