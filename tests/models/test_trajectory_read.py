"""What is read off curves whose group sizes have ceilings of their own."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from trajectory_plain import curve

from cbsbayes.models.laws import get_law
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_flat import FlatTrajectory
from cbsbayes.models.trajectory_read import expected_accuracy, group_share, read_thresholds
from cbsbayes.models.trajectory_replicate import replicated_log_steps
from cbsbayes.models.variables import CURVE, INITIAL_ACCURACY, PROGRESS, now_name
from cbsbayes.posterior.fit import stacked
from cbsbayes.simulate import simulate_sweep

LAW = get_law("two_axis_free")


@pytest.fixture(scope="module")
def flat():
    sweep = simulate_sweep("all", 1, eval_every=40, max_updates=600, random_seed=3)
    sweep = sweep.isel(run=np.flatnonzero(sweep["n_rollouts"].values >= 2))
    sweep["n_items"] = xr.full_like(sweep["n_items"], 10**7)
    return FlatTrajectory(trajectory_data(sweep, LAW, None), LAW, ceiling_by_group=True)


@pytest.fixture(scope="module")
def position(flat):
    at = flat.center.copy()
    at[flat.slices["ceiling_loss"]] = 0.6
    return at


def test_the_curve_kept_is_the_model_s(flat, position):
    kept = read_thresholds(flat, position[None, None], np.array([0.62]), 0).isel(chain=0, draw=0)
    p = {name: value[0] for name, value in flat.parameters(position[None]).items()}
    log_tau = np.log(kept[PROGRESS].values) - flat.data.log_steps_scale
    h, _, at_start = curve(flat, p, log_tau)
    np.testing.assert_allclose(kept[CURVE], h, atol=2e-3)  # waves finer than the fit carries
    assert float(kept[INITIAL_ACCURACY]) == pytest.approx(at_start, abs=1e-12)
    assert kept[now_name("B_prompt")].dims == (PROGRESS,)


def test_small_groups_are_expected_to_stay_lower(flat, position):
    without = position.copy()
    without[flat.slices["ceiling_loss"]] = 0.0
    low = flat.parameters(position[None])["start"][0]
    share = group_share(flat, flat.parameters(position[None]), flat.data.n_rollouts)[0]
    np.testing.assert_allclose(share, np.exp(-0.6 / flat.data.n_rollouts))
    gains = [expected_accuracy(flat, at) - low for at in (position, without)]
    np.testing.assert_allclose(gains[0], gains[1] * share[flat.data.run_of], atol=1e-9)


def test_replicates_of_a_group_that_never_arrives_are_censored(flat, position):
    quiet = position.copy()
    for name in ("sigma_run", "sigma_wander", "sigma_offset", "sigma_noise", "sigma_serial"):
        quiet[flat.slices[name]] = -12.0
    top = float(read_thresholds(flat, quiet[None, None], np.array([0.62]), 0)[CURVE].max())
    low = float(flat.parameters(quiet[None])["start"][0])
    target = low + 0.85 * (top - low)  # groups of two reach .74 of the gain, of four .86
    draws = stacked(read_thresholds(flat, np.repeat(quiet[None, None], 2, axis=1),
                                    np.array([target]), 0))
    steps = np.exp(replicated_log_steps(flat, draws, np.random.default_rng(0)))[:, :, 0]
    last = np.array([flat.data.seen_steps[end - 1] for end in flat.data.seen_start[1:]])
    last *= np.exp(flat.data.log_steps_scale)
    small = flat.data.n_rollouts == 2
    assert (steps[:, small] > 20 * last[small]).all()
    assert (steps[:, flat.data.n_rollouts == 64] < 20 * last[flat.data.n_rollouts == 64]).all()
