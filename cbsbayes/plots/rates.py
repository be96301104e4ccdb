"""Updates to target over batch and learning rate, with the best rate of every batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from cbsbayes.crossings.intervals import RIGHT
from cbsbayes.plots import marks, reading, style
from cbsbayes.posterior.learning_rate import best_rates, lines

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_learning_rates"]

_POINTS = 25  # of the grid, per axis
_BEYOND = 1.5  # how far the map goes past what was tried


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
    batches, rates = (np.geomspace(tried.min() / _BEYOND, tried.max() * _BEYOND, _POINTS)
                      for tried in (at, rate))
    grid = [values.ravel() for values in np.meshgrid(batches, rates)]
    draws = fit.log_steps(grid[0], line.held, level, learning_rate=grid[1]).values
    ax = style.new_axes(ax, (5.6, 4.2))
    style.log_axis(ax, "x")
    style.log_axis(ax, "y", base=10)
    steps = np.exp(np.median(draws, axis=0)).reshape(_POINTS, _POINTS)
    levels = style.LogTicks(10, 8).tick_values(steps.min(), steps.max())
    contours = ax.contour(batches, rates, steps, levels=levels, colors=style.BLUE, linewidths=1.0)
    ax.clabel(contours, fontsize=8, fmt=style.plain_number)
    prob = reading.ci_prob(fit)
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
