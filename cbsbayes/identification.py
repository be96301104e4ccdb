"""Tell what comes from the data from what is the prior's.

The ratio of posterior to prior mass over a stretch is, up to a factor, the likelihood that the
quantity lies there. Where that ratio has not fallen in the far tail of the prior, the data do not
exclude arbitrarily small (or large) values, and only a bound is known.
"""

from __future__ import annotations

import numpy as np

__all__ = ["STATUSES", "identify"]

STATUSES = ("identified", "upper_bound", "lower_bound", "not_identified")
_BINS = 20
_TAIL = 0.01
_OPEN = 0.15  # an end is open while its likelihood is above this share of the best bin's
_CONTRACTION = 0.6  # posterior spread over prior spread above this: the prior speaks


def identify(posterior: np.ndarray, prior: np.ndarray, *, log_scale: bool = True) -> str:
    """Return the status of one quantity.

    Parameters
    ----------
    posterior, prior : numpy.ndarray
        Draws, shape (draw,) each; a thousand and more of the prior, whose 1 % tails are used.
    log_scale : bool
        Judge spread on the log scale (positive quantities).

    Returns
    -------
    str
        One of `STATUSES`.
    """
    if log_scale:
        posterior, prior = _log(posterior), _log(prior)
    best = _relative_mass(posterior, prior).max()
    low, high = np.quantile(prior, [_TAIL, 1 - _TAIL])
    low_open = np.mean(posterior < low) / _TAIL > _OPEN * best
    high_open = np.mean(posterior > high) / _TAIL > _OPEN * best
    if low_open != high_open:
        return "upper_bound" if low_open else "lower_bound"
    contracted = _spread(posterior) <= _CONTRACTION * _spread(prior)
    return "identified" if contracted and not low_open else "not_identified"


def _relative_mass(posterior: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Return posterior over prior mass in bins of equal prior probability, shape (bin,)."""
    edges = np.quantile(prior, np.linspace(0.0, 1.0, _BINS + 1)[1:-1])
    counts = np.bincount(np.searchsorted(edges, posterior), minlength=_BINS)
    return counts * _BINS / len(posterior)


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(values, np.finfo(float).tiny))


def _spread(values: np.ndarray) -> float:
    """Return half the central 68 %: the sd of a normal, unmoved by far tails."""
    low, high = np.quantile(values, [0.16, 0.84])
    return float(high - low) / 2
