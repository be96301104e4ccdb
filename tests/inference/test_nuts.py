"""Mode and covariance of a density, and what diagnostics say of draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import polygamma, psi

from cbsbayes.inference.nuts import (
    SamplerSettings,
    convergence,
    find_mode,
    root_of_covariance,
    sample_density,
)

MODE = np.array([0.7, -1.2])
COVARIANCE = np.array([[0.5, 0.3], [0.3, 0.4]])


def normal(position):
    pull = np.linalg.solve(COVARIANCE, position - MODE)
    return -0.5 * (position - MODE) @ pull, -pull


def test_a_normal_density_is_found_exactly():
    center, sd = np.zeros(2), np.array([1.0, 2.0])
    mode = find_mode(normal, center, sd)
    np.testing.assert_allclose(mode, MODE, atol=1e-4)
    root = root_of_covariance(normal, mode, sd)
    np.testing.assert_allclose(root @ root.T, COVARIANCE, rtol=1e-6)
    np.testing.assert_array_equal(root, np.tril(root))


def test_held_coordinates_stay_where_they_start():
    start = np.array([0.0, 0.3])
    mode = find_mode(normal, np.zeros(2), np.ones(2), start, held=[1])
    assert mode[1] == 0.3
    expected = MODE[0] + COVARIANCE[0, 1] / COVARIANCE[1, 1] * (0.3 - MODE[1])
    np.testing.assert_allclose(mode[0], expected, atol=1e-4)


def test_a_flat_direction_gets_no_more_than_some_prior_spreads():
    def flat(position):
        return -0.5 * position[0] ** 2, np.array([-position[0], 0.0])

    root = root_of_covariance(flat, np.zeros(2), np.array([1.0, 3.0]))
    spread = np.sqrt(np.diag(root @ root.T))
    np.testing.assert_allclose(spread, [1.0, 3.0 * np.sqrt(2.0 / 0.2)], rtol=1e-6)


def test_points_without_density_are_walked_around():
    def half(position):
        value, slope = normal(position)
        return (value if position[0] > 0 else -np.inf), slope

    np.testing.assert_allclose(find_mode(half, np.ones(2), np.ones(2)), MODE, atol=1e-3)


def test_chains_that_disagree_in_place_or_in_width():
    draws = np.random.default_rng(1).normal(size=(4, 400, 3))
    draws[0, :, 0] += 1.5
    draws[0, :, 1] *= 4.0
    found = convergence(draws)
    assert (found.r_hat[:2] > 1.05).all()
    assert found.r_hat[2] < 1.01
    assert found.ess_bulk[2] > 1000


def test_draws_that_never_move_say_nothing_of_convergence():
    draws = np.zeros((4, 100, 2))
    draws[0, :, 1] = 1.0  # one chain stuck elsewhere
    found = convergence(draws)
    assert found.ess_bulk[0] == found.ess_tail[0] == 400
    assert np.isnan(found.r_hat[0])
    assert not found.r_hat[1] <= 1.01


def test_a_column_with_a_gap_is_not_judged_and_spoils_no_other():
    draws = np.random.default_rng(3).normal(size=(4, 200, 3))
    whole = np.array(convergence(draws))
    draws[2, 5, 1] = np.nan
    gap = np.array(convergence(draws))
    assert np.isnan(gap[:, 1]).all()
    np.testing.assert_array_equal(gap[:, [0, 2]], whole[:, [0, 2]])


@pytest.mark.mcmc
def test_draws_with_a_long_tail_are_taken_again_and_are_right():
    shape = 0.2  # of a gamma distribution, whose logs these are; its mode says little of its tail

    def long_tail(position):
        return float(shape * position.sum() - np.exp(position).sum()), shape - np.exp(position)

    settings = SamplerSettings(draws=500, chains=4, cores=1)
    draws = sample_density(long_tail, np.zeros(5), np.full(5, 3.0), settings)
    assert draws.note.startswith("sampled again with the first draws' covariance, twice as many")
    assert draws.position.shape == (4, 2 * settings.draws, 5)
    assert not draws.stats["diverging"].any()
    ess = convergence(draws.position).ess_bulk
    assert ess.min() >= 400
    error = np.sqrt(polygamma(1, shape) / ess)
    assert (abs(draws.position.mean(axis=(0, 1)) - psi(shape)) < 4 * error).all()


@pytest.mark.mcmc
def test_few_first_draws_of_many_dimensions_give_a_metric_too():
    scale = np.linspace(0.1, 10.0, 80)

    def wide(position):
        return float(-2.5 * np.log1p((position / scale) ** 2 / 4).sum()), (
            -5.0 * position / (4 * scale**2 + position**2))

    settings = SamplerSettings(draws=50, tune=100, chains=2, cores=1)
    draws = sample_density(wide, np.zeros(80), scale, settings)
    assert draws.note
    spread = np.median(abs(draws.position), axis=(0, 1)) / scale
    np.testing.assert_allclose(spread, 0.7407, rtol=0.5)  # of Student's t, 4 degrees of freedom
