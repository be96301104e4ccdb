"""Curves along one axis: updates and samples to target, and what doubling the batch buys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.plots import marks, reading, style
from cbsbayes.plots.reading import Cut, choose_cut

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_gains", "plot_samples", "plot_steps"]

type Thresholds = float | Sequence[float] | None

_DASHED = (0, (4, 2))
_BEYOND = 1.5  # how far curves go past the batches tried


@style.styled
def plot_steps(fit: Fit, *, ax: Axes | None = None, threshold: Thresholds = None,
               axis: str | None = None, fixed: int | None = None) -> Axes:
    """Plot updates to target S against the batch, along one axis.

    Points with bars are observed crossings (between two evaluations); an open triangle points up
    where a run ended before the target, down where its first evaluation was past it. Lines and
    bands are the posterior (median; 50 % and the fit's interval for one threshold, the interval
    alone for several), dashed is least squares, and a diamond is the critical batch size, a
    triangle on the line a bound on it.

    Parameters
    ----------
    fit : Fit
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    threshold : float or sequence of float, optional
        Fitted thresholds to draw; by default all (six at most).
    axis : {"prompts", "rollouts", "total"}, optional
        Default: prompts, or total for one-axis data.
    fixed : int, optional
        Rollouts (along prompts) or prompts (along rollouts) held fixed; by default the value with
        most batches along the axis.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If the axis was not varied or a threshold was not fitted.
    """
    ax = _draw(fit, ax, choose_cut(fit, axis, fixed), threshold, in_samples=False)
    ax.set(ylabel=f"S: {reading.steps_label(fit)} to target", title="Updates to target")
    return ax


@style.styled
def plot_samples(fit: Fit, *, ax: Axes | None = None, threshold: Thresholds = None,
                 axis: str | None = None, fixed: int | None = None) -> Axes:
    """Plot samples to target E = B · S against the batch; parameters and marks as `plot_steps`.

    Where E is flat, a larger batch costs nothing in samples; where it rises along the batch, the
    extra samples buy less and less.
    """
    ax = _draw(fit, ax, choose_cut(fit, axis, fixed), threshold, in_samples=True)
    ax.set(ylabel="E = B · S: samples to target", title="Samples to target")
    return ax


def _draw(fit: Fit, ax: Axes | None, cut: Cut, threshold: Thresholds, *, in_samples: bool) -> Axes:
    """Draw every threshold asked for along a cut, with marks, names and legend."""
    levels = reading.pick_thresholds(fit, threshold)
    prob = fit.settings["ci_prob"]
    tried = cut.tried(reading.crossing_table(fit, levels[0]))
    grid = np.geomspace(max(tried[0] / _BEYOND, cut.least), tried[-1] * _BEYOND, 49)
    batches = cut.batches(grid)
    scale = batches.prod(axis=1) if in_samples else np.ones_like(grid)
    ax = style.new_axes(ax)
    style.log_axis(ax, "x")
    style.log_axis(ax, "y", 10)
    ax.set_xlim(grid[0] / 1.06, grid[-1])
    entries = [style.entry(f"posterior median, {100 * prob:g} % band", lw=1.6)]
    ends, critical = [], []
    for level, colour in zip(levels, style.ordered_colours(len(levels)), strict=True):
        draws = reading.steps_at(fit, batches, level) * scale
        median = marks.draw_band(ax, grid, draws, colour,
                                 (0.5, prob) if len(levels) == 1 else (prob,))
        places = cut.batches(tried)
        at_tried = reading.steps_at(fit, places, level) * (places.prod(axis=1) if in_samples else 1)
        for x, values in zip(tried, at_tried.T, strict=True):
            marks.add_tip(ax, x, marks.quantiles(values, prob)[0], f"{x:g} {cut.unit}, "
                          f"{reading.named(fit, level)}: {marks.median_text(values, prob)}", level)
        runs = reading.crossing_table(fit, level)
        runs = runs[cut.contains(runs)]
        marks.draw_crossings(ax, runs[cut.column].to_numpy(dtype=float), runs, colour,
                             scale=runs["total_batch"].to_numpy() if in_samples else 1.0)
        entries += marks.crossing_entries(runs["status"])
        critical.append(_critical(ax, fit, cut, level, grid, median, colour))
        squares = _least_squares(fit, cut, level, grid)
        if squares is not None:
            ax.plot(grid, squares * scale, color=colour, ls=_DASHED, lw=1.1, zorder=3,
                    gid="least-squares", scaley=False)
            entries.append(style.entry("least squares", ls=_DASHED, lw=1.1))
        ends.append((median[-1], reading.named(fit, level), colour))
    if "identified" in critical:
        entries.append(style.entry("critical batch size", marker="D", mfc=style.PAPER))
    ax.set_xlabel(cut.label)
    marks.name_curves(ax, ends)
    style.legend_below(ax, [*entries, *marks.bound_entries(critical, across=True)])
    return ax


def _critical(ax: Axes, fit: Fit, cut: Cut, level: float, grid: np.ndarray, median: np.ndarray,
              colour: str) -> str:
    """Mark the critical batch size on the curve; return its status, '' where none is drawn."""
    row = cut.critical(fit.cbs, level)
    if row is None or row["status"] == "not_identified":
        return ""
    end = {"upper_bound": "ci_upper", "lower_bound": "ci_lower"}.get(str(row["status"]), "median")
    if not grid[0] < row[end] < grid[-1]:
        return ""
    y = float(np.exp(np.interp(np.log(row[end]), np.log(grid), np.log(median))))
    return marks.draw_estimate(ax, y, row, colour, hollow=True, across=True, marker="D")


def _least_squares(fit: Fit, cut: Cut, level: float, grid: np.ndarray) -> np.ndarray | None:
    """Return updates by least squares along a cut, None where there is no such fit."""
    try:
        table = fit.comparison
    except CBSDataError:  # least squares has not been fitted
        return None
    rows = table[(table["method"] == "least_squares") & (table["axis"] == cut.axis)
                 & (table["at"] == cut.at) & np.isclose(table["threshold"], level)]
    if rows.empty or not np.isfinite(rows[["S_min", "B_noise"]]).all(axis=None):
        return None
    s_min, b_noise = rows[["S_min", "B_noise"]].iloc[0]
    return s_min * np.exp(get_law("total").log_ratio(grid, 1.0, {"B_noise": b_noise}))


@style.styled
def plot_gains(fit: Fit, *, ax: Axes | None = None, threshold: Thresholds = None,
               axis: str | None = None, fixed: int | None = None) -> Axes:
    """Plot updates after doubling the batch over updates before, inside the range tried.

    1 is nothing bought, 0.5 is perfect scaling. Of all that is read off the fit this depends least
    on the form of the law. Parameters as `plot_steps`.

    Raises
    ------
    CBSDataError
        If the axis was not varied, no batch has its double in the range tried, or a threshold
        was not fitted.
    """
    cut, prob = choose_cut(fit, axis, fixed), fit.settings["ci_prob"]
    levels = reading.pick_thresholds(fit, threshold)
    tried = cut.tried(reading.crossing_table(fit, levels[0]))
    inside = tried[2 * tried <= tried[-1]]
    if not inside.size:
        raise CBSDataError(f"no batch along {cut.axis} was tried together with one twice "
                           "its size; what doubling buys would be extrapolated")
    grid = np.unique([*np.geomspace(max(tried[0], cut.least), tried[-1] / 2, 25), *inside])
    at = np.isin(grid, inside)
    ax = style.new_axes(ax)
    style.log_axis(ax, "x")
    ends = []
    for level, colour in zip(levels, style.ordered_colours(len(levels)), strict=True):
        after, before = (reading.steps_at(fit, cut.batches(x), level) for x in (2 * grid, grid))
        with np.errstate(invalid="ignore"):  # where a group never arrives, before nor after
            ratio = after / before
        median = marks.draw_band(ax, grid, ratio, colour, (prob,))
        ax.plot(grid[at], median[at], "o", color=colour, ms=4.5, gid="tried")
        for x, y, draws in zip(grid[at], median[at], ratio[:, at].T, strict=True):
            marks.add_tip(ax, x, y, f"{x:g} → {2 * x:g} {cut.unit}, {reading.named(fit, level)}: "
                                    f"{marks.median_text(draws, prob)}", level)
        ends.append((median[-1], reading.named(fit, level), colour))
    for value, text in ((1.0, "nothing bought"), (0.5, "half the updates")):
        ax.axhline(value, color=style.GREY, lw=0.9, ls=_DASHED, zorder=1, gid="reference")
        ax.text(0.99, value, text, transform=ax.get_yaxis_transform(), ha="right", va="bottom",
                fontsize=7, color=style.GREY)
    ax.set_ylim(min(0.47, ax.get_ylim()[0]), 1.05)
    ax.set(xlabel=f"{cut.label}, before doubling", ylabel="S after doubling / S before",
           title=f"What doubling {'the batch' if cut.axis == 'total' else cut.axis} buys")
    marks.name_curves(ax, ends)
    style.legend_below(ax, [
        style.entry(f"posterior median, {100 * prob:g} % band", lw=1.6),
        style.entry("batch tried with its double", marker="o")])
    return ax
