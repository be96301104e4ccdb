"""A bootstrap over runs: how much each run weighs in a resample, and percentile intervals.

Runs are the units, because a run is one trajectory. Where a batch was run more than once its runs
are redrawn among themselves; all runs of batches without replicates are redrawn together. Of m
replicates m - 1 are drawn and weighted up by m/(m - 1) [1]_: plain redrawing loses the share 1/m of
the variance, a third for the usual three seeds (simulated: nominal 90 % intervals then cover .60 to
.69).

References
----------
.. [1] Rao & Wu, "Resampling inference with complex survey data", JASA 83 (1988).
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["identified", "percentile_interval", "resample_weights"]


def identified(weights: np.ndarray, design: np.ndarray) -> np.ndarray:
    """Return for each resample whether its runs tell S_min and the scales apart.

    Parameters
    ----------
    weights : ndarray, shape (draw, run)
        Of `resample_weights`.
    design : ndarray, shape (run, scale)
        What each scale is multiplied with in the law.
    """
    scaled = design / np.exp(np.mean(np.log(design), axis=0))
    columns = np.column_stack([np.ones(len(design)), scaled])
    return np.linalg.matrix_rank(np.sqrt(weights)[:, :, None] * columns) == columns.shape[1]


def resample_weights(
    replicates: np.ndarray, design: np.ndarray, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Return how much each run weighs in each resample.

    Parameters
    ----------
    replicates : ndarray, shape (run,) or (run, axis)
        Runs of equal values are replicates.
    design : ndarray, shape (run, scale)
        As in `identified`; resamples that do not identify the parameters are drawn again.
    n_draws : int
        Number of resamples.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray, shape (n_draws, run)
        Weights; every row sums to the number of runs.
    """
    _, label, size = np.unique(replicates, axis=0, return_inverse=True, return_counts=True)
    replicated = np.where(size[label.ravel()] > 1, label.ravel(), -1)
    weights = np.zeros((n_draws, len(label)))
    bad = np.ones(n_draws, dtype=bool)
    while bad.any():
        for stratum in np.unique(replicated):
            members = np.flatnonzero(replicated == stratum)
            n_drawn = members.size - (stratum >= 0)
            share = np.full(members.size, 1 / members.size)
            counts = rng.multinomial(n_drawn, share, size=bad.sum())
            weights[np.ix_(bad, members)] = counts * (members.size / n_drawn)
        bad = ~identified(weights, design)
    return weights


def percentile_interval(values: np.ndarray, ci_prob: float) -> tuple[float, float]:
    """Return the central interval of draws that may hold 0 and inf, without interpolating.

    Parameters
    ----------
    values : ndarray, shape (draw,)
        Draws; none, or any that is NaN, gives NaN.
    ci_prob : float
        Probability inside, between 0 and 1.
    """
    if values.size == 0 or np.isnan(values).any():
        return math.nan, math.nan
    tail = round((1 - ci_prob) / 2, 9)
    lower = np.quantile(values, tail, method="lower")
    return float(lower), float(np.quantile(values, 1 - tail, method="higher"))
