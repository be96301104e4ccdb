"""Fits side by side: what each says, and the ratio to the first, quantity by quantity."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.scales import log2_axis, plain_number
from cbsbayes.plots.style import GREY, kind_colours, new_grid, short_text, styled
from cbsbayes.report.text import at_text, plain, quantity_label

__all__ = ["plot_forest"]

_ARROW = 16  # points


@styled
def plot_forest(table: pd.DataFrame, keys: Sequence[tuple[str, str]]) -> Figure:
    """Plot quantities of several fits at every common threshold, with ratios to the first fit.

    Points are medians with intervals; an arrow is a bound; a ratio is drawn where the data settle
    one. Left of 1 the first fit's value is the smaller one.

    Parameters
    ----------
    table : DataFrame
        The table of ``compare.csv``.
    keys : sequence of (quantity, at)
        Rows of panels, from top to bottom.

    Returns
    -------
    Figure

    Raises
    ------
    CBSDataError
        If the table has none of the quantities.
    """
    kept = [(key, _rows(table, key)) for key in keys]
    kept = [(key, rows) for key, rows in kept if len(rows)]
    if not kept:
        raise CBSDataError("none of the quantities to draw is in the comparison")
    labels = list(dict.fromkeys([*table["first"], *table["second"]]))
    colours = kind_colours(labels)
    heights = max(len(set(rows["threshold"].map(plain))) for _, rows in kept)
    figure, axes = new_grid(2 * len(kept), 2, (4.0, 0.9 + 0.13 * heights * len(labels)))
    for k, (key, rows) in enumerate(kept):
        _values(axes[2 * k], key, rows, labels, colours)
        _ratios(axes[2 * k + 1], rows, labels, colours)
    handles = [Line2D([], [], color=colours[label], marker="o", ms=5, lw=1.4,
                      label=short_text(label, 48)) for label in labels]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(3, len(labels)))
    return figure


def _rows(table: pd.DataFrame, key: tuple[str, str]) -> pd.DataFrame:
    return table[(table["quantity"] == key[0]) & (table["at"].map(plain) == key[1])]


def _levels(rows: pd.DataFrame) -> list[float]:
    return sorted(rows["threshold"].unique())


def _values(ax: Axes, key: tuple[str, str], rows: pd.DataFrame, labels: Sequence[str],
            colours: dict[str, str]) -> None:
    for j, label in enumerate(labels):
        for i, level in enumerate(_levels(rows)):
            side = _side(rows, label, level)
            if side is not None:
                _mark(ax, i + _offset(j, len(labels)), side, colours[label])
    if not ax.lines and not ax.texts:
        _say(ax, "not identified")
    at = at_text(key[1])
    _finish(ax, _levels(rows))
    title = f"{quantity_label(key[0])}{f' at {at}' if at else ''}"
    ax.set_title("\n".join(textwrap.wrap(title, 48)))
    ax.set_xlabel(str(rows["unit"].iloc[0]) if rows["unit"].iloc[0] != "1" else "")


def _side(rows: pd.DataFrame, label: str, level: float) -> tuple[float, float, float, str] | None:
    """Return median, ends and status of one fit, from any pair that it is part of."""
    here = rows[rows["threshold"].isna() if np.isnan(level) else rows["threshold"] == level]
    for name in ("first", "second"):
        own = here[here[name] == label]
        if len(own):
            row = own.iloc[0]
            return (float(row[f"{name}_median"]), float(row[f"{name}_lower"]),
                    float(row[f"{name}_upper"]), str(row[f"{name}_status"]))
    return None


def _ratios(ax: Axes, rows: pd.DataFrame, labels: Sequence[str], colours: dict[str, str]) -> None:
    levels = _levels(rows)
    against = rows[rows["first"] == labels[0]]
    ax.axvline(1.0, color=GREY, lw=1.0, zorder=1)
    for _, row in against.iterrows():
        i = next(k for k, level in enumerate(levels) if level == row["threshold"]
                 or (np.isnan(level) and np.isnan(row["threshold"])))
        j = labels.index(row["second"])
        if row["status"] != "not_comparable":
            _mark(ax, i + _offset(j, len(labels)),
                  (row["ratio"], row["ratio_lower"], row["ratio_upper"], row["status"]),
                  colours[row["second"]])
    _finish(ax, levels)
    others = short_text(labels[1], 20) if len(labels) == 2 else "each of the others"
    ax.set_title(f"{short_text(labels[0], 20)} / {others}")
    states = set(against["status"])
    if states <= {"not_comparable", "not_identified"}:
        _say(ax, "laws differ: not put in relation" if "not_comparable" in states
             else "not identified")
    ax.set_xlabel("ratio")


def _say(ax: Axes, words: str) -> None:
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color=GREY)


def _offset(j: int, n: int) -> float:
    return 0.24 * (j - (n - 1) / 2) if n < 4 else 0.7 * (j / (n - 1) - 0.5)


def _mark(ax: Axes, y: float, shown: tuple[float, float, float, str], colour: str) -> None:
    median, low, high, status = shown
    if status == "identified":
        ax.hlines(y, low, high, colors=colour, lw=1.5, zorder=3)
        ax.plot([median], [y], "o", color=colour, ms=4.5, zorder=4, gid="estimate")
    elif status in ("upper_bound", "lower_bound"):
        end, way = (high, -_ARROW) if status == "upper_bound" else (low, _ARROW)
        ax.plot([end], [y], "|", color=colour, ms=7, mew=1.6, zorder=4, gid=status)
        ax.annotate("", xy=(end, y), xytext=(way, 0), textcoords="offset points",
                    arrowprops={"arrowstyle": "<|-", "color": colour, "lw": 1.2, "shrinkA": 0,
                                "shrinkB": 0})


def _finish(ax: Axes, levels: Sequence[float]) -> None:
    log2_axis(ax, "x", most=6)
    low, high = np.log2(ax.get_xlim())
    room = max(0.25, (1.0 - (high - low)) / 2)
    ax.set_xlim(2.0 ** (low - room), 2.0 ** (high + room))
    ax.set_ylim(len(levels) - 0.4, -0.6)
    named = [plain_number(level) if np.isfinite(level) else "" for level in levels]
    ax.set_yticks(range(len(levels)), labels=named)
    if any(named):
        ax.set_ylabel("Target")
    ax.grid(visible=False, axis="y")
