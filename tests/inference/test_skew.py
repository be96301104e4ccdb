"""The bend of skewed coordinates: constants, inverse, slopes, learning, and walking with it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, special, stats

from cbsbayes.inference import skew
from cbsbayes.inference.diagnostics import convergence
from cbsbayes.inference.hmc import walk
from cbsbayes.inference.skew import Skew, skew_of, unbent

TANH = np.array([-0.8, 0.0, 0.3, 0.9])
COSH = 1.0 / np.sqrt(1.0 - TANH**2)
BENT = Skew(np.array([3.0, -1.0, 0.0, 50.0]), np.array([0.1, 2.0, 1.0, 7.0]), COSH, TANH * COSH)
Y = np.linspace(-6.0, 6.0, 41)[:, None] * np.ones(4)


def test_the_constants_are_those_of_a_normal():
    def moment(weight):
        return integrate.quad(lambda y: stats.norm.pdf(y) * weight(stats.norm.cdf(y))
                              * np.sqrt(1 + y**2), -np.inf, np.inf)[0]

    assert moment(lambda u: 1.0) == pytest.approx(skew._L_MEAN, rel=1e-9)
    assert moment(lambda u: 6 * u**2 - 6 * u + 1) == pytest.approx(skew._L_SKEW, rel=1e-9)


def test_there_and_back():
    np.testing.assert_allclose(BENT.straight(BENT.bent(Y)), Y, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(unbent(4).bent(Y), Y)
    far = np.array([[-1e6] * 4, [1e6] * 4])
    np.testing.assert_allclose(BENT.straight(BENT.bent(far)), far, rtol=1e-6)


def test_slopes_are_those_of_the_bend():
    step = 1e-5
    ahead, behind = BENT.bent(Y + step), BENT.bent(Y - step)
    np.testing.assert_allclose(BENT.stretch(Y), (ahead - behind) / (2 * step), rtol=1e-6)
    ahead, behind = BENT.stretch(Y + step), BENT.stretch(Y - step)
    np.testing.assert_allclose(BENT.change(Y), (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-9)
    assert (BENT.stretch(Y) > 0).all()


def test_a_bend_is_learned_from_draws():
    draws = BENT.bent(np.random.default_rng(0).standard_normal((40_000, 4)))
    found = skew_of(draws, 1e9)
    np.testing.assert_allclose(found.sinh / found.cosh, TANH, atol=0.03)
    np.testing.assert_allclose(found.scale, BENT.scale, rtol=0.08)
    assert (np.abs(found.middle - BENT.middle) < 0.08 * BENT.scale).all()
    straight = found.straight(draws)
    assert np.abs(stats.skew(straight)).max() < 0.1
    np.testing.assert_allclose(straight.std(axis=0), 1.0, rtol=0.05)


def test_few_draws_are_hardly_believed():
    few = BENT.bent(np.random.default_rng(1).standard_normal((60, 4)))
    assert (np.abs(skew_of(few, 4).sinh) < np.abs(skew_of(few, 400).sinh)).all()
    constant = skew_of(np.ones((20, 1)), 5)
    assert np.isfinite(constant.bent(np.zeros((1, 1)))).all()


def test_walkers_learn_a_skewed_density():
    """The logarithm of a gamma variable: a cliff to the right, a long way down to the left."""
    shape = np.array([0.7, 1.0, 3.0, 1.0, 1.0])

    def log_gamma(x):
        return (shape * x - np.exp(x)).sum(axis=1), shape - np.exp(x)

    found = walk(log_gamma, np.log(shape), np.diag(shape**-0.5), chains=4, draws=1000, cores=1,
                 random_seed=0)
    assert not found.failed
    draws, ess = found.position.reshape(-1, 5), convergence(found.position).ess_bulk
    sd = np.sqrt(special.polygamma(1, shape))
    assert (np.abs(draws.mean(axis=0) - special.digamma(shape)) < 4.5 * sd / np.sqrt(ess)).all()
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.08)
    skewness = special.polygamma(2, shape) / sd**3
    np.testing.assert_allclose(stats.skew(draws), skewness, atol=0.4)
    assert ess.min() > 1500
    np.testing.assert_allclose(found.stats["lp"], log_gamma(draws)[0].reshape(4, 1000), rtol=1e-9)
