"""Crossings that the model would produce, and how probable each run's crossings are.

All on arrays of draws, with the run effect drawn anew or integrated out: a run that was observed
is predicted as if it were another run at the same batch. Predicting it with its own fitted effect
would hide a wrong law behind that effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.special import expit

from cbsbayes.laws import Law
from cbsbayes.models.crossing_data import CrossingData
from cbsbayes.models.likelihood import LOGISTIC_SCALE, log_interval_numpy

__all__ = ["Parameters", "expected_log_steps", "parameters", "replicate_log_steps",
           "run_log_likelihood"]

_NODES, _REACH = 17, 6.5  # of the rule for the run effect, in widths of the integrand's peak
_MOST_STEPS, _NEAR = 40, 0.05  # of the search for that peak, and how many widths off is near
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
    """Integrate the run effect out by the trapezoidal rule around the integrand's peak.

    A rule fixed at the prior of the effect would miss a sharp peak far out, which is what a wrong
    law produces; the integrand is log-concave, so there is one peak.
    """
    lower, upper, pull = _standardised(draws, data)
    peak, width = _peak(lower, upper, pull)
    spacing = 2 * _REACH / (_NODES - 1)
    terms = []
    for node in np.linspace(-_REACH, _REACH, _NODES):
        effect = peak + width * node
        log_p = _log_p(lower, upper, pull, effect[:, :, None])
        terms.append(np.where(data.informative, log_p, 0.0).sum(axis=2) - effect**2 / 2)
    return np.logaddexp.reduce(terms, axis=0) + np.log(width * spacing / np.sqrt(2 * np.pi))


def _standardised(
    draws: Parameters, data: CrossingData
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return bounds in units of the logistic scale, and what one sd of the run effect moves them.

    All of shape (draw, run, threshold), given the run's previous crossing, for a typical run.
    """
    expected = draws.log_steps
    rows = np.arange(data.previous.shape[0])[:, None]
    sd = np.broadcast_to(draws.sd[:, None, :], expected.shape)
    rho = draws.rho(data.gap)
    carried = rho * sd / sd[:, rows, data.previous]
    center = expected + carried * (data.midpoint - expected)[:, rows, data.previous]
    scale = sd * np.sqrt(1.0 - rho**2) * LOGISTIC_SCALE
    pull = draws.sigma_run[:, None, None] * (1.0 - carried) / scale
    return ((data.log_lower - center) / scale, (data.log_upper - center) / scale,
            np.where(data.informative, pull, 0.0))


def _log_p(lower: np.ndarray, upper: np.ndarray, pull: np.ndarray, effect: np.ndarray
           ) -> np.ndarray:
    return log_interval_numpy(lower - pull * effect, upper - pull * effect)


def _peak(
    lower: np.ndarray, upper: np.ndarray, pull: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where the integrand peaks and how wide, in sds of the run effect, (draw, run).

    Newton's method on the slope, which falls everywhere; a step that leaves the bracket is
    replaced by its middle, because far out the logistic's curvature vanishes.
    """
    end = np.abs(pull).sum(axis=2)
    low, high, at = -end, end, np.zeros_like(end)
    for _ in range(_MOST_STEPS):
        below = expit(lower - pull * at[:, :, None])
        within = expit(upper - pull * at[:, :, None])
        slope = (pull * (below + within - 1.0)).sum(axis=2) - at
        curvature = 1.0 + (pull**2 * (below * (1 - below) + within * (1 - within))).sum(axis=2)
        width = 1.0 / np.sqrt(curvature)
        low, high = np.where(slope > 0, at, low), np.where(slope > 0, high, at)
        newton = at + slope / curvature
        near = np.abs(newton - at) < _NEAR * width
        if near.all():
            break
        inside = near | ((newton > low) & (newton < high))
        at = np.where(inside, newton, (low + high) / 2)
    return at, width
