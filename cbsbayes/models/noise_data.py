r"""Measured gradient noise as data of the crossing model: averages with errors per accuracy range.

The thresholds cut training into accuracy ranges k, each ending at its threshold. What was measured
there are averages z = (x_1 … x_d, y) of numerators and of the denominator |G|², with a covariance V
of some degrees of freedom ν. A momentary noise scale m_q = E x_q / E y of that range has the
likelihood

.. math::

    L(m) = \bar m\,(h^\top V^{-1} h)^{-1/2}\,(1 + Q/\nu)^{-(\nu + d)/2}, \quad h = (m_1 … m_d, 1),
    \quad Q = z^\top V^{-1} z - \frac{(h^\top V^{-1} z)^2}{h^\top V^{-1} h},

Student's t of z along the line that h spans, with the scale of the numerators (not of |G|²)
integrated out evenly, :math:`\bar m` being their sum. Where y is told from zero it is a bump around
x/y; where it is not, it falls to zero below a bound and stays level above it, as Fieller's interval
does. Numerators of one range share their y, and so their error.

The fitted scale B_q(t) is an average over the way to t; so the momentary noise m of the accuracy
ranges is averaged over the same progress:

.. math::

    M_{q,k} &= \sum_{i \le k} \frac{S_{min}(t_i) - S_{min}(t_{i-1})}{S_{min}(t_k)}\, m_{q,i} \\
    \log M_{q,k} &= \log B_q(t_k) + \delta + D_{q,k}, \qquad
    D_{q,k} \sim N(\rho_k D_{q,k-1},\; s \sqrt{1 - \rho_k^2})

With Δ the growth of log S_min between two thresholds

.. math:: M_{q,k} = e^{-\Delta_k} M_{q,k-1} + (1 - e^{-\Delta_k})\, m_{q,k}.

δ is one number for all parts and ranges. D is what measurement and fit differ in beyond it: of sd
s, alike at neighbouring thresholds, apart for prompts and rollouts. log m is what is sampled, so
the density of D carries the Jacobian of M. `cbsbayes.models.pymc_models` defines the same in PyMC.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, expm1, log, log1p, pi
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from cbsbayes.models.compiled import add_scaled, dot
from cbsbayes.models.compiled import compiled as _compiled
from cbsbayes.models.parameters import NOISE_PRIORS, Places

__all__ = ["NoiseArrays", "NoiseData", "log_density"]


@dataclass(frozen=True)
class NoiseData:
    """Arrays of the noise terms; ranges from easy to hard, up to the last one with a probe.

    Attributes
    ----------
    parts : tuple of str
        What was measured, d names: ``B_prompt, B_rollout``, or ``B_noise``, or ``N``.
    mix : numpy.ndarray
        Shape (d, scale): the part is mix @ the law's noise scales.
    total : numpy.ndarray
        Shape (d,): what each part counts in the sum of the numerators.
    estimate : numpy.ndarray
        Shape (range, d + 1): the averages z; numerators first, in units of |G|² times the part's.
    covariance : numpy.ndarray
        Shape (range, d + 1, d + 1): of the averages.
    freedom : numpy.ndarray
        Shape (range,): degrees of freedom of the covariance; 0 where nothing was measured.
    n_probes : numpy.ndarray
        Shape (range,): probes averaged.
    n_rollouts : int
        Group size of the part ``N``; 0 for others.
    n_runs : int
        Runs probed; 0 where the noise was measured apart from them.
    """

    parts: tuple[str, ...]
    mix: np.ndarray
    total: np.ndarray
    estimate: np.ndarray
    covariance: np.ndarray
    freedom: np.ndarray
    n_probes: np.ndarray
    n_rollouts: int = 0
    n_runs: int = 0

    @property
    def n_ranges(self) -> int:
        """Ranges, those without a probe included."""
        return len(self.freedom)

    @property
    def known(self) -> np.ndarray:
        """Bool, shape (range,): where anything was measured."""
        return self.freedom > 0

    def labels(self, threshold: np.ndarray) -> list[str]:
        """Return the name of every momentary noise scale, part by part."""
        return [f"{part} up to {t:g}" for part in self.parts for t in threshold[: self.n_ranges]]

    def precision(self) -> np.ndarray:
        """Return the inverse covariances, zero where nothing was measured."""
        out = np.zeros_like(self.covariance)
        out[self.known] = np.linalg.inv(self.covariance[self.known])
        return out

    def resolved(self, ci_prob: float = 0.9) -> np.ndarray:
        """Return where the denominator's own interval excludes zero, shape (range,)."""
        out = np.zeros(self.n_ranges, dtype=bool)
        k = self.known
        quantile = stdtrit(self.freedom[k], (1 + ci_prob) / 2)
        y, sd = self.estimate[k, -1], np.sqrt(self.covariance[k, -1, -1])
        out[k] = (y > quantile * sd) & (self.estimate[k, :-1] > 0).all(axis=1)
        return out

    def correlation(self, threshold_logit: np.ndarray) -> np.ndarray:
        """Return the discrepancy's correlation with that of the range before, (range,); 0 first."""
        gaps = np.diff(threshold_logit[: self.n_ranges])
        return np.concatenate([[0.0], np.exp(-gaps / NOISE_PRIORS.length)])

    def start(self) -> np.ndarray:
        """Return rough log noise scales to start a sampler from, shape (d, range)."""
        at = np.flatnonzero(self.known)
        if not at.size:
            return np.zeros((len(self.parts), self.n_ranges))
        sd = np.sqrt(np.diagonal(self.covariance[at], axis1=1, axis2=2))
        z = np.maximum(self.estimate[at], sd)
        rows = np.log(z[:, :-1] / z[:, -1:]).T
        return np.stack([np.interp(np.arange(self.n_ranges), at, row) for row in rows])


class NoiseArrays(NamedTuple):
    """What the compiled density of measured noise is given.

    Attributes
    ----------
    at : Places
        Where the blocks begin in the position.
    log_scales : numpy.ndarray
        Log noise scales are this times the position, shape (scale x threshold, n_dim).
    mix, total, correlation, freedom, estimate, precision : numpy.ndarray
        As in `NoiseData`; `mix` in the unit of each noise scale.
    """

    at: Places
    log_scales: np.ndarray
    mix: np.ndarray
    total: np.ndarray
    correlation: np.ndarray
    freedom: np.ndarray
    estimate: np.ndarray
    precision: np.ndarray


@_compiled
def log_density(position: np.ndarray, d: NoiseArrays) -> tuple[float, np.ndarray]:
    """Return the log density of measured noise but for the priors of δ and s, and its gradient.

    Parameters
    ----------
    position : numpy.ndarray
        Of the crossing model, shape (n_dim,).
    d : NoiseArrays
        What was measured.
    """
    n_parts, n_scales, n_ranges = len(d.mix), d.mix.shape[1], len(d.freedom)
    n_thresholds = len(d.log_scales) // n_scales  # ranges may be fewer
    gradient, value = np.zeros_like(position), 0.0
    scales, moment = np.empty((n_scales, n_ranges)), np.empty((n_parts, n_ranges))
    for k in range(n_ranges):
        for s in range(n_scales):
            scales[s, k] = exp(dot(d.log_scales[s * n_thresholds + k], position))
        for q in range(n_parts):
            moment[q, k] = exp(position[d.at.log_noise + q * n_ranges + k])
    scales_bar, moment_bar = np.zeros_like(scales), np.zeros_like(moment)
    for q in range(n_parts):
        value += _deviations(position, moment[q], d.mix[q], scales, d, scales_bar, moment_bar[q],
                             gradient)
    for k in range(n_ranges):
        if d.freedom[k] > 0.0:
            value += _probes(k, moment, d, moment_bar)
        for s in range(n_scales):
            add_scaled(scales_bar[s, k], d.log_scales[s * n_thresholds + k], gradient)
        for q in range(n_parts):
            gradient[d.at.log_noise + q * n_ranges + k] = moment_bar[q, k]
    return value, gradient


@_compiled
def _probes(k: int, moment: np.ndarray, d: NoiseArrays, moment_bar: np.ndarray) -> float:
    """Return what one range's averages say; add the slopes by log noise to `moment_bar`."""
    n, freedom, z, w = len(d.total), d.freedom[k], d.estimate[k], d.precision[k]
    h, wh, wz = np.ones(n + 1), np.zeros(n + 1), np.zeros(n + 1)
    weight, along, across, size = 0.0, 0.0, 0.0, 0.0
    for q in range(n):
        h[q] = moment[q, k]
        weight += d.total[q] * h[q]
    for q in range(n + 1):
        for r in range(n + 1):
            wh[q] += w[q, r] * h[r]
            wz[q] += w[q, r] * z[r]
        along += h[q] * wh[q]
        across += h[q] * wz[q]
        size += z[q] * wz[q]
    best = across / along  # |G|² where the line along h is nearest to the averages
    misfit = size - best * across
    steep = (freedom + n) / (freedom + misfit)
    for q in range(n):
        slope = d.total[q] / weight - wh[q] / along + steep * best * (wz[q] - best * wh[q])
        moment_bar[q, k] += slope * moment[q, k]
    return log(weight) - 0.5 * log(along) - 0.5 * (freedom + n) * log1p(misfit / freedom)


@_compiled
def _deviations(
    position: np.ndarray, moment: np.ndarray, mix: np.ndarray, scales: np.ndarray, d: NoiseArrays,
    scales_bar: np.ndarray, moment_bar: np.ndarray, gradient: np.ndarray,
) -> float:
    """Return the log density of one part's deviations, with the Jacobian; add its slopes."""
    n, log_scatter = len(moment), position[d.at.noise_scatter]
    average, kept, target = np.empty(n), np.zeros(n), np.zeros(n)
    deviation, deviation_bar, log_average_bar = np.empty(n), np.zeros(n), np.zeros(n)
    value = 0.0
    for k in range(n):
        average[k] = moment[k]
        if k > 0:
            growth = exp(position[d.at.log_growth + k - 1])
            kept[k] = exp(-growth)
            average[k] = kept[k] * average[k - 1] - expm1(-growth) * moment[k]
            value += log(-expm1(-growth)) + log(moment[k]) - log(average[k])
            moment_bar[k] += 1.0
            log_average_bar[k] -= 1.0
        for s in range(len(mix)):
            target[k] += mix[s] * scales[s, k]
        deviation[k] = log(average[k]) - log(target[k]) - position[d.at.noise_offset]
        rest = 1.0 - d.correlation[k] ** 2
        away = deviation[k] - (d.correlation[k] * deviation[k - 1] if k > 0 else 0.0)
        pull = away * exp(-2.0 * log_scatter) / rest
        value -= 0.5 * away * pull + log_scatter + 0.5 * log(2.0 * pi * rest)
        gradient[d.at.noise_scatter] += away * pull - 1.0
        deviation_bar[k] -= pull
        if k > 0:
            deviation_bar[k - 1] += d.correlation[k] * pull
    average_bar = 0.0
    for k in range(n - 1, -1, -1):
        gradient[d.at.noise_offset] -= deviation_bar[k]
        for s in range(len(mix)):
            scales_bar[s, k] -= deviation_bar[k] * mix[s] * scales[s, k] / target[k]
        average_bar += (deviation_bar[k] + log_average_bar[k]) / average[k]
        if k == 0:
            moment_bar[0] += average_bar * moment[0]
            break
        growth = exp(position[d.at.log_growth + k - 1])
        moment_bar[k] -= average_bar * expm1(-growth) * moment[k]
        fading = kept[k] * (average_bar * (moment[k] - average[k - 1]) - 1.0 / expm1(-growth))
        gradient[d.at.log_growth + k - 1] += growth * fading
        average_bar *= kept[k]
    return value
