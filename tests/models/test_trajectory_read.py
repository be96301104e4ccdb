"""What is read off the shared curve, and where new runs cross: as the model says."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from trajectory_plain import curve

from cbsbayes.inference.trajectory import expected_accuracy, find_laplace
from cbsbayes.models.laws import get_law
from cbsbayes.models.parameters import CURVE, INITIAL_ACCURACY, PROGRESS, now_name
from cbsbayes.models.trajectory import TrajectoryParameters
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_read import crossing_of, read_thresholds, replicated_log_steps
from cbsbayes.posterior.fit import stacked
from cbsbayes.posterior.surface import Surface
from cbsbayes.simulation.sweep import simulate_sweep

LAW, FREE = get_law("two_axis"), get_law("two_axis_free")
THRESHOLDS = np.array([0.60, 0.65, 0.68])
OWN = ("sigma_run", "sigma_wander", "sigma_offset", "sigma_noise", "sigma_serial")


@pytest.fixture(scope="module")
def model():
    sweep = simulate_sweep("all", 1, eval_every=40, max_updates=600, random_seed=3)
    sweep = sweep.isel(run=np.flatnonzero(sweep["n_rollouts"].values >= 2))
    sweep["n_items"] = xr.full_like(sweep["n_items"], 10**7)
    return TrajectoryParameters(trajectory_data(sweep, FREE, None), FREE, ceiling_by_group=True)


@pytest.fixture(scope="module")
def position(model):
    at = model.center.copy()
    at[model.slices["ceiling_loss"]] = 0.6
    return at


def test_the_curve_kept_is_the_model_s(model, position):
    kept = read_thresholds(model, position[None, None], np.array([0.62]), 0).isel(chain=0, draw=0)
    p = {name: value[0] for name, value in model.variables(position[None]).items()}
    log_tau = np.log(kept[PROGRESS].values) - model.data.log_steps_scale
    h, _, at_start = curve(model, p, log_tau)
    np.testing.assert_allclose(kept[CURVE], h, atol=2e-3)  # waves finer than the fit carries
    assert float(kept[INITIAL_ACCURACY]) == pytest.approx(at_start, abs=1e-12)
    assert kept[now_name("B_prompt")].dims == (PROGRESS,)


def test_small_groups_are_expected_to_stay_lower(model, position):
    without = position.copy()
    without[model.slices["ceiling_loss"]] = 0.0
    low = model.variables(position[None])["start"][0]
    gains = [expected_accuracy(model, at) - low for at in (position, without)]
    share = np.exp(-0.6 / model.data.n_rollouts)[model.data.run_of]
    np.testing.assert_allclose(gains[0], gains[1] * share, atol=1e-9)


def test_replicates_of_a_group_that_never_arrives_are_censored(model, position):
    quiet = position.copy()
    for name in OWN:
        quiet[model.slices[name]] = -12.0
    top = float(read_thresholds(model, quiet[None, None], np.array([0.62]), 0)[CURVE].max())
    low = float(model.variables(quiet[None])["start"][0])
    target = low + 0.85 * (top - low)  # groups of two reach .74 of the gain, of four .86
    draws = stacked(read_thresholds(model, np.repeat(quiet[None, None], 2, axis=1),
                                    np.array([target]), 0))
    steps = np.exp(replicated_log_steps(model, draws, np.random.default_rng(0)))[:, :, 0]
    last = np.array([model.data.seen_steps[end - 1] for end in model.data.seen_start[1:]])
    last *= np.exp(model.data.log_steps_scale)
    small, large = model.data.n_rollouts == 2, model.data.n_rollouts == 64
    assert (steps[:, small] > 20 * last[small]).all()
    assert (steps[:, large] < 20 * last[large]).all()


@pytest.fixture(scope="module")
def fitted():
    full = simulate_sweep("all", 1, eval_every=10, random_seed=5)
    sweep = full.isel(run=np.flatnonzero(full["n_rollouts"].values >= 2))
    found = find_laplace(TrajectoryParameters(trajectory_data(sweep, LAW, None), LAW))
    position = np.repeat(found.mode[None, None], 400, axis=1)
    return found.parameters, stacked(read_thresholds(found.parameters, position, THRESHOLDS, 0))


def test_a_crossing_lies_on_the_line_between_evaluations():
    curve, steps = np.array([0.2, 0.2, 0.6]), np.array([10.0, 20.0, 40.0])
    found = crossing_of(np.array([0.15, 0.4, 0.7]), curve, steps, 0.1)
    np.testing.assert_allclose(np.exp(found), [5.0, 30.0, np.nan])


def test_runs_without_effects_and_noise_cross_where_the_law_says(fitted):
    model, draws = fitted
    quiet = draws.assign({name: draws[name] * 1e-9 for name in OWN})
    log_s = replicated_log_steps(model, quiet, np.random.default_rng(0))
    expected = Surface(LAW, draws).log_steps(
        float(model.data.n_prompts[0]), float(model.data.n_rollouts[0])).transpose("sample", ...)
    assert log_s.shape == (400, len(model.data.run), 3)
    # S_min is read off with waves of the bend that the simulated curve does not have
    np.testing.assert_allclose(np.median(log_s[:, 0], axis=0), np.median(expected, axis=0),
                               atol=0.05)


def test_runs_differ_by_their_own_speed(fitted):
    model, draws = fitted
    own = draws.assign({name: draws[name] * 1e-9 for name in OWN if name != "sigma_run"})
    own["sigma_run"] = draws["sigma_run"] * 0 + 0.2
    log_s = replicated_log_steps(model, own, np.random.default_rng(0))
    assert np.median(log_s[:, :, 1].std(axis=0)) == pytest.approx(0.2, rel=0.1)
