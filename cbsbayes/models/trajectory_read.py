r"""Read thresholds off draws of the trajectory model: S_min and noise up to there.

A threshold t is a statement on the scale of the validation set: progress τ_t is where h(τ), the
accuracy that set shows, reaches t. Then S_min(t) = τ_t, and a noise scale up to t is its average
over progress, :math:`B(t) = \tau_t^{-1} \int_0^{\tau_t} b(A(\tau)) d\tau`.

Waves of the item set's bend that the fit does not carry are added from their prior, so that S_min
is not said better than one finite set allows. They can make h fall for a moment: τ_t is read off
its monotone rearrangement, which neither favours the first passage nor the last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from cbsbayes.models.item_set import N_READ, n_terms, waves
from cbsbayes.models.trajectory_arrays import SATURATION as SATURATION_PLACE
from cbsbayes.models.trajectory_arrays import curve_arrays
from cbsbayes.models.trajectory_curve import curve, curves_of_draws
from cbsbayes.models.trajectory_data import Curve
from cbsbayes.models.trajectory_parameters import TrajectoryParameters
from cbsbayes.models.variables import (
    CURVE,
    INITIAL_ACCURACY,
    NODE_WEIGHT,
    PROGRESS,
    now_name,
    path_name,
)

__all__ = ["expected_accuracy", "initial_accuracy", "read_thresholds", "typical_curve"]

_N_PATH = 8  # Gauss-Legendre nodes of progress up to a threshold
_N_FINE = 500  # nodes of log progress for reading thresholds
_N_TYPICAL = 200  # nodes of the typical curve
_N_BEYOND = 10  # nodes past the fit's grid at which curves are kept
_BEYOND = 4.0  # how far the reading grid goes past the fit's, in log progress
_NO_BATCH = np.empty((0, 2))
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
    values = parameters.parameters(draws)
    grid = np.linspace(data.log_tau[0], data.log_tau[-1] + _BEYOND, _N_FINE)
    shown, log_noise, _ = curves_of_draws(parameters.shared(draws),
                                          curve_arrays(data, law, grid, _NO_BATCH))
    log_noise += np.array([data.log_batch_scale[name] for name in law.scales])[:, None]
    rearranged = _rearranged(parameters, shown, np.random.default_rng(seed))
    if parameters.ceiling_by_group:  # other group sizes are read off the curves that are kept
        kept = _kept_grid(parameters)
        rearranged = _interpolated(kept, grid, rearranged)
        log_noise = np.stack([_interpolated(kept, grid, log_noise[:, q])
                              for q in range(len(law.scales))], axis=1)
        grid = kept
    log_tau = np.array([np.interp(thresholds, row, grid) for row in rearranged])
    along = log_tau[:, :, None] + np.log(0.5 * (_NODES + 1.0))
    dims: dict[str, tuple[str, ...]] = {
        name: ("term",) if value.ndim == 2 else () for name, value in values.items()}
    values["S_min"] = np.exp(log_tau + data.log_steps_scale)
    dims["S_min"] = ("threshold",)
    for q, name in enumerate(law.scales):
        path = np.exp([np.interp(at, grid, row[q]) for at, row in zip(along, log_noise,
                                                                      strict=True)])
        values[path_name(name)], dims[path_name(name)] = path, ("threshold", "node")
        values[name], dims[name] = path @ (0.5 * _WEIGHTS), ("threshold",)
    coords: dict[str, Any] = {"threshold": thresholds, NODE_WEIGHT: ("node", 0.5 * _WEIGHTS),
                              "chain": np.arange(position.shape[0]),
                              "draw": np.arange(position.shape[1])}
    if parameters.ceiling_by_group:
        values[INITIAL_ACCURACY], dims[INITIAL_ACCURACY] = initial_accuracy(parameters, values), ()
        values[CURVE], dims[CURVE] = rearranged, (PROGRESS,)
        for q, name in enumerate(law.scales):
            values[now_name(name)], dims[now_name(name)] = np.exp(log_noise[:, q]), (PROGRESS,)
        coords[PROGRESS] = np.exp(grid + data.log_steps_scale)
    shape = position.shape[:2]
    return xr.Dataset({name: (("chain", "draw", *dims[name]), v.reshape(*shape, *v.shape[1:]))
                       for name, v in values.items()}, coords=coords)


def typical_curve(parameters: TrajectoryParameters, position: np.ndarray) -> Curve:
    """Return the accuracy shown along progress at one position of the flat vector, (n_dim,)."""
    data = parameters.data
    grid = np.linspace(data.log_tau[0], data.log_tau[-1], _N_TYPICAL)
    arrays = curve_arrays(data, parameters.law, grid, _NO_BATCH)
    shown = curves_of_draws(parameters.shared(position[None]), arrays)[0]
    return Curve(grid, np.maximum.accumulate(np.clip(shown[0], 0.0, 1.0)))


def expected_accuracy(parameters: TrajectoryParameters, position: np.ndarray) -> np.ndarray:
    """Return what each run's batch shows without deviations, shape (evaluation,).

    Parameters
    ----------
    parameters : TrajectoryParameters
        The model.
    position : numpy.ndarray
        One position of the flat vector, shape (n_dim,).
    """
    arrays, shared = parameters.arrays, parameters.shared(position)
    at = curve(shared, arrays._replace(reference=np.zeros_like(arrays.reference)))
    share = np.exp(-shared[SATURATION_PLACE] * arrays.group_share)[parameters.data.run_of]
    return np.asarray(at.initial + share * (at.level - at.initial))


def initial_accuracy(
    parameters: TrajectoryParameters, values: dict[str, np.ndarray]
) -> np.ndarray:
    """Return the accuracy shown before training, from which ceilings are counted, (draw,)."""
    terms = waves(values["start"], parameters.data, values["item_set"].shape[1])
    return np.asarray(values["start"] + (values["item_set"] * terms).sum(axis=1))


def _rearranged(
    parameters: TrajectoryParameters, shown: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the curve with the finer waves, rearranged so that it rises, (draw, node)."""
    fitted = n_terms(parameters.data)
    drawn = rng.standard_normal((len(shown), N_READ - fitted))
    fine = [waves(row, parameters.data, N_READ)[:, fitted:] @ z
            for row, z in zip(shown, drawn, strict=True)]
    return np.sort(shown + np.array(fine), axis=1)


def _interpolated(at: np.ndarray, grid: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.array([np.interp(at, grid, row) for row in rows])


def _kept_grid(parameters: TrajectoryParameters) -> np.ndarray:
    """Return the nodes of log progress at which curves are kept: the fit's, and some beyond."""
    fitted = parameters.data.log_tau
    return np.concatenate([fitted, fitted[-1] + np.linspace(0.0, _BEYOND, _N_BEYOND + 1)[1:]])
