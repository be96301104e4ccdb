"""Data frames as tables of text that a template can lay out; nothing is computed here.

A `Table` knows its columns, which of them are numbers (aligned right), and its cells; the
template knows how they look. Text stays text: escaping is the template's work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cbsbayes.report import numbers
from cbsbayes.report.estimates import (
    QUANTITIES,
    Estimate,
    at_words,
    compared_estimate,
    estimate,
    plain,
    quantity_label,
)

__all__ = ["Cell", "Column", "Table", "comparison_table", "estimate_cell", "from_frame",
           "full_table", "key_values", "runs_table", "worst_rows"]

METHODS = {"least_squares": "least squares", "log_least_squares": "log least squares",
           "posterior": "this fit"}
_AXES = {"total": "Total batch", "prompts": "Prompts", "rollouts": "Rollouts"}
_UNITS = {"total": "samples"}  # the other axes are their own units
_LONG = 40  # characters from which a cell asks for room
_UNKNOWN_IS_NEGATIVE = ("n_prompts", "n_rollouts", "seed", "train_batch_prompts",
                        "mini_batch_prompts", "total_batch")


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
        May be empty. A row of one cell is a heading for the rows below it.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)


def estimate_cell(row: Estimate | None) -> Cell:
    """Return the cell of an estimate; None is an empty cell."""
    if row is None:
        return Cell(numbers.MISSING, mark="missing")
    return Cell(row.value, row.interval, "" if row.identified else row.status)


def from_frame(
    frame: pd.DataFrame, caption: str, labels: Mapping[str, str] | None = None,
    decimals: Mapping[str, int] | None = None,
) -> Table:
    """Return any data frame as a table, numbers short and aligned right.

    Parameters
    ----------
    frame : pandas.DataFrame
        Its columns in the order to print; an index with a name becomes the first column.
    caption : str
        What the table shows.
    labels : mapping, optional
        Headings for columns whose names do not read well.
    decimals : mapping, optional
        Digits after the point of the columns that want a fixed number of them.
    """
    shown = frame if frame.index.name is None else frame.reset_index()
    numeric = [pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)
               for kind in shown.dtypes]
    columns = tuple(Column((labels or {}).get(str(name), str(name)), is_number)
                    for name, is_number in zip(shown.columns, numeric, strict=True))
    names = [str(name) for name in shown.columns]
    rows = [tuple(_cell(value, (decimals or {}).get(name))
                  for name, value in zip(names, row, strict=True))
            for row in shown.itertuples(index=False, name=None)]
    return Table(caption, columns, rows)


def _cell(value: object, decimals: int | None) -> Cell:
    if decimals is not None:
        return Cell(numbers.number(float(value), decimals))  # type: ignore[arg-type]
    text = plain(value)
    return Cell(text, mark="long" if len(text) > _LONG else "")


def key_values(pairs: Mapping[str, object], caption: str, prefix: str = "") -> Table:
    """Return a mapping as a table of two columns; nested mappings give dotted names."""
    rows: list[tuple[Cell, ...]] = [(Cell(name), Cell(text))
                                    for name, text in _flatten(pairs, prefix)]
    return Table(caption, (Column("name"), Column("value")), rows)


def _flatten(pairs: Mapping[str, object], prefix: str) -> Iterable[tuple[str, str]]:
    for key, value in pairs.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{name}.")
        elif isinstance(value, (list, tuple, np.ndarray)):
            yield name, ", ".join(_as_written(item) for item in value)
        else:
            yield name, _as_written(value)


def _as_written(value: object) -> str:
    """Return a setting as it would be typed: whole numbers without separators."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return str(value) if whole else plain(value)


def full_table(cbs: pd.DataFrame, caption: str) -> Table:
    """Return every row of the quantity table, with its diagnostics."""
    columns = (Column("quantity"), Column("at"), Column("threshold", True),
               Column("median", True), Column("interval", True), Column("unit"),
               Column("status"), Column("r_hat", True), Column("ess_bulk", True),
               Column("ess_tail", True))
    return Table(caption, columns, [_full_row(row) for _, row in cbs.iterrows()])


def _full_row(row: pd.Series) -> tuple[Cell, ...]:
    told = estimate(row)
    return (Cell(quantity_label(row["quantity"])), Cell(at_words(row["at"])),
            Cell(plain(row["threshold"])), Cell(told.value, mark=_mark(told)),
            Cell(told.interval), Cell(plain(row["unit"])),
            Cell(told.status.replace("_", " ")), Cell(numbers.number(float(row["r_hat"]), 3)),
            Cell(numbers.number(float(row["ess_bulk"]), 0)),
            Cell(numbers.number(float(row["ess_tail"]), 0)))


def _mark(told: Estimate) -> str:
    return "" if told.identified else told.status


def comparison_table(comparison: pd.DataFrame, caption: str) -> Table:
    """Return least squares and this fit side by side, thresholds below each axis."""
    methods = [name for name in METHODS if name in set(comparison["method"])]
    heads = [column for name in methods for column in _method_columns(name)]
    table = comparison.assign(at=comparison["at"].map(plain))
    rows: list[tuple[Cell, ...]] = []
    for key, level in table.groupby(["axis", "at"], sort=False):
        axis, at = map(str, key)
        place = f"at {at_words(at)}, " if at else ""
        rows.append((Cell(_AXES.get(axis, axis), f"{place}in {_UNITS.get(axis, axis)}"),))
        rows += [_comparison_row(threshold, those, methods)
                 for threshold, those in level.groupby("threshold")]
    return Table(caption, (Column("threshold"), *heads), rows)


def _method_columns(method: str) -> tuple[Column, ...]:
    fit = (Column("R²", True),) if method == "least_squares" else ()
    return (Column(METHODS[method], True), Column("runs", True), *fit)


def _comparison_row(
    threshold: object, rows: pd.DataFrame, methods: Sequence[str],
) -> tuple[Cell, ...]:
    cells = [Cell(plain(threshold), mark="indented")]
    by_method = {row["method"]: row for _, row in rows.iterrows()}
    for method in methods:
        cells += _method_cells(by_method.get(method), method)
    return tuple(cells)


def _method_cells(row: pd.Series | None, method: str) -> list[Cell]:
    if row is None:
        return [Cell("")] * len(_method_columns(method))
    dropped = int(row["n_runs_dropped"])
    cells = [estimate_cell(compared_estimate(row)),
             Cell(plain(int(row["n_runs_used"])), f"{dropped} dropped" if dropped else "")]
    if method == "least_squares":
        cells.append(Cell(numbers.number(float(row["r2"]), 2)))
    return cells


def runs_table(runs: pd.DataFrame, caption: str, *, used: bool) -> Table:
    """Return the runs that were used, or those left out with the reason.

    Parameters
    ----------
    runs : pandas.DataFrame
        The table of runs; a pair of columns ``lower_<t>, upper_<t>`` becomes one column
        of intervals per threshold.
    caption : str
        What the table shows.
    used : bool
        Which of the two to show.
    """
    chosen = runs.loc[runs["used"].astype(bool) == used].drop(columns="used")
    crossed = [str(name).removeprefix("lower_") for name in chosen.columns
               if str(name).startswith("lower_") and f"upper_{str(name)[6:]}" in chosen.columns]
    names = [name for name in chosen.columns if not _is_bound(str(name), crossed)]
    names.remove("reason")
    if not used:
        names.insert(1, "reason")
    base = from_frame(_without_empty(_without_sentinels(chosen[names])), caption)
    columns = base.columns + tuple(Column(f"S at {t}", True) for t in crossed)
    rows = [cells + tuple(Cell(_crossing_words(lower, upper)) for lower, upper in bounds)
            for cells, bounds in zip(base.rows, _bounds(chosen, crossed), strict=True)]
    return Table(caption, columns, rows)


def _is_bound(name: str, crossed: Sequence[str]) -> bool:
    return name.partition("_")[0] in ("lower", "upper") and name.partition("_")[2] in crossed


def _without_empty(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame without columns that say nothing about any run."""
    return frame[[name for name in frame.columns if any(plain(v) for v in frame[name])]]


def _without_sentinels(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with NaN for the -1 that stands for "not known"."""
    names = [name for name in _UNKNOWN_IS_NEGATIVE if name in frame.columns]
    known = {name: frame[name].astype(float).where(frame[name] >= 0) for name in names}
    return frame.assign(**known)


def _bounds(runs: pd.DataFrame, crossed: Sequence[str]) -> list[list[tuple[float, float]]]:
    return [[(float(row[f"lower_{t}"]), float(row[f"upper_{t}"])) for t in crossed]
            for _, row in runs.iterrows()]


def _crossing_words(lower: float, upper: float) -> str:
    if np.isnan(lower) or np.isnan(upper):
        return numbers.MISSING
    if np.isinf(upper):
        return f"> {numbers.count(lower)}"
    if lower == 0:
        return f"≤ {numbers.count(upper)}"
    return f"{numbers.count(lower)}{numbers.EN_DASH}{numbers.count(upper)}"


def worst_rows(cbs: pd.DataFrame) -> pd.DataFrame:
    """Return per quantity the largest r_hat and the smallest effective sizes printed anywhere."""
    order = [name for name in QUANTITIES if name in set(cbs["quantity"])]
    order += [name for name in dict.fromkeys(cbs["quantity"]) if name not in QUANTITIES]
    grouped = cbs.groupby("quantity").agg(
        r_hat=("r_hat", "max"), ess_bulk=("ess_bulk", "min"), ess_tail=("ess_tail", "min"))
    return grouped.loc[order].rename(index=quantity_label)
