"""A plan in the terminal: what it is about, the ranked candidates, the runs, the lines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich import markup
from rich.console import Console
from rich.table import Table as RichTable

from cbsbayes.decisions.planner import Plan
from cbsbayes.errors import one_line
from cbsbayes.posterior.fit import Fit
from cbsbayes.report.plan_tables import candidates_table, runs_table
from cbsbayes.report.tables import Table

__all__ = ["print_plan"]

_WIDTH = 120


def print_plan(
    fit: Fit, plan: Plan, record: dict[str, Any], *, shown: int, page: Path,
    console: Console | None = None,
) -> None:
    """Print one plan.

    Parameters
    ----------
    fit : Fit
        What it is based on.
    plan : Plan
        The plan.
    record : dict
        Of `cbsbayes.decisions.plan_record.plan_record`.
    shown : int
        Candidates at most.
    page : Path
        Of the page.
    console : rich.console.Console, optional
        Standard output unless given.
    """
    console = console or Console(
        emoji=False, highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(f"[bold]{_plain(fit.group)}[/bold]: {fit.crossings.sizes['run']} runs, law "
                  f"{fit.law.name}")
    for sentence in record["sentences"]:
        console.print(f"  · {_plain(sentence)}")
    console.print(_laid(candidates_table(plan, shown)))
    if len(plan.runs) > 1:
        console.print(_laid(runs_table(plan)))
    if record["lines"]:
        console.print(f"To run them. {_plain(record['lines_from'])}")
        for line in record["lines"]:
            console.print(f"  {_plain(line)}", soft_wrap=True)
    else:
        console.print(_plain(record["lines_from"]))
    console.print(f"Page, figure, tables: {_plain(str(page))}", soft_wrap=True)


def _plain(text: str) -> str:
    return markup.escape(one_line(text))


def _laid(table: Table) -> RichTable:
    laid = RichTable(title=_plain(table.caption), box=None, pad_edge=False, header_style="bold",
                     title_justify="left")
    for column in table.columns:
        laid.add_column(column.label, justify="right", no_wrap=True)
    for row in table.rows:
        laid.add_row(*(_plain(cell.text) for cell in row))  # what stands below is on the page
    return laid
