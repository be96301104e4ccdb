"""The data of `cbsbayes.models.trajectory_kernel` as one block of memory.

A header says how many words of eight bytes there are and where each part ends; integers and
reals follow, so that the kernel needs nothing but the block's address. Behind the parts there is
room for a centre and a matrix by which a sampler's coordinates are turned into the model's.
"""

from __future__ import annotations

from math import log, pi, sqrt

import numpy as np
from scipy.special import ndtr

from cbsbayes.models import trajectory_kernel as kernel
from cbsbayes.models.batches import batch_weights, middle_batch
from cbsbayes.models.item_set import bridge_terms
from cbsbayes.models.trajectory_data import TrajectoryData, ramps
from cbsbayes.models.trajectory_flat import FlatTrajectory

__all__ = ["cells", "data_words", "likelihood_words"]

_STARTS = {
    kernel.START: "start", kernel.CEILING: "ceiling_logit",
    kernel.LEVEL: "log_half_level", kernel.SHAPE: "kappa",
    kernel.CURVATURE: "noise_curvature", kernel.ALPHA: "alpha", kernel.SIGMA_RUN: "sigma_run",
    kernel.WANDER: "sigma_wander", kernel.OFFSET: "sigma_offset",
    kernel.SIGMA_NOISE: "sigma_noise", kernel.SERIAL: "sigma_serial", kernel.TREND: "noise_trend",
    kernel.LENGTH: "memory", kernel.BRIDGE: "item_set", kernel.LOSS: "ceiling_loss"}


def data_words(
    flat: FlatTrajectory, middle: np.ndarray | None = None, factor: np.ndarray | None = None
) -> np.ndarray:
    """Return the kernel's data, int64; reals by their bits.

    Parameters
    ----------
    flat : FlatTrajectory
        The model.
    middle, factor : numpy.ndarray, optional
        Of the whitening x = middle + factor z, shapes (n_dim,) and (n_dim, n_dim), factor lower
        triangular; none unless given.

    Notes
    -----
    Parts, in the order of `trajectory_kernel.PARTS`:

    ``layout``
        Starts of the position's blocks, whether the law is ``power``, number of noise scales.
    ``run_cell``, ``run_start``
        Each run's batch, where its evaluations begin.
    ``center``, ``precision``
        Of each coordinate's normal prior; precision 0 for the exponent.
    ``constants``
        The log density's constant; the fixed exponent; the free one's lower and upper end, prior
        mean and precision; logit of the middle accuracy.
    ``log_tau``
        Nodes of log progress.
    ``weights``
        What exp(level) of each noise scale is multiplied by, shape (scale, batch + 1); the last
        batch is the middle one.
    ``log_step, reference, accuracy, variance, spread, gap, ramps``
        Of every evaluation; variance is binomial over all items asked, spread 1 at accuracy 1/2.
    ``base``
        Accuracy before training, its binomial variance, its weight, shape (run, 3).
    ``bridge, bridge_slope``
        Terms of the item set's bend and their slopes by log τ, shape (term, node).
    ``bridge_start``
        The terms before training, shape (term,).
    ``group_share``
        1/n_rollouts of every run, by which its ceiling may be lower, shape (run,).
    """
    return _packed(_parts(flat), *(a for a in (middle, factor) if a is not None))


def _packed(parts: dict[str, np.ndarray], *more: np.ndarray) -> np.ndarray:
    """Return the parts, and more reals behind them, as one block with its header."""
    arrays = [np.ascontiguousarray(parts[name]).reshape(-1).view(np.int64)
              for name in kernel.PARTS]
    ends = len(kernel.PARTS) + 1 + np.cumsum([len(array) for array in arrays])
    arrays += [np.ascontiguousarray(a, dtype=float).reshape(-1).view(np.int64) for a in more]
    total = len(kernel.PARTS) + 1 + sum(len(array) for array in arrays)
    return np.concatenate([[total], ends, *arrays]).astype(np.int64)


def likelihood_words(flat: FlatTrajectory) -> np.ndarray:
    """Return the data of a kernel without priors: what is left is the likelihood.

    The free exponent's Jacobian stays, because it belongs to the exponent's coordinate.
    """
    parts = _parts(flat)
    parts["precision"] = np.zeros_like(parts["precision"])
    parts["constants"][[0, 5]] = 0.0
    return _packed(parts)


def cells(data: TrajectoryData) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct batches, shape (batch, 2), and each run's batch."""
    batches, run_cell = np.unique(np.column_stack([data.n_prompts, data.n_rollouts]), axis=0,
                                  return_inverse=True)
    return batches, run_cell.reshape(-1).astype(np.int64)


def _parts(flat: FlatTrajectory) -> dict[str, np.ndarray]:
    data = flat.data
    batches, run_cell = cells(data)
    with_middle = np.vstack([batches, middle_batch(data.n_prompts, data.n_rollouts)])
    precision = flat.sd ** -2.0
    if flat.law.alpha is None:
        precision[flat.slices["alpha"]] = 0.0  # its prior is not normal on this scale
    log_step = np.log(data.steps)
    terms, slopes, at_start = bridge_terms(data, data.log_tau)
    return {
        "layout": _layout(flat), "run_cell": run_cell,
        "run_start": data.run_start, "center": flat.center, "precision": precision,
        "constants": _constants(flat), "log_tau": data.log_tau,
        "weights": batch_weights(flat.law, data.log_batch_scale, *with_middle.T),
        "log_step": log_step, "reference": data.reference, "accuracy": data.accuracy,
        "variance": data.variance / (data.n_items * data.count),
        "spread": 2.0 * np.sqrt(data.variance),
        "gap": data.gap, "ramps": ramps(log_step, data.knots), "base": _base(data),
        "bridge": terms, "bridge_slope": slopes, "bridge_start": at_start,
        "group_share": 1.0 / data.n_rollouts.astype(float)}


def _layout(flat: FlatTrajectory) -> np.ndarray:
    layout = np.full(kernel.N_STARTS + 2, -1, dtype=np.int64)
    for place, name in _STARTS.items():
        if name in flat.slices:
            layout[place] = flat.slices[name].start
    layout[kernel.SCALES] = flat.slices[f"{flat.law.scales[0]}_level"].start
    layout[kernel.POWER] = flat.law.name == "power"
    layout[kernel.N_SCALES] = len(flat.law.scales)
    return layout


def _base(data: TrajectoryData) -> np.ndarray:
    """Return accuracy before training, variance and weight; one shared checkpoint counts once."""
    known = np.isfinite(data.start)
    shared = known.any() and np.ptp(data.start[known]) == 0
    weight = known / known.sum() if shared else known.astype(float)
    start = np.where(known, data.start, 0.5)
    p = np.clip(start, 0.5 / data.n_items, 1 - 0.5 / data.n_items)
    return np.column_stack([start, p * (1 - p) / data.n_items, weight])


def _constants(flat: FlatTrajectory) -> np.ndarray:
    mean, sd, lower, upper = flat.priors.alpha
    fixed = flat.law.alpha if flat.law.alpha is not None else np.nan
    return np.array([_log_constant(flat), fixed, lower, upper, mean, sd ** -2.0,
                     flat.data.middle])


def _log_constant(flat: FlatTrajectory) -> float:
    """Return what does not depend on the position: normalisers of all priors."""
    normal = np.ones(flat.n_dim, dtype=bool)
    constant = 0.0
    if flat.law.alpha is None:
        normal[flat.slices["alpha"]] = False
        mean, sd, lower, upper = flat.priors.alpha
        inside = ndtr((upper - mean) / sd) - ndtr((lower - mean) / sd)
        constant += log((upper - lower) / (sd * sqrt(2 * pi) * inside))
    return constant - float(np.log(flat.sd[normal]).sum()) - 0.5 * normal.sum() * log(2 * pi)
