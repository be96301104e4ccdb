"""The step times of a sweep: which count, what a step is, and what is noted about them."""

from __future__ import annotations

import numpy as np
import pytest
from fitted import C_P, C_R, T_0, timed_sweep

from cbsbayes.decisions.batches import COLUMNS
from cbsbayes.decisions.step_times import (
    step_time_table,
    step_times_of_sweep,
)
from cbsbayes.errors import CBSDataError
from cbsbayes.simulation.sweep import simulate_sweep


@pytest.fixture(scope="module")
def both():
    return timed_sweep(simulate_sweep("p1+p2b", 2), seed=1)


@pytest.fixture(scope="module")
def times(both):
    return step_times_of_sweep(both)


def test_seconds_per_update_are_recovered(times):
    batches = np.array([[64.0, 8.0], [128.0, 16.0]])
    true = T_0 + C_P * batches[:, 0] + C_R * batches.prod(axis=1)
    low, high = np.quantile(times.seconds_per_update(batches), [0.01, 0.99], axis=0)
    assert ((low < true) & (true < high) & (high < 1.25 * low)).all()


def test_a_step_of_several_updates_is_shared_among_them(both, times):
    """With the same step times, a step of two mini-batches is as long and is two updates."""
    halved = both.assign_coords(
        train_batch_prompts=("run", both["n_prompts"].values),
        n_prompts=("run", both["n_prompts"].values // 2),
        total_batch=("run", both["total_batch"].values / 2),
        updates_per_step=("run", np.full(both.sizes["run"], 2)))
    two = step_times_of_sweep(halved)
    assert two.updates_per_step == 2
    one, half = np.array([[64.0, 8.0]]), np.array([[32.0, 8.0]])
    np.testing.assert_allclose(np.median(two.seconds_per_update(half)),
                               np.median(times.seconds_per_update(one)) / 2, rtol=0.02)


def test_passes_over_a_batch_do_not_make_its_step_larger(both):
    """Two passes: two updates a step of P prompts, so P stays what the step handles."""
    twice = both.assign_coords(ppo_epochs=("run", np.full(both.sizes["run"], 2)),
                               train_batch_prompts=("run", np.full(both.sizes["run"], -1)),
                               updates_per_step=("run", np.full(both.sizes["run"], 2)))
    again = step_times_of_sweep(twice)
    assert (again.runs["step_prompts"] == again.runs["n_prompts"]).all()
    one, two = (np.median(found.seconds_per_update(np.array([[64.0, 8.0]])))
                for found in (step_times_of_sweep(both), again))
    assert two == pytest.approx(one / 2, rel=0.05)


def test_the_table_names_units_and_bounds(times):
    table = step_time_table(times, "a group", 0.9).set_index("quantity")
    assert set(table.reset_index().columns) == set(COLUMNS["clock"])
    assert table.loc["t_0", "status"] == table.loc["c_r", "status"] == "identified"
    wide = step_time_table(times, "a group", 0.98).set_index("quantity")
    assert wide.loc["t_0", "ci_lower"] < T_0 < wide.loc["t_0", "ci_upper"]
    assert wide.loc["c_r", "ci_lower"] < C_R < wide.loc["c_r", "ci_upper"] < 1.5 * C_R
    assert (table["r_hat"] < 1.02).all()
    bounded = table[table["status"] == "upper_bound"]
    assert bounded["median"].isna().all()
    assert bounded["ci_upper"].notna().all()


def test_one_axis_is_said_to_leave_the_split_open():
    times = step_times_of_sweep(timed_sweep(simulate_sweep("p1", 2)))
    assert len(times.notes) == 1
    assert "do not tell the cost of a prompt from that of a rollout" in times.notes[0]
    table = step_time_table(times, "", 0.9).set_index("quantity")
    assert (table.loc[["c_p", "c_r"], "status"] == "upper_bound").all()


def test_total_batches_alone_have_one_cost(both):
    n = both.sizes["run"]
    one = step_times_of_sweep(both.assign_coords(n_prompts=("run", np.full(n, -1)),
                                            n_rollouts=("run", np.full(n, -1))))
    assert one.model.names == ("t_0", "c_b")
    assert one.one_axis
    assert set(map(tuple, one.batches)) == {(b, 1.0) for b in both["total_batch"].values}


@pytest.mark.parametrize(("known", "message"), [(0, "no run has a step time"),
                                                (2, "only 2 of 16 runs have a step time")])
def test_fewer_than_three_times_are_one_line(known, message):
    ds = timed_sweep(simulate_sweep("p1", 2)).isel(run=slice(0, 16))
    count = ds.sizes["run"]
    ds["step_time"].values[known:] = np.nan
    with pytest.raises(CBSDataError, match=message.replace("16", str(count))) as raised:
        step_times_of_sweep(ds)
    assert "\n" not in str(raised.value)
    assert "perf/time_per_step" in str(raised.value)


def test_a_batch_that_the_form_misses_is_named(both):
    ds = both.copy(deep=True)
    odd = (ds["n_prompts"].values == 256) & (ds["n_rollouts"].values == 8)
    assert odd.sum() == 2
    ds["step_time"].values[odd] *= 2.5
    notes = step_times_of_sweep(ds).notes
    assert len(notes) == 1
    assert notes[0].startswith("At 256 prompts × 8 rollouts the 2 runs took ")


def test_step_times_of_different_gpu_counts_are_never_pooled(both, times):
    gpus = np.where(np.arange(both.sizes["run"]) % 4 == 0, 4, 8)
    slower = both.assign_coords(n_gpus=("run", gpus)).assign(
        step_time=both["step_time"] * np.where(gpus == 4, 2, 1))
    found = step_times_of_sweep(slower)
    assert set(found.runs["run"]) == set(both["run"].values[gpus == 8])
    assert found.notes[0] == ("Runs used different numbers of GPUs (4, 8); step times are those of "
                              f"the {(gpus == 8).sum()} runs on 8.")
    each = both.assign_coords(n_gpus=("run", np.arange(1, both.sizes["run"] + 1)))
    with pytest.raises(CBSDataError, match="three on the same are needed"):
        step_times_of_sweep(each)
