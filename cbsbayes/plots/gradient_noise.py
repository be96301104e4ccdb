"""Gradient noise over training, where runs logged it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.reading import batch_label, run_table, sweep_of
from cbsbayes.plots.scales import log2_axis
from cbsbayes.plots.style import (
    GREY,
    colour_of,
    legend_outside,
    new_axes,
    new_grid,
    plain_text,
    styled,
)

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["noise_variables", "plot_gradient_noise", "plot_gradient_noise_grid"]

_WORDS = {"noise_B_noise_estimate": "B_noise estimate (samples)",
          "noise_grad_norm": "Gradient norm", "noise_g_sq": "|G|², unbiased",
          "noise_tr_sigma": "tr Σ per sample", "noise_tr_between": "tr Σ between prompts",
          "noise_tr_within": "tr Σ within prompts", "noise_gbar_sq": "|ḡ|²",
          "noise_frac_zero_adv": "Share of groups without signal"}
_FIRST = tuple(_WORDS)


def noise_variables(sweep: xr.Dataset) -> list[str]:
    """Return the logged gradient-noise variables that hold a value, the usual ones first."""
    names = [str(name) for name in sweep.data_vars if str(name).startswith("noise_")]
    held = [name for name in names if np.isfinite(sweep[name].values).any()]
    rank = {name: place for place, name in enumerate(_FIRST)}
    return sorted(held, key=lambda name: (rank.get(name, len(rank)), name))


def _require(sweep: xr.Dataset, variable: str | None) -> list[str]:
    names = noise_variables(sweep)
    if not names:
        raise CBSDataError("no gradient noise was logged: no run has grad_noise/ metrics; "
                           "log them during training to draw this")
    if variable is not None and variable not in names:
        raise CBSDataError(f"{variable!r} was not logged; logged: {', '.join(names)}")
    return names


@styled
def plot_gradient_noise(fit_or_data: Fit | xr.Dataset, *, ax: Axes | None = None,
                        variable: str | None = None, legend: bool = True) -> Axes:
    """Plot one logged gradient-noise variable over training, coloured by total batch.

    Values that are not positive cannot stand on the log axis (a noise-scale estimate with a
    negative denominator is "not resolved"); the title says how many there are.

    Parameters
    ----------
    fit_or_data : Fit or Dataset
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    variable : str, optional
        A variable ``noise_*`` of the sweep; by default the B_noise estimate or the first.
    legend : bool
        Whether to add the legend of batches.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If no gradient noise was logged, or not this variable.
    """
    sweep = sweep_of(fit_or_data)
    name = variable or _require(sweep, variable)[0]
    _require(sweep, name)
    table, values = run_table(sweep), sweep[name].values
    logged = table[np.isfinite(values).any(axis=1)]
    positive = values > 0
    log = bool(positive.any())
    colours = colour_of(logged["total_batch"])
    ax = new_axes(ax, (6.4, 3.8))
    labelled: set[str] = set()
    for i in np.argsort(table["total_batch"].to_numpy(), kind="stable"):
        run = table.iloc[i]
        if not np.isfinite(values[i]).any():
            continue
        shown = positive[i] if log else np.isfinite(values[i])
        label = _cell_label(run)
        ax.plot(sweep["train_step"].values[shown], values[i][shown], "o-", ms=2.6, lw=1.0,
                color=colours[run["total_batch"]], alpha=0.85, gid="run",
                label=f"_{label}" if label in labelled else label)
        labelled.add(label)
    _finish(ax, name, n_hidden=int((np.isfinite(values) & ~positive).sum()) if log else 0, log=log)
    if legend:
        legend_outside(ax)
    return ax


def _cell_label(run: pd.Series) -> str:
    return batch_label(run["n_prompts"], run["n_rollouts"], run["total_batch"])


def _finish(ax: Axes, name: str, *, n_hidden: int, log: bool) -> None:
    if log:
        log2_axis(ax, "y")
    ax.set_xlabel("Updates")
    ax.set_ylabel(plain_text(_WORDS.get(name, name.removeprefix("noise_"))))
    ax.set_title("Gradient noise over training")
    if n_hidden:
        ax.text(0.99, 0.01, f"{n_hidden} values ≤ 0 not shown", transform=ax.transAxes,
                ha="right", va="bottom", fontsize=7, color=GREY, gid="hidden")


@styled
def plot_gradient_noise_grid(fit_or_data: Fit | xr.Dataset, *, most: int = 6) -> Figure:
    """Plot every logged gradient-noise variable over training, `most` at most.

    Parameters
    ----------
    fit_or_data : Fit or Dataset
    most : int
        Panels at most; noise scales and their sums come first.

    Returns
    -------
    Figure

    Raises
    ------
    CBSDataError
        If no gradient noise was logged.
    """
    names = _require(sweep_of(fit_or_data), None)[:most]
    figure, axes = new_grid(len(names), 2, (4.2, 3.0))
    for ax, name in zip(axes, names, strict=True):
        plot_gradient_noise(fit_or_data, ax=ax, variable=name, legend=False)
        ax.set_title("")
    handles, labels = axes[0].get_legend_handles_labels()
    two_axes = any("×" in label for label in labels)
    figure.legend(handles, labels, loc="outside right upper", fontsize=8,
                  title="prompts × rollouts" if two_axes else "batch size")
    return figure
