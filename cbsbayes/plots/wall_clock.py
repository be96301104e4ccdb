"""Wall clock: time to target and time per step against the batch, where step times are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from cbsbayes.decisions.step_times import clock_of, clock_of_sweep
from cbsbayes.errors import CBSDataError
from cbsbayes.plots.marks import dodge, draw_crossings, interval_of
from cbsbayes.plots.reading import (
    ci_prob,
    crossing_table,
    one_threshold,
    run_table,
    sweep_of,
    threshold_label,
)
from cbsbayes.plots.scales import log2_axis, time_unit
from cbsbayes.plots.style import BLACK, colour_of, legend_outside, new_axes, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_step_time", "plot_wall_clock"]

_CELL = ["total_batch", "n_prompts", "n_rollouts"]
_MODELLED = 3  # timed runs from which a step-time model is fitted


def _timed_runs(sweep: xr.Dataset) -> pd.DataFrame:
    """Return the runs whose step time is known, with seconds per trainer step and per update."""
    table = run_table(sweep)
    table["seconds_per_step"] = sweep["step_time"].values if "step_time" in sweep else np.nan
    per_step = sweep["updates_per_step"].values if "updates_per_step" in sweep.coords else 1
    table["seconds_per_update"] = table["seconds_per_step"] / per_step
    known = table[np.isfinite(table["seconds_per_step"])]
    if known.empty:
        raise CBSDataError("no step time is known in any run, so wall clock cannot be drawn; "
                           "log perf/time_per_step (or a column seconds_per_step)")
    return known


@styled
def plot_wall_clock(fit: Fit, *, ax: Axes | None = None, threshold: float | None = None) -> Axes:
    """Plot the time to target at every batch tried: posterior S times the seconds per update.

    Coloured bars are the posterior's 50 % interval and the fit's interval; the step time
    itself is taken as the median over the runs of a batch, without its own spread. Splits of
    one total batch stand side by side. Black marks are the observed crossings
    times each run's own step time.

    Parameters
    ----------
    fit : Fit
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    threshold : float, optional
        By default the one with most observed crossings.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If no step time is known, or the threshold was not fitted.
    """
    level = one_threshold(fit, threshold)
    timed = _timed_runs(fit.sweep).set_index("run")["seconds_per_update"]
    runs = crossing_table(fit, level)
    runs["seconds"] = runs["run"].map(timed)
    runs = runs[np.isfinite(runs["seconds"])]
    cells = runs.groupby(_CELL, as_index=False)["seconds"].median()
    if cells.empty:
        raise CBSDataError("no fitted run has a known step time, so wall clock cannot be drawn; "
                           "log perf/time_per_step (or a column seconds_per_step)")
    one_axis = (cells["n_prompts"] <= 0).all()
    batches = ((cells["total_batch"], np.ones(len(cells))) if one_axis
               else (cells["n_prompts"], cells["n_rollouts"]))
    prompts, rollouts = (np.asarray(axis) for axis in batches)
    log_steps = fit.log_steps(prompts, rollouts, threshold=level)
    times = np.exp(log_steps.values) * cells["seconds"].to_numpy()
    per_unit, unit = time_unit(float(np.median(times[np.isfinite(times)])))
    ax = new_axes(ax, (6.8, 4.0))
    cells["x"] = dodge(cells["total_batch"].to_numpy(dtype=float), 0.5)
    _draw_cells(ax, cells, times / per_unit, ci_prob(fit))
    x = runs.merge(cells.drop(columns="seconds"), on=_CELL, how="left")["x"].to_numpy()
    draw_crossings(ax, dodge(x, 0.06), runs, BLACK, scale=runs["seconds"].to_numpy() / per_unit,
                   alpha=0.75)
    log2_axis(ax, "xy")
    ax.set_xlabel("Batch size B (samples per update)")
    ax.set_ylabel(f"Time to target ({unit})")
    ax.set_title(f"Time to {threshold_label(fit.sweep, level)}")
    if not one_axis:
        legend_outside(ax, title="rollouts per prompt")
    return ax


def _draw_cells(ax: Axes, cells: pd.DataFrame, times: np.ndarray, prob: float) -> None:
    """Draw the posterior time of each batch at its `x`, one colour per number of rollouts."""
    for n_rollouts, colour in colour_of(cells["n_rollouts"]).items():
        mine = np.flatnonzero(cells["n_rollouts"] == n_rollouts)
        x = cells["x"].to_numpy()[mine]
        for p, lw, alpha in ((prob, 3.0, 0.4), (0.5, 5.5, 0.7)):
            ax.vlines(x, *interval_of(times[:, mine], p), colors=colour, lw=lw, alpha=alpha,
                      zorder=2)
        ax.plot(x, np.median(times[:, mine], axis=0), "_", color=colour, ms=10, mew=2, zorder=3,
                gid="time", label=f"{n_rollouts}")


@styled
def plot_step_time(fit_or_data: Fit | xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Plot seconds per trainer step of every run against its batch.

    With three and more timed runs, lines and bands are the fitted step-time model: a typical run's
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
    runs = _timed_runs(sweep_of(fit_or_data)).sort_values("n_rollouts", kind="stable")
    ax = new_axes(ax, (6.8, 4.0))
    colours = colour_of(runs["n_rollouts"])
    for n_rollouts, group in runs.groupby("n_rollouts"):
        ax.plot(group["total_batch"], group["seconds_per_step"], "o", ms=4.6, mec="white", mew=0.4,
                color=colours[n_rollouts], label=f"{n_rollouts}", gid="step-time")
    if len(runs) >= _MODELLED:
        _draw_model(ax, fit_or_data, colours)
    log2_axis(ax, "xy")
    ax.set_xlabel("Batch size B (samples per update)")
    ax.set_ylabel("Seconds per trainer step")
    ax.set_title("Time per step")
    if (runs["n_rollouts"] > 0).all():
        legend_outside(ax, title="rollouts per prompt")
    return ax


def _draw_model(ax: Axes, fit_or_data: Fit | xr.Dataset, colours: dict[int, str]) -> None:
    """Draw the step-time model along the prompts timed, a line per number of rollouts."""
    if isinstance(fit_or_data, xr.Dataset):
        clock, prob = clock_of_sweep(fit_or_data), 0.9
    else:
        clock, prob = clock_of(fit_or_data), ci_prob(fit_or_data)
    for n_rollouts in np.unique(clock.batches[:, 1]):
        timed = clock.batches[clock.batches[:, 1] == n_rollouts, 0]
        if len(timed) < 2:
            continue
        line = np.geomspace(timed.min(), timed.max(), 40)
        batches = np.stack([line, np.full(40, n_rollouts)], axis=1)
        seconds = clock.seconds_per_update(batches) * clock.updates_per_step
        colour = colours.get(-1 if clock.one_axis else int(n_rollouts), BLACK)
        ax.fill_between(line * n_rollouts, *interval_of(seconds, prob), color=colour, alpha=0.2,
                        lw=0, gid="clock-band")
        ax.plot(line * n_rollouts, np.median(seconds, axis=0), color=colour, lw=1.1, gid="clock")
