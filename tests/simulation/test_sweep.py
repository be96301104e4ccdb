"""Simulated sweeps: true S, curves that cross there, designs, disturbances of the size asked."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import LAWS
from cbsbayes.simulate import main
from cbsbayes.simulation.sweep import Disturbances, cells, design_table, simulate_sweep
from cbsbayes.simulation.truth import Truth, mean_noise, progress_at, true_steps, truth_of
from cbsbayes.sweep.dataset import append, notes_of
from cbsbayes.sweep.files import read_sweep

EVALUATED = np.arange(0.0, 601.0, 25.0)


def integrated_steps(truth, prompts, rollouts, threshold):
    """S from the differential equation itself, in updates."""
    def speed(_, state):
        level = truth.level(state[0], rollouts)
        noise = {name: float(value) for name, value in truth.scales(level).items()}
        divisor = rollouts if truth.law.endswith("plain") else rollouts - 1
        ratio = (noise["B_prompt"] + noise["B_rollout"] / divisor) / prompts
        return [(1 + ratio) ** -truth.alpha]

    def arrived(_, state):
        return truth.level(state[0], rollouts) - threshold

    arrived.terminal = True
    solved = solve_ivp(speed, (0, 1e5), [0.0], events=arrived, rtol=1e-9, atol=1e-9)
    return solved.t_events[0][0]


@pytest.mark.parametrize("truth", [
    Truth(), Truth(alpha=0.5), Truth(law="two_axis_plain", alpha=0.7),
    Truth(alpha=0.8, ceiling=0.4), Truth(alpha=0.8, form="hill", shape=1.4, scale=70.0)])
@pytest.mark.parametrize(("prompts", "rollouts"), [(32, 8), (1024, 4)])
def test_true_steps_solve_the_equation_of_progress(truth, prompts, rollouts):
    for threshold in (0.6, 0.68):
        expected = integrated_steps(truth, prompts, rollouts, threshold)
        assert true_steps(truth, prompts, rollouts, threshold) == pytest.approx(expected, rel=1e-3)


@settings(max_examples=40)
@given(st.integers(1, 4096), st.integers(2, 64), st.floats(0.56, 0.74))
def test_with_exponent_one_the_law_holds_at_every_threshold(prompts, rollouts, threshold):
    truth = Truth()
    scales = mean_noise(truth, threshold)
    law = LAWS["two_axis"]
    expected = float(progress_at(truth, threshold)) * np.exp(
        law.log_ratio(prompts, rollouts, scales))
    assert true_steps(truth, prompts, rollouts, threshold) == pytest.approx(expected, rel=1e-4)


def test_the_default_truth_is_the_one_that_was_measured_against():
    ds = simulate_sweep()
    at = ds.sel(threshold=[0.6, 0.66, 0.72])
    np.testing.assert_allclose(at["true_S_min"], [34.5, 95.8, 228], rtol=3e-3)
    np.testing.assert_allclose(at["true_B_prompt"], [58, 73, 99], rtol=1e-2)
    np.testing.assert_allclose(at["true_B_rollout"], [260, 370, 597], rtol=3e-3)
    assert ds.attrs["true_alpha"] == 1.0


def test_small_groups_saturate_lower():
    ds = simulate_sweep("p2b", n_items=10**9, sigma_run=0.0, max_updates=20000, eval_every=500,
                        curve={"ceiling": 0.4})
    top = ds["accuracy"].isel(metric=0, step=-1).values
    np.testing.assert_allclose(top, 0.55 + 0.2 * (1 - 0.4 / ds["n_rollouts"].values), atol=1e-3)
    truth = truth_of(ds)
    assert truth.ceiling == 0.4
    assert np.isnan(true_steps(truth, 128, 2, 0.72))
    assert progress_at(truth, 0.72) < progress_at(truth, 0.72, 8) < np.inf


def test_an_accuracy_never_reached_has_no_steps():
    assert np.isnan(true_steps(Truth(), 64, 8, 0.75))
    assert true_steps(Truth(), 64, 8, 0.5) == 0.0
    assert true_steps(Truth(), [64, 128], 8, [[0.6], [0.7]]).shape == (2, 2)


def test_total_batch_truth_sees_only_the_product():
    truth = Truth(law="total")
    np.testing.assert_allclose(true_steps(truth, [64, 8, 512], [8, 64, 1], 0.66),
                               true_steps(truth, 64, 8, 0.66))
    noise = mean_noise(truth, 0.66)["B_noise"]
    assert true_steps(truth, noise, 1, 0.66) == pytest.approx(
        2 * float(progress_at(truth, 0.66)), rel=1e-4)


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_noiseless_curves_cross_where_the_truth_says(alpha):
    ds = simulate_sweep("all", sigma_run=0.0, eval_every=5, n_items=10**9, alpha=alpha)
    thresholds = ds["threshold"].values
    found = find_crossings(ds, thresholds)
    truth = true_steps(ds, ds["n_prompts"].values[:, None], ds["n_rollouts"].values[:, None],
                       thresholds)
    # A rounding of the grid of progress, far below the spacing of evaluations.
    assert (found["lower"].values <= truth + 0.1).all()
    assert (np.minimum(found["upper"].values, 1e9) >= truth - 0.1).all()
    assert (found["status"] == 1).sum() > 60


def test_run_effects_shift_whole_runs():
    ds = simulate_sweep("p1", 4, sigma_run=0.3, eval_every=2, n_items=10**9, random_seed=3)
    found = find_crossings(ds, [0.63])
    middle = (found["lower"] + found["upper"])[:, 0].values / 2
    typical = true_steps(ds, ds["n_prompts"].values, ds["n_rollouts"].values, 0.63)
    seen = np.isfinite(middle)
    assert seen.sum() > 12
    np.testing.assert_allclose(np.log(middle / typical)[seen],
                               ds["true_run_effect"].values[seen], atol=0.06)


def test_accuracy_scatters_as_a_binomial_does():
    ds = simulate_sweep("p1", 200, sigma_run=0.0, max_updates=25, n_items=400)
    start = ds["accuracy"].sel(step=0).values
    assert start.mean() == pytest.approx(0.55, abs=0.004)
    assert start.std() == pytest.approx(np.sqrt(0.55 * 0.45 / 400), rel=0.1)


def test_a_fixed_item_set_bends_all_runs_alike():
    ds = simulate_sweep("p1", 2, item_set=True, n_items=500, sigma_run=0.0, eval_every=1)
    truth = truth_of(ds)
    assert len(truth.items) == 500
    accuracy = ds["accuracy"].isel(metric=0).values
    assert (np.diff(accuracy, axis=1) >= 0).all()
    assert len(set(accuracy[:, 0])) == 1
    np.testing.assert_array_equal(accuracy[::2], accuracy[1::2])
    shift = np.abs(ds["true_level"].values - ds["threshold"].values)
    assert 0 < shift.max() < 0.1
    found = find_crossings(ds, ds["threshold"].values)
    expected = true_steps(ds, ds["n_prompts"].values[:, None], 8, ds["threshold"].values)
    assert (found["lower"].values <= expected + 0.1).all()
    assert (np.minimum(found["upper"].values, 1e9) >= expected - 0.1).all()


def test_checkpoint_noise_leaves_the_shared_start_alone():
    quiet = simulate_sweep("p1", item_set=True)
    noisy = simulate_sweep("p1", item_set=True, checkpoint_noise=0.02)
    np.testing.assert_array_equal(noisy["accuracy"].sel(step=0), noisy["accuracy"][0, :, 0].item())
    assert float((noisy["accuracy"] - quiet["accuracy"]).sel(step=slice(25, None)).std()) > 0.01


def test_designs_are_those_of_the_study():
    assert len(cells("all")) == 19
    assert cells("p1")[0] == ("p1", 32, 8)
    assert cells("p1")[-1] == ("p1", 1024, 8)
    assert [rollouts for _, _, rollouts in cells("p2b")] == [1, 2, 4, 8, 16, 32, 64]
    assert {prompts * rollouts for _, prompts, rollouts in cells("p2c")} == {2048}
    assert cells("p1+p2b") == cells("p1") + cells("p2b")
    table = design_table("p1+p2c", 3)
    assert len(table) == 36
    assert table["run"].is_unique
    assert table["run"][0] == "cbs_p1_np32_nr8_s0"
    with pytest.raises(CBSDataError, match="unknown design 'p9'"):
        cells("p1+p9")
    with pytest.raises(CBSDataError, match="one axis with two"):
        cells("p1+batch")


def test_simulated_sweeps_say_so_even_when_joined():
    ds = simulate_sweep("p1")
    assert ds.attrs["simulated"] == 1
    assert set(ds["source"].values) == {"simulate"}
    assert ds.attrs["title"].startswith("simulated")
    both = append(simulate_sweep("p1"), simulate_sweep("p2b"))
    assert both.attrs["simulated"] == 1
    assert notes_of(both) == ["Simulated data, not measured."]
    assert not any(str(name).startswith("true_") for name in both.data_vars)
    with pytest.raises(CBSDataError, match="carries no truth"):
        truth_of(both)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"seeds": 0}, "seeds is 0"), ({"eval_every": 0}, "eval_every is 0"),
    ({"n_items": -1}, "n_items is -1"), ({"sigma_run": -1.0}, "sigma_run is -1"),
    ({"alpha": 0.0}, "alpha is 0"), ({"law": "cubic"}, "unknown law 'cubic'"),
    ({"random_seed": -1}, "random seed is -1"), ({"design": "batch"}, "use --law total"),
    ({"curve": {"start": 0.9}}, "gain is 0.2"), ({"curve": {"noise": {}}}, "noise has no"),
    ({"checkpoint_noise": float("nan")}, "checkpoint_noise is nan"),
    ({"curve": {"form": "cubic"}}, "form is 'cubic'"), ({"curve": {"ceiling": 1.0}}, "ceiling is"),
])
def test_impossible_requests_are_refused(arguments, message):
    with pytest.raises(CBSDataError, match=message):
        simulate_sweep(**arguments)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def test_by_default_nothing_is_disturbed(rng):
    calm = Disturbances()
    assert not calm.drift(rng, 3, EVALUATED).any()
    np.testing.assert_array_equal(calm.trained_steps(rng, 3, EVALUATED), np.tile(EVALUATED, (3, 1)))
    assert calm.run_effects(rng, 0.1, 20_000).std() == pytest.approx(0.1, rel=0.03)


def test_heavy_tails_keep_the_scale_and_reach_far(rng):
    effect = Disturbances(run_freedom=3.0).run_effects(rng, 0.08, 200_000) / 0.08
    assert np.quantile(np.abs(effect), 0.5) == pytest.approx(0.765, rel=0.02)  # of t, 3 dof
    assert np.mean(np.abs(effect) > 4) == pytest.approx(0.028, rel=0.1)  # normal: 6e-5


def test_drift_starts_at_nothing_and_forgets_at_its_rate(rng):
    drift = Disturbances(drift_sd=0.02, drift_memory=50.0).drift(rng, 20_000, EVALUATED)
    assert not drift[:, 0].any()
    assert drift[:, 1].std() == pytest.approx(0.02 * np.sqrt(1 - np.exp(-1.0)), rel=0.03)
    assert drift[:, -1].std() == pytest.approx(0.02, rel=0.03)
    late = np.corrcoef(drift[:, -3], drift[:, -1])[0, 1]
    assert late == pytest.approx(np.exp(-50 / 50), abs=0.03)


def test_an_offset_is_a_run_s_own_and_begins_with_training(rng):
    drift = Disturbances(offset_sd=0.01).drift(rng, 20_000, EVALUATED)
    assert not drift[:, 0].any()
    np.testing.assert_array_equal(drift[:, 1], drift[:, -1])
    assert drift[:, 1].std() == pytest.approx(0.01, rel=0.03)


def test_a_wandering_run_goes_forwards_and_changes_its_speed_along_the_way(rng):
    worth = Disturbances(wander=0.1).trained_steps(rng, 20_000, EVALUATED)
    assert (np.diff(worth) > 0).all()
    np.testing.assert_allclose(np.median(worth, axis=0), EVALUATED, rtol=0.02)
    speed = np.log(np.diff(worth) / 25.0)
    first, last = speed[:, 0], speed[:, -1]
    assert last.std() == pytest.approx(0.1 * np.sqrt(np.log(50.0)), rel=0.05)
    assert first.std() < 0.5 * last.std()
    middle = speed[:, len(EVALUATED) // 2]
    assert np.corrcoef(middle, last - middle)[0, 1] == pytest.approx(0.0, abs=0.03)


@pytest.mark.parametrize(("argument", "value"), [
    ("run_freedom", 0.0), ("drift_sd", -1.0), ("drift_memory", 0.0), ("wander", np.inf),
    ("offset_sd", -1.0)])
def test_what_disturbs_nothing_or_everything_is_refused(argument, value):
    with pytest.raises(CBSDataError, match=f"{argument} is {value}"):
        Disturbances(**{argument: value})


def test_the_command_writes_a_valid_sweep_and_prints_the_truth(tmp_path, capsys):
    path = tmp_path / "sweep.nc"
    assert main(["-o", str(path), "--design", "p1+p2b", "--seeds", "2", "--eval-every", "10",
                 "--n-items", "500", "--max-updates", "100", "--alpha", "0.5", "--seed", "4"]) == 0
    ds = read_sweep(path)
    assert ds.identical(simulate_sweep("p1+p2b", 2, eval_every=10, n_items=500, max_updates=100,
                                       alpha=0.5, random_seed=4).assign_attrs(
                                           history=ds.attrs["history"]))
    assert ds.sizes["run"] == 26
    assert ds["step"].values[-1] == 100
    printed = capsys.readouterr().out
    assert "S_min" in printed
    assert f"{float(ds['true_S_min'][0]):.4g}" in printed
    with xr.open_dataset(path) as plain:
        assert plain.attrs["simulated"] == 1


def test_bad_requests_end_in_one_line(tmp_path, capsys):
    assert main(["-o", str(tmp_path / "s.nc"), "--seeds", "0"]) == 1
    assert main(["-o", str(tmp_path / "no" / "s.nc")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("cbsbayes.simulate: seeds is 0")
    assert "does not exist" in lines[1]
    assert list(tmp_path.iterdir()) == []
