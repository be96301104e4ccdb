"""Maps as labelled contours: updates and time over prompts and rollouts, or over learning rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cbsbayes.crossings.intervals import RIGHT
from cbsbayes.decisions.splits import split_status
from cbsbayes.decisions.step_times import step_times_of
from cbsbayes.errors import CBSDataError
from cbsbayes.plots import marks, reading, style
from cbsbayes.posterior.learning_rate import best_rates, lines
from cbsbayes.posterior.surface import least_steps

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_clock_map", "plot_learning_rates", "plot_map"]

_POINTS, _RATE_POINTS = 33, 25  # of the grids, per axis
_BEYOND = 1.5  # how far the map goes past the batches tried
_EDGE = 0.05  # of the map: labels so near to an edge or another label are left out
_CRITICAL, _SPLIT = style.ORANGE, style.OKABE_ITO[2]


class _Plane:
    """The part of the plane around the batches tried, with draws of S on a grid over it."""

    def __init__(
        self, fit: Fit, threshold: float | None, advice: tuple[float, float] | None = None
    ) -> None:
        self.fit, self.level = fit, reading.one_threshold(fit, threshold)
        runs = reading.crossing_table(fit, self.level)
        if not fit.law.two_axis or (runs["n_prompts"] < 0).any():
            raise CBSDataError("data or law know the total batch only, so there is no map over "
                               "prompts and rollouts; draw steps along the total batch")
        tried = runs[["n_prompts", "n_rollouts"]].to_numpy(dtype=float)
        self.tried, self.runs = np.unique(tried, axis=0, return_counts=True)
        shown = np.vstack([tried, advice]) if advice else tried
        least = np.array([1.0, 2.0 if fit.law.needs_baseline_group else 1.0])
        low, high = np.maximum(shown.min(axis=0) / _BEYOND, least), shown.max(axis=0) * _BEYOND
        self.prompts, self.rollouts = np.geomspace(low, high, _POINTS).T
        self.batches = np.array([(p, g) for g in self.rollouts for p in self.prompts])

    def steps(self, batches: np.ndarray) -> np.ndarray:
        """Return draws of S at batches, shape (sample, batch)."""
        return reading.steps_at(self.fit, batches, self.level)

    def grid(self, values: np.ndarray) -> np.ndarray:
        """Return values at the grid's batches, shape (…, rollouts, prompts)."""
        return values.reshape(*values.shape[:-1], _POINTS, _POINTS)

    def axes(self, ax: Axes | None, height: float) -> Axes:
        """Return axes over the plane."""
        ax = style.new_axes(ax, (5.6, height))
        style.log_axis(ax, "xy")
        ax.set_xlim(self.prompts[0] / 1.1, self.prompts[-1])
        ax.set_ylim(self.rollouts[0] / 1.1, self.rollouts[-1])
        ax.grid(visible=False)
        ax.set(xlabel="Prompts per update", ylabel="Rollouts per prompt")
        return ax

    def contours(self, ax: Axes, values: np.ndarray, colour: str, most: int) -> None:
        """Draw lines of equal values at the grid's batches, with their values on them."""
        known = np.ma.masked_invalid(self.grid(values))
        levels = style.LogTicks(10, most).tick_values(float(known.min()), float(known.max()))
        lines = ax.contour(self.prompts, self.rollouts, known, levels=levels, colors=colour,
                           linewidths=1.0)
        to_axes = ax.transData + ax.transAxes.inverted()
        taken = [to_axes.transform(text.get_position()) for text in ax.texts]
        for text in ax.clabel(lines, fontsize=8, fmt=style.plain_number):
            at = to_axes.transform(text.get_position())
            near = [other for other in taken if np.abs(other - at).max() < _EDGE]
            if near or at.min() < _EDGE or at.max() > 1 - _EDGE:
                text.remove()

    def points(self, ax: Axes) -> list[Line2D]:
        """Draw the batches tried, larger where there are more runs."""
        ax.scatter(self.tried[:, 0], self.tried[:, 1], s=14 + 8 * self.runs, color=style.INK,
                   lw=0.6, zorder=5, edgecolors=style.PAPER, gid="tried")
        return [style.entry("batch tried", style.INK, marker="o")]


@style.styled
def plot_map(fit: Fit, *, ax: Axes | None = None, threshold: float | None = None,
             advice: tuple[float, float] | None = None) -> Axes:
    """Plot updates to target over prompts and rollouts: what was tried, what pays, what to run.

    Contours are the posterior median for the population, points the batches tried, larger where
    there are more runs. The orange line is the critical batch: left of it, more prompts still buy
    nearly as much in updates as they cost in samples; S there is twice its least for so many
    rollouts. The green line is the best split of each total batch; grey lines join splits of the
    same total batch. Bands are the fit's intervals. Tips (`cbsbayes.plots.marks`) tell S and
    samples at batches tried and at powers of two.

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
    plane = _Plane(fit, threshold, advice)
    draws = plane.steps(plane.batches)
    ax = plane.axes(ax, 4.6)
    plane.contours(ax, marks.quantiles(draws, 0.5)[0], style.BLUE, 9)
    _iso_batch(ax, plane)
    entries = _critical(ax, plane, plane.grid(draws))
    if split_status(fit, plane.level) == "identified":
        entries += _best_split(ax, plane)
    entries += plane.points(ax)
    if advice:
        star: dict[str, Any] = {"marker": "*", "mec": style.INK, "mew": 0.8}
        ax.plot(*advice, color=style.ORANGE, ms=17, zorder=7, gid="advice", **star)
        entries.append(style.entry(f"advised: {advice[0]:g} × {advice[1]:g}", style.ORANGE, ms=11,
                                   **star))
    unit = reading.steps_label(fit)
    ax.set_title(f"{unit.capitalize()} to {reading.threshold_label(fit, plane.level)}")
    style.legend_below(ax, entries)
    _tips(ax, plane, unit)
    return ax


def _iso_batch(ax: Axes, plane: _Plane) -> None:
    """Draw a grey line through the splits of every total batch, named where it leaves the map."""
    prompts, rollouts = plane.prompts, plane.rollouts
    ends = prompts[0] * rollouts[0] * 2, prompts[-1] * rollouts[-1] / 2
    for total in style.LogTicks(2, 7).tick_values(*ends):
        ax.plot(prompts, total / prompts, color=style.GREY, lw=0.6, ls=(0, (1, 3)), zorder=1,
                gid="iso", scaley=False)
        x = max(prompts[0], total / rollouts[-1])
        ax.annotate(f"B={style.plain_number(total)}", (x, total / x), xytext=(3, -2), fontsize=6.5,
                    textcoords="offset points", va="top", color=style.GREY)


def _critical(ax: Axes, plane: _Plane, draws: np.ndarray) -> list[Line2D]:
    """Draw where S is twice its least for so many rollouts, with its band.

    S falls along prompts, so the share of draws in which it is below twice its least is the
    distribution function of the critical batch there.
    """
    endless = np.column_stack([np.full(_POINTS, np.inf), plane.rollouts])
    lowest = plane.steps(endless)[:, :, None]
    share, prob = (draws / lowest < 2).mean(axis=0), plane.fit.settings["ci_prob"]
    if share.min() > 0.5 or share.max() < 0.5:
        return []
    ax.contourf(plane.prompts, plane.rollouts, share, levels=[(1 - prob) / 2, (1 + prob) / 2],
                colors=[_CRITICAL], alpha=0.18, zorder=1)
    ax.contour(plane.prompts, plane.rollouts, share, levels=[0.5], colors=_CRITICAL,
               linewidths=1.8, zorder=3)
    return [style.entry(f"critical batch, {100 * prob:g} % band", _CRITICAL, lw=1.8)]


def _best_split(ax: Axes, plane: _Plane) -> list[Line2D]:
    """Draw the split with least S of every total batch, with its band along the iso-batch line."""
    rollouts, prob = plane.rollouts, plane.fit.settings["ci_prob"]
    totals = np.geomspace(plane.batches[0].prod(), plane.batches[-1].prod(), _POINTS)
    best = np.stack([plane.fit.solve(least_steps, "split", total, threshold=plane.level)
                     for total in totals], axis=1)
    middle, low, high = marks.quantiles(np.clip(best, rollouts[0], 4 * rollouts[-1]), prob)
    ax.fill(np.concatenate([totals / low, (totals / high)[::-1]]),
            np.concatenate([low, high[::-1]]), color=_SPLIT, alpha=0.15, lw=0, zorder=1,
            gid="best-split-band")
    ax.plot(totals / middle, middle, color=_SPLIT, lw=1.8, zorder=3, gid="best-split")
    return [style.entry(f"best split, {100 * prob:g} % band", _SPLIT, lw=1.8)]


def _tips(ax: Axes, plane: _Plane, unit: str) -> None:
    """Tell S and samples at powers of two and at the batches tried."""
    powers = [2.0 ** np.arange(np.ceil(np.log2(axis[0])), np.log2(axis[-1]))
              for axis in (plane.prompts, plane.rollouts)]
    batches = np.unique([*((p, g) for p in powers[0] for g in powers[1]), *map(tuple, plane.tried)],
                        axis=0)
    runs = dict(zip(map(tuple, plane.tried), plane.runs, strict=True))
    prob = plane.fit.settings["ci_prob"]
    for (p, g), draws in zip(batches, plane.steps(batches).T, strict=True):
        made = runs.get((p, g), 0)
        marks.add_tip(ax, p, g, f"{p:g} × {g:g}: {marks.median_text(draws, prob)} {unit}, "
                      f"{marks.median_text(p * g * draws, prob)} samples; "
                      f"{f'runs: {made}' if made else 'not tried'}")


@style.styled
def plot_clock_map(fit: Fit, *, ax: Axes | None = None, threshold: float | None = None) -> Axes:
    """Plot the median time to target of the population over prompts and rollouts.

    Blue contours are times, orange ones join equal samples to the target; points are the batches
    tried.

    Parameters
    ----------
    fit : Fit
        Of a law with two axes.
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
        If runs have no step times, or give total batches only.
    """
    plane = _Plane(fit, threshold)
    seconds = step_times_of(fit).seconds_per_update(plane.batches)
    steps = plane.steps(plane.batches)
    times = marks.quantiles(steps * np.resize(seconds, steps.shape), 0.5)[0]
    per_unit, unit = style.time_unit(float(np.nanmedian(times)))
    ax = plane.axes(ax, 4.2)
    samples = marks.quantiles(steps, 0.5)[0] * plane.batches.prod(axis=1)
    plane.contours(ax, times / per_unit, style.BLUE, 6)
    plane.contours(ax, samples, style.ORANGE, 6)
    ax.set_title(f"Time to {reading.threshold_label(fit, plane.level)}")
    style.legend_below(ax, [style.entry(unit, style.BLUE, lw=1.0), *plane.points(ax),
                            style.entry("samples", style.ORANGE, lw=1.0)], 3)
    return ax


@style.styled
def plot_learning_rates(
    fit: Fit, *, ax: Axes | None = None, threshold: float | None = None
) -> Axes:
    """Plot median updates to target over the batch and the learning rate, at one group size.

    Blue contours join equal updates; the orange line is the best learning rate of every batch with
    the fit's interval. Points are runs, hollow where one never reached the target.

    Parameters
    ----------
    fit : Fit
        Of a law that knows the learning rate.
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
        If the law knows no learning rate, or the threshold was not fitted.
    """
    level = reading.one_threshold(fit, threshold)
    line = max(lines(fit), key=lambda one: len(one.batches))
    runs = fit.crossings.sel(threshold=level, method="nearest")
    if line.along == "prompts":
        runs = runs.isel(run=np.flatnonzero(runs["n_rollouts"].values == line.held))
    at = runs["n_prompts" if line.along == "prompts" else "total_batch"].values.astype(float)
    rate, failed = runs["learning_rate"].values, runs["status"].values == RIGHT
    batches, rates = (np.geomspace(tried.min() / _BEYOND, tried.max() * _BEYOND, _RATE_POINTS)
                      for tried in (at, rate))
    grid = [values.ravel() for values in np.meshgrid(batches, rates)]
    draws = fit.log_steps(grid[0], line.held, level, learning_rate=grid[1]).values
    ax = style.new_axes(ax, (5.6, 4.2))
    style.log_axis(ax, "x")
    style.log_axis(ax, "y", base=10)
    steps = np.exp(np.median(draws, axis=0)).reshape(_RATE_POINTS, _RATE_POINTS)
    levels = style.LogTicks(10, 8).tick_values(steps.min(), steps.max())
    contours = ax.contour(batches, rates, steps, levels=levels, colors=style.BLUE, linewidths=1.0)
    ax.clabel(contours, fontsize=8, fmt=style.plain_number)
    prob = fit.settings["ci_prob"]
    best = np.column_stack([best_rates(fit, batch, line.held, level) for batch in batches])
    marks.draw_band(ax, batches, best, style.ORANGE, (prob,))
    for which, face in ((~failed, style.INK), (failed, "none")):
        ax.scatter(at[which], rate[which], s=22, facecolors=face, edgecolors=style.INK, lw=0.8,
                   zorder=5, gid="tried")
    ax.set(xlim=batches[[0, -1]], ylim=rates[[0, -1]], ylabel="Learning rate",
           xlabel="Prompts per update" if line.along == "prompts" else "Samples per update")
    unit = reading.steps_label(fit)
    ax.set_title(f"{unit.capitalize()} to {reading.threshold_label(fit, level)}")
    style.legend_below(ax, [
        style.entry(f"best rate, {100 * prob:g} % band", style.ORANGE, lw=1.8),
        style.entry("run", style.INK, marker="o"),
        style.entry("run that never reached it", style.INK, marker="o", mfc="none")], 3)
    return ax
