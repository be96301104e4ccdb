"""The likelihood of runs with their effects integrated out, plainly in numpy: the kernel's twin."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from cbsbayes.models.crossing_data import CrossingData
from cbsbayes.models.likelihood import LOGISTIC_SCALE, log_interval_numpy
from cbsbayes.posterior.predictive import Parameters

_NODES, _REACH = 17, 6.5  # of the rule for the run effect, in widths of the integrand's peak
_MOST_STEPS, _NEAR = 40, 0.05  # of the search for that peak, and how many widths off is near
_CHUNK = 250  # draws at a time


def run_log_likelihood(draws: Parameters, data: CrossingData) -> np.ndarray:
    """Return log p(crossings of a run), its run effect integrated out, shape (draw, run)."""
    parts = [_integrated(draws.part(slice(start, start + _CHUNK)), data)
             for start in range(0, len(draws.sigma_run), _CHUNK)]
    return np.concatenate(parts)


def _integrated(draws: Parameters, data: CrossingData) -> np.ndarray:
    """Integrate the run effect out by the trapezoidal rule around the integrand's peak.

    A rule fixed at the prior of the effect would miss a sharp peak far out, which is what a wrong
    law produces; the integrand is log-concave, so there is one peak.
    """
    lower, upper, pull = _standardised(draws, data)
    peak, width = _peak(lower, upper, pull)
    spacing = 2 * _REACH / (_NODES - 1)
    terms = []
    for node in np.linspace(-_REACH, _REACH, _NODES):
        effect = peak + width * node
        log_p = _log_p(lower, upper, pull, effect[:, :, None])
        terms.append(np.where(data.informative, log_p, 0.0).sum(axis=2) - effect**2 / 2)
    return np.logaddexp.reduce(terms, axis=0) + np.log(width * spacing / np.sqrt(2 * np.pi))


def _standardised(
    draws: Parameters, data: CrossingData
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return bounds in units of the logistic scale, and what one sd of the run effect moves them.

    All of shape (draw, run, threshold), given the run's previous crossing, for a typical run.
    """
    expected = draws.log_steps
    rows = np.arange(data.previous.shape[0])[:, None]
    sd = np.broadcast_to(draws.sd[:, None, :], expected.shape)
    rho = draws.rho(data.gap)
    carried = rho * sd / sd[:, rows, data.previous]
    center = expected + carried * (data.midpoint - expected)[:, rows, data.previous]
    scale = sd * np.sqrt(1.0 - rho**2) * LOGISTIC_SCALE
    pull = draws.sigma_run[:, None, None] * (1.0 - carried) / scale
    return ((data.log_lower - center) / scale, (data.log_upper - center) / scale,
            np.where(data.informative, pull, 0.0))


def _log_p(lower: np.ndarray, upper: np.ndarray, pull: np.ndarray, effect: np.ndarray
           ) -> np.ndarray:
    return log_interval_numpy(lower - pull * effect, upper - pull * effect)


def _peak(
    lower: np.ndarray, upper: np.ndarray, pull: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where the integrand peaks and how wide, in sds of the run effect, (draw, run).

    Newton's method on the slope, which falls everywhere; a step that leaves the bracket is
    replaced by its middle, because far out the logistic's curvature vanishes.
    """
    end = np.abs(pull).sum(axis=2)
    low, high, at = -end, end, np.zeros_like(end)
    for _ in range(_MOST_STEPS):
        below = expit(lower - pull * at[:, :, None])
        within = expit(upper - pull * at[:, :, None])
        slope = (pull * (below + within - 1.0)).sum(axis=2) - at
        curvature = 1.0 + (pull**2 * (below * (1 - below) + within * (1 - within))).sum(axis=2)
        width = 1.0 / np.sqrt(curvature)
        low, high = np.where(slope > 0, at, low), np.where(slope > 0, high, at)
        newton = at + slope / curvature
        near = np.abs(newton - at) < _NEAR * width
        if near.all():
            break
        inside = near | ((newton > low) & (newton < high))
        at = np.where(inside, newton, (low + high) / 2)
    return at, width
