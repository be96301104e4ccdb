"""Step times of every run, with the model of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from cbsbayes.decisions.step_times import step_times_of, step_times_of_sweep
from cbsbayes.errors import CBSDataError
from cbsbayes.plots import marks, reading, scales, style

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_step_time"]

_MODELLED = 3  # timed runs from which a step-time model is fitted


@style.styled
def plot_step_time(fit_or_data: Fit | xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Plot seconds per trainer step of every run against its batch.

    With three and more timed runs, lines and bands are the fitted step-time model: the population's
    median and interval.

    Parameters
    ----------
    fit_or_data : Fit or Dataset
    ax : Axes, optional
        Drawn into; by default a new figure's axes.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If no step time is known.
    """
    sweep = reading.sweep_of(fit_or_data)
    seconds = sweep["step_time"].values if "step_time" in sweep else np.nan
    runs = reading.run_table(sweep).assign(seconds=seconds).dropna(subset="seconds")
    if runs.empty:
        raise CBSDataError("no step time is known in any run, so time cannot be drawn; log "
                           "perf/time_per_step (or a column seconds_per_step)")
    ax = style.new_axes(ax)
    colours = style.colour_of(runs["n_rollouts"])
    for n_rollouts, group in runs.groupby("n_rollouts"):
        ax.plot(group["total_batch"], group["seconds"], "o", ms=4.6, mec=style.PAPER, mew=0.4,
                color=colours[n_rollouts], label=f"{n_rollouts}", gid="step-time")
    if len(runs) >= _MODELLED:
        _draw_model(ax, fit_or_data, colours)
    scales.log_axis(ax, "x")
    scales.log_axis(ax, "y", 10)
    ax.set_xlabel("Batch size B (samples per update)")
    ax.set_ylabel("Seconds per trainer step")
    ax.set_title("Time per step")
    if (runs["n_rollouts"] > 0).all():
        style.legend_outside(ax, title="rollouts")
    return ax


def _draw_model(ax: Axes, fit_or_data: Fit | xr.Dataset, colours: dict[int, str]) -> None:
    """Draw the step-time model along the prompts timed, a line per number of rollouts."""
    if isinstance(fit_or_data, xr.Dataset):
        model, prob = step_times_of_sweep(fit_or_data), 0.9
    else:
        model, prob = step_times_of(fit_or_data), reading.ci_prob(fit_or_data)
    for n_rollouts in np.unique(model.batches[:, 1]):
        timed = model.batches[model.batches[:, 1] == n_rollouts, 0]
        if len(timed) < 2:
            continue
        line = np.geomspace(timed.min(), timed.max(), 40)
        seconds = model.seconds_per_update(np.stack([line, np.full(40, n_rollouts)], axis=1))
        marks.draw_band(ax, line * n_rollouts, seconds * model.updates_per_step,
                  colours.get(-1 if model.one_axis else int(n_rollouts), style.INK), (prob,))
