"""Runs predicted anew, and the run effect integrated out: against PyMC, a grid and counting."""

from __future__ import annotations

import numpy as np
import pytest
from crossing_plain import run_log_likelihood
from fitted import NARROW

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.inference.sampling import sample_prior
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.fit import stacked
from cbsbayes.posterior.predictive import (
    Parameters,
    parameters,
    replicate_log_steps,
)
from cbsbayes.sweep.dataset import new_sweep

CELLS = [(16, 8), (32, 8), (64, 8), (128, 8), (128, 2), (128, 32)]
THRESHOLDS = [0.4, 0.6, 0.8]
# S of six runs at three thresholds: left-censored, intervals, never reached, not measured.
LOWER = [[60, 120, 240], [45, 90, 180], [0, 60, 120], [0, 0, 90], [50, np.nan, 150], [20, 45, 80]]
UPPER = [[75, 150, np.inf], [60, 105, 200], [30, 75, 150], [30, 60, 105], [65, np.nan, 190],
         [40, 60, 110]]


def crossings(columns=slice(None)):
    prompts, rollouts = np.array(CELLS).T
    table = {"run": [f"r{k}" for k in range(6)], "n_prompts": prompts, "n_rollouts": rollouts}
    ds = new_sweep(table, threshold=THRESHOLDS[columns], steps_lower=np.array(LOWER)[:, columns],
                   steps_upper=np.array(UPPER)[:, columns])
    return find_crossings(ds, THRESHOLDS[columns])


def case(law_name, columns=slice(None), draws=40):
    law = get_law(law_name)
    data = crossing_data(crossings(columns), law)
    prior = sample_prior(data, law, draws=draws, random_seed=4, priors=NARROW)
    return law, data, prior


def made(data, sigma_run, sd, n_draws=1, length=0.5):
    """Return equal draws that lie at the middle of the data."""
    shape = (n_draws, len(data.run), len(data.threshold))
    log_s = np.broadcast_to(data.midpoint, shape)
    return Parameters(log_s, np.full(n_draws, sigma_run), np.full((n_draws, shape[2]), sd),
                      np.full(n_draws, length))


@pytest.mark.parametrize("column", [0, 1, 2])
def test_at_one_threshold_replicates_fall_into_the_interval_as_often_as_it_is_probable(column):
    law, data, prior = case("two_axis_free", slice(column, column + 1), draws=1)
    one = parameters(stacked(prior), data, law)
    many = Parameters(*(np.repeat(part, 200_000, axis=0)
                        for part in (one.log_steps, one.sigma_run, one.sd, one.length)))
    new = replicate_log_steps(many, data, np.random.default_rng(5))
    inside = ((new > data.log_lower) & (new <= data.log_upper))[:, :, 0].mean(axis=0)
    probable = np.exp(run_log_likelihood(one, data))[0]
    said = data.informative[:, 0]
    assert said.sum() >= 4
    se = np.sqrt(probable * (1 - probable) / 200_000)
    assert (np.abs(inside - probable)[said] < 4 * se[said] + 1e-5).all()
    assert (probable[~said] == pytest.approx(1.0, abs=1e-6))


def test_moments_of_replicates():
    data = crossing_data(crossings(), get_law("two_axis"))
    n_draws, sigma_run, sd, length = 100_000, 0.3, np.array([0.1, 0.2, 0.4]), 0.7
    center = np.arange(18.0).reshape(1, 6, 3)
    draws = Parameters(np.repeat(center, n_draws, axis=0), np.full(n_draws, sigma_run),
                       np.tile(sd, (n_draws, 1)), np.full(n_draws, length))
    new = replicate_log_steps(draws, data, np.random.default_rng(0)) - center
    np.testing.assert_allclose(new.mean(axis=0), 0.0, atol=5 * 0.5 / np.sqrt(n_draws))
    np.testing.assert_allclose(new.std(axis=0), np.tile(np.hypot(sigma_run, sd), (6, 1)), rtol=0.02)
    rho = np.exp(-np.abs(data.threshold_logit[:, None] - data.threshold_logit) / length)
    expected = sigma_run**2 + rho * np.outer(sd, sd)
    np.testing.assert_allclose(np.cov(new[:, 2].T), expected, rtol=0.04)
    between = np.cov(new[:, 0, 0], new[:, 1, 0])[0, 1]
    assert abs(between) < 0.003  # runs are independent


def test_same_seed_same_replicates():
    law, data, prior = case("total")
    draws = parameters(stacked(prior), data, law)
    first, again = (replicate_log_steps(draws, data, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_residual_scale_follows_its_trend_and_stands_alone_at_one_threshold():
    law, data, prior = case("total")
    draws = parameters(stacked(prior), data, law)
    trend, sigma = prior["residual_trend"].values[0], prior["sigma_residual"].values[0]
    np.testing.assert_allclose(
        draws.sd, sigma[:, None] * np.exp(np.outer(trend, data.threshold_logit)))
    np.testing.assert_array_equal(draws.length, prior["residual_length"].values[0])
    law, data, prior = case("total", slice(0, 1))
    one = parameters(stacked(prior), data, law)
    np.testing.assert_array_equal(one.sd[:, 0], prior["sigma_residual"].values[0])
    np.testing.assert_array_equal(one.length, 0.0)
