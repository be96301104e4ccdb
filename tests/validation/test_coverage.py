"""Intervals of all methods beside the truth: truths, intervals, counting."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import LAWS, get_law
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.simulation.truth import Truth, true_steps
from cbsbayes.validation import models
from cbsbayes.validation.coverage import COLUMNS, Settings, coverage_table, simulated_sweep
from cbsbayes.validation.page import summary_sentence
from cbsbayes.validation.reading import Reading, reading_of, true_logs
from cbsbayes.validation.study import coverage_study, rows_of, sampling_summary

READING = Reading()
TWO_AXIS = {"S_min", "B_prompt", "B_rollout", "N(8)", "S(128,8)", "gain_prompts", "gain_rollouts",
            "cbs_prompts(8)"}


def as_draws(logs):
    """Return parameters as a posterior of one draw at one threshold."""
    return xr.Dataset({name: (("chain", "draw", "threshold"), np.full((1, 1, 1), np.exp(value)))
                       for name, value in logs.items()}, coords={"threshold": [0.6]})


@pytest.mark.parametrize("threshold", [0.60, 0.72])
def test_at_exponent_one_the_integral_is_the_law_of_the_averages(threshold):
    true = true_logs(Truth(), threshold, READING)
    by_law = READING.logs(get_law("two_axis"), as_draws(
        {name: true[name] for name in ("S_min", "B_prompt", "B_rollout")}))
    assert set(by_law) == TWO_AXIS
    for name, value in by_law.items():
        assert value.item() == pytest.approx(true[name], abs=1e-4), name


def test_where_only_the_total_batch_counts_its_law_holds():
    true = true_logs(Truth(law="total"), 0.65, READING)
    by_law = READING.logs(get_law("total"), as_draws(
        {name: true[name] for name in ("S_min", "B_noise")}))
    assert set(by_law) == TWO_AXIS - {"B_prompt", "B_rollout"} | {"B_noise"}
    for name, value in by_law.items():
        assert value.item() == pytest.approx(true[name], abs=1e-4), name
    assert true["gain_prompts"] == pytest.approx(true["gain_rollouts"])


def test_the_true_cbs_doubles_the_steps_of_endless_prompts():
    for truth in (Truth(alpha=0.5), Truth(ceiling=0.4), Truth(form="hill", shape=1.4)):
        true = true_logs(truth, 0.65, READING)
        at, endless = true_steps(truth, [np.exp(true["cbs_prompts(8)"]), 1e12], 8, 0.65)
        assert at == pytest.approx(2 * endless, rel=1e-3)


def test_a_reading_is_taken_at_the_middle_of_what_was_run():
    columns = {"n_prompts": ("run", [16, 32, 64, 128]), "n_rollouts": ("run", [8, 8, 8, 4]),
               "total_batch": ("run", [128.0, 256.0, 512.0, 512.0])}
    two = reading_of(xr.Dataset(coords=columns))
    assert (two.n_prompts, two.n_rollouts, two.one_axis) == (32, 8, False)
    one = reading_of(xr.Dataset(coords=columns | {"n_prompts": ("run", [-1] * 4),
                                                  "n_rollouts": ("run", [-1] * 4)}))
    assert (one.n_prompts, one.one_axis) == (256, True)


@pytest.mark.mcmc
def test_every_method_is_held_to_the_same_truth():
    record = simulated_sweep("base", Settings(law="two_axis"), 5)
    assert record["sampling"]["divergences"] == 0
    found = rows_of([{"seed": 5, **record}], COLUMNS)
    assert found.groupby("method").size().to_dict() == dict.fromkeys(
        ["posterior", "curve_fit", "log_fit_t", "log_fit_boot"], 6 * 8)
    assert (found.groupby(["quantity", "threshold"])["truth"].nunique() == 1).all()
    late = found.query("threshold == 0.65 and method != 'curve_fit'")
    assert ((late["estimate"] - late["truth"]).abs() < 1.5).all()
    known = late.dropna()
    assert ((known["lower"] <= known["estimate"]) & (known["estimate"] <= known["upper"])).all()


@pytest.mark.mcmc
@pytest.mark.parametrize(("law", "family", "quantities"), [
    ("two_axis_free", "total", TWO_AXIS - {"B_prompt", "B_rollout"} | {"alpha"}),
    ("two_axis_sqrt_plain", "sqrt", TWO_AXIS), ("total", "base", TWO_AXIS - {"B_prompt",
                                                                             "B_rollout"})])
def test_quantities_without_a_truth_are_left_out(law, family, quantities):
    quick = Settings(law=law, draws=50, tune=100, thresholds=(0.62, 0.68))
    found = rows_of([{"seed": 0, **simulated_sweep(family, quick, 0)}], COLUMNS)
    assert set(found["quantity"]) == quantities
    assert found["truth"].notna().all()
    assert LAWS[law].alpha is not None or set(
        found.loc[found["quantity"] == "alpha", "method"]) == {"posterior"}


def test_counting():
    rows = pd.DataFrame({
        "method": "a", "quantity": "q", "threshold": [0.6, 0.7] * 2, "sweep": [0, 0, 1, 1],
        "truth": 0.0, "estimate": [0.1, 0.2, -0.3, np.inf], "lower": [-1, 0.1, -np.inf, np.nan],
        "upper": [1, 0.4, 0.5, np.nan]})
    table = coverage_table(rows).set_index("threshold")
    assert table.loc["all", ["n", "given", "log_bias"]].tolist() == [4, 0.75, pytest.approx(0.15)]
    assert table.loc["all", "coverage"] == pytest.approx(2 / 3)
    assert table.loc["all", "coverage_se"] == pytest.approx(np.std([0.5, 1], ddof=1) / np.sqrt(2))
    assert table.loc["0.6", "log_width"] == np.inf
    assert table.loc["0.7", ["n", "coverage"]].tolist() == [2, 0]


def test_widths_are_compared_within_a_sweep():
    case = {"quantity": "q", "threshold": 0.6, "truth": 0.0, "estimate": 0.0, "lower": 0.0}
    rows = pd.DataFrame([{**case, "method": method, "sweep": sweep, "upper": upper}
                         for sweep, (t, ours) in enumerate([(1.0, 0.5), (4.0, 1.0), (10.0, 9.0)])
                         for method, upper in (("log_fit_t", t), ("posterior", ours))])
    table = coverage_table(rows).set_index(["method", "threshold"])
    assert table.loc[("posterior", "all"), "width_over_t"] == pytest.approx(0.5)
    assert table.loc[("log_fit_t", "all"), "width_over_t"] == 1.0
    assert np.isnan(table.loc[("posterior", "all"), "width_over_boot"])


def test_failures_are_counted_and_named():
    records = [{"seed": 3, "error": "ValueError: no"},
               {"seed": 4, "rows": [], "sampling": {"seconds": 2.0, "r_hat_max": 1.01}}]
    found = sampling_summary(records)
    assert (found["sweeps"], found["failed"]) == (1, {"3": "ValueError: no"})
    assert found["r_hat_worst"] == 1.01


def test_settings_that_are_not_new_read_as_before():
    assert not {"ceiling_by_group", "alarms", "average", "eval_every"} & set(Settings().as_dict())
    study = coverage_study("base", Settings(model="trajectory", ceiling_by_group=True))
    assert study.name == "coverage-base-two_axis_free-trajectory-ceilings"
    assert study.all_settings()["ceiling_by_group"] is True
    assert study.all_settings()["model"] == "trajectory-ceilings"


def test_alarms_are_counted_and_reported():
    records = [{"seed": k, "sampling": {"seconds": 1.0, "alarm": k == 0, "structure_alarm": k > 0}}
               for k in range(3)]
    summary = sampling_summary(records)
    assert (summary["alarms"], summary["structure_alarms"]) == (1, 2)
    sentence = summary_sentence(summary)
    assert "saturate lower in 1, the law's form reported to be in doubt in 2" in sentence
    assert "alarms" not in sampling_summary([{"seed": 0, "sampling": {"seconds": 1.0}}])


@pytest.mark.mcmc
def test_what_is_averaged_over_laws_is_held_to_the_truth_too():
    quick = Settings(draws=100, thresholds=(0.62, 0.68), least_squares=False, average=True)
    record = simulated_sweep("total", quick, 1)
    assert record["sampling"]["structure_alarm"] is True  # the truth knows the total batch alone
    found = rows_of([{"seed": 1, **record}], COLUMNS)
    own, averaged = (found.query(f"method == '{name}'").set_index(["quantity", "threshold"])
                     for name in ("posterior", "averaged"))
    assert set(averaged.index.get_level_values(0)) == {"S_min", "S(128,8)", "gain_prompts",
                                                       "gain_rollouts", "cbs_prompts(8)"}
    both = averaged.join(own.add_suffix("_own"))
    assert (both["truth"] == both["truth_own"]).all()
    off, off_own = ((both[f"estimate{s}"] - both["truth"]).abs() for s in ("", "_own"))
    assert off["S_min"].mean() < off_own["S_min"].mean()


def test_averages_need_a_law_of_which_something_is_known(monkeypatch):
    monkeypatch.setattr(models, "leave_one_run_out", lambda tree: None)
    monkeypatch.setattr(models, "law_weights", lambda results: dict.fromkeys(results, 0.0))
    ds = simulate_sweep("p1")
    with pytest.raises(CBSDataError, match="importance weights overflow"):
        models.averaged_logs(get_law("two_axis"), xr.DataTree(), ds, lambda law: xr.DataTree(),
                             READING)


def test_evaluations_may_be_set_for_any_family():
    study = coverage_study("base", Settings(eval_every=2))
    assert study.name == "coverage-base_every_2-two_axis_free-crossing"
    assert (study.all_settings()["eval_every"], study.all_settings()["family"]) == (2, "base")
    with pytest.raises(CBSDataError, match="eval_every is -3"):
        simulated_sweep("base", Settings(eval_every=-3), 0)
