r"""Tell what comes from the data from what is the prior's.

Each end of an interval is judged by itself: is it where it is because the likelihood falls off
beyond it, or only because the prior does? Beyond the posterior's 5 % quantile the prior's own
draws, cut there, are what a flat likelihood would leave. With F the prior's distribution function,

.. math:: u = F(\theta)/F(q_{.05}), \quad \theta < q_{.05},

is uniform, of mean 1/2, when the likelihood is flat there, and near 1 when it falls steeply. Where
both tails are exponential, of rates k and λ, the mean is (λ + k)/(2 λ + k): 2/3 if the likelihood
falls off as fast as the prior, 3/4 if twice as fast. The first is not enough: where only a
combination of two scales is known, integrating over the other's prior makes the likelihood of one
fall off about as fast as its own prior does. An end with less than 3/4 is called open; for a normal
posterior in the middle of a normal prior that is a standard deviation of half the prior's. The
upper end likewise.

An end is judged in the tail and not by the best likelihood anywhere: a narrow peak with a flat
stretch beside it, as two noise scales of which only the sum is known have, would pass for
identified although one end of its interval is the prior's.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr, ndtri

__all__ = ["STATUSES", "identify"]

STATUSES = ("identified", "upper_bound", "lower_bound", "not_identified")
_TAIL = 0.05
_CLOSED = 0.75  # mean of u where the likelihood falls off twice as fast as the prior
_LEVELS = np.concatenate([[0.01, 0.03, 0.06], np.linspace(0.1, 0.9, 33), [0.94, 0.97, 0.99]])
_SCORES = ndtri(_LEVELS)
_OUTER = 3  # levels whose slope goes on beyond the first and the last


def identify(posterior: np.ndarray, prior: np.ndarray, *, log_scale: bool = True) -> str:
    """Return the status of one quantity.

    Parameters
    ----------
    posterior, prior : numpy.ndarray
        Draws, shape (draw,) each; a thousand or more of the prior, whose distribution is taken
        as normal beyond its 1 % and 99 % quantiles.
    log_scale : bool
        Judge on the log scale (positive quantities).

    Returns
    -------
    str
        One of `STATUSES`: both ends closed, only the upper, only the lower, none.
    """
    ordered = np.sort(posterior)
    if np.isnan(ordered[-1]) or np.isnan(prior).any():
        return "not_identified"
    lowest, highest = _tails(ordered)
    if log_scale:
        lowest, highest, prior = _log(lowest), _log(highest), _log(prior)
    knots = np.quantile(prior, _LEVELS)
    lower = _closedness(_normal_scores(lowest, knots), len(ordered)) > _CLOSED
    upper = _closedness(-_normal_scores(highest, knots)[::-1], len(ordered)) > _CLOSED
    if lower:
        return "identified" if upper else "lower_bound"
    return "upper_bound" if upper else "not_identified"


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(values, np.finfo(float).tiny))


def _tails(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest draws, a little more than a tail each."""
    beyond = min(int(_TAIL * (len(ordered) - 1)) + 1, len(ordered) - 1)
    low = np.searchsorted(ordered, ordered[beyond], side="right")
    high = np.searchsorted(ordered, ordered[-beyond - 1], side="left")
    return ordered[:low], ordered[high:]


def _normal_scores(values: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return where values lie in the prior, as quantiles of a standard normal, shape (draw,)."""
    inside = np.interp(values, knots, _SCORES)
    below, above = np.minimum(values - knots[0], 0.0), np.maximum(values - knots[-1], 0.0)
    return (inside + below * _slope(knots[:_OUTER + 1], _SCORES[:_OUTER + 1])
            + above * _slope(knots[-_OUTER - 1:], _SCORES[-_OUTER - 1:]))


def _slope(knots: np.ndarray, z: np.ndarray) -> float:
    width = max(knots[-1] - knots[0], np.finfo(float).eps)
    return float((z[-1] - z[0]) / width)


def _closedness(z: np.ndarray, n: int) -> float:
    """Return the mean of F(θ)/F(q) over the lower tail of n draws: 1/2 flat, towards 1 steep.

    The lowest draws are given in ascending order, one beyond the quantile at least.
    """
    at = _TAIL * (n - 1)
    k = int(at)
    edge = z[k] + (z[min(k + 1, len(z) - 1)] - z[k]) * (at - k)
    return float(np.exp(log_ndtr(z[z <= edge]) - log_ndtr(edge)).mean())
