"""Which batch under a budget or a deadline: the fastest that can be paid, the cheapest in time.

A batch counts where it meets the limit with the probability asked for; among those the least
median wins. Batches beyond those tried are never chosen, but the one that would have won is named;
nor are GPU counts other than the runs' own, whose times are bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.time_to_target import NEW, TYPICAL, Times, quantiles
from cbsbayes.errors import CBSDataError

__all__ = ["CHOICE_COLUMNS", "GPU_HOURS", "HOURS", "MONEY", "Choice", "Limit", "choices_table",
           "choose", "limits_of"]

CHOICE_COLUMNS = [
    "threshold", "applies_to", "question", "limit", "limit_unit", "probability_asked", "met",
    "n_prompts", "n_rollouts", "range", "gpus", "gpus_measured", "probability", "hours",
    "hours_lower", "hours_upper", "cost", "cost_lower", "cost_upper", "cost_unit", "ci_prob"]
GPU_HOURS, MONEY, HOURS = "GPU-hours", "price", "hours"  # what is limited, and what is least


@dataclass(frozen=True)
class Limit:
    """A limit and what is to be least under it.

    Attributes
    ----------
    question : str
        In words: ``fastest`` or ``cheapest``.
    value : float
        inf where there is none.
    unit : str
        `GPU_HOURS`, `MONEY` or `HOURS`: of what is limited.
    least : str
        The unit of what is to be least.
    """

    question: str
    value: float
    unit: str
    least: str


@dataclass(frozen=True)
class Choice:
    """The batch chosen.

    Attributes
    ----------
    limit : Limit
        What was asked.
    applies_to : str
        `TYPICAL` or `NEW`.
    met : bool
        Whether it meets the limit with the probability asked for; where none does, the batch is
        the one most likely to, the least of equals.
    batch, gpus : int
        Places in the grid and among the GPU counts.
    probability : float
        Of meeting the limit.
    beyond : int or None
        Place of a batch outside the range tried that would win, if the forms held there.
    """

    limit: Limit
    applies_to: str
    met: bool
    batch: int
    gpus: int
    probability: float
    beyond: int | None


def limits_of(
    times: Times, gpu_hours: float | None, money: float | None, deadline: float | None
) -> list[Limit]:
    """Return the questions to answer; without limits, the fastest and the cheapest of all.

    Raises
    ------
    CBSDataError
        If a limit is not positive, or needs a GPU count or price that is not known.
    """
    for name, value in (("--gpu-hours", gpu_hours), ("--money", money), ("--deadline", deadline)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise CBSDataError(f"{name} is {value:g}; valid: a positive number")
    if gpu_hours is not None and not times.machine.gpus:
        raise CBSDataError("--gpu-hours needs the number of GPUs the runs used; add --gpus N")
    if money is not None and times.machine.price is None:
        raise CBSDataError("--money needs a price per GPU-hour; add --price X and --gpus N")
    cost = (MONEY if times.machine.price is not None else
            GPU_HOURS if times.machine.gpus else HOURS)
    limits = [Limit("fastest", value, unit, HOURS)
              for value, unit in ((gpu_hours, GPU_HOURS), (money, MONEY)) if value is not None]
    if deadline is not None:
        limits.append(Limit("cheapest", deadline, HOURS, cost))
    if limits:
        return limits
    return [Limit("fastest", np.inf, cost, HOURS)]


def choose(
    times: Times, threshold: float, limit: Limit, probability: float, applies_to: str
) -> Choice:
    """Return the batch that is fastest or cheapest under a limit.

    Parameters
    ----------
    times : Times
        Draws of hours.
    threshold : float
        One of theirs.
    limit : Limit
        What is asked.
    probability : float
        With which the limit is to be met.
    applies_to : str
        `TYPICAL` or `NEW`.
    """
    k = times.at(threshold)
    meets = (_amount(times, applies_to, k, limit.unit) <= limit.value).mean(axis=0)
    wanted = quantiles(_amount(times, applies_to, k, limit.least), 0.5)[0]
    measured = np.arange(meets.shape[1]) == 0
    allowed = times.inside[:, None] & measured & (meets >= probability)
    met = bool(allowed.any())
    if met:
        batch, gpus = _least(np.where(allowed, wanted, np.inf))
    else:
        likely = np.where(times.inside[:, None] & measured, meets, -1.0)
        limited = quantiles(_amount(times, applies_to, k, limit.unit), 0.5)[0]
        batch, gpus = _least(np.where(likely >= likely.max(), limited, np.inf))
    could = measured & (meets >= probability)
    beyond = _least(np.where(could, wanted, np.inf))[0]
    better = could.any() and not times.inside[beyond]
    return Choice(limit, applies_to, met, batch, gpus, float(meets[batch, gpus]),
                  beyond if better else None)


def _least(values: np.ndarray) -> tuple[int, int]:
    batch, gpus = np.unravel_index(int(values.argmin()), values.shape)
    return int(batch), int(gpus)


def _amount(times: Times, applies_to: str, k: int, unit: str) -> np.ndarray:
    """Return draws of hours, GPU-hours or money at a threshold, shape (draw, batch, gpus)."""
    hours = times.hours[applies_to][:, k]
    if unit == HOURS:
        return hours
    gpu_hours = hours * np.array(times.machine.counts)
    return gpu_hours * (times.machine.price or 1.0) if unit == MONEY else gpu_hours


def choices_table(
    times: Times, thresholds: Sequence[float], limits: Sequence[Limit], probability: float,
    ci_prob: float,
) -> tuple[pd.DataFrame, list[Choice]]:
    """Return the choices as a table with columns `CHOICE_COLUMNS`, and as they are.

    A row per threshold, limit and kind of run. Where ``met`` is false, the row is the batch most
    likely to meet the limit.
    """
    choices, rows = [], []
    for threshold in thresholds:
        for limit in limits:
            for kind in (TYPICAL, NEW):
                choices.append(choose(times, threshold, limit, probability, kind))
                rows.append(_row(times, threshold, choices[-1], probability, ci_prob))
    return pd.DataFrame(rows, columns=CHOICE_COLUMNS), choices


def _row(
    times: Times, threshold: float, choice: Choice, probability: float, ci_prob: float
) -> dict[str, Any]:
    k, (prompts, rollouts) = times.at(threshold), times.batches[choice.batch]
    limit, machine = choice.limit, times.machine
    cost = limit.unit if limit.unit != HOURS else limit.least
    row: dict[str, Any] = {
        "threshold": threshold, "applies_to": choice.applies_to, "question": limit.question,
        "limit": limit.value, "limit_unit": limit.unit, "probability_asked": probability,
        "met": choice.met, "n_prompts": prompts, "n_rollouts": rollouts,
        "range": times.range[choice.batch], "gpus_measured": choice.gpus == 0,
        "gpus": machine.counts[choice.gpus] if machine.gpus else np.nan,
        "probability": choice.probability, "ci_prob": ci_prob, "cost_unit": cost}
    for name, unit in (("hours", HOURS), ("cost", cost)):
        draws = _amount(times, choice.applies_to, k, unit)[:, choice.batch, choice.gpus]
        row[name], row[f"{name}_lower"], row[f"{name}_upper"] = quantiles(draws, ci_prob).tolist()
    return row
