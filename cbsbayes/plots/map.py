"""Maps over prompts and rollouts: updates to target, and time to target, as labelled contours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.interpolate import RectBivariateSpline

from cbsbayes.decisions.splits import split_status
from cbsbayes.decisions.time_to_target import GPU_HOURS, HOURS, SAMPLES, Times, times_of
from cbsbayes.errors import CBSDataError
from cbsbayes.plots import marks, reading, scales, style

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_clock_map", "plot_map"]

_POINTS = 33  # of the grid, per axis
_BEYOND = 1.5  # how far the map goes past the batches tried
_EDGE = 0.05  # of the map: labels so near to an edge or another label are left out
_CRITICAL, _SPLIT = style.ORANGE, style.OKABE_ITO[2]


@style.styled
def plot_map(fit: Fit, *, ax: Axes | None = None, threshold: float | None = None,
             advice: tuple[float, float] | None = None) -> Axes:
    """Plot updates to target over prompts and rollouts: what was tried, what pays, what to run.

    Contours are the posterior median for a typical run, points the batches tried, larger where
    there are more runs. The orange line is the critical batch: left of it, more prompts still buy
    nearly as much in updates as they cost in samples; S there is twice its least for so many
    rollouts. The green line is the best split of each total batch; grey lines join splits of the
    same total batch. Bands are the fit's intervals.

    Parameters
    ----------
    fit : Fit
        Of a law with two axes.
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    threshold : float, optional
        By default the middle one.
    advice : (n_prompts, n_rollouts), optional
        Marked by a star.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If data or law know the total batch only, or the threshold was not fitted.
    """
    level = reading.one_threshold(fit, threshold)
    tried = _tried_batches(fit, level)
    shown = np.vstack([tried, advice]) if advice else tried
    least = np.array([1.0, 2.0 if fit.law.needs_baseline_group else 1.0])
    low, high = np.maximum(shown.min(axis=0) / _BEYOND, least), shown.max(axis=0) * _BEYOND
    prompts, rollouts = np.geomspace(low, high, _POINTS).T
    flat_prompts, flat_rollouts = (axis.ravel() for axis in np.meshgrid(prompts, rollouts))
    draws = reading.steps_at(fit, flat_prompts, flat_rollouts, level)
    draws = draws.reshape(-1, _POINTS, _POINTS)  # sample, rollouts, prompts
    ax = style.new_axes(ax, (5.6, 4.6))
    _axes(ax, prompts, rollouts)
    _contours(ax, prompts, rollouts, marks.quantiles(draws, 0.5)[0], style.BLUE)
    _iso_batch(ax, prompts, rollouts)
    lowest = reading.steps_at(fit, np.inf, rollouts, level)[:, :, None]
    entries = _critical(ax, prompts, rollouts, draws / lowest, reading.ci_prob(fit))
    if split_status(fit, level) == "identified":
        entries += _best_split(ax, fit, level, prompts, rollouts)
    entries += _points(ax, tried)
    if advice:
        star: dict[str, Any] = {"marker": "*", "mec": style.INK, "mew": 0.8}
        ax.plot(*advice, color=style.ORANGE, ms=17, zorder=7, gid="advice", **star)
        entries.append(style.entry(f"advised: {advice[0]:g} × {advice[1]:g}", style.ORANGE, ms=11,
                                   **star))
    unit = reading.steps_label(fit).capitalize()
    ax.set_title(f"{unit} to {reading.threshold_label(fit, level)}")
    style.legend_below(ax, entries)
    return ax


def _tried_batches(fit: Fit, threshold: float) -> np.ndarray:
    """Return the batch of every run, shape (run, 2)."""
    runs = reading.crossing_table(fit, threshold)
    if not fit.law.two_axis or (runs["n_prompts"] < 0).any():
        raise CBSDataError("data or law know the total batch only, so there is no map over prompts "
                           "and rollouts; draw steps along the total batch")
    return runs[["n_prompts", "n_rollouts"]].to_numpy(dtype=float)


def _axes(ax: Axes, prompts: np.ndarray, rollouts: np.ndarray) -> None:
    scales.log_axis(ax, "xy")
    ax.set_xlim(prompts[0] / 1.1, prompts[-1])
    ax.set_ylim(rollouts[0] / 1.1, rollouts[-1])
    ax.grid(visible=False)
    ax.set_xlabel("Prompts per update")
    ax.set_ylabel("Rollouts per prompt")


def _contours(ax: Axes, prompts: np.ndarray, rollouts: np.ndarray, values: np.ndarray,
              colour: str, most: int = 9) -> None:
    """Draw lines of equal values, shape (rollouts, prompts), with their values on them."""
    known = np.ma.masked_invalid(values)
    levels = scales.LogTicks(10, most).tick_values(float(known.min()), float(known.max()))
    lines = ax.contour(prompts, rollouts, known, levels=levels, colors=colour, linewidths=1.0)
    to_axes = ax.transData + ax.transAxes.inverted()
    taken = [to_axes.transform(text.get_position()) for text in ax.texts]
    for text in ax.clabel(lines, fontsize=8, fmt=scales.plain_number):
        at = to_axes.transform(text.get_position())
        near = [other for other in taken if np.abs(other - at).max() < _EDGE]
        if near or at.min() < _EDGE or at.max() > 1 - _EDGE:
            text.remove()


def _iso_batch(ax: Axes, prompts: np.ndarray, rollouts: np.ndarray) -> None:
    """Draw a grey line through the splits of every total batch, named where it leaves the map."""
    ends = prompts[0] * rollouts[0] * 2, prompts[-1] * rollouts[-1] / 2
    for total in scales.LogTicks(2, 7).tick_values(*ends):
        ax.plot(prompts, total / prompts, color=style.GREY, lw=0.6, ls=(0, (1, 3)), zorder=1,
                gid="iso", scaley=False)
        x = max(prompts[0], total / rollouts[-1])
        ax.annotate(f"B={scales.plain_number(total)}", (x, total / x), xytext=(3, -2), fontsize=6.5,
                    textcoords="offset points", va="top", color=style.GREY)


def _critical(ax: Axes, prompts: np.ndarray, rollouts: np.ndarray, ratio: np.ndarray,
              prob: float) -> list[Line2D]:
    """Draw where S is twice its least for so many rollouts, with its band.

    S falls along prompts, so the share of draws in which it is below twice its least is the
    distribution function of the critical batch there.
    """
    share = (ratio < 2).mean(axis=0)
    if share.min() > 0.5 or share.max() < 0.5:
        return []
    ax.contourf(prompts, rollouts, share, levels=[(1 - prob) / 2, (1 + prob) / 2],
                colors=[_CRITICAL], alpha=0.18, zorder=1)
    ax.contour(prompts, rollouts, share, levels=[0.5], colors=_CRITICAL, linewidths=1.8, zorder=3)
    return [style.entry(f"critical batch, {100 * prob:g} % band", _CRITICAL, lw=1.8)]


def _best_split(ax: Axes, fit: Fit, level: float, prompts: np.ndarray, rollouts: np.ndarray,
                ) -> list[Line2D]:
    """Draw the split with least S of every total batch, with its band along the iso-batch line."""
    totals = np.geomspace(prompts[0] * rollouts[0], prompts[-1] * rollouts[-1], _POINTS)
    groups = np.geomspace(rollouts[0], rollouts[-1] * 4, 2 * _POINTS)
    batches = np.repeat(totals, len(groups)), np.tile(groups, len(totals))
    draws = reading.steps_at(fit, batches[0] / batches[1], batches[1], level)
    best = groups[draws.reshape(-1, len(totals), len(groups)).argmin(axis=2)]
    prob = reading.ci_prob(fit)
    middle, low, high = marks.quantiles(best, prob)
    ax.fill(np.concatenate([totals / low, (totals / high)[::-1]]),
            np.concatenate([low, high[::-1]]), color=_SPLIT, alpha=0.15, lw=0, zorder=1,
            gid="best-split-band")
    ax.plot(totals / middle, middle, color=_SPLIT, lw=1.8, zorder=3, gid="best-split")
    return [style.entry(f"best split, {100 * prob:g} % band", _SPLIT, lw=1.8)]


def _points(ax: Axes, tried: np.ndarray) -> list[Line2D]:
    batches, runs = np.unique(tried, axis=0, return_counts=True)
    ax.scatter(batches[:, 0], batches[:, 1], s=14 + 8 * runs, color=style.INK, lw=0.6, zorder=5,
               edgecolors=style.PAPER, gid="tried")
    return [style.entry("batch tried", style.INK, marker="o")]


@style.styled
def plot_clock_map(fit: Fit, *, ax: Axes | None = None, threshold: float | None = None,
                   times: Times | None = None) -> Axes:
    """Plot the median time to target of a typical run over prompts and rollouts.

    Blue contours are times. Orange ones join equal GPU-hours, or equal samples to the target where
    the number of GPUs is not known; points are the batches tried.

    Parameters
    ----------
    fit : Fit
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    threshold : float, optional
        By default the middle one.
    times : Times, optional
        Of a whole grid; by default made here, without GPUs.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If runs have no step times, or give total batches only.
    """
    level = reading.one_threshold(fit, threshold)
    tried = _tried_batches(fit, level)
    times = times_of(fit) if times is None else times
    hours = marks.quantiles(times.amount(HOURS, level)[..., 0], 0.5)[0]
    per_unit, unit = scales.time_unit(3600 * float(np.nanmedian(hours)))
    gpus = bool(times.machine.gpus)
    costs = times.amount(GPU_HOURS if gpus else SAMPLES, level)[..., 0]
    cost = marks.quantiles(costs, 0.5)[0]
    prompts, rollouts = (np.unique(times.batches[:, axis]) for axis in (0, 1))
    low, high = tried.min(axis=0) / _BEYOND, tried.max(axis=0) * _BEYOND
    ax = style.new_axes(ax, (5.6, 4.2))
    _axes(ax, np.clip(prompts, low[0], high[0]), np.clip(rollouts, low[1], high[1]))
    for values, colour in ((3600 / per_unit * hours, style.BLUE), (cost, style.ORANGE)):
        grid = values.reshape(len(prompts), len(rollouts))
        _contours(ax, *_refined(prompts, rollouts, grid), colour, most=6)
    ax.set_title(f"Time to {reading.threshold_label(fit, level)}")
    style.legend_below(ax, [style.entry(unit, style.BLUE, lw=1.0), *_points(ax, tried), style.entry(
        "GPU-hours" if gpus else "samples", style.ORANGE, lw=1.0)], 3)
    return ax


def _refined(prompts: np.ndarray, rollouts: np.ndarray, grid: np.ndarray,
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a grid with smooth values between batches that are doublings apart."""
    if not np.isfinite(grid).all():
        return prompts, rollouts, grid.T
    x, y, values = np.log(prompts), np.log(rollouts), np.log(grid)
    spline = RectBivariateSpline(x, y, values, kx=min(3, len(x) - 1), ky=min(3, len(y) - 1))
    x, y = (np.linspace(axis[0], axis[-1], _POINTS) for axis in (x, y))
    return np.exp(x), np.exp(y), np.exp(spline(x, y)).T
