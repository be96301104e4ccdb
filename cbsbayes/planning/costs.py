"""What a run costs: samples, or GPU-hours from a rate or from the step times that the sweep logged.

A cost is any function of n_prompts, n_rollouts and updates; another model of step times can stand
in for the simple one here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.optimize import nnls

from cbsbayes.errors import CBSDataError

__all__ = ["Cost", "CostFunction", "hours_cost", "sample_cost", "step_time_cost"]

CostFunction = Callable[[float, float, float], float]
"""From n_prompts, n_rollouts and updates to the price of a run; one axis: total batch and 1."""

_SECONDS = 3600.0


@dataclass(frozen=True)
class Cost:
    """A price and its unit.

    Attributes
    ----------
    price : callable
        Of `CostFunction`.
    unit : str
        ``samples`` or ``GPU-hours``.
    how : str
        Where it is from, in one sentence.
    """

    price: CostFunction
    unit: str
    how: str


def sample_cost() -> Cost:
    """Return the cost in samples: n_prompts × n_rollouts × updates."""
    return Cost(lambda p, g, updates: p * g * updates, "samples",
                "Cost in samples: n_prompts × n_rollouts × updates.")


def hours_cost(seconds_per_sample: float, gpus: float = 1.0) -> Cost:
    """Return the cost in GPU-hours at so many seconds a sample on all GPUs together.

    Raises
    ------
    CBSDataError
        If either is not positive.
    """
    _positive("--seconds-per-sample", seconds_per_sample)
    _positive("--gpus", gpus)
    rate = seconds_per_sample * gpus / _SECONDS
    return Cost(lambda p, g, updates: rate * p * g * updates, "GPU-hours",
                f"Cost in GPU-hours: {seconds_per_sample:g} s a sample on {gpus:g} GPU(s), as "
                "given.")


def step_time_cost(runs: xr.Dataset, gpus: float = 1.0) -> Cost:
    """Return the cost in GPU-hours from the step times that runs logged.

    Seconds per update are t_0 + c_p·P + c_r·P·G with coefficients of at least 0, fitted by least
    squares of relative errors; one-axis data have t_0 + c·B.

    Raises
    ------
    CBSDataError
        If no run has a step time, or the number of GPUs is not positive.
    """
    _positive("--gpus", gpus)
    seconds, parts = _timed(runs)
    scaled = parts / seconds[:, None]
    coefficients, _ = nnls(scaled, np.ones(len(seconds)))
    error = float(np.sqrt(np.mean((scaled @ coefficients - 1.0) ** 2)))

    def price(n_prompts: float, n_rollouts: float, updates: float) -> float:
        at = _parts(np.array([float(n_prompts)]), np.array([float(n_rollouts)]))
        return float((at[:, :parts.shape[1]] @ coefficients)[0]) * updates * gpus / _SECONDS

    return Cost(price, "GPU-hours", f"Cost in GPU-hours: {gpus:g} GPU(s), seconds per update "
                f"fitted to the step times of {len(seconds)} runs (rms error {error:.0%}); start, "
                "validation and checkpoints are not in it.")


def _timed(runs: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return seconds per update of the timed runs, and what they are a sum of."""
    none = CBSDataError("no step time is known in any run, so GPU-hours cannot be told; give "
                        "--seconds-per-sample, or leave --cost at samples")
    if "step_time" not in runs:
        raise none
    per_step = runs["updates_per_step"].values if "updates_per_step" in runs.coords else 1
    seconds = runs["step_time"].values / per_step
    known = np.isfinite(seconds) & (seconds > 0)
    if not known.any():
        raise none
    one_axis = bool((runs["n_prompts"].values < 0).any())
    prompts = runs["total_batch" if one_axis else "n_prompts"].values.astype(float)
    rollouts = np.ones(len(prompts)) if one_axis else runs["n_rollouts"].values.astype(float)
    return seconds[known], _parts(prompts, rollouts)[known][:, :2 if one_axis else 3]


def _parts(n_prompts: np.ndarray, n_rollouts: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(n_prompts), n_prompts, n_prompts * n_rollouts], axis=1)


def _positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise CBSDataError(f"{name} is {value:g}; valid: above 0")
