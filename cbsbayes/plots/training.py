"""What runs logged: accuracy, gradient noise and step times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from cbsbayes.decisions.step_times import step_times_of
from cbsbayes.errors import CBSDataError
from cbsbayes.plots import marks, reading, style
from cbsbayes.sweep.dataset import choose_metric

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["logged_noise", "plot_gradient_noise", "plot_step_time", "plot_training_curves"]

_BATCH = ("total_batch", "n_prompts", "n_rollouts")
_TEXT = {"noise_B_noise_estimate": "B_noise estimate (samples)",
         "noise_grad_norm": "Gradient norm", "noise_g_sq": "|G|², unbiased",
         "noise_tr_sigma": "tr Σ per sample", "noise_tr_between": "tr Σ between prompts",
         "noise_tr_within": "tr Σ within prompts", "noise_gbar_sq": "|ḡ|²",
         "noise_frac_zero_adv": "Share of groups without signal"}
_MODELLED = 3  # timed runs from which a step-time model is fitted


@style.styled
def plot_training_curves(fit_or_data: Fit | xr.Dataset, *, ax: Axes | None = None,
                         phase: str | None = None, metric: str | None = None) -> Axes:
    """Plot validation accuracy against updates, coloured by what tells most batches apart.

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
    metric : str, optional
        Validation set; by default the sweep's own choice.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If the sweep holds no curves (a table of crossings), or the phase has no evaluated runs.
    """
    sweep = _sweep_of(fit_or_data)
    runs = _evaluated(sweep, metric, phase)
    ax = style.new_axes(ax, (5.6, 3.0))
    _draw(ax, runs)
    if fit_or_data is not sweep:
        for threshold in fit_or_data.thresholds:
            ax.axhline(threshold, color=style.GREY, lw=0.6, zorder=1, gid="threshold")
    ax.set(ylabel=style.plain_text(f"Accuracy ({runs['metric'].item()})"),
           title=style.plain_text(f"Training curves{f', phase {phase}' if phase else ''}"))
    return ax


def _sweep_of(fit_or_data: Fit | xr.Dataset) -> xr.Dataset:
    return fit_or_data if isinstance(fit_or_data, xr.Dataset) else fit_or_data.sweep


def _evaluated(sweep: xr.Dataset, metric: str | None, phase: str | None) -> xr.Dataset:
    """Return the usable runs of a phase that were evaluated, with `accuracy(run, step)`."""
    if "accuracy" not in sweep:
        raise CBSDataError("no training curves: the sweep is a table of crossings; "
                           "ingest curves (run, step, accuracy) to draw them")
    metric = metric or str(sweep.attrs.get("metric", "")) or str(sweep["metric"].values[0])
    chosen, phases = sweep.sel(metric=choose_metric(sweep, metric)), sweep["phase"].values
    seen = np.isfinite(chosen["accuracy"].values).any(axis=1) & (chosen["usable"].values == 1)
    if phase:
        seen &= phases == phase
    if not seen.any():
        names = ", ".join(sorted(set(phases) - {""})) or "none named"
        raise CBSDataError(f"no evaluated runs of {f'phase {phase}' if phase else 'the sweep'}; "
                           f"phases in the sweep: {names}")
    return chosen.isel(run=np.flatnonzero(seen))


def _draw(ax: Axes, runs: xr.Dataset) -> None:
    """Draw the curves of `runs`, those of one batch in one colour."""
    table = reading.run_table(runs)
    by = max(_BATCH, key=lambda name: table[name].nunique())
    colours = style.colour_of(table[by])
    step = runs["step"].values.astype(float)
    for _, batch in table.groupby([by, *(name for name in _BATCH if name != by)]):
        first = batch.iloc[0]
        seeds = runs["accuracy"].values[batch.index.to_numpy()]
        line: dict[str, Any] = {"color": colours[first[by]],
                                "ls": (0, (1, 1.2)) if first["n_rollouts"] == 1 else "-"}
        for seed in seeds:
            seen = np.isfinite(seed)
            ax.plot(step[seen], seed[seen], lw=0.7, alpha=0.55, zorder=2, gid="seed", **line)
        mean = seeds.mean(axis=0)  # where a seed has stopped, a mean of the others would jump
        seen = np.isfinite(mean)
        ax.plot(step[seen], mean[seen], lw=1.8, zorder=3, label=reading.batch_of(first), gid="mean",
                **line)
    ax.set_xlabel("Updates")
    two_axes = (table["n_prompts"] > 0).all()
    style.legend_outside(ax, title="prompts ×\nrollouts" if two_axes else "batch")


def logged_noise(sweep: xr.Dataset) -> list[str]:
    """Return the logged gradient-noise variables that hold a value, the usual ones first.

    Raises
    ------
    CBSDataError
        If no gradient noise was logged.
    """
    names = sorted(str(name) for name in sweep.data_vars if str(name).startswith("noise_"))
    held = [name for name in dict.fromkeys([*_TEXT, *names])
            if name in sweep and np.isfinite(sweep[name].values).any()]
    if not held:
        raise CBSDataError("no gradient noise was logged: no run has grad_noise/ metrics; "
                           "log them during training to draw this")
    return held


@style.styled
def plot_gradient_noise(fit_or_data: Fit | xr.Dataset, *, ax: Axes | None = None,
                        variable: str | None = None) -> Axes:
    """Plot one logged gradient-noise variable over training, coloured by total batch.

    Values that are not positive cannot stand on the log axis (a noise-scale estimate with a
    negative denominator is "not resolved"); a note says how many there are.

    Parameters
    ----------
    fit_or_data : Fit or Dataset
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    variable : str, optional
        A variable ``noise_*`` of the sweep; by default the B_noise estimate or the first.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If no gradient noise was logged, or not this variable.
    """
    sweep = _sweep_of(fit_or_data)
    names = logged_noise(sweep)
    name = variable or names[0]
    if name not in names:
        raise CBSDataError(f"{name!r} was not logged; logged: {', '.join(names)}")
    values = sweep[name].values
    total = reading.run_table(sweep)["total_batch"].to_numpy()
    probed = np.isfinite(values).any(axis=1)
    colours = style.colour_of(total[probed])
    log = bool((values > 0).any())
    ax = style.new_axes(ax)
    for i in np.flatnonzero(probed):
        shown = values[i] > 0 if log else np.isfinite(values[i])
        ax.plot(sweep["train_step"].values[shown], values[i][shown], "o-", ms=2.6, lw=1.0,
                color=colours[total[i]], alpha=0.85, gid="run")
    if log:
        style.log_axis(ax, "y", 10)
        hidden = int((np.isfinite(values) & ~(values > 0)).sum())
        ax.text(0.99, 0.01, f"{hidden} values ≤ 0 not shown" if hidden else "", ha="right",
                va="bottom", transform=ax.transAxes, fontsize=7, color=style.GREY)
    ax.set(xlabel="Updates", ylabel=style.plain_text(_TEXT.get(name, name.removeprefix("noise_"))),
           title="Gradient noise over training")
    style.legend_below(ax, [style.entry(f"B = {style.plain_number(batch)}", colour, marker="o")
                            for batch, colour in colours.items()], 6)
    return ax


@style.styled
def plot_step_time(fit: Fit, *, ax: Axes | None = None) -> Axes:
    """Plot seconds per trainer step of every run against its batch.

    With three and more timed runs, lines and bands are the fitted step-time model: the population's
    median and interval.

    Parameters
    ----------
    fit : Fit
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
    runs = reading.run_table(fit.sweep, "step_time").dropna(subset="step_time")
    if runs.empty:
        raise CBSDataError("no step time is known in any run, so time cannot be drawn; log "
                           "perf/time_per_step (or a column seconds_per_step)")
    ax = style.new_axes(ax)
    colours = style.colour_of(runs["n_rollouts"])
    for n_rollouts, group in runs.groupby("n_rollouts"):
        ax.plot(group["total_batch"], group["step_time"], "o", ms=4.6, mec=style.PAPER, mew=0.4,
                color=colours[n_rollouts], label=f"{n_rollouts}", gid="step-time")
    if len(runs) >= _MODELLED:
        _draw_model(ax, fit, colours)
    style.log_axis(ax, "x")
    style.log_axis(ax, "y", 10)
    ax.set(xlabel="Batch size B (samples per update)", ylabel="Seconds per trainer step",
           title="Time per step")
    if (runs["n_rollouts"] > 0).all():
        style.legend_outside(ax, title="rollouts")
    return ax


def _draw_model(ax: Axes, fit: Fit, colours: dict[int, str]) -> None:
    """Draw the step-time model along the prompts timed, a line per number of rollouts."""
    model = step_times_of(fit)
    for n_rollouts in np.unique(model.batches[:, 1]):
        timed = model.batches[model.batches[:, 1] == n_rollouts, 0]
        if len(timed) < 2:
            continue
        line = np.geomspace(timed.min(), timed.max(), 40)
        seconds = model.seconds_per_update(np.stack([line, np.full(40, n_rollouts)], axis=1))
        marks.draw_band(ax, line * n_rollouts, seconds * model.updates_per_step,
                        colours.get(-1 if model.one_axis else int(n_rollouts), style.INK),
                        (fit.settings["ci_prob"],))
