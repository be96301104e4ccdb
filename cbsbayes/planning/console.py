"""A plan in the terminal: what it is about, the ranked candidates, the runs, the lines."""

from __future__ import annotations

import sys
from typing import Any

import pandas as pd
from rich import markup
from rich.console import Console
from rich.table import Table

from cbsbayes.cli import one_line
from cbsbayes.planning.planner import Plan
from cbsbayes.planning.words import cost_words, per_cost_unit
from cbsbayes.result import Fit

__all__ = ["print_plan"]

_WIDTH = 120


def print_plan(
    fit: Fit, plan: Plan, record: dict[str, Any], *, shown: int, console: Console | None = None
) -> None:
    """Print one plan.

    Parameters
    ----------
    fit : Fit
        What it is based on.
    plan : Plan
        The plan.
    record : dict
        Of `cbsbayes.planning.record.plan_record`.
    shown : int
        Candidates at most.
    console : rich.console.Console, optional
        Standard output unless given.
    """
    console = console or Console(
        emoji=False, highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(f"[bold]{_plain(fit.group)}[/bold]: {fit.crossings.sizes['run']} runs, law "
                  f"{fit.law.name}")
    for sentence in record["sentences"]:
        console.print(f"  · {_plain(sentence)}")
    console.print(_candidates(plan, shown))
    if len(plan.runs) > 1:
        console.print(_runs(plan))
    if record["lines"]:
        console.print(f"To run them. {_plain(record['lines_from'])}")
        for line in record["lines"]:
            console.print(f"  {_plain(line)}", soft_wrap=True)
    else:
        console.print(_plain(record["lines_from"]))


def _plain(text: str) -> str:
    return markup.escape(one_line(text))


def _candidates(plan: Plan, shown: int) -> Table:
    factor, unit = per_cost_unit(plan)
    table = _empty(
        f"{min(shown, len(plan.table))} of {len(plan.table)} candidates; information in nats about "
        "the quantity, ± Monte Carlo error; runs: made so far; reach: of one new run",
        ("rank", _batch_head(plan), "updates", "seed", plan.cost.unit, "runs", "reach",
         "information", "interval", unit))
    for _, row in plan.table.head(shown).iterrows():
        table.add_row(
            f"{row['rank']}", _batch(plan, row), f"{row['updates']:g}", f"{row['seed']:g}",
            _number(row["cost"], plan), f"{row['runs_tried']}", f"{row['reach']:.2f}",
            _information(row), f"× {row['width_ratio']:.3f}",
            f"{factor * row['per_cost']:.3g} ± {factor * row['per_cost_error']:.1g}")
    return table


def _runs(plan: Plan) -> Table:
    table = _empty("Planned, each beyond those before it",
                   ("order", _batch_head(plan), "updates", "seed", plan.cost.unit, "so far",
                    "added, nats", "together, nats", "interval"))
    for _, row in plan.runs.iterrows():
        table.add_row(
            f"{row['order']:g}", _batch(plan, row), f"{row['updates']:g}", f"{row['seed']:g}",
            _number(row["cost"], plan), _number(row["cost_so_far"], plan),
            f"{row['added']:.3g} ± {row['added_error']:.1g}",
            f"{row['together']:.3g} ± {row['together_error']:.1g}", f"× {row['width_ratio']:.3f}")
    return table


def _empty(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _batch(plan: Plan, row: pd.Series) -> str:
    mark = " (outside)" if row["extrapolated"] else ""
    if plan.tried.one_axis:
        return f"{row['total_batch']:g}{mark}"
    return f"{row['n_prompts']:g} × {row['n_rollouts']:g}{mark}"


def _batch_head(plan: Plan) -> str:
    return "total batch" if plan.tried.one_axis else "prompts × rollouts"


def _information(row: pd.Series) -> str:
    if not row["resolved"]:
        return f"below {2 * row['information_error']:.1g}"
    return f"{row['information']:.3g} ± {row['information_error']:.1g}"


def _number(cost: float, plan: Plan) -> str:
    return cost_words(cost, plan.cost.unit).removesuffix(f" {plan.cost.unit}")
