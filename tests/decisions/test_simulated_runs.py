"""Simulated runs and how probable they are: against the model's own likelihood and by counting."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from crossing_plain import run_log_likelihood
from planning_draws import independent_draws
from scipy import stats

from cbsbayes.crossings.rules import INTERVAL, LEFT, RIGHT
from cbsbayes.decisions.candidates import Candidate
from cbsbayes.decisions.information import normal_scores
from cbsbayes.decisions.next_runs import Judge
from cbsbayes.decisions.run_density import log_likelihood_matrix
from cbsbayes.decisions.simulated_runs import (
    cell_parameters,
    crossing_bounds,
    evaluations,
    model_draws,
    new_log_steps,
    run_data,
)
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.posterior.conditions import steps_ratio
from cbsbayes.posterior.fit import stacked
from cbsbayes.posterior.predictive import Parameters, parameters
from cbsbayes.posterior.surface import Surface

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
        cell = Parameters(whole.log_steps[:, k:k + 1], whole.sigma_run, whole.sd, whole.length)
        found = log_likelihood_matrix(cell, one_run(data, k))[0]
        np.testing.assert_allclose(found[near[:, k]], expected[near[:, k], k], atol=0.02)


def test_a_run_that_cannot_be_is_given_a_number_all_the_same():
    few = independent_draws().part(np.arange(300))
    data = run_data(few, 128, 8, np.array([1.0, 2.0, 1e5]), np.random.default_rng(0))
    impossible = dataclasses.replace(data, log_lower=data.log_lower - 20,
                                     log_upper=data.log_upper - 20)
    cell = cell_parameters(few, 128, 8)
    found = log_likelihood_matrix(
        Parameters(cell.log_steps - data.log_steps_scale, cell.sigma_run, cell.sd, cell.length),
        impossible)
    assert np.isfinite(found).all()
    assert (found < -100).any()


def test_simulated_runs_are_as_often_censored_as_the_likelihood_says():
    """Counted for one draw of the parameters: never past the easiest threshold."""
    same = independent_draws().part(np.zeros(20000, dtype=int))
    one = cell_parameters(same.part(np.array([0])), 128, 8)
    for factor in (0.8, 1.0, 1.3):
        at = np.array([np.exp(one.log_steps[0, 0, 0]) * factor])
        data = run_data(same, 128, 8, at, np.random.default_rng(1))
        never = ~(data.informative & (data.log_lower < -20)).any(axis=1)
        scaled = Parameters(one.log_steps - data.log_steps_scale, one.sigma_run, one.sd, one.length)
        says = np.exp(log_likelihood_matrix(scaled, one_run(data, int(np.argmax(never))))[0, 0])
        assert never.mean() == pytest.approx(says, abs=0.012)


@pytest.mark.parametrize("cell", [(128.0, 8.0, 300.0), (32.0, 8.0, 500.0), (128.0, 2.0, 200.0)])
def test_weighted_draws_are_a_posterior_of_the_data_they_were_weighted_by(cell):
    """The quantity's true value falls everywhere alike among the weighted draws."""
    everything = independent_draws(6000)
    surface = Surface(everything.law, everything.posterior)
    values = np.log(surface.solve(steps_ratio(2.0), "prompts", 8).isel(threshold=-1).values)
    truths, weighted = np.arange(600), np.arange(600, 6000)
    judge = Judge(everything.part(truths), everything.part(weighted),
                  normal_scores(values[weighted]), 25.0, 0)
    log_w = judge.weights(Candidate(*cell, 1, 1.0, 0, False, 1.0))
    share = np.exp(log_w - log_w.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    ranks = (share * (values[weighted] < values[truths][:, None])).sum(axis=1)
    assert stats.kstest(ranks, "uniform").pvalue > 0.01


def test_bounds_hold_the_updates_and_follow_the_evaluations():
    log_steps = new_log_steps(independent_draws(), 128, 8, np.random.default_rng(2))
    ordered = np.maximum.accumulate(log_steps, axis=1)
    lower, upper, status = crossing_bounds(log_steps, evaluations(100, 300))
    assert (lower < np.exp(ordered)).all()
    assert (np.exp(ordered) <= upper).all()
    assert set(np.unique(status)) == {LEFT, INTERVAL, RIGHT}
    assert (upper[status == INTERVAL] - lower[status == INTERVAL] == 100).all()
    assert (lower[status == LEFT] == 0).all()
    assert (upper[status == LEFT] == 100).all()
    assert (lower[status == RIGHT] == 300).all()
    assert (upper[status == RIGHT] == np.inf).all()
    assert (np.diff(lower, axis=1) >= 0).all()


def test_batches_share_their_noise_so_that_differences_are_the_law():
    draws = independent_draws()
    one, other = (new_log_steps(draws, p, 8, np.random.default_rng(3)) for p in (64, 128))
    law = [cell_parameters(draws, p, 8).log_steps[:, 0] for p in (64, 128)]
    np.testing.assert_allclose(one - other, law[0] - law[1])


@pytest.mark.parametrize(("every", "updates", "at"), [
    (25, 100, [25, 50, 75, 100]), (25, 60, [25, 50, 60]), (25, 10, [10]), (25, 0, []),
    (2, 3.5, [2, 3.5])])
def test_evaluations(every, updates, at):
    assert evaluations(every, updates).tolist() == at
