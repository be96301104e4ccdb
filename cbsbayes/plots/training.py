"""Training curves: accuracy against updates or samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from cbsbayes.errors import CBSDataError
from cbsbayes.plots import reading, scales, style

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_training_curves"]

_BATCH = ("total_batch", "n_prompts", "n_rollouts")


@style.styled
def plot_training_curves(fit_or_data: Fit | xr.Dataset, *, ax: Axes | None = None,
                         phase: str | None = None, total_batch: float | None = None,
                         against: str = "updates", metric: str | None = None) -> Axes:
    """Plot validation accuracy during training, coloured by what tells most batches apart.

    Thin lines are seeds, thick ones their mean over the steps at which every seed was evaluated;
    runs with one rollout per prompt are dotted. Grey lines are the thresholds of the fit, where a
    fit is given.

    Parameters
    ----------
    fit_or_data : Fit or Dataset
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    phase : str, optional
        Only the runs of this phase; by default all runs.
    total_batch : float, optional
        Only the runs of this total batch, which shows its splits.
    against : {"updates", "samples"}
        What is on the x axis; samples on a log axis.
    metric : str, optional
        Validation set; by default the sweep's own choice.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If the sweep holds no curves (a table of crossings), the phase has no evaluated runs, or an
        option is unknown.
    """
    if against not in {"updates", "samples"}:
        raise CBSDataError(f"unknown x axis {against!r}; valid: updates, samples")
    sweep = reading.sweep_of(fit_or_data)
    table = reading.run_table(sweep)
    shown, names = np.full(len(table), True), []
    for column, value in (("phase", phase), ("total_batch", total_batch)):
        if value:
            shown &= (table[column] == value).to_numpy()
            names.append(f"{column.replace('_', ' ')} {value}")
    name = ", ".join(names)
    ax = style.new_axes(ax, (5.6, 3.0))
    _draw(ax, _evaluated(sweep, metric, shown, name or "the sweep"), against == "samples")
    if fit_or_data is not sweep:
        for threshold in fit_or_data.thresholds:
            ax.axhline(threshold, color=style.GREY, lw=0.6, zorder=1, gid="threshold")
    ax.set_ylabel(style.plain_text(f"Accuracy ({reading.metric_of(sweep, metric)})"))
    ax.set_title(style.plain_text(f"Training curves{', ' if name else ''}{name}"))
    return ax


def _evaluated(sweep: xr.Dataset, metric: str | None, mask: np.ndarray, name: str) -> xr.Dataset:
    """Return the usable runs in `mask` that were evaluated, with `accuracy(run, step)`."""
    if "usable" in sweep.coords:
        mask = mask & (sweep["usable"].values == 1)
    chosen = sweep.sel(metric=reading.metric_of(sweep, metric)).isel(run=np.flatnonzero(mask))
    seen = np.isfinite(chosen["accuracy"].values).any(axis=1)
    if not seen.any():
        phases = ", ".join(sorted(set(reading.run_table(sweep)["phase"]) - {""})) or "none named"
        raise CBSDataError(f"no evaluated runs of {name}; phases in the sweep: {phases}")
    return chosen.isel(run=np.flatnonzero(seen))


def _draw(ax: Axes, runs: xr.Dataset, in_samples: bool) -> None:
    """Draw the curves of `runs`, those of one batch in one colour."""
    table = reading.run_table(runs)
    by = max(_BATCH, key=lambda name: table[name].nunique())
    colours = style.colour_of(table[by])
    step = runs["step"].values.astype(float)
    for _, batch in table.groupby([by, *(name for name in _BATCH if name != by)]):
        first = batch.iloc[0]
        seeds = runs["accuracy"].values[batch.index.to_numpy()]
        x = step * first["total_batch"] if in_samples else step
        line: dict[str, Any] = {"color": colours[first[by]],
                                "ls": (0, (1, 1.2)) if first["n_rollouts"] == 1 else "-"}
        for seed in seeds:
            seen = np.isfinite(seed) & (x > 0)
            ax.plot(x[seen], seed[seen], lw=0.7, alpha=0.55, zorder=2, gid="seed", **line)
        mean = seeds.mean(axis=0)  # where a seed has stopped, a mean of the others would jump
        seen = np.isfinite(mean) & (x > 0)
        ax.plot(x[seen], mean[seen], lw=1.8, zorder=3, label=reading.batch_of(first), gid="mean",
                **line)
    if in_samples:
        scales.log_axis(ax, "x", 10)
    ax.set_xlabel("Samples (updates × batch size)" if in_samples else "Updates")
    two_axes = (table["n_prompts"] > 0).all()
    style.legend_outside(ax, title="prompts ×\nrollouts" if two_axes else "batch")
