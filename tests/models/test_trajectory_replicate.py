"""New curves: their monotone fit is SciPy's; without noise they cross where the law says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from cbsbayes.inference.laplace import find_laplace
from cbsbayes.models import trajectory_replicate as replicate
from cbsbayes.models.laws import get_law
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_flat import FlatTrajectory
from cbsbayes.models.trajectory_read import read_thresholds
from cbsbayes.posterior.fit import stacked
from cbsbayes.posterior.surface import Surface
from cbsbayes.simulate import simulate_sweep

LAW = get_law("two_axis")
THRESHOLDS = np.array([0.60, 0.65, 0.68])
OWN = ("sigma_run", "sigma_wander", "sigma_offset", "sigma_noise", "sigma_serial")


@pytest.fixture(scope="module")
def fitted():
    full = simulate_sweep("all", 1, eval_every=10, random_seed=5)
    sweep = full.isel(run=np.flatnonzero(full["n_rollouts"].values >= 2))
    found = find_laplace(FlatTrajectory(trajectory_data(sweep, LAW, None), LAW))
    position = np.repeat(found.middle[None, None], 400, axis=1)
    return found.flat, stacked(read_thresholds(found.flat, position, THRESHOLDS, seed=0))


def test_the_monotone_fit_is_that_of_scipy():
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = np.cumsum(rng.normal(0.02, 0.3, rng.integers(1, 40)))
        mine = values.copy()
        replicate._make_monotone(mine, np.empty(len(mine)))
        np.testing.assert_allclose(mine, isotonic_regression(values).x, rtol=1e-12)


def test_a_crossing_lies_on_the_line_between_evaluations():
    curve, log_steps = np.array([0.2, 0.2, 0.6]), np.log([10.0, 20.0, 40.0])
    assert np.exp(replicate._crossing(0.4, curve, log_steps, 0.1)) == pytest.approx(30.0)
    assert np.exp(replicate._crossing(0.15, curve, log_steps, 0.1)) == pytest.approx(5.0)
    assert replicate._crossing(0.7, curve, log_steps, 0.1) == np.inf


def test_runs_without_effects_and_noise_cross_where_the_law_says(fitted):
    flat, draws = fitted
    quiet = draws.assign({name: draws[name] * 1e-9 for name in OWN})
    log_s = replicate.replicated_log_steps(flat, quiet, np.random.default_rng(0))
    expected = Surface(LAW, draws).log_steps(
        float(flat.data.n_prompts[0]), float(flat.data.n_rollouts[0])).transpose("sample", ...)
    assert log_s.shape == (400, len(flat.data.run), 3)
    # S_min is read off with waves of the bend that the simulated curve does not have
    np.testing.assert_allclose(np.median(log_s[:, 0], axis=0), np.median(expected, axis=0),
                               atol=0.05)


def test_runs_differ_by_their_own_speed(fitted):
    flat, draws = fitted
    own = draws.assign({name: draws[name] * 1e-9 for name in OWN if name != "sigma_run"})
    own["sigma_run"] = draws["sigma_run"] * 0 + 0.2
    log_s = replicate.replicated_log_steps(flat, own, np.random.default_rng(0))
    at_middle = log_s[:, :, 1]
    assert np.median(at_middle.std(axis=0)) == pytest.approx(0.2, rel=0.1)
