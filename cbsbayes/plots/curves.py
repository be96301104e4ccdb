"""Training curves of one batch: seeds thin, their mean thick, groups of one dotted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.reading import batch_label, mean_of_all, metric_of, run_table
from cbsbayes.plots.scales import plain_number
from cbsbayes.plots.style import colour_of, legend_outside

__all__ = ["draw_cells", "select_runs"]


def select_runs(sweep: xr.Dataset, metric: str | None, mask: np.ndarray, what: str) -> xr.Dataset:
    """Return the usable runs in `mask` that were evaluated, with `accuracy(run, step)`.

    Raises
    ------
    CBSDataError
        If the sweep holds no curves, or no usable run in `mask` was ever evaluated.
    """
    if "usable" in sweep.coords:
        mask = mask & (sweep["usable"].values == 1)
    chosen = sweep.sel(metric=metric_of(sweep, metric)).isel(run=np.flatnonzero(mask))
    evaluated = np.isfinite(chosen["accuracy"].values).any(axis=1) if mask.any() else mask[:0]
    if not evaluated.any():
        phases = ", ".join(sorted(set(run_table(sweep)["phase"]) - {""})) or "none named"
        raise CBSDataError(f"no evaluated runs of {what}; phases in the sweep: {phases}")
    return chosen.isel(run=np.flatnonzero(evaluated))


def draw_cells(ax: Axes, runs: xr.Dataset, colour_by: str, *, in_samples: bool = False,
               legend: bool = True) -> None:
    """Draw the curves of `runs`, one colour per value of a coordinate.

    Parameters
    ----------
    ax : Axes
    runs : Dataset
        `accuracy(run, step)` as :func:`select_runs` returns it.
    colour_by : {"total_batch", "n_prompts", "n_rollouts"}
    in_samples : bool
        Put samples (updates × total batch) on the x axis instead of updates.
    legend : bool
        Whether to add the legend of batches.
    """
    table = run_table(runs)
    colours = colour_of(table[colour_by])
    step = runs["step"].values.astype(float)
    keys = [colour_by, "total_batch", "n_prompts", "n_rollouts"]
    for _, cell in table.groupby(list(dict.fromkeys(keys))):
        first = cell.iloc[0]
        accuracy = runs["accuracy"].values[cell.index.to_numpy()]
        x = step * first["total_batch"] if in_samples else step
        shown = x > 0 if in_samples else x >= 0  # the start has no place on a log axis
        _draw_cell(ax, x[shown], accuracy[:, shown], colours[first[colour_by]], _label(first),
                   dotted=first["n_rollouts"] == 1)
    if legend:
        two_axes = (table["n_prompts"] > 0).all()
        legend_outside(ax, title="prompts × rollouts = B" if two_axes else "batch size")


def _draw_cell(ax: Axes, x: np.ndarray, accuracy: np.ndarray, colour: str, label: str, *,
               dotted: bool) -> None:
    style = (0, (1, 1.2)) if dotted else "-"
    for seed in accuracy:
        seen = np.isfinite(seed)
        thin = {"lw": 0.7, "alpha": 0.55} if len(accuracy) > 1 else {"lw": 1.6, "label": label}
        ax.plot(x[seen], seed[seen], color=colour, ls=style, zorder=2, gid="seed", **thin)
    if len(accuracy) > 1:
        mean = mean_of_all(accuracy)
        seen = np.isfinite(mean)
        ax.plot(x[seen], mean[seen], color=colour, lw=1.9, ls=style, zorder=3, label=label,
                gid="mean")


def _label(run: pd.Series) -> str:
    batch = batch_label(run["n_prompts"], run["n_rollouts"], run["total_batch"])
    return f"{batch} = {plain_number(run['total_batch'])}" if "×" in batch else batch
