"""The compiled kernel is held to the PyMC model: value, gradient, variables, priors."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from crossing_tables import all_left, crossings_table
from noise_tables import with_noise

from cbsbayes.models.crossing import build_crossing_model
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.crossing_flat import FlatCrossing
from cbsbayes.models.crossing_kernel import log_density, sampler_callbacks
from cbsbayes.models.crossing_words import data_words
from cbsbayes.models.laws import LAWS
from cbsbayes.models.priors import PRIORS

CASES = [*((name, n) for name in LAWS for n in (1, 4)), ("two_axis_free", 2)]
CASES += [(f"{name}+noise", n) for name in ("power", "two_axis_sqrt", "two_axis_free_plain",
                                            "two_axis_free") for n in (1, 4)]
CASES += [("two_axis_free+N", 4), ("two_axis+noise", 2)]
MODE = "FAST_COMPILE"  # compiling the graph would take longer than all these evaluations


@cache
def flat_model(name, n_thresholds):
    """A law's model; with ``+noise`` measured noise of its parts is data, with ``+N`` its N."""
    name, _, noise = name.partition("+")
    law = LAWS[name]
    data = crossing_data(crossings_table(law, n_thresholds), law)
    if noise:
        data = with_noise(data, law, parts=noise)
    return FlatCrossing(data, law)


@cache
def pymc_model(name, n_thresholds):
    flat = flat_model(name, n_thresholds)
    return build_crossing_model(flat.data, flat.law)


def points(flat, n=3):
    """Random points near and far: half, one and three prior standard deviations off."""
    rng = np.random.default_rng(1)
    return [flat.center + far * flat.sd * rng.standard_normal(flat.n_dim)
            for far in (0.5, 1.0, 3.0) for _ in range(n)]


def as_values(flat, position):
    return {b.value_name: (position[flat.slices[b.name]] if b.dim
                           else position[flat.slices[b.name]][0]) for b in flat.blocks}


@pytest.mark.parametrize(("name", "n_thresholds"), CASES)
def test_blocks_are_the_model_s_unconstrained_variables_in_order(name, n_thresholds):
    values = pymc_model(name, n_thresholds).value_vars
    assert [b.value_name for b in flat_model(name, n_thresholds).blocks] == [v.name for v in values]


@pytest.mark.parametrize(("name", "n_thresholds"), CASES)
def test_value_and_gradient_are_those_of_the_pymc_model(name, n_thresholds):
    flat, model = flat_model(name, n_thresholds), pymc_model(name, n_thresholds)
    words = data_words(flat)
    logp, dlogp = model.compile_logp(mode=MODE), model.compile_dlogp(mode=MODE)
    for position in points(flat):
        value, gradient = log_density(position, words)
        at = as_values(flat, position)
        expected = dlogp(at)
        # PyTensor folds logarithms of constants such as 1.5 in single precision: 1e-7 in all.
        assert value == pytest.approx(float(logp(at)), rel=1e-9, abs=1e-6)
        np.testing.assert_allclose(gradient, expected, rtol=1e-8,
                                   atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "n_thresholds"), CASES)
def test_gradient_is_the_slope_of_the_value(name, n_thresholds):
    flat = flat_model(name, n_thresholds)
    words, step = data_words(flat), 1e-5
    for position in points(flat, 1):
        gradient = log_density(position, words)[1]
        moves = step * np.eye(flat.n_dim)
        slopes = np.array([log_density(position + m, words)[0] - log_density(position - m, words)[0]
                           for m in moves]) / (2 * step)
        np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-6 * np.abs(slopes).max())


@pytest.mark.parametrize("case", ["wide priors", "very narrow", "very wide"])
def test_agrees_under_other_priors_and_residual_scales(case):
    law = LAWS["two_axis_free"]
    priors = {"wide priors": replace(PRIORS, scale_level_sd=3.0, alpha=(1.0, 0.5, 0.1, 3.0)),
              "very narrow": replace(PRIORS, sigma_residual=3e-4),
              "very wide": replace(PRIORS, sigma_residual=50.0)}[case]
    flat = FlatCrossing(flat_model(law.name, 4).data, law, priors)
    model = build_crossing_model(flat.data, law, priors)
    at = as_values(flat, position := flat.initial_point(2))
    value, gradient = log_density(position, data_words(flat))
    expected = model.compile_dlogp(mode=MODE)(at)
    assert value == pytest.approx(float(model.compile_logp(mode=MODE)(at)), rel=1e-9, abs=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "n_thresholds"), CASES)
def test_unpacked_draws_are_the_pymc_model_s_variables(name, n_thresholds):
    flat, model = flat_model(name, n_thresholds), pymc_model(name, n_thresholds)
    wanted = [v for v in model.free_RVs + model.deterministics if v.name != "run_effect_z"]
    function = model.compile_fn(model.replace_rvs_by_values(wanted), inputs=model.value_vars,
                                mode=MODE)
    position = flat.initial_point(4)
    draws = flat.unpack(position[None, None])
    assert set(draws.data_vars) == {v.name for v in wanted}
    for variable, value in zip(wanted, function(as_values(flat, position)), strict=True):
        np.testing.assert_allclose(draws[variable.name].values[0, 0], value, rtol=1e-9)


def sweeps():
    yield "nine runs, one threshold", crossings_table(LAWS["total"], 1, 9), LAWS["total"]
    yield "57 runs", crossings_table(LAWS["two_axis_free"], 4, 57), LAWS["two_axis_free"]
    yield "all left-censored", all_left(LAWS["two_axis"]), LAWS["two_axis"]


@pytest.mark.parametrize(("_", "table", "law"), list(sweeps()))
def test_starting_points_are_finite_and_apart(_, table, law):
    flat = FlatCrossing(crossing_data(table, law), law)
    words = data_words(flat)
    starts = np.array([flat.initial_point(seed) for seed in range(100)])
    for start in starts:
        value, gradient = log_density(start, words)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    np.testing.assert_allclose(starts.std(axis=0) / flat.sd, 0.5, atol=0.2)
    np.testing.assert_array_equal(flat.initial_point(7), starts[7])


def test_a_start_far_beyond_the_prior_keeps_a_finite_gradient():
    flat = flat_model("two_axis_free", 4)
    words = data_words(flat)
    for sign in (-10.0, 10.0):
        for block in flat.blocks:
            position = flat.center.copy()
            position[flat.slices[block.name]] += sign * block.sd
            value, gradient = log_density(position, words)
            assert np.isfinite(value), block.name
            assert np.isfinite(gradient).all(), block.name


def test_callbacks_give_the_kernel_s_numbers_and_refuse_points_without_density():
    flat = flat_model("power", 4)
    words = data_words(flat)
    density, copy = sampler_callbacks()
    position, gradient = flat.initial_point(1), np.empty(flat.n_dim)
    result, out = ctypes.c_double(), np.empty(flat.n_dim)
    as_double = ctypes.POINTER(ctypes.c_double)
    at, slope, to = (a.ctypes.data_as(as_double) for a in (position, gradient, out))
    assert density.ctypes(flat.n_dim, at, slope, ctypes.byref(result), words.ctypes.data) == 0
    value, expected = log_density(position, words)
    assert result.value == value
    np.testing.assert_array_equal(gradient, expected)
    assert copy.ctypes(flat.n_dim, flat.n_dim, at, to, words.ctypes.data) == 0
    np.testing.assert_array_equal(out, position)
    position[0] = np.inf
    assert density.ctypes(flat.n_dim, at, slope, ctypes.byref(result), words.ctypes.data) != 0
