"""Which accuracy a budget reaches, and at which batch it reaches most.

A budget of samples, hours, GPU-hours or money is so many updates of a batch, and they have reached
the target whose S they are. Between fitted targets it is interpolated along log S; a batch that is
past the hardest of them, or short of the easiest, has no accuracy but a bound. The best batch has
the highest accuracy, among those past the hardest target the one that passed it earliest by its own
measure: most of its updates to spare.

A run has one learning rate. Where the law knows it, every batch has the rate, of a grid over those
tried, at which it reaches most in the median; all draws are read there, so that not knowing the
best rate widens the interval.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.batches import (
    POPULATION,
    batches_run,
    interval_columns,
    range_of,
    share_least,
    table_of_fit,
)
from cbsbayes.decisions.time_to_target import SAMPLES, Budget, times_of
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.quantities import design_of
from cbsbayes.posterior.tidy import quantiles
from cbsbayes.sweep.groups import varied_rates

__all__ = ["BUDGETS", "batches_between", "budget_table", "reached"]

BUDGETS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the budget asked for that a table holds: how the best batch moves with it."""
_RATES = 15  # of the grid of learning rates


def budget_table(fit: Fit, budget: Budget) -> pd.DataFrame:
    """Return the table of ``budget.csv``.

    Parameters
    ----------
    fit : Fit
        The fit; its runs logged step times where the budget is one of time or cost.
    budget : Budget
        At least one.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS` of ``budget``, a row per unit, multiple of the budget (`BUDGETS`) and batch: those
        run, and those between them on both axes. ``learning_rate`` is the one to run the batch at,
        NaN where the law knows none. ``accuracy`` is of the population, median and interval within
        the fitted targets; where an end lies beyond the hardest of them ``accuracy_status`` is
        ``lower_bound``, before the easiest ``upper_bound``. ``p_best`` is the probability that no
        other batch of the table reaches more.

    Raises
    ------
    CBSDataError
        If a budget is one of time or cost and step times are not known.
    """
    tried, prob = batches_run(fit.crossings), float(fit.settings["ci_prob"])
    batches = tried if design_of(fit.crossings).one_axis else batches_between(tried)
    sign = -1.0 if fit.sweep.attrs["direction"] == "decreasing" else 1.0
    level, rates = np.sort(sign * fit.thresholds), _rates(fit)
    of_batch = np.repeat(np.arange(len(batches)), len(rates))
    log_steps = fit.log_steps(
        *batches[of_batch].T,
        learning_rate=np.tile(rates, len(batches)) if fit.law.learning_rate else None,
    ).sel(threshold=sign * level).values
    parts = []
    for unit, amount in budget.amounts.items():
        log_cost, where = _log_cost(fit, batches, unit, budget, len(log_steps))
        for multiple in BUDGETS:
            log_updates = np.log(multiple * amount) - log_cost
            found = reached(log_steps, level, log_updates[:, of_batch])
            spare = log_updates[:, of_batch] - log_steps[:, -1]
            score = np.where(np.isposinf(found), level[-1] + 1.0 + spare, found)
            middle = quantiles(score, [0.5], axis=0)[0].reshape(len(batches), -1)
            pick = np.arange(len(batches)) * len(rates) + middle.argmax(axis=1)
            score = score[:, pick]
            parts.append(pd.DataFrame({
                "budget": multiple * amount, "budget_unit": unit, "multiple": multiple,
                "n_prompts": batches[:, 0], "n_rollouts": batches[:, 1],
                "total_batch": batches.prod(axis=1), "range": where, "p_best": share_least(-score),
                "learning_rate": np.where(np.isneginf(middle.max(axis=1)), np.nan,
                                          rates[middle.argmax(axis=1)]),
                **interval_columns("updates", np.exp(log_updates), prob),
                **_accuracy(found[:, pick], level, sign, prob)}))
    return table_of_fit(fit, parts, "budget", applies_to=POPULATION)


def _log_cost(
    fit: Fit, batches: np.ndarray, unit: str, budget: Budget, n_draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return draws of the log cost of an update, shape (sample, batch), and the batches' ranges."""
    if unit == SAMPLES:
        return (np.tile(np.log(batches.prod(axis=1)), (n_draws, 1)),
                range_of(batches, batches_run(fit.crossings)))
    times = times_of(fit, budget, batches=batches).draws
    return (np.log(times["seconds"].values[..., 0] / 3600 * budget.per_hour(unit)[0]),
            times["range"].values)


def _rates(fit: Fit) -> np.ndarray:
    """Return learning rates from the lowest tried to the highest; NaN where the law knows none."""
    if not fit.law.learning_rate:
        return np.array([np.nan])
    rates = varied_rates(fit.crossings)
    grid = np.geomspace(rates[0], rates[-1], _RATES)
    return np.unique([*rates, *(float(f"{rate:.2g}") for rate in grid[1:-1])])


def _accuracy(found: np.ndarray, level: np.ndarray, sign: float, prob: float) -> dict[str, Any]:
    """Return the columns of what is reached, and whether it is a bound."""
    low, high = np.sort(sign * level[[0, -1]])
    columns = interval_columns("accuracy", np.clip(sign * found, low, high), prob)
    first, last = quantiles(found, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
    before, beyond = np.isneginf(first), np.isposinf(last)
    names = ("upper_bound", "lower_bound") if sign > 0 else ("lower_bound", "upper_bound")
    return columns | {"accuracy_status": np.select(
        [before & beyond, before, beyond], ["not_identified", *names], "identified")}


def batches_between(tried: np.ndarray) -> np.ndarray:
    """Return the batches of the P and G run and their doublings, inside the range tried."""
    axes = [np.unique([*axis, *axis.min() * 2 ** np.arange(np.log2(axis.max() / axis.min()) + 1)])
            for axis in tried.T]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return grid[range_of(grid, tried) != "extrapolated"]


def reached(log_steps: np.ndarray, level: np.ndarray, log_updates: np.ndarray) -> np.ndarray:
    """Return the level that each batch reaches, shape (sample, batch).

    Parameters
    ----------
    log_steps : numpy.ndarray
        Draws of log S, dims (sample, threshold, batch), thresholds from easy to hard.
    level : numpy.ndarray
        The thresholds, increasing.
    log_updates : numpy.ndarray
        That each batch makes, shape (batch,) or (sample, batch).
    """
    rising = np.maximum.accumulate(log_steps, axis=1)  # a harder target takes no fewer updates
    passed = rising <= np.expand_dims(log_updates, -2)  # (sample, threshold, batch)
    count = passed.sum(axis=1)
    low, high = np.clip(count - 1, 0, None), np.clip(count, None, len(level) - 1)
    before, after = (np.take_along_axis(rising, index[:, None, :], axis=1)[:, 0]
                     for index in (low, high))
    apart = np.where(after > before, after - before, 1.0)
    share = np.where((count > 0) & (count < len(level)), (log_updates - before) / apart, 0.0)
    between = level[low] + share * (level[high] - level[low])
    return np.select([count == 0, count == len(level)], [-np.inf, np.inf], between)
