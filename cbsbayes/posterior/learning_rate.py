r"""What the learning rate does, read off a fit whose law knows it: the table ``learning_rate.csv``.

At every batch tried, the best rate :math:`\eta^*(P, G)`, S there, and S at each rate tried with its
cost, the ratio of the two. Along the batch at a group size

======================  =====================================================================
``cbs_tuned``           S(P) = 2 S(∞), each batch at its best rate
``cbs_at_rate``         the same, all batches at one rate
``apparent_exponent``   by which S falls with 1 + N/P from the smallest batch tried to the
                        largest, at one rate: near α - kγ far below the best, α when tuned
``rate_slope``          by which η* rises with the batch between them: 0 constant, ½ square
                        root, 1 linear; ``p_rule`` is the probability of being nearest to each
``largest_stable_rate`` the highest rate tried at which every run reached the target
======================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.intervals import INTERVAL, LEFT
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit import Fit, fitted_threshold, stacked, thinned
from cbsbayes.posterior.quantities import Quantity, design_of, exp_of
from cbsbayes.posterior.surface import Surface, steps_ratio
from cbsbayes.posterior.tidy import CBS_COLUMNS, tidy

__all__ = ["RULES", "Line", "best_rates", "lines", "rate_quantities", "rate_table"]

RULES = {"constant": 0.0, "sqrt": 0.5, "linear": 1.0}
"""Exponents k of lr ∝ batch^k by the name of the rule."""
_BETWEEN = (0.25, 0.75)  # of the slopes, halfway from rule to rule


class Line(NamedTuple):
    """Batches along which the learning rate is read: prompts at a group size, or total batches.

    Attributes
    ----------
    along : {"prompts", "total"}
        What moves.
    held : int
        The n_rollouts; 1 along the total batch of one-axis data.
    batches : tuple of float
        Sorted, as tried.
    """

    along: str
    held: int
    batches: tuple[float, ...]

    @property
    def at(self) -> str:
        """What is held fixed, as in ``cbs.csv``."""
        return "" if self.along == "total" else f"n_rollouts={self.held}"

    def at_batch(self, batch: float) -> str:
        """Return a batch of the line, as in ``cbs.csv``."""
        if self.along == "total":
            return f"total_batch={batch:.12g}"
        return f"n_prompts={batch:g},{self.at}"


def lines(fit: Fit) -> list[Line]:
    """Return the lines of a fit with at least two batches.

    Raises
    ------
    CBSDataError
        If the law of the fit knows no learning rate.
    """
    if not fit.law.learning_rate:
        raise CBSDataError(f"law {fit.law.name!r} knows no learning rate; fit runs of several "
                           "rates together, or use --law learning_rate")
    design = design_of(fit.crossings)
    if design.one_axis:
        return [Line("total", 1, design.total)]
    return [Line("prompts", g, prompts) for g, prompts in design.prompts_at.items()]


def best_rates(fit: Fit, n_prompts: float, n_rollouts: float, threshold: float) -> np.ndarray:
    """Return draws of the best learning rate at a batch and a fitted threshold."""
    draws = stacked(thinned(fit.posterior)).sel(threshold=fitted_threshold(fit, threshold))
    return np.asarray(Surface(fit.law, draws).best_rate(n_prompts, n_rollouts).values)


def _runs(fit: Fit, line: Line) -> pd.DataFrame:
    """Return the runs along a line at every threshold: batch, rate, reached."""
    runs = fit.crossings["status"].to_dataframe().reset_index()
    runs = runs[(line.along == "total") | (runs["n_rollouts"] == line.held)]
    axis = "total_batch" if line.along == "total" else "n_prompts"
    return runs.assign(batch=runs[axis], reached=runs["status"].isin((LEFT, INTERVAL)))


def _tried_rates(fit: Fit, line: Line) -> dict[float, list[float]]:
    """Return the learning rates tried along a line, each with its batches."""
    return {float(str(rate)): np.unique(batch).tolist()
            for rate, batch in _runs(fit, line).groupby("learning_rate")["batch"]}


def rate_table(fit: Fit) -> pd.DataFrame:
    """Return the table of ``learning_rate.csv``; empty where the law knows no learning rate.

    Parameters
    ----------
    fit : Fit
        Of runs at several learning rates.

    Returns
    -------
    pandas.DataFrame
        Columns of ``cbs.csv``. ``p_rule`` is a probability and ``largest_stable_rate`` an
        observation: they have no interval.
    """
    if not fit.law.learning_rate:
        return pd.DataFrame(columns=CBS_COLUMNS)
    posterior, prior = (Surface(fit.law, thinned(draws)) for draws in (fit.posterior, fit.prior))
    parts = []
    for line in lines(fit):
        rates = _tried_rates(fit, line)
        after, before = (list(_quantities(surface, line, rates)) for surface in (posterior, prior))
        parts += [tidy(after, before, float(fit.settings["ci_prob"]), diagnostics=False),
                  pd.DataFrame([*_rules(posterior, line), *_stable(fit, line)])]
    parts.append(tidy(_shape(fit.posterior), _shape(fit.prior), float(fit.settings["ci_prob"])))
    return pd.concat(parts, ignore_index=True).assign(
        group=fit.group, law=fit.law.name)[CBS_COLUMNS]


def rate_quantities(fit: Fit) -> list[Quantity]:
    """Return the quantities of ``learning_rate.csv``; none where the law knows no learning rate."""
    if not fit.law.learning_rate:
        return []
    surface = Surface(fit.law, fit.posterior)
    along = [quantity for line in lines(fit)
             for quantity in _quantities(surface, line, _tried_rates(fit, line))]
    return [*along, *_shape(fit.posterior)]


def _shape(draws: xr.Dataset) -> list[Quantity]:
    return [Quantity("gamma", "", "1", draws["gamma"], log_scale=False),
            *(Quantity(name, "", "1", draws[name]) for name in ("steepness", "slope_below"))]


def _quantities(
    surface: Surface, line: Line, rates: dict[float, list[float]]
) -> Iterator[Quantity]:
    for batch in line.batches:
        at, best = line.at_batch(batch), surface.log_steps(batch, line.held)
        yield Quantity("best_rate", at, "1", surface.best_rate(batch, line.held))
        yield Quantity("steps_at_best", at, "updates", exp_of(best))
        for rate in (rate for rate, tried in rates.items() if batch in tried):
            here = surface.log_steps(batch, line.held, rate)
            yield Quantity("steps_at_rate", f"{at},learning_rate={rate:g}", "updates", exp_of(here))
            yield Quantity("rate_cost", f"{at},learning_rate={rate:g}", "1", exp_of(here - best))
    unit = "prompts" if line.along == "prompts" else "samples"
    yield Quantity("cbs_tuned", line.at, unit, _critical(surface, line))
    yield Quantity("rate_slope", line.at, "1", _rate_slope(surface, line), log_scale=False)
    for rate, tried in rates.items():
        if len(tried) < 2:
            continue
        at = ",".join(filter(None, [line.at, f"learning_rate={rate:g}"]))
        yield Quantity("cbs_at_rate", at, unit, _critical(surface, line, rate))
        log_steps, log_noise = ([value(tried[k]) for k in (0, -1)] for value in (
            lambda batch, rate=rate: surface.log_steps(batch, line.held, rate),
            lambda batch: surface.log_noise(batch, line.held)))
        yield Quantity("apparent_exponent", at, "1", (log_steps[0] - log_steps[1])
                       / (log_noise[0] - log_noise[1]), log_scale=False)


def _critical(surface: Surface, line: Line, rate: float | None = None) -> xr.DataArray:
    return surface.solve(steps_ratio(2.0), line.along, line.held, learning_rate=rate)


def _rate_slope(surface: Surface, line: Line) -> xr.DataArray:
    first, last = line.batches[0], line.batches[-1]
    rise = np.log(surface.best_rate(last, line.held)) - np.log(surface.best_rate(first, line.held))
    return rise / np.log(last / first)


def _rules(surface: Surface, line: Line) -> Iterator[dict[Hashable, Any]]:
    """Yield how probable each rule is at every target: that the slope is nearest to its own."""
    slope = _rate_slope(surface, line)
    for threshold in slope["threshold"].values.tolist():
        nearest = np.digitize(slope.sel(threshold=threshold).values.ravel(), _BETWEEN)
        for k, rule in enumerate(RULES):
            at = ",".join(filter(None, [line.at, f"rule={rule}"]))
            yield _plain("p_rule", at, threshold, float((nearest == k).mean()))


def _stable(fit: Fit, line: Line) -> Iterator[dict[Hashable, Any]]:
    """Yield the highest rate at which every run reached the target, NaN where there is none."""
    every = _runs(fit, line).groupby(["threshold", "batch", "learning_rate"])["reached"].all()
    highest = every[every].reset_index().groupby(["threshold", "batch"])["learning_rate"].max()
    for threshold in fit.crossings["threshold"].values.tolist():
        for batch in line.batches:
            yield _plain("largest_stable_rate", line.at_batch(batch), threshold,
                         highest.get((threshold, batch), np.nan))


def _plain(name: str, at: str, threshold: float, value: float) -> dict[Hashable, Any]:
    return {"threshold": threshold, "quantity": name, "at": at, "unit": "1", "median": value,
            "status": "identified" if np.isfinite(value) else "not_identified"}
