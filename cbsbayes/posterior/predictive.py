"""Crossings that the model would produce.

On arrays of draws, with the run effect drawn anew: a run that was observed is predicted as if it
were another run at the same batch. Predicting it with its own fitted effect would hide a wrong
law behind that effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from cbsbayes.models.crossing_data import LOGISTIC_SCALE, CrossingData
from cbsbayes.models.laws import Law

__all__ = ["Parameters", "expected_log_steps", "parameters", "replicate_log_steps"]


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
        Distance in logit over which residuals stay alike, shape (draw,); 0 for one threshold.
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
        trend = posterior["residual_trend"].values[:, None] * data.threshold_logit
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
    alpha = law.alpha if law.alpha is not None else posterior["alpha"].values[:, None, None]
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
    rho = draws.rho(np.diff(data.threshold_logit, prepend=-np.inf))
    for k in range(n_thresholds):
        here = rho[:, k, None]
        before = residual[:, :, k - 1] / draws.sd[:, k - 1, None] if k else 0.0
        innovation = np.sqrt(1.0 - here**2) * noise[:, :, k]
        residual[:, :, k] = draws.sd[:, k, None] * (here * before + innovation)
    return draws.log_steps + effect[:, :, None] + residual
