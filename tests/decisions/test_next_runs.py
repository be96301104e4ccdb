"""Plans: runs simulated and weighed, candidates ranked, sets chosen one after the other."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from fitted import RATES, SETTINGS, changed, narrow_draws, quick_sampling
from scipy import stats

from cbsbayes.crossings.intervals import INTERVAL, LEFT, RIGHT
from cbsbayes.decisions.batches import COLUMNS
from cbsbayes.decisions.candidates import Choices, Request
from cbsbayes.decisions.information import planned_quantity
from cbsbayes.decisions.next_runs import Judge, choose_set, crossing_bounds, evaluations, plan_runs
from cbsbayes.decisions.step_times import hours_cost
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.tidy import STATUSES
from cbsbayes.simulation.sweep import simulate_sweep

QUICK = Request(data_sets=64, draws=500, choices=Choices((32, 128, 512), (4, 8)))
SURE = replace(SETTINGS, draws=750)


@pytest.fixture(scope="module")
def prior_fit():
    """A fit whose posterior is 3,000 independent draws of narrow priors."""
    with quick_sampling(partial(narrow_draws, repeats=1)):
        return fit_sweep(simulate_sweep("p1+p2b", 1, random_seed=3), thresholds=(0.6, 0.65, 0.7),
                         sampler=SURE, alternatives=False)


@pytest.fixture(scope="module")
def rate_prior_fit():
    """The same of one group size at three learning rates."""
    with quick_sampling(partial(narrow_draws, repeats=1)):
        return fit_sweep(simulate_sweep("lr", rates=RATES, max_updates=1500, random_seed=1),
                         thresholds=(0.65, 0.7), sampler=SURE, alternatives=False)


@pytest.fixture(scope="module")
def judge(prior_fit):
    values = planned_quantity(prior_fit, threshold=0.7).values
    return Judge(prior_fit, values, 25.0, Request(data_sets=128, draws=2000))


@pytest.fixture(scope="module")
def plan(fit):
    return plan_runs(fit, QUICK)


def run_of(n_prompts, n_rollouts, updates):
    return {"n_prompts": n_prompts, "n_rollouts": n_rollouts, "updates": updates,
            "cost": n_prompts * n_rollouts * updates}


def nats(judge, weights):
    return judge.added(judge.nothing, [weights])["nats"][0]


class TestPlan:
    def test_the_table(self, plan):
        assert list(plan.table.columns) == COLUMNS["plan"]
        assert list(plan.runs.columns) == COLUMNS["runs"]
        assert (plan.table["rank"] == np.arange(1, len(plan.table) + 1)).all()
        resolved = plan.table[plan.table["resolved"]]
        assert (resolved["per_cost"].diff().dropna() <= 0).all()
        np.testing.assert_allclose(plan.table["cost"],
                                   plan.table["total_batch"] * plan.table["updates"])
        np.testing.assert_allclose(plan.table["width_ratio"], np.exp(-plan.table["information"]))
        assert plan.runs.iloc[0]["n_prompts"] == plan.table.iloc[0]["n_prompts"]

    def test_the_same_request_gives_the_same_plan_in_any_unit_of_cost(self, fit, plan):
        hours = plan_runs(fit, QUICK, hours_cost(2.0))
        assert hours.table["information"].equals(plan.table["information"])
        assert set(hours.table["cost_unit"]) == {"GPU-hours"}
        assert not plan_runs(fit, replace(QUICK, seed=1)).table["information"].equals(
            plan.table["information"])

    def test_a_set_keeps_to_its_budget_and_its_number(self, fit, plan):
        budget = 3 * float(plan.table["cost"].min())
        several = plan_runs(fit, replace(QUICK, runs=5, budget=budget))
        assert 1 <= len(several.runs) <= 5
        assert several.runs["cost"].sum() <= budget
        assert several.table["chosen"].sum() == len(several.runs)
        np.testing.assert_allclose(several.runs["cost_so_far"], several.runs["cost"].cumsum())
        assert not several.runs.duplicated(["n_prompts", "n_rollouts", "seed"]).any()

    def test_a_budget_below_the_cheapest_says_its_price(self, fit, plan):
        with pytest.raises(CBSDataError, match=rf"budget of 10 samples is below the cheapest "
                           rf"candidate: .* costs {plan.table['cost'].min():,.6g} samples"):
            plan_runs(fit, replace(QUICK, budget=10))

    @pytest.mark.parametrize(("change", "message"), [
        ({"budget": 0.0}, "budget is 0.0; valid: above 0"),
        ({"budget": float("nan")}, "budget is nan"), ({"runs": 0}, "runs is 0; valid: at least 1"),
        ({"draws": 10}, "draws is 10; valid: at least 200"), ({"seed": -1}, "seed is -1; valid: 0"),
        ({"choices": Choices(reach=1.0)}, "reach is 1.0"),
        ({"choices": Choices(every=0.0)}, "every is 0.0"),
        ({"choices": Choices(updates=(-1.0,))}, "updates is")])
    def test_requests_that_make_no_sense(self, change, message):
        with pytest.raises(CBSDataError, match=message):
            replace(QUICK, **change)

    def test_two_rates_either_side_of_the_best_tell_more_of_it_than_two_at_the_same(
            self, rate_prior_fit):
        request = Request(quantity="best_rate@n_prompts=128,n_rollouts=8", runs=3, data_sets=64,
                          draws=500, choices=Choices((128,)))
        plan = plan_runs(rate_prior_fit, request)
        assert sorted(plan.table["learning_rate"].unique()) == sorted(RATES)
        assert plan.quantity.status in STATUSES
        assert plan.runs["learning_rate"].nunique() > 1
        assert plan.second_rate.empty

    def test_a_fit_of_curves_is_refused(self, fit):
        with pytest.raises(CBSDataError, match="is of the trajectory model"):
            plan_runs(changed(fit, settings=fit.settings | {"model": "trajectory"}), QUICK)


def ranks(fit, run, asked=None, threshold=None):
    """Return where the quantity's true value falls among the weighted draws, per data set."""
    values = planned_quantity(fit, asked, threshold).values
    judge = Judge(fit, values, 25.0, Request(data_sets=250, draws=2500))
    log_w = judge.weights(run)
    share = np.exp(log_w - log_w.max(axis=1, keepdims=True))
    below = values[judge.weighted] < values[judge.truths][:, None]
    return (share * below).sum(axis=1) / share.sum(axis=1)


class TestJudge:
    @pytest.mark.parametrize("run", [(128, 8, 300), (32, 8, 500), (128, 2, 200)])
    def test_weighted_draws_are_a_posterior_of_the_data_they_were_weighted_by(self, prior_fit, run):
        found = ranks(prior_fit, run_of(*run), threshold=0.7)
        assert stats.kstest(found, "uniform").pvalue > 0.01

    @pytest.mark.parametrize("rate", [3e-7, 2e-6])
    def test_so_are_those_of_a_learning_rate(self, rate_prior_fit, rate):
        found = ranks(rate_prior_fit, run_of(128, 8, 600) | {"learning_rate": rate},
                      "best_rate@n_prompts=128,n_rollouts=8")
        assert stats.kstest(found, "uniform").pvalue > 0.01

    def test_runs_of_one_batch_are_other_data_and_saturate(self, judge):
        option, known, together = run_of(64, 8, 600), judge.nothing, []
        np.testing.assert_array_equal(judge.weights(option, 1), judge.weights(option, 1))
        for k in range(4):
            known = known + judge.weights(option, replicate=k + 1)
            together.append(nats(judge, known))
        assert (np.diff(together) > 0).all()
        assert together[3] < 2 * together[1] < 4 * together[0]

    def test_a_set_says_no_less_than_the_runs_best_per_price(self, judge):
        options = [run_of(p, g, 400) for p in (32, 64, 256) for g in (4, 8)]
        weights = [judge.weights(option) for option in options]
        alone = judge.added(judge.nothing, weights)
        table = pd.DataFrame(options)
        budget = 2 * table["cost"].max()
        found, per_price = (choose_set(judge, table, weights, alone, runs=2, budget=most)
                            for most in (budget, np.inf))
        assert found["together"].iloc[-1] >= per_price["together"].iloc[-1]

    def test_what_is_lost_in_its_error_is_not_chosen_where_something_is_not(self, judge):
        options = [run_of(1024, 8, 1), run_of(64, 8, 600)]
        weights = [judge.weights(option) for option in options]
        chosen = choose_set(judge, pd.DataFrame(options), weights,
                            judge.added(judge.nothing, weights), runs=1, budget=np.inf)
        assert chosen["candidate"].tolist() == [1]


def test_bounds_hold_the_updates_and_follow_the_evaluations(prior_fit):
    log_steps = prior_fit.new_run(128, 8).transpose("sample", "threshold", "batch").values[..., 0]
    ordered = np.maximum.accumulate(log_steps, axis=1)
    lower, upper, status = crossing_bounds(log_steps, evaluations(100, 300))
    assert ((lower < np.exp(ordered)) & (np.exp(ordered) <= upper)).all()
    assert set(np.unique(status)) == {LEFT, INTERVAL, RIGHT}
    assert (upper[status == INTERVAL] - lower[status == INTERVAL] == 100).all()
    assert (lower[status == LEFT] == 0).all()
    assert (lower[status == RIGHT] == 300).all()
    assert (upper[status == RIGHT] == np.inf).all()
    assert (np.diff(lower, axis=1) >= 0).all()


@pytest.mark.parametrize(("every", "updates", "at"), [
    (25, 100, [25, 50, 75, 100]), (25, 60, [25, 50, 60]), (25, 10, [10]), (25, 0, []),
    (2, 3.5, [2, 3.5])])
def test_evaluations(every, updates, at):
    assert evaluations(every, updates).tolist() == at
