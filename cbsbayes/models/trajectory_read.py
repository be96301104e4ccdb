r"""What draws of the trajectory model say of thresholds, and of new runs.

A threshold t is a statement on the scale of the validation set: progress τ_t is where h(τ), the
accuracy that set shows, reaches t. Then S_min(t) = τ_t, and a noise scale up to t is its average
over progress, :math:`B(t) = \tau_t^{-1} \int_0^{\tau_t} b(A(\tau)) d\tau`.

Waves of the item set's bend that the fit does not carry are added from their prior, so that S_min
is not said better than one finite set allows. They can make h fall for a moment: τ_t is read off
its monotone rearrangement, which neither favours the first passage nor the last.

A new run has its own speed, wander, offset and noise. Its curve is simulated at the updates at
which the run in its place was evaluated, and on beyond its end; S is then read off a monotone fit
of that curve, as it is read off a real one. Dividing the noise by the slope instead would say that
slow noise on a flattening curve moves S far, which the monotone fit of a whole curve prevents.
What stays below the threshold to the end, as small groups may, is censored there: its S is put
where the population arrives, at the end of the reading grid at last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy.optimize import isotonic_regression

from cbsbayes.models.parameters import (
    CURVE,
    INITIAL_ACCURACY,
    NODE_WEIGHT,
    PROGRESS,
    SATURATION,
    now_name,
    path_name,
)
from cbsbayes.models.trajectory import TrajectoryParameters
from cbsbayes.models.trajectory_curve import curves_of_draws
from cbsbayes.models.trajectory_data import N_WAVES_READ

__all__ = ["crossing_of", "initial_accuracy", "read_thresholds", "replicated_log_steps"]

_N_PATH = 8  # Gauss-Legendre nodes of progress up to a threshold
_N_FINE = 500  # nodes of log progress for reading thresholds
_N_COARSE = 200  # and for simulating runs
_BEYOND = 4.0  # how far these grids go past the fit's, in log progress
_KEPT_BEYOND = np.linspace(0.0, _BEYOND, 11)[1:]  # nodes past the fit's where curves are kept
_LATER = np.exp(np.linspace(0.0, np.log(8.0), 13)[1:])  # evaluations, times the last one made
_QUIETEST = 0.01  # accuracy's variance counts as no less than this where noise is concerned
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(_N_PATH)


def read_thresholds(
    parameters: TrajectoryParameters, position: np.ndarray, thresholds: np.ndarray, seed: int
) -> xr.Dataset:
    """Return the posterior's variables at thresholds.

    Parameters
    ----------
    parameters : TrajectoryParameters
        The model.
    position : numpy.ndarray
        Draws, shape (chain, draw, n_dim).
    thresholds : numpy.ndarray
        Accuracies, shape (threshold,).
    seed : int
        For the waves added from their prior.

    Returns
    -------
    xarray.Dataset
        Dims (chain, draw, threshold, node, term): every parameter, ``S_min`` (updates), the
        law's scales averaged over progress and along it (``*_path``); with ceilings by group
        size also curves and momentary noise along progress.
    """
    draws, data, law = position.reshape(-1, parameters.n_dim), parameters.data, parameters.law
    grid = np.linspace(data.log_tau[0], data.log_tau[-1] + _BEYOND, _N_FINE)
    shown, log_noise, _ = curves_of_draws(parameters.shared(draws),
                                          parameters.curve_arrays(grid, np.empty((0, 2))))
    log_noise += np.array([data.log_batch_scale[name] for name in law.scales])[:, None]
    rearranged = _rearranged(parameters, shown, np.random.default_rng(seed))
    out: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    coords: dict[str, Any] = {"threshold": thresholds, NODE_WEIGHT: ("node", 0.5 * _WEIGHTS)}
    if parameters.ceiling_by_group:  # other group sizes are read off the curves that are kept
        kept = np.concatenate([data.log_tau, data.log_tau[-1] + _KEPT_BEYOND])
        rearranged = _interpolated(kept, grid, rearranged)
        log_noise = np.stack([_interpolated(kept, grid, log_noise[:, q])
                              for q in range(len(law.scales))], axis=1)
        grid = kept
        out = {INITIAL_ACCURACY: ((), initial_accuracy(parameters, parameters.variables(draws))),
               CURVE: ((PROGRESS,), rearranged),
               **{now_name(name): ((PROGRESS,), np.exp(log_noise[:, q]))
                  for q, name in enumerate(law.scales)}}
        coords[PROGRESS] = np.exp(grid + data.log_steps_scale)
    log_tau = np.array([np.interp(thresholds, row, grid) for row in rearranged])
    along = log_tau[:, :, None] + np.log(0.5 * (_NODES + 1.0))
    out["S_min"] = ("threshold",), np.exp(log_tau + data.log_steps_scale)
    for q, name in enumerate(law.scales):
        path = np.exp([np.interp(at, grid, row[q]) for at, row in zip(along, log_noise,
                                                                      strict=True)])
        out[path_name(name)] = ("threshold", "node"), path
        out[name] = ("threshold",), path @ (0.5 * _WEIGHTS)
    return parameters.labelled(position, {
        name: (dims, value.reshape(*position.shape[:2], *value.shape[1:]))
        for name, (dims, value) in out.items()}, coords)


def initial_accuracy(
    parameters: TrajectoryParameters, values: dict[str, np.ndarray]
) -> np.ndarray:
    """Return the accuracy shown before training, from which ceilings are counted, (draw,)."""
    terms = parameters.data.waves(values["start"], values["item_set"].shape[1])
    return np.asarray(values["start"] + (values["item_set"] * terms).sum(axis=1))


def _rearranged(
    parameters: TrajectoryParameters, shown: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the curve with the finer waves, rearranged so that it rises, (draw, node)."""
    data, fitted = parameters.data, parameters.data.n_terms
    drawn = rng.standard_normal((len(shown), N_WAVES_READ - fitted))
    fine = [data.waves(row, N_WAVES_READ)[:, fitted:] @ z
            for row, z in zip(shown, drawn, strict=True)]
    return np.sort(shown + np.array(fine), axis=1)


def _interpolated(at: np.ndarray, grid: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.array([np.interp(at, grid, row) for row in rows])


def replicated_log_steps(
    parameters: TrajectoryParameters, draws: xr.Dataset, rng: np.random.Generator
) -> np.ndarray:
    """Return log S (updates) of one new run per draw and run, shape (sample, run, threshold).

    Parameters
    ----------
    parameters : TrajectoryParameters
        The model.
    draws : xarray.Dataset
        Of `read_thresholds`, with dim ``sample``.
    rng : numpy.random.Generator
    """
    data, thresholds = parameters.data, draws["threshold"].values
    values = {b.name: draws[b.name].transpose("sample", ...).values for b in parameters.blocks}
    grid = np.linspace(data.log_tau[0], data.log_tau[-1] + _BEYOND, _N_COARSE)
    batches, batch_of = data.batches
    curve, _, log_along = curves_of_draws(parameters.shared(parameters.pack(draws)),
                                          parameters.curve_arrays(grid, batches))
    curve = np.maximum.accumulate(curve, axis=1)
    initial = initial_accuracy(parameters, values)[:, None]
    log_steps = np.empty((len(curve), len(data.run), len(thresholds)))
    for i, b in enumerate(batch_of):
        share = np.exp(-values.get(SATURATION, np.zeros(len(curve))) / batches[b, 1])[:, None]
        shown, along = initial + share * (curve - initial), log_along[:, b]
        steps = data.seen_steps[data.seen_start[i]:data.seen_start[i + 1]]
        steps = np.concatenate([steps, steps[-1] * _LATER])
        late = _late(parameters, values, np.log(steps), rng)
        level = np.array([np.interp(np.log(steps) - moved, at, row)
                          for moved, at, row in zip(late, along, shown, strict=True)])
        seen = level + _noise(parameters, values, level, steps, rng)
        for d, row in enumerate(seen):
            found = crossing_of(thresholds, isotonic_regression(row).x, steps, shown[d, 0])
            arrives = np.minimum(np.searchsorted(shown[d], thresholds), _N_COARSE - 1)
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
    reached = np.interp(thresholds, np.append(min(before, curve[0]), curve), np.append(0.0, steps),
                        right=np.nan)
    return np.asarray(np.log(np.maximum(reached, 1e-3 * steps[0])))


def _late(
    parameters: TrajectoryParameters, values: dict[str, np.ndarray], log_steps: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return by how much new runs are late in log updates, shape (sample, evaluation)."""
    own = rng.standard_normal((len(values["sigma_run"]), len(parameters.data.knots)))
    wander = own[:, 1:] @ parameters.data.ramps(log_steps).T
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
