"""What is read off curves whose group sizes have ceilings of their own."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from trajectory_plain import curve

from cbsbayes.models.laws import get_law
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_parameters import TrajectoryParameters
from cbsbayes.models.trajectory_read import expected_accuracy, read_thresholds
from cbsbayes.models.trajectory_replicate import replicated_log_steps
from cbsbayes.models.variables import CURVE, INITIAL_ACCURACY, PROGRESS, now_name
from cbsbayes.posterior.fit import stacked
from cbsbayes.simulation.sweep import simulate_sweep

LAW = get_law("two_axis_free")


@pytest.fixture(scope="module")
def model():
    sweep = simulate_sweep("all", 1, eval_every=40, max_updates=600, random_seed=3)
    sweep = sweep.isel(run=np.flatnonzero(sweep["n_rollouts"].values >= 2))
    sweep["n_items"] = xr.full_like(sweep["n_items"], 10**7)
    return TrajectoryParameters(trajectory_data(sweep, LAW, None), LAW, ceiling_by_group=True)


@pytest.fixture(scope="module")
def position(model):
    at = model.center.copy()
    at[model.slices["ceiling_loss"]] = 0.6
    return at


def test_the_curve_kept_is_the_model_s(model, position):
    kept = read_thresholds(model, position[None, None], np.array([0.62]), 0).isel(chain=0, draw=0)
    p = {name: value[0] for name, value in model.parameters(position[None]).items()}
    log_tau = np.log(kept[PROGRESS].values) - model.data.log_steps_scale
    h, _, at_start = curve(model, p, log_tau)
    np.testing.assert_allclose(kept[CURVE], h, atol=2e-3)  # waves finer than the fit carries
    assert float(kept[INITIAL_ACCURACY]) == pytest.approx(at_start, abs=1e-12)
    assert kept[now_name("B_prompt")].dims == (PROGRESS,)


def test_small_groups_are_expected_to_stay_lower(model, position):
    without = position.copy()
    without[model.slices["ceiling_loss"]] = 0.0
    low = model.parameters(position[None])["start"][0]
    gains = [expected_accuracy(model, at) - low for at in (position, without)]
    share = np.exp(-0.6 / model.data.n_rollouts)[model.data.run_of]
    np.testing.assert_allclose(gains[0], gains[1] * share, atol=1e-9)


def test_replicates_of_a_group_that_never_arrives_are_censored(model, position):
    quiet = position.copy()
    for name in ("sigma_run", "sigma_wander", "sigma_offset", "sigma_noise", "sigma_serial"):
        quiet[model.slices[name]] = -12.0
    top = float(read_thresholds(model, quiet[None, None], np.array([0.62]), 0)[CURVE].max())
    low = float(model.parameters(quiet[None])["start"][0])
    target = low + 0.85 * (top - low)  # groups of two reach .74 of the gain, of four .86
    draws = stacked(read_thresholds(model, np.repeat(quiet[None, None], 2, axis=1),
                                    np.array([target]), 0))
    steps = np.exp(replicated_log_steps(model, draws, np.random.default_rng(0)))[:, :, 0]
    last = np.array([model.data.seen_steps[end - 1] for end in model.data.seen_start[1:]])
    last *= np.exp(model.data.log_steps_scale)
    small, large = model.data.n_rollouts == 2, model.data.n_rollouts == 64
    assert (steps[:, small] > 20 * last[small]).all()
    assert (steps[:, large] < 20 * last[large]).all()
