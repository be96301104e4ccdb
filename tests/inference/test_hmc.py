"""The walkers: known normals, a bent density, walls, seeds and threads."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.inference.diagnostics import convergence
from cbsbayes.inference.hmc import _arrive, _Walkers, walk, what_failed

MEAN = np.array([1.0, -2.0, 0.5])
ROOT = np.array([[1.0, 0.0, 0.0], [0.9, 0.3, 0.0], [-2.0, 1.0, 0.5]])
PRECISION = np.linalg.inv(ROOT @ ROOT.T)


def normal(positions):
    away = positions - MEAN
    return -0.5 * np.einsum("ij,jk,ik->i", away, PRECISION, away), -away @ PRECISION


def bent(positions):
    """Return a normal x and a normal y around x²: its own scales, no normal near it."""
    x, y = positions.T
    away = y - x**2
    return (-0.5 * x**2 - 2.0 * away**2,
            np.column_stack([-x + 8.0 * x * away, -4.0 * away]))


def walled(positions):
    """Return the density of |z| < 1, nothing outside."""
    inside = (np.abs(positions) < 1.0).all(axis=1)
    return np.where(inside, 0.0, -np.inf), np.zeros_like(positions)


def many(density, n_dim, middle=None, factor=None, **settings):
    settings = {"chains": 4, "draws": 1000, "cores": 1, "random_seed": 0} | settings
    return walk(density, np.zeros(n_dim) if middle is None else middle,
                np.eye(n_dim) if factor is None else factor, **settings)


def test_a_normal_density_from_its_own_approximation():
    found = many(normal, 3, MEAN, ROOT)
    draws = found.position.reshape(-1, 3)
    assert draws.shape == (4000, 3)
    error = np.sqrt(np.diag(ROOT @ ROOT.T)) / np.sqrt(convergence(found.position).ess_bulk)
    np.testing.assert_array_less(np.abs(draws.mean(axis=0) - MEAN), 4.5 * error)
    np.testing.assert_allclose(np.cov(draws.T), ROOT @ ROOT.T, rtol=0.12, atol=0.05)
    assert convergence(found.position).ess_bulk.min() > 2500  # nearly independent
    assert not found.stats["diverging"].any()
    assert found.stats["acceptance_rate"].mean() == pytest.approx(0.8, abs=0.1)


def test_a_wrong_approximation_costs_speed_only():
    found = many(normal, 3, np.zeros(3), 0.3 * np.eye(3), draws=4000)
    checks = convergence(found.position)
    draws = found.position.reshape(-1, 3)
    error = np.sqrt(np.diag(ROOT @ ROOT.T)) / np.sqrt(checks.ess_bulk)
    assert checks.r_hat.max() < 1.05
    np.testing.assert_array_less(np.abs(draws.mean(axis=0) - MEAN), 4.5 * error)


def test_a_bent_density_has_its_moments():
    found = many(bent, 2, factor=np.diag([1.0, 1.5]), draws=4000, target_accept=(0.95,))
    x, y = found.position.reshape(-1, 2).T
    ess = convergence(found.position).ess_bulk.min()
    assert ess > 300
    assert abs(x.mean()) < 4.5 / np.sqrt(ess)
    assert y.mean() == pytest.approx(1.0, abs=4.5 * 1.5 / np.sqrt(ess))  # E x²
    assert np.std(y - x**2) == pytest.approx(0.5, rel=0.1)


def test_no_walker_leaves_through_a_wall_and_trying_counts_as_divergence():
    found = many(walled, 2, factor=0.3 * np.eye(2), draws=500)
    assert (np.abs(found.position[np.isfinite(found.stats["lp"])]) < 1.0).all()
    assert found.stats["diverging"].any()


def test_a_seed_gives_the_same_draws_whatever_the_threads():
    one, same, other = (many(normal, 3, MEAN, ROOT, draws=100, cores=cores, random_seed=seed)
                        for cores, seed in ((1, 5), (2, 5), (1, 6)))
    np.testing.assert_array_equal(one.position, same.position)
    assert not np.array_equal(one.position, other.position)


@pytest.mark.parametrize("draws", [50, 99, 1003])
def test_a_chain_has_the_draws_asked_for(draws):
    found = many(normal, 3, MEAN, ROOT, draws=draws, chains=2)
    assert found.position.shape == (2, draws, 3)
    assert {value.shape for value in found.stats.values()} == {(2, draws)}
    assert set(found.stats) == {"diverging", "acceptance_rate", "energy", "lp", "n_steps",
                                "step_size"}
    assert len(np.unique(found.position[:, :, 0])) > draws  # chains do not repeat each other


def test_draws_that_should_not_be_used_are_named():
    position = np.random.default_rng(0).standard_normal((4, 500, 3))
    fine = np.zeros((4, 500), dtype=bool)
    assert what_failed(position, fine) == ""
    assert what_failed(position, fine | (np.arange(500) == 3)) == "4 draws diverged"
    assert what_failed(position + np.arange(4)[:, None, None], fine).startswith("r_hat")
    slow = np.repeat(position[:, :50], 10, axis=1)
    slow += 0.01 * np.random.default_rng(1).standard_normal(slow.shape)
    assert what_failed(np.repeat(position[:, :4], 125, axis=1), fine) != ""
    assert what_failed(slow, fine) == ""  # a tenth of the draws is enough


def test_smaller_steps_are_tried_as_soon_as_one_diverges():
    settings = {"chains": 4, "draws": 1000, "cores": 1, "random_seed": 0}
    calls = []

    def counted(positions):
        calls.append(len(positions))
        return bent(positions)

    middle, factor = np.zeros(2), np.diag([1.0, 1.5])
    found = walk(counted, middle, factor, target_accept=(0.5, 0.9, 0.98), **settings)
    assert found.failed == ""
    together, calls[:] = sum(calls), []
    large = walk(counted, middle, factor, target_accept=(0.5,), **settings)
    assert large.stats["diverging"].any()
    assert large.failed
    small = walk(counted, middle, factor, target_accept=(0.98,), **settings)
    assert found.stats["step_size"].mean() == pytest.approx(small.stats["step_size"].mean(), rel=.3)
    assert together < sum(calls)  # both alone: large steps were given up early
    assert walk(walled, middle, 0.3 * factor, target_accept=(0.8,), **settings).failed
    assert found.dataset()["energy"].dims == ("chain", "draw")


def test_walkers_that_have_not_arrived_go_on():
    """A wide, weak second direction takes moves without end; the draws still end up right."""
    stretched = np.array([1.0, 30.0])

    def wide(positions):
        return -0.5 * ((positions / stretched)**2).sum(axis=1), -positions / stretched**2

    found = many(wide, 2, draws=500)
    assert not found.failed
    spread = found.position[..., 1].std()
    ess = convergence(found.position).ess_bulk[1]
    assert spread == pytest.approx(30.0, rel=4.5 / np.sqrt(2 * ess))
    assert found.stats["n_steps"].max() < 50
    far = np.array([1.0, 3e4])  # learned from the moves made in vain
    found = walk(lambda x: (-0.5 * ((x / far)**2).sum(axis=1), -x / far**2),
                 np.zeros(2), np.eye(2), chains=4, draws=500, cores=1, random_seed=0)
    assert not found.failed
    assert found.position[..., 1].std() == pytest.approx(3e4, rel=0.15)
    hopeless = np.array([1.0, 1e6])
    lost = walk(lambda x: (-0.5 * ((x / hopeless)**2).sum(axis=1), -x / hopeless**2),
                np.zeros(2), np.eye(2), chains=4, draws=500, cores=1, random_seed=0)
    assert lost.failed == "draws stayed correlated for too long"


def test_a_walker_that_refuses_every_step_begins_anew_where_others_are():
    def steep(positions):
        return -(positions**4).sum(axis=1), -4.0 * positions**3

    walkers = _Walkers(steep, np.zeros(3), 0.6 * np.eye(3), 20, 0.8, np.random.default_rng(0))
    walkers.z[7] = 100.0
    walkers.value, walkers.slope = walkers._density(walkers.z)
    walkers.warm_up(24)
    assert np.abs(walkers.move()["position"]).max() < 3.0
    walkers.z[7] = 100.0
    walkers.value, walkers.slope = walkers._density(walkers.z)
    found = _arrive(walkers, 2, 500, [0.95], 8)
    assert found.failed == ""
    assert np.abs(found.position).max() < 3.0


def test_a_walker_that_never_moves_on_is_named(monkeypatch):
    monkeypatch.setattr("cbsbayes.inference.hmc._STUCK", 0.999)
    assert many(normal, 3, MEAN, ROOT, draws=200).failed == "a walker never moved on"
