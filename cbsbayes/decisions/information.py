r"""Expected information about one quantity, by weighting posterior draws.

Data y simulated from one posterior draw turn the others into the posterior given y as well: draw m
gets the weight :math:`w_m \propto p(y \mid \theta_m)`. With z the quantity's normal scores,
standard normal over the draws, the information in nats is

.. math:: I = \tfrac12 E_y \log \frac{Var(z)}{Var(z \mid y)},

exact where z given y is normal and a lower bound on the mutual information otherwise, because of
all distributions of one variance the normal has the largest entropy. Normal scores make it the
same for a quantity, its logarithm and any other unit of it. It is about the quantity alone: what
the data say of everything else, run effects included, counts for nothing.

Two errors of the simulation are added: that over simulated data (their number), from its spread,
and that over the draws which are weighted, from a jackknife over blocks of them, taken in the
sampler's order so that its autocorrelation is in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

__all__ = ["N_BLOCKS", "Information", "Moments", "expected_information", "normal_scores",
           "posterior_moments"]

N_BLOCKS = 10


@dataclass(frozen=True)
class Moments:
    """Variance of a quantity given every simulated data set.

    Attributes
    ----------
    variance : numpy.ndarray
        Shape (data,).
    without : numpy.ndarray
        The same with one block of the draws left out, shape (block, data).
    effective : numpy.ndarray
        Effective number of draws behind it, shape (data,).
    """

    variance: np.ndarray
    without: np.ndarray
    effective: np.ndarray


@dataclass(frozen=True)
class Information:
    """Expected information in nats, its Monte Carlo error, and the draws behind it.

    Attributes
    ----------
    nats, error : float
        Expectation and standard error of its estimate.
    effective : float
        Effective number of draws of the middle data set; below some 30 the estimate is rough.
    """

    nats: float
    error: float
    effective: float

    @property
    def resolved(self) -> bool:
        """Whether it is above two Monte Carlo errors."""
        return self.nats > 2.0 * self.error


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Return standard normal quantiles by rank, shape (draw,); ties share one."""
    return ndtri((rankdata(values) - 0.5) / len(values))


def posterior_moments(log_weights: np.ndarray, values: np.ndarray) -> Moments:
    """Return the variance of values under each row of weights.

    Parameters
    ----------
    log_weights : numpy.ndarray
        Unnormalised, shape (data, draw).
    values : numpy.ndarray
        Shape (draw,).
    """
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    centred = values - values.mean()  # sums of squares lose no digits
    edges = np.linspace(0, len(values), N_BLOCKS + 1).astype(int)[:-1]
    terms = (weights, weights * centred, weights * centred**2, weights**2)
    sums = np.stack([np.add.reduceat(term, edges, axis=1) for term in terms])
    whole = sums.sum(axis=2)
    return Moments(_variance(whole), _variance(whole[:, :, None] - sums).T,
                   whole[0] ** 2 / whole[3])


def _variance(sums: np.ndarray) -> np.ndarray:
    """Return the variance from sums of w, w v, w v² and w², freed of the bias of few draws."""
    total, first, second, squares = sums
    total = np.maximum(total, 1e-100)  # a block may have held all the weight
    spread = np.maximum(second / total - (first / total) ** 2, 0.0)
    few = np.clip(1.0 - squares / total**2, 1e-3, 1.0)
    return np.maximum(spread / few, 1e-12)


def expected_information(before: Moments, after: Moments) -> Information:
    """Return what further data are expected to tell, given what is known before.

    Parameters
    ----------
    before, after : Moments
        Of the normal scores, under the same simulated data without and with the further ones.
    """
    gained = 0.5 * np.log(before.variance / after.variance)
    without = 0.5 * np.log(before.without / after.without).mean(axis=1)
    outer = gained.var(ddof=1) / len(gained)
    inner = (len(without) - 1) * without.var()
    return Information(float(gained.mean()), float(np.sqrt(outer + inner)),
                       float(np.median(after.effective)))
