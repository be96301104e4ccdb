"""Step times: the model sampled, and of a sweep which count, what a step is, what is noted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fitted import C_P, C_R, T_0, timed_sweep
from timed_tables import CELLS, NAMES, TRUTH, table, terms

from cbsbayes.decisions import step_times
from cbsbayes.decisions.step_times import fit_step_times, step_times_of_sweep
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.nuts import SamplerSettings
from cbsbayes.simulation.sweep import simulate_sweep


def interval(draws, prob=0.9):
    return np.quantile(draws, [(1 - prob) / 2, (1 + prob) / 2])


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


def test_passes_over_a_batch_do_not_make_its_step_larger(both, times):
    """Two passes: two updates a step of P prompts, so P stays what the step handles."""
    twice = both.assign_coords(ppo_epochs=("run", np.full(both.sizes["run"], 2)),
                               train_batch_prompts=("run", np.full(both.sizes["run"], -1)),
                               updates_per_step=("run", np.full(both.sizes["run"], 2)))
    again = step_times_of_sweep(twice)
    assert (again.runs["step_prompts"] == again.runs["n_prompts"]).all()
    one, two = (np.median(found.seconds_per_update(np.array([[64.0, 8.0]])))
                for found in (times, again))
    assert two == pytest.approx(one / 2, rel=0.05)


def test_the_table_names_units_and_bounds(times):
    table = times.model.table(0.9).set_index("quantity")
    assert table.loc["t_0", "status"] == table.loc["c_r", "status"] == "identified"
    wide = times.model.table(0.98).set_index("quantity")
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
    table = times.model.table(0.9).set_index("quantity")
    assert (table.loc[["c_p", "c_r"], "status"] == "upper_bound").all()


def test_total_batches_alone_have_one_cost(both):
    unknown = ("run", np.full(both.sizes["run"], -1))
    one = step_times_of_sweep(both.assign_coords(n_prompts=unknown, n_rollouts=unknown))
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


TIMED = table(np.random.default_rng(0), sigma=0.05)


@pytest.fixture(scope="module")
def found():
    return fit_step_times(*TIMED, NAMES)


def test_known_coefficients_are_recovered(found):
    for name, true in zip(NAMES, TRUTH, strict=True):
        low, high = interval(found.draws[name], 0.98)
        assert low < true < high
    assert (found.table(0.9)["r_hat"] < 1.01).all()
    assert float(found.draws["sigma_time"].median()) == pytest.approx(0.05, rel=0.35)
    predicted = np.median(found.population(terms(CELLS)), axis=0)
    np.testing.assert_allclose(predicted, terms(CELLS) @ TRUTH, rtol=0.06)


def test_slow_runs_pull_the_terms_less_than_they_pull_their_mean(found):
    seconds, rows = TIMED
    slow = seconds * np.where(np.arange(len(seconds)) % 9 == 4, 3.0, 1.0)  # 3 of 27
    clean, robust = (np.median(model.population(terms(CELLS)), axis=0)
                     for model in (found, fit_step_times(slow, rows, NAMES)))
    assert np.abs(np.log(robust / clean)).max() < 0.06 < np.log(slow.mean() / seconds.mean())


def test_a_cost_of_nothing_is_near_nothing_and_open_below():
    seconds, rows = table(np.random.default_rng(3), truth=np.array([20.0, 0.0, 0.2]))
    low, high = interval(fit_step_times(seconds, rows, NAMES).draws["c_p"])
    assert 0 < low < 0.15 * high < 0.3


def test_floor_and_work_that_overlap_are_told_from_their_sum():
    cells = np.array([(2.0**k, 8.0) for k in range(2, 13)])
    truth = np.maximum(20.0, 0.02 * cells.prod(axis=1))
    noise = np.exp(0.02 * np.random.default_rng(4).normal(size=len(cells) * 3))
    found = fit_step_times(np.repeat(truth, 3) * noise,
                           np.repeat(terms(cells)[:, [0, 2]], 3, axis=0), ("t_0", "c_b"))
    assert interval(found.draws["kappa"])[1] < 0.4
    assert float(found.draws["t_0"].median()) == pytest.approx(20, rel=0.03)


@pytest.mark.mcmc
def test_intervals_hold_the_truth_as_often_as_they_say(monkeypatch):
    """40 tables of 27 runs, 300 draws each: shares within four Monte Carlo errors of .9."""
    monkeypatch.setattr(step_times, "SamplerSettings", lambda **asked: replace(
        SamplerSettings(**asked), draws=150, tune=200, chains=2))
    held = {"coefficients": [], "population": [], "new": []}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found = fit_step_times(*table(rng), NAMES, random_seed=seed)
        population, true = found.population(terms(CELLS)), terms(CELLS) @ TRUTH
        coefficients = found.draws[list(NAMES)].to_array().values.reshape(len(NAMES), -1).T
        new = population * np.exp(found.deviation(len(CELLS), rng))
        for name, draws, value in (
                ("coefficients", coefficients, TRUTH), ("population", population, true),
                ("new", new, true * np.exp(0.1 * rng.normal(size=len(true))))):
            low, high = np.quantile(draws, [0.05, 0.95], axis=0)
            held[name].append(((low <= value) & (value <= high)).mean())
    for name, shares in held.items():
        error = np.std(shares, ddof=1) / np.sqrt(len(shares))
        assert error < 0.05, name
        assert abs(np.mean(shares) - 0.9) < 4 * error, (name, np.mean(shares), error)
