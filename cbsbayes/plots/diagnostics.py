"""Did sampling work: traces, ranks, energy, r_hat against effective sample size.

Ranks follow Vehtari et al. 2021 [1]_: the draws of all chains are ranked together, and chains
that explore the same posterior have the same, flat, histogram of ranks.

References
----------
.. [1] Vehtari, Gelman, Simpson, Carpenter & Bürkner, "Rank-normalization, folding, and
   localization: an improved R-hat", Bayesian Analysis 16 (2021), arXiv:1903.08008.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from scipy.special import bdtr
from scipy.stats import rankdata

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.reading import one_threshold
from cbsbayes.plots.scales import log2_axis
from cbsbayes.plots.style import (
    BLACK,
    GREY,
    OKABE_ITO,
    kind_colours,
    legend_outside,
    new_axes,
    new_grid,
    styled,
)

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["ESS_LIMIT", "R_HAT_LIMIT", "plot_convergence", "plot_energy", "plot_ranks",
           "plot_trace"]

R_HAT_LIMIT = 1.01
ESS_LIMIT = 400
_KEY = ("S_min", "B_prompt", "B_rollout", "B_noise", "alpha", "sigma_run", "sigma_residual")


def _key_draws(fit: Fit, threshold: float | None) -> dict[str, np.ndarray]:
    """Return draws, shape (chain, draw), of the quantities of the law at one threshold."""
    level = one_threshold(fit, threshold)
    draws = {}
    for name in _KEY:
        if name in fit.posterior:
            values = fit.posterior[name]
            if "threshold" in values.dims:
                values = values.sel(threshold=level, method="nearest")
                name = f"{name} at {level:g}"
            draws[name] = values.transpose("chain", "draw").values
    return draws


def _chain_colours(n_chains: int) -> list[str]:
    return list(kind_colours([str(i) for i in range(n_chains)]).values())


@styled
def plot_trace(fit: Fit, *, threshold: float | None = None) -> Figure:
    """Plot the draws of every chain in the order they were made, one panel a quantity.

    Parameters
    ----------
    fit : Fit
    threshold : float, optional
        By default the one with most observed crossings.

    Returns
    -------
    Figure

    Raises
    ------
    CBSDataError
        If the threshold was not fitted.
    """
    draws = _key_draws(fit, threshold)
    figure, axes = new_grid(len(draws), 2, (4.2, 1.6))
    for ax, (name, values) in zip(axes, draws.items(), strict=True):
        for chain, colour in zip(values, _chain_colours(len(values)), strict=True):
            ax.plot(chain, color=colour, lw=0.45, alpha=0.75, gid="chain")
        if (values > 0).all() and values.max() > 8 * values.min():
            log2_axis(ax, "y", most=4)
        else:
            ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(name)
    for ax in axes[-2:]:
        ax.set_xlabel("Draw")
    return figure


@styled
def plot_ranks(fit: Fit, *, threshold: float | None = None, n_bins: int = 20) -> Figure:
    """Plot histograms of the ranks of every chain's draws; flat is good.

    The grey band holds 95 % of the counts of a chain of independent draws.

    Parameters
    ----------
    fit : Fit
    threshold : float, optional
        By default the one with most observed crossings.
    n_bins : int

    Returns
    -------
    Figure

    Raises
    ------
    CBSDataError
        If the threshold was not fitted.
    """
    draws = _key_draws(fit, threshold)
    figure, axes = new_grid(len(draws), 3, (2.9, 1.7))
    for ax, (name, values) in zip(axes, draws.items(), strict=True):
        ranks = rankdata(values).reshape(values.shape) / values.size
        edges = np.linspace(0, 1, n_bins + 1)
        ax.axhspan(*_binomial_band(values.shape[1], 1 / n_bins), color="#dddddd", zorder=1)
        for chain, colour in zip(ranks, _chain_colours(len(ranks)), strict=True):
            counts = np.histogram(chain, edges)[0]
            ax.stairs(counts, edges, baseline=None, color=colour, lw=1.1, zorder=2, gid="ranks")
        ax.set_ylim(0, None)
        ax.yaxis.set_major_locator(NullLocator())
        ax.set_xticks([0, 0.5, 1])
        ax.set_title(name)
    for ax in axes[-3:]:
        ax.set_xlabel("Rank among all draws")
    return figure


def _binomial_band(n: int, share: float) -> tuple[int, int]:
    """Return the 2.5 % and 97.5 % quantiles of how many of `n` fall where `share` is expected."""
    low, high = np.searchsorted(bdtr(np.arange(n + 1), n, share), [0.025, 0.975])
    return int(low), int(high)


@styled
def plot_convergence(fit: Fit, *, ax: Axes | None = None) -> Axes:
    """Plot r_hat against effective sample size of every quantity in the table.

    Points above the upper line (r_hat 1.01) or left of the upright one (400 effective draws)
    need more draws.

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
        If the table holds no diagnostics.
    """
    rows = fit.cbs
    rows = rows[np.isfinite(rows["r_hat"]) & np.isfinite(rows["ess_bulk"])]
    if rows.empty:
        raise CBSDataError("the table holds no r_hat and no effective sample size to draw")
    ax = new_axes(ax, (6.4, 3.4))
    ax.axhline(R_HAT_LIMIT, color=GREY, lw=0.9, ls=(0, (4, 2)), gid="limit")
    ax.axvline(ESS_LIMIT, color=GREY, lw=0.9, ls=(0, (4, 2)), gid="limit")
    bad = (rows["r_hat"] > R_HAT_LIMIT) | (rows["ess_bulk"] < ESS_LIMIT)
    for part, colour, gid in ((rows[~bad], OKABE_ITO[0], "good"), (rows[bad], OKABE_ITO[1], "bad")):
        ax.plot(part["ess_bulk"], part["r_hat"], "o", ms=4.5, color=colour, alpha=0.7, gid=gid)
    _name_worst(ax, rows[bad])
    ax.set_xlim(left=0)
    ax.set_ylim(min(0.999, float(rows["r_hat"].min()) - 0.001),
                max(1.012, float(rows["r_hat"].max()) + 0.002))
    ax.set_xlabel("ess_bulk (effective draws)")
    ax.set_ylabel("r_hat")
    ax.set_title(f"{int(bad.sum())} of {len(rows)} quantities past a limit")
    return ax


def _name_worst(ax: Axes, rows: pd.DataFrame) -> None:
    worst = rows.sort_values("r_hat", ascending=False).head(3)
    for _, row in worst.iterrows():
        ax.annotate(f"{row['quantity']} at {row['threshold']:g}", (row["ess_bulk"], row["r_hat"]),
                    xytext=(5, 3), textcoords="offset points", fontsize=7, color=BLACK)


@styled
def plot_energy(fit: Fit, *, ax: Axes | None = None) -> Axes:
    """Plot the sampler's marginal energy beside the energy changes between draws.

    Changes much narrower than the marginal energy mean that the sampler cannot reach the
    tails (a low energy fraction of missing information, E-BFMI below .3).

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
        If the sampler did not store its energy.
    """
    known = "sample_stats" in fit.tree.children
    stats = fit.tree["sample_stats"].to_dataset() if known else xr.Dataset()
    if "energy" not in stats:
        raise CBSDataError("the sampler stored no energy; use one that does (nutpie or PyMC's)")
    energy = stats["energy"].transpose("chain", "draw").values
    change = np.diff(energy, axis=1)
    fraction = (change**2).mean(axis=1) / energy.var(axis=1)
    ax = new_axes(ax, (5.6, 3.2))
    for values, colour, label in ((energy - energy.mean(axis=1, keepdims=True), GREY,
                                   "energy, less its mean"),
                                  (change, OKABE_ITO[0], "change between draws")):
        ax.hist(values.ravel(), bins=60, density=True, color=colour, alpha=0.45, label=label)
    ax.yaxis.set_major_locator(NullLocator())
    ax.set_xlabel("Energy")
    ax.set_title(f"Energy: lowest E-BFMI of a chain {fraction.min():.2f}")
    legend_outside(ax)
    return ax
