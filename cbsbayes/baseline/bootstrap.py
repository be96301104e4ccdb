"""A bootstrap over runs: how often each run is drawn, and percentile intervals.

Runs are the units, because a run is one trajectory. Where a batch cell was run more than once
its runs are redrawn among themselves; all runs of cells without replicates are redrawn
together. With m replicates per cell such intervals are too narrow by about sqrt((m - 1)/m).
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["percentile_interval", "resample_counts"]


def _strata(cell: np.ndarray) -> list[np.ndarray]:
    _, label, size = np.unique(cell, axis=0, return_inverse=True, return_counts=True)
    label = label.ravel()
    single = size[label] == 1
    strata = [np.flatnonzero(label == k) for k in np.flatnonzero(size > 1)]
    return [*strata, np.flatnonzero(single)] if single.any() else strata


def _draw(strata: list[np.ndarray], n_runs: int, n_draws: int, rng: np.random.Generator
          ) -> np.ndarray:
    counts = np.zeros((n_draws, n_runs))
    for members in strata:
        share = np.full(members.size, 1 / members.size)
        counts[:, members] = rng.multinomial(members.size, share, size=n_draws)
    return counts


def _identified(counts: np.ndarray, design: np.ndarray) -> np.ndarray:
    """Tell for each resample whether its runs tell S_min and the scales apart."""
    scaled = design / np.exp(np.mean(np.log(design), axis=0))
    columns = np.column_stack([np.ones(len(design)), scaled])
    weighted = np.sqrt(counts)[:, :, None] * columns
    return np.linalg.matrix_rank(weighted) == columns.shape[1]


def resample_counts(
    cell: np.ndarray, design: np.ndarray, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Return how often each run is drawn in each resample.

    Parameters
    ----------
    cell : ndarray, shape (run,) or (run, axis)
        The batch cell of each run.
    design : ndarray, shape (run, scale)
        Inverse batches as in `hyperbola.solve`; it must have full rank with a constant.
        Resamples that do not are drawn again.
    n_draws : int
        Number of resamples.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray, shape (n_draws, run)
        Counts; every row sums to the number of runs.
    """
    strata = _strata(cell)
    counts = _draw(strata, len(cell), n_draws, rng)
    while (bad := ~_identified(counts, design)).any():
        counts[bad] = _draw(strata, len(cell), int(bad.sum()), rng)
    return counts


def percentile_interval(values: np.ndarray, ci_prob: float) -> tuple[float, float]:
    """Return the central interval of draws that may hold 0 and inf, without interpolating.

    Parameters
    ----------
    values : ndarray, shape (draw,)
        Draws; none gives NaN.
    ci_prob : float
        Probability inside, between 0 and 1.
    """
    if values.size == 0 or np.isnan(values).any():
        return math.nan, math.nan
    ordered, tail = np.sort(values), (1 - ci_prob) / 2
    low = math.floor(round(tail * (values.size - 1), 9))
    return float(ordered[low]), float(ordered[values.size - 1 - low])
