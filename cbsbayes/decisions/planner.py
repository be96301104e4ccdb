"""From a fit to a plan: what each candidate run is expected to tell, for its price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.candidates import Candidate, TriedRuns, candidates, cells, tried_runs
from cbsbayes.decisions.costs import Cost, sample_cost
from cbsbayes.decisions.information import Information, normal_scores
from cbsbayes.decisions.next_runs import Chosen, Judge, choose_set
from cbsbayes.decisions.plan_target import Target, choose_target, usual_rollouts
from cbsbayes.decisions.simulated_runs import ModelDraws, model_draws
from cbsbayes.errors import CBSDataError
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.posterior.fit import Fit, stacked
from cbsbayes.posterior.quantities import design_of

__all__ = ["COLUMNS", "Plan", "Request", "plan_draws", "plan_runs"]

COLUMNS = ["rank", "n_prompts", "n_rollouts", "total_batch", "updates", "seed", "cost",
           "cost_lower", "cost_upper", "cost_unit", "cost_range", "runs_tried", "extrapolated",
           "reach", "information", "information_error", "resolved", "width_ratio", "per_cost",
           "per_cost_error", "effective_draws", "affordable", "chosen"]
_MOST_NUMBERS = 5e8  # of all weights at once, 4 bytes each


@dataclass(frozen=True)
class Request:
    """What is asked of a plan.

    Attributes
    ----------
    quantity : str or None
        ``NAME@at``; see `cbsbayes.decisions.plan_target.choose_target`.
    threshold : float or None
        At which the quantity is meant.
    budget : float
        In the unit of the cost, for all runs together.
    runs : int
        How many runs at most.
    prompts, rollouts, updates : sequence of float or None
        Values to choose from.
    every : float or None
        Updates between evaluations; those of the sweep unless given.
    reach : float
        Share of new runs past a threshold that sets the default lengths.
    data_sets, draws : int
        Simulated data sets per candidate, and draws weighted by each.
    seed : int
        Of all random numbers.
    """

    quantity: str | None = None
    threshold: float | None = None
    budget: float = np.inf
    runs: int = 1
    prompts: Sequence[float] | None = None
    rollouts: Sequence[float] | None = None
    updates: Sequence[float] | None = None
    every: float | None = None
    reach: float = 0.9
    data_sets: int = 128
    draws: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be planned with."""
        valid = {"budget": self.budget > 0, "runs": self.runs >= 1,
                 "reach": 0 < self.reach < 1, "data_sets": self.data_sets >= 8,
                 "draws": self.draws >= 200, "every": self.every is None or self.every > 0,
                 "updates": all(value >= 0 for value in self.updates or ())}
        words = {"reach": "between 0 and 1", "data_sets": "at least 8", "draws": "at least 200",
                 "runs": "at least 1", "updates": "0 and more"}
        for name, holds in valid.items():
            if not holds:
                raise CBSDataError(f"{name} is {getattr(self, name)}; valid: "
                                   f"{words.get(name, 'above 0')}")


@dataclass(frozen=True, eq=False)
class Plan:
    """A plan.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per candidate, columns `COLUMNS`, best per price first, those lost in their Monte
        Carlo error (not ``resolved``) last. ``cost_lower``, ``cost_upper`` are the interval of a
        cost from step times and ``cost_range`` says where its batch lies among those timed
        (``tried``, ``inside``, ``extrapolated``), all empty for other costs. ``information`` is in
        nats about the quantity, ``width_ratio`` the expected (geometric mean) width of its interval
        after the run over now, ``reach`` of one new run; ``chosen`` is how often it is in the set.
    runs : pandas.DataFrame
        The set, in order: the candidate's columns and ``added, added_error, together,
        together_error, width_ratio, cost_so_far``.
    target : Target
        The quantity.
    tried : TriedRuns
        What was run.
    cost : Cost
        Of a run.
    request : Request
        What was asked.
    ci_prob : float
        Of the fit's intervals.
    """

    table: pd.DataFrame
    runs: pd.DataFrame
    target: Target
    tried: TriedRuns
    cost: Cost
    request: Request
    ci_prob: float


def plan_runs(fit: Fit, request: Request = Request(), cost: Cost | None = None) -> Plan:
    """Return what to run next.

    Parameters
    ----------
    fit : Fit
        Of the crossing model, which says how runs scatter.
    request : Request
        What is asked.
    cost : Cost, optional
        Of a run; in samples unless given.

    Raises
    ------
    CBSDataError
        If the fit is of another model, a candidate is outside the law or has no price, the budget
        is below the cheapest candidate, or the quantity is unknown.
    """
    cost = cost or sample_cost()
    draws, tried = _draws(fit), tried_runs(_fitted_sweep(fit), fit.crossings)
    target = choose_target(
        fit.law, draws.posterior, design_of(fit.crossings), fit.cbs, asked=request.quantity,
        threshold=request.threshold, rollouts=usual_rollouts(fit.crossings))
    return plan_draws(draws, tried, target, request, cost, float(fit.settings["ci_prob"]))


def plan_draws(
    draws: ModelDraws, tried: TriedRuns, target: Target, request: Request, cost: Cost,
    ci_prob: float,
) -> Plan:
    """Return a plan from posterior draws, without the tables of a fit.

    Parameters
    ----------
    draws : ModelDraws
        Of the crossing model, in the sampler's order.
    tried : TriedRuns
        What was run.
    target : Target
        The quantity, its values in the order of the draws.
    request : Request
        What is asked; its quantity and threshold are those of `target`.
    cost : Cost
        Of a run.
    ci_prob : float
        Of intervals.

    Raises
    ------
    CBSDataError
        As of `plan_runs`.
    """
    if request.every is not None:
        tried = replace(tried, every=request.every)
    truths, weighted = _split(draws, request)
    options = _candidates(draws, tried, cost, target, request)
    if len(options) * len(truths) * len(weighted) > _MOST_NUMBERS:
        raise CBSDataError(f"{len(options)} candidates × {len(truths)} simulated data sets × "
                           f"{len(weighted)} draws are too many; give fewer values of --n-prompts, "
                           "--n-rollouts or --updates")
    judge = Judge(draws.part(truths), draws.part(weighted),
                  normal_scores(target.values[weighted]), tried.every, request.seed)
    weights = judge.all_weights(options)
    told = judge.judged(judge.nothing(), weights)
    chosen = choose_set(judge, options, weights, runs=request.runs, budget=request.budget,
                        first=told)
    table = _table(options, told, cost, request.budget, chosen, ci_prob)
    runs = _runs_table(options, chosen, tried, cost, ci_prob)
    return Plan(table, runs, target, tried, cost, request, ci_prob)


def _draws(fit: Fit) -> ModelDraws:
    if fit.settings.get("model", "crossing") != "crossing":
        raise CBSDataError(f"the fit is of the {fit.settings['model']} model, a plan needs one of "
                           "the crossing model: its crossings of a new run can be weighed; give "
                           "the sweep, or a fit made with --model crossing")
    direction = str(fit.crossings.attrs.get("direction", "increasing"))
    return model_draws(stacked(fit.posterior), fit.law, crossing_data(fit.crossings, fit.law),
                       direction)


def _fitted_sweep(fit: Fit) -> Any:
    return fit.sweep.sel(run=fit.crossings["run"].values)


def _split(draws: ModelDraws, request: Request) -> tuple[np.ndarray, np.ndarray]:
    """Return draws to simulate from and others to weigh, both in the sampler's order."""
    total = draws.size
    n_truths = min(request.data_sets, total // 4)
    order = np.random.default_rng(request.seed).permutation(total)
    return np.sort(order[:n_truths]), np.sort(order[n_truths:n_truths + request.draws])


def _candidates(
    draws: ModelDraws, tried: TriedRuns, cost: Cost, target: Target, request: Request
) -> list[Candidate]:
    total = draws.size
    some = np.arange(0, total, max(1, total // 1000))
    place = len(draws.threshold) - 1
    if np.isfinite(target.threshold):
        place = int(np.flatnonzero(np.isclose(draws.threshold, target.threshold))[0])
    options = candidates(draws.part(some), cells(tried, request.prompts, request.rollouts), tried,
                         cost, place, updates=request.updates, reach=request.reach,
                         seed=request.seed)
    cheapest = min(options, key=lambda option: option.cost)
    if cheapest.cost > request.budget:
        raise CBSDataError(
            f"the budget of {request.budget:,.6g} {cost.unit} is below the cheapest candidate: "
            f"n_prompts {cheapest.n_prompts:g}, n_rollouts {cheapest.n_rollouts:g} for "
            f"{cheapest.updates:g} updates costs {cheapest.cost:,.6g} {cost.unit}")
    return options


def _columns(option: Candidate) -> dict[str, Any]:
    return {"n_prompts": option.n_prompts, "n_rollouts": option.n_rollouts,
            "total_batch": option.n_prompts * option.n_rollouts, "updates": option.updates,
            "seed": option.seed, "cost": option.cost, "runs_tried": option.tried,
            "extrapolated": option.extrapolated, "reach": option.reach}


def _price(option: Candidate, cost: Cost, ci_prob: float) -> dict[str, Any]:
    """Return the interval of a candidate's price and where its batch was timed, if it was."""
    cell = (option.n_prompts, option.n_rollouts)
    lower, upper = (np.nan, np.nan) if cost.between is None else cost.between(
        *cell, option.updates, ci_prob)
    return {"cost_lower": lower, "cost_upper": upper, "cost_unit": cost.unit,
            "cost_range": "" if cost.place is None else cost.place(*cell)}


def _table(
    options: Sequence[Candidate], told: Sequence[Information], cost: Cost, budget: float,
    chosen: Sequence[Chosen], ci_prob: float,
) -> pd.DataFrame:
    counts = np.bincount([run.index for run in chosen], minlength=len(options))
    rows = [_columns(option) | _price(option, cost, ci_prob) | {
        "information": info.nats, "information_error": info.error,
        "resolved": info.resolved,
        "width_ratio": float(np.exp(-info.nats)), "per_cost": info.nats / option.cost,
        "per_cost_error": info.error / option.cost, "effective_draws": info.effective,
        "affordable": option.cost <= budget * (1 + 1e-9), "chosen": int(counts[k])}
        for k, (option, info) in enumerate(zip(options, told, strict=True))]
    table = pd.DataFrame(rows).sort_values(["resolved", "per_cost"], ascending=False,
                                               kind="stable")
    return table.assign(rank=np.arange(1, len(table) + 1))[COLUMNS].reset_index(drop=True)


def _runs_table(
    options: Sequence[Candidate], chosen: Sequence[Chosen], tried: TriedRuns, cost: Cost,
    ci_prob: float,
) -> pd.DataFrame:
    rows, spent, used = [], 0.0, list(tried.seeds)
    so_far = tried
    for order, run in enumerate(chosen, start=1):
        option = options[run.index]
        cell = (option.n_prompts, option.n_rollouts)
        seed = so_far.next_seed(*cell)  # two runs of one batch get two seeds
        used.append(seed)
        so_far = replace(so_far, cells=(*so_far.cells, cell), seeds=tuple(used))
        spent += option.cost
        rows.append({"order": order, **_columns(option), **_price(option, cost, ci_prob),
                     "seed": seed,
                     "added": run.added.nats, "added_error": run.added.error,
                     "together": run.together.nats, "together_error": run.together.error,
                     "width_ratio": float(np.exp(-run.together.nats)),
                     "effective_draws": run.together.effective, "cost_so_far": spent})
    return pd.DataFrame(rows)
