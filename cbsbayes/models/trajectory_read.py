r"""Read thresholds off draws of the trajectory model: S_min, noise up to there, replicated S.

A threshold t is a statement on the scale of the validation set: progress τ_t is where h(τ), the
accuracy that set shows, reaches t. Then S_min(t) = τ_t, and a noise scale up to t is its average
over progress, :math:`B(t) = \tau_t^{-1} \int_0^{\tau_t} b(A(\tau)) d\tau`.

Waves of the item set's bend that the fit does not carry are added from their prior, so that S_min
is not said better than one finite set allows. They can make h fall for a moment: τ_t is read off
its monotone rearrangement, which neither favours the first passage nor the last.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.integrate import cumulative_trapezoid

from cbsbayes.models.batches import batch_weights, middle_batch
from cbsbayes.models.bridge import N_READ, bridge_terms, n_terms
from cbsbayes.models.trajectory_data import Curve, ramps
from cbsbayes.models.trajectory_flat import FlatTrajectory
from cbsbayes.models.trajectory_kernel import EDGE
from cbsbayes.surface import NODE_WEIGHT, Surface, path_name

__all__ = ["expected_accuracy", "read_thresholds", "replicated_log_steps", "typical_curve"]

_N_PATH = 8  # Gauss-Legendre nodes of progress up to a threshold
_N_FINE = 500  # nodes of log progress for reading thresholds
_N_TYPICAL = 200  # nodes of the typical curve
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
    tau = _progress_at(flat, grid, shown, thresholds, np.random.default_rng(seed))
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
    coords = {"threshold": thresholds, NODE_WEIGHT: ("node", 0.5 * _WEIGHTS),
              "chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
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
    ends = zip(data.run_start[:-1], data.run_start[1:], strict=True)
    return np.concatenate([np.interp(data.steps[first:last], steps[i], curve.accuracy)
                           for i, (first, last) in enumerate(ends)])


def replicated_log_steps(
    flat: FlatTrajectory, draws: xr.Dataset, rng: np.random.Generator
) -> np.ndarray:
    """Return log S (updates) of one new run per draw and run, shape (sample, run, threshold).

    A new run has its own speed, wander, offset and evaluation noise. The last two move a
    crossing by their size over the slope of the curve there.

    Parameters
    ----------
    flat : FlatTrajectory
        The model.
    draws : xarray.Dataset
        Of `read_thresholds`, with dim ``sample``.
    rng : numpy.random.Generator
    """
    data = flat.data
    batch = {"n_prompts": xr.DataArray(data.n_prompts, dims="run"),
             "n_rollouts": xr.DataArray(data.n_rollouts, dims="run")}
    log_s = Surface(flat.law, draws).log_steps(*batch.values()).transpose(
        "sample", "run", "threshold").values
    shape = log_s.shape
    each = {name: draws[name].values[:, None, None] for name in
            ("sigma_run", "sigma_wander", "sigma_offset", "sigma_noise")}
    threshold = draws["threshold"].values
    spread = 2.0 * np.sqrt(threshold * (1.0 - threshold))
    noise_sd = each["sigma_noise"] / (2.0 * np.sqrt(data.n_items))
    late = rng.standard_normal(shape[:2])[..., None] * each["sigma_run"]
    increments = rng.standard_normal((*shape[:2], len(data.knots) - 1))
    late = late + each["sigma_wander"] * (
        ramps(log_s - data.log_steps_scale, data.knots) * increments[:, :, None, :]).sum(axis=-1)
    offset = rng.standard_normal(shape[:2])[..., None] * each["sigma_offset"]
    seen = offset + rng.standard_normal(shape) * noise_sd * spread
    return log_s + late - np.clip(seen / _slope(flat, draws, log_s), -3.0, 3.0)


def _slope(flat: FlatTrajectory, draws: xr.Dataset, log_s: np.ndarray) -> np.ndarray:
    """Return dA/dlog s of every run at every threshold, shape (sample, run, threshold)."""
    values = {str(name): draws[name].values for name in draws.data_vars}
    log_tau = np.log(draws["S_min"].transpose("sample", "threshold").values)
    log_tau = log_tau - flat.data.log_steps_scale
    away = np.minimum(values["kappa"][:, None] * (log_tau - _log_half(flat, values)[:, None]), 6.0)
    z = np.log(2.0) * np.exp(away)
    steep = _gain(values)[:, None] * values["kappa"][:, None] * z * np.exp(-z)
    at_end = {name: draws[path_name(name)].isel(node=-1, drop=True) for name in flat.law.scales}
    ratio = flat.law.log_ratio(
        xr.DataArray(flat.data.n_prompts, dims="run"), xr.DataArray(flat.data.n_rollouts,
                                                                    dims="run"),
        at_end, draws["alpha"] if flat.law.alpha is None else None)
    ratio = ratio.transpose("sample", "run", "threshold").values
    log_tau = log_tau + flat.data.log_steps_scale
    return np.maximum(steep[:, None, :] * np.exp(log_s - log_tau[:, None, :] - ratio), 1e-6)


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
    flat: FlatTrajectory, values: dict[str, np.ndarray], log_half: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a grid of log progress and the accuracy that the fit shows there, (draw, node)."""
    grid = np.linspace(flat.data.log_tau[0], flat.data.log_tau[-1] + _BEYOND, _N_FINE)
    terms, _, _ = bridge_terms(flat.data, grid)
    level = _level(values, log_half, np.broadcast_to(grid, (len(log_half), _N_FINE)))
    return grid, level + values["item_set"] @ terms


def _progress_at(
    flat: FlatTrajectory, grid: np.ndarray, shown: np.ndarray, thresholds: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return τ_t over the scale of updates, shape (draw, threshold)."""
    fitted = n_terms(flat.data)
    terms, _, _ = bridge_terms(flat.data, grid, N_READ)
    fine = rng.standard_normal((len(shown), N_READ - fitted)) @ terms[fitted:]
    rearranged = np.sort(shown + fine, axis=1)
    return np.exp([np.interp(thresholds, row, grid) for row in rearranged])


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
