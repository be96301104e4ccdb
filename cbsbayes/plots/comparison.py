"""Least squares beside the posterior: B_noise and its interval by method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.reading import fixed_values
from cbsbayes.plots.scales import log2_axis
from cbsbayes.plots.slices import choose_slice
from cbsbayes.plots.style import GREY, OKABE_ITO, legend_outside, new_axes, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_comparison"]

_METHODS = {"least_squares": ("least squares", OKABE_ITO[1]),
            "log_least_squares": ("log least squares", OKABE_ITO[4]),
            "posterior": ("posterior", OKABE_ITO[0])}
_UNIT = {"prompts": "prompts", "rollouts": "rollouts", "total": "samples"}


def _rows(fit: Fit, axis: str, at: dict[str, float]) -> pd.DataFrame:
    """Return the comparison's rows along an axis, at what is held fixed where there are any."""
    table = fit.comparison
    along = table[table["axis"] == axis] if "axis" in table else table
    held = along[[fixed_values(value) == at for value in along.get("at", [])]]
    rows = held if len(held) else along
    if rows.empty:
        raise CBSDataError(f"nothing to compare along {axis}: the least-squares table has no "
                           "row for it; draw an axis that was varied")
    return rows[rows["at"] == rows["at"].iloc[0]]


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    numbers = rows[["B_noise", "ci_lower", "ci_upper"]].to_numpy(dtype=float)
    usable = numbers[np.isfinite(numbers) & (numbers > 0)]
    if not usable.size:
        raise CBSDataError("no method gave a finite B_noise, so there is nothing to compare")
    middle = np.exp(np.median(np.log(usable)))
    return max(usable.min(), middle / 2.0**10) / 1.6, min(usable.max(), middle * 2.0**10) * 1.6


def _draw(ax: Axes, x: float, row: pd.Series, colour: str, limits: tuple[float, float]) -> None:
    """Draw one estimate; ends beyond the limits as arrowheads, no estimate as a cross."""
    value, low, high = (float(row[name]) for name in ("B_noise", "ci_lower", "ci_upper"))
    if np.isnan(value):
        ax.plot([x], [limits[0]], "x", color=colour, ms=5, mew=1.4, clip_on=False, gid="no-fit")
        return
    if np.isfinite(low):
        bottom, top = np.clip([low, high if np.isfinite(high) else np.inf], *limits)
        ax.vlines(x, bottom, top, colors=colour, lw=1.5, zorder=3)
    for end, limit, marker in ((low, limits[0], "v"), (high, limits[1], "^")):
        outside = end < limit if marker == "v" else end > limit
        if outside:
            ax.plot([x], [limit], marker, color=colour, ms=5, clip_on=False, gid="beyond")
    inside = limits[0] <= value <= limits[1]
    marker = "o" if inside else ("v" if value < limits[0] else "^")
    ax.plot([x], [np.clip(value, *limits)], marker, color=colour, ms=5.5, zorder=4,
            mfc=colour if inside else "white", clip_on=False, gid="estimate")


@styled
def plot_comparison(fit: Fit, *, ax: Axes | None = None, axis: str | None = None,
                    n_prompts: int | None = None, n_rollouts: int | None = None) -> Axes:
    """Plot B_noise by method at every threshold: least squares, its log form, the posterior.

    Plain least squares has no interval. An arrowhead at the edge is an interval or an
    estimate that goes on to zero or to infinity; a cross at the bottom means that the method
    gave nothing.

    Parameters
    ----------
    fit : Fit
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    axis : {"prompts", "rollouts", "total"}, optional
        Default: prompts, or total for one-axis data.
    n_prompts, n_rollouts : int, optional
        What is held fixed; by default the value with most batches along the axis.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If the table has no row along the axis, or no method gave a finite B_noise.
    """
    cut = choose_slice(fit, axis, n_prompts=n_prompts, n_rollouts=n_rollouts)
    rows = _rows(fit, cut.axis, {} if cut.axis == "total" else cut.at)
    limits = _limits(rows)
    thresholds = sorted(rows["threshold"].unique())
    ax = new_axes(ax, (6.8, 3.8))
    log2_axis(ax, "y")
    ax.set_ylim(*limits)
    for j, (method, (_, colour)) in enumerate(_METHODS.items()):
        for _, row in rows[rows["method"] == method].iterrows():
            x = thresholds.index(row["threshold"]) + 0.22 * (j - 1)
            _draw(ax, x, row, colour, limits)
    ax.set_xticks(np.arange(len(thresholds)), labels=[f"{t:g}" for t in thresholds])
    ax.set_xlim(-0.6, len(thresholds) - 0.4)
    ax.grid(visible=False, axis="x")
    ax.set_xlabel("Target to reach")
    ax.set_ylabel(f"B_noise ({_UNIT[cut.axis]})")
    words = ", ".join(f"{k} = {v:,.0f}" for k, v in fixed_values(rows["at"].iloc[0]).items())
    ax.set_title(f"B_noise by method{f', at {words}' if words else ''}")
    _legend(ax, set(rows["method"]), no_fit=bool(rows["B_noise"].isna().any()))
    return ax


def _legend(ax: Axes, methods: set[str], *, no_fit: bool) -> None:
    handles = [Line2D([], [], color=colour, marker="o", ms=5, lw=1.5, label=label)
               for method, (label, colour) in _METHODS.items() if method in methods]
    if no_fit:
        handles.append(Line2D([], [], color=GREY, marker="x", ls="none", label="no fit"))
    legend_outside(ax, handles=handles, labels=[handle.get_label() for handle in handles])
