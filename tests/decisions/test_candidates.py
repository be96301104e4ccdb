"""Runs that could be next, and what they cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fitted import C_P, C_R, T_0

from cbsbayes.decisions.batches import range_of
from cbsbayes.decisions.candidates import Choices, TriedRuns, candidates, second_rate, tried_runs
from cbsbayes.decisions.step_times import Cost, hours_cost, step_time_cost, step_times_of
from cbsbayes.decisions.time_to_target import batch_grid
from cbsbayes.errors import CBSDataError

TRIED = TriedRuns(np.array([(32.0, 8.0), (32.0, 8.0), (128.0, 8.0), (128.0, 2.0)]),
                  np.full(4, 1e-6), np.array([1, 2, 1, 1]), 25.0, 600.0)


def batches_of(options):
    return sorted(set(zip(options["n_prompts"], options["n_rollouts"], strict=True)))


class TestCandidates:
    def test_batches_are_pairs_of_those_tried_inside_the_samples_tried(self, fit):
        own = candidates(fit, TRIED, Choices(), Cost(), np.nan)
        assert batches_of(own) == [(32.0, 8.0), (128.0, 2.0), (128.0, 8.0)]
        assert not own["extrapolated"].any()
        asked = candidates(fit, TRIED, Choices((4096.0,), (2.0,)), Cost(), np.nan)
        assert batches_of(asked) == [(4096.0, 2.0)]
        assert asked["extrapolated"].all()

    def test_seeds_are_the_lowest_known_that_the_batch_lacks_then_new_ones(self):
        assert TRIED.next_seeds((128, 8, 1e-6)) == [2]
        assert TRIED.next_seeds((32, 8, 1e-6), 2) == [3, 4]
        assert TRIED.next_seeds((32, 8, 2e-6), 2) == [1, 2]
        assert TRIED.next_seeds((64, 8, 1e-6), 3) == [1, 2, 3]
        assert replace(TRIED, seeds=np.full(4, -1)).next_seeds((32, 8, 1e-6)) == [1]
        unknown = replace(TRIED, rates=np.full(4, np.nan))
        assert unknown.next_seeds((32, 8, np.nan)) == [3]

    def test_a_batch_has_its_own_rate_or_that_of_the_rule(self):
        rule = replace(TRIED, rates=1e-6 * np.sqrt(TRIED.batches[:, 0] / 32))
        assert rule.rate_at(128, 8) == pytest.approx(2e-6)
        assert rule.rate_at(2048, 4) == pytest.approx(8e-6)
        assert TRIED.rate_at(64, 8) == 1e-6
        assert np.isnan(replace(TRIED, rates=np.full(4, np.nan)).rate_at(64, 8))

    def test_every_batch_at_every_rate_where_the_law_knows_it(self, rate_fit):
        tried = tried_runs(rate_fit)
        own = candidates(rate_fit, tried, Choices((32, 512)), Cost(), np.nan)
        by_rate = own.groupby(["n_prompts", "learning_rate"])
        assert len(by_rate) == 2 * len(np.unique(tried.rates))
        assert (own["runs_tried"] == 1).all()
        assert not own["extrapolated"].any()
        shortest = by_rate["updates"].min().loc[512.0]
        assert shortest.iloc[0] > shortest.iloc[1]  # a rate far below the best
        beyond = candidates(rate_fit, tried, Choices((32,), rates=(1e-5,)), Cost(), np.nan)
        assert beyond["extrapolated"].all()
        assert second_rate(rate_fit, tried, Choices(), Cost(), np.nan).empty

    def test_a_fit_of_one_rate_lacks_three_runs_at_three_times_the_rate(self, fit):
        tried = replace(tried_runs(fit), rates=np.full(fit.crossings.sizes["run"], 1e-6))
        runs = second_rate(fit, tried, Choices(), Cost(), np.nan)
        assert runs["n_prompts"].tolist() == [32, 256, 1024]
        assert set(runs["n_rollouts"]) == {8}
        assert set(runs["learning_rate"]) == {3e-6}
        assert set(runs["seed"]) == {tried.seeds.min()}
        assert second_rate(fit, tried_runs(fit), Choices(), Cost(), np.nan).empty
        with pytest.raises(CBSDataError, match="learning rates cannot be chosen: the law two_axis"):
            candidates(fit, TRIED, Choices(rates=(1e-6,)), Cost(), np.nan)

    def test_what_was_tried_is_read_off_the_runs_fitted(self, fit):
        tried = tried_runs(fit)
        assert (tried.every, tried.longest, tried.one_axis) == (25, 600, False)
        assert len(tried.batches) == fit.crossings.sizes["run"]

    def test_lengths_let_nine_of_ten_new_runs_pass(self, fit):
        options = candidates(fit, tried_runs(fit), Choices(), Cost(), np.nan)
        assert (options["updates"] % 25 == 0).all()
        assert options.groupby(["n_prompts", "n_rollouts"])["reach"].max().min() >= 0.88

    @pytest.mark.parametrize(("choices", "cost", "message"), [
        (Choices((32,), (1, 8)), Cost(), r"n_prompts 32, n_rollouts 1 is outside the law .*"
         r"valid: n_prompts from 1, n_rollouts from 2 \(a group of one"),
        (Choices((64,), (8,), (0.0,)), Cost(), "64, n_rollouts 8, 0 updates is 0 samples"),
        (Choices((64,), (8,)), Cost("tokens", rate=-1.0),
         r"is -\d+ tokens; valid: above 0")])
    def test_what_cannot_be_run_or_paid_is_refused(self, fit, choices, cost, message):
        with pytest.raises(CBSDataError, match=message):
            candidates(fit, TRIED, choices, cost, np.nan)


class TestCosts:
    def test_samples_and_hours_of_a_rate(self):
        assert Cost().draws(32, 8) == 256
        assert Cost().range(32, 8) == ""
        assert hours_cost(0.5, 8).draws(32, 8) == pytest.approx(0.5 * 8 * 256 / 3600)

    @pytest.mark.parametrize(("make", "message"), [
        (lambda fit: hours_cost(0.0), "--seconds-per-sample is 0; valid: above 0"),
        (lambda fit: hours_cost(float("nan")), "--seconds-per-sample is nan"),
        (lambda fit: hours_cost(1.0, 0), "--gpus is 0; valid: above 0"),
        (lambda fit: step_time_cost(fit, gpus=-1), "--gpus is -1"),
        (step_time_cost, "no run has a step time.*--seconds-per-sample")])
    def test_what_cannot_be_paid_is_refused(self, fit, make, message):
        with pytest.raises(CBSDataError, match=message):
            make(fit)

    def test_hours_of_step_times_with_batches_beyond_those_timed(self, timed):
        cost, times = step_time_cost(timed, gpus=4), step_times_of(timed)
        seconds = times.seconds_per_update(np.array([[128.0, 8.0]]))[:, 0]
        assert cost.unit == "GPU-hours"
        np.testing.assert_allclose(cost.draws(128, 8), seconds * 4 / 3600)
        assert cost.draws(128, 8).mean() == pytest.approx(
            (T_0 + C_P * 128 + C_R * 1024) * 4 / 3600, rel=0.06)
        grid = batch_grid(timed)
        marks = [cost.range(*batch) for batch in grid.tolist()]
        assert marks == range_of(grid, times.batches).tolist()
        assert {"tried", "extrapolated"} <= set(marks)
