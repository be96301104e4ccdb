"""Posterior predictive check of the crossings: whether the fit covers what was observed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.marks import censoring_handles, interval_of
from cbsbayes.plots.reading import (
    INTERVAL,
    LEFT,
    RIGHT,
    ci_prob,
    crossing_table,
    one_threshold,
    steps_label,
    threshold_label,
)
from cbsbayes.plots.rows import stack_runs
from cbsbayes.plots.scales import log2_axis
from cbsbayes.plots.style import BLACK, OKABE_ITO, legend_outside, new_axes, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["interval_coverage", "plot_crossing_check"]

_BLUE = OKABE_ITO[0]


def interval_coverage(replicates: np.ndarray, lower: np.ndarray, upper: np.ndarray,
                      prob: float) -> float:
    """Return the share of observations inside the central predictive interval.

    An observation known only to lie in (lower, upper] covers a stretch of the predictive
    distribution; what counts is the part of that stretch inside the central `prob`, so that
    a calibrated model scores `prob` on average whatever the censoring (the non-randomised
    probability integral transform of Czado, Gneiting & Held 2009, Biometrics 65:1254).

    Parameters
    ----------
    replicates : array, shape (sample, run)
        Replicated S.
    lower, upper : array, shape (run,)
        Bounds of the observed crossings; 0 and inf where censored.
    prob : float

    Returns
    -------
    float
    """
    start = (replicates <= lower).mean(axis=0)
    end = (replicates <= upper).mean(axis=0)
    tail = (1 - prob) / 2
    inside = np.clip(np.minimum(end, 1 - tail) - np.maximum(start, tail), 0.0, None)
    width = end - start
    point = ((start >= tail) & (start <= 1 - tail)).astype(float)
    return float(np.where(width > 0, inside / np.where(width > 0, width, 1.0), point).mean())


def _draw_observed(ax: Axes, y: np.ndarray, runs: pd.DataFrame) -> None:
    lower, upper = runs["lower"].to_numpy(), runs["upper"].to_numpy()
    status = runs["status"].to_numpy()
    known = status == INTERVAL
    ax.hlines(y[known], lower[known], upper[known], colors=BLACK, lw=1.6, zorder=4)
    ax.plot(np.sqrt(lower[known] * upper[known]), y[known], "o", color=BLACK, ms=3, zorder=5,
            gid="crossing-interval")
    for code, x, marker, gid in ((LEFT, upper, "<", "crossing-left"),
                                 (RIGHT, lower, ">", "crossing-right")):
        ax.plot(x[status == code], y[status == code], marker, mfc="white", mec=BLACK, mew=1.1,
                ms=5.5, zorder=5, gid=gid)


@styled
def plot_crossing_check(fit: Fit, *, ax: Axes | None = None,
                        threshold: float | None = None) -> Axes:
    """Plot replicated against observed crossings of one threshold, run by run.

    Bars are the 50 % interval and the fit's interval of replicated S, black marks the
    observed crossing between two evaluations, open arrowheads the censored ones. The title
    gives the share of observations inside each interval.

    Parameters
    ----------
    fit : Fit
    ax : Axes, optional
        Drawn into; by default a new figure's axes, as tall as there are batches.
    threshold : float, optional
        By default the one with most observed crossings.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If the fit holds no posterior predictive, or the threshold was not fitted.
    """
    if getattr(fit, "predictive", None) is None or "steps" not in fit.predictive:
        raise CBSDataError("no posterior predictive in the fit; fit again with it switched on")
    level = one_threshold(fit, threshold)
    runs = crossing_table(fit, level)
    steps = fit.predictive["steps"].sel(threshold=level, method="nearest")
    replicates = steps.sel(run=runs["run"].to_numpy()).transpose("sample", "run").values
    rows = stack_runs(runs)
    ax = new_axes(ax, (7.4, rows.inches))
    prob = ci_prob(fit)
    shares = []
    for p, lw, alpha in ((prob, 2.4, 0.35), (0.5, 4.2, 0.6)):
        ax.hlines(rows.y, *interval_of(replicates, p), colors=_BLUE, lw=lw, alpha=alpha, zorder=2)
        share = interval_coverage(replicates, runs["lower"].to_numpy(),
                                  runs["upper"].to_numpy(), p)
        shares.append(f"{100 * share:.0f} % in the {100 * p:.0f} % interval")
    _draw_observed(ax, rows.y, runs)
    log2_axis(ax, "x")
    ax.set_xlabel(f"S: {steps_label(fit)} to {threshold_label(fit.sweep, level)}")
    rows.label(ax, two_axes=bool((runs["n_prompts"] > 0).all()))
    ax.set_title(f"Observed: {', '.join(shares)}")
    _legend(ax, runs, prob)
    return ax


def _legend(ax: Axes, runs: pd.DataFrame, prob: float) -> None:
    handles: list[Artist] = [
        Patch(color=_BLUE, alpha=0.7, label="replicated, 50 %"),
        Patch(color=_BLUE, alpha=0.35, label=f"replicated, {100 * prob:.0f} %")]
    for handle in censoring_handles(runs["status"]):
        marker = {"^": ">", "v": "<"}.get(str(handle.get_marker()), "o")
        handles.append(Line2D([], [], marker=marker, ls="none", ms=5, mec=BLACK,
                              mfc=handle.get_markerfacecolor(), label=handle.get_label()))
    legend_outside(ax, handles=handles, labels=[handle.get_label() for handle in handles])
