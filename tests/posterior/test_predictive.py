"""Runs predicted anew, and the run effect integrated out: against PyMC, a grid and counting."""

from __future__ import annotations

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from crossing_plain import run_log_likelihood
from fitted import NARROW
from pytensor.graph.replace import graph_replace, vectorize_graph

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.inference.sampling import sample_prior
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.laws import get_law
from cbsbayes.models.pymc_models import build_crossing_model
from cbsbayes.posterior.fit import stacked
from cbsbayes.posterior.predictive import (
    Parameters,
    expected_log_steps,
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


def log_p_by_pymc(data, law, prior, draw, z):
    """Return the PyMC model's log p of each crossing with every run effect at z, (z, run, t)."""
    model = build_crossing_model(data, law)
    effect = pt.vector("effect")
    fixed = {model[name]: pt.constant(prior[name].values[0, draw], dtype="float64")
             for name in (v.name for v in model.free_RVs) if name != "run_effect_z"}
    given = graph_replace([model["crossings"]], {**fixed, model["run_effect_z"]: effect},
                          strict=False)[0]
    many = pt.matrix("many")
    log_p = pytensor.function([many], vectorize_graph(given, {effect: many}), mode="FAST_COMPILE")
    return log_p(np.repeat(z[:, None], len(data.run), axis=1))


@pytest.mark.parametrize(("law_name", "columns"), [
    ("two_axis_free", slice(None)), ("two_axis_plain", slice(None)), ("total", slice(None)),
    ("power", slice(1, 2)),
])
def test_integral_over_the_run_effect_agrees_with_pymc_on_a_dense_grid(law_name, columns):
    law, data, prior = case(law_name, columns, draws=3)
    found = run_log_likelihood(parameters(stacked(prior), data, law), data)
    z = np.linspace(-8, 8, 4001)
    for draw in range(3):
        log_p = log_p_by_pymc(data, law, prior, draw, z).sum(axis=2)
        log_weight = -z[:, None] ** 2 / 2 - np.log(np.sqrt(2 * np.pi)) + np.log(z[1] - z[0])
        grid = np.logaddexp.reduce(log_p + log_weight, axis=0)
        np.testing.assert_allclose(found[draw], grid, atol=2e-4)


@pytest.mark.parametrize(("sigma_run", "sd", "tolerance"), [
    (0.08, 0.08, 1e-3), (0.02, 0.15, 1e-6), (0.25, 0.06, 0.03), (0.3, 0.03, 0.15),
])
def test_integral_holds_where_a_wrong_law_makes_the_peak_sharp_and_far(sigma_run, sd, tolerance):
    data = crossing_data(crossings(), get_law("two_axis"))
    draws = made(data, sigma_run, sd)
    off = Parameters(draws.log_steps + 3 * sigma_run, draws.sigma_run, draws.sd, draws.length)
    u = np.linspace(-9 * sigma_run, 9 * sigma_run, 6001)
    at = Parameters(off.log_steps + u[:, None, None], np.full(len(u), 1e-9),
                    np.repeat(off.sd, len(u), axis=0), np.full(len(u), off.length[0]))
    prior = -0.5 * (u / sigma_run) ** 2 - np.log(sigma_run * np.sqrt(2 * np.pi))
    grid = np.logaddexp.reduce(run_log_likelihood(at, data) + prior[:, None], axis=0)
    found = run_log_likelihood(off, data)[0]
    np.testing.assert_allclose(found, grid + np.log(u[1] - u[0]), atol=tolerance)


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


def test_a_run_that_says_nothing_has_probability_one():
    data = crossing_data(crossings(), get_law("total"))
    silent = np.zeros_like(data.informative)
    quiet = type(data)(**{**vars(data), "informative": silent})
    np.testing.assert_allclose(run_log_likelihood(made(data, 0.2, 0.1), quiet), 0.0, atol=1e-9)


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


def test_many_draws_are_worked_off_in_parts():
    law, data, prior = case("two_axis", draws=530)
    draws = parameters(stacked(prior), data, law)
    whole = run_log_likelihood(draws, data)
    assert whole.shape == (530, 6)
    apart = [run_log_likelihood(draws.part(slice(k, k + 1)), data)[0] for k in (0, 249, 250, 529)]
    np.testing.assert_allclose(whole[[0, 249, 250, 529]], apart, atol=1e-3)


@pytest.mark.parametrize(("law_name", "formula"), [
    ("total", lambda p, g, d: 1 + d["B_noise"] / (p * g)),
    ("power", lambda p, g, d: 1 + (d["B_noise"] / (p * g)) ** d["alpha"]),
    ("two_axis_sqrt", lambda p, g, d: (1 + (d["B_prompt"] + d["B_rollout"] / (g - 1)) / p) ** 0.5),
    ("two_axis_free_plain",
     lambda p, g, d: (1 + (d["B_prompt"] + d["B_rollout"] / g) / p) ** d["alpha"]),
])
def test_expected_steps_are_the_laws(law_name, formula):
    law, _data, prior = case(law_name)
    draws = stacked(prior)
    p, g = np.array([20.0, 90.0]), np.array([4.0, 16.0])
    found = expected_log_steps(draws, p, g, law)
    assert found.shape == (40, 2, 3)
    for k in range(2):
        values = {name: draws[name].transpose("sample", ...).values for name in draws.data_vars
                  if name in {*law.scales, "alpha"}}
        values = {n: v if v.ndim == 2 else v[:, None] for n, v in values.items()}
        s_min = draws["S_min"].transpose("sample", "threshold").values
        np.testing.assert_allclose(np.exp(found[:, k]), s_min * formula(p[k], g[k], values))


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
