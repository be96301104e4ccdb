"""The marks that figures share: crossing intervals, posterior bands, estimates, names of curves.

Every artist carries a gid (`crossing-interval`, `crossing-left`, `crossing-right`, `median`,
`band-50`, `estimate`, …), so that a figure can be asked what it shows. Tips are artists that are
not drawn: what the page tells the pointer at their places.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cbsbayes.crossings.intervals import INTERVAL, LEFT, RIGHT
from cbsbayes.plots.style import INK, PAPER, entry, log_axis, plain_number
from cbsbayes.posterior import tidy

__all__ = ["Tip", "add_tip", "bound_entries", "crossing_entries", "draw_band", "draw_crossings",
           "draw_estimate", "draw_estimates", "median_text", "name_curves", "quantiles",
           "spread", "tips_of"]

_LINE = 0.06  # height of a line of text as a share of usual axes
_CROSSINGS = ((INTERVAL, "oo", "crossing-interval", "observed, between two evaluations"),
              (RIGHT, "^>", "crossing-right", "not reached by the end"),
              (LEFT, "v<", "crossing-left", "reached before the first evaluation"))
_BOUNDS = {"upper_bound": "v<", "lower_bound": "^>"}  # markers along the y axis and the x axis


class Tip(NamedTuple):
    """What the pointer is told at a place of a figure, in its points from the top left."""

    x: float
    y: float
    text: str
    threshold: float | None = None


def quantiles(draws: np.ndarray, prob: float) -> np.ndarray:
    """Return median, lower and upper end over axis 0, shape (3, …); NaN where one is infinite."""
    known = np.where(np.isnan(draws), np.inf, draws)  # what never arrives has no place on an axis
    found = tidy.quantiles(known, [0.5, (1 - prob) / 2, (1 + prob) / 2], axis=0)
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
    # bars as one broken line: a fraction of the bytes of a line each
    ends = np.stack([lower, upper, np.full(len(at), np.nan)], axis=1)[known].ravel()
    place = np.repeat(at[known], 3)
    ax.plot(*((ends, place) if across else (place, ends)), solid_capstyle="butt", color=colour,
            lw=1.3, zorder=4)
    middle = np.sqrt(np.where(known, lower * np.where(known, upper, 1.0), 1.0))
    value = np.select([status == LEFT, status == RIGHT], [upper, lower], middle)
    for code, marker, gid, _ in _CROSSINGS:
        here, closed = status == code, code == INTERVAL
        if here.any():
            ax.plot(*((value[here], at[here]) if across else (at[here], value[here])),
                    marker[across], ls="none", gid=gid, mfc=colour if closed else PAPER,
                    mec=PAPER if closed else colour, mew=0.4 if closed else 1.1,
                    ms=4.4 if closed else 5.5, zorder=5)


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
    markers = {"identified": 2 * marker} | _BOUNDS
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
        ax.plot(*([value], [at]) if across else ([at], [value]), markers[status][across], ms=5,
                color=colour, mfc=PAPER if open_marker else colour, zorder=4,
                gid="estimate" if status == "identified" else status)
    return status


def draw_estimates(ax: Axes, rows: pd.DataFrame, colours: dict[str, str],
                   filled: Iterable[str] | None = None, *, across: bool = False) -> list[str]:
    """Draw estimates side by side at every threshold, a place for each kind; return statuses.

    Parameters
    ----------
    ax : Axes
        One axis gets the thresholds, the other becomes logarithmic with room at its ends.
    rows : DataFrame
        Columns `threshold, kind, median, ci_lower, ci_upper, status`.
    colours : dict
        By kind, in the order of their places.
    filled : iterable of str, optional
        Kinds whose points are filled; all unless given.
    across : bool
        Thresholds from top to bottom instead of from left to right.
    """
    kinds, levels = list(colours), sorted(rows["threshold"].unique())
    full = set(kinds if filled is None else filled)
    drawn = [draw_estimate(ax, levels.index(row["threshold"]) + _offset(kinds.index(row["kind"]),
                                                                       len(kinds)), row,
                           colours[row["kind"]], hollow=row["kind"] not in full, across=across)
             for _, row in rows.iterrows()]
    labels = [plain_number(level) for level in levels]
    if across:
        log_axis(ax, "x", most=6)
        ax.set_xlim(_room(ax.get_xlim(), 0.25, 1.0))
        ax.set_ylim(len(levels) - 0.4, -0.6)
        ax.set_yticks(range(len(levels)), labels=labels)
    else:
        log_axis(ax, "y")
        ax.set_ylim(_room(ax.get_ylim(), 0.5, 3.0))
        ax.set_xlim(-0.6, len(levels) - 0.4)
        ax.set_xticks(range(len(levels)), labels=labels)
    ax.grid(visible=False, axis="y" if across else "x")
    return drawn


def _offset(k: int, n: int) -> float:
    """Return where the k-th of n estimates stands beside the middle of its threshold."""
    return min(0.24, 0.7 / n) * (k - (n - 1) / 2)


def _room(limits: tuple[float, float], least: float, whole: float) -> tuple[float, float]:
    """Return limits with `least` octaves more at each end, at least `whole` octaves in all."""
    low, high = np.log2(limits)
    more = max(least, (whole - (high - low)) / 2)
    return 2.0 ** (low - more), 2.0 ** (high + more)


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
    present = set(status)
    return [entry(label, INK, marker=marker[across], mfc=INK if code == INTERVAL else PAPER)
            for code, marker, _, label in _CROSSINGS if code in present]


def bound_entries(drawn: Iterable[str], *, across: bool = False) -> list[Line2D]:
    """Return legend entries for the statuses that `draw_estimate` drew, points left out."""
    present = set(drawn)
    found = [entry(f"{status.replace('_', ' ')} only", marker=marker[across], mfc=PAPER)
             for status, marker in _BOUNDS.items() if status in present]
    return found + ([entry("not identified", ls=(0, (1, 1.5)))] if "not_identified" in present
                    else [])


def median_text(draws: np.ndarray, prob: float) -> str:
    """Return median and interval of draws as text."""
    median, low, high = (plain_number(float(f"{value:.3g}")) for value in quantiles(draws, prob))
    return f"{median} ({low}–{high})"


def add_tip(ax: Axes, x: float, y: float, text: str, threshold: float | None = None) -> None:
    """Say what the pointer is told at a place of the axes, and of which target if of one."""
    ax.plot([x], [y], ls="none", visible=False, gid="tip" if threshold is None else
            f"tip-{threshold!r}", label=f"_{text}", scalex=False, scaley=False)


def tips_of(figure: Figure) -> list[Tip]:
    """Return the tips of a drawn figure."""
    scale = 72 / figure.dpi
    found = []
    for line in (line for ax in figure.axes for line in ax.lines):
        kind, _, threshold = str(line.get_gid()).partition("-")
        if kind == "tip":
            ((x, y),) = line.get_transform().transform(line.get_xydata())
            found.append(Tip(float(x * scale), float((figure.bbox.height - y) * scale),
                             str(line.get_label())[1:], float(threshold) if threshold else None))
    return found
