"""Which split of one batch: the probability that each is the best, and what each loses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbsbayes.decisions.allocation import CLOSE, split_status, split_table
from cbsbayes.decisions.decision import fitted_threshold, middle_threshold
from cbsbayes.decisions.splits import default_batch
from cbsbayes.errors import CBSDataError
from cbsbayes.plots.reading import threshold_label
from cbsbayes.plots.scales import log2_axis, plain_number
from cbsbayes.plots.style import BLACK, GREY, OKABE_ITO, legend_outside, new_grid, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_split_choice"]

_BLUE, _ORANGE = OKABE_ITO[0], OKABE_ITO[1]


@styled
def plot_split_choice(fit: Fit, *, threshold: float | None = None,
                      total_batch: int | None = None) -> Figure:
    """Plot P(best) of every split of a batch, and S of each over that of the best.

    Hatched bars and open points are splits outside the range tried.

    Parameters
    ----------
    fit : Fit
    threshold : float, optional
        By default the middle one.
    total_batch : int, optional
        Samples of one update; by default the batch split in most ways, else that of most runs.

    Returns
    -------
    Figure

    Raises
    ------
    CBSDataError
        If the law or the batch knows no splits, or the runs do not settle which is best.
    """
    level = middle_threshold(fit) if threshold is None else fitted_threshold(fit, threshold)
    total = default_batch(fit.crossings).total if total_batch is None else total_batch
    table = split_table(fit, total, [level])
    if split_status(fit, level) == "not_identified":
        raise CBSDataError("these runs do not settle B_rollout/B_prompt, so that no split can be "
                           "said to be the best; runs that vary the other axis settle it")
    figure, (above, below) = new_grid(2, 1, (6.8, 2.5), sharex=True)
    _chances(above, table)
    _losses(below, table)
    names = [f"{row.n_prompts:,d}\n× {row.n_rollouts:,d}" for row in table.itertuples()]
    below.set_xticks(np.arange(len(table)), labels=names)
    below.set_xlabel("Prompts × rollouts")
    above.set_title(f"Splits of {plain_number(total)} samples to "
                    f"{threshold_label(fit.sweep, level)} · law {fit.law.name}")
    return figure


def _chances(ax: Axes, table: pd.DataFrame) -> None:
    x, outside = np.arange(len(table)), (table["range"] == "extrapolated").to_numpy()
    for name, shift, colour, label in (
            ("p_best", -0.19, _BLUE, "is the best"),
            ("p_close", 0.19, _ORANGE, f"loses at most {100 * CLOSE:.0f} %")):
        for mask, hatch in ((~outside, ""), (outside, "////")):
            ax.bar(x[mask] + shift, table[name].to_numpy()[mask], 0.36, color=colour, alpha=0.75,
                   hatch=hatch, edgecolor="white", lw=0.4, gid=name,
                   label=label if mask is not outside else None)
    ax.set_ylim(0, 1.03)
    ax.set_ylabel("Probability")
    legend_outside(ax, title="the split")


def _losses(ax: Axes, table: pd.DataFrame) -> None:
    outside = (table["range"] == "extrapolated").to_numpy()
    x = np.arange(len(table))
    low, mean, high = (1.0 + table[name].to_numpy() for name in (
        "regret_lower", "regret", "regret_upper"))
    ax.vlines(x, low, high, colors=[GREY if out else BLACK for out in outside], lw=1.6, zorder=3)
    style: dict[str, Any] = {"ms": 5.5, "ls": "none", "zorder": 4, "marker": "o"}
    ax.plot(x[~outside], mean[~outside], color=BLACK, label="inside the range tried",
            gid="regret", **style)
    ax.plot(x[outside], mean[outside], color=GREY, mfc="white", label="extrapolated",
            gid="regret-outside", **style)
    chosen = table["chosen"].to_numpy()
    ax.plot(x[chosen], mean[chosen], "o", ms=11, mfc="none", mec=_BLUE, mew=1.6, ls="none",
            label="least expected regret", gid="chosen", zorder=5)
    log2_axis(ax, "y")
    ax.set_ylabel("S over the best split's")
    legend_outside(ax)
