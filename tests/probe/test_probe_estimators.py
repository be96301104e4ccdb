"""The estimators against their definitions and against a Gaussian whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from cbsbayes.probe.estimators import HalfSums, pair_estimates, split_estimates

SIGNAL = np.array([0.6, -0.3, 0.2])
BETWEEN, WITHIN = np.array([0.5, 0.2, 1.1]), np.array([3.0, 1.0, 2.0])  # variances per component


def half_sums(x, first, members):
    """Return the inner products of contributions x, dims (prompt, rollout, parameter)."""
    units = [x[ids] for ids in members]
    zeros, ones = ([u[:, s].sum((0, 1)) for u in units] for s in (slice(first), slice(first, None)))
    zeros, ones = np.array(zeros), np.array(ones)
    total = (zeros + ones).sum(0)
    return HalfSums(np.array([len(ids) for ids in members]),
                    np.stack([(zeros**2).sum(1), (ones**2).sum(1)], 1), (zeros * ones).sum(1),
                    float(total @ total), (first, x.shape[1] - first))


def draw(rng, prompts, rollouts):
    means = SIGNAL + rng.normal(size=(prompts, 1, 3)) * np.sqrt(BETWEEN)
    return means + rng.normal(size=(prompts, rollouts, 3)) * np.sqrt(WITHIN)


@pytest.mark.parametrize(("prompts", "rollouts", "sizes"), [
    (6, 4, [1] * 6), (6, 5, [1] * 6), (7, 4, [2, 2, 2, 1]), (6, 2, [3, 3]), (2, 3, [1, 1])])
def test_estimates_are_unbiased(prompts, rollouts, sizes):
    rng = np.random.default_rng([prompts, rollouts])
    members = np.split(np.arange(prompts), np.cumsum(sizes)[:-1])
    rows = [split_estimates(half_sums(draw(rng, prompts, rollouts), rollouts // 2, members))
            for _ in range(4000)]
    g_sq, between, within = SIGNAL @ SIGNAL, BETWEEN.sum(), WITHIN.sum()
    per_prompt = between + within / rollouts
    truth = {"g_sq": g_sq, "gbar_sq": g_sq + per_prompt / prompts, "tr_within": within,
             "tr_between": between, "tr_sigma": rollouts * per_prompt}
    for key, value in truth.items():
        estimates = np.array([row[key] for row in rows])
        error = estimates.std(ddof=1) / np.sqrt(len(rows))
        assert abs(estimates.mean() - value) < 4 * error, key
        assert error < 0.05 * max(value, 1), key  # sharp enough to notice a wrong factor


def test_estimates_equal_their_definitions_as_means_over_pairs():
    prompts, rollouts = 5, 5
    x = draw(np.random.default_rng(7), prompts, rollouts)
    found = split_estimates(half_sums(x, 2, [[p] for p in range(prompts)]))
    means, zero, one = x.mean(1), x[:, :2].mean(1), x[:, 2:].mean(1)
    pairs = [means[p] @ means[q] for p in range(prompts) for q in range(prompts) if p != q]
    g_sq, within = np.mean(pairs), ((zero - one) ** 2).sum(1).mean() / (1 / 2 + 1 / 3)
    variance = (means**2).sum(1).mean() - g_sq
    assert found == pytest.approx({
        "gbar_sq": (x.mean((0, 1)) ** 2).sum(), "g_sq": g_sq, "tr_sigma": rollouts * variance,
        "tr_within": within, "tr_between": variance - within / rollouts}, rel=1e-12)
    x = draw(np.random.default_rng(8), 6, 4)  # equal halves: their product less the signal
    found = split_estimates(half_sums(x, 2, [[p] for p in range(6)]))
    products = (x[:, :2].mean(1) * x[:, 2:].mean(1)).sum(1).mean()
    assert found["tr_between"] == pytest.approx(products - found["g_sq"], rel=1e-12)


@pytest.mark.parametrize(("rollouts", "solved", "factor"), [
    (2, 0.05, 2.0), (2, 0.5, 2.0), (4, 0.5, 13 / 12), (4, 0.02, 1.0), (8, 0.5, 1.0),
    (8, 0.02, 0.72)])
def test_the_split_of_groups_that_share_advantages_is_biased_as_stated_and_the_total_is_not(
        rollouts, solved, factor):
    rng = np.random.default_rng([rollouts, int(100 * solved)])
    prompts = 60_000
    rewards = (rng.random((prompts, rollouts)) < solved).astype(float)
    advantages = ((rewards - rewards.mean(1, keepdims=True))
                  / (rewards.std(1, ddof=1, keepdims=True) + 1e-6))
    sign = rng.choice([-1.0, 1.0], prompts)  # the prompt's gradient of log-odds; they cancel in G
    x = (advantages * (rewards - solved) * sign[:, None])[..., None]
    found = split_estimates(half_sums(x, rollouts // 2, np.arange(prompts)[:, None]))
    k = np.arange(rollouts + 1)
    chance = binom.pmf(k, rollouts, solved)
    mean = (chance * np.sqrt(k * (rollouts - k) * (rollouts - 1) / rollouts**3)).sum()
    assert found["tr_between"] / mean**2 == pytest.approx(factor, rel=0.08)
    assert found["tr_sigma"] / rollouts == pytest.approx(x.mean(1).var(), rel=1e-3)


def test_micro_batches_give_the_textbook_formula():
    gradients = np.random.default_rng(9).normal(size=(6, 4)) + 1  # K micro-batches
    prompts, rollouts = 3, 8                                     # of b = 24 samples
    spread = ((gradients - gradients.mean(0)) ** 2).sum()
    trace = prompts * rollouts * spread / 5
    signal = (gradients.mean(0) ** 2).sum() - spread / (6 * 5)
    sums = prompts * gradients
    g_sq, variance = pair_estimates((sums.sum(0) ** 2).sum(), (sums**2).sum(1), np.full(6, prompts))
    assert (g_sq, rollouts * variance) == pytest.approx((signal, trace), rel=1e-12)


def test_what_a_batch_cannot_tell_is_nan():
    rng = np.random.default_rng(10)
    one_prompt = split_estimates(half_sums(draw(rng, 1, 4), 2, [[0]]))
    assert np.isnan([one_prompt[k] for k in ("g_sq", "tr_sigma", "tr_between")]).all()
    assert np.isfinite([one_prompt["gbar_sq"], one_prompt["tr_within"]]).all()
    one_rollout = split_estimates(half_sums(draw(rng, 4, 1), 1, [[p] for p in range(4)]))
    assert np.isnan([one_rollout["tr_between"], one_rollout["tr_within"]]).all()
    assert np.isfinite([one_rollout[k] for k in ("gbar_sq", "g_sq", "tr_sigma")]).all()
