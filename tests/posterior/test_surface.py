"""S of a posterior whose noise changes along progress, and the batches solved from it."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from cbsbayes.models.laws import get_law
from cbsbayes.posterior.surface import NODE_WEIGHT, Surface, path_name

NODES, WEIGHTS = np.polynomial.legendre.leggauss(8)
SHARE = 0.5 * (NODES + 1)


def posterior(law, growth):
    """Draws whose noise grows along progress by a factor e^growth."""
    rng = np.random.default_rng(0)
    shape = (2, 5, 3)
    dims = ("chain", "draw", "threshold")
    values = {"S_min": (dims, rng.uniform(20, 40, shape)), "alpha": (dims[:2], np.full((2, 5), .6))}
    for name in law.scales:
        path = rng.uniform(50, 100, shape)[..., None] * np.exp(growth * SHARE)
        values[path_name(name)] = ((*dims, "node"), path)
        values[name] = (dims, path @ (0.5 * WEIGHTS))
    return xr.Dataset(values, coords={NODE_WEIGHT: ("node", 0.5 * WEIGHTS)})


@pytest.mark.parametrize("name", ["two_axis_free", "two_axis_sqrt", "two_axis_free_plain"])
def test_batches_are_where_the_law_says(name):
    surface = Surface(get_law(name), posterior(get_law(name), growth=2.0))
    prompts = surface.cbs_prompts(8)
    np.testing.assert_allclose(surface.log_ratio(prompts, 8.0), np.log(2), atol=1e-4)
    prompts = surface.prompts_at_gain(0.1, 8)
    gain = surface.log_ratio(2 * prompts, 8.0) - surface.log_ratio(prompts, 8.0)
    np.testing.assert_allclose(gain, np.log(0.9), atol=1e-4)
    rollouts = surface.cbs_rollouts(16)
    limit = surface.log_ratio(16.0, 1e9)
    np.testing.assert_allclose(surface.log_ratio(16.0, rollouts) - limit, np.log(2), atol=2e-3)
    rollouts = surface.rollouts_at_gain(0.1, 16)
    gain = surface.log_ratio(16.0, 2 * rollouts) - surface.log_ratio(16.0, rollouts)
    np.testing.assert_allclose(gain, np.log(0.9), atol=1e-3)


@pytest.mark.parametrize("name", ["power", "total"])
def test_total_batches_are_where_the_law_says(name):
    surface = Surface(get_law(name), posterior(get_law(name), growth=1.0))
    np.testing.assert_allclose(surface.log_ratio(surface.cbs_total(), 1.0), np.log(2), atol=1e-3)


def test_noise_that_stays_the_same_is_the_closed_form():
    law = get_law("two_axis_free")
    draws = posterior(law, growth=0.0)
    closed = draws.drop_vars([path_name(name) for name in law.scales])
    bent, plain = Surface(law, draws), Surface(law, closed)
    assert bent.bends
    assert not plain.bends
    np.testing.assert_allclose(bent.log_steps(32, 8), plain.log_steps(32, 8), rtol=1e-12)
    np.testing.assert_allclose(bent.cbs_prompts(8), plain.cbs_prompts(8), rtol=1e-10)
    np.testing.assert_allclose(bent.cbs_rollouts(16), plain.cbs_rollouts(16), rtol=1e-10)
    np.testing.assert_allclose(bent.rollouts_at_gain(0.1, 16), plain.rollouts_at_gain(0.1, 16),
                               rtol=1e-10)


def test_exponent_one_is_exact_in_averaged_noise():
    law = get_law("two_axis")
    draws = posterior(law, growth=2.0)
    noise = draws["B_prompt"] + draws["B_rollout"] / 7
    np.testing.assert_allclose(Surface(law, draws).log_ratio(32, 8), np.log1p(noise / 32))
