"""Figures of a validation: coverage by quantity and data, and ranks against their envelope.

The band holds the whole curve of 95 % of samples that are uniform (Säilynoja et al. 2022 [1]_,
from ArviZ), so one look covers all ranks.

References
----------
.. [1] Säilynoja, Bürkner & Vehtari, "Graphical test for discrete uniformity", Statistics and
   Computing 32 (2022).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbsbayes.plots.style import (
    GREY,
    INK,
    kind_colours,
    legend_outside,
    new_grid,
    ordered_colours,
    short_text,
    styled,
)
from cbsbayes.validation.coverage import ALL

__all__ = ["plot_coverage", "plot_ranks"]

_ENVELOPE = 0.95
_SIMULATIONS = 1000  # of the envelope, in which ArviZ looks for its level
_LEAST_RANKS = 2
_ROW = 0.24  # inches a data set takes


@styled
def plot_coverage(table: pd.DataFrame, label: str, ci_prob: float = 0.9) -> Figure:
    """Plot coverage ± 2 Monte Carlo errors of every method, a panel per quantity.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `cbsbayes.validation.coverage.coverage_table`, with a column that says on what data.
    label : str
        That column.
    ci_prob : float
        The nominal probability, drawn as a line.
    """
    pooled = table[table["threshold"].astype(str) == ALL]
    data = list(dict.fromkeys(pooled[label]))
    methods = list(dict.fromkeys(pooled["method"]))
    quantities = list(dict.fromkeys(pooled["quantity"]))
    figure, axes = new_grid(len(quantities), 3, panel=(3.4, 0.9 + _ROW * len(data)), sharey=True)
    colours = kind_colours(methods)
    for ax, quantity in zip(axes, quantities, strict=True):
        for k, method in enumerate(methods):
            part = pooled[(pooled["quantity"] == quantity) & (pooled["method"] == method)]
            where = [data.index(d) + 0.16 * (k - (len(methods) - 1) / 2) for d in part[label]]
            ax.errorbar(part["coverage"], where, xerr=2 * part["coverage_se"].fillna(0.0), ls="",
                        marker="o", ms=3, lw=1, color=colours[method], label=method)
        ax.axvline(ci_prob, color=GREY, lw=0.8)
        ax.set(title=quantity, xlim=(-0.03, 1.03), ylim=(len(data) - 0.5, -0.5))
        ax.set_yticks(range(len(data)), [short_text(name) for name in data])
    for ax in axes[-3:]:
        ax.set_xlabel("coverage")
    legend_outside(axes[min(2, len(axes) - 1)])
    return figure


@styled
def plot_ranks(rows: pd.DataFrame) -> Figure:
    """Plot how far the ranks' distribution is from uniform, a panel per quantity.

    Parameters
    ----------
    rows : pandas.DataFrame
        Columns ``quantity, threshold, pit`` of all sweeps.
    """
    quantities = list(dict.fromkeys(rows["quantity"]))
    figure, axes = new_grid(len(quantities), 3, panel=(3.2, 2.2), sharex=True, sharey=True)
    for ax, quantity in zip(axes, quantities, strict=True):
        _ranks_of(ax, rows[rows["quantity"] == quantity])
        ax.set_title(quantity)
    for ax in axes[-3:]:
        ax.set_xlabel("rank of the truth")
    axes[0].set_ylabel("share of ranks below − uniform")
    legend_outside(axes[min(2, len(axes) - 1)], title="threshold")
    return figure


def _ranks_of(ax: Axes, part: pd.DataFrame) -> None:
    from arviz_stats.ecdf_utils import compute_ecdf

    by_threshold = {t: ranks["pit"].to_numpy(float)
                    for t, ranks in part.groupby("threshold", sort=False)}
    for (threshold, pit), colour in zip(by_threshold.items(), ordered_colours(len(by_threshold)),
                                        strict=True):
        at, lower, upper = _band(len(pit))
        if not ax.lines:
            ax.fill_between(at, lower - at, upper - at, color=GREY, alpha=0.2, lw=0)
        ax.plot(at, compute_ecdf(pit, at) - at, lw=1, color=colour if threshold != "" else INK,
                label=str(threshold))
    ax.axhline(0.0, color=GREY, lw=0.8)


@cache
def _band(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where it is known, and the simultaneous envelope of n uniform ranks."""
    from arviz_stats.ecdf_utils import ecdf_pit

    if n < _LEAST_RANKS:
        return (np.array([0.0, 1.0]),) * 3
    at, _, lower, upper = ecdf_pit((np.arange(n) + 0.5) / n, _ENVELOPE, _SIMULATIONS)
    return at, lower, upper
