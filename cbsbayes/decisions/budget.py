r"""What a budget reaches, and the ramp of batch sizes that reaches a target with fewest samples.

A budget of samples, hours, GPU-hours or money is so many updates of a batch, and they have reached
the target whose S they are. Between fitted targets it is interpolated along log S; a batch that is
past the hardest of them, or short of the easiest, has no accuracy but a bound. The best batch has
the highest accuracy, among those past the hardest target the one that passed it earliest by its own
measure: most of its updates to spare.

A run has one learning rate. Where the law knows it, every batch has the rate, of a grid over those
tried, at which it reaches most in the median; all draws are read there, so that not knowing the
best rate widens the interval.

S at successive targets says how many updates a batch b of B samples spends from each to the next.
If the accuracy reached is all that counts for what follows, and not which batch led to it, a ramp
spends on every stretch what its batch there would,

.. math:: U = \sum_k d_k(b_k), \quad E = \sum_k B_k d_k(b_k), \quad
          d_k(b) = S(b; t_k) - S(b; t_{k-1}), \quad S(b; t_0) = 0 .

Of all ramps whose batch never falls, the one of least expected samples is taken among those
expected to need at most a share more updates than one batch throughout. Updates and samples are
over those of that batch in the same draw. The ramp is one for all draws, as it is one for a user;
its updates and savings are read at every draw.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.batches import (
    POPULATION,
    batches_run,
    evenly,
    interval_columns,
    range_of,
    share_least,
    table_of_fit,
)
from cbsbayes.decisions.time_to_target import SAMPLES, Budget, times_of
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit import Fit, fitted_threshold
from cbsbayes.posterior.learning_rate import best_rates
from cbsbayes.posterior.quantities import design_of
from cbsbayes.posterior.tidy import quantiles
from cbsbayes.sweep.groups import varied_rates

__all__ = ["BUDGETS", "best_ramp", "budget_table", "reached", "schedule_table"]

BUDGETS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the budget asked for that a table holds: how the best batch moves with it."""
_RATES = 15  # of the grid of learning rates
_STRETCHES, _BATCHES = 8, 10  # of a ramp at most: 24,310 ramps


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
    batches = tried if design_of(fit.crossings).one_axis else _batches_between(tried)
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


def _batches_between(tried: np.ndarray) -> np.ndarray:
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


def best_ramp(
    updates: np.ndarray, sizes: np.ndarray, reference: int, more: float
) -> tuple[np.ndarray, int]:
    """Return the ramp of least expected samples: which batch every stretch has, shape (stretch,).

    With it the one batch that takes the least expected samples under the same limit.

    Parameters
    ----------
    updates : numpy.ndarray
        Draws of the updates of every stretch at every batch, shape (sample, stretch, batch).
    sizes : numpy.ndarray
        Samples of an update, increasing, shape (batch,).
    reference : int
        Which batch is compared with.
    more : float
        Share of its updates that the ramp is expected to take more, at most.
    """
    of_reference = updates[:, :, reference].sum(axis=1)[:, None, None]
    expected = (updates / of_reference).mean(axis=0)
    stretches = np.arange(len(expected))
    ramps = np.array(list(combinations_with_replacement(range(len(sizes)), len(expected))))
    takes, samples = (values[stretches, ramps].sum(axis=1)
                      for values in (expected, expected * sizes))
    samples = np.where(takes <= 1.0 + more + 1e-9, samples, np.inf)
    constant = np.flatnonzero((ramps == ramps[:, :1]).all(axis=1))
    return ramps[samples.argmin()], int(ramps[constant[samples[constant].argmin()], 0])


def schedule_table(
    fit: Fit, reference: tuple[float, float], more: float, threshold: float | None = None
) -> pd.DataFrame:
    """Return the table of ``schedule.csv``.

    Parameters
    ----------
    fit : Fit
        The fit.
    reference : tuple of float
        n_prompts and n_rollouts of the batch to compare with; of one axis the total batch and 1.
        The ramp has its n_rollouts.
    more : float
        Share of its updates that the ramp may take more.
    threshold : float, optional
        The fitted target up to which training goes; the hardest unless given.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS` of ``schedule``, a row per batch of the ramp: from which accuracy (NaN at the
        start) to which it is used, at which learning rate (NaN where the law knows none), and its
        ``updates`` and ``samples`` there. Alike in all rows: ``more_updates`` and ``saved``, the
        shares by which the ramp takes more updates and fewer samples than ``constant_n_prompts``
        throughout, with ``expected_saved``, ``p_saves`` and ``p_within``, the probability that the
        limit is kept; and ``other_n_prompts``, the one batch that saves most under the limit,
        with ``other_saved``.

    Raises
    ------
    CBSDataError
        If the share is negative, fewer than two targets are fitted up to the threshold, or the
        batch to compare with may never reach them.
    """
    if not 0 <= more < np.inf:
        raise CBSDataError(f"--schedule is {100 * more:g}; valid: 0 and more, percent of updates")
    tried, prob = batches_run(fit.crossings), float(fit.settings["ci_prob"])
    last = fit.thresholds[-1] if threshold is None else fitted_threshold(fit, threshold)
    levels = fit.thresholds[:int(np.flatnonzero(fit.thresholds == last)[0]) + 1]
    if len(levels) < 2:
        raise CBSDataError("a schedule needs two fitted targets or more up to the one asked for; "
                           "give a harder --threshold, or fit more --thresholds")
    levels = evenly(levels, _STRETCHES)
    prompts = evenly(np.unique(_batches_between(tried)[:, 0]), _BATCHES)
    batches = np.column_stack([prompts, np.full(len(prompts), reference[1])])
    inside = batches[range_of(batches, tried) != "extrapolated"]
    batches, rates, steps = _reaching(
        fit, np.unique(np.vstack([inside, reference]), axis=0), levels)
    found = np.flatnonzero((batches == reference).all(axis=1))
    if not found.size:
        raise CBSDataError(f"n_prompts {reference[0]:g}, n_rollouts {reference[1]:g} may never "
                           f"reach {last:g}, so that no schedule can be compared with it; give an "
                           "easier --threshold or another --batch")
    at, sizes = int(found[0]), batches.prod(axis=1)
    updates = np.diff(np.maximum.accumulate(steps, axis=1), axis=1, prepend=0.0)
    ramp, other = best_ramp(updates, sizes, at, more)
    whole = updates.sum(axis=1)  # of one batch throughout, (sample, batch)
    own = updates[:, np.arange(len(ramp)), ramp]  # of the ramp, (sample, stretch)
    samples, relative = (whole * sizes)[:, at], own.sum(axis=1) / whole[:, at]
    saved = 1.0 - own @ sizes[ramp] / samples
    rows = []
    for b in np.unique(ramp):
        here = np.flatnonzero(ramp == b)
        spent = own[:, here].sum(axis=1)
        rows.append({
            "n_prompts": batches[b, 0], "n_rollouts": batches[b, 1], "total_batch": sizes[b],
            "learning_rate": rates[b], "to_threshold": levels[here[-1]],
            "from_threshold": levels[here[0] - 1] if here[0] else np.nan,
            **interval_columns("updates", spent, prob),
            **interval_columns("samples", spent * sizes[b], prob)})
    return table_of_fit(
        fit, [pd.DataFrame(rows)], "schedule", applies_to=POPULATION, limit=more,
        constant_n_prompts=reference[0], constant_learning_rate=rates[at],
        **interval_columns("more_updates", relative - 1.0, prob),
        **interval_columns("saved", saved, prob), expected_saved=saved.mean(),
        p_saves=(saved > 0).mean(), p_within=(relative <= 1.0 + more).mean(),
        other_n_prompts=batches[other, 0],
        **interval_columns("other_saved", 1.0 - (whole * sizes)[:, other] / samples, prob))


def _reaching(
    fit: Fit, batches: np.ndarray, levels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the batches that reach all levels in every draw, their rates and S.

    A rate is the median best one, of those between the rates tried, NaN where the law knows none:
    one for all of a batch's updates, since S at several targets is that of one run. S has dims
    (sample, threshold, batch).
    """
    rates = np.full(len(batches), np.nan)
    if fit.law.learning_rate:
        tried = varied_rates(fit.crossings)
        best = [np.median(best_rates(fit, p, g, levels[-1])) for p, g in batches]
        rates = np.array([float(f"{rate:.2g}") for rate in np.clip(best, tried[0], tried[-1])])
    log_steps = fit.log_steps(*batches.T, learning_rate=rates if fit.law.learning_rate else None)
    steps = np.exp(log_steps.sel(threshold=levels).values)
    reach = np.isfinite(steps).all(axis=(0, 1))
    return batches[reach], rates[reach], steps[..., reach]
