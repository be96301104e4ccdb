r"""The shared curve of the trajectory model at every evaluation, and the way back, compiled.

1. the level of accuracy over log progress τ, a stretched exponential, and the accuracy h that a
   fixed validation set shows of it: level and bend;
2. updates :math:`s(\tau) = \int (1 + N(h)/P)^\alpha d\tau` of every distinct batch;
3. every evaluation: h at its update, by cubic Hermite interpolation over log s.

**The bend.** The share of n fixed items that a model solves is an empirical distribution function
read at its level of accuracy; its deviation from the level is a Brownian bridge, here over the
stretch of accuracy [lo, hi] of length L that the sweep passes through:

.. math:: d(a) = \sqrt{2L/n} \sum_k z_k \sin(k \pi (a - lo)/L)/(k \pi), \quad z_k \sim N(0, 1).

Its size is known; the straight line between its ends is left to the curve's own ends. Real curves
have knees that no formula of three parameters follows, and runs' own terms would take over what the
shared curve cannot follow. So the same waves carry a smooth departure from the formula, of standard
deviation .10 L / k^1.5 from the third on. The bend moves with each draw's own curve: laid out along
progress once for all, it would hold the curve, and with it S_min and noise, where it was laid.

`slopes` goes the same way backwards, from slopes of the log likelihood by accuracy at evaluations
to those by parameters; a name that ends in ``_bar`` is the slope by that quantity. Functions that
call each other live in one file, because numba's disk cache does not see changes elsewhere.
"""

from __future__ import annotations

from math import cos, exp, log, log1p, pi, sin
from typing import NamedTuple

import numpy as np

from cbsbayes.models.compiled import compiled as _compiled
from cbsbayes.models.trajectory_data import (
    ALPHA,
    CEILING,
    CURVATURE,
    KAPPA,
    LEVEL,
    SCALES,
    START,
    TrajectoryArrays,
)

__all__ = ["Curve", "curve", "curves_of_draws", "slopes"]

_EDGE = 0.002  # accuracies nearer to 0 and 1 count as this one where gradient noise is concerned
_LATEST = 6.0  # κ log(τ/τ_half): with e^6 ln 2 e-folds behind it the curve is at its ceiling


class Curve(NamedTuple):
    """The shared curve of one position.

    Attributes
    ----------
    shown, slope : numpy.ndarray
        Accuracy shown and its slope by log progress, shape (node,).
    noise : numpy.ndarray
        Momentary noise over the middle of the batches, shape (scale, node).
    log_steps, rate : numpy.ndarray
        Every batch's log updates, and accuracy's slope by them, shape (batch, node).
    level, steep : numpy.ndarray
        Accuracy and its slope by log updates at every evaluation, shape (evaluation,).
    initial : float
        The accuracy that the validation set shows before training.
    """

    shown: np.ndarray
    slope: np.ndarray
    noise: np.ndarray
    log_steps: np.ndarray
    rate: np.ndarray
    level: np.ndarray
    steep: np.ndarray
    initial: float


@_compiled
def curve(shared: np.ndarray, arrays: TrajectoryArrays) -> Curve:
    """Return the curve of shared parameters in their places (`trajectory_data`)."""
    shown, slope = _shown(shared, arrays)
    noise = _momentary_noise(shared, arrays, shown)
    log_steps, rate = _steps(shared, arrays, noise, slope)
    level, steep = np.empty_like(arrays.log_step), np.empty_like(arrays.log_step)
    for e in range(len(level)):
        b, x = arrays.batch[e], arrays.log_step[e] - arrays.reference[e]
        level[e], steep[e], _ = _on_curve(x, shown, log_steps[b], rate[b])
    start = _logistic(shared[START])
    initial = start + _bend(shared, arrays, start)[0]
    return Curve(shown, slope, noise, log_steps, rate, level, steep, initial)


@_compiled
def slopes(
    shared: np.ndarray, arrays: TrajectoryArrays, at: Curve, level_bar: np.ndarray,
    steep_bar: np.ndarray, initial_bar: float,
) -> np.ndarray:
    """Return slopes by the parameters from those by what the curve is at evaluations.

    Parameters
    ----------
    shared, arrays
        As of `curve`: shape (parameter,), and the data.
    at : Curve
        What `curve` returned.
    level_bar, steep_bar : numpy.ndarray
        Shape (evaluation,).
    initial_bar : float
        By the accuracy before training.
    """
    gradient = np.zeros_like(shared)
    shown_bar, slope_bar = np.zeros_like(at.shown), np.zeros_like(at.shown)
    log_steps_bar, rate_bar = np.zeros_like(at.log_steps), np.zeros_like(at.rate)
    for e in range(len(level_bar)):
        b, x = arrays.batch[e], arrays.log_step[e] - arrays.reference[e]
        _reverse_on_curve(x, level_bar[e], steep_bar[e],
                          (at.shown, at.log_steps[b], at.rate[b]),
                          (shown_bar, log_steps_bar[b], rate_bar[b]))
    noise_bar = _reverse_steps(shared, arrays, at, log_steps_bar, rate_bar, slope_bar, gradient)
    _reverse_noise(shared, arrays, at.shown, noise_bar, shown_bar, gradient)
    _reverse_shown(shared, arrays, shown_bar, slope_bar, gradient)
    start = _logistic(shared[START])
    _, rise, _ = _bend(shared, arrays, start)
    gradient[START] += initial_bar * (1.0 + rise) * start * (1.0 - start)
    _reverse_bend(arrays, start, initial_bar, 0.0, gradient)
    return gradient


@_compiled
def curves_of_draws(
    shared: np.ndarray, arrays: TrajectoryArrays
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what the shared curve is at the nodes of log progress, for many draws.

    Returns
    -------
    tuple
        Accuracy shown, shape (draw, node); log momentary noise over the middle of the batches,
        (draw, scale, node); log updates of every batch, (draw, batch, node).
    """
    n_draws, (n_scales, n_batches), n_nodes = len(shared), arrays.weights.shape, len(arrays.log_tau)
    shown, noise = np.empty((n_draws, n_nodes)), np.empty((n_draws, n_scales, n_nodes))
    log_steps = np.empty((n_draws, n_batches - 1, n_nodes))
    for d in range(n_draws):
        at = curve(shared[d], arrays)
        shown[d], noise[d], log_steps[d] = at.shown, np.log(at.noise), at.log_steps
    return shown, noise, log_steps


@_compiled
def _law(noise: float, alpha: float, power: bool) -> tuple[float, float, float]:
    """Return log S/S_min of noise over prompts, and its slopes by log noise and by alpha."""
    if power:
        log_noise = log(noise)
        growth = max(alpha * log_noise, 0.0) + log1p(exp(-abs(alpha * log_noise)))
        share = exp(alpha * log_noise - growth)
        return growth, alpha * share, log_noise * share
    growth = log1p(noise)
    return alpha * growth, alpha * noise / (1.0 + noise), growth


@_compiled
def _logistic(value: float) -> float:
    return 1.0 / (1.0 + exp(-value))


@_compiled
def _bend(
    shared: np.ndarray, arrays: TrajectoryArrays, level: float
) -> tuple[float, float, float]:
    """Return the bend at a level of accuracy and two derivatives; its parameters are the last."""
    n, bend, rise, curvature = len(arrays.wave_sizes), 0.0, 0.0, 0.0
    angle = pi * (level - arrays.lowest) / arrays.length
    for j in range(n):
        size, often = shared[len(shared) - n + j] * arrays.wave_sizes[j], (j + 1) * pi
        bend += size * sin((j + 1) * angle)
        rise += size * often / arrays.length * cos((j + 1) * angle)
        curvature -= size * (often / arrays.length)**2 * sin((j + 1) * angle)
    return bend, rise, curvature


@_compiled
def _reverse_bend(
    arrays: TrajectoryArrays, level: float, bend_bar: float, rise_bar: float,
    gradient: np.ndarray,
) -> None:
    """Add the slopes of `_bend` by its parameters."""
    n = len(arrays.wave_sizes)
    angle = pi * (level - arrays.lowest) / arrays.length
    for j in range(n):
        often = (j + 1) * pi / arrays.length
        gradient[len(gradient) - n + j] += arrays.wave_sizes[j] * (
            bend_bar * sin((j + 1) * angle) + rise_bar * often * cos((j + 1) * angle))


@_compiled
def _log_half(shared: np.ndarray, arrays: TrajectoryArrays) -> tuple[float, float]:
    """Return log progress at half the gain, and noise over the middle batch where it is stated."""
    noise = 0.0
    for q in range(len(arrays.weights)):
        noise += exp(shared[SCALES + 2 * q]) * arrays.weights[q, -1]
    return shared[LEVEL] - _law(noise, shared[ALPHA], arrays.power)[0], noise


@_compiled
def _shown(shared: np.ndarray, arrays: TrajectoryArrays) -> tuple[np.ndarray, np.ndarray]:
    """Return accuracy shown and its slope by log progress: a stretched exponential and its bend."""
    start, kappa = _logistic(shared[START]), exp(shared[KAPPA])
    gain = (1.0 - start) * _logistic(shared[CEILING])
    log_half, _ = _log_half(shared, arrays)
    shown, slope = np.empty_like(arrays.log_tau), np.empty_like(arrays.log_tau)
    for k in range(len(shown)):
        z = log(2.0) * exp(min(kappa * (arrays.log_tau[k] - log_half), _LATEST))
        level = start + gain * (1.0 - exp(-z))
        bend, rise, _ = _bend(shared, arrays, level)
        shown[k], slope[k] = level + bend, gain * kappa * z * exp(-z) * (1.0 + rise)
    return shown, slope


@_compiled
def _logit(arrays: TrajectoryArrays, shown: float) -> float:
    """Return logit accuracy from the middle."""
    inside = min(max(shown, _EDGE), 1.0 - _EDGE)
    return log(inside / (1.0 - inside)) - arrays.middle


@_compiled
def _momentary_noise(
    shared: np.ndarray, arrays: TrajectoryArrays, shown: np.ndarray
) -> np.ndarray:
    """Return momentary noise over the middle of the batches, shape (scale, node)."""
    noise = np.empty((len(arrays.weights), len(shown)))
    for k in range(len(shown)):
        x = _logit(arrays, shown[k])
        for q in range(len(noise)):
            level, trend = shared[SCALES + 2 * q], shared[SCALES + 2 * q + 1]
            noise[q, k] = exp(level + trend * x + shared[CURVATURE] * x * x)
    return noise


@_compiled
def _over_batch(arrays: TrajectoryArrays, noise: np.ndarray, b: int, k: int) -> float:
    """Return momentary noise over a batch at a node."""
    over = 0.0
    for q in range(len(noise)):
        over += noise[q, k] * arrays.weights[q, b]
    return over


@_compiled
def _steps(
    shared: np.ndarray, arrays: TrajectoryArrays, noise: np.ndarray, slope: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return every batch's log updates at the nodes, and accuracy's slope by log updates."""
    tau = np.exp(arrays.log_tau)
    shape = (arrays.weights.shape[1] - 1, len(tau))
    log_steps, rate = np.empty(shape), np.empty(shape)
    for b in range(len(rate)):
        steps, before = 0.0, 0.0
        for k in range(len(tau)):
            over = _over_batch(arrays, noise, b, k)
            pace = exp(_law(over, shared[ALPHA], arrays.power)[0])
            steps += tau[0] * pace if k == 0 else 0.5 * (tau[k] - tau[k - 1]) * (before + pace)
            log_steps[b, k], rate[b, k] = log(steps), slope[k] * steps / (tau[k] * pace)
            before = pace
    return log_steps, rate


@_compiled
def _on_curve(
    x: float, y: np.ndarray, at: np.ndarray, rate: np.ndarray
) -> tuple[float, float, float]:
    """Return a cubic Hermite interpolant and two derivatives; straight on beyond both ends."""
    n, k = len(y), np.searchsorted(at, x, side="right") - 1
    if k < 0 or k >= n - 1:
        j = 0 if k < 0 else n - 1
        return y[j] + rate[j] * (x - at[j]), rate[j], 0.0
    d = at[k + 1] - at[k]
    t = (x - at[k]) / d
    rise, before, after = (y[k] - y[k + 1]) / d, rate[k], rate[k + 1]
    value = (y[k] * (1.0 - t * t * (3.0 - 2.0 * t)) + y[k + 1] * t * t * (3.0 - 2.0 * t)
             + d * t * (1.0 - t) * (before * (1.0 - t) - after * t))
    slope = (6.0 * t * (t - 1.0) * rise + before * (1.0 - t) * (1.0 - 3.0 * t)
             + after * t * (3.0 * t - 2.0))
    bend = ((12.0 * t - 6.0) * rise + before * (6.0 * t - 4.0) + after * (6.0 * t - 2.0)) / d
    return value, slope, bend


@_compiled
def _reverse_on_curve(
    x: float, value_bar: float, slope_bar: float,
    curve: tuple[np.ndarray, np.ndarray, np.ndarray],
    bars: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Add the slopes by y, at and rate of `_on_curve` to `bars`."""
    y, at, rate = curve
    y_bar, at_bar, rate_bar = bars
    n, k = len(y), np.searchsorted(at, x, side="right") - 1
    if k < 0 or k >= n - 1:
        j = 0 if k < 0 else n - 1
        y_bar[j] += value_bar
        rate_bar[j] += value_bar * (x - at[j]) + slope_bar
        at_bar[j] -= value_bar * rate[j]
        return
    d = at[k + 1] - at[k]
    t = (x - at[k]) / d
    _, slope, bend = _on_curve(x, y, at, rate)
    later, steep = t * t * (3.0 - 2.0 * t), 6.0 * t * (t - 1.0)
    first, second = t * (1.0 - t) * (1.0 - t), -t * t * (1.0 - t)
    y_bar[k] += value_bar * (1.0 - later) + slope_bar * steep / d
    y_bar[k + 1] += value_bar * later - slope_bar * steep / d
    rate_bar[k] += value_bar * d * first + slope_bar * (1.0 - t) * (1.0 - 3.0 * t)
    rate_bar[k + 1] += value_bar * d * second + slope_bar * t * (3.0 * t - 2.0)
    t_bar = d * (value_bar * slope + slope_bar * bend)
    d_bar = (value_bar * (rate[k] * first + rate[k + 1] * second)
             - slope_bar * steep * (y[k] - y[k + 1]) / (d * d) - t_bar * t / d)
    at_bar[k] -= t_bar / d + d_bar
    at_bar[k + 1] += d_bar


@_compiled
def _reverse_steps(
    shared: np.ndarray, arrays: TrajectoryArrays, at: Curve, log_steps_bar: np.ndarray,
    rate_bar: np.ndarray, slope_bar: np.ndarray, gradient: np.ndarray,
) -> np.ndarray:
    """Add the slopes of `_steps` by slope of the curve and exponent; return that by log noise."""
    noise, tau, noise_bar = at.noise, np.exp(arrays.log_tau), np.zeros_like(at.noise)
    last = len(tau) - 1
    for b in range(len(rate_bar)):
        later = 0.0  # by the updates at this node and all later ones, which they are part of
        for k in range(last, -1, -1):
            over, steps = _over_batch(arrays, noise, b, k), exp(at.log_steps[b, k])
            ratio, by_noise, by_alpha = _law(over, shared[ALPHA], arrays.power)
            by_rate = rate_bar[b, k] * at.rate[b, k]
            slope_bar[k] += rate_bar[b, k] * steps / (tau[k] * exp(ratio))
            weight = 0.5 * (tau[k + 1] - tau[k]) * later if k < last else 0.0
            later += (log_steps_bar[b, k] + by_rate) / steps
            weight += (tau[0] if k == 0 else 0.5 * (tau[k] - tau[k - 1])) * later
            ratio_bar = weight * exp(ratio) - by_rate
            gradient[ALPHA] += ratio_bar * by_alpha
            for q in range(len(noise)):
                noise_bar[q, k] += ratio_bar * by_noise * noise[q, k] * arrays.weights[q, b] / over
    return noise_bar


@_compiled
def _reverse_noise(
    shared: np.ndarray, arrays: TrajectoryArrays, shown: np.ndarray, noise_bar: np.ndarray,
    shown_bar: np.ndarray, gradient: np.ndarray,
) -> None:
    """Add the slopes by levels, trends and curvature, and by accuracy."""
    for q in range(len(noise_bar)):
        at = SCALES + 2 * q
        for k in range(len(shown)):
            x, bar = _logit(arrays, shown[k]), noise_bar[q, k]
            gradient[at] += bar
            gradient[at + 1] += bar * x
            gradient[CURVATURE] += bar * x * x
            if _EDGE < shown[k] < 1.0 - _EDGE:
                by_logit = bar * (shared[at + 1] + 2.0 * shared[CURVATURE] * x)
                shown_bar[k] += by_logit / (shown[k] * (1.0 - shown[k]))


@_compiled
def _reverse_shown(
    shared: np.ndarray, arrays: TrajectoryArrays, shown_bar: np.ndarray, slope_bar: np.ndarray,
    gradient: np.ndarray,
) -> None:
    """Add the slopes of `_shown` by everything that it takes."""
    start, share = _logistic(shared[START]), _logistic(shared[CEILING])
    gain, kappa = (1.0 - start) * share, exp(shared[KAPPA])
    log_half, noise = _log_half(shared, arrays)
    half_bar, gain_bar = 0.0, 0.0
    for k in range(len(shown_bar)):
        away = kappa * (arrays.log_tau[k] - log_half)
        z = log(2.0) * exp(min(away, _LATEST))
        rest, level_slope = exp(-z), gain * kappa * z * exp(-z)
        level = start + gain * (1.0 - rest)
        _, rise, curvature = _bend(shared, arrays, level)
        _reverse_bend(arrays, level, shown_bar[k], slope_bar[k] * level_slope, gradient)
        # from here on by the level of accuracy and its slope
        up = shown_bar[k] * (1.0 + rise) + slope_bar[k] * level_slope * curvature
        steep = kappa * slope_bar[k] * (1.0 + rise)
        gradient[START] += up * start * (1.0 - start)
        gain_bar += up * (1.0 - rest) + steep * rest * z
        by_away = rest * z * gain * (up + steep * (1.0 - z)) if away < _LATEST else 0.0
        gradient[KAPPA] += by_away * away + steep * gain * rest * z
        half_bar -= kappa * by_away
    gradient[CEILING] += gain_bar * gain * (1.0 - share)
    gradient[START] -= gain_bar * share * start * (1.0 - start)
    gradient[LEVEL] += half_bar
    _, by_noise, by_alpha = _law(noise, shared[ALPHA], arrays.power)
    gradient[ALPHA] -= half_bar * by_alpha
    for q in range(len(arrays.weights)):
        part = exp(shared[SCALES + 2 * q]) * arrays.weights[q, -1] / noise
        gradient[SCALES + 2 * q] -= half_bar * by_noise * part
