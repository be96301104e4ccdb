"""The Pareto front: updates against samples to the target, batches tried and the front beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cbsbayes.decisions.decision import fitted_threshold, middle_threshold
from cbsbayes.decisions.front import front_table
from cbsbayes.plots.reading import batch_label, steps_label, threshold_label
from cbsbayes.plots.scales import log2_axis
from cbsbayes.plots.style import GREY, colour_of, legend_outside, new_axes, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_front"]

_NAMED = 0.05  # probability to be on the front from which a batch is named
_NAMES = 0.16  # room for names left of the points, as a share of the axis


@styled
def plot_front(fit: Fit, *, ax: Axes | None = None, threshold: float | None = None) -> Axes:
    """Plot updates against samples to the target, both axes logarithmic.

    Points are the batches tried: filled where they are on the front of all of them with a
    probability of one half and more, named with that probability from 0.05 on. Their bars lie
    along the diagonal, because an error in S moves updates and samples alike. The grey band is
    the front that one group size gives, dashed where it is extrapolated.

    Parameters
    ----------
    fit : Fit
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    threshold : float, optional
        By default the middle one.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If the threshold was not fitted.
    """
    level = middle_threshold(fit) if threshold is None else fitted_threshold(fit, threshold)
    table = front_table(fit, [level])
    ax = new_axes(ax, (7.0, 4.4))
    _curve(ax, table[table["kind"] == "curve"])
    _tried(ax, table[table["kind"] == "tried"])
    log2_axis(ax, "xy")
    left, right = ax.get_xlim()
    ax.set_xlim(left * (left / right) ** _NAMES, right)
    ax.set_xlabel("E: samples to the target")
    ax.set_ylabel(f"S: {steps_label(fit)} to {threshold_label(fit.sweep, level)}")
    ax.set_title(f"Updates against samples · law {fit.law.name}")
    legend_outside(ax)
    return ax


def _curve(ax: Axes, curve: pd.DataFrame) -> None:
    x = np.concatenate([curve["samples_lower"], curve["samples_upper"].iloc[::-1]])
    y = np.concatenate([curve["steps_lower"], curve["steps_upper"].iloc[::-1]])
    ax.fill(x, y, color=GREY, alpha=0.2, lw=0, zorder=1, gid="front-band")
    outside = (curve["range"] == "extrapolated").to_numpy()
    group = curve["n_rollouts"].iloc[0]
    name = f"{int(group)} rollouts, any prompts" if np.isfinite(group) else "any batch"
    inside = curve[~outside]
    ax.plot(curve["samples"], curve["steps"], ls=(0, (3, 2)), color=GREY, lw=1.1, zorder=2,
            label=f"{name}, extrapolated" if outside.any() else None)
    ax.plot(inside["samples"], inside["steps"], color=GREY, lw=1.8, zorder=2, label=name,
            gid="front")


def _tried(ax: Axes, tried: pd.DataFrame) -> None:
    two_axes = np.isfinite(tried["n_rollouts"]).all()
    keys = tried["n_rollouts"] if two_axes else pd.Series(1.0, index=tried.index)
    colours = colour_of(keys)
    for key, colour in colours.items():
        mine = tried[keys == key]
        ax.plot(mine[["samples_lower", "samples_upper"]].T, mine[["steps_lower", "steps_upper"]].T,
                color=colour, lw=1.4, alpha=0.8, zorder=3)
        likely = mine["p_on_front"] >= 0.5
        label = f"{int(key)} rollouts" if two_axes else "tried"
        for part, fill, gid in ((mine[likely], colour, "on-front"),
                                (mine[~likely], "white", "off-front")):
            ax.plot(part["samples"], part["steps"], "o", color=colour, mfc=fill, ms=5.5,
                    ls="none", zorder=4, gid=gid)
        ax.plot([], [], "o", color=colour, ls="none", label=label)
    for _, row in tried[tried["p_on_front"] >= _NAMED].iterrows():
        name = batch_label(row["n_prompts"], row["n_rollouts"], row["total_batch"])
        chance = ">0.99" if row["p_on_front"] > 0.995 else f"{row['p_on_front']:.2f}"
        ax.annotate(f"{name}: {chance}", (row["samples"], row["steps"]), xytext=(-7, -9),
                    textcoords="offset points", ha="right", fontsize=7.5, zorder=5)
