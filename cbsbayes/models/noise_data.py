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
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import stdtrit

from cbsbayes.models.priors import NOISE_PRIORS, NoisePriors

__all__ = ["NoiseData"]


@dataclass(frozen=True)
class NoiseData:
    """Arrays of the noise terms; ranges in order of hardness, up to the last one with a probe.

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
    priors : NoisePriors
        Of the offset and the scatter.
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
    priors: NoisePriors = field(default=NOISE_PRIORS)

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

    def correlation(self, hardness: np.ndarray) -> np.ndarray:
        """Return the discrepancy's correlation with that of the range before, (range,); 0 first."""
        gaps = np.diff(hardness[: self.n_ranges])
        return np.concatenate([[0.0], np.exp(-gaps / self.priors.length)])

    def start(self) -> np.ndarray:
        """Return rough log noise scales to start a sampler from, shape (d, range)."""
        out = np.full((len(self.parts), self.n_ranges), np.nan)
        for k in np.flatnonzero(self.known):
            sd = np.sqrt(np.diag(self.covariance[k]))
            z = np.maximum(self.estimate[k], sd)
            out[:, k] = np.log(z[:-1] / z[-1])
        at = np.flatnonzero(self.known)
        if not at.size:
            return np.zeros_like(out)
        return np.stack([np.interp(np.arange(self.n_ranges), at, row[at]) for row in out])
