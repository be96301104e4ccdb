"""Which batch: splits of one total batch, updates against samples, time against cost, next runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbsbayes.decisions.batches import POPULATION
from cbsbayes.decisions.front import front_table
from cbsbayes.decisions.splits import CLOSE, default_batch, split_status, split_table
from cbsbayes.decisions.time_to_target import times_of, times_table
from cbsbayes.errors import CBSDataError
from cbsbayes.plots import marks, reading, style

if TYPE_CHECKING:
    from cbsbayes.decisions.next_runs import Plan
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_front", "plot_plan", "plot_split_choice", "plot_time_cost"]

_BLUE, _ORANGE = style.BLUE, style.ORANGE
_NAMED = 0.05  # probability to be chosen from which a batch is named
_MARGIN = 0.2  # of the x axis, left of the points for names
_LINE = 0.035  # height of a line of text as a share of the axes


@style.styled
def plot_split_choice(fit: Fit, *, threshold: float | None = None,
                      total_batch: int | None = None) -> Figure:
    """Plot updates of every split of a batch, and the probability that each is the best.

    Open points and pale bars are splits outside the range tried, black marks observed crossings; a
    ring marks the split of least expected regret.

    Parameters
    ----------
    fit : Fit
    threshold : float, optional
        By default the middle one.
    total_batch : int, optional
        Samples of one update; by default the batch split in most ways, else that of most runs.

    Returns
    -------
    Figure

    Raises
    ------
    CBSDataError
        If the law or the batch knows no splits, or the runs do not settle which is best.
    """
    level = reading.one_threshold(fit, threshold)
    total = default_batch(fit.crossings).total if total_batch is None else total_batch
    table = split_table(fit, total, [level])
    if split_status(fit, level) == "not_identified":
        raise CBSDataError("these runs do not settle B_rollout/B_prompt, so that no split can be "
                           "said to be the best; runs that vary the other axis settle it")
    figure, (above, below) = style.new_grid(2, 1, (5.6, 2.5), sharex=True)
    _updates(above, fit, table, level)
    above.set_title(f"Splits of {style.plain_number(total)} samples, to "
                    f"{reading.threshold_label(fit, level)}")
    x = np.arange(len(table))
    alpha = np.where(table["range"] == "extrapolated", 0.35, 0.85)
    for name, shift, colour, label in (
            ("p_best", -0.19, _BLUE, "is the best"),
            ("p_close", 0.19, _ORANGE, f"takes at most {100 * CLOSE:.0f} % more")):
        for place, height, opacity in zip(x + shift, table[name], alpha, strict=True):
            below.bar(place, height, 0.36, color=colour, alpha=opacity, gid=name)
        style.legend_below(below, [style.entry(label, colour, marker="s")])
    below.set_ylim(0, 1.03)
    below.set_xticks(x, labels=[f"{row.n_prompts:,d}\n× {row.n_rollouts:,d}"
                                for row in table.itertuples()])
    below.set(ylabel="Probability", xlabel="Prompts × rollouts")
    return figure


def _updates(ax: Axes, fit: Fit, table: pd.DataFrame, level: float) -> None:
    x = np.arange(len(table))
    outside, chosen = (table["range"] == "extrapolated").to_numpy(), table["chosen"].to_numpy()
    ax.vlines(x, table["steps_lower"], table["steps_upper"], color=_BLUE, lw=5, alpha=0.35)
    prob = f"{100 * fit.settings['ci_prob']:g} %"
    parts: list[tuple[np.ndarray, str, str, dict[str, Any]]] = [
        (~outside, f"posterior, {prob}", "split", {"mfc": _BLUE, "ms": 5, "mec": _BLUE}),
        (outside, "outside the range tried", "split-outside",
         {"mfc": style.PAPER, "ms": 5, "mec": _BLUE}),
        (chosen, "least expected regret", "chosen",
         {"mfc": "none", "ms": 11, "mec": _ORANGE, "mew": 1.6})]
    entries = []
    for mask, label, gid, marker in parts:
        if mask.any():
            ax.plot(x[mask], table["steps"][mask], "o", gid=gid, **marker)
            entries.append(style.entry(label, marker="o", **marker))
    runs = reading.crossing_table(fit, level)
    place = pd.Series(x, table["n_rollouts"])
    runs = runs[(runs["total_batch"] == table["total_batch"].iloc[0])
                & runs["n_rollouts"].isin(place.index)]
    at = runs["n_rollouts"].map(place).to_numpy(dtype=float) + 0.18  # beside, not on the posterior
    marks.draw_crossings(ax, at, runs, style.INK)
    style.log_axis(ax, "y", 10)
    ax.set_ylabel(f"S: {reading.steps_label(fit)}")
    style.legend_below(ax, [*entries, *marks.crossing_entries(runs["status"])])


@style.styled
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
    level = reading.one_threshold(fit, threshold)
    table = front_table(fit, [level])
    tried, curve = (table[table["kind"] == kind] for kind in ("tried", "curve"))
    inside = curve[curve["range"] != "extrapolated"]
    x = np.concatenate([curve["samples_lower"], curve["samples_upper"].iloc[::-1]])
    y = np.concatenate([curve["steps_lower"], curve["steps_upper"].iloc[::-1]])
    ax = style.new_axes(ax, (5.6, 4.2))
    ax.fill(x, y, color=style.GREY, alpha=0.2, lw=0, zorder=1, gid="front-band")
    ax.plot(curve["samples"], curve["steps"], ls=(0, (3, 2)), color=style.GREY, lw=1.1, zorder=2)
    ax.plot(inside["samples"], inside["steps"], color=style.GREY, lw=1.8, zorder=2, gid="front")
    _batches(ax, tried.assign(chance=tried["p_on_front"], filled=tried["p_on_front"] >= 0.5),
             "steps")
    ax.set(xlabel="E: samples to target", ylabel=f"S: {reading.steps_label(fit)} to target",
           title=f"Updates against samples to {reading.threshold_label(fit, level)}")
    return ax


@style.styled
def plot_time_cost(fit: Fit, *, ax: Axes | None = None, threshold: float | None = None) -> Axes:
    """Plot time against samples to the target for the population, both axes logarithmic.

    Filled points are batches inside the range tried, open ones are extrapolated; batches are named
    with their probability to be the fastest of those filled. On one number of GPUs, GPU-hours and
    price are the time times a constant.

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
        If runs have no step times.
    """
    level = reading.one_threshold(fit, threshold)
    table = times_table(fit, times_of(fit))
    table = table[(table["applies_to"] == POPULATION) & (table["threshold"] == level)].assign(
        chance=table["p_fastest"], filled=table["range"] != "extrapolated")
    per_unit, unit = style.time_unit(3600 * float(table["hours"].median()))
    ax = style.new_axes(ax, (5.6, 4.2))
    ends = ["hours", "hours_lower", "hours_upper"]
    _batches(ax, table.assign(**table[ends] * 3600 / per_unit), "hours")
    ax.set(xlabel="Samples to target", ylabel=f"Time to target ({unit})",
           title=f"Time against samples to {reading.threshold_label(fit, level)}")
    return ax


def _batches(ax: Axes, batches: pd.DataFrame, cost: str) -> None:
    """Draw batches in the plane of samples and another cost, and name those that may be chosen.

    An error in S moves both costs alike, so that intervals lie along the diagonal.
    """
    two_axes = bool((batches["n_rollouts"] > 1).any())
    groups = batches["n_rollouts"].fillna(1.0)
    colours = style.colour_of(groups)
    for (group, filled), part in batches.groupby([groups, batches["filled"]]):
        colour = colours[group]
        ax.plot(part[["samples_lower", "samples_upper"]].T,
                part[[f"{cost}_lower", f"{cost}_upper"]].T, color=colour, lw=1.4, alpha=0.8,
                zorder=3)
        ax.plot(part["samples"], part[cost], "o", ls="none", color=colour, ms=5.5, zorder=4,
                mfc=colour if filled else style.PAPER, gid="filled" if filled else "open")
    style.log_axis(ax, "xy", 10)
    left, right = ax.get_xlim()
    ax.set_xlim(left * (left / right) ** _MARGIN, right)
    likely = batches[batches["chance"] >= _NAMED].sort_values(cost)
    to_axes = ax.transData + ax.transAxes.inverted()
    at = to_axes.transform(likely[["samples", cost]].to_numpy(dtype=float).reshape(-1, 2))
    heights = marks.spread(at[:, 1] - 0.025, _LINE)
    for x, height, (_, row) in zip(at[:, 0], heights, likely.iterrows(), strict=True):
        name = reading.batch_of(row) if two_axes else style.plain_number(row["total_batch"])
        chance = ">0.99" if row["chance"] > 0.995 else f"{row['chance']:.2f}"
        ax.text(x - 0.02, height, f"{name}: {chance}", transform=ax.transAxes, ha="right",
                va="center", fontsize=7, zorder=5)
    if two_axes:
        style.legend_outside(ax, title="rollouts", handles=[
            style.entry(f"{group:g}", colour, marker="o") for group, colour in colours.items()])


@style.styled
def plot_plan(plan: Plan, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Plot what a run of every batch is expected to tell for its price, at its best length.

    Colours and numbers are information per price, relative to the best, with the length below; no
    colour where it is below twice its Monte Carlo error, a cross where a run is beyond the budget.
    Dots above stand for runs made so far, orange rings for planned runs with their place in the
    order; batches outside the ranges tried are squares.

    Parameters
    ----------
    plan : Plan
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    title : str
        What the runs are to tell.

    Returns
    -------
    Axes
    """
    best = plan.table.sort_values("rank").drop_duplicates(["n_prompts", "n_rollouts"])
    top = float(plan.table.loc[plan.table["resolved"], "per_cost"].max())
    relative = (best["per_cost"] / (top if top > 0 else 1.0)).where(best["resolved"])
    best = best.assign(relative=relative)
    one_axis = plan.tried.one_axis
    x_name, y_name = ("total_batch", "relative") if one_axis else ("n_prompts", "n_rollouts")
    ax = style.new_axes(ax, (5.6, 4.4))
    shown = best[best["affordable"] & (best["resolved"] | (not one_axis))]
    for outside, part in shown.groupby("extrapolated"):
        ax.scatter(part[x_name], part[y_name], c=part["relative"].fillna(0.0), s=90, vmin=0, vmax=1,
                   cmap="viridis_r", marker="s" if outside else "o", edgecolors=style.GREY,
                   gid="extrapolated" if outside else "inside", zorder=3)
    beyond = best[~best["affordable"]]
    if not one_axis:
        ax.plot(beyond[x_name], beyond[y_name], "x", color=style.GREY, gid="beyond-budget")
    for _, row in shown.iterrows():
        number = f"{row['relative']:.2f}" if row["resolved"] else "~0"
        made = int(row["runs_tried"])
        for text, up, size in ((f"{number}\n{row['updates']:g} updates", -8, 6.5),
                               ("•" * made if made <= 6 else f"• × {made}", 14, 7)):
            ax.annotate(text, (row[x_name], row[y_name]), xytext=(0, up), va="top", ha="center",
                        textcoords="offset points", fontsize=size)
    for (prompts, rollouts), runs in plan.runs.groupby(["n_prompts", "n_rollouts"]):
        same = (best["n_prompts"] == prompts) & (best["n_rollouts"] == rollouts)
        at = best.loc[same, [x_name, y_name]].iloc[0]
        ax.plot(*at, "o", ms=15, mfc="none", mec=style.ORANGE, mew=2, gid="planned")
        ax.annotate(", ".join(f"{order:g}" for order in runs["order"]), tuple(at), xytext=(9, 3),
                    textcoords="offset points", color=style.ORANGE, fontsize=8)
    style.log_axis(ax, "x" if one_axis else "xy")
    ax.margins(0.12, 0.16)
    ax.set(xlabel="Samples per update" if one_axis else "Prompts per update",
           ylabel="Information per price" if one_axis else "Rollouts per prompt",
           title=style.plain_text(title or "Information per price, relative to the best"))
    style.legend_below(ax, [
        style.entry("planned, in this order", style.ORANGE, marker="o", mfc="none", ms=9),
        style.entry("outside the ranges tried", marker="s", mfc="none"),
        style.entry("beyond the budget", marker="x")], 3)
    return ax
