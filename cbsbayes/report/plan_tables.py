"""A plan's candidates and runs as tables of text, for the terminal and the page."""

from __future__ import annotations

import math

import pandas as pd

from cbsbayes.decisions.planner import Plan
from cbsbayes.report.plan_words import cost_words, per_cost_unit
from cbsbayes.report.tables import Cell, Column, Table

__all__ = ["candidates_table", "runs_table"]


def candidates_table(plan: Plan, shown: int | None = None) -> Table:
    """Return the candidates, best per price first; all unless told how many."""
    factor, unit = per_cost_unit(plan)
    rows = plan.table.head(len(plan.table) if shown is None else shown)
    heads = ("rank", _batch_head(plan), "updates", "seed", plan.cost.unit, "runs", "reach",
             "information", "interval", unit)
    return Table(
        f"{len(rows)} of {len(plan.table)} candidates; information in nats about the quantity, "
        "± Monte Carlo error; runs: made so far; reach: of one new run.",
        tuple(Column(name, True) for name in heads),
        [_candidate(plan, row, factor) for _, row in rows.iterrows()])


def _candidate(plan: Plan, row: pd.Series, factor: float) -> tuple[Cell, ...]:
    mark = "ours" if row["chosen"] else ""
    return (Cell(f"{row['rank']}", mark=mark), Cell(_batch(plan, row), mark=mark),
            Cell(f"{row['updates']:g}"), Cell(f"{row['seed']:g}"), _cost(plan, row),
            Cell(f"{row['runs_tried']}"), Cell(f"{row['reach']:.2f}"), Cell(_information(row)),
            Cell(f"× {row['width_ratio']:.3f}"),
            Cell(f"{factor * row['per_cost']:.3g} ± {factor * row['per_cost_error']:.1g}"))


def runs_table(plan: Plan) -> Table:
    """Return the planned runs in their order."""
    heads = ("order", _batch_head(plan), "updates", "seed", plan.cost.unit, "so far",
             "added, nats", "together, nats", "interval")
    return Table("Planned, each beyond those before it.",
                 tuple(Column(name, True) for name in heads),
                 [_run(plan, row) for _, row in plan.runs.iterrows()])


def _run(plan: Plan, row: pd.Series) -> tuple[Cell, ...]:
    return (Cell(f"{row['order']:g}"), Cell(_batch(plan, row)), Cell(f"{row['updates']:g}"),
            Cell(f"{row['seed']:g}"), _cost(plan, row), Cell(_number(row["cost_so_far"], plan)),
            Cell(f"{row['added']:.3g} ± {row['added_error']:.1g}"),
            Cell(f"{row['together']:.3g} ± {row['together_error']:.1g}"),
            Cell(f"× {row['width_ratio']:.3f}"))


def _batch(plan: Plan, row: pd.Series) -> str:
    mark = " (outside)" if row["extrapolated"] else ""
    if plan.tried.one_axis:
        return f"{row['total_batch']:g}{mark}"
    return f"{row['n_prompts']:g} × {row['n_rollouts']:g}{mark}"


def _batch_head(plan: Plan) -> str:
    return "total batch" if plan.tried.one_axis else "prompts × rollouts"


def _cost(plan: Plan, row: pd.Series) -> Cell:
    """Return the price with a mark where its step time is extrapolated, its interval below."""
    mark = " (extrapolated)" if row["cost_range"] == "extrapolated" else ""
    known = math.isfinite(row["cost_lower"])
    between = "–".join(_number(row[end], plan) for end in ("cost_lower", "cost_upper"))
    return Cell(f"{_number(row['cost'], plan)}{mark}", between if known else "")


def _information(row: pd.Series) -> str:
    if not row["resolved"]:
        return f"below {2 * row['information_error']:.1g}"
    return f"{row['information']:.3g} ± {row['information_error']:.1g}"


def _number(cost: float, plan: Plan) -> str:
    return cost_words(cost, plan.cost.unit).removesuffix(f" {plan.cost.unit}")
