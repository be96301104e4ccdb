r"""What bends the curve of all runs alike: one fixed validation set, and training itself.

The share of n fixed items that a model solves is an empirical distribution function read at its
level of accuracy; its deviation from the level is a Brownian bridge, here over the stretch of
accuracy [lo, hi] of length L that the sweep passes through:

.. math:: d(a) = \sqrt{2L/n} \sum_k z_k \sin(k \pi (a - lo)/L)/(k \pi), \quad z_k \sim N(0, 1).

Its size is known, nothing is free. The straight line between its ends is left to the curve's own
ends. The fit carries the first terms; those beyond are finer than the evaluations resolve, and are
added from their prior when a threshold is read off.

Real curves have knees that no formula of three parameters follows, and what the shared curve cannot
follow the runs' own terms would take over. So the same waves carry a smooth departure from it, of
standard deviation .10 L / k^1.5 from the third on (the first two are what the formula's own shape
does), nothing beside the bridge from the tenth on.

The bend is laid out along a typical curve of the sweep, fixed before sampling, not along that of
every draw: the two differ by far less than a wave of the bend, and with a fixed
layout what the validation set shows is linear in z, which makes the posterior easy to sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cbsbayes.models.trajectory_data import TrajectoryData

__all__ = ["N_READ", "bridge_terms", "n_terms"]

N_READ = 60  # terms when a threshold is read off
_MOST, _LEAST = 15, 4
_ROUGHNESS = 0.06  # variance of the slope d'(a) that the fitted terms may have at most
_DEPARTURE, _DECAY = 0.10, 1.5  # of the curve from its formula, over the range of accuracy


def n_terms(data: TrajectoryData) -> int:
    """Return how many terms the fit carries: as many as keep accuracy rising in the level."""
    low, high = data.accuracy_range
    return int(np.clip(_ROUGHNESS * (high - low) * data.n_items, _LEAST, _MOST))


def bridge_terms(
    data: TrajectoryData, log_tau: np.ndarray, terms: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the terms and their slopes by log progress, and the terms before training.

    Parameters
    ----------
    data : TrajectoryData
        Says along which curve, between which accuracies and over how many items.
    log_tau : numpy.ndarray
        Log progress, shape (node,).
    terms : int, optional
        How many; those of the fit unless given.

    Returns
    -------
    tuple
        Shapes (term, node), (term, node) and (term,).
    """
    count = terms or n_terms(data)
    curve, slope = data.typical.level(log_tau), data.typical.slope(log_tau)
    value, steep = _waves(curve, data, count)
    at_start, _ = _waves(data.typical.accuracy[:1], data, count)
    return value, steep * slope, at_start[:, 0]


def _waves(accuracy: np.ndarray, data: TrajectoryData, count: int
           ) -> tuple[np.ndarray, np.ndarray]:
    """Return the terms and their slopes by accuracy, (term, accuracy) each; 0 outside the ends."""
    low, high = data.accuracy_range
    length = high - low
    k = np.arange(1, count + 1)[:, None] * np.pi
    inside = (accuracy >= low) & (accuracy <= high)
    angle = k * (np.clip(accuracy, low, high) - low) / length
    departure = _DEPARTURE * length * (k / np.pi) ** -_DECAY * (k > 2.5 * np.pi)
    size = np.hypot(np.sqrt(2.0 * length / data.n_items) / k, departure)
    return size * np.sin(angle), size * k * np.cos(angle) / length * inside
