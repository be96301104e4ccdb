"""Time against cost to the target, every batch with its uncertainty, and the front of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cbsbayes.decisions.time_to_target import TYPICAL, Times, quantiles, times_of
from cbsbayes.plots.reading import batch_label, ci_prob, default_threshold, threshold_label
from cbsbayes.plots.scales import log2_axis, time_unit
from cbsbayes.plots.style import GREY, colour_of, legend_outside, new_axes, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["front_of_draws", "plot_time_cost"]

_POINTS = 80  # of the band
_SURE = 0.99  # share of draws in which some batch costs that little, from which a band is drawn
_NAMED = 0.05


@styled
def plot_time_cost(
    fit: Fit, *, ax: Axes | None = None, threshold: float | None = None,
    times: Times | None = None,
) -> Axes:
    """Plot hours against cost to the target of a typical run, both axes logarithmic.

    The cost is samples to the target on one number of GPUs, where GPU-hours are hours times a
    constant, and GPU-hours where times were asked for on several. Filled points are batches
    inside the range tried, open ones are extrapolated or bounds. The band is the front: the least
    time that a cost allows, over the filled points, with its interval.

    Parameters
    ----------
    fit : Fit
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    threshold : float, optional
        By default the one with most observed crossings.
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
    times = times_of(fit) if times is None else times
    level = default_threshold(fit) if threshold is None else threshold
    k, prob = times.at(level), ci_prob(fit)
    hours = times.hours[TYPICAL][:, k]
    several = len(times.machine.counts) > 1
    cost = (times.gpu_hours(TYPICAL)[:, k] if several else
            np.broadcast_to(times.samples(TYPICAL)[:, k, :, None], hours.shape))
    per, unit = time_unit(3600 * float(np.median(hours[np.isfinite(hours)])))
    solid = np.broadcast_to(times.inside[:, None], hours.shape[1:]).copy()
    solid[:, 1:] = False
    ax = new_axes(ax, (7.0, 4.4))
    _band(ax, cost[:, solid], 3600 / per * hours[:, solid], prob)
    _points(ax, times, cost, 3600 / per * hours, solid, prob)
    log2_axis(ax, "xy")
    ax.set_xlabel("GPU-hours to the target" if several else "Samples to the target")
    ax.set_ylabel(f"Time to the target ({unit})")
    ax.set_title(f"Time against cost to {threshold_label(fit.sweep, level)}, typical run")
    _legend(ax, times)
    return ax


def front_of_draws(cost: np.ndarray, time: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the least time among batches that cost at most so much, shape (draw, cost).

    Parameters
    ----------
    cost, time : numpy.ndarray
        Draws, shape (draw, batch).
    at : numpy.ndarray
        Costs, shape (cost,); inf in draws in which nothing is that cheap.
    """
    allowed = cost[:, :, None] <= at
    return np.where(allowed, time[:, :, None], np.inf).min(axis=1)


def _band(ax: Axes, cost: np.ndarray, time: np.ndarray, prob: float) -> None:
    middle = np.median(cost, axis=0)
    middle = middle[np.isfinite(middle)]  # batches that arrive
    if not middle.size:
        return
    at = np.geomspace(middle.min() / 1.5, 1.1 * middle.max(), _POINTS)
    front = front_of_draws(cost, time, at)
    sure = np.isfinite(front).mean(axis=0) >= _SURE
    if sure.sum() < 2:
        return
    median, low, high = quantiles(front[:, sure], prob)
    ax.fill_between(at[sure], low, high, color=GREY, alpha=0.25, lw=0, step=None, gid="front-band")
    ax.plot(at[sure], median, color=GREY, lw=1.6, gid="front")


def _points(
    ax: Axes, times: Times, cost: np.ndarray, time: np.ndarray, solid: np.ndarray, prob: float
) -> None:
    (x, *x_ends), (y, *y_ends) = quantiles(cost, prob), quantiles(time, prob)
    known = np.where(solid[:, 0], time[:, :, 0], np.inf)
    some = np.isfinite(known.min(axis=1))  # draws in which any arrives
    best = np.bincount(known[some].argmin(axis=1), minlength=len(solid)) / len(time)
    colours = colour_of(times.batches[:, 1])
    for b, (_, rollouts) in enumerate(times.batches):
        colour = colours[rollouts]
        for g in range(time.shape[2]):
            filled = solid[b, g]
            alpha = 1.0 if filled else 0.55
            ax.plot([x_ends[0][b, g], x_ends[1][b, g]], [y[b, g]] * 2, color=colour, lw=1,
                    alpha=alpha)
            ax.plot([x[b, g]] * 2, [y_ends[0][b, g], y_ends[1][b, g]], color=colour, lw=1,
                    alpha=alpha)
            ax.plot(x[b, g], y[b, g], "o" if g == 0 else "s", color=colour, ms=4.6, alpha=alpha,
                    mfc=colour if filled else "white", gid="batch" if filled else "open")
    named = [b for b in np.argsort(-best) if best[b] >= _NAMED]
    told = [f"{_name(times, b)}: {min(best[b], 0.99):.2f}" for b in named]
    ax.text(0.98, 0.03, "P(fastest)\n" + "\n".join(told), transform=ax.transAxes, ha="right",
            va="bottom", fontsize=7.5, color=GREY)


def _name(times: Times, batch: int) -> str:
    prompts, rollouts = times.batches[batch]
    one_axis = (times.batches[:, 1] == 1).all()
    return batch_label(-1 if one_axis else prompts, rollouts, prompts * rollouts)


def _legend(ax: Axes, times: Times) -> None:
    one_axis = (times.batches[:, 1] == 1).all()
    handles = [Line2D([], [], marker="o", ls="none", color=colour,
                      label="batches" if one_axis else f"{rollouts:.0f} rollouts")
               for rollouts, colour in colour_of(times.batches[:, 1]).items()]
    handles.append(Line2D([], [], marker="o", ls="none", color=GREY, mfc="white",
                          label="extrapolated"))
    if len(times.machine.counts) > 1:
        counts = ", ".join(map(str, times.machine.counts[1:]))
        handles.append(Line2D([], [], marker="s", ls="none", color=GREY, mfc="white",
                              label=f"bound: {counts} GPUs"))
    handles.append(Line2D([], [], color=GREY, label="front"))
    legend_outside(ax, handles=handles, labels=[str(h.get_label()) for h in handles])
