"""Iso-batch: one total batch split differently between prompts and rollouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.curves import draw_cells, select_runs
from cbsbayes.plots.marks import censoring_handles, dodge, draw_bands, draw_crossings
from cbsbayes.plots.reading import (
    cbs_row,
    ci_prob,
    crossing_table,
    metric_of,
    one_threshold,
    run_table,
    steps_label,
    sweep_of,
    threshold_label,
)
from cbsbayes.plots.scales import log2_axis, plain_number
from cbsbayes.plots.style import GREY, OKABE_ITO, legend_outside, new_axes, plain_text, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_iso_batch", "plot_iso_batch_steps"]

_BLUE = OKABE_ITO[0]


def _iso_total(runs: pd.DataFrame, total_batch: float | None) -> float:
    """Return the total batch asked for, or the one split in most ways."""
    splits = runs[runs["n_prompts"] > 0].groupby("total_batch")["n_rollouts"].nunique()
    if splits.empty or splits.max() < 2:
        raise CBSDataError("no total batch was split in more than one way between prompts and "
                           "rollouts; an iso-batch phase (p2c) is needed")
    if total_batch is None:
        return float(splits.index[splits == splits.max()][-1])
    if splits.get(total_batch, 0) < 2:
        tried = ", ".join(plain_number(b) for b in splits.index[splits > 1])
        raise CBSDataError(f"total batch {total_batch:g} has no two splits; those that have: "
                           f"{tried}")
    return float(total_batch)


@styled
def plot_iso_batch(fit_or_data: Fit | xr.Dataset, *, ax: Axes | None = None,
                   total_batch: float | None = None, metric: str | None = None) -> Axes:
    """Plot the training curves of one total batch, coloured by rollouts per prompt.

    Parameters
    ----------
    fit_or_data : Fit or Dataset
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    total_batch : float, optional
        By default the total batch that was split in most ways.
    metric : str, optional
        Validation set; by default the sweep's own choice.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If no total batch was split in two ways, or the sweep holds no curves.
    """
    sweep = sweep_of(fit_or_data)
    table = run_table(sweep)
    total = _iso_total(table, total_batch)
    mask = (table["total_batch"] == total).to_numpy()
    runs = select_runs(sweep, metric, mask, f"total batch {total:g}")
    ax = new_axes(ax, (6.8, 4.0))
    draw_cells(ax, runs, "n_rollouts")
    ax.set_xlabel("Updates")
    ax.set_ylabel(plain_text(f"Accuracy ({metric_of(sweep, metric)})"))
    ax.set_title(f"Splits of a batch of {plain_number(total)} samples")
    return ax


@styled
def plot_iso_batch_steps(fit: Fit, *, ax: Axes | None = None, threshold: float | None = None,
                         total_batch: float | None = None) -> Axes:
    """Plot updates to target for every split of one total batch, posterior and observed.

    The bar at the bottom is the interval of the best number of rollouts, where the table
    identifies it.

    Parameters
    ----------
    fit : Fit
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    threshold : float, optional
        By default the one with most observed crossings.
    total_batch : float, optional
        By default the total batch that was split in most ways.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If no fitted total batch was split in two ways, or the law knows no split.
    """
    if not fit.law.two_axis:
        raise CBSDataError(f"law {fit.law.name} depends on the total batch alone: all splits "
                           "are equal; fit a two-axis law")
    level = one_threshold(fit, threshold)
    runs = crossing_table(fit, level)
    total = _iso_total(runs, total_batch)
    runs = runs[runs["total_batch"] == total]
    tried = runs["n_rollouts"].to_numpy(dtype=float)
    least = 2.0 if fit.law.needs_baseline_group else 1.0
    grid = np.geomspace(max(least, tried.min() / 1.3), tried.max() * 1.3, 81)
    ax = new_axes(ax, (6.8, 4.0))
    steps = np.exp(fit.log_steps(total / grid, grid, threshold=level).values)
    draw_bands(ax, grid, steps, _BLUE, (0.5, ci_prob(fit)), label="posterior")
    draw_crossings(ax, dodge(tried), runs, _BLUE)
    log2_axis(ax, "xy")
    best = cbs_row(fit.cbs, "best_n_rollouts", level, {"total_batch": total})
    best = cbs_row(fit.cbs, "best_n_rollouts", level, {}) if best is None else best
    _finish(ax, fit, runs, best, total, level)
    return ax


def _finish(ax: Axes, fit: Fit, runs: pd.DataFrame, best: pd.Series | None, total: float,
            level: float) -> None:
    handles = [Line2D([], [], color=_BLUE, label="posterior"), *censoring_handles(runs["status"])]
    if best is not None and best["status"] == "identified":
        ax.plot([best["ci_lower"], best["ci_upper"]], [0.03, 0.03], color=GREY, lw=4.5, alpha=0.6,
                transform=ax.get_xaxis_transform(), solid_capstyle="butt", gid="best-split")
        handles.append(Line2D([], [], color=GREY, lw=4.5, alpha=0.6,
                              label=f"best split, {100 * ci_prob(fit):.0f} % interval"))
    splits = sorted(set(runs["n_rollouts"]))
    ax.set_xticks(splits, labels=[f"{total / g:,.0f} × {g:,d}" for g in splits])
    ax.set_xlabel("Prompts × rollouts")
    ax.set_ylabel(f"S: {steps_label(fit)} to {threshold_label(fit.sweep, level)}")
    ax.set_title(f"Splits of a batch of {plain_number(total)} samples · law {fit.law.name}")
    legend_outside(ax, handles=handles, labels=[handle.get_label() for handle in handles])
