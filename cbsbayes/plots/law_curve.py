"""One threshold of an S(B) or E(B) figure: posterior bands, crossings, least squares, CBS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.plots.marks import censoring_handles, dodge, draw_bands, draw_crossings
from cbsbayes.plots.reading import (
    cbs_row,
    ci_prob,
    crossing_table,
    pick_thresholds,
    threshold_label,
)
from cbsbayes.plots.scales import log2_axis, plain_number
from cbsbayes.plots.slices import Slice
from cbsbayes.plots.style import GREY, legend_outside, ordered_colours

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["LawCurve", "draw_law_curves", "least_squares_steps"]

_CBS_QUANTITIES = {"prompts": ("cbs_prompts",), "rollouts": ("cbs_rollouts",),
                   "total": ("cbs_samples", "B_noise")}


def least_squares_steps(fit: Fit, cut: Slice, threshold: float, batch: np.ndarray) -> np.ndarray:
    """Return S of least squares at batches along a cut, NaN where it has no fit there."""
    held = ",".join(f"{name}={value:.0f}" for name, value in cut.at.items())
    try:
        table = fit.comparison
    except CBSDataError:  # least squares has not been fitted
        return np.full_like(batch, np.nan)
    rows = table[(table["method"] == "least_squares") & (table["axis"] == cut.axis)
                 & np.isclose(table["threshold"], threshold)
                 & ((table["at"] == held) | (cut.axis == "total"))]
    if rows.empty:
        return np.full_like(batch, np.nan)
    s_min, b_noise = rows[["S_min", "B_noise"]].iloc[0]
    return s_min * np.exp(get_law("total").log_ratio(batch, 1.0, {"B_noise": b_noise}))


@dataclass(frozen=True)
class LawCurve:
    """What is drawn for one threshold, in updates or in samples.

    Attributes
    ----------
    fit : Fit
    cut : Slice
    threshold : float
    colour : str
    in_samples : bool
        True multiplies updates by the total batch: E(B) = B · S(B).
    """

    fit: Fit
    cut: Slice
    threshold: float
    colour: str
    in_samples: bool

    def _scale(self, x: np.ndarray) -> np.ndarray:
        return self.cut.total(x) if self.in_samples else np.ones_like(x)

    def bands(self, ax: Axes, grid: np.ndarray, probs: Sequence[float]) -> None:
        """Draw the posterior of the curve."""
        n_prompts, n_rollouts = self.cut.batches(grid)
        log_steps = self.fit.log_steps(n_prompts, n_rollouts, threshold=self.threshold)
        samples = np.exp(log_steps.values) * self._scale(grid)
        draw_bands(ax, grid, samples, self.colour, probs,
                   label=threshold_label(self.fit.sweep, self.threshold))

    def crossings(self, ax: Axes) -> None:
        """Draw the observed crossings; runs off the cut are faint (total axis only)."""
        runs = crossing_table(self.fit, self.threshold)
        on_cut = self.cut.contains(runs)
        shown = [(on_cut, 1.0)] + ([(~on_cut, 0.3)] if self.cut.axis == "total" else [])
        for mask, alpha in shown:
            part = runs[mask]
            x = part[self.cut.column].to_numpy(dtype=float)
            scale = part["total_batch"].to_numpy(dtype=float) if self.in_samples else 1.0
            draw_crossings(ax, dodge(x), part, self.colour, scale=scale, alpha=alpha)

    def least_squares(self, ax: Axes, grid: np.ndarray) -> bool:
        """Draw the least-squares curve, dashed; return whether there is one."""
        steps = least_squares_steps(self.fit, self.cut, self.threshold, grid)
        if not (np.isfinite(steps) & (steps > 0)).all():
            return False
        ax.plot(grid, steps * self._scale(grid), color=self.colour, ls=(0, (4, 2)), lw=1.1,
                zorder=3, gid="least-squares")
        return True

    def s_min(self, ax: Axes) -> None:
        """Draw the posterior median of S_min as a dotted line."""
        draws = self.fit.posterior["S_min"].sel(threshold=self.threshold, method="nearest")
        ax.axhline(float(draws.median()), color=self.colour, ls=(0, (1, 2)), lw=1.0, zorder=1,
                   gid="s-min")

    def cbs_bar(self, ax: Axes, height: float) -> bool:
        """Draw the CBS interval as a bar at a height of the axes; return whether there is one."""
        rows = [cbs_row(self.fit.cbs, quantity, self.threshold, at)
                for quantity in _CBS_QUANTITIES[self.cut.axis] for at in (self.cut.at, {})]
        row = next((row for row in rows if row is not None), None)
        if row is None:
            return False
        return _draw_cbs_bar(ax, row, height, self.colour)


def _draw_cbs_bar(ax: Axes, row: Any, height: float, colour: str) -> bool:
    """Draw a bar for an identified CBS; for a bound, the part of the axis still possible."""
    left, right = ax.get_xlim()
    ends = {"upper_bound": (left, row["ci_upper"]), "lower_bound": (row["ci_lower"], right),
            "identified": (row["ci_lower"], row["ci_upper"])}
    low, high = ends.get(str(row["status"]), (np.nan, np.nan))
    low, high = max(low, left), min(high, right)
    if not low < high:
        return False
    identified = row["status"] == "identified"
    ax.plot([low, high], [height, height], transform=ax.get_xaxis_transform(), color=colour,
            lw=4.5, alpha=0.55 if identified else 0.25, solid_capstyle="butt", zorder=3,
            gid=f"cbs-{row['status']}")
    if identified and left < row["median"] < right:
        ax.plot([row["median"]], [height], "|", transform=ax.get_xaxis_transform(), color=colour,
                ms=7, mew=1.8, zorder=4, gid="cbs-median")
    return True


def draw_law_curves(fit: Fit, ax: Axes, cut: Slice, threshold: float | Sequence[float] | None, *,
                    in_samples: bool) -> None:
    """Draw every threshold asked for along a cut, with axes, marks and legend.

    Parameters
    ----------
    fit : Fit
    ax : Axes
    cut : Slice
    threshold : float, sequence of float or None
    in_samples : bool
        E(B) instead of S(B).
    """
    thresholds = pick_thresholds(fit, threshold)
    prob = ci_prob(fit)
    probs = (0.5, prob) if len(thresholds) == 1 else (prob,)
    curves = [LawCurve(fit, cut, t, colour, in_samples)
              for t, colour in zip(thresholds, ordered_colours(len(thresholds)), strict=True)]
    runs = crossing_table(fit, thresholds[0])
    tried = runs.loc[cut.contains(runs), cut.column].to_numpy(dtype=float)
    grid = cut.grid(tried)
    log2_axis(ax, "xy")
    for curve in curves:
        curve.bands(ax, grid, probs)
        curve.crossings(ax)
    squares = [curve.least_squares(ax, grid) for curve in curves]
    ax.set_xlim(grid[0], grid[-1])
    _leave_room_below(ax, len(curves))
    bars = [curve.cbs_bar(ax, 0.03 + 0.03 * i) for i, curve in enumerate(curves)]
    if not in_samples:
        for curve in curves:
            curve.s_min(ax)
    ax.set_xlabel(cut.xlabel)
    _legend(ax, curves, squares=any(squares), bars=any(bars), prob=prob)


def _leave_room_below(ax: Axes, n_bars: int) -> None:
    """Lower the y limit so that the CBS bars lie under the curves."""
    low, high = np.log2(ax.get_ylim())
    ax.set_ylim(2.0 ** (low - (high - low) * (0.03 + 0.03 * n_bars)), 2.0**high)


def _legend(ax: Axes, curves: Sequence[LawCurve], *, squares: bool, bars: bool,
            prob: float) -> None:
    handles, _ = ax.get_legend_handles_labels()
    falling = curves[0].fit.sweep.attrs.get("direction") == "decreasing"
    handles = handles if falling else handles[::-1]  # as the curves lie, highest first
    runs = [crossing_table(curve.fit, curve.threshold) for curve in curves]
    handles += censoring_handles(status for table in runs for status in table["status"])
    if squares:
        handles.append(Line2D([], [], color=GREY, ls=(0, (4, 2)), lw=1.1, label="least squares"))
    if not curves[0].in_samples:
        handles.append(Line2D([], [], color=GREY, ls=(0, (1, 2)), lw=1.0, label="S_min (median)"))
    if bars:
        label = f"CBS, {plain_number(100 * prob)} % interval"
        handles.append(Line2D([], [], color=GREY, lw=4.5, alpha=0.55, label=label))
    legend_outside(ax, handles=handles, labels=[handle.get_label() for handle in handles])
