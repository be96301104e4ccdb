"""Candidates, prices, the quantity, and sets of runs chosen one after the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planning_draws import independent_draws
from timed_sweeps import C_P, C_R, T_0, timed_fit

from cbsbayes.decisions.candidates import Candidate, TriedRuns, cells, tried_runs
from cbsbayes.decisions.costs import Cost, hours_cost, sample_cost, step_time_cost
from cbsbayes.decisions.hull import place_batches
from cbsbayes.decisions.information import normal_scores
from cbsbayes.decisions.next_runs import Judge, choose_set
from cbsbayes.decisions.plan_target import choose_target, usual_rollouts
from cbsbayes.decisions.planner import COLUMNS, Request, plan_runs
from cbsbayes.decisions.step_times import clock_of
from cbsbayes.decisions.time_to_target import batch_grid
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.conditions import steps_ratio
from cbsbayes.posterior.fit import stacked
from cbsbayes.posterior.quantities import design_of, quantities
from cbsbayes.posterior.surface import Surface

QUICK = Request(data_sets=64, draws=500, prompts=(32, 128, 512), rollouts=(4, 8))


@pytest.fixture(scope="module")
def plan(fit):
    return plan_runs(fit, QUICK)


def target_of(fit, **asked):
    return choose_target(fit.law, stacked(fit.posterior), design_of(fit.crossings), fit.cbs,
                         rollouts=usual_rollouts(fit.crossings), **asked)


class TestCandidates:
    tried = TriedRuns(((32.0, 8.0), (32.0, 8.0), (128.0, 8.0), (128.0, 2.0)), (1, 2, 1, 1), False,
                      25.0, 600.0)

    def test_batches_are_pairs_of_those_tried_inside_the_samples_tried(self):
        assert cells(self.tried, None, None) == [(32.0, 8.0), (128.0, 2.0), (128.0, 8.0)]
        assert cells(self.tried, (4096.0,), (2.0,)) == [(4096.0, 2.0)]

    def test_a_batch_is_outside_by_prompts_rollouts_or_samples(self):
        assert not self.tried.outside(64, 8)
        assert self.tried.outside(64, 16)
        assert self.tried.outside(256, 2)
        assert self.tried.outside(32, 2)  # 64 samples, fewer than ever

    def test_seeds_are_the_lowest_known_that_the_batch_lacks(self):
        assert self.tried.next_seed(128, 8) == 2
        assert self.tried.next_seed(32, 8) == 3
        assert self.tried.next_seed(64, 8) == 1
        assert replace(self.tried, seeds=(-1, -1, -1, -1)).next_seed(32, 8) == 1

    def test_what_was_tried_is_read_off_the_runs_fitted(self, fit):
        tried = tried_runs(fit.sweep.sel(run=fit.crossings["run"].values), fit.crossings)
        assert tried.every == 25
        assert tried.longest == 600
        assert len(tried.cells) == fit.crossings.sizes["run"]
        assert tried.count(128, 8) == (np.array(tried.cells) == (128, 8)).all(axis=1).sum()

    def test_groups_of_one_are_outside_a_group_law(self, fit):
        with pytest.raises(CBSDataError, match=r"n_prompts 32, n_rollouts 1 is outside the law .*"
                           r"valid: n_prompts from 1, n_rollouts from 2 \(a group of one"):
            plan_runs(fit, replace(QUICK, rollouts=(1, 8)))

    def test_lengths_let_nine_of_ten_new_runs_pass(self, plan):
        longest = plan.table.groupby(["n_prompts", "n_rollouts"])["updates"].idxmax()
        reach = plan.table.loc[longest, "reach"]
        assert (reach >= 0.88).all()
        assert (plan.table["updates"] % 25 == 0).all()


class TestCosts:
    def test_samples(self):
        assert sample_cost().price(32, 8, 100) == 25600

    def test_hours_of_a_rate(self):
        assert hours_cost(0.5, 8).price(32, 8, 100) == pytest.approx(0.5 * 8 * 25600 / 3600)

    @pytest.mark.parametrize(("rate", "gpus", "name"), [
        (0.0, 1, "--seconds-per-sample"), (-1.0, 1, "--seconds-per-sample"),
        (float("nan"), 1, "--seconds-per-sample"), (1.0, 0, "--gpus")])
    def test_what_is_not_positive_is_refused(self, rate, gpus, name):
        with pytest.raises(CBSDataError, match=f"{name} is .*; valid: above 0"):
            hours_cost(rate, gpus)

    def test_hours_are_those_of_the_clock(self):
        fit = timed_fit()
        cost, clock = step_time_cost(fit, gpus=4), clock_of(fit)
        batch = np.array([[128.0, 8.0]])
        seconds = clock.seconds_per_update(batch)[:, 0]
        assert cost.unit == "GPU-hours"
        assert cost.price(128, 8, 100) == pytest.approx(seconds.mean() * 100 * 4 / 3600, rel=1e-9)
        assert cost.price(128, 8, 100) == pytest.approx(
            (T_0 + C_P * 128 + C_R * 1024) * 100 * 4 / 3600, rel=0.05)
        low, high = cost.between(128, 8, 100, 0.9)
        assert ((low < seconds * 400 / 3600) & (seconds * 400 / 3600 < high)).mean() == (
            pytest.approx(0.9, abs=0.01))

    def test_batches_beyond_those_timed_are_marked_as_the_clock_marks_them(self):
        fit = timed_fit()
        cost = step_time_cost(fit)
        grid = batch_grid(fit, clock_of(fit))
        marks = [cost.place(*batch) for batch in grid.tolist()]
        assert marks == place_batches(grid, clock_of(fit).batches).tolist()
        assert {"tried", "extrapolated"} <= set(marks)

    def test_what_the_clock_notes_is_told(self):
        """One axis varied: the cost of a prompt is not told from that of a rollout."""
        cost = step_time_cost(timed_fit("p1"))
        assert any("do not tell the cost of a prompt" in note for note in cost.notes)

    def test_hours_of_total_batches(self):
        cost = step_time_cost(timed_fit(one_axis=True))
        seconds = clock_of(timed_fit(one_axis=True)).seconds_per_update(np.array([[1024.0, 1.0]]))
        assert cost.price(1024, 1, 100) == pytest.approx(seconds.mean() * 100 / 3600, rel=1e-9)
        assert cost.place(1024.0, 1.0) in ("tried", "inside")
        assert cost.place(1e6, 1.0) == "extrapolated"

    def test_runs_without_step_times(self, fit):
        with pytest.raises(CBSDataError, match=r"no run has a step time.*--seconds-per-sample"):
            step_time_cost(fit)
        with pytest.raises(CBSDataError, match="--gpus is -1; valid: above 0"):
            step_time_cost(fit, gpus=-1)


class TestTarget:
    def test_by_default_the_prompt_cbs_at_the_usual_group_and_hardest_identified(self, fit):
        target = target_of(fit)
        assert (target.name, target.at) == ("cbs_prompts", "n_rollouts=8")
        rows = fit.cbs.query("quantity == 'cbs_prompts' and at == 'n_rollouts=8'")
        known = rows[rows["status"] == "identified"]["threshold"]
        assert target.threshold == known.max()
        assert target.status == "identified"
        median = rows[rows["threshold"] == target.threshold]["median"].iloc[0]
        assert target.interval(0.9)[1] == pytest.approx(median, rel=1e-6)

    def test_every_quantity_of_the_table_can_be_asked_for(self, fit):
        draws = stacked(fit.posterior)
        for quantity in quantities(fit.law, draws, design_of(fit.crossings)):
            asked = f"{quantity.name}@{quantity.at}" if quantity.at else quantity.name
            target = target_of(fit, asked=asked)
            assert (target.name, target.at) == (quantity.name, quantity.at)

    def test_a_group_size_that_was_not_tried(self, fit):
        target = target_of(fit, asked="cbs_prompts@n_rollouts=12")
        assert target.at == "n_rollouts=12"
        assert target.status == ""

    def test_where_nothing_is_identified_the_hardest_bound_is_taken(self, fit):
        table = fit.cbs.assign(status="not_identified")
        target = choose_target(fit.law, stacked(fit.posterior), design_of(fit.crossings), table,
                               rollouts=8)
        assert target.threshold == fit.thresholds[-1]
        assert target.status == "not_identified"

    @pytest.mark.parametrize(("asked", "message"), [
        ("cbs", "unknown quantity 'cbs'; this fit has .*cbs_prompts"),
        ("cbs_prompts@n_rollouts", "is not of the form n_rollouts=8"),
        ("cbs_prompts@n_rollouts=-3", "is not of the form n_rollouts=8"),
        ("cbs_prompts@n_prompts=32", "is not stated at n_prompts=32; valid: cbs_prompts@n_roll"),
        ("steps", "is not stated at no batch; valid:")])
    def test_what_cannot_be_planned_for(self, fit, asked, message):
        with pytest.raises(CBSDataError, match=message):
            target_of(fit, asked=asked)

    def test_a_threshold_that_was_not_fitted(self, fit):
        with pytest.raises(CBSDataError, match=r"threshold 0.99 was not fitted; fitted: 0\."):
            target_of(fit, threshold=0.99)


class TestPlan:
    def test_the_table(self, plan):
        assert list(plan.table.columns) == COLUMNS
        assert (plan.table["rank"] == np.arange(1, len(plan.table) + 1)).all()
        resolved = plan.table[plan.table["resolved"]]
        assert (resolved["per_cost"].diff().dropna() <= 0).all()
        np.testing.assert_allclose(plan.table["cost"],
                                   plan.table["total_batch"] * plan.table["updates"])
        np.testing.assert_allclose(plan.table["width_ratio"], np.exp(-plan.table["information"]))
        assert plan.runs.iloc[0]["n_prompts"] == plan.table.iloc[0]["n_prompts"]

    def test_the_same_request_gives_the_same_plan(self, fit, plan):
        again = plan_runs(fit, QUICK)
        assert again.table.equals(plan.table)
        assert not plan_runs(fit, replace(QUICK, seed=1)).table.equals(plan.table)

    def test_information_grows_with_length(self):
        judge = a_judge()
        told = [judge.added(judge.nothing(), judge.weights(run_of(64, 8, updates))).nats
                for updates in (25, 150, 300, 450, 600, 900)]
        assert told[0] < 0.2 * told[-1]
        assert (np.diff(told) > -0.002).all()

    def test_a_length_of_0_has_no_price(self, fit):
        request = replace(QUICK, prompts=(64,), rollouts=(8,))
        with pytest.raises(CBSDataError, match="64, n_rollouts 8, 0 updates is 0 samples"):
            plan_runs(fit, replace(request, updates=(0.0,)))

    def test_the_unit_of_the_cost_does_not_change_the_order(self, fit, plan):
        hours = plan_runs(fit, QUICK, hours_cost(2.0))
        assert hours.table["n_prompts"].tolist() == plan.table["n_prompts"].tolist()
        assert set(hours.table["cost_unit"]) == {"GPU-hours"}

    def test_a_run_of_no_evaluation_tells_nothing(self, fit, plan):
        judge = a_judge()
        option = replace(options_of(plan)[0], updates=0.0)
        assert judge.added(judge.nothing(), judge.weights(option)).nats == 0.0

    def test_a_budget_below_the_cheapest_says_its_price(self, fit, plan):
        cheapest = plan.table["cost"].min()
        with pytest.raises(CBSDataError, match=rf"budget of 10 samples is below the cheapest "
                           rf"candidate: .* costs {cheapest:,.6g} samples"):
            plan_runs(fit, replace(QUICK, budget=10))

    @pytest.mark.parametrize(("change", "message"), [
        ({"budget": 0.0}, "budget is 0.0; valid: above 0"),
        ({"budget": float("nan")}, "budget is nan"), ({"runs": 0}, "runs is 0; valid: at least 1"),
        ({"reach": 1.0}, "reach is 1.0"), ({"draws": 10}, "draws is 10; valid: at least 200"),
        ({"every": 0.0}, "every is 0.0"), ({"updates": (-1.0,)}, "updates is")])
    def test_requests_that_make_no_sense(self, change, message):
        with pytest.raises(CBSDataError, match=message):
            replace(QUICK, **change)

    def test_a_fit_of_curves_is_refused(self, fit):
        other = type(fit)(fit.tree)
        other.__dict__["settings"] = fit.settings | {"model": "trajectory"}
        with pytest.raises(CBSDataError, match="is of the trajectory model"):
            plan_runs(other, QUICK)

    def test_prices_that_are_not_positive_are_refused(self, fit):
        with pytest.raises(CBSDataError, match=r"is -1 tokens; valid: above 0"):
            plan_runs(fit, QUICK, Cost(lambda p, g, n: -1.0, "tokens", ""))


def a_judge():
    draws = independent_draws()
    critical = Surface(draws.law, draws.posterior).solve(steps_ratio(2.0), "prompts", 8)
    values = critical.isel(threshold=-1).values
    return Judge(draws.part(np.arange(128)), draws.part(np.arange(128, draws.size)),
                 normal_scores(values[128:]), 25.0, 0)


def run_of(n_prompts, n_rollouts, updates):
    return Candidate(n_prompts, n_rollouts, updates, 1, n_prompts * n_rollouts * updates, 0, False,
                     0.9)


def options_of(plan):
    return [run_of(row.n_prompts, row.n_rollouts, row.updates) for row in plan.table.itertuples()]


class TestSets:
    def test_runs_of_one_batch_saturate(self):
        judge, option = a_judge(), run_of(64, 8, 600)
        known, together = judge.nothing(), []
        for k in range(4):
            known = known + judge.weights(option, replicate=k + 1)
            together.append(judge.added(judge.nothing(), known).nats)
        assert (np.diff(together) > 0).all()
        assert together[3] < 2 * together[1]
        assert together[1] < 2 * together[0]

    def test_what_runs_add_is_what_they_tell_together(self):
        judge, known, added = a_judge(), 0.0, []
        for k, option in enumerate([run_of(64, 8, 600), run_of(128, 2, 300)]):
            weights = judge.weights(option, replicate=k + 1)
            added.append(judge.added(judge.nothing() + known, weights).nats)
            known = known + weights
        assert judge.added(judge.nothing(), known).nats == pytest.approx(sum(added))

    def test_replicates_are_other_data(self):
        judge, option = a_judge(), run_of(64, 8, 600)
        first, again, other = (judge.weights(option, replicate=k) for k in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_a_set_keeps_to_its_budget_and_its_number(self, fit, plan):
        budget = 3 * float(plan.table["cost"].min())
        several = plan_runs(fit, replace(QUICK, runs=5, budget=budget))
        assert 1 <= len(several.runs) <= 5
        assert several.runs["cost"].sum() <= budget
        assert several.table["chosen"].sum() == len(several.runs)
        np.testing.assert_allclose(several.runs["cost_so_far"], several.runs["cost"].cumsum())

    def test_two_runs_of_a_batch_get_two_seeds(self, fit):
        several = plan_runs(fit, replace(QUICK, prompts=(64,), rollouts=(8,), runs=3))
        assert len(several.runs) == 3
        assert not several.runs.duplicated(["n_prompts", "n_rollouts", "seed"]).any()

    def test_the_set_tells_no_less_than_the_runs_best_per_price(self):
        judge = a_judge()
        options = [run_of(p, g, 400) for p in (32, 64, 256) for g in (4, 8)]
        weights = judge.all_weights(options)
        budget = 2 * max(option.cost for option in options)
        found = choose_set(judge, options, weights, runs=2, budget=budget)
        per_price = choose_set(judge, options, weights, runs=2, budget=np.inf)
        assert found[-1].together.nats >= per_price[-1].together.nats
        assert len({run.index for run in found}) <= 2

    def test_what_is_lost_in_its_error_is_not_chosen_where_something_is_not(self):
        judge = a_judge()
        options = [run_of(1024, 8, 1), run_of(64, 8, 600)]
        chosen = choose_set(judge, options, judge.all_weights(options), runs=1, budget=np.inf)
        assert [run.index for run in chosen] == [1]
