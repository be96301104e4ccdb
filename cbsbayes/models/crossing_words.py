"""The data of `cbsbayes.models.crossing_kernel` as one block of memory.

A header says how many words of eight bytes there are and where each part ends; integers and
reals follow, so that the kernel needs nothing but the block's address.
"""

from __future__ import annotations

from math import log, pi, sqrt

import numpy as np
from scipy.special import ndtr

from cbsbayes.models import crossing_kernel as kernel
from cbsbayes.models.batches import batch_weights, middle_batch
from cbsbayes.models.crossing_data import CrossingData
from cbsbayes.models.crossing_flat import FlatCrossing
from cbsbayes.models.likelihood import LOGISTIC_SCALE
from cbsbayes.models.priors import Priors

__all__ = ["data_words"]

_STARTS = {kernel.ALPHA: "alpha", kernel.STEPS_LEVEL: "log_S_level", kernel.GROWTH: "log_growth",
           kernel.SIGMA_RUN: "sigma_run", kernel.RUN: "run_effect_z",
           kernel.SIGMA: "sigma_residual", kernel.TREND: "residual_trend",
           kernel.LENGTH: "residual_length", kernel.OFFSET: "noise_offset",
           kernel.SCATTER: "noise_scatter", kernel.LOG_NOISE: "log_noise"}


def data_words(flat: FlatCrossing) -> np.ndarray:
    """Return the kernel's data, int64; reals by their bits.

    Parts, in the order of `crossing_kernel.PARTS`:

    ``layout``
        Starts of the position's blocks, the middle threshold, whether the law is ``power``,
        number of noise scales.
    ``batch``
        Each run's batch, shape (run,).
    ``link``
        Each crossing's pair of thresholds, -1 where it says nothing, shape (run, threshold).
    ``pairs``
        Threshold and previous threshold, shape (pair, 2).
    ``center``, ``precision``
        Of each coordinate's normal prior, shape (n_dim,); precision 0 for the exponent.
    ``constants``
        The log density's constant; the fixed exponent; the free one's lower and upper end, prior
        mean and precision; the factor of deviations; log scale of a logistic variable of sd 1.
    ``hardness``
        Of the thresholds, shape (threshold,).
    ``weights``
        What exp(level) of each noise scale is multiplied by at each batch, shape (scale, batch);
        the last batch is the middle one, at which the level of S is sampled.
    ``bounds``
        Log lower bound, upper bound and midpoint, shape (run, threshold, 3).
    ``gaps``
        Distance of each pair in hardness, shape (pair,).
    ``noise``
        Of measured gradient noise, empty without: what exp(level) of each noise scale is
        multiplied by in each measured part, shape (part, scale); what a part counts in the sum,
        shape (part,); per range the correlation of its deviation with the one before, degrees
        of freedom (0: nothing measured), averages, and inverse covariance.
    """
    parts = _parts(flat)
    arrays = [np.ascontiguousarray(parts[name]).reshape(-1).view(np.int64)
              for name in kernel.PARTS]
    ends = len(kernel.PARTS) + 1 + np.cumsum([len(array) for array in arrays])
    return np.concatenate([ends[-1:], ends, *arrays]).astype(np.int64)


def _parts(flat: FlatCrossing) -> dict[str, np.ndarray]:
    data, law = flat.data, flat.law
    precision = np.where(_normal(flat), flat.sd ** -2.0, 0.0)
    batches, batch = np.unique(np.column_stack([data.n_prompts, data.n_rollouts]), axis=0,
                               return_inverse=True)
    batches = np.vstack([batches, middle_batch(data.n_prompts, data.n_rollouts)])
    bounds = np.stack([data.log_lower, data.log_upper, data.midpoint], axis=-1)
    link, pairs, gaps = _links(data)
    return {"layout": _layout(flat), "batch": batch.astype(np.int64), "link": link,
            "pairs": pairs, "center": flat.center, "precision": precision,
            "constants": _constants(flat), "hardness": data.hardness,
            "weights": batch_weights(law, data.log_batch_scale, *batches.T), "bounds": bounds,
            "gaps": gaps, "noise": _noise(flat)}


def _noise(flat: FlatCrossing) -> np.ndarray:
    noise = flat.data.noise
    if noise is None:
        return np.empty(0)
    scale = np.exp([flat.data.log_batch_scale[name] for name in flat.law.scales])
    ranges = np.column_stack([
        noise.correlation(flat.data.hardness), noise.freedom,
        np.where(noise.known[:, None], noise.estimate, 0.0),
        noise.precision().reshape(noise.n_ranges, -1)])
    return np.concatenate([(noise.mix * scale).reshape(-1), noise.total, ranges.reshape(-1)])


def _layout(flat: FlatCrossing) -> np.ndarray:
    layout = np.full(kernel.N_RANGES + 1, -1, dtype=np.int64)
    for place, name in _STARTS.items():
        if name in flat.slices:
            layout[place] = flat.slices[name].start
    layout[kernel.MIDDLE] = len(flat.data.threshold) // 2
    layout[kernel.POWER] = flat.law.name == "power"
    layout[kernel.N_SCALES] = len(flat.law.scales)
    if (noise := flat.data.noise) is not None:
        layout[kernel.N_PARTS], layout[kernel.N_RANGES] = len(noise.parts), noise.n_ranges
    return layout


def _constants(flat: FlatCrossing) -> np.ndarray:
    mean, sd, lower, upper = flat.priors.alpha
    fixed = flat.law.alpha if flat.law.alpha is not None else np.nan
    return np.array([_log_constant(flat), fixed, lower, upper, mean, sd ** -2.0,
                     flat.priors.scale_deviation, log(LOGISTIC_SCALE)])


def _normal(flat: FlatCrossing) -> np.ndarray:
    """Return which coordinates have a normal prior, shape (n_dim,)."""
    normal = np.ones(flat.n_dim, dtype=bool)
    for name in ("alpha", "log_noise"):
        if name in flat.slices:
            normal[flat.slices[name]] = False
    return normal


def _log_constant(flat: FlatCrossing) -> float:
    """Return what does not depend on the position: normalisers of all priors."""
    normal = _normal(flat)
    constant = _log_exponent_constant(flat.priors) if flat.law.alpha is None else 0.0
    return constant - float(np.log(flat.sd[normal]).sum()) - 0.5 * normal.sum() * log(2 * pi)


def _log_exponent_constant(priors: Priors) -> float:
    """Return log of (upper - lower) over the normaliser of the truncated normal."""
    mean, sd, lower, upper = priors.alpha
    inside = ndtr((upper - mean) / sd) - ndtr((lower - mean) / sd)
    return log((upper - lower) / (sd * sqrt(2 * pi) * inside))


def _links(data: CrossingData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each crossing's pair of thresholds, the pairs, and the gaps in hardness."""
    threshold = np.broadcast_to(np.arange(len(data.threshold)), data.previous.shape)
    said = data.informative
    found, inverse = np.unique(
        np.column_stack([threshold[said], data.previous[said], data.gap[said]]), axis=0,
        return_inverse=True)
    link = np.full(data.previous.shape, -1, dtype=np.int64)
    link[said] = inverse
    return link, found[:, :2].astype(np.int64), np.ascontiguousarray(found[:, 2])
