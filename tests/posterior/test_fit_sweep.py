"""From sweep to fit: which runs, which laws, what is refused; and a real posterior."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from fitted import SETTINGS, groups_sweep, quick_sampling

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.selection import FitOptions, alternative_laws, runs_table, select
from cbsbayes.posterior.tidy import CBS_COLUMNS
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.simulation.truth import true_steps
from cbsbayes.sweep.dataset import digest, new_sweep
from cbsbayes.sweep.groups import choose_runs


def runs(ds, **kept):
    keep = np.ones(ds.sizes["run"], dtype=bool)
    for name, values in kept.items():
        keep &= np.isin(ds[name].values, values)
    return ds.isel(run=np.flatnonzero(keep))


def test_settings_say_everything_that_was_asked_for(fit, sweep):
    found = fit.settings
    assert found["law"] == "two_axis_free"
    assert found["law_reason"] == ("Prompts and rollouts both vary: the two-axis law, its "
                                   "exponent free.")
    assert found["thresholds"] == fit.thresholds.tolist()
    assert (found["metric"], found["rule"]) == ("simulated/accuracy", "isotonic")
    assert (found["ci_prob"], found["ci_kind"], found["model"]) == (0.9, "eti", "crossing")
    assert {name: found[name] for name in ("draws", "tune", "chains", "random_seed")} == {
        "draws": 200, "tune": 100, "chains": 4, "random_seed": 1}
    assert found["data_digest"] == digest(sweep)
    assert {"python", "cbsbayes", "pymc", "arviz-stats", "numpy"} <= set(found["versions"])
    assert found["priors"]["sigma_run"] == 0.08
    json.dumps(found, allow_nan=False)


def test_every_run_is_used_or_named_with_its_reason(fit, sweep):
    table = fit.runs.set_index("run")
    assert table.index.tolist() == sweep["run"].values.tolist()
    unusable = sweep["run"].values[1]
    assert not table.loc[unusable, "used"]
    assert table.loc[unusable, "reason"] == "an orphan tail"
    single = table[table["n_rollouts"] == 1]
    assert not single["used"].any()
    assert single["reason"].str.contains("a group of one has no baseline").all()
    assert (table.loc[table["used"], "reason"] == "").all()
    assert table["used"].sum() == table.shape[0] - 2
    bounds = [f"{bound}_{t:.12g}" for t in fit.thresholds for bound in ("lower", "upper")]
    assert list(fit.runs.columns) == [
        "run", "name", "phase", "n_prompts", "n_rollouts", "total_batch", "seed", "state", "used",
        "reason", "first_step", "last_step", "attempts", "remark", *bounds]
    assert table.loc[~table["used"], bounds].isna().all(axis=None)
    for name in ("lower", "upper"):  # right-censored stays visible
        columns = table.loc[table["used"], [b for b in bounds if b.startswith(name)]]
        np.testing.assert_array_equal(columns, fit.crossings[name])
    assert np.isinf(table[bounds]).any(axis=None)


def test_thresholds_that_differ_late_keep_their_own_columns():
    ds = simulate_sweep("p1", seeds=1)
    crossings = find_crossings(ds, [0.65000001, 0.65000002])
    columns = runs_table(ds, choose_runs(ds), crossings).columns
    assert {"lower_0.65000001", "upper_0.65000002"} <= set(columns)
    found = find_crossings(ds, [0.1 + 0.2 + 0.35])
    assert "upper_0.65" in runs_table(ds, choose_runs(ds), found).columns


def test_tables_hold_the_columns_of_the_contract(fit):
    assert list(fit.cbs.columns) == CBS_COLUMNS
    assert set(fit.cbs["law"]) == {"two_axis_free"}
    assert set(fit.cbs["group"]) == {fit.group}
    for law, table in fit.others.items():
        assert set(table["law"]) == {law}


def test_same_seed_same_fit_another_seed_another_and_stages_name_every_law(prompts_sweep):
    said = []
    with quick_sampling():
        first, again, other = (
            fit_sweep(prompts_sweep, sampler=replace(SETTINGS, random_seed=seed), stage=said.append)
            for seed in (1, 1, 2))
    xr.testing.assert_identical(first.tree, again.tree)
    for group in ("prior", "posterior_predictive", "prior_predictive"):
        assert not first.tree[group].to_dataset().equals(other.tree[group].to_dataset())
    laws = [first.law.name, *first.others]
    assert said == 3 * [
        *(f"sampling {name}, law {k} of {len(laws)}" for k, name in enumerate(laws, 1)),
        "comparing laws, predictive checks, tables"]
    assert sorted(first.law_table["law"]) == sorted(laws)


def test_replicates_are_centred_on_the_law(fit):
    """Log S of new runs averages to log S of the law, draw by draw."""
    law = np.exp(fit.log_steps(fit.crossings["n_prompts"].values,
                               fit.crossings["n_rollouts"].values))
    away = np.log(fit.predictive["steps"].values) - np.log(law.transpose("sample", "batch", ...))
    assert abs(float(away.mean())) < 0.01
    spread = np.hypot(fit.posterior["sigma_run"].mean(), fit.posterior["sigma_residual"].mean())
    assert float(away.std()) == pytest.approx(float(spread), rel=0.1)


def test_without_a_group_baseline_the_law_is_plain_and_groups_of_one_stay():
    ds = simulate_sweep("p1+p2b", 1, law="two_axis_plain")
    ds["algorithm"] = ("run", np.full(ds.sizes["run"], "reinforce_plus_plus"))
    selected = select(ds, FitOptions())
    assert selected.law.name == "two_axis_free_plain"
    assert (selected.crossings["n_rollouts"] == 1).any()


@pytest.mark.parametrize(("law", "names"), [
    ("two_axis_free", ["two_axis", "two_axis_sqrt", "two_axis_free_plain", "total"]),
    ("two_axis", ["two_axis_sqrt", "two_axis_free", "two_axis_free_plain", "total"]),
    ("total", ["two_axis", "two_axis_sqrt", "two_axis_free", "two_axis_free_plain"]),
    ("two_axis_plain", ["two_axis_sqrt_plain", "two_axis_free_plain", "two_axis_free", "total"]),
])
def test_alternative_laws_where_both_axes_vary(law, names):
    ds = runs(simulate_sweep("p1+p2b", 1), n_rollouts=[2, 4, 8, 16])
    assert alternative_laws(get_law(law), ds) == names


@pytest.mark.parametrize(("design", "law", "names"), [("p1", "total", ["power"]),
                                                       ("batch", "power", ["total"])])
def test_alternative_laws_on_one_axis(design, law, names):
    ds = simulate_sweep(design, 1, law="total")
    assert alternative_laws(get_law(law), ds) == names


def test_an_axis_that_only_runs_left_out_vary_decides_nothing():
    selected = select(runs(simulate_sweep("p1+p2b", 1), n_rollouts=[1, 8]), FitOptions())
    assert (selected.law.name, selected.alternatives) == ("total", ["power"])
    assert "Only n_prompts varies" in selected.choice.reason


def test_a_run_beyond_every_threshold_from_the_start_is_left_out_and_named():
    ds = simulate_sweep("p1", 1)
    ds["accuracy"][0] = np.maximum(ds["accuracy"][0], 0.99)
    selected = select(ds, FitOptions(thresholds=[0.6, 0.65]))
    first, *others = selected.reasons.values()
    assert first.startswith("beyond every threshold before training")
    assert not any(others)
    assert selected.fitted["run"].values.tolist() == ds["run"].values[1:].tolist()
    assert selected.crossings.sizes["run"] == len(others)
    assert selected.runs.sizes == ds.sizes


def test_a_table_of_crossings_has_its_own_thresholds_and_rule():
    ds = new_sweep({"run": list("abcd"), "total_batch": [32, 64, 128, 256]}, threshold=[0.5, 0.6],
                   steps_lower=[[80, 160], [50, 100], [40, 80], [30, 60]],
                   steps_upper=[[90, 180], [60, 120], [45, 90], [35, 70]])
    with quick_sampling():
        fit = fit_sweep(ds, sampler=SETTINGS, alternatives=False)
    assert fit.thresholds.tolist() == [0.5, 0.6]
    assert (fit.settings["rule"], fit.settings["metric"]) == ("table", "")
    with pytest.raises(CBSDataError, match="'gsm8k' was asked for, but the sweep is a table"):
        fit_sweep(ds, metric="gsm8k")


def test_groups_are_never_pooled():
    ds = groups_sweep()
    with pytest.raises(CBSDataError, match=r"holds 2 groups, which are never pooled; choose one "
                                           r"with group=: large / <b>wide</b>; small"):
        fit_sweep(ds)
    assert select(ds, FitOptions(group="small")).fitted.sizes["run"] == 6


@pytest.mark.parametrize(("options", "message"), [
    ({"ci_prob": float("nan")}, r"ci_prob is nan"),
    ({"rule": "second"}, r"second"), ({"model": "oracle"}, "valid: crossing, trajectory"),
    ({"thresholds": []}, r"thresholds are \[\]"),
])
def test_what_else_cannot_be_asked_for(options, message):
    """Most is refused through the command: tests/commands/test_bad_input.py."""
    with pytest.raises(CBSDataError, match=message):
        fit_sweep(simulate_sweep("p1", 1), **options)


@pytest.mark.mcmc
def test_a_real_fit_finds_what_was_simulated(prompts_sweep, sweep):
    settings = SamplerSettings(draws=700, tune=500, cores=1, random_seed=1)
    fit = fit_sweep(prompts_sweep, sampler=settings)
    assert fit.verdict["checks_made"]["no_divergences"]
    assert fit.verdict["diagnostics"]["r_hat_max"] < 1.03
    assert set(fit.law_table["law"]) == {"total", "power"}
    for threshold in fit.thresholds:
        drawn = np.exp(fit.log_steps([64, 256], 8, threshold=threshold))
        truth = true_steps(sweep, [64, 256], 8, threshold)
        low, high = drawn.quantile([0.005, 0.995], "sample").values
        assert (low < truth).all()
        assert (truth < high).all()


@pytest.mark.mcmc
def test_settings_have_the_draws_that_were_kept():
    asked = SamplerSettings(draws=300, tune=100, cores=1, random_seed=1)
    fit = fit_sweep(simulate_sweep("p2b"), sampler=asked, alternatives=False)
    # rollouts varied alone leave few effective draws
    assert any("sampled again" in text for text in fit.verdict["sentences"])
    assert fit.settings["draws"] == fit.posterior.sizes["draw"] == 2 * asked.draws
