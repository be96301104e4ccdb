"""Crossings that the model would produce, and how probable each run's crossings are.

All on arrays of draws, with the run effect drawn anew or integrated out: a run that was observed
is predicted as if it were another run at the same batch. Predicting it with its own fitted effect
would hide a wrong law behind that effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from cbsbayes.laws import Law
from cbsbayes.models.crossing_data import CrossingData
from cbsbayes.models.likelihood import LOGISTIC_SCALE, log_interval_numpy
from cbsbayes.quantities import exponent

__all__ = ["Parameters", "expected_log_steps", "parameters", "replicate_log_steps",
           "run_log_likelihood"]

_NODES = 21  # Gauss-Hermite nodes for the run effect; see the test against a dense grid
_CHUNK = 250  # draws at a time: bounds memory to some 100 MB for 60 runs


@dataclass(frozen=True)
class Parameters:
    """Draws of the crossing model's parameters as arrays, first axis draw.

    Attributes
    ----------
    log_steps : numpy.ndarray
        log S of the law over the scale of S, shape (draw, run, threshold).
    sigma_run : numpy.ndarray
        Sd of the run effect, shape (draw,).
    sd : numpy.ndarray
        Sd of the residual, shape (draw, threshold).
    length : numpy.ndarray
        Distance in hardness over which residuals stay alike, shape (draw,); 0 for one threshold.
    """

    log_steps: np.ndarray
    sigma_run: np.ndarray
    sd: np.ndarray
    length: np.ndarray

    def rho(self, gap: np.ndarray) -> np.ndarray:
        """Return the correlation of residuals `gap` apart, shape (draw, *gap)."""
        length = np.maximum(self.length, 1e-12).reshape(-1, *[1] * np.ndim(gap))
        return np.exp(-np.asarray(gap) / length)

    def part(self, which: slice) -> Parameters:
        """Return some of the draws."""
        return Parameters(self.log_steps[which], self.sigma_run[which], self.sd[which],
                          self.length[which])


def parameters(posterior: xr.Dataset, data: CrossingData, law: Law) -> Parameters:
    """Return the draws of a posterior (or prior) dataset as arrays.

    Parameters
    ----------
    posterior : xarray.Dataset
        Dims (sample, threshold).
    data : CrossingData
        The crossings, which say which runs and thresholds.
    law : Law
        The law of the posterior.
    """
    log_steps = expected_log_steps(posterior, data.n_prompts, data.n_rollouts, law)
    sigma = posterior["sigma_residual"].values[:, None]
    if "residual_trend" in posterior:
        trend = posterior["residual_trend"].values[:, None] * data.hardness
        sd, length = sigma * np.exp(trend), posterior["residual_length"].values
    else:
        sd, length = sigma, np.zeros(len(sigma))
    return Parameters(log_steps - data.log_steps_scale, posterior["sigma_run"].values, sd, length)


def expected_log_steps(
    posterior: xr.Dataset, n_prompts: np.ndarray, n_rollouts: np.ndarray, law: Law
) -> np.ndarray:
    """Return log S (updates) of the law, shape (draw, batch, threshold)."""
    scales = {name: posterior[name].transpose("sample", "threshold").values[:, None, :]
              for name in law.scales}
    alpha = exponent(law, posterior)
    alpha = alpha if isinstance(alpha, float) else alpha.values[:, None, None]
    ratio = law.log_ratio(n_prompts[None, :, None], n_rollouts[None, :, None], scales, alpha)
    return np.log(posterior["S_min"].transpose("sample", "threshold").values)[:, None, :] + ratio


def replicate_log_steps(
    draws: Parameters, data: CrossingData, rng: np.random.Generator
) -> np.ndarray:
    """Return log S over its scale of one new run per draw and run, shape (draw, run, threshold)."""
    n_draws, n_runs, n_thresholds = draws.log_steps.shape
    effect = rng.normal(size=(n_draws, n_runs)) * draws.sigma_run[:, None]
    noise = rng.logistic(scale=LOGISTIC_SCALE, size=draws.log_steps.shape)
    residual = np.zeros_like(noise)
    rho = draws.rho(np.diff(data.hardness, prepend=-np.inf))
    for k in range(n_thresholds):
        here = rho[:, k, None]
        before = residual[:, :, k - 1] / draws.sd[:, k - 1, None] if k else 0.0
        innovation = np.sqrt(1.0 - here**2) * noise[:, :, k]
        residual[:, :, k] = draws.sd[:, k, None] * (here * before + innovation)
    return draws.log_steps + effect[:, :, None] + residual


def run_log_likelihood(draws: Parameters, data: CrossingData) -> np.ndarray:
    """Return log p(crossings of a run), its run effect integrated out, shape (draw, run)."""
    parts = [_integrated(draws.part(slice(start, start + _CHUNK)), data)
             for start in range(0, len(draws.sigma_run), _CHUNK)]
    return np.concatenate(parts)


def _integrated(draws: Parameters, data: CrossingData) -> np.ndarray:
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    terms = [np.log(weight / np.sqrt(2 * np.pi))
             + _given_effect(draws, data, draws.sigma_run[:, None] * node)
             for node, weight in zip(nodes, weights, strict=True)]
    return np.logaddexp.reduce(terms, axis=0)


def _given_effect(draws: Parameters, data: CrossingData, effect: np.ndarray) -> np.ndarray:
    """Return log p(crossings of a run | run effect), shape (draw, run)."""
    expected = draws.log_steps + effect[:, :, None]
    rows = np.arange(data.previous.shape[0])[:, None]
    sd = np.broadcast_to(draws.sd[:, None, :], expected.shape)
    deviation = (data.midpoint - expected)[:, rows, data.previous]
    rho = draws.rho(data.gap)
    center = expected + rho * sd / sd[:, rows, data.previous] * deviation
    scale = sd * np.sqrt(1.0 - rho**2) * LOGISTIC_SCALE
    log_p = log_interval_numpy((data.log_lower - center) / scale, (data.log_upper - center) / scale)
    return np.where(data.informative, log_p, 0.0).sum(axis=2)
