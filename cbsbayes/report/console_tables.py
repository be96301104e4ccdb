"""A decision in the terminal: the answer, its reservations, the tables, and where the rest is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich import markup
from rich.console import Console
from rich.table import Table as RichTable

from cbsbayes._command import one_line
from cbsbayes.report.words import verdict_title

if TYPE_CHECKING:
    from cbsbayes.decisions.decision import Decision
    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.allocation import Allocation
    from cbsbayes.report.tables import Cell, Table

__all__ = ["print_allocation", "print_table", "shown"]

_WIDTH = 120  # where output is no terminal; rich would take 80 and fold the tables


def shown(text: str) -> str:
    """Return text from data as text: no markup of rich's, no line break or control character."""
    return markup.escape(one_line(text.replace("\N{NO-BREAK SPACE}", " ")))


def print_allocation(
    fit: Fit, decision: Decision, told: Allocation, folder: Path, console: Console | None = None
) -> None:
    """Print which batch to run.

    Parameters
    ----------
    fit : Fit
        The fit it was read from.
    decision : Decision
        Its tables.
    told : Allocation
        The same in words and text.
    folder : Path
        Where the tables went.
    console : rich.console.Console, optional
        Standard output unless given.
    """
    console = console or Console(
        emoji=False, highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(f"[bold]{shown(fit.group)}[/bold], law {fit.law.name}; batch: "
                  f"{shown(decision.reason)}; threshold {decision.threshold:g}")
    if not fit.verdict["trusted"]:
        console.print(f"[bold]{shown(verdict_title(fit))}[/bold]")
    for sentence in told.sentences:
        console.print(shown(sentence))
    for note in told.notes:
        console.print(f"  · {shown(note)}")
    for table in told.tables:
        console.print()
        print_table(table, console)
    console.print(f"Page, figures, tables: {shown(str(folder / 'index.html'))}", soft_wrap=True)


def print_table(table: Table, console: Console) -> None:
    """Print a table of the report, its caption above it."""
    console.print(f"[bold]{shown(table.caption)}[/bold]")
    rich = RichTable(box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        rich.add_column(shown(column.label), justify="right" if column.numeric else "left")
    for row in table.rows:
        rich.add_row(*(_cell(cell) for cell in row))
    console.print(rich)


def _cell(cell: Cell) -> str:
    text = shown(cell.text) + (f" ({shown(cell.below)})" if cell.below else "")
    return f"[bold]{text}[/bold]" if "ours" in cell.mark else text
