"""Laws compared by the runs they predict when left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.style import BLACK, GREY, OKABE_ITO, legend_outside, new_axes, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["K_HAT_LIMIT", "plot_law_comparison"]

K_HAT_LIMIT = 0.7


@styled
def plot_law_comparison(fit: Fit, *, ax: Axes | None = None) -> Axes:
    """Plot how much worse than the best each law predicts left-out runs.

    The value is the difference in expected log predictive density (elpd, leave one run out
    with the run effect integrated out) to the best law, with its standard error; a law
    several standard errors to the left is worse. An open point has a Pareto k̂ above 0.7:
    its elpd is not to be relied on.

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
        If fewer than two laws were compared, or the table lacks a column.
    """
    table = fit.law_table
    if table is None or len(table) < 2:
        raise CBSDataError("fewer than two laws were compared; fit with the law comparison on")
    missing = [name for name in ("law", "elpd", "dse", "k_hat_max") if name not in table]
    if missing:
        raise CBSDataError(f"the law comparison lacks {', '.join(missing)}; it has "
                           f"{', '.join(map(str, table.columns))}")
    table = table.sort_values("elpd", ascending=False, kind="stable")
    difference = (table["elpd"] - table["elpd"].max()).to_numpy(dtype=float)
    error = np.nan_to_num(table["dse"].to_numpy(dtype=float))
    k_hat = table["k_hat_max"].to_numpy(dtype=float)
    y = np.arange(len(table))[::-1]
    ax = new_axes(ax, (6.4, 0.9 + 0.34 * len(table)))
    ax.axvline(0.0, color=GREY, lw=0.9, ls=(0, (4, 2)))
    ax.hlines(y, difference - error, difference + error, colors=OKABE_ITO[0], lw=1.6)
    for good, fill in ((k_hat <= K_HAT_LIMIT, OKABE_ITO[0]), (~(k_hat <= K_HAT_LIMIT), "white")):
        ax.plot(difference[good], y[good], "o", ms=6, color=OKABE_ITO[0], mfc=fill,
                gid="law" if fill != "white" else "law-unreliable")
    ax.set_yticks(y, labels=list(table["law"].astype(str)))
    for label, name in zip(ax.get_yticklabels(), table["law"], strict=True):
        label.set_fontweight("bold" if name == fit.law.name else "normal")
        label.set_color(BLACK)
    ax.set_ylim(-0.7, len(table) - 0.3)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("elpd of left-out runs, difference to the best (± 1 standard error)")
    ax.set_title("Which law predicts a run it has not seen")
    if (~(k_hat <= K_HAT_LIMIT)).any():
        handle = Line2D([], [], color=OKABE_ITO[0], marker="o", mfc="white", ls="none",
                        label=f"Pareto k̂ > {K_HAT_LIMIT}")
        legend_outside(ax, handles=[handle], labels=[handle.get_label()])
    return ax
