r"""Every run of the trajectory model as one multivariate normal around the shared curve, compiled.

With h what the shared curve shows at a run's evaluations and h' its slope by log updates, a run
whose log updates deviate by δ shows h − h' δ, an offset and noise. Its evaluations y are then

.. math::

    y \sim N\big(h,\; h' h'^\top \odot K + \sigma_o^2 + C + \mathrm{diag}(v)\big), \quad
    K = \sigma_u^2 + \sigma_w^2 R R^\top,

with K the covariance of δ (own speed, and wander along the ramps R), σ_o that of the offset, C
serial noise that falls off exponentially in updates, v white noise. δ counts from the reference
around which h is taken. A group that saturates lower shows the share f of what is gained.
"""

from __future__ import annotations

from math import exp, log, pi, sqrt
from typing import NamedTuple

import numpy as np

from cbsbayes.models.compiled import compiled as _compiled
from cbsbayes.models.trajectory_curve import Curve
from cbsbayes.models.trajectory_data import (
    MEMORY,
    OFFSET,
    RUN,
    SATURATION,
    SERIAL,
    TREND,
    WANDER,
    WHITE,
    TrajectoryArrays,
)

__all__ = ["Moments", "deviations", "log_likelihoods", "moments"]


class Moments(NamedTuple):
    """The distribution of one run's evaluations.

    Attributes
    ----------
    mean, steep : numpy.ndarray
        Mean, and the run's own slope by log updates, shape (n,).
    covariance, pace, serial : numpy.ndarray
        Covariance, and of it K and C, shape (n, n).
    white : numpy.ndarray
        v, shape (n,).
    """

    mean: np.ndarray
    steep: np.ndarray
    covariance: np.ndarray
    pace: np.ndarray
    serial: np.ndarray
    white: np.ndarray


@_compiled
def log_likelihoods(
    shared: np.ndarray, arrays: TrajectoryArrays, curve: Curve
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Return log p(curve) of every run, and slopes of their sum.

    Parameters
    ----------
    shared : numpy.ndarray
        Shared parameters, in the order of `cbsbayes.models.trajectory_data`.
    arrays : TrajectoryArrays
        The data.
    curve : Curve
        The shared curve.

    Returns
    -------
    tuple
        Log likelihoods, shape (run,), NaN where there is none; slopes by the parameters of runs,
        (parameter,), and by the curve's `level` and `steep`, (evaluation,) each, and `initial`.
    """
    gradient = np.zeros_like(shared)
    by_run, initial_bar = _start_terms(shared, arrays, curve.initial, gradient)
    level_bar, steep_bar = np.zeros_like(curve.level), np.zeros_like(curve.steep)
    for i in range(len(by_run)):
        first, n = arrays.run_start[i], arrays.run_start[i + 1] - arrays.run_start[i]
        own = moments(shared, arrays, i, curve)
        inverse, log_det = _inverse(own.covariance)
        weighted = np.zeros(n)
        for e in range(n):
            for f in range(n):
                weighted[e] += inverse[e, f] * (arrays.accuracy[first + f] - own.mean[f])
            by_run[i] -= 0.5 * weighted[e] * (arrays.accuracy[first + e] - own.mean[e])
        by_run[i] -= 0.5 * (n * log(2.0 * pi) + log_det)
        for e in range(n):  # from here on by the covariance
            for f in range(n):
                inverse[e, f] = 0.5 * (weighted[e] * weighted[f] - inverse[e, f])
        own_steep_bar = _reverse_covariance(shared, arrays, first, own, inverse, gradient)
        shows = _attainable(shared, arrays, i)
        for e in range(n):
            own_steep_bar[e] += weighted[e] * arrays.reference[first + e]
            level_bar[first + e] = shows * weighted[e]  # by the mean
            steep_bar[first + e] = shows * own_steep_bar[e]
            initial_bar += (1.0 - shows) * weighted[e]
            by_shows = (weighted[e] * (curve.level[first + e] - curve.initial)
                        + own_steep_bar[e] * curve.steep[first + e])
            gradient[SATURATION] -= by_shows * shows * arrays.group_share[i]
    return by_run, gradient, level_bar, steep_bar, initial_bar


@_compiled
def deviations(
    shared: np.ndarray, arrays: TrajectoryArrays, curve: Curve
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what the data say of each run's own pace, given the shared parameters.

    Returns
    -------
    tuple
        Mean deviation in log updates at every evaluation, shape (evaluation,), and mean and
        standard deviation of the run effect, shape (run,) each.
    """
    n_runs, run_sq = len(arrays.run_start) - 1, exp(2.0 * shared[RUN])
    deviation, mean, sd = np.zeros_like(curve.level), np.zeros(n_runs), np.zeros(n_runs)
    for i in range(n_runs):
        first, n = arrays.run_start[i], arrays.run_start[i + 1] - arrays.run_start[i]
        own = moments(shared, arrays, i, curve)
        inverse, _ = _inverse(own.covariance)
        known = 0.0
        for e in range(n):
            weighted = 0.0
            for f in range(n):
                weighted += inverse[e, f] * (arrays.accuracy[first + f] - own.mean[f])
                known += own.steep[e] * inverse[e, f] * own.steep[f]
            mean[i] -= run_sq * own.steep[e] * weighted
            for f in range(n):
                deviation[first + f] -= own.pace[e, f] * own.steep[e] * weighted
        sd[i] = sqrt(max(run_sq - run_sq * run_sq * known, 0.0))
    return deviation, mean, sd


@_compiled
def moments(
    shared: np.ndarray, arrays: TrajectoryArrays, i: int, curve: Curve
) -> Moments:
    """Return the distribution of one run's evaluations."""
    first, n = arrays.run_start[i], arrays.run_start[i + 1] - arrays.run_start[i]
    run_sq, wander_sq = exp(2.0 * shared[RUN]), exp(2.0 * shared[WANDER])
    offset_sq, fading = exp(2.0 * shared[OFFSET]), exp(-shared[MEMORY])
    shows = _attainable(shared, arrays, i)
    mean, own_steep, loading, white = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    covariance, pace, serial = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    for e in range(n):
        at = first + e
        own_steep[e] = shows * curve.steep[at]
        mean[e] = (curve.initial + shows * (curve.level[at] - curve.initial)
                   + own_steep[e] * arrays.reference[at])
        loading[e] = exp(shared[SERIAL] + (1.0 + shared[TREND]) * arrays.log_spread[at])
        for f in range(e + 1):
            wander = 0.0
            for k in range(arrays.ramps.shape[1]):
                wander += arrays.ramps[at, k] * arrays.ramps[first + f, k]
            pace[e, f] = pace[f, e] = run_sq + wander_sq * wander
            apart = arrays.time[at] - arrays.time[first + f]
            serial[e, f] = serial[f, e] = loading[e] * loading[f] * exp(-fading * apart)
            covariance[e, f] = covariance[f, e] = (
                own_steep[e] * own_steep[f] * pace[e, f] + offset_sq + serial[e, f])
        white[e] = arrays.binomial[at] * exp(2.0 * shared[WHITE]
                                             + 2.0 * shared[TREND] * arrays.log_spread[at])
        covariance[e, e] += white[e]
    return Moments(mean, own_steep, covariance, pace, serial, white)


@_compiled
def _attainable(shared: np.ndarray, arrays: TrajectoryArrays, i: int) -> float:
    """Return the share of the curve's gain that a run's group can reach."""
    return exp(-shared[SATURATION] * arrays.group_share[i])


@_compiled
def _inverse(matrix: np.ndarray) -> tuple[np.ndarray, float]:
    """Return inverse and log determinant of a positive matrix by Cholesky; NaN of any other."""
    n, log_det = len(matrix), 0.0
    root, lower = np.zeros((n, n)), np.zeros((n, n))  # lower: the root's inverse, transposed
    for j in range(n):
        for k in range(j + 1):
            rest = matrix[j, k]
            for m in range(k):
                rest -= root[j, m] * root[k, m]
            root[j, k] = sqrt(rest) if j == k else rest / root[k, k]
        log_det += 2.0 * log(root[j, j])
        lower[j, j] = 1.0 / root[j, j]
        for k in range(j):
            rest = 0.0
            for m in range(k, j):
                rest -= root[j, m] * lower[k, m]
            lower[k, j] = rest / root[j, j]
    inverse = np.empty((n, n))
    for j in range(n):
        for k in range(j + 1):
            total = 0.0
            for m in range(j, n):
                total += lower[j, m] * lower[k, m]
            inverse[j, k] = inverse[k, j] = total
    return inverse, log_det


@_compiled
def _start_terms(
    shared: np.ndarray, arrays: TrajectoryArrays, initial: float, gradient: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return each run's log likelihood of its evaluation before training, and the slope."""
    by_run, initial_bar = np.zeros(len(arrays.start)), 0.0
    for i in range(len(by_run)):
        seen, binomial, weight = arrays.start[i]
        variance = exp(2.0 * shared[WHITE]) * binomial
        away = seen - initial
        by_run[i] = -0.5 * weight * (log(2.0 * pi * variance) + away * away / variance)
        initial_bar += weight * away / variance
        gradient[WHITE] += weight * (away * away / variance - 1.0)
    return by_run, initial_bar


@_compiled
def _reverse_covariance(
    shared: np.ndarray, arrays: TrajectoryArrays, first: int, own: Moments, bar: np.ndarray,
    gradient: np.ndarray,
) -> np.ndarray:
    """Add the slopes by everything in a run's covariance; return that by its steepness."""
    steep_bar = np.zeros_like(own.steep)
    run_sq, fading = exp(2.0 * shared[RUN]), exp(-shared[MEMORY])
    by_run, by_pace, by_serial, by_memory, by_offset = 0.0, 0.0, 0.0, 0.0, 0.0
    for e in range(len(own.steep)):
        along = 0.0
        for f in range(len(own.steep)):
            both = bar[e, f] * own.steep[e] * own.steep[f]
            by_run += both
            by_pace += both * own.pace[e, f]
            by_offset += bar[e, f]
            along += bar[e, f] * own.serial[e, f]
            by_memory += (bar[e, f] * own.serial[e, f]
                          * abs(arrays.time[first + e] - arrays.time[first + f]))
            steep_bar[e] += 2.0 * bar[e, f] * own.pace[e, f] * own.steep[f]
        by_white = bar[e, e] * own.white[e]
        by_serial += along
        gradient[WHITE] += 2.0 * by_white
        gradient[TREND] += 2.0 * (along + by_white) * arrays.log_spread[first + e]
    gradient[RUN] += 2.0 * by_run * run_sq
    gradient[WANDER] += 2.0 * (by_pace - by_run * run_sq)
    gradient[OFFSET] += 2.0 * by_offset * exp(2.0 * shared[OFFSET])
    gradient[SERIAL] += 2.0 * by_serial
    gradient[MEMORY] += by_memory * fading
    return steep_bar
