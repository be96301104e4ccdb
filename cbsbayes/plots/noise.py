"""Gradient noise: as logged during training, and beside the fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbsbayes.errors import CBSDataError
from cbsbayes.noise.beside_fit import noise_comparison, shown_rows
from cbsbayes.plots import marks, reading, scales, style
from cbsbayes.plots.estimates import law_entries, place, target_axis

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["logged_noise", "plot_gradient_noise", "plot_noise_against_fit"]

_TEXT = {"noise_B_noise_estimate": "B_noise estimate (samples)",
         "noise_grad_norm": "Gradient norm", "noise_g_sq": "|G|², unbiased",
         "noise_tr_sigma": "tr Σ per sample", "noise_tr_between": "tr Σ between prompts",
         "noise_tr_within": "tr Σ within prompts", "noise_gbar_sq": "|ḡ|²",
         "noise_frac_zero_adv": "Share of groups without signal"}
_MEASURED = "measured"
_OCTAVES = 6.0  # an end that lies further below its interval's top is drawn there


def logged_noise(sweep: xr.Dataset) -> list[str]:
    """Return the logged gradient-noise variables that hold a value, the usual ones first.

    Raises
    ------
    CBSDataError
        If no gradient noise was logged.
    """
    names = [str(name) for name in sweep.data_vars if str(name).startswith("noise_")]
    rank = {name: k for k, name in enumerate(_TEXT)}
    held = sorted((name for name in names if np.isfinite(sweep[name].values).any()),
                  key=lambda name: (rank.get(name, len(rank)), name))
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
    sweep = reading.sweep_of(fit_or_data)
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
        scales.log_axis(ax, "y", 10)
        hidden = int((np.isfinite(values) & ~(values > 0)).sum())
        ax.text(0.99, 0.01, f"{hidden} values ≤ 0 not shown" if hidden else "", ha="right",
                va="bottom", transform=ax.transAxes, fontsize=7, color=style.GREY)
    ax.set_xlabel("Updates")
    ax.set_ylabel(style.plain_text(_TEXT.get(name, name.removeprefix("noise_"))))
    ax.set_title("Gradient noise over training")
    style.legend_below(ax, [style.entry(f"B = {scales.plain_number(batch)}", colour, marker="o")
                            for batch, colour in colours.items()], 6)
    return ax


@style.styled
def plot_noise_against_fit(fit: Fit) -> Figure:
    """Plot each noise scale as measured and as every law has it, averaged up to each threshold.

    A triangle is a bound: the denominator of the measurement is not told from zero, or the batches
    tried do not settle the fitted scale.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    Figure
        One panel per noise scale.

    Raises
    ------
    CBSDataError
        If no gradient noise was logged, or too little of it.
    """
    table = shown_rows(noise_comparison(fit), fit)
    table = table[table["average"] == "up_to"]
    if (table["measured_status"] == "too_few").all():
        raise CBSDataError("the runs fitted made too few probes of gradient noise to average; "
                           "probe more often during training")
    fitted = _side(table, "fitted").assign(kind=table["law"])
    measured = _side(table[table["law"] == fit.law.name], "measured").assign(kind=_MEASURED)
    rows = pd.concat([measured, fitted])
    colours = {_MEASURED: style.INK, **style.kind_colours(list(dict.fromkeys(table["law"])))}
    kinds = list(colours)
    panels = rows.groupby(["quantity", "at"], sort=False)
    figure, axes = style.new_grid(len(panels), 1, (5.6, 2.1))
    drawn = []
    for ax, (_, part) in zip(axes, panels, strict=True):
        thresholds = sorted(part["threshold"].unique())
        for _, row in part.iterrows():
            x = thresholds.index(row["threshold"]) + place(kinds.index(row["kind"]), len(kinds))
            drawn.append(marks.draw_estimate(ax, x, row, colours[row["kind"]],
                                             hollow=row["kind"] not in (_MEASURED, fit.law.name)))
        target_axis(ax, thresholds, f"Up to {reading.target_text(fit)}")
        first = part.iloc[0]
        held = "".join(f" at {value:.0f} rollouts"
                       for value in reading.fixed_values(first["at"]).values())
        ax.set_title(f"{first['quantity']}{held}")
        ax.set_ylabel(str(first["unit"]))
    entries = law_entries(fit, colours, (_MEASURED, fit.law.name))
    style.legend_below(axes[0], [*entries, *marks.bound_entries(drawn)])
    return figure


def _side(table: pd.DataFrame, side: str) -> pd.DataFrame:
    """Return one side of rows in the form of ``cbs.csv``."""
    high = table[f"{side}_upper"]
    least = (high / 2.0**_OCTAVES).where(np.isfinite(high), 0.0)
    status = table[f"{side}_status"].replace({"resolved": "identified",
                                              "not_resolved": "lower_bound"})
    return table[["quantity", "at", "unit", "threshold"]].assign(
        median=table[side], ci_lower=np.fmax(table[f"{side}_lower"], least), ci_upper=high,
        status=status)
