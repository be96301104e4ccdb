"""S of a posterior, and the batches solved from it: closed forms, conditions, limits."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from law_draws import posterior
from scipy.optimize import brentq

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import LAWS, get_law
from cbsbayes.posterior.surface import (
    Surface,
    doubling_saves,
    excess_samples,
    least_steps,
    steps_ratio,
)

LINES = [(name, along) for name in LAWS for along in ("prompts", "rollouts", "total")]


def line_of(surface, along, at):
    """Return log S along a line, by `Surface.log_steps`."""
    return {"prompts": lambda b: surface.log_steps(b, at),
            "rollouts": lambda b: surface.log_steps(at, b),
            "total": lambda b: surface.log_steps(b / at, at)}[along]


@pytest.mark.parametrize("growth", [0.0, 2.0])
@pytest.mark.parametrize(("name", "along"), LINES)
def test_every_batch_meets_its_condition(name, along, growth):
    surface = Surface(get_law(name), posterior(get_law(name), growth, alpha=(0.3, 1.0)))
    log_steps = line_of(surface, along, 8)
    batch = surface.solve(steps_ratio(1.5), along, 8)
    np.testing.assert_allclose(log_steps(batch) - log_steps(np.inf), np.log(1.5), atol=1e-9)
    batch = surface.solve(doubling_saves(0.1), along, 8)
    np.testing.assert_allclose(log_steps(2 * batch) - log_steps(batch), np.log(0.9), atol=1e-9)
    batch = surface.solve(excess_samples(0.2, 4.0), along, 8, beyond=4.0)
    excess = np.log(batch / 4.0) + log_steps(batch) - log_steps(4.0)
    np.testing.assert_allclose(excess, np.log(1.2), atol=1e-9)
    assert (batch > 4.0).all()


@pytest.mark.parametrize("name", LAWS)
def test_batches_are_the_closed_forms_of_the_law(name):
    law = get_law(name)
    draws = posterior(law, alpha=(0.3, 1.0))
    surface = Surface(law, draws)
    alpha = draws["alpha"] if law.alpha is None else law.alpha
    noise = (law.noise_in_prompts(8, draws["B_prompt"], draws["B_rollout"]) if law.two_axis
             else draws["B_noise"])
    along = ("prompts", 8) if law.two_axis else ("total", 1)
    excess = 1.0 if name == "power" else 2 ** (1 / alpha) - 1
    xr.testing.assert_allclose(surface.solve(steps_ratio(2.0), *along), noise / excess)
    ratio = 0.9 ** (1 / alpha)
    doubling = (noise * ((0.9 - 2.0**-alpha) / 0.1) ** (1 / alpha) if name == "power"
                else noise * (2 * ratio - 1) / (2 * (1 - ratio)))
    xr.testing.assert_allclose(surface.solve(doubling_saves(0.1), *along), doubling)
    if law.alpha == 1.0:  # Zhang et al. 2024 solve a + b/B = 1.2 (a + b/256) 256/B for B
        xr.testing.assert_allclose(surface.solve(excess_samples(0.2, 256.0), *along),
                                   0.2 * noise + 1.2 * 256)
    if law.two_axis:
        divisor = draws["B_rollout"] / ((16 + draws["B_prompt"]) * excess)
        xr.testing.assert_allclose(surface.solve(steps_ratio(2.0), "rollouts", 16),
                                   divisor + (1.0 if law.group_baseline else 0.0))
    if law.needs_baseline_group:
        best = 1 + np.sqrt(draws["B_rollout"] / draws["B_prompt"])
        np.testing.assert_allclose(surface.solve(least_steps, "split", 512), best, rtol=1e-5)


def test_the_largest_batch_is_taken_where_samples_first_fall():
    """Exponent above one: samples fall, then rise; the root on the rising side counts."""
    law = get_law("two_axis_free")
    draws = posterior(law, alpha=(1.2, 1.5))
    batch = Surface(law, draws).solve(excess_samples(0.2, 4.0), "prompts", 8, beyond=4.0)
    one = draws.isel(chain=1, draw=3, threshold=1)
    noise, a = float(one["B_prompt"] + one["B_rollout"] / 7), float(one["alpha"])
    root = brentq(lambda p: p * (1 + noise / p) ** a - 1.2 * 4 * (1 + noise / 4) ** a,
                  (a - 1) * noise, 1e6)
    assert float(batch.isel(chain=1, draw=3, threshold=1)) == pytest.approx(root, rel=1e-8)


@pytest.mark.parametrize("name", LAWS)
def test_an_infinite_batch_is_the_limit_of_large_ones(name):
    law = get_law(name)
    surface = Surface(law, posterior(law, growth=2.0))
    np.testing.assert_allclose(surface.log_steps(np.inf, 8), np.log(surface.posterior["S_min"]))
    np.testing.assert_allclose(surface.log_steps(16, np.inf), surface.log_steps(16, 1e30))


def test_what_is_met_everywhere_or_nowhere():
    law = get_law("power")
    surface = Surface(law, posterior(law, alpha=(0.05, 0.1)))  # doubling never saves as much
    assert (surface.solve(doubling_saves(0.1), "total") == 0).all()
    assert np.isinf(surface.solve(lambda log_steps, batch: log_steps(batch), "total")).all()
    with pytest.raises(CBSDataError, match="unknown line 'seeds'; valid: prompts, rollouts"):
        surface.solve(steps_ratio(2.0), "seeds")


def test_batches_come_one_for_all_several_or_one_for_each_draw():
    law = get_law("two_axis_free")
    surface = Surface(law, posterior(law, growth=1.0))
    prompts, rollouts = [64.0, 16.0, 64.0], [8.0, 2.0, 2.0]
    found = surface.log_steps(xr.DataArray(prompts, dims="batch"),
                              xr.DataArray(rollouts, dims="batch"))
    for k, batch in enumerate(zip(prompts, rollouts, strict=True)):
        xr.testing.assert_identical(found.isel(batch=k), surface.log_steps(*batch))
    own = surface.posterior["alpha"] * 100
    by_draw = surface.log_steps(own, 8).isel(chain=1, draw=4)
    at = surface.log_steps(float(own[1, 4]), 8).isel(chain=1, draw=4)
    xr.testing.assert_allclose(by_draw, at)
