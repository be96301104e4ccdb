"""A fit in the terminal: verdict, the main table, and where the rest is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cbsbayes.report.headline import headline_table
from cbsbayes.report.words import verdict_title

if TYPE_CHECKING:
    from cbsbayes.result import Fit

__all__ = ["print_fit"]


def print_fit(fit: Fit, source: Path, folder: Path, console: Console | None = None) -> None:
    """Print one fit.

    Parameters
    ----------
    fit : Fit
        The fit.
    source, folder : Path
        Where the sweep came from and where the results went.
    console : rich.console.Console, optional
        Standard output unless given.
    """
    console = console or Console()
    console.print(f"[bold]{escape(fit.group)}[/bold]: {fit.crossings.sizes['run']} runs of "
                  f"{len(fit.runs)} from {escape(str(source))}")
    console.print(escape(f"{fit.settings['law_reason']} {fit.law.formula}"))
    console.print(f"[bold]{escape(verdict_title(fit))}[/bold]")
    for sentence in fit.verdict["sentences"]:
        console.print(f"  · {escape(sentence)}")
    console.print(_table(fit))
    console.print(f"Page, figures, tables and draws: {escape(str(folder / 'index.html'))}")


def _table(fit: Fit) -> Table:
    """Return the page's main table for a terminal."""
    main = headline_table(fit.cbs, fit.thresholds.tolist(), fit.runs, "")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in main.columns:
        table.add_column(escape(column.label), justify="right" if column.numeric else "left")
    for row in main.rows:
        cells = [escape("\n".join(filter(None, (cell.text, cell.below)))) for cell in row]
        table.add_row(*cells)
    return table
