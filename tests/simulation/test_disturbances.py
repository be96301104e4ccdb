"""Disturbed runs: tails, drift and wander of the size that was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.simulation.sweep import Disturbances

STEP = np.arange(0.0, 601.0, 25.0)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def test_by_default_nothing_is_disturbed(rng):
    calm = Disturbances()
    assert not calm.drift(rng, 3, STEP).any()
    np.testing.assert_array_equal(calm.trained_steps(rng, 3, STEP), np.tile(STEP, (3, 1)))
    assert calm.run_effects(rng, 0.1, 20_000).std() == pytest.approx(0.1, rel=0.03)


def test_heavy_tails_keep_the_scale_and_reach_far(rng):
    effect = Disturbances(run_freedom=3.0).run_effects(rng, 0.08, 200_000) / 0.08
    assert np.quantile(np.abs(effect), 0.5) == pytest.approx(0.765, rel=0.02)  # of t, 3 dof
    assert np.mean(np.abs(effect) > 4) == pytest.approx(0.028, rel=0.1)  # normal: 6e-5


def test_drift_starts_at_nothing_and_forgets_at_its_rate(rng):
    drift = Disturbances(drift_sd=0.02, drift_memory=50.0).drift(rng, 20_000, STEP)
    assert not drift[:, 0].any()
    assert drift[:, 1].std() == pytest.approx(0.02 * np.sqrt(1 - np.exp(-1.0)), rel=0.03)
    assert drift[:, -1].std() == pytest.approx(0.02, rel=0.03)
    late = np.corrcoef(drift[:, -3], drift[:, -1])[0, 1]
    assert late == pytest.approx(np.exp(-50 / 50), abs=0.03)


def test_an_offset_is_a_run_s_own_and_begins_with_training(rng):
    drift = Disturbances(offset_sd=0.01).drift(rng, 20_000, STEP)
    assert not drift[:, 0].any()
    np.testing.assert_array_equal(drift[:, 1], drift[:, -1])
    assert drift[:, 1].std() == pytest.approx(0.01, rel=0.03)


def test_a_wandering_run_goes_forwards_and_changes_its_speed_along_the_way(rng):
    worth = Disturbances(wander=0.1).trained_steps(rng, 20_000, STEP)
    assert (np.diff(worth) > 0).all()
    np.testing.assert_allclose(np.median(worth, axis=0), STEP, rtol=0.02)
    speed = np.log(np.diff(worth) / 25.0)
    first, last = speed[:, 0], speed[:, -1]
    assert last.std() == pytest.approx(0.1 * np.sqrt(np.log(50.0)), rel=0.05)
    assert first.std() < 0.5 * last.std()
    middle = speed[:, len(STEP) // 2]
    assert np.corrcoef(middle, last - middle)[0, 1] == pytest.approx(0.0, abs=0.03)


@pytest.mark.parametrize(("argument", "value"), [
    ("run_freedom", 0.0), ("drift_sd", -1.0), ("drift_memory", 0.0), ("wander", np.inf),
    ("offset_sd", -1.0)])
def test_what_disturbs_nothing_or_everything_is_refused(argument, value):
    with pytest.raises(CBSDataError, match=f"{argument} is {value}"):
        Disturbances(**{argument: value})
