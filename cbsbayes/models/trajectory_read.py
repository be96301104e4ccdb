r"""Read thresholds off draws of the trajectory model: S_min, noise up to there, replicated S.

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
from scipy.integrate import cumulative_trapezoid

from cbsbayes.models.batches import batch_weights, middle_batch
from cbsbayes.models.item_set import N_READ, bridge_terms, n_terms
from cbsbayes.models.trajectory_data import Curve
from cbsbayes.models.trajectory_flat import FlatTrajectory
from cbsbayes.models.trajectory_kernel import EDGE
from cbsbayes.models.variables import (
    CURVE,
    INITIAL_ACCURACY,
    NODE_WEIGHT,
    PROGRESS,
    SATURATION,
    now_name,
    path_name,
)

__all__ = ["expected_accuracy", "foot", "group_share", "read_thresholds", "shown_over_steps",
           "typical_curve"]

_N_PATH = 8  # Gauss-Legendre nodes of progress up to a threshold
_N_FINE = 500  # nodes of log progress for reading thresholds
_N_REPLICATE = 200  # where new curves are simulated
_N_TYPICAL = 200  # nodes of the typical curve
_N_BEYOND = 10  # nodes past the fit's grid at which curves are kept
_BEYOND = 4.0  # how far the reading grid goes past the fit's, in log progress
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(_N_PATH)


def read_thresholds(
    flat: FlatTrajectory, position: np.ndarray, thresholds: np.ndarray, seed: int
) -> xr.Dataset:
    """Return the posterior's variables at thresholds.

    Parameters
    ----------
    flat : FlatTrajectory
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
        law's scales averaged over progress and along it (``*_path``).
    """
    draws = position.reshape(-1, position.shape[-1])
    values = flat.parameters(draws)
    log_half = _log_half(flat, values)
    grid, shown = _shown(flat, values, log_half)
    rearranged = _rearranged(flat, grid, shown, np.random.default_rng(seed))
    if flat.ceiling_by_group:
        coarse = _kept_grid(flat)
        shown, rearranged = (np.array([np.interp(coarse, grid, row) for row in rows])
                             for rows in (shown, rearranged))
        grid = coarse
    tau = np.exp([np.interp(thresholds, row, grid) for row in rearranged])
    along = np.log(tau[:, :, None] * (0.5 * (_NODES + 1.0)))
    reached = np.array([np.interp(at, grid, row) for at, row in zip(along, shown, strict=True)])
    hard = _logit(reached) - flat.data.middle
    dims: dict[str, tuple[str, ...]] = {
        name: ("term",) if value.ndim == 2 else () for name, value in values.items()}
    values["S_min"], dims["S_min"] = tau * np.exp(flat.data.log_steps_scale), ("threshold",)
    for name in flat.law.scales:
        path = _scale(flat, values, name, hard)
        values[path_name(name)], dims[path_name(name)] = path, ("threshold", "node")
        values[name], dims[name] = path @ (0.5 * _WEIGHTS), ("threshold",)
    shape = position.shape[:2]
    coords: dict[str, Any] = {"threshold": thresholds, NODE_WEIGHT: ("node", 0.5 * _WEIGHTS),
                              "chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    if flat.ceiling_by_group:
        kept = _kept_curves(flat, values, shown, rearranged)
        values |= kept
        dims |= {name: (PROGRESS,) if value.ndim == 2 else () for name, value in kept.items()}
        coords[PROGRESS] = np.exp(grid + flat.data.log_steps_scale)
    return xr.Dataset({name: (("chain", "draw", *dims[name]), v.reshape(*shape, *v.shape[1:]))
                       for name, v in values.items()}, coords=coords)


def typical_curve(flat: FlatTrajectory, position: np.ndarray) -> Curve:
    """Return the accuracy shown along progress at one position of the flat vector, (n_dim,)."""
    values = flat.parameters(position[None])
    data = flat.data
    grid = np.linspace(data.log_tau[0], data.log_tau[-1], _N_TYPICAL)
    terms, _, _ = bridge_terms(data, grid)
    shown = _level(values, _log_half(flat, values), grid[None]) + values["item_set"] @ terms
    return Curve(grid, np.maximum.accumulate(np.clip(shown[0], 0.0, 1.0)))


def expected_accuracy(flat: FlatTrajectory, position: np.ndarray) -> np.ndarray:
    """Return the shared curve at every evaluation, shape (evaluation,).

    Parameters
    ----------
    flat : FlatTrajectory
        The model.
    position : numpy.ndarray
        One position of the flat vector, shape (n_dim,).
    """
    data, values = flat.data, flat.parameters(position[None])
    curve = typical_curve(flat, position)
    hard = _logit(curve.accuracy)[None, None] - data.middle
    scales = {name: _scale(flat, values, name, hard)[0, 0] for name in flat.law.scales}
    ratio = flat.law.log_ratio(data.n_prompts[:, None], data.n_rollouts[:, None], scales,
                               values.get("alpha"))
    tau, pace = np.exp(curve.log_tau), np.exp(ratio)
    steps = cumulative_trapezoid(pace, tau, axis=1, initial=0.0) + tau[0] * pace[:, :1]
    low, share = foot(flat, values)[0], group_share(flat, values, data.n_rollouts)[0]
    shown = curve.accuracy - (1.0 - share[:, None]) * (curve.accuracy - low)
    ends = zip(data.run_start[:-1], data.run_start[1:], strict=True)
    return np.concatenate([np.interp(data.steps[first:last], steps[i], shown[i])
                           for i, (first, last) in enumerate(ends)])


def shown_over_steps(
    flat: FlatTrajectory, values: dict[str, np.ndarray], batches: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what every batch's typical run shows and when, on the nodes of one grid of progress.

    Parameters
    ----------
    flat : FlatTrajectory
        The model.
    values : dict
        Parameters by name, first axis draw.
    batches : numpy.ndarray
        n_prompts and n_rollouts, shape (batch, 2).

    Returns
    -------
    tuple
        Log updates over the scale, shape (draw, batch, node), and accuracy, shape (draw, node).
    """
    grid, shown = _shown(flat, values, _log_half(flat, values), _N_REPLICATE)
    hard = (_logit(shown) - flat.data.middle)[:, None]
    scales = {name: _scale(flat, values, name, hard) for name in flat.law.scales}
    alpha = values["alpha"][:, None, None] if flat.law.alpha is None else flat.law.alpha
    pace = np.exp(flat.law.log_ratio(batches[:, 0, None], batches[:, 1, None], scales, alpha))
    tau = np.exp(grid)
    steps = cumulative_trapezoid(pace, tau, axis=-1, initial=0.0) + tau[0] * pace[..., :1]
    return np.log(steps), shown


def _log_half(flat: FlatTrajectory, values: dict[str, np.ndarray]) -> np.ndarray:
    """Return log progress at half the gain, shape (draw,)."""
    middle = [np.array([b]) for b in middle_batch(flat.data.n_prompts, flat.data.n_rollouts)]
    weights = batch_weights(flat.law, flat.data.log_batch_scale, *middle)[:, 0]
    noise = sum(np.exp(values[f"{name}_level"]) * weight
                for name, weight in zip(flat.law.scales, weights, strict=True))
    alpha = values["alpha"] if flat.law.alpha is None else flat.law.alpha
    ratio = (np.log1p(noise**alpha) if flat.law.name == "power" else alpha * np.log1p(noise))
    return values["log_half_level"] - ratio


def _gain(values: dict[str, np.ndarray]) -> np.ndarray:
    return (1.0 - values["start"]) / (1.0 + np.exp(-values["ceiling_logit"]))


def _level(values: dict[str, np.ndarray], log_half: np.ndarray, log_tau: np.ndarray) -> np.ndarray:
    """Return the level of accuracy at log progress, shape (draw, ...)."""
    def each(value: np.ndarray) -> np.ndarray:
        return value.reshape(-1, *[1] * (log_tau.ndim - 1))

    away = np.minimum(each(values["kappa"]) * (log_tau - each(log_half)), 6.0)
    share = -np.expm1(-np.log(2.0) * np.exp(away))
    return each(values["start"]) + each(_gain(values)) * share


def _shown(
    flat: FlatTrajectory, values: dict[str, np.ndarray], log_half: np.ndarray,
    nodes: int = _N_FINE,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a grid of log progress and the accuracy that the fit shows there, (draw, node)."""
    grid = np.linspace(flat.data.log_tau[0], flat.data.log_tau[-1] + _BEYOND, nodes)
    terms, _, _ = bridge_terms(flat.data, grid)
    level = _level(values, log_half, np.broadcast_to(grid, (len(log_half), nodes)))
    return grid, level + values["item_set"] @ terms


def _rearranged(
    flat: FlatTrajectory, grid: np.ndarray, shown: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the curve with the finer waves, rearranged so that it rises, (draw, node)."""
    fitted = n_terms(flat.data)
    terms, _, _ = bridge_terms(flat.data, grid, N_READ)
    fine = rng.standard_normal((len(shown), N_READ - fitted)) @ terms[fitted:]
    return np.sort(shown + fine, axis=1)


def _kept_grid(flat: FlatTrajectory) -> np.ndarray:
    """Return the nodes of log progress at which curves are kept: the fit's, and some beyond."""
    fitted = flat.data.log_tau
    return np.concatenate([fitted, fitted[-1] + np.linspace(0.0, _BEYOND, _N_BEYOND + 1)[1:]])


def _kept_curves(
    flat: FlatTrajectory, values: dict[str, np.ndarray], shown: np.ndarray,
    rearranged: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return what `cbsbayes.posterior.ceilings` reads other group sizes from."""
    hard = (_logit(shown) - flat.data.middle)[:, None]
    now = {now_name(name): _scale(flat, values, name, hard)[:, 0] for name in flat.law.scales}
    return {CURVE: rearranged, INITIAL_ACCURACY: foot(flat, values)} | now


def foot(flat: FlatTrajectory, values: dict[str, np.ndarray]) -> np.ndarray:
    """Return the accuracy shown before training, from which ceilings are counted, (draw,)."""
    at_start = bridge_terms(flat.data, flat.data.log_tau)[2]
    return np.asarray(values["start"] + values["item_set"] @ at_start)


def group_share(
    flat: FlatTrajectory, values: dict[str, np.ndarray], n_rollouts: np.ndarray
) -> np.ndarray:
    """Return which share of the curve's gain groups show, shape (draw, group); 1 without ceilings.

    Parameters
    ----------
    flat : FlatTrajectory
        The model.
    values : dict
        Parameters by name, first axis draw.
    n_rollouts : numpy.ndarray
        Group sizes, shape (group,).
    """
    loss = values.get(SATURATION, np.zeros(len(values["start"])))
    return np.exp(-loss[:, None] / n_rollouts)


def _scale(
    flat: FlatTrajectory, values: dict[str, np.ndarray], name: str, hard: np.ndarray
) -> np.ndarray:
    """Return the momentary noise scale in its own unit, shape (draw, threshold, node)."""
    level, trend = (values[f"{name}_{part}"][:, None, None] for part in ("level", "trend"))
    curvature = values["noise_curvature"][:, None, None]
    return np.exp(flat.data.log_batch_scale[name] + level + trend * hard + curvature * hard**2)


def _logit(accuracy: np.ndarray) -> np.ndarray:
    inside = np.clip(accuracy, EDGE, 1.0 - EDGE)
    return np.log(inside / (1.0 - inside))
