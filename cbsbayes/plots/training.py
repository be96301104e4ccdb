"""Training curves: accuracy against updates or against samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.curves import draw_cells, select_runs
from cbsbayes.plots.reading import metric_of, run_table, sweep_of
from cbsbayes.plots.scales import log2_axis
from cbsbayes.plots.style import GREY, new_axes, new_grid, plain_text, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_training_curves", "plot_training_phase"]

_COLOURED_BY = ("total_batch", "n_prompts", "n_rollouts")


def _colouring(runs: xr.Dataset) -> str:
    """Return the coordinate that tells most batches of a phase apart, the total batch first."""
    table = run_table(runs)
    return max(_COLOURED_BY, key=lambda name: table[name].nunique())


@styled
def plot_training_curves(fit_or_data: Fit | xr.Dataset, *, ax: Axes | None = None,
                         phase: str | None = None, against: str = "updates",
                         colour_by: str | None = None, metric: str | None = None,
                         legend: bool = True) -> Axes:
    """Plot validation accuracy during training, one colour per batch.

    Thin lines are seeds, thick ones their mean over the steps at which every seed was
    evaluated; runs with one rollout per prompt are dotted. Grey lines are the thresholds of
    the fit, where a fit is given.

    Parameters
    ----------
    fit_or_data : Fit or Dataset
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    phase : str, optional
        Only the runs of this phase; by default all runs.
    against : {"updates", "samples"}
        What is on the x axis; samples on a log axis.
    colour_by : {"total_batch", "n_prompts", "n_rollouts"}, optional
        By default the one that tells most batches apart.
    metric : str, optional
        Validation set; by default the sweep's own choice.
    legend : bool
        Whether to add the legend of batches.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If the sweep holds no curves (a table of crossings), the phase has no evaluated
        runs, or an option is unknown.
    """
    if against not in {"updates", "samples"}:
        raise CBSDataError(f"unknown x axis {against!r}; valid: updates, samples")
    if colour_by not in {None, *_COLOURED_BY}:
        raise CBSDataError(f"unknown colouring {colour_by!r}; valid: {', '.join(_COLOURED_BY)}")
    sweep = sweep_of(fit_or_data)
    phases = run_table(sweep)["phase"].to_numpy()
    mask = np.full(len(phases), True) if phase is None else phases == phase
    runs = select_runs(sweep, metric, mask, "the sweep" if phase is None else f"phase {phase!r}")
    ax = new_axes(ax, (6.8, 4.0))
    draw_cells(ax, runs, colour_by or _colouring(runs), in_samples=against == "samples",
               legend=legend)
    if fit_or_data is not sweep:
        for threshold in fit_or_data.thresholds:
            ax.axhline(threshold, color=GREY, lw=0.6, zorder=1, gid="threshold")
    if against == "samples":
        log2_axis(ax, "x", most=5)
    ax.set_xlabel("Updates" if against == "updates" else "Samples (updates × batch size)")
    ax.set_ylabel(plain_text(f"Accuracy ({metric_of(sweep, metric)})"))
    title = "All runs" if phase is None else f"Phase {phase}"
    ax.set_title(plain_text(f"{title}: accuracy against {against}"))
    return ax


@styled
def plot_training_phase(fit_or_data: Fit | xr.Dataset, phase: str | None = None, *,
                        metric: str | None = None) -> Figure:
    """Plot the training curves of a phase against updates and against samples, side by side.

    Parameters
    ----------
    fit_or_data : Fit or Dataset
    phase : str, optional
        By default all runs.
    metric : str, optional
        Validation set; by default the sweep's own choice.

    Returns
    -------
    Figure

    Raises
    ------
    CBSDataError
        If the sweep holds no curves, or the phase has no evaluated runs.
    """
    figure, (left, right) = new_grid(2, 2, (4.1, 3.3), sharey=True)
    plot_training_curves(fit_or_data, ax=left, phase=phase, metric=metric, legend=False)
    plot_training_curves(fit_or_data, ax=right, phase=phase, metric=metric, against="samples")
    right.set_ylabel("")
    right.set_title("")
    left.set_title(plain_text("All runs" if phase is None else f"Phase {phase}"))
    return figure
