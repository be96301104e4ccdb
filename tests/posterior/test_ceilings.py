"""S where group sizes have ceilings: against brute force, without a loss, and never reached."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import xarray as xr

from cbsbayes.decisions.front import on_front
from cbsbayes.decisions.splits import judge
from cbsbayes.models.laws import get_law
from cbsbayes.models.trajectory import TrajectoryParameters
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_read import read_thresholds
from cbsbayes.models.variables import (
    CURVE,
    INITIAL_ACCURACY,
    PROGRESS,
    SATURATION,
    now_name,
)
from cbsbayes.posterior.conditions import doubling_saves, least_steps, steps_ratio
from cbsbayes.posterior.quantities import Design, Quantity, quantities
from cbsbayes.posterior.surface import Surface
from cbsbayes.posterior.tidy import cbs_table, interval
from cbsbayes.report.numbers import estimate
from cbsbayes.simulation.sweep import simulate_sweep

THRESHOLDS = np.array([0.60, 0.66, 0.71])
TRIED = Design({8: (32, 64)}, {64: (2, 4, 8, 16)}, (256.0, 512.0), one_axis=False,
                     cells=((64, 2), (64, 4), (64, 8), (64, 16), (32, 8)))


@cache
def posterior(name, loss):
    """Two chains of three draws around one position of the model, all with one loss."""
    sweep = simulate_sweep("all", 1, eval_every=40, max_updates=600, random_seed=3)
    sweep = sweep.isel(run=np.flatnonzero(sweep["n_rollouts"].values >= 2))
    law = get_law(name)
    flat = TrajectoryParameters(trajectory_data(sweep, law, None), law, ceiling_by_group=True)
    rng = np.random.default_rng(0)
    position = flat.center + 0.05 * flat.sd * rng.standard_normal((2, 3, flat.n_dim))
    position[..., flat.slices["start"]] = flat.center[flat.slices["start"]]
    position[..., flat.slices["ceiling_logit"]] = -0.1  # of endless groups some .76
    position[..., flat.slices["ceiling_loss"]] = loss
    return law, read_thresholds(flat, position, THRESHOLDS, seed=0)


def brute_force(law, draw, n_prompts, n_rollouts, threshold):
    """Return S of one draw: the group's own curve on a fine grid, and the time to get along it."""
    log_tau = np.linspace(*np.log(draw[PROGRESS].values[[0, -1]]), 200_001)
    kept = np.log(draw[PROGRESS].values)
    tau = np.exp(log_tau)
    foot = float(draw[INITIAL_ACCURACY])
    share = np.exp(-float(draw[SATURATION]) / n_rollouts)
    shown = foot + share * (np.interp(log_tau, kept, draw[CURVE].values) - foot)
    if shown[-1] < threshold:
        return np.inf
    end = int(np.argmax(shown >= threshold))
    now = {name: np.exp(np.interp(log_tau, kept, np.log(draw[now_name(name)].values)))
           for name in law.scales}
    alpha = float(draw["alpha"]) if law.alpha is None else law.alpha
    pace = np.exp(law.log_ratio(n_prompts, n_rollouts, now, alpha))
    return tau[0] * pace[0] + np.trapezoid(pace[:end + 1], tau[:end + 1])


@pytest.mark.parametrize("name", ["two_axis_free", "two_axis", "two_axis_free_plain"])
def test_steps_are_those_of_the_group_s_own_curve(name):
    law, draws = posterior(name, 0.45)
    log_steps = Surface(law, draws).log_steps
    for n_prompts, n_rollouts in [(64, 2), (64, 4), (16, 32)]:
        found = np.exp(log_steps(n_prompts, n_rollouts))
        for d in range(3):
            draw = draws.isel(chain=0, draw=d)
            expected = [brute_force(law, draw, n_prompts, n_rollouts, t) for t in THRESHOLDS]
            np.testing.assert_allclose(found.isel(chain=0, draw=d), expected, rtol=5e-3)


def test_endless_groups_show_the_curve_itself():
    law, draws = posterior("two_axis_free", 0.45)
    surface = Surface(law, draws)
    np.testing.assert_allclose(surface.log_steps(np.inf, np.inf), np.log(draws["S_min"]))
    np.testing.assert_allclose(surface.ceilings.attainable(2.0), np.exp(-0.225))
    assert (surface.ceilings.ceiling(2) < surface.ceilings.ceiling(64)).all()


@pytest.mark.parametrize("name", ["two_axis_free", "two_axis"])
def test_without_saturation_there_is_nothing_new(name):
    law, draws = posterior(name, 0.0)
    pairs = [(one.log_steps(64, 8), *(np.log(one.solve(condition, *line)) for condition, *line in (
        (steps_ratio(2.0), "prompts", 8), (doubling_saves(0.1), "prompts", 8),
        (steps_ratio(2.0), "rollouts", 64), (doubling_saves(0.1), "rollouts", 64),
        (least_steps, "split", 512))))
        for one in (Surface(law, draws), Surface(law, draws.drop_vars(SATURATION)))]
    for new, old in zip(*pairs, strict=True):
        np.testing.assert_allclose(new, old, atol=3e-3)


def test_batches_along_rollouts_are_where_s_says():
    law, draws = posterior("two_axis_free", 0.45)
    surface = Surface(law, draws)
    size = surface.solve(steps_ratio(2.0), "rollouts", 64)
    slower = surface.log_steps(64, size) - surface.log_steps(64, np.inf)
    np.testing.assert_allclose(slower, np.log(2), atol=1e-6)
    size = surface.solve(doubling_saves(0.1), "rollouts", 64)
    gain = surface.log_steps(64, 2 * size) - surface.log_steps(64, size)
    np.testing.assert_allclose(gain, np.log(0.9), atol=1e-6)


def test_what_a_group_never_reaches_is_infinite_and_said_so():
    law, draws = posterior("two_axis_free", 1.5)  # groups of two gain half of what others do
    surface = Surface(law, draws)
    unreached = np.isinf(surface.log_steps(64, 2))
    assert unreached.isel(threshold=2).all()
    assert np.isfinite(surface.log_steps(64, 64).isel(threshold=0)).all()
    np.testing.assert_array_equal(np.isnan(surface.solve(steps_ratio(2.0), "prompts", 2)),
                                  unreached)
    told = quantities(law, draws, TRIED)
    assert all(q.if_reached for q in told if np.isnan(q.draws).any())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = cbs_table(told, told, law=law, group="", ci_prob=0.9)
    row = table.query("quantity == 'steps' and at == 'n_prompts=64,n_rollouts=2'").iloc[-1]
    assert row["status"] in ("lower_bound", "not_identified")
    assert np.isnan(row[["median", "mean", "sd", "ci_upper"]].astype(float)).all()
    lost = table.query("quantity == 'gain_rollouts' and at == 'n_prompts=64,n_rollouts=2'").iloc[-1]
    assert lost["status"] == "not_identified"


def test_what_is_reached_in_nearly_all_draws_is_told_of_those():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 500, 1))

    def quantity(lost):
        draws = values.copy()
        draws[0, :lost] = np.nan
        return Quantity("gain", "", "1", xr.DataArray(
            draws, dims=("chain", "draw", "threshold"), coords={"threshold": [0.5]}),
            log_scale=False, if_reached=True)

    prior = replace(quantity(250), draws=3.0 * quantity(250).draws)
    rows = [cbs_table([quantity(lost)], [prior], law=get_law("two_axis"), group="",
                      ci_prob=0.9).iloc[0] for lost in (0, 60, 400)]
    assert [row["status"] for row in rows] == ["identified", "identified", "not_identified"]
    assert rows[1]["median"] == pytest.approx(rows[0]["median"], abs=0.05)


def test_the_table_of_an_infinite_s_gives_its_lower_end():
    row = {"median": np.nan, "ci_lower": 120.0, "ci_upper": np.nan, "status": "lower_bound"}
    assert estimate(row).value.endswith("120")
    assert estimate(row | {"ci_lower": np.inf}).value == "never"
    assert interval(np.array([1.0, 2.0, np.inf, np.inf]), 0.9) == (1.0, np.inf)


def test_a_split_that_never_arrives_is_never_the_best():
    log_steps = np.array([[5.0, np.inf, 4.0], [5.0, 4.0, np.inf], [np.inf, np.inf, np.inf],
                          [5.0, 4.0, np.inf]])
    found = judge(log_steps, np.array([True, True, True]), 0.9)
    np.testing.assert_allclose(found.p_best, [0.0, 0.5, 0.25])
    np.testing.assert_allclose(found.p_close, [0.0, 0.5, 0.25])
    assert np.isinf(found.regret).tolist() == [False, True, True]
    assert found.chosen.tolist() == [True, False, False]  # it always arrives
    either = judge(log_steps[:, 1:], np.array([True, True]), 0.9)
    assert np.isinf(either.regret).all()
    assert either.chosen.tolist() == [True, False]  # arrives the more often


def test_what_never_arrives_is_not_on_the_front():
    log_steps = np.array([[3.0, np.inf, 2.0], [np.inf, np.inf, 2.0]])
    np.testing.assert_allclose(on_front(log_steps, np.array([10.0, 20.0, 100.0])), [0.5, 0, 1.0])
