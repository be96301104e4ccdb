"""Tables of text, laid out by ``templates/tables.toml``; as CSV, LaTeX and on a terminal.

A layout names a caption and, head by head, what stands in the cells: an expression of Jinja over
one ``row`` of a data frame, with the filters of sentences (`cbsbayes.report.text`). A head that
renders as nothing leaves its column out. The page lays the same tables out as HTML
(``templates/parts.html.j2``). LaTeX asks for ``booktabs``; signs that a plain pdfLaTeX does not
know become commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from rich import markup
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable

from cbsbayes.errors import one_line
from cbsbayes.models.laws import Law
from cbsbayes.report.text import MISSING, NO_BREAK, Estimate, environment, parse_at, plain, spec

__all__ = ["AXES", "MAX_ROWS", "Cell", "Column", "Table", "cell_text", "chosen", "escape",
           "from_columns", "key_values", "laid_out", "latex_formula", "latex_table",
           "latex_text", "on_axes", "print_table", "shown", "text_frame", "usual_batch"]

MAX_ROWS = 4  # batches at which one quantity is printed, where not only at the usual one
AXES = {"n_prompts": "prompts per update", "n_rollouts": "rollouts per prompt",
        "total_batch": "samples per update"}
_ALONG_ROLLOUTS = ("gain_rollouts", "cbs_prompts", "cbs_samples")  # the others vary with prompts
_LONG = 40  # characters from which a cell asks for room


@dataclass(frozen=True)
class Column:
    """One column: its heading and whether its cells are numbers."""

    label: str
    numeric: bool = False


@dataclass(frozen=True)
class Cell:
    """One cell: text, a second line below it, and a mark that the style sheet knows."""

    text: str
    below: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes
    ----------
    caption : str
        What the table shows, with the definition of its intervals.
    columns : tuple of Column
        One per cell of a row; the first is the row's heading.
    rows : list of tuple of Cell
        May be empty.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)


def laid_out(
    name: str, rows: pd.DataFrame | Iterable[Mapping[Any, object]],
    more: Mapping[str, Iterable[object]] | None = None, /, **context: Any,
) -> Table | None:
    """Return rows as the table of that name; None where there are none.

    Parameters
    ----------
    name : str
        In ``templates/tables.toml``.
    rows : DataFrame or iterable of mapping
        Each is ``row`` in the layout's expressions.
    more : mapping, optional
        Columns to the right, by head.
    **context
        For caption, heads and expressions.
    """
    records = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else list(rows)
    if not records:
        return None
    layout, jinja = spec("tables")[name], environment()
    columns: dict[str, Iterable[object]] = {}
    for head, cell in layout["columns"].items():
        label = jinja.from_string(head).render(**context)
        if label:
            value = jinja.compile_expression(cell, undefined_to_none=False)
            columns[label] = [value(row=row, **context) for row in records]
    return from_columns(jinja.from_string(layout["caption"]).render(**context),
                        {**columns, **(more or {})})


def from_columns(caption: str, columns: Mapping[str, Iterable[object]]) -> Table:
    """Return columns of estimates, cells, numbers or text as a table.

    A column is one of numbers where every value is a number, an estimate or None. A pair is a cell
    with what stands below it, three values are a cell with its mark.
    """
    values = {name: list(column) for name, column in columns.items()}
    heads = tuple(Column(name, all(_is_number(value) for value in column))
                  for name, column in values.items())
    rows = zip(*([_cell(value) for value in column] for column in values.values()), strict=True)
    return Table(caption, heads, list(rows))


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, Estimate) or (
        isinstance(value, (int, float, np.number)) and not isinstance(value, bool))


def _cell(value: object) -> Cell:
    match value:
        case Cell():
            return value
        case tuple():
            return Cell(*map(plain, value))
        case None:
            return Cell(MISSING, mark="missing")
        case Estimate():
            return Cell(value.value, value.interval, "" if value.identified else value.status)
    text = plain(value)
    return Cell(text, mark="long" if len(text) > _LONG else "")


def key_values(pairs: Mapping[str, object], caption: str) -> Table:
    """Return a mapping as a table of two columns; nested mappings give dotted names."""
    flat = pd.json_normalize(dict(pairs)).astype(object).iloc[0]
    text = [", ".join(map(_as_typed, value if isinstance(value, (list, tuple)) else [value]))
            for value in flat]
    return from_columns(caption, {"name": [Cell(str(name)) for name in flat.index],
                                  "value": [Cell(value) for value in text]})


def _as_typed(value: object) -> str:
    """Return a setting as it would be typed: whole numbers without separators."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return str(value) if whole else plain(value)


def text_frame(table: Table) -> pd.DataFrame:
    """Return a table's text as a frame, what stands below a cell in a column of its own."""
    found: dict[str, list[str]] = {}
    for k, column in enumerate(table.columns):
        found[column.label] = [row[k].text for row in table.rows]
        below = [row[k].below for row in table.rows]
        if any(below):
            found[f"{column.label}, below"] = below
    return pd.DataFrame(found)


def cell_text(cell: Cell) -> str:
    """Return a cell on one line, what stands below it in brackets."""
    return f"{cell.text} ({cell.below})" if cell.below else cell.text


def shown(text: str) -> str:
    """Return text from data as text: no markup of rich's, no line break or control character."""
    return markup.escape(one_line(text.replace(NO_BREAK, " ")))


_ENDLESS = 10_000  # characters: a width at which nothing is cut
_MOST = 40  # characters of a word that is not broken


def print_table(table: Table, console: Console) -> None:
    """Print a table, its caption above it; labels wrap, numbers never do.

    Columns that do not fit beside the others are printed below them, with the labels again.
    """
    console.print(f"[bold]{shown(table.caption)}[/bold]")
    labels = [k for k in (0,) if not table.columns[k].numeric]
    kept, endless = labels, console.options.update_width(_ENDLESS)
    for k in range(len(labels), len(table.columns)):
        least = console.measure(_laid(table, [*kept, k]), options=endless).minimum
        if kept != labels and least > console.width:
            console.print(_laid(table, kept))
            kept = labels
        kept = [*kept, k]
    console.print(_laid(table, kept))


def _laid(table: Table, columns: Sequence[int]) -> RichTable:
    laid = RichTable(box=None, pad_edge=False, header_style="bold")
    for k in columns:
        column = table.columns[k]
        cells = [shown(cell_text(row[k])) for row in table.rows]
        whole = cells if column.numeric else " ".join([*cells, column.label]).split()
        laid.add_column(shown(column.label), justify="right" if column.numeric else "left",
                        min_width=min(_MOST, max(map(cell_len, whole), default=0)),
                        no_wrap=column.numeric, overflow="fold")
    for row in table.rows:
        laid.add_row(*(f"[bold]{shown(cell_text(cell))}[/bold]" if "ours" in cell.mark
                       else shown(cell_text(cell)) for cell in (row[k] for k in columns)))
    return laid


def escape(text: object) -> str:
    """Return any text as LaTeX that prints it, on one line."""
    signs = spec("latex")["signs"]
    return "".join(signs.get(sign, sign if sign.isprintable() else " ") for sign in str(text))


def latex_text(text: str) -> str:
    """Return escaped text with the package's symbols set as mathematics."""
    out = escape(text)
    for name, symbol in spec("latex")["symbols"].items() if r"\_" in out else ():
        out = re.sub(rf"(?<![\w\\]){re.escape(name)}(?!\w|\\_)", symbol.replace("\\", r"\\"), out)
    # a bracket at the start of a table's line would be read as an option of the line end before
    return f"{{}}{out}" if out.startswith(("[", "*")) else out


def latex_formula(law: Law) -> str:
    """Return a law as mathematics."""
    out = re.sub(r"([SB])_min", r"\1_{\\min}", law.formula)
    out = re.sub(r"([Bn])_(prompts?|rollouts?|noise)", r"\1_{\\mathrm{\2}}", out)
    out = out.replace("alpha", r"{\alpha}").replace("^(1/2)", "^{1/2}")
    return f"${out}$"


def latex_table(table: Table, label: str) -> str:
    r"""Return a table as a ``table`` environment.

    Parameters
    ----------
    table : Table
        Text, as the page lays it out; what stands below a cell follows it in brackets.
    label : str
        For ``\ref``: ``tab:`` is put before it.
    """
    frame = pd.DataFrame([[latex_text(cell_text(cell)) for cell in row] for row in table.rows],
                         columns=[latex_text(column.label) for column in table.columns])
    text = frame.to_latex(
        index=False, escape=False, caption=latex_text(table.caption),
        label=f"tab:{re.sub(r'[^A-Za-z0-9-]+', '-', label)}",
        column_format="".join("r" if column.numeric else "l" for column in table.columns))
    return f"% needs \\usepackage{{booktabs}}\n{text}"


def on_axes(rows: pd.DataFrame, *, one_axis: bool) -> pd.DataFrame:
    """Return rows of batches; on one axis, where n_prompts is the total, with the total alone."""
    return rows.assign(total_batch=rows["n_prompts"], n_rollouts=np.nan) if one_axis else rows


def usual_batch(runs: pd.DataFrame) -> dict[str, float]:
    """Return the value of each axis that most of the used runs had; of equals the middle one."""
    used = runs.loc[runs["used"].astype(bool)]
    modes = {axis: used.loc[used[axis] > 0, axis].mode().to_numpy() for axis in AXES}
    return {axis: float(values[(len(values) - 1) // 2]) for axis, values in modes.items()
            if len(values)}


def chosen(
    table: pd.DataFrame, quantity: str, usual: Mapping[str, float], limit: int = MAX_ROWS,
) -> pd.DataFrame:
    """Return a quantity's rows at most `limit` of its batches, the usual one included.

    Parameters
    ----------
    table : pandas.DataFrame
        Like ``cbs.csv``.
    quantity : str
        A name in its column ``quantity``.
    usual : mapping
        The usual batch (`usual_batch`).
    limit : int
        How many to return at most.

    Returns
    -------
    pandas.DataFrame
        Rows in the table's order: of the batches on the axis a quantity varies along, those
        nearest to the usual one.
    """
    rows = table[table["quantity"] == quantity]
    ats = rows["at"].unique().tolist()
    held = "n_prompts" if quantity in _ALONG_ROLLOUTS else "n_rollouts"
    fixed = {at: _distance(at, {k: v for k, v in usual.items() if k == held}) for at in ats}
    line = [at for at in ats if fixed[at] == min(fixed.values())]
    return rows[rows["at"].isin(sorted(line, key=lambda at: _distance(at, usual))[:limit])]


def _distance(at: str, usual: Mapping[str, float]) -> float:
    """Return how far a batch lies from the usual one, in doublings summed over the axes."""
    fixed = parse_at(at)
    return float(sum(abs(np.log2(float(fixed[axis]) / usual[axis])) for axis in usual
                     if axis in fixed))
