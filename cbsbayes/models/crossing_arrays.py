"""The arrays that the compiled densities of crossings and of measured noise are given."""

from __future__ import annotations

from math import log, pi, sqrt
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from cbsbayes.models.batches import batch_weights, middle_batch
from cbsbayes.models.crossing_data import LOGISTIC_SCALE, CrossingData
from cbsbayes.models.crossing_parameters import CrossingParameters
from cbsbayes.models.noise_data import NoiseArrays
from cbsbayes.models.priors import Priors

__all__ = ["CrossingArrays", "crossing_arrays", "noise_arrays"]


class CrossingArrays(NamedTuple):
    """What the compiled density is given.

    Attributes
    ----------
    center, precision : numpy.ndarray
        Of the normal priors, shape (n_dim,); precision 0 where the prior is another.
    constant : float
        Normalisers of all priors.
    alpha_at, level_at, growth_at, sigma_run_at, sigma_at, trend_at, length_at : int
        Where a block of the position begins; -1 for one that this model does not have.
    alpha : float
        The exponent, where the law fixes it.
    alpha_prior : numpy.ndarray
        Lower and upper end, mean and precision of the exponent's truncated normal.
    power : bool
        Whether the law is ``power``.
    middle : int
        Index of the threshold at which the level of S is a coordinate.
    threshold_logit : numpy.ndarray
        Shape (threshold,).
    log_scales : numpy.ndarray
        Log noise scales are this times the position, shape (scale x threshold, n_dim).
    weights : numpy.ndarray
        Shape (scale, batch): 1/batch in units of each noise scale; last the middle batch.
    batch : numpy.ndarray
        Index of a run's batch, shape (run,).
    pair : numpy.ndarray
        Which of `pairs` a crossing's residual follows, shape (run, threshold); -1 where the
        crossing says nothing of its own.
    pairs : numpy.ndarray
        Index of a threshold and of the easier one before it, shape (pair, 2).
    gaps : numpy.ndarray
        Distance between the two in logit, shape (pair,).
    bounds : numpy.ndarray
        Lower, upper and middle of log S, shape (run, threshold, 3).
    logistic : float
        Scale of a logistic of standard deviation 1.
    """

    center: np.ndarray
    precision: np.ndarray
    constant: float
    alpha_at: int
    level_at: int
    growth_at: int
    sigma_run_at: int
    sigma_at: int
    trend_at: int
    length_at: int
    alpha: float
    alpha_prior: np.ndarray
    power: bool
    middle: int
    threshold_logit: np.ndarray
    log_scales: np.ndarray
    weights: np.ndarray
    batch: np.ndarray
    pair: np.ndarray
    pairs: np.ndarray
    gaps: np.ndarray
    bounds: np.ndarray
    logistic: float


def crossing_arrays(parameters: CrossingParameters) -> CrossingArrays:
    """Return the arrays of one model.

    Parameters
    ----------
    parameters : CrossingParameters
        The data, the law, the priors, and where each parameter stands in the position.
    """
    data, law, priors = parameters.data, parameters.law, parameters.priors
    start = {name: where.start for name, where in parameters.slices.items()}
    normal = parameters.normal
    batches, batch = np.unique(np.column_stack([data.n_prompts, data.n_rollouts]), axis=0,
                               return_inverse=True)
    batches = np.vstack([batches, middle_batch(data.n_prompts, data.n_rollouts)])
    mean, sd, lower, upper = priors.alpha
    pair, pairs, gaps = _pairs(data)
    return CrossingArrays(
        center=parameters.center,
        precision=np.where(normal, parameters.sd**-2.0, 0.0),
        constant=_log_constant(parameters),
        alpha_at=start.get("alpha", -1), level_at=start["log_S_level"],
        growth_at=start.get("log_growth", -1), sigma_run_at=start["sigma_run"],
        sigma_at=start["sigma_residual"], trend_at=start.get("residual_trend", -1),
        length_at=start.get("residual_length", -1),
        alpha=np.nan if law.alpha is None else float(law.alpha),
        alpha_prior=np.array([lower, upper, mean, sd**-2.0]),
        power=law.name == "power", middle=len(data.threshold) // 2,
        threshold_logit=data.threshold_logit, log_scales=_log_scales(parameters),
        weights=batch_weights(law, data.log_batch_scale, *batches.T),
        batch=batch.reshape(-1).astype(np.int64), pair=pair, pairs=pairs, gaps=gaps,
        bounds=np.stack([data.log_lower, data.log_upper, data.midpoint], axis=-1),
        logistic=float(LOGISTIC_SCALE))


def noise_arrays(parameters: CrossingParameters) -> NoiseArrays | None:
    """Return the arrays of measured noise; None where none is data."""
    data, noise = parameters.data, parameters.data.noise
    if noise is None:
        return None
    start = {name: where.start for name, where in parameters.slices.items()}
    unit = np.exp([data.log_batch_scale[name] for name in parameters.law.scales])
    return NoiseArrays(
        growth_at=start.get("log_growth", -1), offset_at=start["noise_offset"],
        scatter_at=start["noise_scatter"], noise_at=start["log_noise"],
        log_scales=_log_scales(parameters), mix=noise.mix * unit, total=noise.total.astype(float),
        correlation=noise.correlation(data.threshold_logit), freedom=noise.freedom.astype(float),
        estimate=np.where(noise.known[:, None], noise.estimate, 0.0), precision=noise.precision())


def _log_scales(parameters: CrossingParameters) -> np.ndarray:
    """Return level, trend and deviations of every scale as rows over the position."""
    data, n = parameters.data, len(parameters.data.threshold)
    rows = np.zeros((len(parameters.law.scales), n, parameters.n_dim))
    for row, name in zip(rows, parameters.law.scales, strict=True):
        row[:, parameters.slices[f"{name}_level"].start] = 1.0
        if n > 1:
            row[:, parameters.slices[f"{name}_trend"].start] = data.threshold_logit
            deviation = parameters.slices[f"{name}_deviation"]
            row[:, deviation] = parameters.priors.scale_deviation * np.eye(n)
    return rows.reshape(-1, parameters.n_dim)


def _log_constant(parameters: CrossingParameters) -> float:
    """Return the normalisers of all priors."""
    normal = parameters.normal
    constant = 0.0 if parameters.law.alpha is not None else _exponent_constant(parameters.priors)
    return constant - float(np.log(parameters.sd[normal]).sum()) - 0.5 * normal.sum() * log(2 * pi)


def _exponent_constant(priors: Priors) -> float:
    """Return log of (upper - lower) over the normaliser of the truncated normal."""
    mean, sd, lower, upper = priors.alpha
    inside = ndtr((upper - mean) / sd) - ndtr((lower - mean) / sd)
    return log((upper - lower) / (sd * sqrt(2 * pi) * inside))


def _pairs(data: CrossingData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each crossing's pair of thresholds, the pairs, and the distances between them."""
    threshold = np.broadcast_to(np.arange(len(data.threshold)), data.previous.shape)
    known = data.informative
    found, inverse = np.unique(
        np.column_stack([threshold[known], data.previous[known], data.gap[known]]), axis=0,
        return_inverse=True)
    pair = np.full(data.previous.shape, -1, dtype=np.int64)
    pair[known] = inverse.reshape(-1)
    return pair, found[:, :2].astype(np.int64), np.ascontiguousarray(found[:, 2])
