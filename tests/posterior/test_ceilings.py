"""Group sizes with ceilings: S by brute force, what is never reached, and the caution."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cbsbayes.crossings.intervals import RIGHT, find_crossings
from cbsbayes.decisions.front import on_front
from cbsbayes.decisions.splits import judge
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.models.laws import get_law
from cbsbayes.models.parameters import CURVE, INITIAL_ACCURACY, PROGRESS, SATURATION, now_name
from cbsbayes.models.trajectory import TrajectoryParameters
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_read import read_thresholds
from cbsbayes.posterior.cautions import ceiling_sentences
from cbsbayes.posterior.ceilings import (
    OPTION,
    ceiling_loss,
    check_ceilings,
    small_group_caution,
)
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.quantities import Design, Quantity, quantities
from cbsbayes.posterior.surface import Surface, doubling_saves, least_steps, steps_ratio
from cbsbayes.posterior.tidy import tidy
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.simulation.truth import true_steps

QUICK = SamplerSettings(draws=400, tune=400, chains=2, cores=1)
THRESHOLDS = np.array([0.60, 0.66, 0.71])
TRIED = Design({8: (32, 64)}, {64: (2, 4, 8, 16)}, (256.0, 512.0), one_axis=False,
                     batches=((64, 2), (64, 4), (64, 8), (64, 16), (32, 8)))


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


def test_what_a_group_never_reaches_is_infinite_and_said_so():
    law, draws = posterior("two_axis_free", 1.5)  # groups of two gain half of what others do
    surface = Surface(law, draws)
    unreached = np.isinf(surface.log_steps(64, 2))
    assert unreached.isel(threshold=2).all()
    assert np.isfinite(surface.log_steps(64, 64).isel(threshold=0)).all()
    np.testing.assert_array_equal(np.isnan(surface.solve(steps_ratio(2.0), "prompts", 2)),
                                  unreached)
    stated = quantities(law, draws, TRIED)
    assert all(q.if_reached for q in stated if np.isnan(q.draws).any())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = tidy(stated, stated, 0.9)
    row = table.query("quantity == 'steps' and at == 'n_prompts=64,n_rollouts=2'").iloc[-1]
    assert row["status"] in ("lower_bound", "not_identified")
    assert np.isnan(row[["median", "mean", "sd", "ci_upper"]].astype(float)).all()
    lost = table.query("quantity == 'gain_rollouts' and at == 'n_prompts=64,n_rollouts=2'").iloc[-1]
    assert lost["status"] == "not_identified"


def test_what_is_reached_in_nearly_all_draws_is_stated_of_those():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 500, 1))

    def quantity(lost):
        draws = values.copy()
        draws[0, :lost] = np.nan
        return Quantity("gain", "", "1", xr.DataArray(
            draws, dims=("chain", "draw", "threshold"), coords={"threshold": [0.5]}),
            log_scale=False, if_reached=True)

    prior = replace(quantity(250), draws=3.0 * quantity(250).draws)
    rows = [tidy([quantity(lost)], [prior], 0.9).iloc[0] for lost in (0, 60, 400)]
    assert [row["status"] for row in rows] == ["identified", "identified", "not_identified"]
    assert rows[1]["median"] == pytest.approx(rows[0]["median"], abs=0.05)


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


# Whether small groups saturate lower, asked of the curves without sampling ---------------


LAW = get_law("two_axis_free")


def runs(design="all", **curve):
    sweep = simulate_sweep(design, 1, curve=curve, random_seed=3)
    return sweep.isel(run=np.flatnonzero(sweep["n_rollouts"].values >= 2))


@pytest.fixture(scope="module")
def saturating():
    return runs(ceiling=0.4)


def test_alarm_is_raised_where_small_groups_saturate_lower(saturating):
    loss, sd = ceiling_loss(saturating, LAW, None)
    assert abs(loss - 0.42) < 3 * sd
    assert sd < 0.25
    (said,) = small_group_caution(saturating, LAW, None)
    assert "groups of 2 can gain about 0." in said
    assert f"--model trajectory {OPTION}" in said


def test_nothing_is_asked_where_nothing_can_be_said(saturating):
    one_group = saturating.isel(run=np.flatnonzero(saturating["n_rollouts"].values == 8))
    one_batch = saturating.isel(run=np.flatnonzero(saturating["n_prompts"].values == 128))
    assert ceiling_loss(one_group, LAW, None) is None
    assert ceiling_loss(one_batch, LAW, None) is None
    assert ceiling_loss(saturating, get_law("total"), None) is None
    crossings = find_crossings(saturating, [0.62, 0.66])
    assert small_group_caution(crossings, LAW, None) == []  # it has no curves


@pytest.mark.parametrize("direction", ["increasing", "decreasing"])
def test_without_curves_it_is_told_who_never_arrived(direction):
    def said(rollouts=(4, 8, 16, 32), failed=()):
        status = np.ones((len(rollouts), 2), dtype=np.int8)
        status[list(failed), 1 if direction == "increasing" else 0] = RIGHT
        table = xr.Dataset({"status": (("run", "threshold"), status)},
                           coords={"n_prompts": ("run", [64] * len(rollouts)),
                                   "n_rollouts": ("run", list(rollouts)),
                                   "threshold": [0.6, 0.7]}, attrs={"direction": direction})
        return small_group_caution(table, LAW, None, table)

    [text] = said(failed=[0])
    assert text.startswith("Only runs with n_rollouts ≤ 4 never reached the hardest threshold")
    assert said(failed=[0, 3]) == said() == []
    assert said(rollouts=(8, 8, 8), failed=[0]) == said(rollouts=(-1, -1, -1), failed=[0]) == []


@pytest.mark.parametrize(("model", "law", "groups", "said"), [
    ("crossing", "two_axis", [2, 8], "knows no curves"),
    ("trajectory", "total", [2, 8], "has no group size"),
    ("trajectory", "two_axis", [8, 8], "all runs fitted have n_rollouts = 8")])
def test_the_option_is_refused_where_it_says_nothing(model, law, groups, said):
    with pytest.raises(CBSDataError, match=said) as error:
        check_ceilings(model, get_law(law), np.array(groups))
    assert "leave it out" in str(error.value)


def test_the_words_say_bounds_and_what_is_never_reached():
    def row(quantity, at, status, median=np.nan, lower=np.nan, upper=np.nan, threshold=np.nan):
        return {"quantity": quantity, "at": at, "status": status, "median": median,
                "ci_lower": lower, "ci_upper": upper, "threshold": threshold}

    said = ceiling_sentences(pd.DataFrame([
        row("ceiling_loss", "", "identified", 0.4, 0.2, 0.6),
        row("reach", "n_rollouts=2", "identified", 0.82, 0.74, 0.9),
        row("ceiling", "n_rollouts=2", "lower_bound", lower=0.6),
        row("reach", "n_rollouts=64", "upper_bound", upper=0.99),
        row("ceiling", "n_rollouts=64", "not_identified"),
        row("steps", "n_prompts=8,n_rollouts=2", "lower_bound", lower=300.0, threshold=0.7)]))
    assert "λ 0.40 (0.20 to 0.60)" in said[0]
    assert "0.82 (0.74 to 0.90) of it with groups of 2, an accuracy of above 0.60;" in said[0]
    assert "below 0.99 of it with groups of 64, an accuracy of not identified." in said[0]
    assert said[2].startswith("Some batches tried may never reach 0.7: their S has no upper end")


@pytest.mark.mcmc
def test_a_fit_with_ceilings_finds_them(saturating):
    targets = [0.62, 0.68, 0.705]
    fit = fit_sweep(saturating, model="trajectory", ceiling_by_group=True, thresholds=targets,
                    alternatives=False, sampler=QUICK)
    assert fit.settings["ceiling_by_group"] is True
    assert any(OPTION in sentence for sentence in fit.verdict["sentences"])
    loss = fit.posterior["ceiling_loss"].values.ravel()
    assert np.quantile(loss, 0.01) < 0.42 < np.quantile(loss, 0.99)
    assert (loss > 0).mean() > 0.95
    truth = true_steps(saturating, 128, 4, targets)
    low, high = np.quantile(np.exp(fit.log_steps(128, 4).values), [0.005, 0.995], axis=0,
                            method="inverted_cdf")
    assert (low.ravel() < truth).all()
    assert (truth < high.ravel()).all()
    never = fit.log_steps(128, 2, threshold=0.705).values  # groups of 2 come to .71
    assert np.isinf(never).any()
    assert not np.isnan(never).any()
    assert np.isfinite(fit.predictive["steps"].values).all()
    rows = fit.cbs[fit.cbs["status"] == "identified"]
    assert rows[["median", "ci_lower", "ci_upper"]].notna().all(axis=None)
