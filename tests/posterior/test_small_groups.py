"""Whether small groups saturate lower, asked of the curves without sampling; and the option."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.crossings.rules import RIGHT
from cbsbayes.errors import CBSDataError
from cbsbayes.fit import main
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.ceiling_option import OPTION, ceiling_sentences, check_ceilings
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.small_groups import ALARM, ceiling_loss, small_group_caution
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.simulation.truth import true_steps
from cbsbayes.sweep.files import write_sweep

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


def test_no_alarm_is_raised_where_all_groups_reach_the_same():
    loss, sd = ceiling_loss(runs(), LAW, None)
    assert abs(loss) < ALARM * sd
    assert small_group_caution(runs(), LAW, None) == []


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


def test_the_command_refuses_it_in_one_line(saturating, tmp_path, capsys):
    write_sweep(saturating, tmp_path / "sweep.nc")
    arguments = [str(tmp_path / "sweep.nc"), "-o", str(tmp_path / "fit"), OPTION]
    assert main([*arguments, "--model", "crossing"]) == 1
    assert main([*arguments, "--model", "trajectory", "--law", "power"]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if not line.endswith("…")]
    assert len(said) == 2
    assert all(OPTION in line for line in said)
    assert not (tmp_path / "fit").exists()


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
    assert "λ 0.40 (0.20–0.60)" in said[0]
    assert "0.82 (0.74–0.90) of it with groups of 2, an accuracy of at least 0.60;" in said[0]
    assert "at most 0.99 of it with groups of 64." in said[0]
    assert said[2].startswith("Some batches tried may never reach 0.7: their S has no upper end")


@pytest.mark.mcmc
def test_a_fit_with_ceilings_finds_them(saturating):
    targets = [0.62, 0.68, 0.705]
    fit = fit_sweep(saturating, model="trajectory", ceiling_by_group=True, thresholds=targets,
                    alternatives=False, sampler=SamplerSettings(draws=400, tune=400, chains=2))
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
