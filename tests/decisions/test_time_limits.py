"""The batch under a budget or a deadline, on times that are known."""

from __future__ import annotations

import numpy as np
import pytest
from timed_sweeps import made_times

from cbsbayes.decisions.time_limits import CHOICE_COLUMNS, choices_table, choose, limits_of
from cbsbayes.decisions.time_to_target import NEW, TYPICAL, Machine
from cbsbayes.errors import CBSDataError

ON_8 = Machine((8,), 2.0)


def one(times, probability=0.9, kind=TYPICAL, gpu_hours=None, money=None, deadline=None):
    limit, = limits_of(times, gpu_hours, money, deadline)
    return choose(times, 0.7, limit, probability, kind)


def test_without_a_limit_the_fastest_is_named():
    choice = one(made_times([5.0, 3.0, 4.0]))
    assert (choice.batch, choice.met, choice.beyond) == (1, True, None)


def test_a_budget_is_met_with_the_probability_asked_for():
    times = made_times([40.0, 24.0], machine=ON_8)  # GPU-hours; spread .1 in log, uniform
    assert one(times, gpu_hours=27.0).batch == 1
    barely = one(times, gpu_hours=24.0)
    assert not barely.met
    assert barely.probability == pytest.approx(0.5, abs=0.01)
    assert one(times, gpu_hours=24.0, probability=0.45).met


def test_one_new_run_needs_more_room_than_a_typical_one():
    times = made_times([24.0], machine=ON_8)
    typical, new = (one(times, gpu_hours=28.0, kind=kind) for kind in (TYPICAL, NEW))
    assert (typical.met, new.met) == (True, False)
    assert typical.probability > new.probability > 0.5


def test_money_is_gpu_hours_times_the_price():
    times = made_times([24.0], machine=ON_8)
    assert one(times, money=54.0).probability == one(times, gpu_hours=27.0).probability


def test_the_cheapest_in_time_is_found_under_a_deadline():
    times = made_times([40.0, 24.0, 25.0], machine=ON_8)
    choice = one(times, deadline=4.0)
    assert (choice.batch, choice.met, choice.limit.question) == (1, True, "cheapest")


def test_what_cannot_be_met_names_the_most_likely():
    choice = one(made_times([40.0, 24.0, 30.0], machine=ON_8), deadline=1.0)
    assert (choice.met, choice.batch, choice.probability) == (False, 1, 0.0)


def test_a_batch_outside_the_range_is_named_and_not_chosen():
    times = made_times([2.0, 3.0, 4.0], inside=[False, True, True])
    choice = one(times)
    assert (choice.batch, choice.beyond) == (1, 0)


def test_counts_that_are_bounds_are_not_chosen():
    times = made_times([16.0, 24.0], machine=Machine((2, 16)))
    choice = one(times)
    assert (choice.batch, choice.gpus) == (0, 0)


def test_the_table_holds_both_kinds_of_run():
    times = made_times([40.0, 24.0], machine=ON_8)
    table, choices = choices_table(times, [0.7], limits_of(times, 30.0, None, 5.0), 0.9, 0.9)
    assert list(table.columns) == CHOICE_COLUMNS
    assert len(table) == len(choices) == 4
    assert table["applies_to"].tolist() == [TYPICAL, NEW] * 2
    first = table.iloc[0]
    assert first["cost"] == pytest.approx(24.0, rel=0.01)
    assert first["hours"] == pytest.approx(3.0, rel=0.01)
    assert (first["cost_unit"], first["gpus"]) == ("GPU-hours", 8)
    assert (table["hours_lower"] < table["hours"]).all()


def test_stated_probabilities_are_kept():
    """Truths drawn from the times themselves meet the limit as often as is said."""
    times = made_times([24.0], machine=ON_8, draws=2000)
    rng = np.random.default_rng(0)
    for limit in (22.0, 24.0, 26.0):
        said = one(times, gpu_hours=limit).probability
        truth = 8 * rng.choice(times.hours[TYPICAL][:, 0, 0, 0], 2000)
        assert (truth <= limit).mean() == pytest.approx(said, abs=0.04)


@pytest.mark.parametrize(("limits", "message"), [
    ((0.0, None, None), "--gpu-hours is 0; valid: a positive number"),
    ((None, None, -1.0), "--deadline is -1"),
    ((None, float("nan"), None), "--money is nan"),
    ((10.0, None, None), "--gpu-hours needs the number of GPUs"),
    ((None, 10.0, None), "--money needs a price"),
])
def test_limits_that_cannot_be_are_refused(limits, message):
    with pytest.raises(CBSDataError, match=message):
        limits_of(made_times([1.0]), *limits)
