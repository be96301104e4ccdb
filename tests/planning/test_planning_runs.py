"""Simulated runs and how probable they are: against the model's own likelihood and by counting."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cbsbayes.bounds import INTERVAL, LEFT, RIGHT
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.planning.kernel import log_likelihood_matrix
from cbsbayes.planning.runs import (
    Noise,
    cell_parameters,
    draw_noise,
    evaluations,
    model_draws,
    run_data,
    simulated_steps,
)
from cbsbayes.replicates import Parameters, parameters, run_log_likelihood
from cbsbayes.result import stacked

PER_RUN = ("run", "n_prompts", "n_rollouts", "log_lower", "log_upper", "informative", "midpoint",
           "previous", "gap")


@pytest.fixture(scope="module")
def draws(fit):
    data = crossing_data(fit.crossings, fit.law)
    return model_draws(stacked(fit.posterior), fit.law, data, "increasing")


def one_run(data, k):
    fields = {f.name: getattr(data, f.name) for f in dataclasses.fields(data)}
    return type(data)(**fields | {name: fields[name][k:k + 1] for name in PER_RUN})


def test_cell_parameters_are_those_of_the_fit(fit, draws):
    data = crossing_data(fit.crossings, fit.law)
    whole = parameters(draws.posterior, data, fit.law)
    for k in (0, len(data.run) - 1):
        cell = cell_parameters(draws, data.n_prompts[k], data.n_rollouts[k])
        np.testing.assert_allclose(cell.log_steps[:, 0] - data.log_steps_scale,
                                   whole.log_steps[:, k])
        np.testing.assert_allclose(cell.sd, whole.sd)


def test_the_kernel_integrates_the_run_effect_as_the_package_does(fit, draws):
    data = crossing_data(fit.crossings, fit.law)
    whole = parameters(draws.posterior, data, fit.law)
    expected = run_log_likelihood(whole, data)
    near = expected > -60  # beyond, the kernel's grid of the effect ends; such runs weigh nothing
    assert near.mean() > 0.5
    for k in range(len(data.run)):
        run = one_run(data, k)
        cell = Parameters(whole.log_steps[:, k:k + 1], whole.sigma_run, whole.sd, whole.length)
        found = log_likelihood_matrix(cell, run)[0]
        np.testing.assert_allclose(found[near[:, k]], expected[near[:, k], k], atol=0.02)


def test_simulated_runs_are_as_probable_as_the_likelihood_says(draws):
    """Counted: how often simulated runs show each pattern, for one draw of the parameters."""
    few = dataclasses.replace(draws.part(np.zeros(20000, dtype=int)),
                              threshold=draws.threshold, hardness=draws.hardness)
    middle = np.exp(cell_parameters(few, 128, 8).log_steps[0, 0])
    at = np.array([middle[0] * 0.9, middle[-1] * 1.05])  # two evaluations: few patterns
    noise = draw_noise(20000, len(few.threshold), np.random.default_rng(0))
    data, _ = run_data(few, 128, 8, at, noise)
    one = cell_parameters(few.part(np.array([0])), 128, 8)
    scaled = Parameters(one.log_steps - data.log_steps_scale, one.sigma_run, one.sd, one.length)
    log_p = log_likelihood_matrix(scaled, data)[:, 0]
    patterns, index = np.unique(np.column_stack([data.log_lower, data.log_upper]).round(6), axis=0,
                                return_inverse=True)
    counts = np.bincount(index.ravel())
    common = counts > 1000
    assert common.sum() >= 2
    for k in np.flatnonzero(common):
        says = np.exp(log_p[index.ravel() == k][0])
        assert counts[k] / 20000 == pytest.approx(says, abs=0.03)


def test_bounds_hold_the_updates_and_follow_the_evaluations(draws):
    n_runs = draws.posterior.sizes["sample"]
    still = Noise(np.zeros(n_runs), np.zeros((n_runs, len(draws.threshold))))
    cell = cell_parameters(draws, 128, 8)
    expected = np.exp(cell.log_steps[:, 0])
    at = evaluations(25, np.ceil(expected.max()) + 25)
    lower, upper, status = simulated_steps(cell, draws.hardness, at, still)
    assert (lower[:, 0] < expected[:, 0]).all()
    assert (expected[:, 0] <= upper[:, 0]).all()
    assert set(np.unique(upper - lower)) <= {25.0, at[-1] - at[-2]}
    assert (np.diff(lower, axis=1) >= 0).all()
    assert set(np.unique(status)) <= {LEFT, INTERVAL}


def test_a_run_that_ends_early_is_censored_from_there_on(draws):
    n_runs = draws.posterior.sizes["sample"]
    noise = draw_noise(n_runs, len(draws.threshold), np.random.default_rng(1))
    lower, upper, status = simulated_steps(cell_parameters(draws, 32, 8), draws.hardness,
                                           evaluations(25, 150), noise)
    censored = status == RIGHT
    assert 0 < censored.mean() < 1
    assert (upper[censored] == np.inf).all()
    assert (lower[censored] == 150).all()
    assert (np.diff(censored.astype(int), axis=1) >= 0).all()


@pytest.mark.parametrize(("every", "updates", "at"), [
    (25, 100, [25, 50, 75, 100]), (25, 60, [25, 50, 60]), (25, 10, [10]), (25, 0, []),
    (2, 3.5, [2, 3.5])])
def test_evaluations(every, updates, at):
    assert evaluations(every, updates).tolist() == at
