"""Step times, times to the target and the batch under a limit: sentences and tables of text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.batches import NEW_RUN, POPULATION
from cbsbayes.decisions.time_to_target import HOURS, MONEY, TimeAnswer
from cbsbayes.plots.scales import time_unit
from cbsbayes.report import numbers
from cbsbayes.report.facts import Facts, batch_text
from cbsbayes.report.numbers import estimate, value_with_interval
from cbsbayes.report.tables import Cell, Table, from_columns
from cbsbayes.report.text import sentences

__all__ = ["time_notes", "time_sentences", "time_tables"]

_SHOWN, _BOUNDS = 12, 4  # batches of the table, and on GPU counts other than the runs' own
_WHO = {POPULATION: "the population of runs", NEW_RUN: "one new run"}


def time_sentences(facts: Facts, answer: TimeAnswer) -> list[str]:
    """Return the step-time model in one sentence, and one for each limit and kind of run."""
    table = answer.tables["clock"]
    terms = [f"{row['quantity']} {estimate(row)} {row['unit']}" for _, row in table.iterrows()
             if row["quantity"] in answer.step_times.model.names]
    kappa = estimate(table[table["quantity"] == "kappa"].iloc[0])
    sigma = float(answer.step_times.model.draws["sigma_time"].median())
    return sentences(
        "times", target=facts.target, one_axis=answer.step_times.one_axis, terms=terms,
        n_runs=len(answer.step_times.runs), n_batches=len(answer.step_times.batches), kappa=kappa,
        spread=np.expm1(sigma), infinity=np.inf,
        choices=[_choice(answer, row) for _, row in answer.tables["clock_choices"].iterrows()])


def _choice(answer: TimeAnswer, row: pd.Series) -> dict[str, Any]:
    one_axis = answer.step_times.one_axis
    per, unit = time_unit(3600 * float(row["hours"]))
    amounts = [f"{_three(row, 'hours', 3600 / per)} {unit}"]
    if row["cost_unit"] != HOURS:
        cost = _three(row, "cost")
        amounts.append(f"price {cost}" if row["cost_unit"] == MONEY else f"{cost} GPU-hours")
    limit = numbers.count(float(row["limit"]))
    beyond = pd.Series({"n_prompts": row["beyond_n_prompts"],
                        "n_rollouts": row["beyond_n_rollouts"],
                        "total_batch": row["beyond_n_prompts"]})
    times = answer.tables["times"]
    here = times[np.isclose(times["threshold"], answer.threshold) & times["gpus_measured"]
                 & (times["applies_to"] == POPULATION) & (times["n_prompts"] == row["n_prompts"])
                 & (times["n_rollouts"] == row["n_rollouts"])]
    return {**row, "who": _WHO[row["applies_to"]], "amounts": ", ".join(amounts),
            "batch": batch_text(row.rename({"n_prompts": "total_batch"}) if one_axis else row,
                                one_axis=one_axis),
            "beyond": "" if np.isnan(row["beyond_n_prompts"]) else batch_text(beyond,
                                                                            one_axis=one_axis),
            "limit_text": (f"a price of {limit}" if row["limit_unit"] == MONEY
                           else f"{limit} {row['limit_unit']}"),
            "p_fastest": (float(here["p_fastest"].iloc[0])
                          if row["applies_to"] == POPULATION else None)}


def _three(row: pd.Series, name: str, factor: float = 1.0) -> str:
    value, between = value_with_interval(
        *(factor * float(row[part]) for part in (name, f"{name}_lower", f"{name}_upper")))
    return f"{value} ({between})"


def time_notes(answer: TimeAnswer) -> list[str]:
    """Return what a reader of times must know."""
    return sentences("times_notes", notes=answer.step_times.notes, machine=answer.times.machine)


def time_tables(facts: Facts, answer: TimeAnswer) -> dict[str, Table]:
    """Return the step-time coefficients, and times of the fastest batches, by file name."""
    table = answer.tables["clock"]
    coefficients = from_columns(
        f"The step-time model: median and {numbers.percent(float(table['ci_prob'].iloc[0]))} "
        "credible interval, equal-tailed.",
        {"quantity": table["quantity"], "meaning": table["meaning"],
         "estimate": [estimate(row) for _, row in table.iterrows()], "unit": table["unit"],
         "status": table["status"].str.replace("_", " ")})
    return {"clock": coefficients, "times": _times(facts, answer)}


def _times(facts: Facts, answer: TimeAnswer) -> Table:
    table, machine = answer.tables["times"], answer.times.machine
    here = table[np.isclose(table["threshold"], answer.threshold)]
    keys = ["n_prompts", "n_rollouts", *(["gpus"] if machine.gpus else [])]
    wide = here[here["applies_to"] == POPULATION].merge(
        here[here["applies_to"] == NEW_RUN], on=keys, suffixes=("", "_new")).sort_values("hours")
    measured = wide["gpus_measured"].astype(bool)
    rows = pd.concat([wide[measured].head(_SHOWN), wide[~measured].head(_BOUNDS)])
    rows = rows.rename(columns={f"hours_{end}_new": f"new_{end}" for end in ("lower", "upper")}
                       | {"hours_new": "new"})
    per, unit = time_unit(3600 * float(rows["hours"].iloc[0]))
    columns: dict[str, Any] = {
        "batch": [numbers.count(p) if answer.step_times.one_axis else
                  f"{numbers.count(p)} × {numbers.count(g)}"
                  for p, g in zip(rows["n_prompts"], rows["n_rollouts"], strict=True)],
        "range": rows["range"]}
    if machine.gpus:
        columns["GPUs"] = [Cell(numbers.count(n), "" if known else "bound") for n, known in
                           zip(rows["gpus"], rows["gpus_measured"], strict=True)]
    columns |= {f"population, {unit}": _cells(rows, "hours", 3600 / per),
                "one new run": _cells(rows, "new", 3600 / per)}
    columns |= {"GPU-hours": _cells(rows, "gpu_hours")} if machine.gpus else {}
    columns |= {"price": _cells(rows, "price")} if machine.price is not None else {}
    columns |= {"samples": _cells(rows, "samples"),
                "P(fastest)": [Cell(numbers.probability(float(p))) for p in rows["p_fastest"]]}
    return from_columns(
        f"Time to {facts.target}, the {min(_SHOWN, measured.sum())} fastest of {measured.sum()} "
        "batches: medians with intervals. P(fastest): of the batches inside the range tried.",
        columns)


def _cells(rows: pd.DataFrame, name: str, factor: float = 1.0) -> list[Cell]:
    return [Cell(*value_with_interval(*(factor * ends).tolist())) for ends in
            rows[[name, f"{name}_lower", f"{name}_upper"]].to_numpy(dtype=float)]
