"""Times to the target: from updates and seconds, for a typical and for one new run."""

from __future__ import annotations

import numpy as np
import pytest
from timed_sweeps import timed_fit

from cbsbayes.decisions.step_times import clock_of
from cbsbayes.decisions.time_to_target import NEW, TYPICAL, Machine, quantiles, times_of
from cbsbayes.decisions.times_table import TIME_COLUMNS, times_table
from cbsbayes.errors import CBSDataError


@pytest.fixture(scope="module")
def fit():
    return timed_fit()


@pytest.fixture(scope="module")
def times(fit):
    return times_of(fit, Machine((8, 16), 2.5))


@pytest.fixture(scope="module")
def table(fit, times):
    return times_table(fit, times)


def pick(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    return table


def test_hours_are_updates_times_seconds(fit, times):
    middle = len(times.thresholds) // 2
    b = int(np.flatnonzero((times.batches == [128, 8]).all(axis=1))[0])
    steps = float(np.exp(fit.log_steps(128, 8, times.thresholds[middle]).median()))
    seconds = float(np.median(clock_of(fit).seconds_per_update(np.array([[128.0, 8.0]]))))
    hours = np.median(times.hours[TYPICAL][:, middle, b, 0])
    assert hours == pytest.approx(steps * seconds / 3600, rel=0.02)


def test_the_two_uncertainties_add_up(times):
    """log hours = log S + log seconds, drawn apart: variances add."""
    k, b = 1, len(times.batches) // 2
    of_hours = np.log(times.hours[TYPICAL][:, k, b, 0]).var()
    of_parts = (np.log(times.steps[TYPICAL][:, k, b]).var()
                + np.log(times.seconds[:, b, 0]).var())
    assert of_hours == pytest.approx(of_parts, rel=0.1)


def test_one_new_run_has_the_middle_of_a_typical_one_and_a_wider_interval(times):
    typical, new = (quantiles(times.hours[kind][:, 1, :, 0], 0.9) for kind in (TYPICAL, NEW))
    np.testing.assert_allclose(new[0], typical[0], rtol=0.12)
    assert (new[2] / new[1] > 1.2 * typical[2] / typical[1]).all()


def test_one_new_run_spreads_as_the_fit_says(fit, times):
    """log S of new runs: the run effect, a residual and what S itself is unsure by."""
    new, typical = (np.log(times.steps[kind][:, 1, 5]) for kind in (NEW, TYPICAL))
    extra = (new - typical).std()
    assert extra > float(fit.posterior["sigma_run"].median())
    replicated = np.log(fit.predictive["steps"].isel(threshold=1, run=3).values)
    assert np.std(new) == pytest.approx(np.std(replicated), rel=0.25)


def test_batches_are_all_pairs_and_a_doubling_beyond(fit, times):
    prompts = np.unique(fit.crossings["n_prompts"].values)
    assert times.batches[:, 0].min() == prompts.min() / 2
    assert times.batches[:, 0].max() == 2 * prompts.max()
    assert times.batches[:, 1].min() == 2  # a group of one has no baseline
    tried = set(zip(fit.crossings["n_prompts"].values, fit.crossings["n_rollouts"].values,
                    strict=True))
    marked = {tuple(b) for b, r in zip(times.batches, times.range, strict=True) if r == "tried"}
    assert marked == tried
    assert (times.range[times.batches[:, 0] > prompts.max()] == "extrapolated").all()


def test_costs_follow_from_hours(table):
    np.testing.assert_allclose(table["gpu_hours"], table["hours"] * table["gpus"])
    np.testing.assert_allclose(table["price_upper"], 2.5 * table["gpu_hours_upper"])
    assert list(table.columns) == TIME_COLUMNS


def test_more_gpus_shorten_what_grows_with_the_batch_alone(table, fit):
    here = pick(table, threshold=fit.thresholds[1], applies_to=TYPICAL, n_rollouts=8.0)
    small, large = (pick(here, n_prompts=p).set_index("gpus")["seconds_per_update"]
                    for p in (16.0, 512.0))
    assert 1 < small[8] / small[16] < 1.3 < large[8] / large[16] < 2
    assert table.groupby("gpus")["gpus_measured"].first().to_dict() == {8: True, 16: False}


def test_the_chance_to_be_fastest_is_shared_by_batches_inside(table):
    for _, rows in table[table["applies_to"] == TYPICAL].groupby(["threshold", "gpus"]):
        assert rows["p_fastest"].sum() == pytest.approx(1)
        assert rows.loc[rows["range"] == "extrapolated", "p_fastest"].isna().all()
    assert table.loc[table["applies_to"] == NEW, "p_fastest"].isna().all()


def test_without_gpus_there_are_times_and_no_costs(fit):
    table = times_table(fit, times_of(fit, thresholds=[fit.thresholds[0]]))
    assert table[["gpus", "gpu_hours", "price"]].isna().all().all()
    assert (table["hours_lower"] < table["hours_upper"]).all()
    assert table["threshold"].unique().tolist() == [fit.thresholds[0]]


def test_a_batch_outside_the_law_is_refused(fit):
    with pytest.raises(CBSDataError, match="no value at n_prompts 16 with n_rollouts 1"):
        times_of(fit, batches=np.array([[16.0, 1.0]]))


def test_a_threshold_that_was_not_fitted_is_refused(fit, times):
    with pytest.raises(CBSDataError, match=r"threshold 0\.123 was not fitted; fitted: "):
        times_of(fit, thresholds=[0.123])
    with pytest.raises(CBSDataError, match=r"threshold 0\.123 has no times"):
        times.at(0.123)


def test_a_run_that_never_gets_there_has_infinite_ends_and_a_finite_middle():
    median, low, high = quantiles(np.array([1.0, 2.0, 3.0, np.inf, np.inf])[:, None], 0.9)
    assert (median[0], low[0], high[0]) == (3.0, 1.0, np.inf)


@pytest.mark.parametrize(("machine", "message"), [
    ({"gpus": (0,)}, "--gpus is 0; valid: a whole number of at least 1"),
    ({"gpus": (8, -1)}, "--gpus is -1"),
    ({"gpus": (8,), "price": 0.0}, "--price is 0 per GPU-hour; valid: a positive number"),
    ({"gpus": (8,), "price": float("nan")}, "--price is nan"),
    ({"price": 2.0}, "--price needs the number of GPUs"),
])
def test_machines_that_cannot_be_are_refused(machine, message):
    with pytest.raises(CBSDataError, match=message):
        Machine(**machine)


def test_one_axis_has_times_by_total_batch():
    fit = timed_fit("p1", one_axis=True)
    times = times_of(fit)
    total = np.unique(fit.crossings["total_batch"].values)
    assert times.batches[:, 1].tolist() == [1.0] * len(times.batches)
    np.testing.assert_allclose(times.batches[:, 0], [total[0] / 2, *total, 2 * total[-1]])
    assert times.range.tolist() == ["extrapolated", *["tried"] * len(total), "extrapolated"]
    assert (times.hours[TYPICAL] > 0).all()
