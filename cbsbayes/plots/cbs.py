"""The critical batch size against the threshold, with bounds drawn as bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.marks import draw_estimate
from cbsbayes.plots.reading import cbs_row, ci_prob, fixed_values, sweep_of
from cbsbayes.plots.scales import log2_axis
from cbsbayes.plots.slices import choose_slice
from cbsbayes.plots.style import GREY, OKABE_ITO, legend_outside, new_axes, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_cbs_against_threshold"]

_QUANTITY = {"prompts": ("cbs_prompts",), "rollouts": ("cbs_rollouts",),
             "total": ("cbs_samples", "B_noise")}
_UNIT = {"prompts": "prompts per update", "rollouts": "rollouts per prompt",
         "total": "samples per update"}
_BESIDE = (OKABE_ITO[1], OKABE_ITO[2], OKABE_ITO[3])


def _choose(table: pd.DataFrame, axis: str, fixed: Mapping[str, float]) -> tuple[str, dict]:
    """Return (quantity, what is held fixed) of the rows to draw."""
    for quantity in _QUANTITY[axis]:
        held = [fixed_values(at) for at in table.loc[table["quantity"] == quantity, "at"]]
        if dict(fixed) in held:
            return quantity, dict(fixed)
        if held:
            return quantity, held[0]
    raise CBSDataError(f"no critical batch size along {axis} in the table: the axis was not "
                       "varied; draw the other axis")


@styled
def plot_cbs_against_threshold(fit: Fit, *, ax: Axes | None = None, axis: str | None = None,
                               n_prompts: int | None = None,
                               n_rollouts: int | None = None) -> Axes:
    """Plot the critical batch size at every threshold, along one axis.

    Filled points are the default law's medians with their intervals, open points the same
    under the other laws fitted beside it. An arrow is a bound: the data only say that the
    CBS lies beyond it. A dotted bar without a point is not identified.

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
        If the axis was not varied.
    """
    cut = choose_slice(fit, axis, n_prompts=n_prompts, n_rollouts=n_rollouts)
    quantity, held = _choose(fit.cbs, cut.axis, cut.at)
    ax = new_axes(ax, (6.8, 3.8))
    thresholds = sorted(fit.cbs.loc[fit.cbs["quantity"] == quantity, "threshold"].unique())
    laws = {fit.law.name: (fit.cbs, OKABE_ITO[0])}
    laws |= {name: (table, colour) for (name, table), colour
             in zip(fit.others.items(), _BESIDE, strict=False)}
    drawn: set[str] = set()
    for j, (name, (table, colour)) in enumerate(laws.items()):
        offset = 0.22 * (j - (len(laws) - 1) / 2)
        for i, threshold in enumerate(thresholds):
            row = cbs_row(table, quantity, threshold, held)
            if row is not None:
                drawn.add(draw_estimate(ax, i + offset, row, colour, hollow=name != fit.law.name))
    _finish(ax, fit, thresholds, held, quantity, cut.axis)
    _legend(ax, {name: colour for name, (_, colour) in laws.items()}, drawn, fit)
    return ax


def _finish(ax: Axes, fit: Fit, thresholds: list[float], held: Mapping[str, float],
            quantity: str, axis: str) -> None:
    log2_axis(ax, "y")
    _widen(ax)
    ax.set_xticks(np.arange(len(thresholds)), labels=[f"{t:g}" for t in thresholds])
    ax.set_xlim(-0.6, len(thresholds) - 0.4)
    ax.grid(visible=False, axis="x")
    accuracy = "accuracy" in sweep_of(fit) and fit.sweep.attrs.get("direction") != "decreasing"
    ax.set_xlabel("Accuracy to reach" if accuracy else "Target to reach")
    ax.set_ylabel(f"CBS ({_UNIT[axis]})")
    words = ", ".join(f"{name} = {value:,.0f}" for name, value in held.items())
    name = "B_noise" if quantity == "B_noise" else "Batch at which S is twice its least"
    ax.set_title(f"{name}{f', at {words}' if words else ''}")


def _widen(ax: Axes) -> None:
    """Give arrows room: half an octave at either end, three octaves at least."""
    low, high = np.log2(ax.get_ylim())
    room = max(0.5, (3 - (high - low)) / 2)
    ax.set_ylim(2.0 ** (low - room), 2.0 ** (high + room))


def _legend(ax: Axes, colours: Mapping[str, str], drawn: set[str], fit: Fit) -> None:
    prob = 100 * ci_prob(fit)
    handles = [Line2D([], [], color=colour, marker="o", lw=1.4, ms=5,
                      mfc=colour if name == fit.law.name else "white",
                      label=f"{name}, {prob:.0f} %") for name, colour in colours.items()]
    words = {"upper_bound": ("v", "upper bound only"), "lower_bound": ("^", "lower bound only")}
    handles += [Line2D([], [], color=GREY, marker=marker, ls="none", ms=5, label=label)
                for status, (marker, label) in words.items() if status in drawn]
    if "not_identified" in drawn:
        handles.append(Line2D([], [], color=GREY, ls=(0, (1, 1.5)), label="not identified"))
    legend_outside(ax, handles=handles, labels=[handle.get_label() for handle in handles])
