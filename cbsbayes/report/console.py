"""A fit in the terminal: verdict, the main table, and where the rest is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import markup
from rich.console import Console
from rich.table import Table

from cbsbayes._command import one_line
from cbsbayes.report import tables
from cbsbayes.report.estimates import QUANTITIES, at_words, plain, quantity_label
from cbsbayes.report.headline import chosen_ats, find, usual_batch
from cbsbayes.report.words import verdict_title

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["print_fit", "print_table"]

_WIDTH = 120  # where output is no terminal; rich would take 80 and fold the table
_ON_THE_PAGE = {"steps", "cbs_samples", "E_min"}


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
    console = console or Console(
        emoji=False, highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(f"[bold]{_shown(fit.group)}[/bold]: {fit.crossings.sizes['run']} runs of "
                  f"{len(fit.runs)} from {_shown(str(source))}")
    console.print(_shown(f"{fit.settings['law_reason']} {fit.law.formula}"))
    console.print(f"[bold]{_shown(verdict_title(fit))}[/bold]")
    for sentence in fit.verdict["sentences"]:
        console.print(f"  · {_shown(sentence)}")
    console.print(_table(fit))
    console.print(f"Page, figures, tables and draws: {_shown(str(folder / 'index.html'))}",
                  soft_wrap=True)


def print_table(table: tables.Table, console: Console | None = None) -> None:
    """Print a table of the report, its caption first; what stands below a cell follows it.

    Parameters
    ----------
    table : Table
        As the page lays it out.
    console : rich.console.Console, optional
        Standard output unless given.
    """
    console = console or Console(
        emoji=False, highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(f"[bold]{_shown(table.caption)}[/bold]")
    laid = Table(box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        laid.add_column(_shown(column.label), justify="right" if column.numeric else "left",
                        overflow="fold")
    for row in table.rows:
        laid.add_row(*(_shown(f"{cell.text} ({cell.below})" if cell.below else cell.text)
                       for cell in row))
    console.print(laid)


def _shown(text: str) -> str:
    """Return text from data as text: no markup of rich's, no line break or control character."""
    return markup.escape(one_line(text.replace("\N{NO-BREAK SPACE}", " ")))


def _table(fit: Fit) -> Table:
    """Return each quantity at the usual batch and up to three thresholds; the page has all."""
    last = len(fit.thresholds) - 1
    thresholds = fit.thresholds[np.unique([0, last // 2, last])].tolist()
    usual = usual_batch(fit.runs)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"median and {100 * fit.settings['ci_prob']:g} % interval")
    for threshold in thresholds:
        table.add_column(f"at {threshold:g}", justify="right", no_wrap=True)
    present = set(fit.cbs["quantity"]) - _ON_THE_PAGE
    for name in (name for name in QUANTITIES if name in present):
        for at in chosen_ats(fit.cbs, name, usual, 1):
            cells = [find(fit.cbs, name, t, at) for t in thresholds]
            table.add_row(_shown(_label(fit, name, at)), *(_shown(str(c or "")) for c in cells))
    return table


def _label(fit: Fit, name: str, at: str) -> str:
    rows = fit.cbs.loc[fit.cbs["quantity"] == name]
    unit = rows.loc[rows["at"].map(plain) == at, "unit"].iloc[0]
    place = f" at {at_words(at)}" if at else ""
    return quantity_label(name) + place + (f", {unit}" if unit != "1" else "")
