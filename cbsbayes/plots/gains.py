"""What doubling the batch buys: S after doubling one axis over S before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.marks import interval_of
from cbsbayes.plots.reading import ci_prob, crossing_table, pick_thresholds, threshold_label
from cbsbayes.plots.scales import log2_axis
from cbsbayes.plots.slices import Slice, choose_slice
from cbsbayes.plots.style import GREY, legend_outside, new_axes, ordered_colours, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["doubling_gain", "plot_gains"]

_DOUBLED = {"prompts": "prompts", "rollouts": "rollouts", "total": "the batch"}


def doubling_gain(fit: Fit, cut: Slice, x: np.ndarray, threshold: float) -> np.ndarray:
    """Return posterior draws of S(2x)/S(x) along a cut.

    Parameters
    ----------
    fit : Fit
    cut : Slice
    x : array, shape (batch,)
        Batches before doubling.
    threshold : float

    Returns
    -------
    array, shape (sample, batch)
    """
    both = fit.log_steps(*cut.batches(np.concatenate([x, 2 * x])), threshold=threshold)
    before, after = np.split(both.values, 2, axis=1)
    with np.errstate(invalid="ignore"):  # where a group never arrives, before nor after
        return np.exp(after - before)


@styled
def plot_gains(fit: Fit, *, ax: Axes | None = None,
               threshold: float | Sequence[float] | None = None, axis: str | None = None,
               n_prompts: int | None = None, n_rollouts: int | None = None) -> Axes:
    """Plot what doubling the batch buys, inside the range of batches tried.

    The value is updates after doubling over updates before: 1 is nothing bought, 0.5 is
    perfect scaling. Of all that is read off the fit this leans least on the form of the law.

    Parameters
    ----------
    fit : Fit
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    threshold : float or sequence of float, optional
        Fitted thresholds to draw; by default all (six at most).
    axis : {"prompts", "rollouts", "total"}, optional
        The axis doubled. Default: prompts, or total for one-axis data.
    n_prompts, n_rollouts : int, optional
        What is held fixed; by default the value with most batches along the axis.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If the axis was not varied, no batch has its double in the range tried, or a threshold
        was not fitted.
    """
    cut = choose_slice(fit, axis, n_prompts=n_prompts, n_rollouts=n_rollouts)
    thresholds = pick_thresholds(fit, threshold)
    runs = crossing_table(fit, thresholds[0])
    tried = np.unique(runs.loc[cut.contains(runs), cut.column].to_numpy(dtype=float))
    inside = tried[2 * tried <= tried[-1]]
    if not inside.size:
        raise CBSDataError(f"no batch along {_DOUBLED[cut.axis]} was tried together with one twice "
                           "its size; what doubling buys would be extrapolated")
    grid = np.geomspace(max(tried[0], cut.least), tried[-1] / 2, 61)
    ax = new_axes(ax, (6.8, 3.8))
    colours = ordered_colours(len(thresholds))
    for j, (level, colour) in enumerate(zip(thresholds, colours, strict=True)):
        draws = doubling_gain(fit, cut, np.concatenate([grid, inside]), level)
        band, at = draws[:, :grid.size], draws[:, grid.size:]
        ax.fill_between(grid, *interval_of(band, ci_prob(fit)), color=colour, alpha=0.12, lw=0)
        ax.plot(grid, np.median(band, axis=0), color=colour, gid="median",
                label=threshold_label(fit.sweep, level))
        x = inside * 2.0 ** (0.07 * (j - (len(thresholds) - 1) / 2))
        ax.vlines(x, *interval_of(at, ci_prob(fit)), colors=colour, lw=1.3)
        ax.plot(x, np.median(at, axis=0), "o", color=colour, ms=4.5, gid="tried")
    _finish(ax, fit, cut)
    return ax


def _finish(ax: Axes, fit: Fit, cut: Slice) -> None:
    for value, words in ((1.0, "nothing bought"), (0.5, "perfect scaling")):
        ax.axhline(value, color=GREY, lw=0.9, ls=(0, (4, 2)), zorder=1, gid="reference")
        ax.annotate(words, (0.99, value), xycoords=("axes fraction", "data"), ha="right",
                    va="bottom", xytext=(0, 1), textcoords="offset points", fontsize=7,
                    color=GREY)
    log2_axis(ax, "x")
    ax.set_ylim(0.47, 1.05)
    ax.set_xlabel(f"{cut.xlabel} (before doubling)")
    ax.set_ylabel("S after doubling / S before")
    ax.set_title(f"What doubling {_DOUBLED[cut.axis]} buys · law {fit.law.name}")
    legend_outside(ax, title=f"{100 * ci_prob(fit):.0f} % intervals")
