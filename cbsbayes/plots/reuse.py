"""Updates and samples to target by batch and reuse factor, with iso-optimisation diagonals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbsbayes.plots.marks import draw_estimate
from cbsbayes.plots.scales import log2_axis
from cbsbayes.plots.style import GREY, legend_outside, new_grid, ordered_colours, styled

__all__ = ["plot_reuse"]

_APART = 0.07  # octaves between reuse factors at one batch


@styled
def plot_reuse(cells: pd.DataFrame, threshold: float) -> Figure:
    """Plot one family's cells at a threshold: updates on the left, samples on the right.

    Points are typical runs with their intervals, arrows bounds. Grey lines join cells of one
    iso-optimisation diagonal (n_prompts × ppo_epochs constant): as many sample passes per trainer
    step.

    Parameters
    ----------
    cells : DataFrame
        The table of ``reuse.csv``, one family and one n_rollouts.
    threshold : float
        The target.

    Returns
    -------
    Figure
    """
    here = cells[np.isclose(cells["threshold"], threshold)]
    figure, axes = new_grid(2, 2, (4.2, 3.4))
    factors = sorted(here["ppo_epochs"].unique())
    colours = dict(zip(factors, ordered_colours(len(factors)), strict=True))
    for ax, name, label in zip(axes, ("steps", "samples"),
                               ("Updates to target", "Generated samples to target"), strict=True):
        _diagonals(ax, here, name)
        for j, k in enumerate(factors):
            shift = 2.0 ** (_APART * (j - (len(factors) - 1) / 2))
            _series(ax, here[here["ppo_epochs"] == k], name, shift, colours[k], int(k))
        log2_axis(ax, "xy")
        ax.set_xlabel("Prompts per update")
        ax.set_ylabel(label)
    rollouts = ", ".join(str(g) for g in sorted(here["n_rollouts"].unique()))
    axes[0].set_title(f"Target {threshold:g}, {rollouts} rollouts per prompt")
    legend_outside(axes[1], title="Reuse (ppo_epochs)")
    return figure


def _series(ax: Axes, rows: pd.DataFrame, name: str, shift: float, colour: str, k: int) -> None:
    known = rows[rows["status"] == "identified"]
    ax.plot(known["n_prompts"] * shift, known[name], color=colour, lw=1.2, label=str(k))
    for _, row in rows.iterrows():
        shown = pd.Series({"median": row[name], "ci_lower": row[f"{name}_lower"],
                           "ci_upper": row[f"{name}_upper"], "status": row["status"]})
        draw_estimate(ax, float(row["n_prompts"]) * shift, shown, colour)


def _diagonals(ax: Axes, rows: pd.DataFrame, name: str) -> None:
    known = rows[rows["status"] == "identified"]
    for _, members in known.groupby(known["n_prompts"] * known["ppo_epochs"]):
        if len(members) > 1:
            ordered = members.sort_values("n_prompts")
            ax.plot(ordered["n_prompts"], ordered[name], color=GREY, lw=0.8, ls=(0, (4, 2)),
                    zorder=1, gid="diagonal")
