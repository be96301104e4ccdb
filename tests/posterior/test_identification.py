"""Constructed likelihoods: what the data say must come out whatever the seed, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.posterior.identification import STATUSES, identify

SD = 2.0  # of the log prior
SEEDS = range(8)
POOL = 200_000


def prior_draws(rng, size=1000):
    return rng.normal(0.0, SD, size)


def posterior_draws(rng, likelihood, size=4000):
    """Return draws of prior times likelihood by rejection."""
    x = prior_draws(rng, POOL)
    weight = likelihood(x)
    return x[rng.random(POOL) < weight / weight.max()][:size]


def statuses(posterior, *, seeds=SEEDS):
    """Return the statuses over seeds; `posterior` maps a generator to log draws."""
    found = set()
    for seed in seeds:
        rng = np.random.default_rng(seed)
        prior = prior_draws(rng)
        found.add(identify(np.exp(posterior(rng)), np.exp(prior)))
    return found


def falling(edge, width=0.2):
    """Return a likelihood that is flat below `edge` and falls above."""
    return lambda x: 1 / (1 + np.exp(np.clip((x - edge) / width, -50, 50)))


@pytest.mark.parametrize("edge", [-4.0, -2.0, 0.0, 2.0])
def test_a_likelihood_flat_below_leaves_an_upper_bound(edge):
    assert statuses(lambda rng: posterior_draws(rng, falling(edge))) == {"upper_bound"}


@pytest.mark.parametrize("edge", [-2.0, 0.0, 2.0, 4.0])
def test_a_likelihood_flat_above_leaves_a_lower_bound(edge):
    above = falling(-edge)
    assert statuses(lambda rng: posterior_draws(rng, lambda x: above(-x))) == {"lower_bound"}


def test_the_prior_itself_is_not_identified():
    assert statuses(lambda rng: prior_draws(rng, 4000), seeds=range(40)) == {"not_identified"}


@pytest.mark.parametrize("sd", [1.2, 1.5, 1.8, 2.5])
def test_a_posterior_hardly_narrower_than_the_prior_is_not_identified(sd):
    assert statuses(lambda rng: rng.normal(0.0, sd, 4000)) == {"not_identified"}


@pytest.mark.parametrize("middle", [-5.0, -4.1, -2.0, 0.0, 2.0, 4.1, 5.0])
def test_a_narrow_posterior_is_identified_even_far_out_in_the_prior(middle):
    assert statuses(lambda rng: rng.normal(middle, 0.2, 4000)) == {"identified"}


@pytest.mark.parametrize("sd", [0.05, 0.5, 0.7])
def test_a_narrower_posterior_inside_is_identified(sd):
    assert statuses(lambda rng: rng.normal(0.3, sd, 4000)) == {"identified"}


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
def test_a_narrow_peak_with_a_flat_stretch_beside_it_is_a_bound(share):
    """The interval's lower end is the prior's, however high the peak."""
    flat = int(4000 * share)

    def peak_and_plateau(rng):
        return np.concatenate([-np.abs(prior_draws(rng, flat)), rng.normal(0, 0.1, 4000 - flat)])

    assert statuses(peak_and_plateau) == {"upper_bound"}


def two_scales(rng, combine):
    """Return log draws of two scales of which only a combination is known, to 15 %."""
    one, two = prior_draws(rng, POOL), prior_draws(rng, POOL)
    kept = np.abs(combine(one, two) - 0.7) < 0.15
    return one[kept][:4000], two[kept][:4000]


def test_two_scales_of_which_the_sum_is_known_are_upper_bounds():
    for k in range(2):
        assert statuses(lambda rng, k=k: two_scales(rng, np.logaddexp)[k]) == {"upper_bound"}


def test_two_scales_of_which_the_product_or_ratio_is_known_are_not_identified():
    for combine in (np.add, np.subtract):
        assert statuses(lambda rng, f=combine: two_scales(rng, f)[0]) == {"not_identified"}


def test_a_scale_known_only_over_one_plus_another_is_a_lower_bound():
    """Rollouts alone: B_rollout/(P + B_prompt) is known, so B_rollout may be anything larger."""
    def known(log_rollout, log_prompt):
        return log_rollout - np.logaddexp(0.0, log_prompt)

    found = statuses(lambda rng: two_scales(rng, known)[0])
    assert found <= {"lower_bound", "not_identified"}
    assert "lower_bound" in found
    assert statuses(lambda rng: two_scales(rng, known)[1]) <= {"upper_bound", "not_identified"}


def test_bounded_quantities_piled_up_at_their_ends():
    """What doubling buys lies between 1/2 and 1; a vague prior of the scale piles up at both."""
    def gain(log_b):
        return (1 + np.exp(log_b) / 2) / (1 + np.exp(log_b))

    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        prior = gain(1.5 * prior_draws(rng))
        assert identify(gain(rng.normal(0, 0.3, 4000)), prior) == "identified"
        assert identify(gain(1.5 * prior_draws(rng, 4000)), prior) == "not_identified"
        never_below = posterior_draws(rng, falling(-2.0))
        assert identify(gain(never_below), prior) == "lower_bound"
        assert identify(gain(-never_below), prior) == "upper_bound"


def test_zeros_and_the_linear_scale():
    rng = np.random.default_rng(3)
    prior = np.maximum(np.exp(prior_draws(rng)) - 0.5, 0.0)  # some batches that never exist
    assert identify(np.zeros(4000), prior) in STATUSES
    assert identify(np.exp(rng.normal(0, 0.1, 4000)), prior) == "identified"
    exponent = np.clip(rng.normal(0.75, 0.25, 1000), 0.25, 1.5)
    assert identify(rng.normal(0.5, 0.05, 4000), exponent, log_scale=False) == "identified"
    assert identify(rng.normal(0.75, 0.24, 4000), exponent, log_scale=False) == "not_identified"


def test_units_do_not_matter():
    rng = np.random.default_rng(0)
    prior, posterior = np.exp(prior_draws(rng)), np.exp(posterior_draws(rng, falling(1.0)))
    for factor in (1e-6, 1.0, 1e6):
        assert identify(factor * posterior, factor * prior) == "upper_bound"


def test_draws_that_are_no_numbers_identify_nothing():
    draws = prior_draws(np.random.default_rng(0))
    broken = np.append(draws[1:], np.nan)
    narrow = 0.1 * draws
    assert identify(narrow, draws, log_scale=False) == "identified"
    assert identify(0.1 * broken, draws, log_scale=False) == "not_identified"
    assert identify(narrow, broken, log_scale=False) == "not_identified"
