"""Definitions of a critical batch: each against its own condition, and in the table of a fit."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from cbsbayes.posterior.overhead_line import lines_of
from scipy.optimize import brentq

from cbsbayes.models.laws import LAWS, get_law
from cbsbayes.posterior.definitions import (
    DEFINITIONS,
    OVERHEAD_COLUMNS,
    definitions,
    overhead_table,
)
from cbsbayes.posterior.quantities import design_of
from cbsbayes.posterior.surface import NODE_WEIGHT, Surface, path_name

NODES, WEIGHTS = np.polynomial.legendre.leggauss(8)


def posterior(law, growth=0.0, alpha=(0.3, 1.4)):
    """Draws whose noise grows along progress by a factor e^growth."""
    rng = np.random.default_rng(1)
    shape, dims = (2, 20, 2), ("chain", "draw", "threshold")
    values = {"S_min": (dims, rng.uniform(20, 40, shape)),
              "alpha": (dims[:2], rng.uniform(*alpha, shape[:2]))}
    for name in law.scales:
        path = rng.uniform(20, 400, shape)[..., None] * np.exp(growth * 0.5 * (NODES + 1))
        values[path_name(name)] = ((*dims, "node"), path)
        values[name] = (dims, path @ (0.5 * WEIGHTS))
    ds = xr.Dataset(values, coords={NODE_WEIGHT: ("node", 0.5 * WEIGHTS),
                                    "threshold": [0.6, 0.7]})
    return ds if growth else ds.drop_vars([path_name(name) for name in law.scales])


def batches():
    n_prompts, n_rollouts = np.array([4, 16, 64, 16, 16]), np.array([8, 8, 8, 2, 4])
    return design_of(xr.Dataset(coords={
        "n_prompts": ("run", n_prompts), "n_rollouts": ("run", n_rollouts),
        "total_batch": ("run", (n_prompts * n_rollouts).astype(float))}))


def flat(values):
    return values.stack(sample=("chain", "draw"), create_index=False).transpose(
        "sample", "threshold").values


@pytest.mark.parametrize("growth", [0.0, 2.0])
@pytest.mark.parametrize("name", LAWS)
def test_every_batch_meets_its_condition(name, growth):
    law = get_law(name)
    draws = posterior(law, growth)
    surface = Surface(law, draws)
    for line in lines_of(law, draws, batches()):
        rollouts = line.n_rollouts or 1

        def log_ratio(batch, rollouts=rollouts):
            dims = ("chain", "draw", "threshold")
            cube = xr.DataArray(np.asarray(batch).reshape(2, 20, 2), dims=dims)
            return flat(surface.log_ratio(cube, rollouts).transpose(*dims))

        for definition in definitions(law):
            batch = definition.solve(line)
            assert np.isfinite(batch).all()
            found = log_ratio(batch)
            np.testing.assert_allclose(np.log(line.ratio_at(batch)), found, atol=1e-8)
            if definition.kind == "steps":
                np.testing.assert_allclose(found, np.log1p(definition.level), atol=1e-7)
            elif definition.kind == "doubling":
                gained = log_ratio(2 * batch) - found
                np.testing.assert_allclose(gained, np.log1p(-definition.level), atol=2e-4)
            else:
                small = line.smallest if definition.kind == "linear" else 1e-4
                start = np.log(small) + log_ratio(np.full_like(batch, small))
                np.testing.assert_allclose(np.log(batch) + found - start,
                                           np.log1p(definition.level), atol=1e-4)


def test_the_largest_batch_is_taken_where_samples_first_fall():
    """Exponent above one: samples fall, then rise; the root on the rising side counts."""
    law = get_law("two_axis_free")
    draws = posterior(law, alpha=(1.2, 1.5))
    line = next(lines_of(law, draws, batches()))
    batch = line.at_linear_excess(0.2)
    noise, alpha = line.noise[..., 0], line.alpha[..., 0]
    assert (batch > (alpha - 1) * noise).all()
    one, a, p0 = noise[3, 1], alpha[3, 0], line.smallest
    excess = lambda p: p * (1 + one / p) ** a - 1.2 * p0 * (1 + one / p0) ** a  # noqa: E731
    assert batch[3, 1] == pytest.approx(brentq(excess, (a - 1) * one, 1e6), rel=1e-8)


def test_zhangs_rule_is_their_closed_form():
    """Zhang et al. 2024 solve a + b/B = 1.2 (a + b/256) 256/B for B: 0.2 b/a + 1.2 · 256."""
    law = get_law("total")
    draws = posterior(law)
    tried = design_of(xr.Dataset(coords={
        "n_prompts": ("run", [-1] * 3), "n_rollouts": ("run", [-1] * 3),
        "total_batch": ("run", [256.0, 1024.0, 4096.0])}))
    (line,) = lines_of(law, draws, tried)
    assert (line.unit, line.symbol, line.at) == ("samples", "B", "")
    np.testing.assert_allclose(line.at_linear_excess(0.2), 0.2 * line.noise[..., 0] + 1.2 * 256)
    np.testing.assert_allclose(line.at_least_excess(0.2), 0.2 * line.noise[..., 0])


def test_least_samples_are_defined_for_exponent_one_alone():
    assert "least_20" in {d.name for d in definitions(get_law("two_axis"))}
    assert "least_20" not in {d.name for d in definitions(get_law("two_axis_free"))}
    assert DEFINITIONS[0].name == "steps_2x"


def test_the_table_has_the_critical_batch_of_the_quantity_table(fit):
    table = overhead_table(fit)
    assert list(table.columns) == OVERHEAD_COLUMNS
    twice = table[table["definition"] == "steps_2x"].set_index(["at", "threshold"])
    known = fit.cbs[fit.cbs["quantity"] == "cbs_prompts"].set_index(["at", "threshold"])
    assert set(twice.index) == set(known.index)
    for name in ("median", "ci_lower", "ci_upper"):
        np.testing.assert_allclose(twice[name], known.loc[twice.index, name], rtol=1e-9)
    assert (twice["status"] == known.loc[twice.index, "status"]).all()
    assert (twice["ratio"] == 1).all()
    gain = table[table["definition"] == "doubling_10"].set_index(["at", "threshold"])
    batch = fit.cbs[fit.cbs["quantity"] == "batch_at_gain"].assign(
        at=lambda t: t["at"].str.removeprefix("gain=0.1,")).set_index(["at", "threshold"])
    np.testing.assert_allclose(gain["median"], batch.loc[gain.index, "median"], rtol=1e-9)


def test_definitions_stand_in_the_order_of_what_they_ask(fit):
    table = overhead_table(fit)
    wide = table.pivot_table(index=["at", "threshold"], columns="definition", values="median")
    order = wide[["steps_2x", "steps_1.5x", "steps_1.2x", "steps_1.1x"]].dropna()
    assert len(order)
    assert (order.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
    linear = table[(table["definition"] == "linear_20")].dropna(subset="median")
    assert (linear["median"] > linear["anchor"]).all()
    inside = linear[linear["tried"] == "inside"]
    assert (inside["median"] >= inside["anchor"]).all()
