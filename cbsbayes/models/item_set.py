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

The bend is a function of accuracy and moves with each draw's own curve: laid out along progress
once for all, it would hold the curve, and with it S_min and the noise scales, where it was laid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cbsbayes.models.trajectory_data import TrajectoryData

__all__ = ["N_READ", "n_terms", "wave_sizes", "waves"]

N_READ = 60  # terms when a threshold is read off
_MOST, _LEAST = 15, 4
_ROUGHNESS = 0.06  # variance of the slope d'(a) that the fitted terms may have at most
_DEPARTURE, _DECAY = 0.10, 1.5  # of the curve from its formula, over the range of accuracy


def n_terms(data: TrajectoryData) -> int:
    """Return how many terms the fit carries: as many as keep accuracy rising in the level."""
    low, high = data.accuracy_range
    return int(np.clip(_ROUGHNESS * (high - low) * data.n_items, _LEAST, _MOST))


def wave_sizes(data: TrajectoryData, count: int) -> np.ndarray:
    """Return the standard deviation of each wave's amplitude in accuracy, shape (term,)."""
    low, high = data.accuracy_range
    k = np.arange(1, count + 1)
    departure = _DEPARTURE * (high - low) * k**-_DECAY * (k > 2)
    return np.hypot(np.sqrt(2.0 * (high - low) / data.n_items) / (k * np.pi), departure)


def waves(accuracy: np.ndarray, data: TrajectoryData, count: int) -> np.ndarray:
    """Return the waves at levels of accuracy, shape (*accuracy, term), of size `wave_sizes`."""
    low, high = data.accuracy_range
    angle = np.pi * (np.asarray(accuracy) - low) / (high - low)
    return wave_sizes(data, count) * np.sin(angle[..., None] * np.arange(1, count + 1))
