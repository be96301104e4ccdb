"""The compiled density against the PyMC model, brute-force integration and differences."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from crossing_plain import run_log_likelihood
from crossing_tables import all_left, crossings_table
from hypothesis import example, given, settings
from hypothesis import strategies as st
from noise_tables import with_noise
from scipy.special import logit, ndtr
from scipy.stats import norm

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.inference.nuts import find_mode
from cbsbayes.inference.sampling import crossing_density, crossing_log_likelihoods
from cbsbayes.models.crossing import run_effects, run_log_likelihoods
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.crossing_parameters import CrossingParameters, crossing_arrays
from cbsbayes.models.laws import LAWS
from cbsbayes.models.parameters import PRIORS
from cbsbayes.models.pymc_models import build_crossing_model
from cbsbayes.posterior.fit import stacked
from cbsbayes.posterior.law_fit import new_runs
from cbsbayes.validation.families import FAMILIES, family_sweep
from cbsbayes.validation.models import fitted_runs

CASES = [*((name, 4) for name in LAWS), ("total", 1), ("two_axis_free", 1), ("two_axis_free", 2),
         ("learning_rate", 1), ("learning_rate+noise", 1),
         ("power+noise", 4), ("two_axis_free+noise", 4), ("two_axis_free+N", 4),
         ("two_axis+noise", 2), ("two_axis_free_plain+noise", 1)]
MODE = "FAST_COMPILE"  # compiling the graph would take longer than all these evaluations


@cache
def model(name, n_thresholds):
    """A law's model; with ``+noise`` measured noise of its parts is data, with ``+N`` its N."""
    name, _, noise = name.partition("+")
    law = LAWS[name]
    data = crossing_data(crossings_table(law, n_thresholds), law)
    if noise:
        data = with_noise(data, law, parts=noise)
    return CrossingParameters(data, law)


def points(own, far=0.5, n=3):
    rng = np.random.default_rng(1)
    return own.center + far * own.sd * rng.standard_normal((n, own.n_dim))


def value_name(block):
    return block.name + {"": "", "log": "_log__", "probit": "_interval__"}[block.transform]


def as_values(own, position, effect):
    """Return a point of PyMC's unconstrained space, every run's effect the same."""
    values = {value_name(b): (position[own.slices[b.name]] if b.dims
                              else position[own.slices[b.name]][0]) for b in own.blocks}
    if "alpha_interval__" in values:
        values["alpha_interval__"] = logit(ndtr(values["alpha_interval__"]))
    return values | {"run_effect_z": np.full(len(own.data.run), effect)}


def log_slope(own, position):
    """Return log of what PyMC's coordinate of the exponent changes by with ours."""
    if "alpha" not in own.slices:
        return 0.0
    w = position[own.slices["alpha"]][0]
    return norm.logpdf(w) - np.log(ndtr(w) * ndtr(-w))


def slopes(density, position, step=1e-5):
    moves = step * np.eye(len(position))
    return np.array([density(position + m)[0] - density(position - m)[0] for m in moves]) / (
        2 * step)


@pytest.mark.parametrize(("name", "n_thresholds"), CASES)
def test_variables_and_density_are_the_pymc_model_s_with_run_effects_integrated_out(
        name, n_thresholds):
    own = model(name, n_thresholds)
    pymc = build_crossing_model(own.data, own.law)
    assert {value_name(b) for b in own.blocks} == {v.name for v in pymc.value_vars} - {
        "run_effect_z"}
    variables = [v for v in pymc.free_RVs + pymc.deterministics
                 if v.name not in ("run_effect_z", "run_effect")]
    by_run, found = (pymc.compile_fn(
        pymc.replace_rvs_by_values(wanted), inputs=pymc.value_vars, mode=MODE,
        on_unused_input="ignore") for wanted in ([pymc["crossings"].sum(axis=1)], variables))
    position = points(own, 0.3, 1)
    effects, at = np.linspace(-18.0, 18.0, 601), as_values(own, position[0], 0.0)
    runs = np.array([by_run(as_values(own, position[0], z))[0] for z in effects])
    weight = np.exp(runs - runs.max(axis=0) - 0.5 * effects[:, None] ** 2)
    integral = np.log(np.trapezoid(weight, effects, axis=0)) + runs.max(axis=0)
    whole = pymc.compile_logp(mode=MODE)(at) + (integral - by_run(at)[0]).sum()
    # PyTensor folds logarithms of constants such as 1.5 in single precision: 1e-7 in all
    assert crossing_density(own)(position[0])[0] == pytest.approx(
        whole + log_slope(own, position[0]), abs=2e-5)
    draws = own.unpack(position[None])
    assert set(draws.data_vars) == {v.name for v in variables}
    for variable, value in zip(variables, found(at), strict=True):
        np.testing.assert_allclose(draws[variable.name].values[0, 0], value, rtol=1e-9)
    np.testing.assert_allclose(own.pack(stacked(draws)), position, atol=1e-9)


@pytest.mark.parametrize(("name", "n_thresholds"), CASES)
def test_the_gradient_is_the_slope_of_the_value(name, n_thresholds):
    own = model(name, n_thresholds)
    density = crossing_density(own)
    for position in points(own):
        found = slopes(density, position)
        np.testing.assert_allclose(density(position)[1], found, rtol=1e-4,
                                   atol=1e-5 * np.abs(found).max())


# nodes 1.2 standard deviations apart left the slope by sigma_run 2e-4 off here
@example("item_set", 2, 3, 17, None, None)
@settings(max_examples=30)
@given(family=st.sampled_from(sorted(FAMILIES)), every=st.sampled_from([2, 10, 25, 50]),
       n_thresholds=st.integers(1, 12), seed=st.integers(0, 10_000),
       sigma_run=st.sampled_from([None, 0.01, 0.1, 1.0]),
       sigma_residual=st.sampled_from([None, 0.01, 0.03]))
def test_the_density_is_exact_on_every_family(
        family, every, n_thresholds, seed, sigma_run, sigma_residual):
    law = LAWS["two_axis_free"]
    chosen = FAMILIES[family]
    chosen = replace(chosen, arguments={**chosen.arguments, "eval_every": every})
    sweep = fitted_runs(family_sweep(chosen, law, seed), law)
    targets = np.linspace(0.58, 0.74, n_thresholds) if n_thresholds > 1 else np.array([0.66])
    data = crossing_data(find_crossings(sweep, targets), law)
    own = CrossingParameters(data, law, PRIORS.at(n_thresholds))
    density = crossing_density(own)
    position = find_mode(density, own.center, own.sd)
    for name, value in (("sigma_run", sigma_run), ("sigma_residual", sigma_residual)):
        if value is not None:
            position[own.slices[name]] = np.log(value)
    found = run_log_likelihoods(position[None], crossing_arrays(own))
    draws = own.unpack(position[None, None]).assign_coords(run=data.run)
    exact = run_log_likelihood(new_runs(stacked(draws), data, law), data)
    assert abs((found - exact).sum()) < 1e-3
    expected = slopes(density, position)
    np.testing.assert_allclose(density(position)[1], expected, rtol=1e-4,
                               atol=1e-4 * np.abs(expected).max() + 1e-4)


def test_run_log_likelihoods_of_draws_leave_measured_noise_out():
    own, with_measured = model("two_axis_free", 4), model("two_axis_free+noise", 4)
    position = points(with_measured)
    draws = stacked(with_measured.unpack(position[None]))
    np.testing.assert_allclose(
        crossing_log_likelihoods(with_measured, draws),
        run_log_likelihoods(position[:, :own.n_dim].copy(), crossing_arrays(own)), atol=1e-9)


@pytest.mark.parametrize("table", [crossings_table(LAWS["two_axis"]), all_left(LAWS["two_axis"])])
def test_run_effects_are_drawn_from_what_the_data_leave(table):
    law, sigma, n = LAWS["two_axis"], 0.3, 20_000
    data = crossing_data(table, law)
    own = CrossingParameters(data, law)
    position = own.center.copy()
    position[own.slices["sigma_run"]] = np.log(sigma)
    arrays = crossing_arrays(own)
    uniform = np.tile((np.arange(n)[:, None] + 0.5) / n, (1, len(data.run)))
    drawn = run_effects(np.tile(position, (n, 1)), uniform, arrays) / sigma
    # a run's density at an effect is that of a run without one, its crossings moved by as much
    z = np.linspace(-8.0, 8.0, 801)
    position[own.slices["sigma_run"]] = np.log(1e-7)
    log_p = np.array([run_log_likelihoods(position[None], arrays._replace(
        bounds=arrays.bounds - sigma * effect))[0] for effect in z]) - 0.5 * z[:, None] ** 2
    weight = np.exp(log_p - log_p.max(axis=0))
    weight /= weight.sum(axis=0)
    mean = (weight * z[:, None]).sum(axis=0)
    sd = np.sqrt((weight * (z[:, None] - mean) ** 2).sum(axis=0))
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=5e-3)
    np.testing.assert_allclose(drawn.std(axis=0), sd, rtol=1e-2)


def test_a_position_far_beyond_the_prior_keeps_a_finite_gradient():
    own = model("two_axis_free", 4)
    density = crossing_density(own)
    for sign in (-10.0, 10.0):
        for block in own.blocks:
            position = own.center.copy()
            position[own.slices[block.name]] += sign * block.sd
            value, gradient = density(position)
            assert np.isfinite(value), block.name
            assert np.isfinite(gradient).all(), block.name
