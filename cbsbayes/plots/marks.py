"""The marks that figures share: crossing intervals, posterior bands, estimates, names of curves.

Every artist carries a gid (`crossing-interval`, `crossing-left`, `crossing-right`, `median`,
`band-50`, `estimate`, …), so that a figure can be asked what it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cbsbayes.plots.reading import INTERVAL, LEFT, RIGHT
from cbsbayes.plots.style import INK, PAPER, entry

__all__ = ["bound_entries", "crossing_entries", "draw_band", "draw_crossings", "draw_estimate",
           "name_curves", "quantiles", "spread"]

_LINE = 0.06  # height of a line of text as a share of usual axes


def quantiles(draws: np.ndarray, prob: float) -> np.ndarray:
    """Return median, lower and upper end over axis 0, shape (3, …); NaN where one is infinite."""
    levels = [0.5, (1 - prob) / 2, (1 + prob) / 2]
    if np.isfinite(draws).all():
        return np.quantile(draws, levels, axis=0)
    known = np.where(np.isnan(draws), np.inf, draws)  # what never arrives has no place on an axis
    found = np.quantile(known, levels, axis=0, method="inverted_cdf")
    return np.where(np.isinf(found), np.nan, found)


def draw_band(ax: Axes, x: np.ndarray, draws: np.ndarray, colour: str,
              probs: Sequence[float] = (0.5, 0.9)) -> np.ndarray:
    """Draw the posterior median and equal-tailed bands of a curve; return the median.

    Parameters
    ----------
    ax : Axes
    x : array, shape (batch,)
    draws : array, shape (sample, batch)
    colour : str
    probs : sequence of float
        Probabilities of the bands.
    """
    for prob in probs:
        median, low, high = quantiles(draws, prob)
        ax.fill_between(x, low, high, color=colour, alpha=0.3 if prob <= 0.5 else 0.16, lw=0,
                        zorder=2, gid=f"band-{100 * prob:.0f}")
    ax.plot(x, median, color=colour, zorder=3, gid="median")
    return median


def _bars(ax: Axes, at: np.ndarray, low: np.ndarray, high: np.ndarray, *, across: bool,
          **style: Any) -> None:
    """Draw bars as one broken line, a fraction of the bytes of a line each."""
    ends = np.stack([low, high, np.full(len(low), np.nan)], axis=1).ravel()
    place = np.repeat(at, 3)
    ax.plot(*((ends, place) if across else (place, ends)), solid_capstyle="butt", **style)


def draw_crossings(ax: Axes, at: np.ndarray, crossings: pd.DataFrame, colour: str, *,
                   scale: np.ndarray | float = 1.0, across: bool = False) -> None:
    """Draw observed crossings: bars over the interval, open triangles where censored.

    Parameters
    ----------
    ax : Axes
    at : array, shape (run,)
        Where each run stands on the other axis.
    crossings : DataFrame
        Columns `lower`, `upper` (updates) and `status`.
    colour : str
    scale : array, shape (run,), or float
        Factor on both bounds; the total batch turns updates into samples.
    across : bool
        Along the x axis instead of the y axis.
    """
    lower, upper = (crossings[name].to_numpy() * scale for name in ("lower", "upper"))
    status = crossings["status"].to_numpy()
    known = status == INTERVAL
    _bars(ax, at[known], lower[known], upper[known], across=across, color=colour, lw=1.3, zorder=4)
    middle = np.sqrt(np.where(known, lower * np.where(known, upper, 1.0), 1.0))
    for code, value, marker, gid in ((INTERVAL, middle, "o", "crossing-interval"),
                                     (LEFT, upper, "<" if across else "v", "crossing-left"),
                                     (RIGHT, lower, ">" if across else "^", "crossing-right")):
        here = status == code
        if here.any():
            xy = (value[here], at[here]) if across else (at[here], value[here])
            ax.plot(*xy, marker, mfc=colour if code == INTERVAL else PAPER, ls="none", gid=gid,
                    mec=PAPER if code == INTERVAL else colour, mew=0.4 if code == INTERVAL else 1.1,
                    ms=4.4 if code == INTERVAL else 5.5, zorder=5)


def draw_estimate(ax: Axes, at: float, row: pd.Series, colour: str, *, hollow: bool = False,
                  across: bool = False, marker: str = "o") -> str:
    """Draw one estimate: a point with its interval, or a triangle where it is a bound.

    Parameters
    ----------
    ax : Axes
    at : float
        Where it stands on the other axis.
    row : Series
        `median, ci_lower, ci_upper, status` as in ``cbs.csv``.
    colour : str
    hollow : bool
        Draw the point open, for estimates that stand beside the main ones.
    across : bool
        Along the x axis instead of the y axis.
    marker : str
        Of the point.

    Returns
    -------
    str
        The status of what was drawn, "" where there is no finite number to draw.
    """
    status = str(row["status"])
    low, median, high = (float(row[name]) for name in ("ci_lower", "median", "ci_upper"))
    markers = {"identified": marker, "upper_bound": "<" if across else "v",
               "lower_bound": ">" if across else "^"}
    value = {"upper_bound": high, "lower_bound": low}.get(status, median)
    if status in {"identified", "not_identified"} and np.isfinite([low, high]).all():
        (ax.hlines if across else ax.vlines)(
            at, low, high, colors=colour, lw=1.4, zorder=3,
            linestyles="-" if status == "identified" else (0, (1, 1.5)))
    elif status == "not_identified":
        return ""
    if status in markers:
        if not (np.isfinite(value) and value > 0):
            return ""
        open_marker = hollow or status != "identified"
        ax.plot(*([value], [at]) if across else ([at], [value]), markers[status], color=colour,
                ms=5, mfc=PAPER if open_marker else colour, zorder=4,
                gid={"identified": "estimate"}.get(status, status))
    return status


def spread(sorted_values: np.ndarray, least: float) -> np.ndarray:
    """Return values moved up, and all down again below 1, until neighbours are `least` apart."""
    moved = np.array(sorted_values, dtype=float)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + least)
    return moved - max(0.0, moved[-1] - 1.0) if len(moved) else moved


def name_curves(ax: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names of curves right of the axes, at their ends, moved apart where they would meet.

    Parameters
    ----------
    ax : Axes
        With its final limits.
    ends : sequence of (y, name, colour)
    """
    to_axes = ax.transData + ax.transAxes.inverted()
    places = sorted((float(to_axes.transform((ax.get_xlim()[1], y))[1]), name, colour)
                    for y, name, colour in ends if np.isfinite(y))
    heights = spread(np.array([place for place, _, _ in places]), _LINE)
    for y, (_, name, colour) in zip(heights, places, strict=True):
        ax.text(1.015, y, name, transform=ax.transAxes, color=colour, va="center", fontsize=8,
                gid="name")


def crossing_entries(status: Iterable[int], *, across: bool = False) -> list[Line2D]:
    """Return legend entries for the kinds of crossing among `status`."""
    kinds = ((INTERVAL, "o", "observed, between two evaluations"),
             (RIGHT, ">" if across else "^", "not reached by the end"),
             (LEFT, "<" if across else "v", "reached before the first evaluation"))
    present = set(status)
    return [entry(label, INK, marker=marker, mfc=INK if code == INTERVAL else PAPER)
            for code, marker, label in kinds if code in present]


def bound_entries(drawn: Iterable[str], *, across: bool = False) -> list[Line2D]:
    """Return legend entries for the statuses that `draw_estimate` drew, points left out."""
    kinds = (("upper_bound", "<" if across else "v", "upper bound only"),
             ("lower_bound", ">" if across else "^", "lower bound only"))
    present = set(drawn)
    found = [entry(label, marker=marker, mfc=PAPER)
             for status, marker, label in kinds if status in present]
    if "not_identified" in present:
        found.append(entry("not identified", ls=(0, (1, 1.5))))
    return found
