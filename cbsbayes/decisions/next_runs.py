"""Which run next: what each candidate is expected to say, for its price, and sets of runs.

For every candidate, runs are simulated from some posterior draws and the others are weighted by how
probable each finds the simulated run, its run effect integrated out
(`cbsbayes.models.crossing.run_log_likelihoods`): expected information about one quantity, without
a new fit. A second run is worth what it says beyond the first: the data of the runs chosen weight
the draws before a candidate is judged. Every chosen run gets random numbers of its own, so that two
runs of one batch are two runs.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.intervals import INTERVAL, LEFT, RIGHT
from cbsbayes.decisions.batches import COLUMNS, as_fit
from cbsbayes.decisions.candidates import (
    AXES,
    Request,
    TriedRuns,
    candidates,
    second_rate,
    tried_runs,
)
from cbsbayes.decisions.information import (
    PlannedQuantity,
    expected_information,
    normal_scores,
    planned_quantity,
    posterior_moments,
)
from cbsbayes.decisions.step_times import Cost
from cbsbayes.errors import CBSDataError
from cbsbayes.models.crossing import run_log_likelihoods
from cbsbayes.models.crossing_data import CrossingData, crossing_data
from cbsbayes.models.crossing_parameters import CrossingParameters, crossing_arrays
from cbsbayes.posterior.fit import Fit, stacked, thinned

__all__ = ["Judge", "Plan", "choose_set", "crossing_bounds", "evaluations",
           "plan_runs"]

_MOST_NUMBERS = 5e8  # of all weights at once, 4 bytes each


@dataclass(frozen=True, eq=False)
class Plan:
    """A plan.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per candidate, `COLUMNS` of ``plan``, best per price first, those lost in their
        Monte Carlo error (not ``resolved``) last. ``cost_lower``, ``cost_upper`` are the interval
        of a cost from step times and ``cost_range`` says where its batch lies among those timed,
        all empty for other costs. ``information`` is in nats about the quantity, ``width_ratio``
        the expected (geometric mean) width of its interval after the run over now, ``reach`` of
        one new run; ``chosen`` is how often it is in the set.
    runs : pandas.DataFrame
        The set, in order, `COLUMNS` of ``runs``: those of a candidate and ``added, added_error,
        together, together_error, width_ratio, cost_so_far``.
    second_rate : pandas.DataFrame
        Runs at a learning rate that the law fitted does not know, `COLUMNS` of ``second_rate``;
        empty where it knows the rate. They have no rank: what they tell cannot be computed.
    quantity : PlannedQuantity
        What is to be known better.
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
    second_rate: pd.DataFrame
    quantity: PlannedQuantity
    tried: TriedRuns
    cost: Cost
    request: Request
    ci_prob: float


def plan_runs(
    fit: Fit | str | os.PathLike[str], request: Request | None = None, cost: Cost | None = None,
    **asked: Any,
) -> Plan:
    """Return what to run next.

    Parameters
    ----------
    fit : Fit or path
        Of the crossing model, which says how runs scatter; or the folder that holds it.
    request : Request, optional
        What is asked; by default the next run for the prompt CBS.
    cost : Cost, optional
        Of a run; in samples unless given.
    **asked
        Of `Request`, where none is given.

    Raises
    ------
    CBSDataError
        If this is no fit, it is of another model, a candidate is outside the law or has no price,
        the budget is below the cheapest candidate, or the quantity is unknown.
    """
    fit, request = as_fit(fit), request or Request(**asked)
    if fit.settings.get("model", "crossing") != "crossing":
        raise CBSDataError(f"the fit is of the {fit.settings['model']} model, a plan needs one of "
                           "the crossing model: its crossings of a new run can be weighed; give "
                           "the sweep, or a fit made with --model crossing")
    cost, tried = cost or Cost(), tried_runs(fit)
    if request.choices.every is not None:
        tried = replace(tried, every=request.choices.every)
    quantity = planned_quantity(fit, request.quantity, request.threshold)
    options = candidates(fit, tried, request.choices, cost, quantity.threshold, request.seed)
    _check_budget(options, request, cost)
    judge = Judge(fit, quantity.values, tried.every, request)
    if len(options) * judge.nothing.size > _MOST_NUMBERS:
        raise CBSDataError(f"{len(options)} candidates × {len(judge.nothing)} simulated data sets "
                           f"× {judge.nothing.shape[1]} draws are too many; give fewer values of "
                           "--n-prompts, --n-rollouts, --learning-rates or --updates")
    weights = [judge.weights(run).astype(np.float32) for run in options.to_dict("records")]
    alone = judge.added(judge.nothing, weights)
    chosen = choose_set(judge, options, weights, alone, runs=request.runs, budget=request.budget)
    return Plan(_table(options, alone, chosen, request.budget),
                _set_table(options, chosen, tried),
                second_rate(fit, tried, request.choices, cost, quantity.threshold).reindex(
                    columns=COLUMNS["second_rate"]),
                quantity, tried, cost, request, float(fit.settings["ci_prob"]))


def _check_budget(options: pd.DataFrame, request: Request, cost: Cost) -> None:
    cheapest = options.iloc[int(options["cost"].argmin())]
    if cheapest["cost"] > request.budget:
        raise CBSDataError(
            f"the budget of {request.budget:,.6g} {cost.unit} is below the cheapest candidate: "
            f"n_prompts {cheapest['n_prompts']:g}, n_rollouts {cheapest['n_rollouts']:g} for "
            f"{cheapest['updates']:g} updates costs {cheapest['cost']:,.6g} {cost.unit}")


class Judge:
    """Simulates candidates' data and weighs draws by them.

    Parameters
    ----------
    fit : Fit
        Runs are simulated from some of its draws (`Fit.new_run`), the others are weighted.
    values : numpy.ndarray
        Draws of the quantity, chain after chain.
    every : float
        Updates between evaluations.
    request : Request
        How many draws, and the seed of all random numbers: candidates share them, which makes
        their differences less noisy.

    Attributes
    ----------
    truths, weighted : numpy.ndarray
        Which draws runs are simulated from, and which are weighted.
    scores : numpy.ndarray
        Normal scores of the quantity in the latter, shape (draw,).
    nothing : numpy.ndarray
        The weights of no data, shape (data, draw).
    """

    def __init__(self, fit: Fit, values: np.ndarray, every: float, request: Request) -> None:
        self.fit, self.every, self.seed = fit, every, request.seed
        chains, n_draws = (fit.posterior.sizes[dim] for dim in ("chain", "draw"))
        index = np.arange(chains * n_draws)
        of_new_runs = stacked(thinned(xr.Dataset(
            {"index": (("chain", "draw"), index.reshape(chains, n_draws))})))["index"].values
        rng = np.random.default_rng(request.seed)
        some = rng.permutation(len(of_new_runs))[:min(request.data_sets, len(of_new_runs) // 4)]
        self._new_runs = np.sort(some)
        self.truths = of_new_runs[self._new_runs]
        self.weighted = np.sort(rng.permutation(np.setdiff1d(index, self.truths))[:request.draws])
        self.scores = normal_scores(values[self.weighted])
        self.nothing = np.zeros((len(self.truths), len(self.scores)))
        self._data = crossing_data(fit.crossings, fit.law)
        parameters = CrossingParameters(self._data, fit.law)
        draws = stacked(fit.posterior).isel(sample=self.weighted)
        self._positions = parameters.pack(draws.sel(threshold=self._data.threshold))
        self._arrays = crossing_arrays(parameters)  # of the runs fitted

    def weights(self, run: Mapping[Hashable, Any], replicate: int = 0) -> np.ndarray:
        """Return log p of simulated data of a run under every draw, shape (data, draw).

        Parameters
        ----------
        run : mapping
            ``n_prompts, n_rollouts, learning_rate, updates``, as a row of `candidates`.
        replicate : int
            Which run of that batch.
        """
        at = evaluations(self.every, run["updates"])
        if not at.size:
            return self.nothing
        batch = (run["n_prompts"], run["n_rollouts"])
        rate = run["learning_rate"] if self.fit.law.learning_rate else None
        new = self.fit.new_run(*batch, learning_rate=rate, random_seed=self.seed + replicate)
        data = self._simulated(crossing_bounds(new.values[self._new_runs, :, 0], at), batch, rate)
        simulated = crossing_arrays(CrossingParameters(data, self.fit.law))
        weights = np.column_stack([simulated.weights[:, 0], self._arrays.weights[:, -1]])
        return run_log_likelihoods(self._positions, simulated._replace(weights=weights)).T

    def _simulated(
        self, bounds: tuple[np.ndarray, np.ndarray, np.ndarray], batch: tuple[float, float],
        rate: float | None,
    ) -> CrossingData:
        """Return simulated runs of one batch as the model's data, in the units of the fit."""
        n, run = len(bounds[0]), {
            "n_prompts": batch[0], "n_rollouts": batch[1], "total_batch": batch[0] * batch[1],
            "learning_rate": np.nan if rate is None else rate}
        crossings = xr.Dataset(
            {name: (("run", "threshold"), values)
             for name, values in zip(("lower", "upper", "status"), bounds, strict=True)},
            coords={"run": np.arange(n), "threshold": self._data.threshold,
                    **{name: ("run", np.full(n, float(value))) for name, value in run.items()}},
            attrs=self.fit.crossings.attrs)
        data = crossing_data(crossings, self.fit.law, self._data.threshold_logit)
        shift = data.log_steps_scale - self._data.log_steps_scale
        return replace(
            data, log_lower=data.log_lower + shift, log_upper=data.log_upper + shift,
            midpoint=np.where(data.midpoint == 0.0, 0.0, data.midpoint + shift),
            log_steps_scale=self._data.log_steps_scale,
            log_batch_scale=self._data.log_batch_scale, log_rate_scale=self._data.log_rate_scale,
            log_rate=data.log_rate + data.log_rate_scale - self._data.log_rate_scale)

    def added(self, known: np.ndarray, all_weights: Sequence[np.ndarray]) -> pd.DataFrame:
        """Return what data say beyond what is known, both log weights of shape (data, draw).

        A row of `Information` for each of the data; it is ``resolved`` above two of its errors.
        """
        before = posterior_moments(known, self.scores)
        said = pd.DataFrame([
            expected_information(before, posterior_moments(known + weights, self.scores))
            for weights in all_weights])
        return said.assign(resolved=said["nats"] > 2.0 * said["error"])


def evaluations(every: float, updates: float) -> np.ndarray:
    """Return the updates at which a run is evaluated after its start: every so many, and its end.

    A run of length 0 has none.
    """
    steps = np.arange(1, int(updates // every) + 1) * float(every)
    ends_between = updates > 0 and (steps.size == 0 or steps[-1] < updates)
    return np.append(steps, float(updates)) if ends_between else steps


def crossing_bounds(
    log_steps: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what evaluations show of crossings.

    Parameters
    ----------
    log_steps : numpy.ndarray
        log S, shape (run, threshold), thresholds from easy to hard.
    at : numpy.ndarray
        Updates of the evaluations, sorted, at least one.

    Returns
    -------
    lower, upper, status : numpy.ndarray
        As of `cbsbayes.crossings.intervals.find_crossings`, shape (run, threshold). A harder
        threshold is never passed at an earlier evaluation than an easier one.
    """
    passed = np.maximum.accumulate(np.searchsorted(np.log(at), log_steps), axis=1)
    ends = np.concatenate([[0.0], at, [np.inf]])
    status = np.select([passed == len(at), passed == 0], [RIGHT, LEFT], INTERVAL)
    return ends[passed], ends[passed + 1], status.astype(np.int8)


def choose_set(
    judge: Judge, options: pd.DataFrame, all_weights: Sequence[np.ndarray], alone: pd.DataFrame,
    *, runs: int, budget: float,
) -> pd.DataFrame:
    """Return runs within a budget, a row each: the best beyond those before it.

    Its ``candidate``, what it added to them, and what it says together with them.

    Two greedy sets are made, one by information per price and one by information alone; the one
    that says more together is returned. The first alone may leave most of the budget unspent, the
    second may spend it on one dear run. Without a budget only the first is. A candidate whose
    information is lost in its Monte Carlo error is taken only where all are.

    Parameters
    ----------
    judge : Judge
        What weighs.
    options : pandas.DataFrame
        The runs to choose from (`candidates`).
    all_weights, alone
        Their weights, and what each says by itself (`Judge.added`).
    runs : int
        At most so many.
    budget : float
        At most so much in all, and enough for one; may be infinite.
    """
    rules = (True, False) if runs > 1 and np.isfinite(budget) else (True,)
    sets = [_greedy(judge, options, all_weights, alone, (runs, budget), per_price=per_price)
            for per_price in rules]
    return max(sets, key=lambda chosen: chosen["together"].iloc[-1])


def _greedy(
    judge: Judge, options: pd.DataFrame, all_weights: Sequence[np.ndarray], alone: pd.DataFrame,
    most: tuple[int, float], *, per_price: bool,
) -> pd.DataFrame:
    prices = options["cost"].to_numpy()
    known, (runs, left), gains = judge.nothing, most, alone
    chosen: list[dict[str, float]] = []
    while len(chosen) < runs and (affordable := prices <= left * (1 + 1e-9)).any():
        if chosen:
            gains = judge.added(known, all_weights)
        values = gains["nats"] / (prices if per_price else 1.0)
        clear = affordable & gains["resolved"]
        best = int(np.where(clear if clear.any() else affordable, values, -np.inf).argmax())
        # its own data, independent of those all candidates were judged by
        known = known + judge.weights(options.iloc[best].to_dict(), len(chosen) + 1)
        left -= prices[best]
        together = judge.added(judge.nothing, [known]).iloc[0]
        chosen.append({
            "candidate": best, "added": gains["nats"][best], "added_error": gains["error"][best],
            "together": together["nats"], "together_error": together["error"],
            "effective_draws": together["effective"]})
    return pd.DataFrame(chosen)


def _table(
    options: pd.DataFrame, alone: pd.DataFrame, chosen: pd.DataFrame, budget: float
) -> pd.DataFrame:
    table = options.assign(
        information=alone["nats"], information_error=alone["error"], resolved=alone["resolved"],
        width_ratio=np.exp(-alone["nats"]), per_cost=alone["nats"] / options["cost"],
        per_cost_error=alone["error"] / options["cost"], effective_draws=alone["effective"],
        affordable=options["cost"] <= budget * (1 + 1e-9),
        chosen=np.bincount(chosen["candidate"], minlength=len(options)))
    table = table.sort_values(["resolved", "per_cost"], ascending=False, kind="stable")
    return table.assign(rank=np.arange(1, len(table) + 1))[COLUMNS["plan"]].reset_index(drop=True)


def _set_table(options: pd.DataFrame, chosen: pd.DataFrame, tried: TriedRuns) -> pd.DataFrame:
    table = options.iloc[chosen["candidate"]].reset_index(drop=True)
    again = table.groupby(AXES, dropna=False).cumcount()  # of one batch: other seeds
    seeds = [tried.next_seeds(run, k + 1)[k] for run, k in zip(
        table[AXES].to_numpy(), again, strict=True)]
    return table.join(chosen).assign(
        order=np.arange(1, len(table) + 1), seed=seeds, cost_so_far=table["cost"].cumsum(),
        width_ratio=np.exp(-chosen["together"]))[COLUMNS["runs"]]
