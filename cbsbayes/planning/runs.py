"""Runs to be, simulated from posterior draws: what a planned run would log about its crossings.

A run of one batch is drawn for every parameter draw given, its run effect and residuals anew, one
threshold after the other as the crossing model has it; it is seen only where it is evaluated and
only until it ends, so a crossing is an interval, or open on one side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from cbsbayes.bounds import INTERVAL, LEFT, RIGHT
from cbsbayes.laws import Law
from cbsbayes.models.crossing_data import CrossingData, crossing_data
from cbsbayes.models.likelihood import LOGISTIC_SCALE
from cbsbayes.replicates import Parameters, expected_log_steps

__all__ = ["ModelDraws", "Noise", "cell_parameters", "draw_noise", "evaluations", "model_draws",
           "run_data", "simulated_steps"]


@dataclass(frozen=True)
class ModelDraws:
    """Draws of a crossing model, and what is needed to simulate and to judge a run of any batch.

    Attributes
    ----------
    posterior : xarray.Dataset
        Dims (sample, threshold, …).
    law : Law
        The law fitted.
    threshold, hardness : numpy.ndarray
        Targets in order of hardness, and their centred positions.
    direction : str
        ``increasing`` or ``decreasing``, as in a sweep.
    """

    posterior: xr.Dataset
    law: Law
    threshold: np.ndarray
    hardness: np.ndarray
    direction: str = "increasing"

    def part(self, which: np.ndarray) -> ModelDraws:
        """Return some of the draws."""
        return ModelDraws(self.posterior.isel(sample=which), self.law, self.threshold,
                          self.hardness, self.direction)


@dataclass(frozen=True)
class Noise:
    """What is random in a run besides the parameters.

    Attributes
    ----------
    effect : numpy.ndarray
        Run effect in its sd, shape (run,).
    residual : numpy.ndarray
        Standard logistic numbers, shape (run, threshold).
    """

    effect: np.ndarray
    residual: np.ndarray


def model_draws(posterior: xr.Dataset, law: Law, data: CrossingData, direction: str) -> ModelDraws:
    """Return draws (dim ``sample``) with their thresholds in order of hardness."""
    return ModelDraws(posterior.sel(threshold=data.threshold), law, data.threshold, data.hardness,
                      direction)


def draw_noise(n_runs: int, n_thresholds: int, rng: np.random.Generator) -> Noise:
    """Return the noise of as many runs."""
    return Noise(rng.normal(size=n_runs), rng.logistic(size=(n_runs, n_thresholds)))


def cell_parameters(draws: ModelDraws, n_prompts: float, n_rollouts: float) -> Parameters:
    """Return the crossing model's parameters at one batch, log S in updates, (draw, 1, threshold).

    One-axis data pass the total batch and 1.
    """
    log_steps = expected_log_steps(draws.posterior, np.array([float(n_prompts)]),
                                   np.array([float(n_rollouts)]), draws.law)
    sigma = draws.posterior["sigma_residual"].values[:, None]
    if "residual_trend" in draws.posterior:
        trend = draws.posterior["residual_trend"].values[:, None] * draws.hardness
        sd, length = sigma * np.exp(trend), draws.posterior["residual_length"].values
    else:
        sd, length = sigma, np.zeros(len(sigma))
    return Parameters(log_steps, draws.posterior["sigma_run"].values, sd, length)


def evaluations(every: float, updates: float) -> np.ndarray:
    """Return the updates at which a run is evaluated after its start: every so many, and its end.

    A run too short for one evaluation has none.
    """
    steps = np.arange(1, int(updates // every) + 1) * float(every)
    ends_between = updates > 0 and (steps.size == 0 or steps[-1] < updates)
    return np.append(steps, float(updates)) if ends_between else steps


def simulated_steps(
    cell: Parameters, hardness: np.ndarray, at: np.ndarray, noise: Noise
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what runs show of their crossings, one run per draw.

    Parameters
    ----------
    cell : Parameters
        Of `cell_parameters`.
    hardness : numpy.ndarray
        Of the thresholds, shape (threshold,).
    at : numpy.ndarray
        Updates of the evaluations, sorted, at least one.
    noise : Noise
        Of as many runs as there are draws.

    Returns
    -------
    lower, upper, status : numpy.ndarray
        As of `cbsbayes.crossing.find_crossings`, shape (run, threshold).
    """
    expected = cell.log_steps[:, 0, :] + (cell.sigma_run * noise.effect)[:, None]
    n_runs, n_thresholds = expected.shape
    rows, log_at = np.arange(n_runs), np.log(at)
    position = np.zeros((n_runs, n_thresholds), dtype=int)
    last, carried = np.full(n_runs, -1), np.zeros(n_runs)
    length = np.maximum(cell.length, 1e-12)
    for k in range(n_thresholds):
        gap = np.where(last >= 0, hardness[k] - hardness[last], np.inf)
        rho = np.exp(-gap / length)
        center = expected[:, k] + rho * cell.sd[:, k] / cell.sd[rows, last] * carried
        scale = cell.sd[:, k] * np.sqrt(1.0 - rho**2) * LOGISTIC_SCALE
        passed = np.searchsorted(log_at, center + scale * noise.residual[:, k])
        position[:, k] = np.maximum(passed, position[:, k - 1]) if k else passed
        known = (position[:, k] > 0) & (position[:, k] < len(at))
        inside = np.clip(position[:, k], 1, len(at) - 1)
        middle = (log_at[inside - 1] + log_at[inside]) / 2 if len(at) > 1 else 0.0
        carried = np.where(known, middle - expected[:, k], carried)
        last = np.where(known, k, last)
    return _bounds(position, at)


def _bounds(position: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return bounds from the evaluation by which a target was passed, in whole evaluations."""
    ends = np.concatenate([[0.0], at, [np.inf]])
    status = np.select([position == 0, position == len(at)], [LEFT, RIGHT], INTERVAL)
    return ends[position], ends[position + 1], status.astype(np.int8)


def run_data(
    draws: ModelDraws, n_prompts: float, n_rollouts: float, at: np.ndarray, noise: Noise
) -> tuple[CrossingData, np.ndarray]:
    """Return simulated runs of one batch as the model's data, one per draw, and their status.

    Raises
    ------
    CBSDataError
        If the law has no value at the batch.
    """
    cell = cell_parameters(draws, n_prompts, n_rollouts)
    lower, upper, status = simulated_steps(cell, draws.hardness, at, noise)
    dims, n_runs = ("run", "threshold"), len(lower)
    crossings = xr.Dataset(
        {"lower": (dims, lower), "upper": (dims, upper), "status": (dims, status)},
        coords={"run": np.arange(n_runs), "threshold": draws.threshold,
                "n_prompts": ("run", np.full(n_runs, float(n_prompts))),
                "n_rollouts": ("run", np.full(n_runs, float(n_rollouts))),
                "total_batch": ("run", np.full(n_runs, float(n_prompts * n_rollouts)))},
        attrs={"direction": draws.direction})
    return crossing_data(crossings, draws.law), status
