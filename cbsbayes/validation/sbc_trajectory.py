"""The trajectory model in simulation-based calibration.

The model takes from its sweep the scales of updates, the curve along which the item set's bend is
laid out, how noisy an evaluation is and the deviations around which runs are linearised. Given
those it has a prior and draws curves, so all of them are taken from one reference sweep and held,
runs linearised around no deviation. Priors are narrowed too: curves drawn from the wide ones look
like nothing that training does, and leave posteriors of several modes. Ranks are then exactly
uniform where prior, compiled likelihood and sampler (NUTS) fit together. They say nothing of the
linearisation of real curves or of constants found from the data: those are what the coverage
studies are for. No run is evaluated before training, because that accuracy says how noisy it is
itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import xarray as xr
from scipy.integrate import cumulative_trapezoid
from scipy.interpolate import CubicHermiteSpline

from cbsbayes.inference.laplace import Laplace, find_laplace
from cbsbayes.inference.mode import find_mode, root_of_covariance
from cbsbayes.inference.trajectory_sampling import sample_by_nuts
from cbsbayes.models import trajectory_kernel as kernel
from cbsbayes.models.batches import middle_batch
from cbsbayes.models.item_set import bridge_terms
from cbsbayes.models.laws import Law
from cbsbayes.models.trajectory_data import TrajectoryData, ramps, trajectory_data
from cbsbayes.models.trajectory_flat import FlatTrajectory
from cbsbayes.models.trajectory_priors import TrajectoryPriors
from cbsbayes.models.trajectory_words import data_words
from cbsbayes.simulate import simulate_sweep
from cbsbayes.validation.coverage import Settings, fitted_runs
from cbsbayes.validation.models import PriorDraw, with_checks

__all__ = ["TrajectoryCalibration", "curve_moments"]

_REFERENCE_SEED = 0  # of the sweep that the constants are taken from
_PRIORS = TrajectoryPriors(
    start_sd=0.2, ceiling=(0.0, 0.4), level_sd=0.3, shape=(0.0, 0.15), scale_level_sd=0.6,
    scale_trend_sd=0.4, curvature_sd=0.1, alpha=(0.75, 0.12, 0.25, 1.5), sigma_run=(-2.526, 0.3),
    sigma_wander=(-2.659, 0.3), sigma_offset=(-5.298, 0.3), sigma_noise=(-0.3, 0.3),
    sigma_serial=(-4.6, 0.4), memory=(1.3, 0.3), noise_trend=(0.0, 0.2))


@dataclass(frozen=True)
class _HeldData(TrajectoryData):
    """Curves under the constants of another sweep's."""

    held: TrajectoryData | None = None

    @cached_property
    def variance(self) -> np.ndarray:
        assert self.held is not None
        return self.held.variance

    @cached_property
    def accuracy_range(self) -> tuple[float, float]:
        assert self.held is not None
        return self.held.accuracy_range


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
        self._flat = _reference(law)
        self.scalars = tuple(map(str, self._named(self._flat.center[None, None])))

    def prior_draw(self, random_seed: int) -> PriorDraw:
        """Return parameters drawn from the prior, and curves drawn from them."""
        rng = np.random.default_rng([random_seed, 0])
        position = self._flat.prior_draws(1, rng)
        data = self._flat.data
        accuracy = np.concatenate([
            mean + np.linalg.cholesky(covariance) @ rng.standard_normal(len(mean))
            for mean, covariance in curve_moments(self._flat, position[0])])
        sweep = xr.Dataset(
            {"accuracy": ("evaluation", accuracy)},
            coords={"run": data.run, "n_prompts": ("run", data.n_prompts),
                    "n_rollouts": ("run", data.n_rollouts),
                    "run_of": ("evaluation", data.run_of)})
        return PriorDraw(sweep, self._named(position[None]))

    def posterior(self, sweep: xr.Dataset, random_seed: int) -> xr.Dataset:
        """Return posterior draws of the shared parameters, under the prior of `prior_draw`."""
        data = replace(self._flat.data, accuracy=sweep["accuracy"].values)
        flat = replace(self._flat, data=data)
        words = data_words(flat)
        density = partial(kernel.log_density, words=words)
        mode = find_mode(density, flat.center, flat.sd)
        approximation = Laplace(flat, words, mode, root_of_covariance(density, mode, flat.sd))
        position, stats = sample_by_nuts(approximation, self._settings.sampler(random_seed))
        return with_checks(xr.DataTree.from_dict({
            "posterior": self._named(position), "sample_stats": stats}))

    def _named(self, position: np.ndarray) -> xr.Dataset:
        """Return every shared parameter, and every term of the bend, under a name of its own."""
        values = self._flat.parameters(position.reshape(-1, position.shape[-1]))
        terms = values.pop("item_set")
        values |= {f"item_set_{k + 1}": terms[:, k] for k in range(terms.shape[1])}
        shape = position.shape[:2]
        return xr.Dataset({name: (("chain", "draw"), value.reshape(shape))
                           for name, value in values.items()})


def _reference(law: Law) -> FlatTrajectory:
    """Return the model with the constants of a simulated sweep, linearised around no deviation."""
    design = "all" if law.two_axis else "batch"
    sweep = fitted_runs(simulate_sweep(design, 1, random_seed=_REFERENCE_SEED), law)
    data = trajectory_data(sweep, law, None)
    fitted = find_laplace(FlatTrajectory(data, law)).flat.data
    held = fitted.around(np.zeros(len(fitted.steps)), fitted.typical, fitted.expected)
    fields = {name: getattr(held, name) for name in TrajectoryData.__dataclass_fields__}
    start = np.full(len(data.run), np.nan)
    return FlatTrajectory(_HeldData(**fields | {"start": start}, held=held), law, _PRIORS)


def curve_moments(
    flat: FlatTrajectory, position: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return mean and covariance of every run's evaluations, its own parameters integrated out.

    Parameters
    ----------
    flat : FlatTrajectory
        The model, linearised around no deviation.
    position : numpy.ndarray
        The shared parameters, shape (n_dim,).
    """
    p = {name: value[0] for name, value in flat.parameters(position[None]).items()}
    ends = zip(flat.data.run_start[:-1], flat.data.run_start[1:], strict=True)
    nodes = _nodes(flat, p)
    return [_moments(flat.data, p, slice(first, last), _over_steps(flat, p, nodes, i))
            for i, (first, last) in enumerate(ends)]


def _nodes(
    flat: FlatTrajectory, p: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return accuracy shown, its slope by log progress, and its hardness, each of shape (node,)."""
    data = flat.data
    prompts, rollouts = map(np.array, middle_batch(data.n_prompts, data.n_rollouts))
    log_half = p["log_half_level"] - _log_ratio(flat, p, prompts, rollouts, np.zeros(1))
    away = np.minimum(p["kappa"] * (data.log_tau - log_half), 6.0)
    z = np.log(2.0) * np.exp(away)
    gain = (1.0 - p["start"]) / (1.0 + np.exp(-p["ceiling_logit"]))
    terms, slopes, _ = bridge_terms(data, data.log_tau)
    shown = p["start"] - gain * np.expm1(-z) + p["item_set"] @ terms
    slope = gain * p["kappa"] * z * np.exp(-z) + p["item_set"] @ slopes
    inside = np.clip(shown, kernel.EDGE, 1.0 - kernel.EDGE)
    return shown, slope, np.log(inside / (1.0 - inside)) - data.middle


def _log_ratio(
    flat: FlatTrajectory, p: dict[str, np.ndarray], n_prompts: np.ndarray,
    n_rollouts: np.ndarray, hard: np.ndarray,
) -> np.ndarray:
    scales = {name: np.exp(flat.data.log_batch_scale[name] + p[f"{name}_level"]
                           + p[f"{name}_trend"] * hard + p["noise_curvature"] * hard**2)
              for name in flat.law.scales}
    return np.asarray(flat.law.log_ratio(n_prompts, n_rollouts, scales, p.get("alpha")))


def _over_steps(
    flat: FlatTrajectory, p: dict[str, np.ndarray],
    nodes: tuple[np.ndarray, np.ndarray, np.ndarray], run: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return accuracy and its slope by log updates at a run's evaluations."""
    data = flat.data
    shown, slope, hard = nodes
    pace = np.exp(_log_ratio(flat, p, data.n_prompts[run], data.n_rollouts[run], hard))
    tau = np.exp(data.log_tau)
    steps = cumulative_trapezoid(pace, tau, initial=0.0) + tau[0] * pace[0]
    spline = CubicHermiteSpline(np.log(steps), shown, slope * steps / (tau * pace))
    at = np.log(data.steps[data.run_start[run]:data.run_start[run + 1]])
    near = np.clip(at, spline.x[0], spline.x[-1])
    return spline(near) + spline(near, 1) * (at - near), spline(near, 1)


def _moments(
    data: TrajectoryData, p: dict[str, np.ndarray], own: slice,
    along: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    mean, steep = along
    x, variance = np.log(data.steps[own]), data.variance[own]
    late = np.column_stack([np.full(len(x), p["sigma_run"]),
                            p["sigma_wander"] * ramps(x, data.knots)])
    columns = np.column_stack([-steep[:, None] * late, np.full(len(x), p["sigma_offset"])])
    spread = 2.0 * np.sqrt(variance)
    white = (p["sigma_noise"]**2 * variance / data.n_items / data.count[own]
             * spread**(2.0 * p["noise_trend"]))
    loading = p["sigma_serial"] * spread**(1.0 + p["noise_trend"])
    apart = np.abs(data.steps[own][:, None] - data.steps[own]) / data.spacing
    serial = loading[:, None] * loading * np.exp(-apart / p["memory"])
    return mean, columns @ columns.T + serial + np.diag(white)
