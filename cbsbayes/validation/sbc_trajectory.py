"""The trajectory model in simulation-based calibration.

The model takes from its sweep the scales of updates, the curve along which the item set's bend is
laid out, how noisy an evaluation is and the deviations around which runs are linearised. Given
those it has a prior and draws curves, so all of them are taken from one reference sweep and held,
runs linearised around no deviation. Priors are narrowed too: curves drawn from the wide ones look
like nothing that training does, and leave posteriors of several modes. Ranks are then exactly
uniform where prior, compiled likelihood and sampler fit together. They say nothing of the
linearisation of real curves or of constants found from the data: those are what the coverage
studies are for. No run is evaluated before training, because that accuracy says how noisy it is
itself.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr

from cbsbayes.inference.mode import find_mode, root_of_covariance
from cbsbayes.inference.trajectory import Laplace, find_laplace, sample_around
from cbsbayes.models.laws import Law
from cbsbayes.models.trajectory import TrajectoryParameters, TrajectoryPriors
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_runs import moments
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.validation.coverage import Settings, fitted_runs
from cbsbayes.validation.models import PriorDraw, with_checks

__all__ = ["TrajectoryCalibration"]

_REFERENCE_SEED = 0  # of the sweep that the constants are taken from
_PRIORS = TrajectoryPriors(
    start_sd=0.2, ceiling=(0.0, 0.4), level_sd=0.3, shape=(0.0, 0.15), scale_level_sd=0.6,
    scale_trend_sd=0.4, curvature_sd=0.1, alpha=(0.75, 0.12, 0.25, 1.5), sigma_run=(-2.526, 0.3),
    sigma_wander=(-2.659, 0.3), sigma_offset=(-5.298, 0.3), sigma_noise=(-0.3, 0.3),
    sigma_serial=(-4.6, 0.4), memory=(1.3, 0.3), noise_trend=(0.0, 0.2))


class TrajectoryCalibration:
    """Draws from the trajectory model and its posterior, all that follows a sweep held.

    Parameters
    ----------
    law : Law
        The law of S(P, G).
    settings : Settings
        The sampler's.
    """

    def __init__(self, law: Law, settings: Settings) -> None:
        self._settings = settings
        self._parameters = _reference(law)
        self.scalars = tuple(map(str, self._named(self._parameters.center[None, None])))

    def prior_draw(self, random_seed: int) -> PriorDraw:
        """Return parameters drawn from the prior, and curves drawn from them."""
        rng = np.random.default_rng([random_seed, 0])
        position = self._parameters.prior_draws(1, rng)
        data = self._parameters.data
        sweep = xr.Dataset(
            {"accuracy": ("evaluation", _curves(self._parameters, position[0], rng))},
            coords={"run": data.run, "n_prompts": ("run", data.n_prompts),
                    "n_rollouts": ("run", data.n_rollouts),
                    "run_of": ("evaluation", data.run_of)})
        return PriorDraw(sweep, self._named(position[None]))

    def posterior(self, sweep: xr.Dataset, random_seed: int) -> xr.Dataset:
        """Return posterior draws of the shared parameters, under the prior of `prior_draw`."""
        data = replace(self._parameters.data, accuracy=sweep["accuracy"].values)
        parameters = replace(self._parameters, data=data)
        mode = find_mode(parameters.log_density, parameters.center, parameters.sd)
        root = root_of_covariance(parameters.log_density, mode, parameters.sd)
        draws = sample_around(Laplace(parameters, mode, root), self._settings.sampler(random_seed))
        return with_checks(xr.DataTree.from_dict({
            "posterior": self._named(draws.position), "sample_stats": draws.stats}))

    def _named(self, position: np.ndarray) -> xr.Dataset:
        """Return every shared parameter, and every term of the bend, under a name of its own."""
        values = self._parameters.parameters(position.reshape(-1, position.shape[-1]))
        terms = values.pop("item_set")
        values |= {f"item_set_{k + 1}": terms[:, k] for k in range(terms.shape[1])}
        shape = position.shape[:2]
        return xr.Dataset({name: (("chain", "draw"), value.reshape(shape))
                           for name, value in values.items()})


def _reference(law: Law) -> TrajectoryParameters:
    """Return the model with the constants of a simulated sweep, linearised around no deviation."""
    design = "all" if law.two_axis else "batch"
    sweep = fitted_runs(simulate_sweep(design, 1, random_seed=_REFERENCE_SEED), law)
    fitted = find_laplace(TrajectoryParameters(trajectory_data(sweep, law, None), law))
    data = fitted.parameters.data
    held = replace(data, reference=np.zeros(len(data.steps)), start=np.full(len(data.run), np.nan))
    return TrajectoryParameters(held, law, _PRIORS)


def _curves(
    parameters: TrajectoryParameters, position: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return evaluations of every run drawn from the shared parameters, shape (evaluation,)."""
    shared = parameters.shared(position)
    at = parameters.curve(shared)
    drawn = []
    for i in range(len(parameters.data.run)):
        mean, _, covariance, *_ = moments(shared, parameters.arrays, i, at.level, at.steep,
                                            at.initial)
        drawn.append(rng.multivariate_normal(mean, covariance, method="cholesky"))
    return np.concatenate(drawn)
