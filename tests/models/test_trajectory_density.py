"""The trajectory model's density is a dense multivariate normal's, its gradient the derivative."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from trajectory_plain import log_prior, run_deviations, run_log_likelihoods

from cbsbayes.models.laws import get_law
from cbsbayes.models.trajectory import TrajectoryParameters
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_runs import deviations
from cbsbayes.posterior.fit import stacked
from cbsbayes.validation.families import family_sweep, get_family
from cbsbayes.validation.models import fitted_runs

FAMILIES = ["base", "sqrt", "heavy", "hill", "ceiling", "total", "item_set", "rising_noise",
            "wander", "seeds_2"]


def model_of(law_name, family="rising_noise", every=50, ceiling_by_group=False):
    law, family = get_law(law_name), get_family(family)
    family = replace(family, arguments={**family.arguments, "eval_every": every})
    data = trajectory_data(fitted_runs(family_sweep(family, law, 3), law), law, None)
    moved = np.random.default_rng(0).normal(0, 0.05, len(data.steps))
    return TrajectoryParameters(replace(data, reference=moved), law,
                                ceiling_by_group=ceiling_by_group)


def position_of(model):
    rng = np.random.default_rng(len(model.data.steps))
    return model.center + 0.3 * model.sd * rng.standard_normal(model.n_dim)


def check(model):
    """Hold the value to a dense normal, the gradient to central differences of the value."""
    position = position_of(model)
    by_run = run_log_likelihoods(model, position)
    value, gradient = model.log_density(position)
    assert value == pytest.approx(log_prior(model, position) + by_run.sum(), rel=1e-10)
    np.testing.assert_allclose(model.run_log_likelihoods(position[None])[0], by_run,
                               rtol=1e-9, atol=1e-7)
    steps = 1e-6 * np.eye(model.n_dim)
    expected = np.array([(model.log_density(position + e)[0]
                          - model.log_density(position - e)[0]) / 2e-6 for e in steps])
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("every", [2, 10, 25, 50])
@pytest.mark.parametrize("family", FAMILIES)
def test_value_and_gradient_on_validation_families(family, every):
    check(model_of("two_axis_free", family, every))


@pytest.mark.parametrize(("law", "ceiling_by_group"), [
    ("two_axis", False), ("two_axis_free_plain", True), ("total", False), ("power", False),
    ("two_axis_free", True)])
def test_value_and_gradient_under_every_form_of_the_law(law, ceiling_by_group):
    check(model_of(law, ceiling_by_group=ceiling_by_group))


def test_what_is_known_of_runs_is_that_of_normal_regression():
    model = model_of("two_axis_free")
    position = position_of(model)
    shared = model.shared(position)
    deviation, mean, sd = deviations(shared, model.arrays, model.curve(shared))
    expected = list(run_deviations(model, position))
    np.testing.assert_allclose(mean, [run[0] for run in expected], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(sd, [run[1] for run in expected], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(deviation, np.concatenate([run[2] for run in expected]),
                               rtol=1e-7, atol=1e-9)


def test_no_saturation_is_the_model_without_ceilings():
    model, plain = model_of("two_axis_free", ceiling_by_group=True), model_of("two_axis_free")
    position, j = position_of(plain), model.slices["ceiling_loss"].start
    value, gradient = model.log_density(np.insert(position, j, 0.0))
    expected, slope = plain.log_density(position)
    assert value == pytest.approx(expected - np.log(model.sd[j] * np.sqrt(2 * np.pi)), rel=1e-12)
    np.testing.assert_allclose(np.delete(gradient, j), slope, rtol=1e-9, atol=1e-9)
    assert gradient[j] != 0


def test_an_impossible_position_has_no_finite_density():
    model = model_of("two_axis_free")
    position = model.center.copy()
    position[model.slices["sigma_noise"]] = np.nan
    assert not np.isfinite(model.log_density(position)[0])


def test_draws_of_the_variables_give_the_position_back():
    model = model_of("two_axis_free", ceiling_by_group=True)
    position = model.prior_draws(50, np.random.default_rng(0))
    draws = stacked(model.labelled(position[None], {}, {}))
    np.testing.assert_allclose(model.pack(draws), position, rtol=1e-7, atol=1e-7)
