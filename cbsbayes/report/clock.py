"""Words and tables of the clock: step times, times to the target, and the batch under a limit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cbsbayes.decisions.allocation import TYPICAL
from cbsbayes.decisions.time_limits import HOURS, MONEY
from cbsbayes.plots.scales import time_unit
from cbsbayes.report import numbers
from cbsbayes.report.numbers import estimate
from cbsbayes.report.tables import Cell, Column, Table, estimate_cell

if TYPE_CHECKING:
    from cbsbayes.decisions.time_answer import ClockAnswer
    from cbsbayes.decisions.time_limits import Choice
    from cbsbayes.report.allocation import Allocation

__all__ = ["choice_sentences", "clock_sentence", "clock_tables",
           "with_clock"]

_SHOWN, _BOUNDS = 12, 4  # batches of the table, and on GPU counts other than the runs' own


def with_clock(told: Allocation, answer: ClockAnswer | str) -> Allocation:
    """Return what the terminal shows of a decision, with the clock's answer after it."""
    if isinstance(answer, str):
        return replace(told, notes=[*told.notes, answer])
    return replace(told, sentences=[*told.sentences, clock_sentence(answer),
                                    *choice_sentences(answer)],
                   notes=[*told.notes, *answer.notes],
                   tables=[*told.tables, *clock_tables(answer)])


def clock_sentence(answer: ClockAnswer) -> str:
    """Return the step-time model in one sentence."""
    clock, runs = answer.sweep_clock.clock, answer.sweep_clock.runs
    rows = {row["quantity"]: row for _, row in answer.tables["clock"].iterrows()}
    form = ("t(B) = t_0 ⊕ c_b·B" if answer.sweep_clock.one_axis
            else "t(P, R) = t_0 ⊕ (c_p·P + c_r·P·R)")
    told = [f"{row['quantity']} {_value(row)} {row['unit']}" for row in rows.values()
            if row["quantity"] in clock.names]
    spread = numbers.percent(float(np.expm1(np.median(clock.sigma))))
    return (f"A trainer step takes {form}, fitted to {len(runs)} runs at "
            f"{len(answer.sweep_clock.batches)} batches: {', '.join(told)}; ⊕ lies between the sum "
            f"and the larger of both (kappa {_value(rows['kappa'])}). Runs of one batch "
            f"differ by about {spread}.")


def _value(row: pd.Series) -> str:
    told = estimate(row)
    return f"{told.value} ({told.interval})" if told.identified and told.interval else told.value


def choice_sentences(answer: ClockAnswer) -> list[str]:
    """Return a sentence for each limit and kind of run."""
    rows = answer.tables["clock_choices"]
    return [_choice_sentence(answer, choice, rows.iloc[k])
            for k, choice in enumerate(answer.choices)]


def _choice_sentence(answer: ClockAnswer, choice: Choice, row: pd.Series) -> str:
    name = _name(answer, choice.batch)
    amount = _amounts(row)
    limit = _limit(row)
    if not choice.met:
        return (f"No batch inside the range tried takes {_article(choice.applies_to)} to "
                f"{answer.target} within {limit} with probability "
                f"{answer.probability:g}: the most likely, {name}, does with probability "
                f"{_chance(choice.probability)} and takes {amount}.{_beyond(answer, choice)}")
    if np.isinf(row["limit"]):
        start = f"To {answer.target}, the {choice.limit.question} batch"
        chance = _fastest(answer, choice) if choice.applies_to == TYPICAL else ""
    else:
        start = (f"To {answer.target} within {limit} (probability at least "
                 f"{answer.probability:g}), the {choice.limit.question} batch")
        chance = f" (it meets the limit with probability {_chance(choice.probability)})"
    return (f"{start} for {_article(choice.applies_to)} is {name}{chance}: {amount}."
            f"{_beyond(answer, choice)}")


def _limit(row: pd.Series) -> str:
    amount = numbers.count(float(row["limit"]))
    return f"a price of {amount}" if row["limit_unit"] == MONEY else f"{amount} {row['limit_unit']}"


def _article(applies_to: str) -> str:
    return f"a {applies_to}" if applies_to == TYPICAL else applies_to


def _beyond(answer: ClockAnswer, choice: Choice) -> str:
    if choice.beyond is None:
        return ""
    return (f" Beyond the batches tried {_name(answer, choice.beyond)} would do better, if the "
            "forms hold there.")


def _fastest(answer: ClockAnswer, choice: Choice) -> str:
    table = answer.tables["times"]
    prompts, rollouts = answer.times.batches[choice.batch]
    here = table[np.isclose(table["threshold"], answer.threshold) & table["gpus_measured"]
                 & (table["applies_to"] == TYPICAL) & (table["n_prompts"] == prompts)
                 & (table["n_rollouts"] == rollouts)]
    return f" (the fastest with probability {_chance(float(here['p_fastest'].iloc[0]))})"


def _amounts(row: pd.Series) -> str:
    per, unit = time_unit(3600 * float(row["hours"]))
    told = [f"{_three(row, 'hours', 3600 / per)} {unit}"]
    cost = _three(row, "cost", 1.0)
    if row["cost_unit"] != HOURS:
        told.append(f"price {cost}" if row["cost_unit"] == MONEY else f"{cost} GPU-hours")
    return ", ".join(told)


def _three(row: pd.Series, name: str, factor: float) -> str:
    value, between = numbers.value_with_interval(
        *(factor * float(row[part]) for part in (name, f"{name}_lower", f"{name}_upper")))
    return f"{value} ({between})"


def _name(answer: ClockAnswer, batch: int) -> str:
    prompts, rollouts = answer.times.batches[batch]
    if answer.sweep_clock.one_axis:
        return f"{prompts:,.0f} samples"
    return f"{prompts:,.0f} prompts × {rollouts:,.0f} rollouts"


def _chance(p: float) -> str:
    return ("above 0.99" if p > 0.995 else "below 0.01" if p < 0.005 else f"{p:.2f}")


def clock_tables(answer: ClockAnswer) -> list[Table]:
    """Return the step-time coefficients, and times of the fastest batches."""
    return [_coefficients(answer), _times(answer)]


def _coefficients(answer: ClockAnswer) -> Table:
    table = answer.tables["clock"]
    prob = numbers.percent(float(table["ci_prob"].iloc[0]))
    rows: list[tuple[Cell, ...]] = [
        (Cell(str(row["quantity"])), Cell(str(row["meaning"])), estimate_cell(estimate(row)),
         Cell(str(row["unit"])), Cell(str(row["status"]).replace("_", " ")))
        for _, row in table.iterrows()]
    return Table(f"The step-time model: median and {prob} credible interval, equal-tailed.",
                 (Column("quantity"), Column("meaning"), Column("estimate", True), Column("unit"),
                  Column("status")), rows)


def _times(answer: ClockAnswer) -> Table:
    table, machine = answer.tables["times"], answer.times.machine
    here = table[np.isclose(table["threshold"], answer.threshold)]
    typical = here[here["applies_to"] == TYPICAL].sort_values("hours")
    new = here[here["applies_to"] != TYPICAL].set_index(["n_prompts", "n_rollouts", "gpus"])
    measured = typical["gpus_measured"].astype(bool)
    shown = pd.concat([typical[measured].head(_SHOWN), typical[~measured].head(_BOUNDS)])
    per_unit = time_unit(3600 * float(shown["hours"].iloc[0]))
    heads = [Column("batch"), Column("range"), *([Column("GPUs")] if machine.gpus else []),
             Column(f"typical run, {per_unit[1]}", True), Column("one new run", True),
             *([Column("GPU-hours", True)] if machine.gpus else []),
             *([Column("price", True)] if machine.price is not None else []),
             Column("samples", True), Column("P(fastest)", True)]
    rows = [_time_row(answer, row, new, 3600 / per_unit[0]) for _, row in shown.iterrows()]
    caption = (f"Time to {answer.target}, the {min(_SHOWN, measured.sum())} fastest of "
               f"{measured.sum()} batches: medians with intervals. P(fastest): of the batches "
               "inside the range tried.")
    return Table(caption, tuple(heads), rows)


def _time_row(
    answer: ClockAnswer, row: pd.Series, new: pd.DataFrame, factor: float
) -> tuple[Cell, ...]:
    machine = answer.times.machine
    other = new.xs((row["n_prompts"], row["n_rollouts"]), level=("n_prompts", "n_rollouts"))
    again = other.iloc[list(answer.times.machine.counts).index(
        int(row["gpus"])) if machine.gpus else 0]
    extrapolated = row["range"] == "extrapolated"
    name = (numbers.count(row["n_prompts"]) if answer.sweep_clock.one_axis else
            f"{numbers.count(row['n_prompts'])} × {numbers.count(row['n_rollouts'])}")
    cells = [Cell(name), Cell(str(row["range"]))]
    if machine.gpus:
        bounds = "" if row["gpus_measured"] else "bound"
        cells.append(Cell(numbers.count(row["gpus"]), bounds))
    cells += [_interval_cell(row, "hours", factor), _interval_cell(again, "hours", factor)]
    cells += [_interval_cell(row, "gpu_hours")] if machine.gpus else []
    cells += [_interval_cell(row, "price")] if machine.price is not None else []
    chance = numbers.MISSING if extrapolated else _chance(float(row["p_fastest"]))
    return (*cells, _interval_cell(row, "samples"), Cell(chance))


def _interval_cell(row: pd.Series, name: str, factor: float = 1.0) -> Cell:
    value, between = numbers.value_with_interval(
        *(factor * float(row[part]) for part in (name, f"{name}_lower", f"{name}_upper")))
    return Cell(value, between)
