"""Answers in the terminal: sentences, tables with every number whole, where the rest is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich import markup
from rich.console import Console
from rich.table import Table as RichTable

from cbsbayes.errors import one_line
from cbsbayes.report.facts import Facts
from cbsbayes.report.tables import Cell, Table, answer_table
from cbsbayes.report.text import sentences

__all__ = ["print_answer", "print_fit", "print_table", "shown", "standard_output"]

_COLORS = {"good": "green", "limited": "yellow", "failed": "red"}
_WIDTH = 80  # where output is no terminal
_GAP = 2  # between columns
_LABELS = 24  # characters that labels need at least


def standard_output() -> Console:
    """Return the terminal, 80 columns wide where it is none."""
    return Console(emoji=False, highlight=False, width=None if sys.stdout.isatty() else _WIDTH)


def shown(text: str) -> str:
    """Return text from data as text: no markup of rich's, no line break or control character."""
    return markup.escape(one_line(text.replace("\N{NO-BREAK SPACE}", " ")))


def print_fit(facts: Facts, source: Path, folder: Path, console: Console | None = None) -> None:
    """Print one fit.

    Parameters
    ----------
    facts : Facts
        The fit's.
    source, folder : Path
        Where the sweep came from and where the results went.
    console : rich.console.Console, optional
        Standard output unless given.
    """
    console = console or standard_output()
    fit = facts.fit
    console.print(f"[bold]{shown(fit.group)}[/bold]: {fit.crossings.sizes['run']} of "
                  f"{len(fit.runs)} runs from {shown(str(source))}")
    for sentence in sentences("card", facts=facts):
        console.print(shown(sentence))
    console.print(f"[bold {_COLORS[fit.verdict["level"]]}]{shown(fit.verdict["title"])}[/]")
    for sentence in fit.verdict["sentences"]:
        console.print(f"  · {shown(sentence)}")
    console.print(shown(fit.settings["law_reason"]))
    print_table(_fitting(facts, console.width), console)
    console.print(f"Page, figures, tables and draws: {shown(str(folder / 'index.html'))}",
                  soft_wrap=True)


def print_answer(
    head: str, lines: Sequence[str], notes: Sequence[str], tables: Sequence[Table], page: Path,
    console: Console | None = None,
) -> None:
    """Print what a command answers.

    Parameters
    ----------
    head : str
        What was asked, in bold.
    lines, notes : sequence of str
        The answer, and its reservations.
    tables : sequence of Table
        Below them.
    page : Path
        Where the rest is.
    console : rich.console.Console, optional
        Standard output unless given.
    """
    console = console or standard_output()
    console.print(f"[bold]{shown(head)}[/bold]")
    for line in lines:
        console.print(shown(line))
    for note in notes:
        console.print(f"  · {shown(note)}")
    for table in tables:
        console.print()
        print_table(table, console)
    console.print(f"Page, figures, tables: {shown(str(page))}", soft_wrap=True)


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table of the report, its caption above it; labels wrap, numbers never do."""
    console = console or standard_output()
    console.print(f"[bold]{shown(table.caption)}[/bold]")
    laid = RichTable(box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        laid.add_column(shown(column.label), justify="right" if column.numeric else "left",
                        no_wrap=column.numeric, overflow="fold")
    for row in table.rows:
        laid.add_row(*(_cell(cell) for cell in row))
    console.print(laid)


def _cell(cell: Cell) -> str:
    text = shown(_text(cell))
    return f"[bold]{text}[/bold]" if "ours" in cell.mark else text


def _text(cell: Cell) -> str:
    return f"{cell.text} ({cell.below})" if cell.below else cell.text


def _fitting(facts: Facts, width: int) -> Table:
    """Return the answer with as many targets as the width holds, the main one first of all."""
    levels = facts.thresholds
    order = list(dict.fromkeys([facts.threshold, levels[-1], levels[0]]))
    for most in range(len(order), 0, -1):
        table = answer_table(facts, thresholds=sorted(order[:most]))
        numbers = sum(_GAP + max(len(_text(row[k])) for row in table.rows)
                      for k in range(1, most + 1))
        if numbers + _LABELS <= width:
            break
    return table
