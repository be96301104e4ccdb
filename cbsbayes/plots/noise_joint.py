"""S around the batches tried, predicted with measured noise as data and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.marks import draw_crossings
from cbsbayes.plots.reading import ci_prob, run_table
from cbsbayes.plots.scales import log2_axis
from cbsbayes.plots.style import BLACK, GREY, kind_colours, new_grid, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_noise_joint"]

_SIDES = {"with": "with measured noise", "without": "without"}
_AXES = ("n_prompts", "n_rollouts")
_DODGE = 0.12  # octaves between the two sides


@styled
def plot_noise_joint(fit: Fit, *, threshold: float | None = None) -> Figure:
    """Plot S of one new run along prompts and along rollouts, with and without measured noise.

    Open marks stand at batches beyond those that were run. Grey bars are observed crossings.

    Parameters
    ----------
    fit : Fit
        A fit with measured noise as data.
    threshold : float, optional
        One fitted threshold; the hardest unless given.

    Returns
    -------
    Figure
        One panel per axis.

    Raises
    ------
    CBSDataError
        If measured noise was not data of this fit, or its law has one axis.
    """
    table = getattr(fit, "noise_joint", None)
    rows = table[table["quantity"] == "steps_new_run"] if table is not None else pd.DataFrame()
    if rows.empty:
        raise CBSDataError("no batch was predicted from measured noise in this fit; it needs "
                           "--use-gradient-noise and a law of two axes")
    target = float(fit.thresholds[-1] if threshold is None else threshold)
    rows = rows[np.isclose(rows["threshold"], target)]
    rows = rows.join(rows["at"].str.extract(r"n_prompts=(?P<n_prompts>[^,]+),"
                                            r"n_rollouts=(?P<n_rollouts>.+)").astype(float))
    figure, axes = new_grid(2, 2, (4.2, 3.4))
    colours = kind_colours(list(_SIDES))
    for ax, axis in zip(axes, _AXES, strict=True):
        _panel(ax, rows, axis, colours, fit, target)
    figure.legend(handles=_handles(colours, rows, fit), loc="outside lower center", ncols=3)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, axis: str, colours: dict[str, str], fit: Fit,
           target: float) -> None:
    other = _AXES[1 - _AXES.index(axis)]
    fixed = float(rows[other].mode().iloc[0])
    line = rows[rows[other] == fixed].sort_values(axis)
    log2_axis(ax, "x")
    log2_axis(ax, "y", most=6)
    _observed(ax, fit, axis, other, fixed, target)
    for j, (side, colour) in enumerate(colours.items()):
        here = line[line[f"{side}_median"].notna()]
        x = here[axis].to_numpy() * 2.0 ** (_DODGE * (j - 0.5))
        for at, (_, row) in zip(x, here.iterrows(), strict=True):
            ax.plot([at, at], [row[f"{side}_lower"], row[f"{side}_upper"]], color=colour, lw=1.4)
            ax.plot([at], [row[f"{side}_median"]], "o", color=colour, ms=5,
                    mfc=colour if row["tried"] else "white", gid=f"{side}-median")
    ax.set_xlabel(axis)
    ax.set_ylabel("updates, one new run")
    ax.set_title(f"{other} = {fixed:g}, up to {target:g}")


def _observed(ax: Axes, fit: Fit, axis: str, other: str, fixed: float, target: float) -> None:
    crossings = fit.crossings.sel(threshold=target, method="nearest")
    seen = run_table(fit.crossings).assign(lower=crossings["lower"].values,
                                           upper=crossings["upper"].values,
                                           status=crossings["status"].values)
    seen = seen[seen[other] == fixed]
    if len(seen):
        draw_crossings(ax, seen[axis].to_numpy(dtype=float) * 2.0**-0.2, seen, GREY)


def _handles(colours: dict[str, str], rows: pd.DataFrame, fit: Fit) -> list[Line2D]:
    prob = 100 * ci_prob(fit)
    present = [side for side in colours if rows[f"{side}_median"].notna().any()]
    handles = [Line2D([], [], color=colours[side], marker="o", lw=1.4, ms=5,
                      label=f"{_SIDES[side]}, {prob:.0f} %") for side in present]
    handles.append(Line2D([], [], color=BLACK, marker="o", mfc="white", ls="none", ms=5,
                          label="batch not tried"))
    return [*handles, Line2D([], [], color=GREY, lw=2, label="observed")]
