r"""Partial pooling across groups: a second stage on the posteriors of one quantity.

Every fit i gives the quantity's log, y_i, with its own uncertainty s_i; groups scatter about a
common mean:

.. math::

    y_i \sim N(\theta_i, s_i), \quad \theta_i \sim N(\mu, \tau), \quad \mu \text{ flat}, \quad
    \tau \sim \text{half-normal}(\text{scale})

Given τ everything is normal, so the posterior is a mixture of normals over a grid of τ: exact and
without sampling [1]_. y_i and s_i are the likelihood's: the first stage's prior, normal as well,
is divided out of the posterior. A group that is known badly is drawn towards the others, one that
is known well stays. Two groups say next to nothing about τ, whose prior then decides.

References
----------
.. [1] Gelman et al., "Bayesian Data Analysis", 3rd edition, section 5.4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from cbsbayes.errors import CBSDataError

__all__ = ["BETWEEN_SD", "FEW", "Mixture", "Pooled", "between_sd", "pool", "without_prior"]

FEW = 5  # groups below which the spread between them is mostly its prior
BETWEEN_SD = {"gain_prompts": 0.2, "gain_rollouts": 0.2, "gain_total": 0.2, "alpha": 0.3}
"""Scale of the half-normal prior of τ on the log scale, where it is not 1."""
_NODES, _REACH = 401, 5.0  # of the grid of τ, and its end in scales of the prior
_BISECTIONS = 60


def between_sd(quantity: str) -> float:
    """Return the scale of the prior of τ for a quantity: 1, or less where it cannot spread so."""
    return BETWEEN_SD.get(quantity, 1.0)


@dataclass(frozen=True)
class Mixture:
    """Normals with weights.

    Attributes
    ----------
    weight, mean, sd : numpy.ndarray
        Shape (node,); weights sum to one.
    """

    weight: np.ndarray
    mean: np.ndarray
    sd: np.ndarray

    def quantile(self, level: float) -> float:
        """Return the value below which a share `level` lies."""
        spread = 10 * self.sd.max() + np.ptp(self.mean)
        ends = (float(self.mean.min() - spread), float(self.mean.max() + spread))
        return _bisect(lambda x: float(self.weight @ ndtr((x - self.mean) / self.sd)), level, ends)


def _bisect(rising: Callable[[float], float], level: float, ends: tuple[float, float]) -> float:
    low, high = ends
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if rising(middle) < level else (low, middle)
    return 0.5 * (low + high)


@dataclass(frozen=True)
class Pooled:
    """The second stage's posterior, all on the log scale.

    Attributes
    ----------
    groups : list of Mixture
        Every group's own value after pooling.
    mean : Mixture
        The mean of groups.
    another : Mixture
        A group of the same kind that was not measured.
    tau, tau_weight : numpy.ndarray
        Grid of the spread between groups and its posterior, shape (node,).
    """

    groups: list[Mixture]
    mean: Mixture
    another: Mixture
    tau: np.ndarray
    tau_weight: np.ndarray

    def tau_quantile(self, level: float) -> float:
        """Return a quantile of the spread between groups."""
        return float(np.interp(level, np.cumsum(self.tau_weight), self.tau))


def pool(y: np.ndarray, s: np.ndarray, scale: float) -> Pooled:
    """Return the posterior of groups that scatter about a common mean.

    Parameters
    ----------
    y, s : numpy.ndarray
        Log value of every group and its standard deviation, shape (group,).
    scale : float
        Of the half-normal prior of the spread between groups.

    Raises
    ------
    CBSDataError
        With fewer than two groups, or a standard deviation that is not positive.
    """
    y, s = np.asarray(y, dtype=float), np.asarray(s, dtype=float)
    if len(y) < 2 or not (np.isfinite(y) & np.isfinite(s) & (s > 0)).all():
        raise CBSDataError(f"pooling needs two groups and more with a known spread each; got "
                           f"values {y.tolist()} with spreads {s.tolist()}")
    tau = np.linspace(0.0, _REACH * scale, _NODES)
    precision = 1.0 / (s[:, None] ** 2 + tau**2)  # (group, node)
    total = precision.sum(axis=0)
    center = (precision * y[:, None]).sum(axis=0) / total
    log_weight = (0.5 * np.log(precision).sum(axis=0) - 0.5 * np.log(total)
                  - 0.5 * (precision * (y[:, None] - center) ** 2).sum(axis=0)
                  - 0.5 * (tau / scale) ** 2)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    kept = s[:, None] ** 2 * precision  # how far a group is drawn to the mean: 1 at tau 0
    variance = (1.0 - kept) * s[:, None] ** 2 + kept**2 / total
    groups = [Mixture(weight, kept[i] * center + (1 - kept[i]) * y[i], np.sqrt(variance[i]))
              for i in range(len(y))]
    return Pooled(groups, Mixture(weight, center, np.sqrt(1.0 / total)),
                  Mixture(weight, center, np.sqrt(1.0 / total + tau**2)), tau, weight)


def without_prior(posterior: np.ndarray, prior: np.ndarray) -> tuple[float, float]:
    """Return mean and sd of the likelihood that turned a normal prior into a posterior.

    Parameters
    ----------
    posterior, prior : numpy.ndarray
        Draws on the log scale, shape (draw,) each. Where the posterior is not narrower than the
        prior, its own mean and sd are returned.
    """
    mean, sd = float(posterior.mean()), float(posterior.std(ddof=1))
    before, wide = float(prior.mean()), float(prior.std(ddof=1))
    precision = sd**-2 - wide**-2
    if precision <= 0.5 * sd**-2:  # a division that would rest on the difference of two likes
        return mean, sd
    return (mean * sd**-2 - before * wide**-2) / precision, precision**-0.5
