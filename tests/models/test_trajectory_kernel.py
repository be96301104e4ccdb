"""The trajectory kernel is held to a plain restatement and to finite differences."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from trajectory_plain import log_prior, run_log_likelihoods, run_posteriors

from cbsbayes.models import trajectory_kernel as kernel
from cbsbayes.models.laws import LAWS
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_flat import FlatTrajectory
from cbsbayes.models.trajectory_words import data_words
from cbsbayes.simulate import simulate_sweep

NAMES = ["two_axis_free", "two_axis", "two_axis_free_plain", "total", "power"]


@cache
def flat_model(name, item_set=False, ceiling_by_group=False):
    sweep = simulate_sweep("all", 1, eval_every=40, max_updates=400, item_set=item_set,
                           random_seed=3)
    law = LAWS[name]
    if law.needs_baseline_group:
        sweep = sweep.isel(run=np.flatnonzero(sweep["n_rollouts"].values >= 2))
    data = trajectory_data(sweep, law, None)
    rng = np.random.default_rng(0)
    moved = rng.normal(0, 0.05, len(data.steps))
    return FlatTrajectory(data.around(moved, data.typical, data.expected), law,
                          ceiling_by_group=ceiling_by_group)


def points(flat, n=3):
    rng = np.random.default_rng(1)
    return [flat.center + 0.4 * flat.sd * rng.standard_normal(flat.n_dim) for _ in range(n)]


CASES = [*((name, item_set, False) for name in NAMES for item_set in (False, True)),
         *((name, True, True) for name in NAMES[:3])]


@pytest.mark.parametrize(("name", "item_set", "ceiling_by_group"), CASES)
def test_density_is_that_of_the_plain_model(name, item_set, ceiling_by_group):
    flat = flat_model(name, item_set, ceiling_by_group)
    words = data_words(flat)
    for position in points(flat):
        runs = run_log_likelihoods(flat, position)
        values, by_run = kernel.log_densities(position[None], words)
        np.testing.assert_allclose(by_run[0], runs, rtol=1e-9, atol=1e-7)
        assert values[0] == pytest.approx(log_prior(flat, position) + runs.sum(), rel=1e-10)
        assert kernel.log_density(position, words)[0] == values[0]


@pytest.mark.parametrize(("name", "ceiling_by_group"), [
    *((name, False) for name in NAMES), *((name, True) for name in NAMES[:3])])
def test_gradient_is_that_of_differences(name, ceiling_by_group):
    flat = flat_model(name, ceiling_by_group=ceiling_by_group)
    words = data_words(flat)
    for position in points(flat):
        gradient = kernel.log_density(position, words)[1]
        steps = 1e-6 * np.eye(flat.n_dim)
        expected = [(kernel.log_density(position + e, words)[0]
                     - kernel.log_density(position - e, words)[0]) / 2e-6 for e in steps]
        np.testing.assert_allclose(gradient, expected, rtol=2e-4,
                                   atol=1e-6 * np.abs(expected).max())


def test_whitened_coordinates_give_the_same_density_and_gradient():
    flat = flat_model("two_axis_free")
    rng = np.random.default_rng(2)
    middle, z = points(flat)[0], 0.3 * rng.standard_normal(flat.n_dim)
    factor = np.tril(0.02 * rng.standard_normal((flat.n_dim, flat.n_dim))) + 0.1 * np.eye(
        flat.n_dim)
    words = data_words(flat, middle, factor)
    gradient = np.empty_like(z)
    value = kernel._evaluate_whitened(z, words, words.view(np.float64), gradient)
    expected, slope = kernel.log_density(middle + factor @ z, data_words(flat))
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient, factor.T @ slope, rtol=1e-8,
                               atol=1e-9 * np.abs(gradient).max())


def test_runs_own_parameters_are_those_of_normal_regression():
    flat = flat_model("two_axis_free")
    position = points(flat)[1]
    words = data_words(flat)
    mean, covariance = kernel.run_posteriors(position[None], words)
    assert mean.shape == (1, len(flat.data.run), kernel.N_LATENT)
    for i, (expected_mean, expected_covariance) in enumerate(run_posteriors(flat, position)):
        np.testing.assert_allclose(mean[0, i], expected_mean, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(covariance[0, i], expected_covariance, rtol=1e-7, atol=1e-9)


def test_an_impossible_point_has_no_finite_density():
    flat = flat_model("two_axis_free")
    position = flat.center.copy()
    position[flat.slices["sigma_noise"]] = np.nan
    assert not np.isfinite(kernel.log_density(position, data_words(flat))[0])


def test_no_loss_is_the_model_without_ceilings():
    flat, plain = flat_model("two_axis_free", ceiling_by_group=True), flat_model("two_axis_free")
    position, j = points(plain)[0], flat.slices["ceiling_loss"].start
    value, gradient = kernel.log_density(np.insert(position, j, 0.0), data_words(flat))
    expected, slope = kernel.log_density(position, data_words(plain))
    assert value == pytest.approx(expected - np.log(flat.sd[j] * np.sqrt(2 * np.pi)), rel=1e-12)
    np.testing.assert_allclose(np.delete(gradient, j), slope, rtol=1e-9, atol=1e-9)
    assert gradient[j] != 0
