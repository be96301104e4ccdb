"""Which batch: splits of one total batch, updates against samples, time against cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbsbayes.decisions.front import front_table
from cbsbayes.decisions.splits import CLOSE, default_batch, split_status, split_table
from cbsbayes.decisions.time_to_target import GPU_HOURS, HOURS, SAMPLES, Times, times_of
from cbsbayes.errors import CBSDataError
from cbsbayes.plots import marks, reading, scales, style

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_front", "plot_split_choice", "plot_time_cost"]

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
    above.set_title(f"Splits of {scales.plain_number(total)} samples, to "
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
    below.set_ylabel("Probability")
    below.set_xticks(x, labels=[f"{row.n_prompts:,d}\n× {row.n_rollouts:,d}"
                                for row in table.itertuples()])
    below.set_xlabel("Prompts × rollouts")
    return figure


def _updates(ax: Axes, fit: Fit, table: pd.DataFrame, level: float) -> None:
    x = np.arange(len(table))
    outside = (table["range"] == "extrapolated").to_numpy()
    chosen = table["chosen"].to_numpy()
    ax.vlines(x, table["steps_lower"], table["steps_upper"], color=_BLUE, lw=5, alpha=0.35)
    prob = f"{100 * reading.ci_prob(fit):g} %"
    parts: list[tuple[np.ndarray, dict[str, Any], str, str]] = [
        (~outside, {"mfc": _BLUE, "ms": 5, "mec": _BLUE}, f"posterior, {prob}", "split"),
        (outside, {"mfc": style.PAPER, "ms": 5, "mec": _BLUE}, "outside the range tried",
         "split-outside"),
        (chosen, {"mfc": "none", "ms": 11, "mec": _ORANGE, "mew": 1.6}, "least expected regret",
         "chosen")]
    for mask, marker, _, gid in parts:
        ax.plot(x[mask], table["steps"][mask], "o", gid=gid, **marker)
    runs = reading.crossing_table(fit, level)
    place = pd.Series(x, table["n_rollouts"])
    runs = runs[(runs["total_batch"] == table["total_batch"].iloc[0])
                & runs["n_rollouts"].isin(place.index)]
    at = runs["n_rollouts"].map(place).to_numpy(dtype=float) + 0.18  # beside, not on the posterior
    marks.draw_crossings(ax, at, runs, style.INK)
    scales.log_axis(ax, "y", 10)
    ax.set_ylabel(f"S: {reading.steps_label(fit)}")
    style.legend_below(ax, [
        *(style.entry(label, marker="o", **marker) for mask, marker, label, _ in parts
          if mask.any()), *marks.crossing_entries(runs["status"])])


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
    renamed = {f"{old}{end}": f"{new}{end}" for old, new in (("samples", "x"), ("steps", "y"))
               for end in ("", "_lower", "_upper")}
    tried = table[table["kind"] == "tried"].rename(columns=renamed).reset_index(drop=True)
    curve = table[table["kind"] == "curve"]
    inside = curve[curve["range"] != "extrapolated"]
    x = np.concatenate([curve["samples_lower"], curve["samples_upper"].iloc[::-1]])
    y = np.concatenate([curve["steps_lower"], curve["steps_upper"].iloc[::-1]])
    ax = style.new_axes(ax, (5.6, 4.2))
    ax.fill(x, y, color=style.GREY, alpha=0.2, lw=0, zorder=1, gid="front-band")
    ax.plot(curve["samples"], curve["steps"], ls=(0, (3, 2)), color=style.GREY, lw=1.1, zorder=2)
    ax.plot(inside["samples"], inside["steps"], color=style.GREY, lw=1.8, zorder=2, gid="front")
    chances = tried["p_on_front"].to_numpy()
    _batches(ax, tried.assign(filled=chances >= 0.5), chances)
    ax.set_xlabel("E: samples to target")
    ax.set_ylabel(f"S: {reading.steps_label(fit)} to target")
    ax.set_title(f"Updates against samples to {reading.threshold_label(fit, level)}")
    return ax


@style.styled
def plot_time_cost(fit: Fit, *, ax: Axes | None = None, threshold: float | None = None,
                   times: Times | None = None) -> Axes:
    """Plot time against cost to the target in the population of runs, both axes logarithmic.

    The cost is samples on one number of GPUs, where GPU-hours are hours times a constant, and
    GPU-hours where times were asked for on several. Filled points are batches inside the range
    tried, open ones are extrapolated, squares are bounds for other numbers of GPUs; batches are
    named with their probability to be the fastest of those filled.

    Parameters
    ----------
    fit : Fit
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    threshold : float, optional
        By default the middle one.
    times : Times, optional
        By default made here, without GPUs.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If runs have no step times.
    """
    level = reading.one_threshold(fit, threshold)
    times = times_of(fit) if times is None else times
    prob, hours = reading.ci_prob(fit), times.amount(HOURS, level)
    several = len(times.machine.counts) > 1
    per_unit, unit = scales.time_unit(3600 * float(np.median(hours[np.isfinite(hours)])))
    ax = style.new_axes(ax, (5.6, 4.2))
    for g in reversed(range(hours.shape[2])):
        cost = times.amount(GPU_HOURS if several else SAMPLES, level)[..., g]
        x = marks.quantiles(cost, prob)
        y = marks.quantiles(3600 / per_unit * hours[:, :, g], prob)
        batches = pd.DataFrame(np.vstack([times.batches.T, x, y]).T, columns=[
            "n_prompts", "n_rollouts", "x", "x_lower", "x_upper", "y", "y_lower", "y_upper"])
        batches = batches.assign(total_batch=times.batches.prod(axis=1), filled=times.inside)
        if g:
            batches["filled"] = False
        chances = _fastest(hours[:, :, 0], batches["filled"].to_numpy())
        _batches(ax, batches, chances, "s" if g else "o")
    ax.set_xlabel("GPU-hours to target" if several else "Samples to target")
    ax.set_ylabel(f"Time to target ({unit})")
    ax.set_title(f"Time against cost to {reading.threshold_label(fit, level)}")
    return ax


def _fastest(hours: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return the probability of every batch to be the fastest among some."""
    known = np.where(among, hours, np.inf)
    first = known[np.isfinite(known.min(axis=1))].argmin(axis=1)
    return np.bincount(first, minlength=len(among)) / len(hours)


def _batches(ax: Axes, batches: pd.DataFrame, chances: np.ndarray, marker: str = "o") -> None:
    """Draw batches in the plane of two costs, and name those that may be chosen.

    An error in S moves both costs alike, so that intervals lie along the diagonal.
    """
    two_axes = bool((batches["n_rollouts"] > 1).any())
    groups = batches["n_rollouts"].fillna(1.0)
    colours = style.colour_of(groups)
    for (group, filled), part in batches.groupby([groups, batches["filled"]]):
        colour = colours[group]
        ax.plot(part[["x_lower", "x_upper"]].T, part[["y_lower", "y_upper"]].T, color=colour,
                lw=1.4, alpha=0.8, zorder=3)
        ax.plot(part["x"], part["y"], marker, ls="none", color=colour, ms=5.5, zorder=4,
                mfc=colour if filled else style.PAPER, gid="filled" if filled else "open")
    scales.log_axis(ax, "xy", 10)
    left, right = ax.get_xlim()
    ax.set_xlim(left * (left / right) ** _MARGIN, right)
    likely = batches.assign(chance=chances)[chances >= _NAMED].sort_values("y")
    to_axes = ax.transData + ax.transAxes.inverted()
    at = to_axes.transform(likely[["x", "y"]].to_numpy(dtype=float).reshape(-1, 2))
    heights = marks.spread(at[:, 1] - 0.025, _LINE)
    for x, height, (_, row) in zip(at[:, 0], heights, likely.iterrows(), strict=True):
        name = reading.batch_of(row) if two_axes else scales.plain_number(row["total_batch"])
        chance = ">0.99" if row["chance"] > 0.995 else f"{row['chance']:.2f}"
        ax.text(x - 0.02, height, f"{name}: {chance}", transform=ax.transAxes, ha="right",
                va="center", fontsize=7, zorder=5)
    if two_axes:
        style.legend_outside(ax, title="rollouts", handles=[
            style.entry(f"{group:g}", colour, marker="o") for group, colour in colours.items()])
