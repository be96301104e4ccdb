"""Runs that could be next: batch, rate, updates, seed, price; and where the fit is stretched.

By default the batches are all pairs of the n_prompts and n_rollouts tried whose total batch is
inside the range tried, under a law that knows the learning rate each at the rates tried, and a run
lasts until nine of ten new runs are past the target, or past the middle threshold, whichever the
fit says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from cbsbayes.decisions.batches import interval_columns, range_of
from cbsbayes.decisions.step_times import Cost
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import batch_axes
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.fit_sweep import OTHER_RATE
from cbsbayes.sweep.groups import rounded_rates

__all__ = ["AXES", "Choices", "Request", "TriedRuns", "candidates", "second_rate", "tried_runs"]

AXES = ["n_prompts", "n_rollouts", "learning_rate"]
"""Columns that say which run one is, but for its length and seed."""
_MOST_TIMES = 10.0  # the longest run tried: a fit says little of S far beyond


@dataclass(frozen=True)
class TriedRuns:
    """What was run already.

    Attributes
    ----------
    batches : numpy.ndarray
        n_prompts and n_rollouts of every run, of one axis total batch and 1, shape (run, 2).
    rates : numpy.ndarray
        Learning rates, shape (run,); NaN where not known.
    seeds : numpy.ndarray
        Of every run, shape (run,); -1 where not known.
    every : float
        Updates between evaluations, the middle one.
    longest : float
        Updates of the longest run.
    """

    batches: np.ndarray
    rates: np.ndarray
    seeds: np.ndarray
    every: float
    longest: float

    @property
    def one_axis(self) -> bool:
        """Whether runs state a total batch only."""
        return bool((self.batches[:, 1] == 1).all())

    def like(self, run: ArrayLike) -> np.ndarray:
        """Return which runs had this n_prompts, n_rollouts and learning rate, shape (run,)."""
        runs = np.column_stack([self.batches, self.rates])
        return np.isclose(runs, np.asarray(run), rtol=1e-6, atol=0.0, equal_nan=True).all(axis=1)

    def rate_at(self, n_prompts: float, n_rollouts: float) -> float:
        """Return the learning rate of a batch where each batch has one: its own, or by its rule."""
        own = self.rates[(self.batches == (n_prompts, n_rollouts)).all(axis=1)]
        if own.size or np.isnan(self.rates).any():
            return float(own[0]) if own.size else np.nan
        axes = np.column_stack([np.ones(len(self.rates)), np.log(self.batches)])
        power = np.linalg.lstsq(axes, np.log(self.rates))[0]
        return float(f"{np.exp(power @ (1.0, np.log(n_prompts), np.log(n_rollouts))):.6g}")

    def next_seeds(self, run: ArrayLike, count: int = 1) -> list[int]:
        """Return seeds that such a run was not made with: the sweep's lowest, then new ones."""
        used = set(self.seeds[self.like(run)].tolist())
        known = [seed for seed in np.unique(self.seeds).tolist() if seed >= 0]
        first_new = max([0, *known]) + 1
        free = [seed for seed in known if seed not in used]
        return [*free, *range(first_new, first_new + count)][:count]


@dataclass(frozen=True)
class Choices:
    """What to choose runs from; None for what was tried.

    Attributes
    ----------
    prompts, rollouts : sequence of float, optional
        Values all pairs of which are taken, inside the range tried or not; of one axis `prompts`
        are total batches.
    updates : sequence of float, optional
        Run lengths; by default where a share `reach` of new runs is past the target, and past the
        middle threshold.
    every : float, optional
        Updates between evaluations.
    reach : float
        Share of new runs past a threshold at their end.
    rates : sequence of float, optional
        Learning rates at which all these batches are taken, of a law that knows them.
    """

    prompts: Sequence[float] | None = None
    rollouts: Sequence[float] | None = None
    updates: Sequence[float] | None = None
    every: float | None = None
    reach: float = 0.9
    rates: Sequence[float] | None = None


@dataclass(frozen=True)
class Request:
    """What is asked of a plan.

    Attributes
    ----------
    quantity : str or None
        ``NAME@at``; see `cbsbayes.decisions.information.planned_quantity`.
    threshold : float or None
        At which the quantity is meant.
    budget : float
        In the unit of the cost, for all runs together.
    runs : int
        How many runs at most.
    choices : Choices
        What runs to choose from.
    data_sets, draws : int
        Simulated data sets per candidate, and draws weighted by each.
    seed : int
        Of all random numbers.
    """

    quantity: str | None = None
    threshold: float | None = None
    budget: float = np.inf
    runs: int = 1
    choices: Choices = field(default_factory=Choices)
    data_sets: int = 128
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be planned with."""
        choices = self.choices
        for name, value, holds, valid in (
                ("budget", self.budget, self.budget > 0, "above 0"),
                ("runs", self.runs, self.runs >= 1, "at least 1"),
                ("seed", self.seed, self.seed >= 0, "0 and more"),
                ("reach", choices.reach, 0 < choices.reach < 1, "between 0 and 1"),
                ("data_sets", self.data_sets, self.data_sets >= 8, "at least 8"),
                ("draws", self.draws, self.draws >= 200, "at least 200"),
                ("every", choices.every, choices.every is None or choices.every > 0, "above 0"),
                ("learning_rates", choices.rates,
                 all(0 < rate < np.inf for rate in choices.rates or ()), "above 0 and finite"),
                ("updates", choices.updates, all(n >= 0 for n in choices.updates or ()),
                 "0 and more")):
            if not holds:
                raise CBSDataError(f"{name} is {value}; valid: {valid}")


def tried_runs(fit: Fit) -> TriedRuns:
    """Return what the runs fitted are."""
    fitted = fit.crossings
    sweep = fit.sweep.sel(run=fitted["run"].values)
    updates = np.concatenate([ends.values.ravel() for ends in (
        fitted["lower"], fitted["upper"], sweep["last_step"])])
    return TriedRuns(np.column_stack(batch_axes(fitted)),
                     rounded_rates(fitted["learning_rate"].values), fitted["seed"].values,
                     _every(sweep, fitted), float(updates[np.isfinite(updates)].max()))


def _every(sweep: xr.Dataset, fitted: xr.Dataset) -> float:
    """Return the middle distance of evaluations, of a table of crossings of their bounds."""
    if "accuracy" in sweep:
        step = sweep["step"].values
        there = sweep["accuracy"].notnull().any("metric").values
        gaps = np.concatenate([np.diff(step[row]) for row in there])
    else:
        gaps = (fitted["upper"] - fitted["lower"]).values.ravel()
    gaps = gaps[np.isfinite(gaps) & (gaps > 0)]
    return float(np.median(gaps)) if gaps.size else 1.0


def candidates(
    fit: Fit, tried: TriedRuns, choices: Choices, cost: Cost, threshold: float,
    random_seed: int = 0,
) -> pd.DataFrame:
    """Return all runs to choose from, a row each.

    Parameters
    ----------
    fit : Fit
        From which new runs are simulated.
    tried : TriedRuns
        What was run.
    choices : Choices
        What to choose from.
    cost : Cost
        Of a run.
    threshold : float
        The target's; NaN stands for the hardest.
    random_seed : int
        Of the new runs.

    Returns
    -------
    pandas.DataFrame
        ``n_prompts, n_rollouts`` (of one axis the total batch and 1), ``total_batch,
        learning_rate, updates`` and ``seed`` of the run; ``cost, cost_lower, cost_upper, cost_unit,
        cost_range``, the interval of a cost from step times; ``runs_tried`` of that batch and rate
        so far; ``extrapolated`` where either is outside the range tried; ``reach``, the
        probability that one new run passes the target's threshold by then.

    Raises
    ------
    CBSDataError
        If the law has no value at a batch, knows no learning rate to choose, or a price is not
        positive.
    """
    levels, prob = fit.thresholds, float(fit.settings["ci_prob"])
    target = len(levels) - 1 if np.isnan(threshold) else int(np.abs(levels - threshold).argmin())
    rows = []
    for batch, rate in _runs(fit, tried, choices):
        new = fit.new_run(*batch, learning_rate=rate if fit.law.learning_rate else None,
                          random_seed=random_seed).values[..., 0]
        beyond, price = rate < tried.rates.min() or rate > tried.rates.max(), cost.draws(*batch)
        shared = {
            "n_prompts": batch[0], "n_rollouts": batch[1], "total_batch": batch[0] * batch[1],
            "learning_rate": rate, "seed": tried.next_seeds((*batch, rate))[0],
            "cost_unit": cost.unit, "cost_range": cost.range(*batch),
            "runs_tried": int(tried.like((*batch, rate)).sum()),
            "extrapolated": bool(beyond
                                 or range_of([batch], tried.batches)[0] == "extrapolated")}
        for length in choices.updates or _lengths(new[:, sorted({target, len(levels) // 2})],
                                                  tried, choices.reach):
            total = float(price.mean()) * length
            if not (np.isfinite(total) and total > 0):
                raise CBSDataError(f"the price of n_prompts {batch[0]:g}, n_rollouts {batch[1]:g}, "
                                   f"{length:g} updates is {total:g} {cost.unit}; valid: above 0")
            ends = {} if cost.step_times is None else interval_columns("cost", price * length, prob)
            rows.append({
                "cost_lower": np.nan, "cost_upper": np.nan, **ends, **shared,
                "updates": length, "cost": total,
                "reach": float((new[:, target] <= np.log(max(length, 1e-9))).mean())})
    return pd.DataFrame(rows)


def second_rate(
    fit: Fit, tried: TriedRuns, choices: Choices, cost: Cost, threshold: float
) -> pd.DataFrame:
    """Return the runs at another learning rate that a fit of one rate for each batch lacks.

    The smallest, a middle and the largest batch along the prompts at the n_rollouts of most runs,
    at three times their rate, as long as a run at the rate used would be. What they tell cannot be
    computed: the law that was fitted has no learning rate.

    Parameters
    ----------
    fit, tried, choices, cost, threshold
        As of `candidates`; the batches of `choices` do not count.

    Returns
    -------
    pandas.DataFrame
        Columns of `candidates`; empty where the law knows the rate, a rate is not known, or there
        are fewer than three batches.
    """
    rollouts = float(pd.Series(tried.batches[:, 1]).mode().max())
    prompts = np.unique(tried.batches[tried.batches[:, 1] == rollouts, 0])
    if fit.law.learning_rate or np.isnan(tried.rates).any() or len(prompts) < 3:
        return pd.DataFrame()
    three = replace(choices, prompts=prompts[[0, len(prompts) // 2, -1]].tolist(),
                    rollouts=None if tried.one_axis else [rollouts])
    runs = candidates(fit, tried, three, cost, threshold)
    longest = runs.loc[runs.groupby("n_prompts")["updates"].idxmax()]
    other = longest.assign(learning_rate=rounded_rates(OTHER_RATE * longest["learning_rate"]))
    return other.assign(seed=[tried.next_seeds(run)[0] for run in other[AXES].to_numpy()])


def _runs(fit: Fit, tried: TriedRuns, choices: Choices) -> list[tuple[tuple[float, float], float]]:
    """Return the batches to choose from, each with the learning rates to choose from."""
    batches = [(float(p), float(g)) for p, g in _batches(fit, tried, choices)]
    if fit.law.learning_rate:
        rates = np.unique(tried.rates if choices.rates is None else choices.rates)
        return list(product(batches, rates.tolist()))
    if choices.rates is not None:
        raise CBSDataError(f"learning rates cannot be chosen: the law {fit.law.name} of this fit "
                           "knows none; fit runs of several rates together, or leave "
                           "--learning-rates out")
    return [(batch, tried.rate_at(*batch)) for batch in batches]


def _batches(fit: Fit, tried: TriedRuns, choices: Choices) -> np.ndarray:
    """Return the batches to choose from, shape (batch, 2)."""
    if tried.one_axis and choices.rollouts is not None:
        raise CBSDataError("n_rollouts cannot be chosen: the data give total batches only; give "
                           "--n-prompts the total batches to choose from")
    given = choices.prompts is not None or choices.rollouts is not None
    axes = [np.unique(tried.batches[:, axis] if values is None else values)
            for axis, values in enumerate((choices.prompts, choices.rollouts))]
    batches = np.array([(p, g) for p in axes[0] for g in axes[1]])
    if not given:
        batches = batches[range_of(batches, tried.batches) != "extrapolated"]
    least = 2 if fit.law.needs_baseline_group else 1
    wrong = batches[(batches[:, 0] < 1) | (batches[:, 1] < least)]
    if len(wrong):
        raise CBSDataError(f"the candidate n_prompts {wrong[0, 0]:g}, n_rollouts {wrong[0, 1]:g} "
                           f"is outside the law {fit.law.name}; valid: n_prompts from 1, "
                           f"n_rollouts from {least}"
                           + (" (a group of one has no baseline)" if least > 1 else ""))
    return batches


def _lengths(log_steps: np.ndarray, tried: TriedRuns, reach: float) -> list[float]:
    """Return run lengths in updates: where a share `reach` of new runs is past each threshold.

    In whole evaluations, at least one, and at most ten times the longest run tried. `log_steps` of
    new runs has shape (sample, threshold).
    """
    found = np.exp(np.minimum(np.quantile(log_steps, reach, axis=0, method="inverted_cdf"), 700.0))
    most = np.ceil(_MOST_TIMES * tried.longest / tried.every)
    counts = np.clip(np.ceil(found / tried.every), 1, most)
    return sorted(set((counts * tried.every).tolist()))
