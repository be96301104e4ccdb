"""The crossing model in simulation-based calibration.

Crossings are drawn exactly, without evaluations between which they hide and without an end of
runs: which of two bounds the model drops as implied by the other depends on the data, and ranks
would then measure that rule. Censoring is what the coverage studies are for.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.inference.sampling import sample_crossings, sample_prior
from cbsbayes.models.crossing_data import CrossingData, crossing_data
from cbsbayes.models.laws import Law
from cbsbayes.posterior.predictive import parameters, replicate_log_steps
from cbsbayes.simulation.designs import design_table
from cbsbayes.sweep.dataset import new_sweep
from cbsbayes.validation.calibrated import PriorDraw
from cbsbayes.validation.coverage import Settings
from cbsbayes.validation.posterior import with_checks

__all__ = ["CrossingCalibration"]

_PRIOR_DRAWS = 256  # drawn at once, because building the model costs more than drawing


class CrossingCalibration:
    """Draws from the crossing model and its posterior, scales of S and batches held.

    Parameters
    ----------
    law : Law
        The law of S(P, G).
    settings : Settings
        Thresholds and sampler.
    """

    scalars = ("sigma_run", "sigma_residual")

    def __init__(self, law: Law, settings: Settings) -> None:
        self._law, self._settings = law, settings
        runs = design_table("all" if law.two_axis else "batch", 1)
        self._runs = runs[runs["n_rollouts"] != 1] if law.two_axis else runs
        self._data = self._model_data(self._sweep(np.ones((len(self._runs),
                                                           len(settings.thresholds)))))
        self._prior: dict[int, xr.Dataset] = {}

    def prior_draw(self, random_seed: int) -> PriorDraw:
        """Return parameters drawn from the prior, and a table of crossings drawn from them."""
        block, place = divmod(random_seed, _PRIOR_DRAWS)
        if block not in self._prior:
            self._prior[block] = sample_prior(self._data, self._law, draws=_PRIOR_DRAWS,
                                              random_seed=block)
        drawn = self._prior[block].isel(draw=[place])
        rng = np.random.default_rng([random_seed, 0])
        stacked = parameters(drawn.stack(sample=("chain", "draw")), self._data, self._law)
        log_steps = replicate_log_steps(stacked, self._data, rng)[0]
        return PriorDraw(self._sweep(np.exp(log_steps)), drawn)

    def posterior(self, sweep: xr.Dataset, random_seed: int) -> xr.Dataset:
        """Return posterior draws, under the prior that the parameters were drawn from."""
        sampler = self._settings.sampler(random_seed)
        return with_checks(sample_crossings(self._model_data(sweep), self._law, sampler))

    def _sweep(self, steps: np.ndarray) -> xr.Dataset:
        return new_sweep(self._runs, steps_lower=steps, steps_upper=steps,
                         threshold=list(self._settings.thresholds))

    def _model_data(self, sweep: xr.Dataset) -> CrossingData:
        """Return the model's arrays with S in updates: its scale must not follow the data."""
        data = crossing_data(find_crossings(sweep, self._settings.thresholds), self._law)
        shift = data.log_steps_scale
        return replace(data, log_steps_scale=0.0, log_lower=data.log_lower + shift,
                       log_upper=data.log_upper + shift, midpoint=data.midpoint + shift)
