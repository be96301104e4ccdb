"""Which run next: information per price over the grid of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.patches import Rectangle

from cbsbayes.plots.style import BLACK, GREY, OKABE_ITO, new_axes, plain_text, styled
from cbsbayes.report.plan_words import per_cost_unit, target_label

if TYPE_CHECKING:
    from cbsbayes.decisions.planner import Plan

__all__ = ["plot_plan"]

_CHOSEN, _PALE = OKABE_ITO[1], "#f0f0f0"


@styled
def plot_plan(plan: Plan, *, ax: Axes | None = None) -> Axes:
    """Plot what a run of every batch is expected to tell for its price, at its best length.

    Numbers are information per price (colour) and the length; a dot stands for every run made so
    far, an orange frame for a planned run with its place in the order, hatching for a batch outside
    the ranges tried, and grey for information below twice its Monte Carlo error. Data of one axis
    are drawn as points with two Monte Carlo errors.

    Parameters
    ----------
    plan : Plan
    ax : Axes, optional
        Drawn into; by default a new figure's axes.

    Returns
    -------
    Axes
    """
    best = plan.table.sort_values("rank").drop_duplicates(["n_prompts", "n_rollouts"])
    if plan.tried.one_axis:
        return _points(plan, best, ax)
    prompts = sorted(best["n_prompts"].unique())
    rollouts = sorted(best["n_rollouts"].unique())
    ax = new_axes(ax, (1.6 + 0.95 * len(prompts), 1.6 + 0.62 * len(rollouts)))
    factor, unit = per_cost_unit(plan)
    grid = np.full((len(rollouts), len(prompts)), np.nan)
    for _, row in best.iterrows():
        if row["resolved"]:
            grid[rollouts.index(row["n_rollouts"]), prompts.index(row["n_prompts"])] = (
                row["per_cost"] * factor)
    norm = _norm(grid)
    image = ax.imshow(grid, origin="lower", aspect="auto", cmap="viridis", norm=norm)
    ax.grid(visible=False)
    for _, row in best.iterrows():
        place = prompts.index(row["n_prompts"]), rollouts.index(row["n_rollouts"])
        _cell(ax, place, row, row["per_cost"] * factor, norm)
    for order, batches in _orders(plan).items():
        _frame(ax, (prompts.index(order[0]), rollouts.index(order[1])), batches)
    ax.set_xticks(range(len(prompts)), [f"{p:g}" for p in prompts])
    ax.set_yticks(range(len(rollouts)), [f"{g:g}" for g in rollouts])
    ax.set_xlabel("Prompts per update")
    ax.set_ylabel("Rollouts per prompt")
    ax.set_title(plain_text(f"What a run tells for its price: {target_label(plan)}"))
    ax.figure.colorbar(image, ax=ax, label=_shown(unit), fraction=0.05, pad=0.02)
    return ax


def _norm(grid: np.ndarray) -> Normalize:
    """Return the scale of colours, logarithmic where values span more than twenty times."""
    values = grid[np.isfinite(grid)]
    top = float(values.max()) if values.size else 1.0
    low = float(values.min()) if values.size else 0.0
    return LogNorm(low, top) if 0 < low < top / 20 else Normalize(0.0, top)


def _cell(ax: Axes, place: tuple[int, int], row: pd.Series, value: float, norm: Normalize) -> None:
    x, y = place
    shown = row["resolved"] and row["affordable"]
    colour = GREY if not shown else BLACK if norm(value) > 0.55 else "white"
    if not shown:
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=_PALE, edgecolor="white"))
    if row["extrapolated"]:
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="//", linewidth=0,
                               edgecolor="#b0b0b0", alpha=0.45))
    if not row["affordable"]:
        ax.text(x, y, "beyond\nbudget", ha="center", va="center", color=GREY, fontsize=7)
        return
    number = f"{value:.3g}" if row["resolved"] else "~0"
    ax.text(x, y + 0.08, number, ha="center", va="center", color=colour, fontsize=8)
    ax.text(x, y - 0.24, f"{row['updates']:g} updates", ha="center", va="center", color=colour,
            fontsize=6)
    made = int(row["runs_tried"])
    if made:
        shown = "•" * made if made <= 6 else f"• × {made}"
        ax.text(x, y + 0.34, shown, ha="center", va="center", color=colour, fontsize=6)


def _orders(plan: Plan) -> dict[tuple[float, float], list[int]]:
    """Return the places in the order of planned runs, by batch."""
    orders: dict[tuple[float, float], list[int]] = {}
    for _, row in plan.runs.iterrows():
        orders.setdefault((row["n_prompts"], row["n_rollouts"]), []).append(int(row["order"]))
    return orders


def _frame(ax: Axes, place: tuple[int, int], orders: list[int]) -> None:
    x, y = place
    ax.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, fill=False, linewidth=2.2,
                           edgecolor=_CHOSEN))
    ax.text(x - 0.43, y + 0.43, ", ".join(map(str, orders)), ha="left", va="top", fontsize=7,
            color="white", bbox={"facecolor": _CHOSEN, "edgecolor": "none", "pad": 1.2})


def _points(plan: Plan, best: pd.DataFrame, ax: Axes | None) -> Axes:
    ax = new_axes(ax)
    factor, unit = per_cost_unit(plan)
    best = best.sort_values("total_batch")
    ax.errorbar(best["total_batch"], factor * best["per_cost"],
                yerr=2 * factor * best["per_cost_error"], fmt="o", color=BLACK, capsize=2)
    chosen = best[best["chosen"] > 0]
    ax.plot(chosen["total_batch"], factor * chosen["per_cost"], "o", markersize=12,
            fillstyle="none", color=_CHOSEN, markeredgewidth=2)
    ax.set_xscale("log", base=2)
    ax.set_xticks(best["total_batch"], [f"{b:g}" for b in best["total_batch"]])
    ax.set_ylim(bottom=min(0.0, float((factor * best["per_cost"]).min())))
    ax.set_xlabel("Batch size B (samples per update)")
    ax.set_ylabel(_shown(unit))
    ax.set_title(plain_text(f"What a run tells for its price: {target_label(plan)}"))
    return ax


def _shown(unit: str) -> str:
    """Return a unit with its power raised."""
    head, caret, rest = unit.partition("^")
    if not caret:
        return unit
    power, _, tail = rest.partition(" ")
    return f"{head}$^{{{power}}}$ {tail}"
