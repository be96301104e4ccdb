"""Measured gradient noise beside the fitted noise scales, at every threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cbsbayes.errors import CBSDataError
from cbsbayes.noise.beside_fit import noise_comparison, shown_rows
from cbsbayes.plots.marks import draw_estimate
from cbsbayes.plots.reading import ci_prob
from cbsbayes.plots.scales import log2_axis
from cbsbayes.plots.style import BLACK, GREY, kind_colours, new_grid, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_noise_against_fit"]

_MEASURED = "measured"
_OCTAVES = 6.0  # an end that lies further below its interval's top is drawn there


@styled
def plot_noise_against_fit(fit: Fit) -> Figure:
    """Plot each noise scale as measured and as every law has it, averaged up to each threshold.

    An arrow is a bound: the denominator of the measurement is not told from zero, or the batches
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
    scales = list(table[["quantity", "at", "unit"]].drop_duplicates().itertuples(index=False))
    laws = list(dict.fromkeys(table["law"]))
    colours = {_MEASURED: BLACK, **kind_colours(laws)}
    figure, axes = new_grid(len(scales), 3, (3.4, 3.0))
    drawn: set[str] = set()
    for ax, (quantity, at, unit) in zip(axes, scales, strict=True):
        rows = table[(table["quantity"] == quantity) & (table["at"] == at)]
        drawn |= _panel(ax, rows, laws, colours, fit.law.name)
        ax.set_title(f"N at {at.partition('=')[2]} rollouts" if quantity == "N" else quantity)
        ax.set_ylabel(unit)
    figure.legend(handles=_handles(colours, drawn, fit), loc="outside lower center", ncols=3)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, laws: list[str], colours: dict[str, str], main: str,
           ) -> set[str]:
    thresholds = list(dict.fromkeys(rows["threshold"]))
    kinds = [_MEASURED, *laws]
    drawn = set()
    log2_axis(ax, "y", most=6)
    for i, threshold in enumerate(thresholds):
        here = rows[rows["threshold"] == threshold].set_index("law")
        for j, kind in enumerate(kinds):
            row = here.loc[main if kind == _MEASURED else kind]
            drawn.add(draw_estimate(
                ax, i + 0.18 * (j - (len(kinds) - 1) / 2), _estimate(row, kind == _MEASURED),
                colours[kind], hollow=kind not in (_MEASURED, main)))
    low, high = np.log2(ax.get_ylim())
    ax.set_ylim(2.0 ** (low - 0.5), 2.0 ** (high + 1.2))  # room for arrows
    ax.set_xticks(np.arange(len(thresholds)), labels=[f"{t:g}" for t in thresholds])
    ax.set_xlim(-0.6, len(thresholds) - 0.4)
    ax.grid(visible=False, axis="x")
    ax.set_xlabel("Up to target")
    return drawn


def _estimate(row: pd.Series, measured: bool) -> pd.Series:
    """Return one side of a row in the form of ``cbs.csv``."""
    side = "measured" if measured else "fitted"
    status = {"resolved": "identified", "not_resolved": "lower_bound"}.get(
        str(row[f"{side}_status"]), str(row[f"{side}_status"]))
    low, high = row[f"{side}_lower"], row[f"{side}_upper"]
    low = max(low, high / 2.0**_OCTAVES) if np.isfinite(high) else low
    return pd.Series({"median": row[side], "ci_lower": low, "ci_upper": high, "status": status})


def _handles(colours: dict[str, str], drawn: set[str], fit: Fit) -> list[Line2D]:
    prob = 100 * ci_prob(fit)
    handles = [Line2D([], [], color=colour, marker="o", lw=1.4, ms=5,
                      mfc=colour if kind in (_MEASURED, fit.law.name) else "white",
                      label=f"{kind}, {prob:.0f} %") for kind, colour in colours.items()]
    words = {"upper_bound": ("v", "upper bound only"), "lower_bound": ("^", "lower bound only")}
    return handles + [Line2D([], [], color=GREY, marker=marker, ls="none", ms=5, label=label)
                      for status, (marker, label) in words.items() if status in drawn]
