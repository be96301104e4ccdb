"""The sampler of the step-time model on densities whose moments are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import halfnorm, norm

from cbsbayes.decisions.walkers import walk

SETTINGS = {"tune": 400, "keep": 100, "thin": 10}


def draws_of(log_density, start, seed=0):
    draws = walk(log_density, start, rng=np.random.default_rng(seed), **SETTINGS)
    return draws.reshape(-1, start.shape[2])


def start_of(dim, seed=1):
    return np.random.default_rng(seed).uniform(0.1, 3.0, (4, 32, dim))


def test_a_correlated_normal_is_sampled_with_its_spreads_and_correlation():
    covariance = np.array([[4.0, 0.19], [0.19, 0.01]])
    precision = np.linalg.inv(covariance)
    draws = draws_of(lambda x: -0.5 * ((x @ precision) * x).sum(axis=-1), start_of(2))
    np.testing.assert_allclose(draws.mean(axis=0) / [2.0, 0.1], 0, atol=0.08)
    np.testing.assert_allclose(np.cov(draws.T), covariance, rtol=0.15)


def test_a_wall_is_kept_and_the_density_beside_it_is_right():
    draws = draws_of(lambda x: np.where((x > 0).all(axis=-1), -0.5 * (x**2).sum(axis=-1), -np.inf),
                     start_of(2))
    assert draws.min() > 0
    np.testing.assert_allclose(np.quantile(draws[:, 0], [0.05, 0.5, 0.95]),
                               halfnorm.ppf([0.05, 0.5, 0.95]), rtol=0.08)


def test_a_ridge_of_which_only_the_sum_is_known_is_walked_from_end_to_end():
    def log_density(x):
        return np.where((x > 0).all(axis=-1), -0.5 * ((x.sum(axis=-1) - 1) / 0.01) ** 2, -np.inf)

    share = np.sort(draws_of(log_density, start_of(2))[:, 0])
    uniform = (np.arange(len(share)) + 0.5) / len(share)
    assert np.abs(share - uniform).max() < 0.06


def test_stragglers_far_out_do_not_stretch_the_rest():
    start = start_of(1)
    start[:, :3] = 1e6
    draws = draws_of(lambda x: norm.logpdf(x[..., 0]), start)
    assert np.abs(draws).max() < 7
    assert draws.std() == pytest.approx(1, rel=0.1)


def test_a_seed_gives_the_same_draws():
    first, second = (draws_of(lambda x: norm.logpdf(x[..., 0]), start_of(1), seed=5)
                     for _ in range(2))
    np.testing.assert_array_equal(first, second)
