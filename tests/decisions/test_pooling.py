"""Partial pooling: exact against brute force, calibrated in simulation, shrinking as it should."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.decisions.pooling import between_sd, pool, without_prior
from cbsbayes.errors import CBSDataError


def brute_force(y, s, scale, draws=400_000, seed=0):
    """Return draws of the first group's value by importance weights of prior draws."""
    rng = np.random.default_rng(seed)
    tau = np.abs(rng.normal(0, scale, draws))
    mu = rng.normal(np.mean(y), 20.0, draws)  # flat for all that matters
    precision = 1 / (s[:, None] ** 2 + tau**2)
    total = precision.sum(0)
    center = (precision * y[:, None]).sum(0) / total
    # μ drawn exactly given τ, so that the weights are those of τ alone
    mu = center + rng.normal(size=draws) / np.sqrt(total)
    log_w = (0.5 * np.log(precision).sum(0) - 0.5 * np.log(total)
             - 0.5 * (precision * (y[:, None] - center) ** 2).sum(0))
    weight = np.exp(log_w - log_w.max())
    kept = s[0] ** 2 * precision[0]
    theta = kept * mu + (1 - kept) * y[0] + rng.normal(size=draws) * s[0] * np.sqrt(1 - kept)
    chosen = rng.choice(draws, draws, p=weight / weight.sum())
    return theta[chosen], mu[chosen], tau[chosen]


def test_the_mixture_is_the_posterior():
    y, s = np.array([1.0, 2.5, 2.0]), np.array([0.6, 0.2, 0.9])
    pooled = pool(y, s, 1.0)
    theta, mu, tau = brute_force(y, s, 1.0)
    for level in (0.05, 0.5, 0.95):
        assert pooled.groups[0].quantile(level) == pytest.approx(np.quantile(theta, level), abs=.02)
        assert pooled.mean.quantile(level) == pytest.approx(np.quantile(mu, level), abs=0.02)
        assert pooled.tau_quantile(level) == pytest.approx(np.quantile(tau, level), abs=0.02)


@pytest.mark.parametrize("n_groups", [2, 3, 6])
def test_intervals_hold_the_truth_as_often_as_they_say(n_groups):
    rng = np.random.default_rng(n_groups)
    held, new, sweeps = 0, 0, 250
    for _ in range(sweeps):
        mu, tau = rng.normal(3, 2), abs(rng.normal())
        theta, s = rng.normal(mu, tau, n_groups), rng.uniform(0.1, 0.8, n_groups)
        pooled = pool(rng.normal(theta, s), s, 1.0)
        held += sum(group.quantile(0.05) < truth < group.quantile(0.95)
                    for group, truth in zip(pooled.groups, theta, strict=True))
        new += pooled.another.quantile(0.05) < rng.normal(mu, tau) < pooled.another.quantile(0.95)
    error = np.sqrt(0.09 / sweeps)  # groups of a sweep count as one: never too strict
    assert held / (sweeps * n_groups) == pytest.approx(0.9, abs=3 * error)
    assert new / sweeps == pytest.approx(0.9, abs=3 * error)


def test_a_group_known_badly_is_drawn_in_and_one_known_well_stays():
    pooled = pool(np.array([1.0, 1.1, 3.0]), np.array([0.05, 0.05, 1.0]), 1.0)
    medians = [group.quantile(0.5) for group in pooled.groups]
    assert medians[0] == pytest.approx(1.0, abs=0.02)
    assert 1.0 < medians[2] < 2.3
    width = pooled.groups[2].quantile(0.95) - pooled.groups[2].quantile(0.05)
    assert width < 2 * 1.645


def test_groups_far_apart_are_left_alone():
    pooled = pool(np.array([0.0, 2.0]), np.array([0.1, 0.1]), 1.0)
    assert pooled.groups[0].quantile(0.5) == pytest.approx(0.0, abs=0.02)
    assert pooled.another.quantile(0.95) - pooled.another.quantile(0.05) > 2.0


def test_two_groups_leave_the_spread_to_its_prior():
    """Where the fits are vague, τ stays half-normal: its median is .67 of the scale."""
    pooled = pool(np.array([1.0, 1.2]), np.array([3.0, 3.0]), 1.0)
    assert pooled.tau_quantile(0.5) == pytest.approx(0.674, abs=0.05)


def test_the_prior_is_divided_out():
    rng = np.random.default_rng(0)
    likelihood, prior = (2.0, 0.8), (0.0, 1.5)
    precision = likelihood[1] ** -2 + prior[1] ** -2
    mean = (likelihood[0] * likelihood[1] ** -2 + prior[0] * prior[1] ** -2) / precision
    posterior = rng.normal(mean, precision**-0.5, 200_000)
    found = without_prior(posterior, rng.normal(*prior, 200_000))
    assert found == pytest.approx(likelihood, abs=0.02)


def test_a_posterior_as_wide_as_its_prior_is_taken_as_it_is():
    draws = np.random.default_rng(0).normal(1.0, 1.0, 1000)
    assert without_prior(draws, draws) == (pytest.approx(draws.mean()),
                                           pytest.approx(draws.std(ddof=1)))


@pytest.mark.parametrize(("y", "s"), [([1.0], [0.1]), ([1.0, 2.0], [0.1, 0.0]),
                                      ([1.0, np.nan], [0.1, 0.2])])
def test_what_cannot_be_pooled_is_refused(y, s):
    with pytest.raises(CBSDataError, match="two groups and more"):
        pool(np.array(y), np.array(s), 1.0)


def test_gains_cannot_spread_as_scales_do():
    assert between_sd("gain_prompts") < between_sd("cbs_prompts") == 1.0
