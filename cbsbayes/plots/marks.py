"""The marks that S(B) figures share: crossing intervals, posterior bands, bound arrows.

Every artist carries a gid (`crossing-interval`, `crossing-left`, `crossing-right`, `median`,
`band-50`, `bound`, ...), so that a figure can be asked what it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cbsbayes.plots.reading import INTERVAL, LEFT, RIGHT
from cbsbayes.plots.style import BLACK, GREY

__all__ = ["censoring_handles", "dodge", "draw_bands", "draw_crossings", "draw_estimate",
           "interval_of", "spread_groups"]


def dodge(x: np.ndarray, octaves: float = 0.16) -> np.ndarray:
    """Return positions on a log2 axis with equal ones set side by side.

    Parameters
    ----------
    x : array, shape (n,)
    octaves : float
        Width over which the runs of one batch are spread.

    Returns
    -------
    array, shape (n,)
    """
    return np.asarray(x, dtype=float) * 2.0 ** spread_groups(x, octaves)


def spread_groups(x: np.ndarray, width: float) -> np.ndarray:
    """Return an offset per entry that spreads equal entries evenly over `width`."""
    groups = pd.Series(np.asarray(x, dtype=float)).groupby(np.asarray(x, dtype=float))
    rank = groups.cumcount().to_numpy()
    size = groups.transform("size").to_numpy()
    return width * np.where(size > 1, rank / np.maximum(size - 1, 1) - 0.5, 0.0)


def draw_crossings(ax: Axes, x: np.ndarray, crossings: pd.DataFrame, colour: str, *,
                   scale: np.ndarray | float = 1.0, alpha: float = 1.0) -> None:
    """Draw observed crossings: bars over the interval, open triangles where censored.

    Parameters
    ----------
    ax : Axes
    x : array, shape (run,)
    crossings : DataFrame
        Columns `lower`, `upper` (updates) and `status`.
    colour : str
    scale : array, shape (run,), or float
        Factor on both bounds; the total batch turns updates into samples.
    alpha : float
    """
    scale = np.broadcast_to(np.asarray(scale, dtype=float), x.shape)
    lower = crossings["lower"].to_numpy() * scale
    upper = crossings["upper"].to_numpy() * scale
    status = crossings["status"].to_numpy()
    between = status == INTERVAL
    if between.any():
        middle = np.sqrt(lower[between] * upper[between])
        ax.vlines(x[between], lower[between], upper[between], colors=colour, lw=1.3,
                  alpha=alpha, zorder=4)
        ax.plot(x[between], middle, "o", color=colour, ms=4.6, alpha=alpha, zorder=5,
                mec="white", mew=0.4, gid="crossing-interval")
    for code, y, marker, gid in ((LEFT, upper, "v", "crossing-left"),
                                 (RIGHT, lower, "^", "crossing-right")):
        censored = status == code
        if censored.any():
            ax.plot(x[censored], y[censored], marker, mfc="white", mec=colour, mew=1.2, ms=6,
                    ls="none", alpha=alpha, zorder=5, gid=gid)


def draw_bands(ax: Axes, x: np.ndarray, samples: np.ndarray, colour: str,
               probs: Sequence[float] = (0.5, 0.9), **kwargs: Any) -> None:
    """Draw the posterior median and equal-tailed bands of a curve.

    Parameters
    ----------
    ax : Axes
    x : array, shape (batch,)
    samples : array, shape (sample, batch)
    colour : str
    probs : sequence of float
        Probabilities of the bands.
    **kwargs
        Passed to the median line, e.g. `label`.
    """
    widest_first = sorted(probs, reverse=True)
    median, *ends = _quantiles(samples, [0.5, *(end for p in widest_first for end in _ends(p))])
    for prob, low, high in zip(widest_first, ends[::2], ends[1::2], strict=True):
        alpha = 0.32 if prob <= 0.5 else 0.16
        ax.fill_between(x, low, high, color=colour, alpha=alpha, lw=0, zorder=2,
                        gid=f"band-{100 * prob:.0f}")
    ax.plot(x, median, color=colour, zorder=3, gid="median", **kwargs)


def interval_of(samples: np.ndarray, prob: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the equal-tailed interval over axis 0."""
    low, high = _quantiles(samples, _ends(prob))
    return low, high


def _ends(prob: float) -> tuple[float, float]:
    return (1 - prob) / 2, (1 + prob) / 2


def _quantiles(samples: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Return quantiles over axis 0, shape (level, ...), of the draws that are not NaN.

    NaN where a quantile is infinite: what may never arrive has no place on the axis.
    """
    quantile = np.nanquantile if np.isnan(samples).any() else np.quantile  # sorts row by row
    if not np.isinf(samples).any():
        return quantile(samples, levels, axis=0)
    found = quantile(samples, levels, axis=0, method="inverted_cdf")
    return np.where(np.isinf(found), np.nan, found)


def draw_estimate(ax: Axes, x: float, row: pd.Series, colour: str, *, hollow: bool = False) -> str:
    """Draw one estimate at `x`: a point with its interval, or an arrow where it is a bound.

    Parameters
    ----------
    ax : Axes
    x : float
    row : Series
        `median, ci_lower, ci_upper, status` as in ``cbs.csv``.
    colour : str
    hollow : bool
        Draw the point open, for estimates that stand beside the main ones.

    Returns
    -------
    str
        What was drawn: "identified", "upper_bound", "lower_bound", "not_identified", or
        "" where the row holds no finite number to draw.
    """
    status = str(row["status"])
    low, high = float(row["ci_lower"]), float(row["ci_upper"])
    if status in {"upper_bound", "lower_bound"}:
        bound, points_down = (high, True) if status == "upper_bound" else (low, False)
        return status if _draw_bound(ax, x, bound, colour, down=points_down) else ""
    if not (np.isfinite(low) and np.isfinite(high)):
        return ""
    known = status == "identified"
    ax.vlines(x, low, high, colors=colour, lw=1.4, linestyles="-" if known else (0, (1, 1.5)),
              alpha=1.0 if known else 0.6, zorder=3)
    if known:
        ax.plot([x], [float(row["median"])], "o", color=colour, ms=5, zorder=4, gid="estimate",
                mfc="white" if hollow else colour)
    return status


def _draw_bound(ax: Axes, x: float, bound: float, colour: str, *, down: bool) -> bool:
    if not (np.isfinite(bound) and bound > 0):
        return False
    ax.plot([x], [bound], "_", color=colour, ms=8, mew=1.6, zorder=4,
            gid="upper-bound" if down else "lower-bound")
    ax.annotate("", xy=(x, bound), xytext=(0, -22 if down else 22), textcoords="offset points",
                arrowprops={"arrowstyle": "<|-", "color": colour, "lw": 1.2, "shrinkA": 0,
                            "shrinkB": 0}, annotation_clip=True)
    return True


def censoring_handles(status: Iterable[int]) -> list[Line2D]:
    """Return legend handles for the kinds of crossing among `status`."""
    kinds = ((INTERVAL, "o", BLACK, "observed, between evaluations"),
             (RIGHT, "^", "white", "not surely reached by the end"),
             (LEFT, "v", "white", "reached before the first evaluation"))
    present = set(status)
    return [Line2D([], [], marker=marker, mfc=fill, mec=GREY if fill == "white" else fill,
                   ls="none", ms=5, label=label)
            for code, marker, fill, label in kinds if code in present]
