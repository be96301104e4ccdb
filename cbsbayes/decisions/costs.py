"""What a run costs: samples, or GPU-hours from a rate or from the step times that the sweep logged.

A cost is any function of n_prompts, n_rollouts and updates. That from step times is of the model of
`cbsbayes.clock`, the same that ``allocate --clock`` answers with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.tidy import interval
from cbsbayes.report.numbers import NO_BREAK, percent

if TYPE_CHECKING:
    from cbsbayes.decisions.step_times import SweepClock
    from cbsbayes.posterior.fit import Fit

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
    between : callable or None
        Credible interval of the price, of batch, updates and probability; None where the price
        follows from the batch.
    place : callable or None
        Where a batch lies among those whose steps were timed: ``tried``, ``inside`` or
        ``extrapolated``; None where none were.
    notes : tuple of str
        What a reader must know of it.
    """

    price: CostFunction
    unit: str
    how: str
    between: Callable[[float, float, float, float], tuple[float, float]] | None = None
    place: Callable[[float, float], str] | None = None
    notes: tuple[str, ...] = ()


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


def step_time_cost(fit: Fit, gpus: float = 1.0) -> Cost:
    """Return the cost in GPU-hours from the step times that the fit's runs logged.

    The price is the posterior mean of a typical run's seconds per update (`cbsbayes.clock`) times
    updates and GPUs.

    Raises
    ------
    CBSDataError
        If fewer than three runs have a step time, or the number of GPUs is not positive.
    """
    from cbsbayes.decisions.hull import place_batches
    from cbsbayes.decisions.step_times import clock_of

    _positive("--gpus", gpus)
    try:
        clock = clock_of(fit)
    except CBSDataError as error:
        raise CBSDataError(f"{error}; or give --seconds-per-sample, or leave --cost at "
                           "samples") from error

    @cache
    def draws(n_prompts: float, n_rollouts: float) -> np.ndarray:
        return clock.seconds_per_update(np.array([[n_prompts, n_rollouts]]))[:, 0] * gpus / _SECONDS

    def price(n_prompts: float, n_rollouts: float, updates: float) -> float:
        return float(draws(n_prompts, n_rollouts).mean()) * updates

    def between(
        n_prompts: float, n_rollouts: float, updates: float, ci_prob: float
    ) -> tuple[float, float]:
        lower, upper = interval(draws(n_prompts, n_rollouts), ci_prob)
        return lower * updates, upper * updates

    def place(n_prompts: float, n_rollouts: float) -> str:
        return str(place_batches(np.array([[n_prompts, n_rollouts]]), clock.batches)[0])

    return Cost(price, "GPU-hours", _how(clock, gpus), between, place, tuple(clock.notes))


def _how(clock: SweepClock, gpus: float) -> str:
    spread = percent(float(np.expm1(np.median(clock.clock.sigma)))).replace(NO_BREAK, " ")
    return (f"Cost in GPU-hours: {gpus:g} GPU(s), posterior mean of a typical run's seconds per "
            f"update, from the step times of {len(clock.runs)} runs at {len(clock.batches)} "
            f"batches (runs of one batch differ by about {spread}); start, validation and "
            "checkpoints are not in it.")


def _positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise CBSDataError(f"{name} is {value:g}; valid: above 0")
