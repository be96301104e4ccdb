r"""The law's part of the crossing model's density: log S/S_min of every batch, and its slopes.

A compiled restatement of `cbsbayes.models.laws`, to which tests hold it. With a learning rate,
:math:`y = \log\eta - \log\eta_{max}(t) + \gamma \log(1 + N/P)`,

.. math:: \log S/S_{min} = \alpha \log(1 + N/P) + \log(m e^{-k y} + k e^{m y}) - \log(m + k).
"""

from __future__ import annotations

from functools import partial
from math import erfc, exp, sqrt

import numpy as np

from cbsbayes.models.compiled import compiled
from cbsbayes.models.crossing_parameters import CrossingArrays

__all__ = ["exponent", "law_ratio", "reverse_law"]

_compiled = partial(compiled, fastmath={"reassoc", "contract"})


@_compiled
def exponent(position: np.ndarray, d: CrossingArrays) -> tuple[float, float]:
    """Return the exponent and its slope by its coordinate."""
    if d.at.alpha < 0:
        return d.alpha, 0.0
    lower, upper, _, _ = d.alpha_prior
    v = position[d.at.alpha]
    alpha = lower + (upper - lower) * 0.5 * erfc(-v / sqrt(2.0))
    return alpha, (upper - lower) * exp(-0.5 * v * v) / sqrt(2.0 * np.pi)


@_compiled
def law_ratio(
    position: np.ndarray, alpha: float, d: CrossingArrays
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the noise scales, (scale, threshold), and x and log S/S_min, (batch, threshold)."""
    scales = np.exp(d.log_scales @ position).reshape((len(d.weights), len(d.threshold_logit)))
    noise = d.weights.T @ scales
    if d.power:
        return scales, noise, np.log1p(noise**alpha)
    ratio = alpha * np.log1p(noise)
    if d.at.gamma >= 0:
        away, (m, k) = _away(position, noise, d), _slopes(position, d)
        ratio += np.logaddexp(np.log(m) - k * away, np.log(k) + m * away) - np.log(m + k)
    return scales, noise, ratio


@_compiled
def reverse_law(
    position: np.ndarray, scales: np.ndarray, alpha: float, noise: np.ndarray,
    curve_bar: np.ndarray, d: CrossingArrays, gradient: np.ndarray,
) -> float:
    """Add the slopes by what log noise scales and rates are made of; return the exponent's."""
    raised = noise**alpha if d.power else noise
    relative = raised / (1.0 + raised)
    by_alpha = np.log(noise) * relative if d.power else np.log1p(noise)
    noise_bar = alpha * relative / noise * curve_bar
    if d.at.gamma >= 0:
        noise_bar += _reverse_rates(position, noise, curve_bar, d, gradient)
    scales_bar = scales * (d.weights @ noise_bar)
    gradient += scales_bar.reshape(-1) @ d.log_scales
    return (by_alpha * curve_bar).sum()


@_compiled
def _slopes(position: np.ndarray, d: CrossingArrays) -> tuple[float, float]:
    """Return m and k, by which S rises beyond and below the best rate."""
    return exp(position[d.at.steepness]), exp(position[d.at.slope_below])


@_compiled
def _away(position: np.ndarray, noise: np.ndarray, d: CrossingArrays) -> np.ndarray:
    """Return y, log of the learning rate over the best one, shape (batch, threshold)."""
    away = position[d.at.gamma] * _log_noise(noise, d) - d.log_best @ position
    for k in range(len(away)):
        away[k] += d.log_rate[k]
    return away


@_compiled
def _log_noise(noise: np.ndarray, d: CrossingArrays) -> np.ndarray:
    """Return log(1 + N/P) over that of the middle batch, where the best rate is a coordinate."""
    log_noise = np.log1p(noise)
    return log_noise - log_noise[-1, d.middle]


@_compiled
def _reverse_rates(
    position: np.ndarray, noise: np.ndarray, curve_bar: np.ndarray, d: CrossingArrays,
    gradient: np.ndarray,
) -> np.ndarray:
    """Add the slopes by gamma, m, k and the best rate; return that by the noise over the batch."""
    away, (m, k) = _away(position, noise, d), _slopes(position, d)
    below = 1.0 / (1.0 + k / m * np.exp((m + k) * away))  # share of m x^-k in m x^-k + k x^m
    away_bar = (m - (m + k) * below) * curve_bar
    gradient[d.at.steepness] += (
        (below + (1.0 - below) * m * away - m / (m + k)) * curve_bar).sum()
    gradient[d.at.slope_below] += (
        (1.0 - below - below * k * away - k / (m + k)) * curve_bar).sum()
    gradient[d.at.gamma] += (_log_noise(noise, d) * away_bar).sum()
    gradient -= away_bar.sum(axis=0) @ d.log_best
    away_bar[-1, d.middle] -= away_bar.sum()
    return position[d.at.gamma] / (1.0 + noise) * away_bar
