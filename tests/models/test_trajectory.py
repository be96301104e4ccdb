"""The PyMC definition of the trajectory model is the flat density, prior and likelihood alike."""

from __future__ import annotations

from functools import partial

import numpy as np
import pymc as pm
import pytest

from cbsbayes.inference.sampling import SAMPLERS, SamplerSettings
from cbsbayes.inference.trajectory_sampling import _above_floor, sample_curves
from cbsbayes.models import trajectory_kernel as kernel
from cbsbayes.models.laws import get_law
from cbsbayes.models.trajectory import build_trajectory_model, position_of
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_flat import FlatTrajectory
from cbsbayes.models.trajectory_words import data_words
from cbsbayes.simulate import simulate_sweep


def flat_model(name, ceiling_by_group=False):
    sweep = simulate_sweep("all", 1, eval_every=50, max_updates=400, random_seed=3)
    sweep = sweep.isel(run=np.flatnonzero(sweep["n_rollouts"].values >= 2))
    law = get_law(name)
    return FlatTrajectory(trajectory_data(sweep, law, None), law,
                          ceiling_by_group=ceiling_by_group)


@pytest.mark.parametrize(("name", "ceiling_by_group"), [
    ("two_axis_free", False), ("two_axis", False), ("two_axis_free", True)])
def test_density_and_gradient_are_those_of_the_kernel(name, ceiling_by_group):
    flat = flat_model(name, ceiling_by_group)
    model = build_trajectory_model(flat)
    assert [value.name for value in model.value_vars] == [b.value_name for b in flat.blocks]
    density, slope = (model.compile_fn(graph, inputs=model.value_vars, point_fn=False,
                                       mode="FAST_COMPILE")
                      for graph in (model.logp(), model.dlogp()))
    rng = np.random.default_rng(0)
    for _ in range(3):
        position = flat.center + 0.3 * flat.sd * rng.standard_normal(flat.n_dim)
        parts = [position[flat.slices[b.name]] for b in flat.blocks]
        parts = [part if b.dim else part[0] for part, b in zip(parts, flat.blocks, strict=True)]
        value, gradient = kernel.log_density(position, data_words(flat))
        assert density(*parts) == pytest.approx(value, rel=1e-9)
        np.testing.assert_allclose(slope(*parts), gradient, rtol=1e-7,
                                   atol=1e-9 * np.abs(gradient).max())


def test_draws_of_the_variables_give_the_flat_vector_back():
    flat = flat_model("two_axis")
    with (build_trajectory_model(flat),
          pytest.warns(UserWarning, match="Potentials")):  # the prior of the parameters is wanted
        tree = pm.sample_prior_predictive(draws=40, random_seed=1,
                                          compile_kwargs={"mode": "FAST_COMPILE"})
    prior = tree["prior"].to_dataset()
    position = position_of(flat, prior)
    assert position.shape == (1, 40, flat.n_dim)
    for name, value in flat.parameters(position[0]).items():
        np.testing.assert_allclose(value, prior[name].values[0], rtol=1e-9)
    runs = kernel.log_densities(position[0], data_words(flat))[1]
    np.testing.assert_allclose(prior["run_log_likelihood"].values[0], runs, rtol=1e-9)


@pytest.mark.mcmc
def test_all_samplers_agree():
    flat = flat_model("two_axis_free")
    means, errors = [], []
    for sampler in SAMPLERS:
        settings = SamplerSettings(sampler=sampler, draws=500, tune=500, chains=2)
        tree = sample_curves(flat, np.array([0.62, 0.66]), settings)[0]
        assert tree["sample_stats"].attrs["fell_back"] == ""
        logs = np.log(np.concatenate([tree["posterior"][name].values.reshape(1000, -1)
                                      for name in ("S_min", "alpha", "sigma_run")], axis=1))
        means.append(logs.mean(axis=0))
        errors.append(logs.std(axis=0) / np.sqrt(100))  # some 100 independent draws at least
    for k in (1, 2):
        np.testing.assert_array_less(np.abs(means[0] - means[k]),
                                     4 * np.hypot(errors[0], errors[k]))


def test_the_ceiling_s_coordinate_changes_nothing_but_the_scale():
    flat = flat_model("two_axis_free")
    words, j = data_words(flat), flat.slices["ceiling_logit"].start
    rng = np.random.default_rng(0)
    position = flat.center + 0.2 * flat.sd * rng.standard_normal((5, flat.n_dim))
    floor = position[:, j].min() - 1.0
    turned = position.copy()
    turned[:, j] = np.log(position[:, j] - floor)
    density = _above_floor(partial(kernel.gradients, words=words), j, floor)
    value, slope = density(turned)
    plain = kernel.gradients(position, words)
    np.testing.assert_allclose(value, plain[0] + turned[:, j], rtol=1e-12)
    step = np.zeros(flat.n_dim)
    step[j] = 1e-5
    by_difference = (density(turned + step)[0] - density(turned - step)[0]) / 2e-5
    np.testing.assert_allclose(slope[:, j], by_difference, rtol=1e-5)
    others = np.arange(flat.n_dim) != j
    np.testing.assert_array_equal(slope[:, others], plain[1][:, others])
