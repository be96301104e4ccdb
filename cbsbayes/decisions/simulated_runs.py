"""Runs to be, simulated from posterior draws: what a planned run would log about its crossings.

A run of one batch is drawn for every parameter draw given, its run effect and residuals anew, as
`cbsbayes.posterior.predictive` draws any new run; it is seen only where it is evaluated and only
until it ends, so a crossing is an interval, or open on one side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from cbsbayes.crossings.rules import INTERVAL, LEFT, RIGHT
from cbsbayes.models.crossing_data import CrossingData, crossing_data
from cbsbayes.models.laws import Law
from cbsbayes.posterior.predictive import Parameters, expected_log_steps, replicate_log_steps

__all__ = ["ModelDraws", "cell_parameters", "crossing_bounds", "evaluations", "model_draws",
           "new_log_steps", "run_data"]


@dataclass(frozen=True)
class ModelDraws:
    """Draws of a crossing model, and what is needed to simulate and to judge a run of any batch.

    Attributes
    ----------
    posterior : xarray.Dataset
        Dims (sample, threshold, …), thresholds from easy to hard.
    law : Law
        The law fitted.
    data : CrossingData
        What was fitted; says the thresholds and their logits.
    direction : str
        ``increasing`` or ``decreasing``, as in a sweep.
    """

    posterior: xr.Dataset
    law: Law
    data: CrossingData
    direction: str = "increasing"

    @property
    def threshold(self) -> np.ndarray:
        """Targets from easy to hard."""
        return self.data.threshold

    @property
    def size(self) -> int:
        """How many draws."""
        return int(self.posterior.sizes["sample"])

    def part(self, which: np.ndarray) -> ModelDraws:
        """Return some of the draws."""
        return replace(self, posterior=self.posterior.isel(sample=which))


def model_draws(posterior: xr.Dataset, law: Law, data: CrossingData, direction: str) -> ModelDraws:
    """Return draws (dim ``sample``) with their thresholds from easy to hard."""
    return ModelDraws(posterior.sel(threshold=data.threshold), law, data, direction)


def cell_parameters(draws: ModelDraws, n_prompts: float, n_rollouts: float) -> Parameters:
    """Return the crossing model's parameters at one batch, log S in updates, (draw, 1, threshold).

    One-axis data pass the total batch and 1.
    """
    log_steps = expected_log_steps(draws.posterior, np.array([float(n_prompts)]),
                                   np.array([float(n_rollouts)]), draws.law)
    sigma = draws.posterior["sigma_residual"].values[:, None]
    if "residual_trend" in draws.posterior:
        trend = draws.posterior["residual_trend"].values[:, None] * draws.data.threshold_logit
        sd, length = sigma * np.exp(trend), draws.posterior["residual_length"].values
    else:
        sd, length = sigma, np.zeros(len(sigma))
    return Parameters(log_steps, draws.posterior["sigma_run"].values, sd, length)


def new_log_steps(
    draws: ModelDraws, n_prompts: float, n_rollouts: float, rng: np.random.Generator
) -> np.ndarray:
    """Return log S in updates of one new run of a batch per draw, shape (draw, threshold).

    Generators of one seed give every batch the same noise.
    """
    cell = cell_parameters(draws, n_prompts, n_rollouts)
    return replicate_log_steps(cell, draws.data, rng)[:, 0, :]


def evaluations(every: float, updates: float) -> np.ndarray:
    """Return the updates at which a run is evaluated after its start: every so many, and its end.

    A run of length 0 has none.
    """
    steps = np.arange(1, int(updates // every) + 1) * float(every)
    ends_between = updates > 0 and (steps.size == 0 or steps[-1] < updates)
    return np.append(steps, float(updates)) if ends_between else steps


def crossing_bounds(
    log_steps: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what evaluations show of crossings.

    Parameters
    ----------
    log_steps : numpy.ndarray
        log S, shape (run, threshold), thresholds from easy to hard.
    at : numpy.ndarray
        Updates of the evaluations, sorted, at least one.

    Returns
    -------
    lower, upper, status : numpy.ndarray
        As of `cbsbayes.crossings.intervals.find_crossings`, shape (run, threshold). A harder
        threshold is never passed at an earlier evaluation than an easier one.
    """
    passed = np.searchsorted(np.log(at), log_steps)
    passed = np.maximum.accumulate(passed, axis=1)
    ends = np.concatenate([[0.0], at, [np.inf]])
    status = np.select([passed == len(at), passed == 0], [RIGHT, LEFT], INTERVAL)
    return ends[passed], ends[passed + 1], status.astype(np.int8)


def run_data(
    draws: ModelDraws, n_prompts: float, n_rollouts: float, at: np.ndarray,
    rng: np.random.Generator,
) -> CrossingData:
    """Return simulated runs of one batch as the model's data, one per draw.

    Raises
    ------
    CBSDataError
        If the law has no value at the batch.
    """
    lower, upper, status = crossing_bounds(new_log_steps(draws, n_prompts, n_rollouts, rng), at)
    dims, n_runs = ("run", "threshold"), len(lower)
    crossings = xr.Dataset(
        {"lower": (dims, lower), "upper": (dims, upper), "status": (dims, status)},
        coords={"run": np.arange(n_runs), "threshold": draws.threshold,
                "n_prompts": ("run", np.full(n_runs, float(n_prompts))),
                "n_rollouts": ("run", np.full(n_runs, float(n_rollouts))),
                "total_batch": ("run", np.full(n_runs, float(n_prompts * n_rollouts)))},
        attrs={"direction": draws.direction})
    return crossing_data(crossings, draws.law)
