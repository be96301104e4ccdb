"""Run effects: which runs were slower or faster than the law says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.marks import interval_of
from cbsbayes.plots.reading import ci_prob, run_table
from cbsbayes.plots.rows import stack_runs
from cbsbayes.plots.style import (
    BLACK,
    GREY,
    kind_colours,
    legend_outside,
    new_axes,
    short_text,
    styled,
)

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_run_effects"]


@styled
def plot_run_effects(fit: Fit, *, ax: Axes | None = None, name_beyond: float = 2.0) -> Axes:
    """Plot the posterior of every run's effect u on log S, coloured by phase.

    The shaded stripes are one and two posterior medians of sigma_run. Runs whose median lies
    beyond `name_beyond` times sigma_run are named; + 0.1 means a tenth more updates.

    Parameters
    ----------
    fit : Fit
    ax : Axes, optional
        Drawn into; by default a new figure's axes, as tall as there are batches.
    name_beyond : float
        In units of sigma_run.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If the fit has no run effects.
    """
    if "run_effect" not in fit.posterior:
        raise CBSDataError("the fit has no run effects to draw")
    runs = run_table(fit.crossings)
    effect = fit.posterior["run_effect"].sel(run=runs["run"].to_numpy())
    draws = effect.transpose("chain", "draw", "run").values.reshape(-1, len(runs))
    sigma = float(fit.posterior["sigma_run"].median())
    rows = stack_runs(runs)
    ax = new_axes(ax, (6.8, rows.inches))
    for width, shade in ((2 * sigma, "#f1f1f1"), (sigma, "#e2e2e2")):
        ax.axvspan(-width, width, color=shade, zorder=0, gid="sigma")
    ax.axvline(0, color=GREY, lw=0.8)
    _draw_runs(ax, runs["phase"], draws, rows.y, ci_prob(fit))
    _name_outliers(ax, runs, np.median(draws, axis=0), rows.y, name_beyond * sigma)
    rows.label(ax, two_axes=bool((runs["n_prompts"] > 0).all()))
    ax.grid(visible=False)
    ax.set_xlabel("Run effect on log S (above 0: slower than the law)")
    ax.set_title(f"Run effects, sigma_run = {sigma:.2g}")
    return ax


def _draw_runs(ax: Axes, phases: pd.Series, draws: np.ndarray, y: np.ndarray,
               prob: float) -> None:
    names = sorted(set(phases))
    for phase, colour in kind_colours(names).items():
        mine = np.flatnonzero(phases == phase)
        ax.hlines(y[mine], *interval_of(draws[:, mine], prob), colors=colour, lw=1.2, zorder=2)
        ax.plot(np.median(draws[:, mine], axis=0), y[mine], "o", color=colour, ms=4, zorder=3,
                label=short_text(phase, 20) or "no phase", gid="run")
    if len(names) > 1:
        legend_outside(ax, title="phase")


def _name_outliers(ax: Axes, runs: pd.DataFrame, median: np.ndarray, y: np.ndarray,
                   beyond: float) -> None:
    for i in np.flatnonzero(np.abs(median) > beyond):
        right = median[i] > 0
        ax.annotate(short_text(runs["run"][i]), (median[i], y[i]), fontsize=6.5, color=BLACK,
                    xytext=(-4 if right else 4, 4), textcoords="offset points",
                    ha="right" if right else "left", gid="outlier")
