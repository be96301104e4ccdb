"""Estimates side by side: by threshold and law, by method, measured noise, and of several fits."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cbsbayes.errors import CBSDataError
from cbsbayes.noise.beside_fit import noise_comparison, shown_rows
from cbsbayes.plots import marks, reading, style
from cbsbayes.plots.reading import choose_cut

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_cbs_against_threshold", "plot_comparison", "plot_forest", "plot_noise_against_fit"]

_METHODS = {"least_squares": "least squares", "log_least_squares": "log least squares",
            "posterior": "posterior"}
_ENDS = ["median", "ci_lower", "ci_upper", "status"]
_OCTAVES = 10  # from the middle, beyond which an estimate is drawn at the edge
_NOISE_OCTAVES = 6.0  # an end that lies further below its interval's top is drawn there
_SOURCES = {"probe": "measured by probes", "norms": "from gradient norms"}


def _law_entries(fit: Fit, colours: Mapping[str, str], filled: set[str]) -> list[Line2D]:
    """Return a legend entry per law, open but for those in `filled`."""
    return [style.entry(f"{law}, {100 * fit.settings['ci_prob']:g} %", colour, marker="o",
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
    cut, own = choose_cut(fit, axis, fixed), {fit.law.name}
    tables = {fit.law.name: fit.cbs, **fit.others}
    rows = [row[_ENDS].to_dict() | {"kind": law, "threshold": threshold}
            for law, table in tables.items() for threshold in fit.thresholds
            if (row := cut.critical(table, threshold)) is not None]
    if not rows:
        raise CBSDataError(f"no critical batch size along {cut.axis}{cut.fixed_text} in the table")
    colours = style.kind_colours(list(tables))
    ax = style.new_axes(ax)
    drawn = marks.draw_estimates(ax, pd.DataFrame(rows), colours, own)
    ax.set(xlabel=reading.target_text(fit).capitalize(), ylabel=f"Critical batch ({cut.unit})",
           title=f"Critical batch along {cut.axis}{cut.fixed_text}")
    style.legend_below(ax, [*_law_entries(fit, colours, own), *marks.bound_entries(drawn)])
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
    cut, table = choose_cut(fit, axis, fixed), fit.comparison
    rows = table[(table["axis"] == cut.axis) & (table["at"] == cut.at)]
    if rows.empty:
        raise CBSDataError(f"nothing to compare along {cut.axis}{cut.fixed_text}: the "
                           "least-squares table has no row for it; draw an axis that was varied")
    value = rows["B_noise"].astype(float)
    usable = value[np.isfinite(value) & (value > 0)]
    if usable.empty:
        raise CBSDataError("no method gave a finite B_noise, so there is nothing to compare")
    low, high = usable.median() * 2.0 ** np.array([-_OCTAVES, _OCTAVES])
    beyond = np.select([value < low, value > high], ["upper_bound", "lower_bound"], "identified")
    inside = beyond == "identified"
    ends = {end: rows[end].where(rows[end].notna(), value).clip(low, high).where(inside, edge)
            for end, edge in (("ci_lower", high), ("ci_upper", low))}
    rows = rows.assign(kind=rows["method"], median=value, status=beyond, **ends)
    methods = [method for method in _METHODS if (rows["method"] == method).any()]
    colours = {method: style.kind_colours(list(_METHODS)[::-1])[method] for method in methods}
    ax = style.new_axes(ax)
    marks.draw_estimates(ax, rows[rows["method"].isin(methods)], colours)
    ax.set(xlabel=reading.target_text(fit).capitalize(), ylabel=f"B_noise ({cut.unit})",
           title=f"B_noise along {cut.axis} by method{cut.fixed_text}")
    style.legend_below(ax, [style.entry(_METHODS[name], colour, marker="o")
                            for name, colour in colours.items()])
    return ax


@style.styled
def plot_noise_against_fit(fit: Fit) -> Figure:
    """Plot each noise scale as measured and as every law has it, averaged up to each threshold.

    It is measured by probes, or from the gradient norms of several batch sizes. A triangle is a
    bound: the denominator of the measurement is not told from zero, or the batches tried do not
    settle the fitted scale.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    Figure
        One panel per noise scale.

    Raises
    ------
    CBSDataError
        If no gradient noise was logged, or too little of it.
    """
    table = shown_rows(noise_comparison(fit), fit)
    table = table[table["average"] == "up_to"]
    if (table["measured_status"] == "too_few").all():
        raise CBSDataError("the runs fitted made too few probes of gradient noise to average; "
                           "probe more often during training")
    ours = table[table["law"] == fit.law.name]
    rows = pd.concat([_side(ours, "measured").assign(kind=ours["source"].map(_SOURCES)),
                      _side(table, "fitted").assign(kind=table["law"]).drop_duplicates()])
    own = {*_SOURCES.values(), fit.law.name}
    colours = dict(zip(_SOURCES.values(), (style.INK, style.GREY), strict=True))
    colours |= style.kind_colours(list(dict.fromkeys(table["law"])))
    panels = rows.groupby(["quantity", "at"], sort=False)
    figure, axes = style.new_grid(len(panels), 1, (5.6, 2.1))
    drawn = []
    for ax, ((quantity, at), part) in zip(axes, panels, strict=True):
        drawn += marks.draw_estimates(ax, part, colours, own)
        held = str(at).replace("n_rollouts=", "")
        ax.set(title=f"{quantity} at {held} rollouts" if held else str(quantity),
               xlabel=f"Up to {reading.target_text(fit)}", ylabel=str(part["unit"].iloc[0]))
    style.legend_below(axes[0], [*_law_entries(fit, colours, own), *marks.bound_entries(drawn)])
    return figure


def _side(table: pd.DataFrame, side: str) -> pd.DataFrame:
    """Return one side of rows in the form of ``cbs.csv``."""
    high = table[f"{side}_upper"]
    least = (high / 2.0**_NOISE_OCTAVES).where(np.isfinite(high), 0.0)
    status = table[f"{side}_status"].replace({"resolved": "identified",
                                              "not_resolved": "lower_bound"})
    return table[["quantity", "at", "unit", "threshold"]].assign(
        median=table[side], ci_lower=np.fmax(table[f"{side}_lower"], least), ci_upper=high,
        status=status)


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
    colours = style.kind_colours(labels)
    most = max(rows["threshold"].nunique(dropna=False) for rows in kept.values())
    figure, axes = style.new_grid(2 * len(kept), 2, (3.4, 0.9 + 0.13 * most * len(labels)))
    others = style.short_text(labels[1], 20) if len(labels) == 2 else "each of the others"
    for k, (title, rows) in enumerate(kept.items()):
        left, right = axes[2 * k:2 * k + 2]
        sides = [_form(rows, side, f"{side}_median", f"{side}_{{}}")
                 for side in ("first", "second")]
        _panel(left, pd.concat(sides).drop_duplicates(["threshold", "kind"]), colours)
        left.set(title="\n".join(textwrap.wrap(title, 44)),
                 xlabel="" if rows["unit"].iloc[0] == "1" else str(rows["unit"].iloc[0]))
        ratios = rows[rows["first"] == labels[0]].assign(ratio_status=rows["status"])
        _panel(right, _form(ratios, "second", "ratio", "ratio_{}"), colours)
        right.axvline(1.0, color=style.GREY, lw=1.0, zorder=1)
        right.set(title=f"{style.short_text(labels[0], 20)} / {others}", xlabel="ratio")
    style.legend_below(axes[0], [style.entry(style.short_text(label, 48), colour, marker="o")
                                 for label, colour in colours.items()])
    return figure


def _form(rows: pd.DataFrame, kind: str, median: str, ends: str) -> pd.DataFrame:
    """Return one side of a comparison, or its ratios, in the form of ``cbs.csv``."""
    columns = ["threshold", kind, median, *map(ends.format, ("lower", "upper", "status"))]
    return rows[columns].set_axis(["threshold", "kind", *_ENDS], axis=1)


def _panel(ax: Axes, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    """Draw estimates of several fits, a row per threshold, or why there are none."""
    rows = rows.assign(threshold=rows["threshold"].fillna(-np.inf))  # of all thresholds
    open_ones = rows["status"].isin(["not_comparable", "not_identified"])
    drawn = marks.draw_estimates(ax, rows.assign(
        status=rows["status"].where(~open_ones, "")), colours, across=True)
    if not any(drawn):
        unlike = (rows["status"] == "not_comparable").any()
        ax.text(0.5, 0.5, "laws differ: not compared" if unlike else "not identified",
                transform=ax.transAxes, ha="center", va="center", color=style.GREY)
