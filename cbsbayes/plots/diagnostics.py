"""Can the fit be trusted: replicated against observed crossings, what the data taught, other laws.

Traces, ranks and the like ArviZ draws of ``fit.tree``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbsbayes.errors import CBSDataError
from cbsbayes.plots import marks, reading, style

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["interval_coverage", "plot_crossing_check", "plot_law_comparison",
           "plot_prior_posterior", "plot_run_effects"]

_LOGGED = ("S_min", "B_prompt", "B_rollout", "B_noise", "sigma_run", "sigma_residual")
_LINEAR = ("alpha", "ceiling_loss")
_GAP = 0.9  # between batches, in rows
_ROW = 0.095  # inches a run takes


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
    level = reading.one_threshold(fit, threshold)
    draws = fit.tree[group].to_dataset().sel(threshold=level, method="nearest")
    logged = {f"log {name}": np.log(draws[name]) for name in _LOGGED if name in draws}
    kept = logged | {name: draws[name] for name in _LINEAR if name in draws}
    return xr.Dataset(kept).drop_vars("threshold")


def plot_prior_posterior(fit: Fit, *, threshold: float | None = None) -> Figure:
    """Plot prior and posterior densities; one as wide as its prior was not taught by the data.

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
    prior, posterior = (_quantities(fit, group, threshold) for group in ("prior", "posterior"))
    both = [name for name in posterior if name in prior]
    draws = xr.DataTree.from_dict({"prior": prior[both], "posterior": posterior[both]})
    return _arviz("plot_prior_posterior", draws, (5.6, 1.9 * -(-len(both) // 2)), col_wrap=2)


def plot_run_effects(fit: Fit) -> Figure:
    """Plot the posterior of every run's effect on log S; above 0 it was slower than the law.

    Raises `CBSDataError` where the fit has no run effects.
    """
    if "run_effect" not in fit.posterior:
        raise CBSDataError("the fit has no run effects to draw")
    height = 1.0 + 0.14 * fit.posterior.sizes["run"]
    return _arviz("plot_forest", fit.tree, (5.6, height), var_names=["run_effect"], combined=True)


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


def _rows(ax: Axes | None, runs: pd.DataFrame) -> tuple[Axes, np.ndarray]:
    """Return axes with a row per run, those of one batch together, and where each run stands."""
    batches = runs.groupby(["total_batch", "n_prompts", "n_rollouts"]).ngroup().to_numpy()
    order = np.argsort(batches, kind="stable")
    y = np.empty(len(runs))
    y[order] = -np.arange(len(runs)) - _GAP * batches[order]
    ax = style.new_axes(ax, (5.6, min(1.8 - _ROW * y.min(), 11.0)))
    placed = runs.assign(y=y).groupby(batches)
    ax.set_yticks(placed["y"].mean(), labels=[reading.batch_of(part.iloc[0])
                                              for _, part in placed])
    ax.set_ylim(y.min() - 1, 1)
    ax.grid(visible=False, axis="y")
    ax.set_ylabel("Prompts × rollouts" if (runs["n_prompts"] > 0).all() else "Batch size")
    return ax, y


def interval_coverage(replicates: np.ndarray, lower: np.ndarray, upper: np.ndarray,
                      prob: float) -> float:
    """Return the share of observations inside the central predictive interval.

    An observation known only to lie in (lower, upper] covers a stretch of the predictive
    distribution; what counts is the part of that stretch inside the central `prob`, so that
    a calibrated model scores `prob` on average whatever the censoring (the non-randomised
    probability integral transform of Czado, Gneiting & Held 2009, Biometrics 65:1254).

    Parameters
    ----------
    replicates : array, shape (sample, run)
        Replicated S.
    lower, upper : array, shape (run,)
        Bounds of the observed crossings; 0 and inf where censored.
    prob : float

    Returns
    -------
    float
    """
    start = (replicates <= lower).mean(axis=0)
    end = (replicates <= upper).mean(axis=0)
    tail = (1 - prob) / 2
    inside = np.clip(np.minimum(end, 1 - tail) - np.maximum(start, tail), 0.0, None)
    width = end - start
    point = ((start >= tail) & (start <= 1 - tail)).astype(float)
    return float(np.where(width > 0, inside / np.where(width > 0, width, 1.0), point).mean())


@style.styled
def plot_crossing_check(fit: Fit, *, ax: Axes | None = None,
                        threshold: float | None = None) -> Axes:
    """Plot replicated against observed crossings of one threshold, run by run.

    Bars are the 50 % interval and the fit's interval of replicated S, black marks the
    observed crossing between two evaluations, open triangles the censored ones. The title
    gives the share of observations inside each interval.

    Parameters
    ----------
    fit : Fit
    ax : Axes, optional
        Drawn into; by default a new figure's axes, as tall as there are runs.
    threshold : float, optional
        By default the middle one.

    Returns
    -------
    Axes

    Raises
    ------
    CBSDataError
        If the threshold was not fitted.
    """
    level = reading.one_threshold(fit, threshold)
    runs = reading.crossing_table(fit, level)
    steps = fit.predictive["steps"].sel(threshold=level, method="nearest")
    replicates = steps.sel(run=runs["run"].to_numpy()).transpose("sample", "run").values
    ax, y = _rows(ax, runs)
    lower, upper = (runs[name].to_numpy() for name in ("lower", "upper"))
    shares, entries = [], []
    for prob, lw, alpha in ((fit.settings["ci_prob"], 2.4, 0.35), (0.5, 4.2, 0.6)):
        _, low, high = marks.quantiles(replicates, prob)
        ax.hlines(y, low, high, colors=style.BLUE, lw=lw, alpha=alpha, zorder=2)
        share = interval_coverage(replicates, lower, upper, prob)
        shares.append(f"{100 * share:.0f} % in the {100 * prob:.0f} % interval")
        label = f"replicated, {100 * prob:.0f} %"
        entries.append(style.entry(label, style.BLUE, lw=lw, alpha=alpha))
    marks.draw_crossings(ax, y, runs, style.INK, across=True)
    style.log_axis(ax, "x", 10)
    ax.set(xlabel=f"S: {reading.steps_label(fit)} to {reading.threshold_label(fit, level)}",
           title=f"Observed: {', '.join(shares)}")
    style.legend_below(ax, [*entries, *marks.crossing_entries(runs["status"], across=True)])
    return ax
