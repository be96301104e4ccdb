"""Is the sampling to be trusted, and what did the data teach: ArviZ's figures of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from matplotlib import pyplot
from matplotlib.figure import Figure

from cbsbayes.errors import CBSDataError
from cbsbayes.plots import reading, style

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["plot_convergence", "plot_energy", "plot_law_comparison", "plot_prior_posterior",
           "plot_ranks", "plot_run_effects", "plot_trace"]

_LOGGED = ("S_min", "B_prompt", "B_rollout", "B_noise", "sigma_run", "sigma_residual")
_LINEAR = ("alpha", "ceiling_loss")


@style.styled
def _arviz(name: str, draws: Any, size: tuple[float, float], **options: Any) -> Figure:
    """Return the figure that a function of `arviz_plots` draws."""
    import arviz_plots

    drawn = getattr(arviz_plots, name)(draws, backend="matplotlib",
                                       figure_kwargs={"figsize": size}, **options)
    figure = drawn.viz["figure"].item()
    figure.set_layout_engine("constrained")
    if style.is_detached():
        pyplot.close(figure)
    return figure


def _quantities(fit: Fit, group: str, threshold: float | None) -> xr.Dataset:
    """Return the law's quantities at one threshold, positive ones as logarithms."""
    if group not in fit.tree.children:
        raise CBSDataError(f"the fit holds no {group} draws; fit again to have them")
    level = reading.one_threshold(fit, threshold)
    draws = fit.tree[group].to_dataset().sel(threshold=level, method="nearest")
    logged = {f"log {name}": np.log(draws[name]) for name in _LOGGED if name in draws}
    kept = logged | {name: draws[name] for name in _LINEAR if name in draws}
    return xr.Dataset(kept).drop_vars("threshold")


def _panels(name: str, **groups: xr.Dataset) -> Figure:
    n_rows = -(-len(groups["posterior"].data_vars) // 2)
    return _arviz(name, xr.DataTree.from_dict(groups), (5.6, 1.9 * n_rows), col_wrap=2)


def plot_trace(fit: Fit, *, threshold: float | None = None) -> Figure:
    """Plot the draws of every chain in the order they were made, one panel a quantity.

    Parameters
    ----------
    fit : Fit
    threshold : float, optional
        By default the middle one.

    Raises
    ------
    CBSDataError
        If the threshold was not fitted.
    """
    return _panels("plot_trace", posterior=_quantities(fit, "posterior", threshold))


def plot_ranks(fit: Fit, *, threshold: float | None = None) -> Figure:
    """Plot how far each chain's ranks are from uniform; parameters as `plot_trace`."""
    return _panels("plot_rank", posterior=_quantities(fit, "posterior", threshold))


def plot_prior_posterior(fit: Fit, *, threshold: float | None = None) -> Figure:
    """Plot prior and posterior densities; one as wide as its prior was not taught by the data.

    Raises `CBSDataError` where the fit holds no prior draws.
    """
    prior, posterior = (_quantities(fit, group, threshold) for group in ("prior", "posterior"))
    both = [name for name in posterior if name in prior]
    return _panels("plot_prior_posterior", prior=prior[both], posterior=posterior[both])


def plot_run_effects(fit: Fit) -> Figure:
    """Plot the posterior of every run's effect on log S; above 0 it was slower than the law.

    Raises `CBSDataError` where the fit has no run effects.
    """
    if "run_effect" not in fit.posterior:
        raise CBSDataError("the fit has no run effects to draw")
    height = 1.0 + 0.14 * fit.posterior.sizes["run"]
    return _arviz("plot_forest", fit.tree, (5.6, height), var_names=["run_effect"], combined=True)


def plot_convergence(fit: Fit) -> Figure:
    """Plot the distribution of r_hat and of effective sample sizes over all sampled quantities."""
    return _arviz("plot_convergence_dist", fit.tree, (5.6, 3.0))


def plot_energy(fit: Fit) -> Figure:
    """Plot the sampler's energy, its changes between draws, and the E-BFMI of every chain.

    Raises `CBSDataError` where the sampler did not store its energy.
    """
    stats = fit.tree.children.get("sample_stats")
    if stats is None or "energy" not in stats:
        raise CBSDataError("the sampler stored no energy; use one that does (nutpie or PyMC's)")
    return _arviz("plot_energy", fit.tree, (5.6, 3.0))


def plot_law_comparison(fit: Fit) -> Figure:
    """Plot how much worse than the best each law predicts left-out runs.

    The value is the difference in expected log predictive density (elpd, leave one run out with the
    run effect integrated out) to the best law, with its standard error. Raises `CBSDataError` where
    fewer than two laws were compared.
    """
    table = fit.law_table
    if table is None or len(table) < 2:
        raise CBSDataError("fewer than two laws were compared; fit with the law comparison on")
    ranked = table.sort_values("elpd", ascending=False, kind="stable").set_index("law")
    ranked = ranked.assign(elpd_diff=ranked["elpd"] - ranked["elpd"].max())
    return _arviz("plot_compare", ranked, (5.6, 2.6))
