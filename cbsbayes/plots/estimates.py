"""Estimates side by side: by threshold and law, by method, and of several fits."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cbsbayes.errors import CBSDataError
from cbsbayes.plots import marks, reading, scales, style
from cbsbayes.plots.cuts import choose_cut

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["law_entries", "place", "plot_cbs_against_threshold", "plot_comparison", "plot_forest",
           "target_axis"]

_METHODS = {"posterior": "posterior", "log_least_squares": "log least squares",
            "least_squares": "least squares"}
_FORM = ["threshold", "label", "median", "ci_lower", "ci_upper", "status"]
_OCTAVES = 10  # from the middle, beyond which an estimate is drawn at the edge
_OPEN = {"not_comparable", "not_identified"}


def place(j: int, n: int) -> float:
    """Return where the j-th of n estimates stands beside the middle of its threshold."""
    return min(0.24, 0.7 / n) * (j - (n - 1) / 2)


def target_axis(ax: Axes, thresholds: Sequence[float], label: str) -> None:
    """Label an axis of thresholds, one place each, and make the other logarithmic with room."""
    scales.log_axis(ax, "y")
    low, high = np.log2(ax.get_ylim())
    room = max(0.5, (3 - (high - low)) / 2)
    ax.set_ylim(2.0 ** (low - room), 2.0 ** (high + room))
    ax.set_xticks(np.arange(len(thresholds)), labels=[f"{t:g}" for t in thresholds])
    ax.set_xlim(-0.6, len(thresholds) - 0.4)
    ax.grid(visible=False, axis="x")
    ax.set_xlabel(label)


def law_entries(fit: Fit, colours: Mapping[str, str], filled: Collection[str]) -> list[Line2D]:
    """Return a legend entry per law, open but for those in `filled`."""
    return [style.entry(f"{law}, {100 * reading.ci_prob(fit):g} %", colour, marker="o",
                        mfc=colour if law in filled else style.PAPER)
            for law, colour in colours.items()]


@style.styled
def plot_cbs_against_threshold(fit: Fit, *, ax: Axes | None = None, axis: str | None = None,
                               fixed: int | None = None) -> Axes:
    """Plot the critical batch size at every threshold, along one axis.

    Filled points are the fit's law, open ones the alternative laws. A triangle is a bound: the data
    only say that the value lies beyond it. A dotted bar is not identified.

    Parameters
    ----------
    fit : Fit
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    axis : {"prompts", "rollouts", "total"}, optional
        Default: prompts, or total for one-axis data.
    fixed : int, optional
        What is held fixed; by default the value with most batches along the axis.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If the axis was not varied, or the table has no critical batch size along it.
    """
    cut = choose_cut(fit, axis, fixed)
    thresholds = sorted(fit.thresholds)
    tables = {fit.law.name: fit.cbs, **fit.others}
    colours = style.kind_colours(list(tables))
    ax, drawn = style.new_axes(ax), []
    for j, (law, table) in enumerate(tables.items()):
        for i, threshold in enumerate(thresholds):
            row = cut.critical(table, threshold)
            if row is not None:
                drawn.append(marks.draw_estimate(ax, i + place(j, len(tables)), row, colours[law],
                                                 hollow=law != fit.law.name))
    if not drawn:
        raise CBSDataError(f"no critical batch size along {cut.axis}{cut.fixed_text} in the table")
    target_axis(ax, thresholds, reading.target_text(fit).capitalize())
    ax.set_ylabel(f"Critical batch ({cut.unit})")
    ax.set_title(f"Critical batch along {cut.axis}{cut.fixed_text}")
    entries = law_entries(fit, colours, [fit.law.name])
    style.legend_below(ax, [*entries, *marks.bound_entries(drawn)])
    return ax


@style.styled
def plot_comparison(fit: Fit, *, ax: Axes | None = None, axis: str | None = None,
                    fixed: int | None = None) -> Axes:
    """Plot B_noise by method at every threshold: least squares, its log form, the posterior.

    Plain least squares has no interval. An open triangle at the edge is an estimate beyond it.
    Parameters as `plot_cbs_against_threshold`.

    Raises
    ------
    CBSDataError
        If the table has no row along the axis, or no method gave a finite B_noise.
    """
    cut = choose_cut(fit, axis, fixed)
    table = fit.comparison
    along = [row["axis"] == cut.axis and reading.fixed_values(row["at"]) == cut.at
             for _, row in table.iterrows()]
    rows = table[along] if len(table) else table
    if rows.empty:
        raise CBSDataError(f"nothing to compare along {cut.axis}{cut.fixed_text}: the "
                           "least-squares table has no row for it; draw an axis that was varied")
    values = rows["B_noise"].to_numpy(dtype=float)
    usable = values[np.isfinite(values) & (values > 0)]
    if not usable.size:
        raise CBSDataError("no method gave a finite B_noise, so there is nothing to compare")
    limits = np.median(usable) * 2.0 ** np.array([-_OCTAVES, _OCTAVES])
    thresholds = sorted(rows["threshold"].unique())
    methods = [method for method in reversed(_METHODS) if (rows["method"] == method).any()]
    colours = style.kind_colours(list(_METHODS))
    ax = style.new_axes(ax)
    for _, row in rows[rows["method"].isin(methods)].iterrows():
        x = thresholds.index(row["threshold"]) + place(methods.index(row["method"]), len(methods))
        marks.draw_estimate(ax, x, _inside(row, *limits), colours[row["method"]])
    target_axis(ax, thresholds, reading.target_text(fit).capitalize())
    ax.set_ylabel(f"B_noise ({cut.unit})")
    ax.set_title(f"B_noise along {cut.axis} by method{cut.fixed_text}")
    style.legend_below(ax, [style.entry(_METHODS[name], colours[name], marker="o")
                            for name in methods])
    return ax


def _inside(row: pd.Series, low: float, high: float) -> pd.Series:
    """Return an estimate between two limits: beyond them a bound at the limit."""
    value = float(row["B_noise"])
    status = "upper_bound" if value < low else "lower_bound" if value > high else "identified"
    lower, upper = (value if np.isnan(row[end]) else row[end] for end in ("ci_lower", "ci_upper"))
    ends = (max(lower, low), min(upper, high)) if status == "identified" else (high, low)
    return pd.Series({"median": value, "ci_lower": ends[0], "ci_upper": ends[1], "status": status})


@style.styled
def plot_forest(table: pd.DataFrame, panels: Mapping[str, tuple[str, str]]) -> Figure:
    """Plot quantities of several fits at every common threshold, with ratios to the first fit.

    Points are medians with intervals; a triangle is a bound; a ratio is drawn where the data settle
    one. Left of 1 the first fit's value is the smaller one.

    Parameters
    ----------
    table : DataFrame
        The table of ``compare.csv``.
    panels : mapping of title to (quantity, at)
        Rows of panels, from top to bottom.

    Returns
    -------
    Figure

    Raises
    ------
    CBSDataError
        If the table has none of the quantities.
    """
    at = table["at"].fillna("")
    kept = {title: table[(table["quantity"] == quantity) & (at == held)]
            for title, (quantity, held) in panels.items()}
    kept = {title: rows for title, rows in kept.items() if len(rows)}
    if not kept:
        raise CBSDataError("none of the quantities to draw is in the comparison")
    labels = list(dict.fromkeys([*table["first"], *table["second"]]))
    most = max(rows["threshold"].nunique(dropna=False) for rows in kept.values())
    figure, axes = style.new_grid(2 * len(kept), 2, (3.4, 0.9 + 0.13 * most * len(labels)))
    others = style.short_text(labels[1], 20) if len(labels) == 2 else "each of the others"
    for k, (title, rows) in enumerate(kept.items()):
        left, right = axes[2 * k:2 * k + 2]
        colours = _panel(left, _values(rows), labels, "not identified")
        left.set_title("\n".join(textwrap.wrap(title, 44)))
        left.set_xlabel("" if rows["unit"].iloc[0] == "1" else str(rows["unit"].iloc[0]))
        incomparable = (rows["status"] == "not_comparable").any()
        _panel(right, _ratios(rows, labels[0]), labels,
               "laws differ: not compared" if incomparable else "not identified")
        right.axvline(1.0, color=style.GREY, lw=1.0, zorder=1)
        right.set_title(f"{style.short_text(labels[0], 20)} / {others}")
        right.set_xlabel("ratio")
    style.legend_below(axes[0], [style.entry(style.short_text(label, 48), colour, marker="o")
                                 for label, colour in colours.items()])
    return figure


def _values(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each fit's estimates, once each, from the pairs that it is part of."""
    ends = ("median", "lower", "upper", "status")
    sides = [rows[["threshold", side, *(f"{side}_{end}" for end in ends)]].set_axis(_FORM, axis=1)
             for side in ("first", "second")]
    return pd.concat(sides).drop_duplicates(["threshold", "label"])


def _ratios(rows: pd.DataFrame, first: str) -> pd.DataFrame:
    columns = ["threshold", "second", "ratio", "ratio_lower", "ratio_upper", "status"]
    return rows[rows["first"] == first][columns].set_axis(_FORM, axis=1)


def _panel(ax: Axes, rows: pd.DataFrame, labels: Sequence[str], nothing: str) -> dict[str, str]:
    """Draw estimates of several fits, a row per threshold; return the colours of the fits."""
    colours = style.kind_colours(labels)
    rows = rows.assign(threshold=rows["threshold"].fillna(-np.inf))  # of all thresholds
    levels = sorted(rows["threshold"].unique())
    drawn = []
    for _, row in rows[~rows["status"].isin(_OPEN)].iterrows():
        y = levels.index(row["threshold"]) + place(labels.index(row["label"]), len(labels))
        drawn.append(marks.draw_estimate(ax, y, row, colours[row["label"]], across=True))
    if not any(drawn):
        ax.text(0.5, 0.5, nothing, transform=ax.transAxes, ha="center", va="center",
                color=style.GREY)
    scales.log_axis(ax, "x", most=6)
    low, high = np.log2(ax.get_xlim())
    room = max(0.25, (1.0 - (high - low)) / 2)
    ax.set_xlim(2.0 ** (low - room), 2.0 ** (high + room))
    ax.set_ylim(len(levels) - 0.4, -0.6)
    ax.set_yticks(range(len(levels)), labels=[scales.plain_number(level) for level in levels])
    ax.grid(visible=False, axis="y")
    return colours
