r"""Time and cost to the target: updates times seconds per update, and the batch under a limit.

.. math:: T(P, G) = S(P, G; t)\; t(P, G) / 3600 \text{ hours}, \qquad
          \text{GPU-hours} = T \cdot \text{GPUs}, \qquad \text{price} = \text{GPU-hours} \cdot x

Draws of S come from the fit, draws of the step time from the step times of the same runs, each
apart: that a run with a slow step also needs more updates is not modelled. The population has
neither a run effect nor a slow machine; a new run has both drawn anew.

Under a limit a batch counts where it meets it with the probability asked for; among those the
least median wins. Batches beyond those tried are never chosen, but the one that would have won is
named; nor are GPU counts other than the runs' own, whose times are bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.decisions.batches import (
    COLUMNS,
    NEW_RUN,
    POPULATION,
    batches_run,
    interval_columns,
    positive,
    range_of,
    share_least,
    table_of_fit,
)
from cbsbayes.decisions.step_times import SweepStepTimes, step_times_of
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.tidy import quantiles

__all__ = ["GPU_HOURS", "HOURS", "MONEY", "SAMPLES", "Budget", "TimeAnswer", "Times",
           "answer_times", "batch_grid", "choices_table", "times_of", "times_table"]

GPU_HOURS, MONEY, HOURS, SAMPLES = "GPU-hours", "price", "hours", "samples"  # what is counted


@dataclass(frozen=True)
class Budget:
    """What a run may take, each a budget of its own, and the machine that it runs on.

    Attributes
    ----------
    samples, gpu_hours, money, deadline : float or None
        Samples, GPU-hours, price and hours; None where they are not limited.
    gpus : tuple of int
        GPUs that the runs used, then other counts to predict for; empty where not known.
    price : float or None
        Per GPU-hour, in any currency.

    Raises
    ------
    CBSDataError
        If a number is not positive, or needs a GPU count or a price that is not known.
    """

    samples: float | None = None
    gpu_hours: float | None = None
    money: float | None = None
    deadline: float | None = None
    gpus: tuple[int, ...] = ()
    price: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no budget and no machine."""
        for count in self.gpus:
            positive("--gpus", count)
        for name in ("price", "samples", "gpu_hours", "money", "deadline"):
            positive(f"--{name.replace('_', '-')}", getattr(self, name))
        for name in ("price", "gpu_hours"):
            if getattr(self, name) is not None and not self.gpus:
                raise CBSDataError(f"--{name.replace('_', '-')} needs the number of GPUs the runs "
                                   "used; add --gpus N")
        if self.money is not None and self.price is None:
            raise CBSDataError("--money needs a price per GPU-hour; add --price X and --gpus N")

    @property
    def counts(self) -> tuple[int, ...]:
        """GPU counts without repetition; 1 stands for the machine as it is where not known."""
        return tuple(dict.fromkeys(self.gpus)) or (1,)

    @property
    def amounts(self) -> dict[str, float]:
        """The budgets by their units."""
        given = {SAMPLES: self.samples, GPU_HOURS: self.gpu_hours, MONEY: self.money,
                 HOURS: self.deadline}
        return {unit: amount for unit, amount in given.items() if amount is not None}

    def per_hour(self, unit: str) -> np.ndarray:
        """Return the hours, GPU-hours or price of an hour on each count, shape (gpus,)."""
        counts = np.array(self.counts, dtype=float)
        return {HOURS: counts**0, GPU_HOURS: counts, MONEY: counts * (self.price or 1.0)}[unit]

    def questions(self) -> list[tuple[str, float, str, str]]:
        """Return (question, limit, its unit, what is least); without limits, the fastest of all."""
        cost = MONEY if self.price is not None else GPU_HOURS if self.gpus else HOURS
        asked = [("cheapest", limit, unit, cost) if unit == HOURS else
                 ("fastest", limit, unit, HOURS)
                 for unit, limit in self.amounts.items() if unit != SAMPLES]
        return asked or [("fastest", np.inf, cost, HOURS)]


@dataclass(frozen=True, eq=False)
class Times:
    """Draws of the time to target.

    Attributes
    ----------
    budget : Budget
        GPU counts and price.
    draws : xarray.Dataset
        ``steps`` (updates), dims (applies_to, sample, threshold, batch); ``seconds`` per update of
        the population, dims (sample, batch, gpus); ``hours``, with all five. ``n_prompts,
        n_rollouts`` (one-axis data: the total batch and 1) and ``range`` are coordinates of the
        batch.
    """

    budget: Budget
    draws: xr.Dataset

    @property
    def batches(self) -> np.ndarray:
        """n_prompts and n_rollouts, shape (batch, 2)."""
        return np.column_stack([self.draws["n_prompts"], self.draws["n_rollouts"]])

    @property
    def inside(self) -> np.ndarray:
        """Batches that are no extrapolation, shape (batch,)."""
        return np.asarray(self.draws["range"].values != "extrapolated")

    def amount(self, unit: str, threshold: float, applies_to: str = POPULATION) -> np.ndarray:
        """Return draws of hours, GPU-hours, price or samples, shape (sample, batch, gpus)."""
        at = self.draws.sel(threshold=threshold, applies_to=applies_to)
        hours = at["hours"].values
        if unit == SAMPLES:
            samples = at["steps"].values * self.batches.prod(axis=1)
            return np.broadcast_to(samples[..., None], hours.shape)
        return hours * self.budget.per_hour(unit)


def batch_grid(fit: Fit) -> np.ndarray:
    """Return the batches to look at: every pair of values tried, and one doubling beyond.

    Shape (batch, 2), sorted; group laws have no batches of one rollout per prompt.
    """
    tried = batches_run(fit.crossings)
    prompts, rollouts = map(_with_ends, tried.T)
    if (tried[:, 1] == 1).all():
        rollouts = np.ones(1)
    rollouts = rollouts[rollouts >= (2 if fit.law.needs_baseline_group else 1)]
    return np.array([[p, g] for p in prompts for g in rollouts])


def _with_ends(values: np.ndarray) -> np.ndarray:
    values = np.unique(values)
    return np.unique([max(np.floor(values[0] / 2), 1.0), *values, 2 * values[-1]])


def times_of(fit: Fit, budget: Budget | None = None, *, batches: np.ndarray | None = None) -> Times:
    """Return draws of time to target, those of S and of step times paired at random.

    Parameters
    ----------
    fit : Fit
        A fit whose runs logged step times.
    budget : Budget, optional
        GPUs and price; without it time only.
    batches : numpy.ndarray, optional
        Shape (batch, 2); by default `batch_grid`.

    Raises
    ------
    CBSDataError
        If fewer than three runs have a step time, or the law has no value at a batch.
    """
    budget, step_times, seed = budget or Budget(), step_times_of(fit), fit.settings["random_seed"]
    grid = batch_grid(fit) if batches is None else np.asarray(batches, dtype=float)
    log_steps = xr.concat([fit.log_steps(*grid.T), fit.new_run(*grid.T, random_seed=seed)],
                          dim="applies_to")
    counts, rng = budget.counts, np.random.default_rng(seed)
    drawn = [step_times.seconds_per_update(grid, count / counts[0]) for count in counts]
    every = np.resize(rng.permutation(len(drawn[0])), log_steps.sizes["sample"])
    picked = rng.permutation(every)
    seconds = xr.DataArray(np.stack(drawn, axis=-1)[picked], dims=("sample", "batch", "gpus"))
    deviation = step_times.model.deviation(len(grid), rng)[picked]
    slower = xr.DataArray(np.exp(np.stack([np.zeros_like(deviation), deviation])),
                          dims=("applies_to", "sample", "batch"))
    steps = np.exp(log_steps)
    fitted, timed = (range_of(grid, known)
                     for known in (batches_run(fit.crossings), step_times.batches))
    where = np.where(timed == "extrapolated", timed, fitted)
    draws = xr.Dataset(
        {"steps": steps, "seconds": seconds, "hours": steps * seconds * slower / 3600},
        coords={"applies_to": [POPULATION, NEW_RUN], "gpus": list(counts),
                "n_prompts": ("batch", grid[:, 0]), "n_rollouts": ("batch", grid[:, 1]),
                "range": ("batch", where)})
    return Times(budget, draws)


def times_table(fit: Fit, times: Times) -> pd.DataFrame:
    """Return the table of ``times.csv``, `COLUMNS` of ``times``.

    A row per threshold, ``applies_to``, GPU count and batch. ``p_fastest`` is the probability that
    no other batch of the grid inside the range tried takes less time in the population, on as many
    GPUs. GPU-hours and price are empty where the number of GPUs or the price is not known.
    """
    prob, budget = float(fit.settings["ci_prob"]), times.budget
    amounts = [("hours", HOURS), ("samples", SAMPLES)]
    amounts += [("gpu_hours", GPU_HOURS)] if budget.gpus else []
    amounts += [("price", MONEY)] if budget.price is not None else []
    prompts, rollouts = times.batches.T
    tables = []
    for threshold, applies_to, (g, count) in product(
            times.draws["threshold"].values.tolist(), (POPULATION, NEW_RUN),
            enumerate(budget.counts)):
        columns: dict[str, np.ndarray] = {}
        for name, unit in amounts:
            draws = times.amount(unit, threshold, applies_to)[..., g]
            columns |= interval_columns(name, draws, prob)
            if unit == HOURS and applies_to == POPULATION:
                fastest = share_least(np.where(times.inside, draws, np.inf))
                columns["p_fastest"] = np.where(times.inside, fastest, np.nan)
        tables.append(pd.DataFrame({
            "threshold": threshold, "applies_to": applies_to, "n_prompts": prompts,
            "n_rollouts": rollouts, "total_batch": prompts * rollouts,
            "range": times.draws["range"].values, "gpus": count if budget.gpus else np.nan,
            "gpus_measured": g == 0, **columns,
            "seconds_per_update": np.median(times.draws["seconds"][..., g], axis=0)}))
    return table_of_fit(fit, tables, "times")


def choices_table(
    times: Times, threshold: float, probability: float, ci_prob: float
) -> pd.DataFrame:
    """Return the table of ``clock_choices.csv``: the batch under each limit.

    `COLUMNS` of ``clock_choices``, a row per limit and ``applies_to``. Where ``met`` is false, the
    row is the batch most likely to meet the limit, the least of equals. ``beyond_n_prompts`` and
    ``beyond_n_rollouts`` are a batch outside the range tried that would win, if the forms held
    there.
    """
    rows = [_choice(times, threshold, question, applies_to, probability, ci_prob)
            for question in times.budget.questions() for applies_to in (POPULATION, NEW_RUN)]
    return pd.DataFrame(rows, columns=COLUMNS["clock_choices"])


def _choice(
    times: Times, threshold: float, asked: tuple[str, float, str, str], applies_to: str,
    probability: float, ci_prob: float,
) -> dict[str, Any]:
    question, limit, unit, least = asked
    limited, wanted = (times.amount(of, threshold, applies_to)[..., 0] for of in (unit, least))
    meets, inside = (limited <= limit).mean(axis=0), times.inside
    could, likely = meets >= probability, np.where(inside, meets, -1.0)
    limited, wanted = (quantiles(draws, [0.5], axis=0)[0] for draws in (limited, wanted))
    met = bool((could & inside).any())
    allowed, by = (could & inside, wanted) if met else (likely >= likely.max(), limited)
    batch = int(np.where(allowed, by, np.inf).argmin())
    beyond = int(np.where(could, wanted, np.inf).argmin())
    outside = could.any() and not inside[beyond]
    cost = unit if unit != HOURS else least
    prompts, rollouts = times.batches[batch]
    row: dict[str, Any] = {
        "threshold": threshold, "applies_to": applies_to, "question": question, "limit": limit,
        "limit_unit": unit, "probability_asked": probability, "met": met, "n_prompts": prompts,
        "n_rollouts": rollouts, "range": times.draws["range"].values[batch],
        "gpus": times.budget.counts[0] if times.budget.gpus else np.nan,
        "probability": meets[batch], "ci_prob": ci_prob, "cost_unit": cost,
        "beyond_n_prompts": times.batches[beyond, 0] if outside else np.nan,
        "beyond_n_rollouts": times.batches[beyond, 1] if outside else np.nan}
    for name, of in (("hours", HOURS), ("cost", cost)):
        draws = times.amount(of, threshold, applies_to)[:, batch, 0]
        row |= interval_columns(name, draws, ci_prob)
    return row


@dataclass(frozen=True, eq=False)
class TimeAnswer:
    """What a fit and its step times say.

    Attributes
    ----------
    step_times : SweepStepTimes
        The step-time model.
    times : Times
        Draws over the grid, all thresholds.
    tables : dict
        By the name of their file: ``clock, times, clock_choices``.
    """

    step_times: SweepStepTimes
    times: Times
    tables: dict[str, pd.DataFrame]


def answer_times(
    fit: Fit, budget: Budget | None = None, *, threshold: float, probability: float = 0.9,
) -> TimeAnswer:
    """Return the times to target of a fit, and the batch under each limit.

    Parameters
    ----------
    fit : Fit
        A fit whose runs logged step times.
    budget : Budget, optional
        Limits of time and cost, GPUs and price; without limits the fastest batch is named.
    threshold : float
        A fitted target that the choices are made for; tables of times hold all.
    probability : float
        With which limits are to be met.

    Raises
    ------
    CBSDataError
        If fewer than three runs have a step time.
    """
    times = times_of(fit, budget)
    prob, step_times = float(fit.settings["ci_prob"]), step_times_of(fit)
    clock = step_times.model.table(prob).assign(
        n_runs=len(step_times.runs), n_batches=len(step_times.batches))
    return TimeAnswer(step_times, times, {
        "clock": table_of_fit(fit, [clock], "clock"), "times": times_table(fit, times),
        "clock_choices": choices_table(times, threshold, probability, prob)})
