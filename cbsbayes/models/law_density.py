r"""The law's part of the crossing model's density: log S/S_min of every batch, and its slopes.

A compiled restatement of `cbsbayes.models.laws`, to which tests hold it. With a learning rate,
:math:`y = \log\eta - \log\eta_{max}(t) + \gamma \log(1 + N/P)`,

.. math:: \log S/S_{min} = \alpha \log(1 + N/P) + \log(m e^{-k y} + k e^{m y}) - \log(m + k).
"""

from __future__ import annotations

from functools import partial
from math import erfc, exp, log, log1p, sqrt

import numpy as np

from cbsbayes.models.compiled import add_scaled, compiled, dot
from cbsbayes.models.crossing_parameters import CrossingArrays

__all__ = ["exponent", "law_ratio", "reverse_law"]

_compiled = partial(compiled, fastmath={"reassoc", "contract"})


@_compiled
def exponent(position: np.ndarray, d: CrossingArrays) -> tuple[float, float]:
    """Return the exponent and its slope by its coordinate."""
    if d.at.alpha < 0:
        return d.alpha, 0.0
    lower, upper = d.alpha_prior[0], d.alpha_prior[1]
    v = position[d.at.alpha]
    alpha = lower + (upper - lower) * 0.5 * erfc(-v / sqrt(2.0))
    return alpha, (upper - lower) * exp(-0.5 * v * v) / sqrt(2.0 * np.pi)


@_compiled
def law_ratio(
    position: np.ndarray, alpha: float, d: CrossingArrays
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the noise scales, (scale, threshold), and x and log S/S_min, (batch, threshold)."""
    n_scales, n_batches = d.weights.shape
    n_thresholds = len(d.threshold_logit)
    scales, noise = np.empty((n_scales, n_thresholds)), np.zeros((n_batches, n_thresholds))
    for t in range(n_thresholds):
        for s in range(n_scales):
            scales[s, t] = exp(dot(d.log_scales[s * n_thresholds + t], position))
            for b in range(n_batches):
                noise[b, t] += d.weights[s, b] * scales[s, t]
    ratio = np.empty_like(noise)
    for t in range(n_thresholds):
        for b in range(n_batches):
            x = noise[b, t]
            ratio[b, t] = log1p(x**alpha) if d.power else alpha * log1p(x)
            if d.at.gamma >= 0:
                m, k, y = _rate(position, noise, b, t, d)
                ratio[b, t] += _log_sum(log(m) - k * y, log(k) + m * y) - log(m + k)
    return scales, noise, ratio


@_compiled
def reverse_law(
    position: np.ndarray, scales: np.ndarray, alpha: float, noise: np.ndarray,
    curve_bar: np.ndarray, d: CrossingArrays, gradient: np.ndarray,
) -> float:
    """Add the slopes by what log noise scales and rates are made of; return the exponent's."""
    alpha_bar, noise_bar = 0.0, np.empty_like(noise)
    for t in range(noise.shape[1]):
        for b in range(len(noise)):
            x, bar = noise[b, t], curve_bar[b, t]
            raised = x**alpha if d.power else x
            relative = raised / (1.0 + raised)
            alpha_bar += bar * (log(x) * relative if d.power else log1p(x))
            noise_bar[b, t] = bar * alpha * relative / x
    if d.at.gamma >= 0:
        _reverse_rates(position, noise, curve_bar, d, noise_bar, gradient)
    for s in range(len(scales)):
        for t in range(noise.shape[1]):
            bar = 0.0
            for b in range(len(noise)):
                bar += d.weights[s, b] * noise_bar[b, t]
            add_scaled(scales[s, t] * bar, d.log_scales[s * noise.shape[1] + t], gradient)
    return alpha_bar


@_compiled
def _log_sum(a: float, b: float) -> float:
    """Return log(e^a + e^b)."""
    return max(a, b) + log1p(exp(-abs(a - b)))


@_compiled
def _rate(
    position: np.ndarray, noise: np.ndarray, b: int, t: int, d: CrossingArrays
) -> tuple[float, float, float]:
    """Return m and k, by which S rises beyond and below the best rate, and y of one batch.

    The best rate is a coordinate at the middle batch, the last one.
    """
    further = log1p(noise[b, t]) - log1p(noise[-1, d.middle])
    y = position[d.at.gamma] * further - dot(d.log_best[t], position) + d.log_rate[b]
    return exp(position[d.at.steepness]), exp(position[d.at.slope_below]), y


@_compiled
def _reverse_rates(
    position: np.ndarray, noise: np.ndarray, curve_bar: np.ndarray, d: CrossingArrays,
    noise_bar: np.ndarray, gradient: np.ndarray,
) -> None:
    """Add the slopes by gamma, m, k and the best rate, and those by the noise to `noise_bar`."""
    gamma, middle = position[d.at.gamma], noise[-1, d.middle]
    for t in range(noise.shape[1]):
        for b in range(len(noise)):
            x, bar = noise[b, t], curve_bar[b, t]
            m, k, y = _rate(position, noise, b, t, d)
            below = 1.0 / (1.0 + k / m * exp((m + k) * y))  # share of m x^-k in m x^-k + k x^m
            y_bar = bar * (m - (m + k) * below)
            gradient[d.at.steepness] += bar * (below + (1.0 - below) * m * y - m / (m + k))
            gradient[d.at.slope_below] += bar * (1.0 - below - below * k * y - k / (m + k))
            gradient[d.at.gamma] += y_bar * (log1p(x) - log1p(middle))
            add_scaled(-y_bar, d.log_best[t], gradient)
            noise_bar[b, t] += gamma * y_bar / (1.0 + x)
            noise_bar[-1, d.middle] -= gamma * y_bar / (1.0 + middle)
