"""New curves cross between evaluations, and without noise where the law says."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.inference.trajectory import find_laplace
from cbsbayes.models.laws import get_law
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_parameters import TrajectoryParameters
from cbsbayes.models.trajectory_read import read_thresholds
from cbsbayes.models.trajectory_replicate import crossing_of, replicated_log_steps
from cbsbayes.posterior.fit import stacked
from cbsbayes.posterior.surface import Surface
from cbsbayes.simulation.sweep import simulate_sweep

LAW = get_law("two_axis")
THRESHOLDS = np.array([0.60, 0.65, 0.68])
OWN = ("sigma_run", "sigma_wander", "sigma_offset", "sigma_noise", "sigma_serial")


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
