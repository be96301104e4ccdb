"""Times to the target, for the population and one new run, and the batch under a limit."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from fitted import timed_fit

from cbsbayes.decisions.batches import COLUMNS, NEW_RUN, POPULATION
from cbsbayes.decisions.step_times import step_times_of
from cbsbayes.decisions.time_to_target import (
    HOURS,
    Budget,
    Times,
    choices_table,
    times_of,
    times_table,
)
from cbsbayes.errors import CBSDataError


@pytest.fixture(scope="module")
def times(timed):
    return times_of(timed, Budget(gpus=(8, 16), price=2.5))


@pytest.fixture(scope="module")
def table(timed, times):
    return times_table(timed, times)


class TestTimes:
    def test_hours_are_updates_times_seconds_drawn_apart(self, timed, times):
        level, batch = float(timed.thresholds[1]), np.array([[128.0, 8.0]])
        b = int(np.flatnonzero((times.batches == batch).all(axis=1))[0])
        steps = np.exp(timed.log_steps(128.0, 8.0, level).values)
        seconds = step_times_of(timed).seconds_per_update(batch)
        hours = times.amount(HOURS, level)[:, b, 0]
        assert np.median(hours) == pytest.approx(np.median(steps) * np.median(seconds) / 3600,
                                                 rel=0.02)
        parts = np.log(steps).var() + np.log(seconds).var()
        assert np.log(hours).var() == pytest.approx(parts, rel=0.1)

    def test_one_new_run_has_the_middle_of_the_population_and_a_wider_interval(self, timed, times):
        level = float(timed.thresholds[1])
        population, new = (np.quantile(times.amount(HOURS, level, who)[..., 0], [0.05, 0.5, 0.95],
                                       axis=0) for who in (POPULATION, NEW_RUN))
        np.testing.assert_allclose(new[1], population[1], rtol=0.12)
        assert (new[2] / new[0] > 1.2 * population[2] / population[0]).all()
        extra = np.log(times.draws["steps"]).sel(threshold=level).diff("applies_to")
        assert float(extra.std()) > float(timed.posterior["sigma_run"].median())

    def test_batches_are_all_pairs_and_a_doubling_beyond(self, timed, times):
        prompts = np.unique(timed.crossings["n_prompts"].values)
        assert times.batches[:, 0].min() == prompts.min() / 2
        assert times.batches[:, 0].max() == 2 * prompts.max()
        assert times.batches[:, 1].min() == 2  # a group of one has no baseline
        tried = set(zip(timed.crossings["n_prompts"].values, timed.crossings["n_rollouts"].values,
                        strict=True))
        where = times.draws["range"].values
        assert {tuple(b) for b, r in zip(times.batches, where, strict=True)
                if r == "tried"} == tried
        assert (where[times.batches[:, 0] > prompts.max()] == "extrapolated").all()

    def test_costs_follow_from_hours(self, table):
        assert list(table.columns) == COLUMNS["times"]
        np.testing.assert_allclose(table["gpu_hours"], table["hours"] * table["gpus"])
        np.testing.assert_allclose(table["price_upper"], 2.5 * table["gpu_hours_upper"])

    def test_more_gpus_shorten_what_grows_with_the_batch_alone(self, timed, table):
        here = table[(table["threshold"] == timed.thresholds[1]) & (table["n_rollouts"] == 8)
                     & (table["applies_to"] == POPULATION)]
        seconds = here.pivot_table(index="gpus", columns="n_prompts", values="seconds_per_update")
        faster = seconds.loc[8] / seconds.loc[16]
        assert 1 < faster[16.0] < 1.3 < faster[512.0] < 2
        assert table.groupby("gpus")["gpus_measured"].first().to_dict() == {8: True, 16: False}

    def test_the_chance_to_be_fastest_is_shared_by_batches_inside(self, table):
        for _, rows in table[table["applies_to"] == POPULATION].groupby(["threshold", "gpus"]):
            assert rows["p_fastest"].sum() == pytest.approx(1)
            assert rows.loc[rows["range"] == "extrapolated", "p_fastest"].isna().all()
        assert table.loc[table["applies_to"] == NEW_RUN, "p_fastest"].isna().all()

    def test_one_axis_has_times_by_total_batch(self):
        fit = timed_fit("p1", one_axis=True)
        times = times_of(fit)
        total = np.unique(fit.crossings["total_batch"].values)
        assert (times.batches[:, 1] == 1).all()
        np.testing.assert_allclose(times.batches[:, 0], [total[0] / 2, *total, 2 * total[-1]])
        assert times.draws["range"].values.tolist() == [
            "extrapolated", *["tried"] * len(total), "extrapolated"]


@pytest.mark.parametrize(("budget", "message"), [
    ({"gpus": (8, -1)}, "--gpus is -1; valid: above 0"),
    ({"gpus": (8,), "price": 0.0}, "--price is 0"), ({"price": 2.0}, "--price needs the number"),
    ({"samples": 0.0}, "--samples is 0"), ({"gpu_hours": 0.0}, "--gpu-hours is 0; valid: above 0"),
    ({"gpu_hours": 10.0}, "--gpu-hours needs the number of GPUs"),
    ({"money": float("nan")}, "--money is nan"), ({"money": 10.0}, "--money needs a price"),
    ({"deadline": -1.0}, "--deadline is -1")])
def test_budgets_that_cannot_be_are_refused(budget, message):
    with pytest.raises(CBSDataError, match=message):
        Budget(**budget)


def choice(medians, probability=0.9, inside=True, **budget):
    """Return the choice for the population of batches whose medians (hours) are known.

    They are of one GPU; the draws spread by .15 in log at most.
    """
    budget, medians = Budget(**budget), np.asarray(medians, dtype=float)
    spread = 0.1 * np.linspace(-1.5, 1.5, 400)
    grid = medians[:, None] / np.array(budget.counts)
    hours = np.stack([grid * np.exp(width * spread)[:, None, None] for width in (1, 3)])
    times = Times(budget, xr.Dataset(
        {"hours": (("applies_to", "sample", "threshold", "batch", "gpus"), hours[:, :, None])},
        coords={"applies_to": [POPULATION, NEW_RUN], "threshold": [0.7],
                "n_prompts": ("batch", 2.0 ** np.arange(len(medians))),
                "n_rollouts": ("batch", np.full(len(medians), 8.0)), "range": ("batch", np.where(
                    np.broadcast_to(inside, len(medians)), "tried", "extrapolated"))}))
    return choices_table(times, 0.7, probability, 0.9).iloc[0]


class TestLimits:
    def test_a_budget_is_met_with_the_probability_asked_for(self):
        within = choice([40.0, 24.0], gpus=(8,), gpu_hours=27.0)
        assert within[["n_prompts", "applies_to"]].tolist() == [2.0, POPULATION]
        barely = choice([40.0, 24.0], gpus=(8,), gpu_hours=24.0)
        assert not barely["met"]
        assert barely["probability"] == pytest.approx(0.5, abs=0.01)
        assert choice([40.0, 24.0], 0.45, gpus=(8,), gpu_hours=24.0)["met"]
        money = choice([40.0, 24.0], gpus=(8,), price=2.0, money=54.0)
        assert money["probability"] == within["probability"]

    @pytest.mark.parametrize(("deadline", "met", "probability"), [(4.0, True, 1.0),
                                                                  (1.0, False, 0.0)])
    def test_the_cheapest_in_time_or_the_most_likely_is_named(self, deadline, met, probability):
        found = choice([40.0, 24.0, 25.0], gpus=(8,), price=2.0, deadline=deadline)
        assert found[["n_prompts", "question"]].tolist() == [2.0, "cheapest"]
        assert found[["met", "probability"]].tolist() == [met, probability]

    def test_a_batch_outside_the_range_is_named_and_not_chosen(self):
        found = choice([2.0, 3.0, 4.0], inside=[False, True, True])
        assert found[["n_prompts", "beyond_n_prompts"]].tolist() == [2.0, 1.0]

    def test_counts_that_are_bounds_are_not_chosen(self):
        assert choice([16.0, 24.0], gpus=(2, 16))[["n_prompts", "gpus"]].tolist() == [1.0, 2]
