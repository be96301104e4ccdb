"""Curves of new runs under the trajectory model, and where they cross thresholds.

A new run has its own speed, wander, offset and noise. Its curve is simulated at the updates at
which the run in its place was evaluated, and on beyond its end; S is then read off a monotone fit
of that curve, as it is read off a real one. Dividing the noise by the slope instead would say that
slow noise on a flattening curve moves S far, which the monotone fit of a whole curve prevents.
What stays below the threshold to the end, as small groups may, is censored there: its S is put
where the typical run arrives, at the end of the reading grid at last.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.optimize import isotonic_regression

from cbsbayes.models.trajectory_arrays import curve_arrays
from cbsbayes.models.trajectory_curve import curves_of_draws
from cbsbayes.models.trajectory_data import ramps
from cbsbayes.models.trajectory_parameters import TrajectoryParameters
from cbsbayes.models.trajectory_read import initial_accuracy
from cbsbayes.models.variables import SATURATION

__all__ = ["crossing_of", "replicated_log_steps"]

_BEYOND = np.exp(np.linspace(0.0, np.log(8.0), 13)[1:])  # times the last evaluation
_N_NODES = 200  # of the shared curve
_FARTHEST = 4.0  # of its end past the fit's, in log progress
_QUIETEST = 0.01  # accuracy's variance counts as no less than this where noise is concerned


def replicated_log_steps(
    parameters: TrajectoryParameters, draws: xr.Dataset, rng: np.random.Generator
) -> np.ndarray:
    """Return log S (updates) of one new run per draw and run, shape (sample, run, threshold).

    Parameters
    ----------
    parameters : TrajectoryParameters
        The model.
    draws : xarray.Dataset
        Of `cbsbayes.models.trajectory_read.read_thresholds`, with dim ``sample``.
    rng : numpy.random.Generator
    """
    data, thresholds = parameters.data, draws["threshold"].values
    values = {b.name: draws[b.name].transpose("sample", ...).values for b in parameters.blocks}
    grid = np.linspace(data.log_tau[0], data.log_tau[-1] + _FARTHEST, _N_NODES)
    batches, batch_of = np.unique(np.column_stack([data.n_prompts, data.n_rollouts]), axis=0,
                                  return_inverse=True)
    curve, _, log_along = curves_of_draws(
        parameters.shared(parameters.position(values)),
        curve_arrays(data, parameters.law, grid, batches))
    curve = np.maximum.accumulate(curve, axis=1)
    initial = initial_accuracy(parameters, values)[:, None]
    log_steps = np.empty((len(curve), len(data.run), len(thresholds)))
    for i, b in enumerate(batch_of.reshape(-1)):
        share = np.exp(-values.get(SATURATION, np.zeros(len(curve))) / batches[b, 1])[:, None]
        shown, along = initial + share * (curve - initial), log_along[:, b]
        steps = data.seen_steps[data.seen_start[i]:data.seen_start[i + 1]]
        steps = np.concatenate([steps, steps[-1] * _BEYOND])
        late = _late(parameters, values, np.log(steps), rng)
        level = np.array([np.interp(np.log(steps) - moved, at, row)
                          for moved, at, row in zip(late, along, shown, strict=True)])
        seen = level + _noise(parameters, values, level, steps, rng)
        for d, row in enumerate(seen):
            found = crossing_of(thresholds, isotonic_regression(row).x, steps, shown[d, 0])
            arrives = np.minimum(np.searchsorted(shown[d], thresholds), _N_NODES - 1)
            end = np.maximum(along[d, arrives] + late[d, -1], np.log(steps[-1]))
            log_steps[d, i] = np.where(np.isnan(found), end, found)
    return log_steps + data.log_steps_scale


def crossing_of(
    thresholds: np.ndarray, curve: np.ndarray, steps: np.ndarray, before: float
) -> np.ndarray:
    """Return log updates at which a curve that does not fall reaches targets; NaN if never.

    Parameters
    ----------
    thresholds : numpy.ndarray
        Targets.
    curve, steps : numpy.ndarray
        Accuracy and updates, shape (evaluation,).
    before : float
        Accuracy before training.
    """
    k = np.searchsorted(curve, thresholds)
    at = np.minimum(k, len(curve) - 1)
    low = np.where(at > 0, curve[at - 1], np.minimum(before, thresholds))
    since = np.where(at > 0, steps[at - 1], 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(curve[at] > low, (thresholds - low) / (curve[at] - low), 1.0)
    reached = since + share * (steps[at] - since)
    return np.where(k < len(curve), np.log(np.maximum(reached, 1e-3 * steps[at])), np.nan)


def _late(
    parameters: TrajectoryParameters, values: dict[str, np.ndarray], log_steps: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return by how much new runs are late in log updates, shape (sample, evaluation)."""
    own = rng.standard_normal((len(values["sigma_run"]), len(parameters.data.knots)))
    wander = own[:, 1:] @ ramps(log_steps, parameters.data.knots).T
    return np.asarray(values["sigma_run"][:, None] * own[:, :1]
                      + values["sigma_wander"][:, None] * wander)


def _noise(
    parameters: TrajectoryParameters, values: dict[str, np.ndarray], level: np.ndarray,
    steps: np.ndarray, rng: np.random.Generator,
) -> np.ndarray:
    """Return offset, white and serial noise around a level, shape (sample, evaluation)."""
    data, shape = parameters.data, level.shape
    fresh, serial = rng.standard_normal(shape), np.empty(shape)
    kept = np.exp(-np.diff(steps) / data.spacing / values["memory"][:, None])
    serial[:, 0] = fresh[:, 0]
    for k in range(1, shape[1]):
        rho = kept[:, k - 1]
        serial[:, k] = rho * serial[:, k - 1] + np.sqrt(1.0 - rho**2) * fresh[:, k]
    white = values["sigma_noise"] / (2.0 * np.sqrt(data.n_items))
    spread = ((4.0 * np.maximum(level * (1.0 - level), _QUIETEST))
              ** (0.5 + 0.5 * values["noise_trend"][:, None]))
    offset = values["sigma_offset"] * rng.standard_normal(len(level))
    return np.asarray(offset[:, None] + spread * (
        white[:, None] * rng.standard_normal(shape) + values["sigma_serial"][:, None] * serial))
