"""What a run costs: samples, or GPU-hours from a rate or from the step times that the sweep logged.

A cost is any function of n_prompts, n_rollouts and updates. That from step times is of the model of
`cbsbayes.decisions.step_times`, the same that ``allocate --clock`` answers with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cbsbayes.decisions.batches import range_of
from cbsbayes.decisions.step_times import SweepStepTimes, step_times_of
from cbsbayes.errors import CBSDataError

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["Cost", "hours_cost", "sample_cost", "step_time_cost"]

_SECONDS = 3600.0


@dataclass(frozen=True)
class Cost:
    """A price and its unit.

    Attributes
    ----------
    draws : callable
        From n_prompts, n_rollouts (one axis: total batch and 1) to draws of the price of one
        update, shape (draw,); one number where the price follows from the batch.
    unit : str
        ``samples`` or ``GPU-hours``.
    how : str
        Where it is from, in one sentence.
    step_times : SweepStepTimes or None
        Which batches were timed, where the price is from step times.
    """

    draws: Callable[[float, float], np.ndarray]
    unit: str
    how: str
    step_times: SweepStepTimes | None = None

    def price(self, n_prompts: float, n_rollouts: float, updates: float) -> float:
        """Return the expected price of a run."""
        return float(np.mean(self.draws(n_prompts, n_rollouts))) * updates

    def range(self, n_prompts: float, n_rollouts: float) -> str:
        """Return where a batch lies among those timed (`range_of`); empty where none were."""
        if self.step_times is None:
            return ""
        return str(range_of([(n_prompts, n_rollouts)], self.step_times.batches)[0])


def sample_cost() -> Cost:
    """Return the cost in samples: n_prompts × n_rollouts × updates."""
    return Cost(lambda p, g: np.array([p * g]), "samples",
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
    return Cost(lambda p, g: np.array([rate * p * g]), "GPU-hours",
                f"Cost in GPU-hours: {seconds_per_sample:g} s a sample on {gpus:g} GPU(s), as "
                "given.")


def step_time_cost(fit: Fit, gpus: float = 1.0) -> Cost:
    """Return the cost in GPU-hours from the step times that the fit's runs logged.

    The price is that of the population's seconds per update.

    Raises
    ------
    CBSDataError
        If fewer than three runs have a step time, or the number of GPUs is not positive.
    """
    _positive("--gpus", gpus)
    try:
        times = step_times_of(fit)
    except CBSDataError as error:
        raise CBSDataError(f"{error}; or give --seconds-per-sample, or leave --cost at "
                           "samples") from error

    def draws(n_prompts: float, n_rollouts: float) -> np.ndarray:
        seconds = times.seconds_per_update(np.array([[n_prompts, n_rollouts]]))
        return seconds[:, 0] * gpus / _SECONDS

    spread = np.expm1(float(times.model.draws["sigma_time"].median()))
    how = (f"Cost in GPU-hours: {gpus:g} GPU(s), posterior mean of seconds per update in the "
           f"population, from the step times of {len(times.runs)} runs at {len(times.batches)} "
           f"batches (runs of one batch differ by about {100 * spread:.0f} %); start, validation "
           "and checkpoints are not in it.")
    return Cost(draws, "GPU-hours", how, times)


def _positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise CBSDataError(f"{name} is {value:g}; valid: above 0")
