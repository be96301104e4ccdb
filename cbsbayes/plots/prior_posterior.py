"""Prior against posterior: what the data taught about each quantity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.reading import one_threshold, steps_label, threshold_label
from cbsbayes.plots.scales import log2_axis
from cbsbayes.plots.style import GREY, OKABE_ITO, new_grid, styled

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_prior_posterior"]

_LABELS = {"B_prompt": "B_prompt (prompts)", "B_rollout": "B_rollout (prompts × rollouts)",
           "B_noise": "B_noise (samples)", "alpha": "alpha (exponent)",
           "ceiling_loss": "λ (loss of ceiling)",
           "sigma_run": "sigma_run (log S)", "sigma_residual": "sigma_residual (log S)"}
_LINEAR = {"alpha", "ceiling_loss"}
_BINS = 1000


def _draws(group: xr.Dataset, name: str, threshold: float) -> np.ndarray:
    values = group[name]
    if "threshold" in values.dims:
        values = values.sel(threshold=threshold, method="nearest")
    flat = values.values.ravel()
    return flat[np.isfinite(flat) & ((flat > 0) | (name in _LINEAR))]


def _density(draws: np.ndarray, *, log: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return (x, density scaled to a maximum of one); on log draws where `log`."""
    values = np.log(draws) if log else draws
    low, high = np.quantile(values, [0.005, 0.995])
    if not high > low:
        return np.repeat(draws[:1], 3), np.array([0.0, 1.0, 0.0])
    margin = 0.12 * (high - low)
    x = np.linspace(low - margin, high + margin, 240)
    counts, edges = np.histogram(values, _BINS)  # a kernel per bin: a fifth of one per draw's time
    middles = (edges[1:] + edges[:-1]) / 2
    width = values.size**-0.2 * np.sqrt(np.cov(middles, aweights=counts))  # Scott's rule
    density = np.exp(-0.5 * ((x[:, None] - middles) / width) ** 2) @ counts
    return (np.exp(x) if log else x), density / density.max()


def _panel(ax: Axes, prior: np.ndarray, posterior: np.ndarray, name: str) -> None:
    log = name not in _LINEAR
    for draws, colour, label in ((prior, GREY, "prior"), (posterior, OKABE_ITO[0], "posterior")):
        x, density = _density(draws, log=log)
        ax.fill_between(x, 0, density, color=colour, alpha=0.25, lw=0)
        ax.plot(x, density, color=colour, lw=1.4, label=label, gid=label)
    if log:
        log2_axis(ax, "x", most=4)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_locator(NullLocator())
    ax.spines["left"].set_visible(False)
    ax.set_ylim(0, 1.08)


@styled
def plot_prior_posterior(fit: Fit, *, threshold: float | None = None) -> Figure:
    """Plot prior and posterior densities of the quantities of the law at one threshold.

    Densities are of the logarithm (of alpha itself) and scaled to the same height. A
    posterior as wide as its prior was not taught by the data.

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
        If the fit holds no prior draws, or the threshold was not fitted.
    """
    if "prior" not in fit.tree.children:
        raise CBSDataError("no prior draws in the fit; fit again with the prior sampled")
    level = one_threshold(fit, threshold)
    prior = fit.tree["prior"].to_dataset()
    wanted = ["S_min", *fit.law.scales, "alpha", "ceiling_loss", "sigma_run", "sigma_residual"]
    names = [name for name in wanted if name in prior and name in fit.posterior]
    figure, axes = new_grid(len(names), 3, (3.1, 2.0))
    for ax, name in zip(axes, names, strict=True):
        _panel(ax, _draws(prior, name, level), _draws(fit.posterior, name, level), name)
        ax.set_title(_LABELS.get(name, f"{name} ({steps_label(fit)})"))
    axes[0].legend(loc="upper left", handlelength=1.2)
    figure.suptitle(f"Prior and posterior at {threshold_label(fit.sweep, level)}",
                    fontsize=10, x=0.01, ha="left")
    return figure
