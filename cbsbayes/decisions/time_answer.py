"""The whole answer of the clock: step times, times to the target, the batch under a limit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from cbsbayes.decisions.step_times import SweepClock, clock_of, clock_table
from cbsbayes.decisions.time_limits import Choice, choices_table, limits_of
from cbsbayes.decisions.time_to_target import Machine, Times, times_of
from cbsbayes.decisions.times_table import times_table
from cbsbayes.plots.reading import threshold_label

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["ClockAnswer", "answer_clock"]

_COUNTED = ("Counted are training steps alone: validation, checkpoints and the start of a run come "
            "on top.")


@dataclass(frozen=True, eq=False)
class ClockAnswer:
    """What a fit and its step times say.

    Attributes
    ----------
    threshold : float
        That sentences and figures speak of.
    target : str
        The threshold in words.
    probability : float
        With which limits are to be met.
    sweep_clock : SweepClock
        The step-time model.
    times : Times
        Draws over the grid, all thresholds.
    choices : list of Choice
        At the threshold, a typical run and one new run for each limit.
    tables : dict
        By the name of their file: ``clock, times, clock_choices``.
    notes : list of str
        What a reader must know.
    """

    threshold: float
    target: str
    probability: float
    sweep_clock: SweepClock
    times: Times
    choices: list[Choice]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def answer_clock(
    fit: Fit, machine: Machine | None = None, *, threshold: float, gpu_hours: float | None = None,
    money: float | None = None, deadline: float | None = None, probability: float = 0.9,
) -> ClockAnswer:
    """Return the times to target of a fit, and the batch under each limit.

    Parameters
    ----------
    fit : Fit
        A fit whose runs logged step times.
    machine : Machine, optional
        GPUs and price; without it time only.
    threshold : float
        A fitted target that the choices are made for; tables of times hold all.
    gpu_hours, money, deadline : float, optional
        Limits: GPU-hours, price and hours of one run.
    probability : float
        With which they are to be met.

    Raises
    ------
    CBSDataError
        If fewer than three runs have a step time, or a limit is not possible.
    """
    machine = machine or Machine()
    sweep_clock = clock_of(fit)
    times = times_of(fit, machine, random_seed=int(fit.settings.get("random_seed", 0)))
    limits = limits_of(times, gpu_hours, money, deadline)
    ci_prob = float(fit.settings["ci_prob"])
    chosen, choices = choices_table(times, [threshold], limits, probability, ci_prob)
    tables = {"clock": clock_table(sweep_clock, fit.group, ci_prob),
              "times": times_table(fit, times), "clock_choices": chosen}
    target = threshold_label(fit, threshold)
    return ClockAnswer(threshold, target, probability, sweep_clock, times, choices, tables,
                       [*sweep_clock.notes, *_notes(machine)])


def _notes(machine: Machine) -> list[str]:
    if not machine.gpus:
        return [_COUNTED, "The number of GPUs is not known (logs do not tell it): times hold on "
                "the machine the runs were made on; --gpus N gives GPU-hours."]
    notes = [_COUNTED, "On one number of GPUs the fastest batch is the cheapest as well."]
    if len(machine.counts) > 1:
        others = ", ".join(str(count) for count in machine.counts[1:])
        notes.append(f"Times on {others} GPUs are bounds, and no choice is made from them: they "
                     "divide all that grows with the batch by the number of GPUs and leave out "
                     "what more GPUs cost each other.")
    return notes
