"""The PyMC definition of the trajectory model is the flat density, prior and likelihood alike."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest

from cbsbayes.laws import get_law
from cbsbayes.models import trajectory_kernel as kernel
from cbsbayes.models.trajectory import build_trajectory_model, position_of
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_flat import FlatTrajectory
from cbsbayes.models.trajectory_words import data_words
from cbsbayes.sampling import SamplerSettings
from cbsbayes.simulate import simulate_sweep
from cbsbayes.trajectory_sampling import sample_curves


def flat_model(name):
    sweep = simulate_sweep("all", 1, eval_every=50, max_updates=400, random_seed=3)
    sweep = sweep.isel(run=np.flatnonzero(sweep["n_rollouts"].values >= 2))
    law = get_law(name)
    return FlatTrajectory(trajectory_data(sweep, law, None), law)


@pytest.mark.parametrize("name", ["two_axis_free", "two_axis"])
def test_density_and_gradient_are_those_of_the_kernel(name):
    flat = flat_model(name)
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
def test_both_samplers_agree():
    flat = flat_model("two_axis_free")
    means, errors = [], []
    for sampler in ("nutpie", "pymc"):
        settings = SamplerSettings(sampler=sampler, draws=500, tune=500, chains=2)
        posterior = sample_curves(flat, np.array([0.62, 0.66]), settings)[0]["posterior"]
        logs = np.log(posterior["S_min"].values.reshape(-1, 2))
        means.append(logs.mean(axis=0))
        errors.append(logs.std(axis=0) / np.sqrt(100))  # some 100 independent draws at least
    np.testing.assert_array_less(np.abs(means[0] - means[1]), 4 * np.hypot(*errors))
