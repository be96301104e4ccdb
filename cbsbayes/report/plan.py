"""Which run next: sentences, tables of text, and the page of ``plan``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.batches import interval_columns
from cbsbayes.decisions.next_runs import Plan
from cbsbayes.posterior.fit import versions
from cbsbayes.report import numbers
from cbsbayes.report.allocate import SETTINGS
from cbsbayes.report.facts import Facts
from cbsbayes.report.page import Page, Section, page_figure
from cbsbayes.report.tables import Cell, Table, from_columns
from cbsbayes.report.text import at_text, paragraph, plain, quantity_label, sentences

__all__ = ["candidates_table", "plan_label", "plan_notes", "plan_page", "plan_sentences",
           "runs_table"]

SHOWN = 12  # candidates in the terminal and that need no click; all are in plan.csv
_WEIGHT = 0.05  # of another law, from which it is named
_DEFINITIONS = {
    "information": "Expected gain about the quantity in nats: by how much the log of its standard "
                   "deviation, on the scale of its normal scores, is expected to fall.",
    "interval": "Expected (geometric mean) width of the quantity's interval after the run, over "
                "its width now.",
    "reach": "Probability that one new run of that length passes the target's threshold.",
    "runs": "Runs of that batch made so far.",
    "added, together": "What a planned run says beyond those before it, and all up to it.",
    "*": "The batch lies outside the range of prompts, rollouts or samples tried; of a cost, "
         "outside those whose steps were timed.",
    "below": "Less than twice its Monte Carlo error: not told from nothing.",
}


def plan_label(plan: Plan) -> str:
    """Return the quantity in words, e.g. ``Prompt CBS at 8 rollouts, threshold 0.9``."""
    quantity = plan.quantity
    at = f" at {at_text(quantity.at)}" if quantity.at else ""
    where = f", threshold {quantity.threshold:g}" if math.isfinite(quantity.threshold) else ""
    return f"{quantity_label(quantity.name)}{at}{where}"


def plan_sentences(plan: Plan) -> list[str]:
    """Return what comes next, and what it is for."""
    quantity, table, runs = plan.quantity, plan.table, plan.runs
    unit = "" if quantity.unit == "1" else f" {quantity.unit}"
    ends = interval_columns("now", quantity.values, plan.ci_prob).values()
    value, between = numbers.value_with_interval(*(float(end) for end in ends))
    resolved = table[table["resolved"]]
    best = table.iloc[0]
    near = (resolved["per_cost"] + 2 * resolved["per_cost_error"]
            >= best["per_cost"] - 2 * best["per_cost_error"]).sum()
    dear = any(runs.iloc[0][key] != best[key] for key in ("n_prompts", "n_rollouts", "updates"))
    first, last = runs.iloc[0], runs.iloc[-1]
    return sentences(
        "plan", plan=plan, quantity=quantity, label=plan_label(plan), now=f"{value} ({between})"
        f"{unit}", between=f"{between}{unit}", resolved=resolved, near=near, dear=dear,
        first={**first, "batch": _batch_text(plan, first), "cost_text": _cost(plan, first["cost"]),
               "added_text": _pm(first, "added"), "narrower": 1.0 - math.exp(-first["added"])},
        last={**last, "so_far_text": _cost(plan, last["cost_so_far"]),
              "together_text": _pm(last, "together"), "narrower": 1.0 - last["width_ratio"]})


def plan_notes(plan: Plan, facts: Facts) -> list[str]:
    """Return what stands between a plan and taking it at its word."""
    table, law = facts.fit.law_table, facts.fit.law.name
    weight = table.set_index("law")["weight"] if "weight" in table else pd.Series(dtype=float)
    others = weight[(weight.index != law) & (weight >= _WEIGHT)]
    return sentences(
        "plan_notes", plan=plan, resolved=plan.table[plan.table["resolved"]], law=law,
        weight=float(weight.get(law, np.nan)),
        other_laws=[f"{name} {share:.2g}" for name, share in others.items()])


def _batch_text(plan: Plan, row: pd.Series) -> str:
    if plan.tried.one_axis:
        return f"total batch {row['total_batch']:g}"
    return f"n_prompts {row['n_prompts']:g}, n_rollouts {row['n_rollouts']:g}"


def _number(plan: Plan, cost: float) -> str:
    return f"{cost:,.0f}" if plan.cost.unit == "samples" else f"{cost:,.3g}"


def _cost(plan: Plan, cost: float) -> str:
    return f"{_number(plan, cost)} {plan.cost.unit}"


def _pm(row: pd.Series, name: str) -> str:
    return f"{row[name]:.3g} ± {row[f'{name}_error']:.1g}"


def candidates_table(plan: Plan, shown: int | None = None) -> Table:
    """Return the candidates, best per price first; all unless told how many."""
    best = float(plan.table["per_cost"].max())
    power = 0 if best <= 0 else -3 * math.floor(math.log10(best) / 3)
    unit = f"nats per {f'10^{power} ' if power else ''}{plan.cost.unit}"
    rows = plan.table.head(len(plan.table) if shown is None else shown)
    each = [row for _, row in rows.iterrows()]
    return from_columns(
        f"{len(rows)} of {len(plan.table)} candidates; information in nats about the quantity, "
        "± Monte Carlo error; runs: made so far; reach: of one new run; * extrapolated.",
        {"rank": [Cell(f"{row['rank']}", mark="ours" if row["chosen"] else "") for row in each],
         **_batch_columns(plan, each),
         "runs": rows["runs_tried"], "reach": [Cell(f"{row['reach']:.2f}") for row in each],
         "information": [Cell(_pm(row, "information") if row["resolved"] else
                              f"below {2 * row['information_error']:.1g}") for row in each],
         "interval": [Cell(f"× {row['width_ratio']:.3f}") for row in each],
         unit: [Cell(f"{10.0**power * row['per_cost']:.3g} ± "
                     f"{10.0**power * row['per_cost_error']:.1g}") for row in each]})


def runs_table(plan: Plan) -> Table:
    """Return the planned runs in their order."""
    each = [row for _, row in plan.runs.iterrows()]
    return from_columns("Planned, each beyond those before it; * extrapolated.", {
        "order": plan.runs["order"], **_batch_columns(plan, each),
        "so far": [Cell(_number(plan, row["cost_so_far"])) for row in each],
        "added, nats": [Cell(_pm(row, "added")) for row in each],
        "together, nats": [Cell(_pm(row, "together")) for row in each],
        "interval": [Cell(f"× {row['width_ratio']:.3f}") for row in each]})


def _batch_columns(plan: Plan, rows: Sequence[pd.Series]) -> dict[str, list[Cell]]:
    """Return batch, length, seed and price; a cost from step times has its interval below."""
    batches = [f"{row['total_batch']:g}" if plan.tried.one_axis
               else f"{row['n_prompts']:g} × {row['n_rollouts']:g}" for row in rows]
    marks = [" *" if row["extrapolated"] else "" for row in rows]
    costs = [Cell(_number(plan, row["cost"])
                  + (" *" if row["cost_range"] == "extrapolated" else ""),
                  "–".join(_number(plan, row[end]) for end in ("cost_lower", "cost_upper"))
                  if math.isfinite(row["cost_lower"]) else "") for row in rows]
    head = "total batch" if plan.tried.one_axis else "prompts × rollouts"
    return {head: [Cell(batch + mark) for batch, mark in zip(batches, marks, strict=True)],
            "updates": [Cell(f"{row['updates']:g}") for row in rows],
            "seed": [Cell(f"{row['seed']:g}") for row in rows], plan.cost.unit: costs}


def plan_page(plan: Plan, facts: Facts, record: Mapping[str, Any], folder: Path) -> Page:
    """Return what stands on the page of a plan.

    Parameters
    ----------
    plan : Plan
        The plan.
    facts : Facts
        Of the fit it is based on.
    record : mapping
        What ``plan.json`` holds.
    folder : Path
        With the figure, ``plan.svg``, drawn.
    """
    fit, request = facts.fit, plan.request
    passed = bool(fit.verdict["sampling"]["passed"])
    budget = (f" within {_cost(plan, request.budget)} together" if np.isfinite(request.budget)
              else "")
    runs = "The next run was" if request.runs == 1 else f"Up to {request.runs} runs were"
    chosen = (f"The next runs were chosen among {len(plan.table)} candidate batches and lengths by "
              f"the expected information about one quantity ({plan_label(plan)}): for each "
              f"candidate, {request.data_sets} data sets were simulated from the posterior and "
              f"each used to reweight up to {numbers.count(request.draws)} posterior draws.")
    return Page(
        kicker="Which run next", title=f"Which run says most about: {plan_label(plan)}?",
        asked=f"{runs} asked for{budget}, of {len(plan.table)} candidates, from the fit of "
              f"{fit.crossings.sizes['run']} runs of {fit.group}, law {fit.law.name}.",
        level=fit.verdict["level"], verdict=fit.verdict["title"],
        cautions=[*([] if passed else fit.verdict["sentences"]), *record["notes"]],
        answer=record["sentences"], sections=_sections(plan, record, folder),
        definitions=_DEFINITIONS, laws=[fit.law],
        paper=paragraph("decision_paper", facts=facts, lines=[chosen, *record["sentences"]]),
        made={"command": record["command"],
              "request": {name: "" if value is None else plain(value) for name, value in
                          record["request"].items()},
              "evaluated_every": plan.tried.every, "cost": plan.cost.how,
              "fit": {name: fit.settings.get(name, "") for name in SETTINGS},
              "versions": versions()},
        files=["plan.csv", "runs.csv", "plan.json", "plan.svg"])


def _sections(plan: Plan, record: Mapping[str, Any], folder: Path) -> list[Section]:
    figure = page_figure(
        folder, "plan", "Information per price",
        "What a run of every batch is expected to say for its price, at its best length. A dot "
        "stands for every run made so far, an orange frame for a planned run with its place in "
        "the order, hatching for a batch outside the range tried, grey for information below "
        "twice its Monte Carlo error.")
    more = len(plan.table) > SHOWN
    return [
        Section("runs", "The planned runs", tables={"runs": runs_table(plan)}, kind="narrow"),
        Section("start", "How to start them", intro=record["lines_from"], lines=record["lines"]),
        Section("candidates", "All candidates, best per price first",
                tables={"candidates": candidates_table(plan, SHOWN)}, figures=[figure],
                folded={"all_candidates": candidates_table(plan)} if more else {}, kind="narrow")]
