"""The likelihood of runs plainly in numpy, their effects integrated out by brute force."""

from __future__ import annotations

import numpy as np

from cbsbayes.models.crossing_data import LOGISTIC_SCALE, CrossingData
from cbsbayes.posterior.law_fit import NewRuns

REACH = 100.0  # how far a run's effect is looked for, in standard deviations
COARSE, FINE = 20_001, 6_001  # nodes to find where the integrand has its mass, and to sum it there


def log_interval(a, b):
    """Return log P(a < Z <= b) of a standard logistic Z."""
    return np.log(-np.expm1(a - b)) - np.logaddexp(0.0, -b) - np.logaddexp(0.0, a)


def run_log_likelihood(draws: NewRuns, data: CrossingData) -> np.ndarray:
    """Return log p(crossings of a run), its run effect integrated out, shape (draw, run)."""
    ends, out = _standardised(draws, data), np.empty(draws.log_steps.shape[:2])
    for m, i in np.ndindex(out.shape):
        out[m, i] = _integral(*(end[m, i, data.informative[i]] for end in ends))
    return out


def _integral(lower, upper, pull):
    def integrand(effect):
        move = pull[:, None] * effect
        log_p = log_interval(lower[:, None] - move, upper[:, None] - move).sum(axis=0)
        return log_p - 0.5 * effect**2

    effect = np.linspace(-REACH, REACH, COARSE)
    value = integrand(effect)
    mass = effect[value > value.max() - 60.0]
    spacing = effect[1] - effect[0]
    effect = np.linspace(mass[0] - spacing, mass[-1] + spacing, FINE)
    value = integrand(effect)
    return value.max() + np.log(np.trapezoid(np.exp(value - value.max()), effect)
                                / np.sqrt(2.0 * np.pi))


def _standardised(
    draws: NewRuns, data: CrossingData
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return bounds in units of the logistic scale, and what one sd of the run effect moves them.

    All of shape (draw, run, threshold), given the run's previous crossing.
    """
    expected = draws.log_steps
    rows = np.arange(data.previous.shape[0])[:, None]
    sd = np.broadcast_to(draws.sd[:, None, :], expected.shape)
    rho = draws.rho(data.gap)
    carried = rho * sd / sd[:, rows, data.previous]
    center = expected + carried * (data.midpoint - expected)[:, rows, data.previous]
    scale = sd * np.sqrt(1.0 - rho**2) * LOGISTIC_SCALE
    pull = draws.sigma_run[:, None, None] * (1.0 - carried) / scale
    return (data.log_lower - center) / scale, (data.log_upper - center) / scale, pull
