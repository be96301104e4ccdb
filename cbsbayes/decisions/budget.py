"""What a number of samples reaches: the accuracy of every batch, and the best batch by budget.

With C samples a batch makes C/(P G) updates, and has reached the target whose S they are. Between
fitted targets it is interpolated along log S; a batch that is past the hardest of them, or short of
the easiest, has no accuracy but a bound. The best batch has the highest accuracy, among those past
the hardest target the one that passed it earliest by its own measure: most of its updates to spare.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.batches import (
    POPULATION,
    batches_run,
    interval_columns,
    positive,
    range_of,
    table_of_fit,
)
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.quantities import design_of
from cbsbayes.posterior.tidy import quantiles

__all__ = ["BUDGETS", "budget_table", "reached"]

BUDGETS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the budget asked for that a table holds: how the best batch moves with it."""


def budget_table(fit: Fit, samples: float) -> pd.DataFrame:
    """Return the table of ``budget.csv``.

    Parameters
    ----------
    fit : Fit
        The fit.
    samples : float
        That the run may take.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS` of ``budget``, a row per multiple of the budget (`BUDGETS`) and batch: those run,
        and those between them on both axes. ``accuracy`` is of the population, median and interval
        within the fitted targets; where an end lies beyond the hardest of them
        ``accuracy_status`` is ``lower_bound``, before the easiest ``upper_bound``. ``p_best`` is
        the probability that no other batch of the table reaches more.

    Raises
    ------
    CBSDataError
        If the budget is not positive.
    """
    positive("--samples", samples)
    tried = batches_run(fit.crossings)
    batches = _inside(tried) if not design_of(fit.crossings).one_axis else tried
    sign = -1.0 if fit.sweep.attrs["direction"] == "decreasing" else 1.0
    level = np.sort(sign * fit.thresholds)
    log_steps = fit.log_steps(*batches.T).sel(threshold=sign * level).transpose(
        "sample", "threshold", "batch").values
    total, prob, parts = batches.prod(axis=1), float(fit.settings["ci_prob"]), []
    for multiple in BUDGETS:
        log_updates = np.log(multiple * samples / total)
        found = reached(log_steps, level, log_updates)
        spare = log_updates - log_steps[:, -1]
        score = np.where(np.isposinf(found), level[-1] + 1.0 + spare, found)
        best = np.bincount(score.argmax(axis=1)[np.isfinite(score.max(axis=1))],
                           minlength=len(total)) / len(score)
        parts.append(pd.DataFrame({
            "samples": multiple * samples, "n_prompts": batches[:, 0], "n_rollouts": batches[:, 1],
            "total_batch": total, "range": range_of(batches, tried),
            "updates": np.exp(log_updates), **_accuracy(found, level, sign, prob), "p_best": best}))
    return table_of_fit(fit, parts, "budget", applies_to=POPULATION)


def _accuracy(found: np.ndarray, level: np.ndarray, sign: float, prob: float) -> dict[str, Any]:
    """Return the columns of what is reached, and whether it is a bound."""
    low, high = np.sort(sign * level[[0, -1]])
    columns = interval_columns("accuracy", np.clip(sign * found, low, high), prob)
    first, last = quantiles(found, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
    before, beyond = np.isneginf(first), np.isposinf(last)
    names = ("upper_bound", "lower_bound") if sign > 0 else ("lower_bound", "upper_bound")
    return columns | {"accuracy_status": np.select(
        [before & beyond, before, beyond], ["not_identified", *names], "identified")}


def _inside(tried: np.ndarray) -> np.ndarray:
    """Return the batches of every P and G run, but for those outside the range tried."""
    prompts, rollouts = (np.unique(axis) for axis in tried.T)
    grid = np.stack(np.meshgrid(prompts, rollouts, indexing="ij"), axis=-1).reshape(-1, 2)
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
        That each batch makes, shape (batch,).
    """
    rising = np.maximum.accumulate(log_steps, axis=1)  # a harder target takes no fewer updates
    passed = rising <= log_updates  # (sample, threshold, batch)
    count = passed.sum(axis=1)
    low, high = np.clip(count - 1, 0, None), np.clip(count, None, len(level) - 1)
    before, after = (np.take_along_axis(rising, index[:, None, :], axis=1)[:, 0]
                     for index in (low, high))
    apart = np.where(after > before, after - before, 1.0)
    share = np.where((count > 0) & (count < len(level)), (log_updates - before) / apart, 0.0)
    between = level[low] + share * (level[high] - level[low])
    return np.select([count == 0, count == len(level)], [-np.inf, np.inf], between)
