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
def plot_reuse(cells: pd.DataFrame, threshold: float, *, simulated: bool = False) -> Figure:
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
    simulated : bool
        Say that the runs were simulated.

    Returns
    -------
    Figure
    """
    here = cells[np.isclose(cells["threshold"], threshold)]
    here = here.assign(x=_apart(here))
    figure, axes = new_grid(2, 2, (4.2, 3.4))
    factors = sorted(here["ppo_epochs"].unique())
    colours = dict(zip(factors, ordered_colours(len(factors)), strict=True))
    for ax, name, label in zip(axes, ("steps", "samples"),
                               ("Updates to target", "Generated samples to target"), strict=True):
        _diagonals(ax, here, name)
        for k in factors:
            _series(ax, here[here["ppo_epochs"] == k], name, colours[k], int(k))
        log2_axis(ax, "xy")
        ax.set_xlabel("Prompts per update")
        ax.set_ylabel(label)
    rollouts = ", ".join(str(g) for g in sorted(here["n_rollouts"].unique()))
    mark = ", simulated runs" if simulated else ""
    axes[0].set_title(f"Target {threshold:g}, {rollouts} rollouts per prompt{mark}")
    legend_outside(axes[1], title="Reuse (ppo_epochs)")
    return figure


def _apart(cells: pd.DataFrame) -> pd.Series:
    """Return n_prompts with the reuse factors of one batch set side by side."""
    place = cells["ppo_epochs"].rank(method="dense")
    return cells["n_prompts"] * 2.0 ** (_APART * (place - (place.max() + 1) / 2))


def _series(ax: Axes, rows: pd.DataFrame, name: str, colour: str, k: int) -> None:
    known = rows[rows["status"] == "identified"]
    ax.plot(known["x"], known[name], color=colour, lw=1.2, label=str(k))
    for _, row in rows.iterrows():
        shown = pd.Series({"median": row[name], "ci_lower": row[f"{name}_lower"],
                           "ci_upper": row[f"{name}_upper"], "status": row["status"]})
        draw_estimate(ax, float(row["x"]), shown, colour)


def _diagonals(ax: Axes, rows: pd.DataFrame, name: str) -> None:
    known = rows[rows["status"] == "identified"]
    label = "equal passes\nper trainer step"
    for _, members in known.groupby(known["n_prompts"] * known["ppo_epochs"]):
        if len(members) > 1:
            ordered = members.sort_values("n_prompts")
            ax.plot(ordered["x"], ordered[name], color=GREY, lw=0.8, ls=(0, (4, 2)),
                    zorder=1, gid="diagonal", label=label)
            label = "_nolegend_"
