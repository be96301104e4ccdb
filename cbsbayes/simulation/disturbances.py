r"""What real runs do beyond a run effect and binomial noise, for simulated sweeps.

=================  ===========================================================================
heavy tails        run effects from a Student t: a run in twenty is far off
correlated noise   accuracy drifts around the curve as an AR(1) process in updates
wander             a run's own speed changes along the way, a random walk in log step
offset             a run is better or worse by a constant accuracy once it has started
=================  ===========================================================================

A wandering run behaves after s updates as one that trained :math:`\int_0^s e^{-v(s')} ds'` without
wandering, v a Brownian motion in log s': always forwards, and the typical run is the one without.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.integrate import cumulative_trapezoid

from cbsbayes.errors import CBSDataError

__all__ = ["Disturbances"]

_FIRST = 1 / 50  # share of a run before which its speed does not wander yet
_KNOTS = 200  # of the walk, evenly in log step


@dataclass(frozen=True)
class Disturbances:
    """How runs are disturbed; the defaults disturb nothing.

    Attributes
    ----------
    run_freedom : float
        Degrees of freedom of the run effect's t distribution, its scale kept; inf is normal.
    drift_sd : float
        Sd of accuracy's drift around the curve, once it has forgotten that it was 0 at the start.
    drift_memory : float
        Updates over which the drift falls to 1/e.
    wander : float
        Sd of the log speed gained over one e-fold of updates.
    offset_sd : float
        Sd of a run's constant offset in accuracy; before training there is none.
    """

    run_freedom: float = np.inf
    drift_sd: float = 0.0
    drift_memory: float = 75.0
    wander: float = 0.0
    offset_sd: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that disturb nothing or everything."""
        valid = {"run_freedom": self.run_freedom > 0, "drift_memory": self.drift_memory > 0,
                 "drift_sd": 0 <= self.drift_sd < np.inf, "wander": 0 <= self.wander < np.inf,
                 "offset_sd": 0 <= self.offset_sd < np.inf}
        for name, holds in valid.items():
            if not holds:
                raise CBSDataError(f"{name} is {getattr(self, name)}; valid: positive, or 0 and "
                                   "finite for drift_sd, wander and offset_sd")

    def run_effects(self, rng: np.random.Generator, sigma_run: float, n_runs: int) -> np.ndarray:
        """Return each run's effect on log S, shape (run,)."""
        if np.isinf(self.run_freedom):
            return rng.normal(0.0, sigma_run, n_runs)
        return sigma_run * rng.standard_t(self.run_freedom, n_runs)

    def drift(self, rng: np.random.Generator, n_runs: int, step: np.ndarray) -> np.ndarray:
        """Return what is added to accuracy at the evaluations, shape (run, step), 0 at first."""
        drift = np.zeros((n_runs, len(step)))
        if self.drift_sd > 0:
            kept = np.exp(-np.diff(step) / self.drift_memory)
            for k, rho in enumerate(kept, start=1):
                fresh = self.drift_sd * np.sqrt(1.0 - rho**2)
                drift[:, k] = rho * drift[:, k - 1] + rng.normal(0.0, fresh, n_runs)
        if self.offset_sd > 0:
            drift += rng.normal(0.0, self.offset_sd, (n_runs, 1)) * (step > 0)
        return drift

    def trained_steps(
        self, rng: np.random.Generator, n_runs: int, step: np.ndarray
    ) -> np.ndarray:
        """Return the updates each run is worth at the evaluations, shape (run, step)."""
        if self.wander == 0 or step[-1] == 0:
            return np.broadcast_to(step, (n_runs, len(step)))
        knots = np.geomspace(step[-1] * _FIRST, step[-1], _KNOTS)
        sd = self.wander * np.sqrt(np.log(knots[1] / knots[0]))
        log_slowness = np.cumsum(rng.normal(0.0, sd, (n_runs, _KNOTS - 1)), axis=1)
        speed = np.hstack([np.ones((n_runs, 2)), np.exp(-log_slowness)])
        at = np.concatenate([[0.0], knots])
        worth = cumulative_trapezoid(speed, at, axis=1, initial=0)
        return np.array([np.interp(step, at, row) for row in worth])
