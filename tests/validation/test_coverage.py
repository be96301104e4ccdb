"""Intervals of all methods beside the truth: truths, intervals, counting."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from crossing_tables import THRESHOLDS, crossings_table
from mlperf import reference_sweep

from cbsbayes.baselines.least_squares import fit_log_law
from cbsbayes.crossings.thresholds import batch_labels
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import LAWS, get_law
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.simulation.truth import Truth, true_steps
from cbsbayes.sweep.dataset import new_sweep
from cbsbayes.validation.coverage import (
    COLUMNS,
    check_table,
    coverage_table,
    fixed_law,
    least_squares_intervals,
    log_estimates,
    redraw,
    redrawn_sweep,
    reference_values,
    simulated_sweep,
)
from cbsbayes.validation.engine import coverage_study, rows_of, sampling_summary
from cbsbayes.validation.models import Reading, Settings, reading_of, true_logs
from cbsbayes.validation.page import summary_sentence

READING, TOTAL = Reading(), Reading(256, 1, one_axis=True)
TWO_AXIS = {"S_min", "B_prompt", "B_rollout", "N(8)", "S(128,8)", "gain_prompts", "gain_rollouts",
            "cbs_prompts(8)"}


def as_draws(logs):
    """Return parameters as a posterior of one draw at one threshold."""
    return xr.Dataset({name: (("chain", "draw", "threshold"), np.full((1, 1, 1), np.exp(value)))
                       for name, value in logs.items()}, coords={"threshold": [0.6]})


@pytest.mark.parametrize(("law", "scales"), [("two_axis", ("B_prompt", "B_rollout")),
                                             ("total", ("B_noise",))])
def test_at_exponent_one_the_integral_is_the_law_of_the_averages(law, scales):
    true = true_logs(Truth(law=law), 0.65, READING)
    by_law = READING.logs(get_law(law), as_draws({name: true[name] for name in ("S_min", *scales)}))
    assert set(by_law) == TWO_AXIS - {"B_prompt", "B_rollout"} | set(scales)
    for name, value in by_law.items():
        assert value.item() == pytest.approx(true[name], abs=1e-4), name


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
    ("two_axis_sqrt_plain", "sqrt", TWO_AXIS),
    ("total", "base", TWO_AXIS - {"B_prompt", "B_rollout", "gain_rollouts"})])
def test_quantities_without_a_truth_are_left_out(law, family, quantities):
    quick = Settings(law=law, draws=50, tune=100, thresholds=(0.62, 0.68))
    found = rows_of([{"seed": 0, **simulated_sweep(family, quick, 0)}], COLUMNS)
    assert set(found["quantity"]) == quantities
    assert found["truth"].notna().all()
    assert LAWS[law].alpha is not None or set(
        found.loc[found["quantity"] == "alpha", "method"]) == {"posterior"}


def least_squares(table, law, reading):
    """Return the intervals of least squares where both rules find the same crossings."""
    return least_squares_intervals(table, table, law, reading, Settings(), 0)


def exact(steps):
    """Return crossings at one threshold known exactly, batches 64 … 1024."""
    batch = np.array([64.0, 128, 256, 512, 1024])
    values = np.asarray(steps(batch), dtype=float)[:, None]
    return xr.Dataset(
        {"lower": (("run", "threshold"), values), "upper": (("run", "threshold"), values)},
        coords={"n_prompts": ("run", [-1] * 5), "n_rollouts": ("run", [-1] * 5),
                "total_batch": ("run", batch), "threshold": [1.0]})


@pytest.mark.parametrize("name", list(LAWS))
def test_the_exponent_is_the_laws_or_one(name):
    law = fixed_law(get_law(name))
    assert law.alpha == (LAWS[name].alpha or 1.0)
    assert (law.scales, law.group_baseline) == (LAWS[name].scales, LAWS[name].group_baseline)


def test_without_noise_every_method_finds_the_law():
    law = get_law("total")
    table = exact(lambda batch: 100 * (1 + 500 / batch))
    for method, found in least_squares(table, law, TOTAL).items():
        assert np.exp(found["B_noise"][0]) == pytest.approx([500.0], rel=1e-3), method
        gain = np.exp(found["gain_total"][0, 0])
        assert gain == pytest.approx((1 + 500 / 512) / (1 + 500 / 256)), method
        assert np.exp(found["S(256)"][0]) == pytest.approx(100 * (1 + 500 / 256)), method


def test_the_t_interval_is_that_of_the_log_fit():
    noise = np.exp(np.random.default_rng(3).normal(0, 0.05, 5))
    law = get_law("total")
    table = exact(lambda batch: 100 * (1 + 500 / batch) * noise)
    ours = least_squares(table, law, TOTAL)["log_fit_t"]["B_noise"][:, 0]
    fit = fit_log_law(law, table["total_batch"].values, np.ones(5), table["upper"].values[:, 0])
    half = fit.t_quantile(0.9) * np.sqrt(fit.covariance[1, 1])
    np.testing.assert_allclose(ours, fit.log_parameters[1] + np.array([0, -half, half]), rtol=1e-3)


def test_a_flat_s_has_a_bootstrap_interval_down_to_nothing_and_no_t_interval():
    law = get_law("total")
    table = exact(lambda batch: 100 * np.array([0.99, 1.0, 1.0, 1.0, 1.01]))
    found = least_squares(table, law, TOTAL)
    assert np.isnan(found["log_fit_t"]["B_noise"][1:]).all()
    assert found["log_fit_boot"]["B_noise"][1, 0] == -np.inf


def test_too_few_crossings_give_nothing():
    law = get_law("two_axis")
    crossings = crossings_table(law, n_runs=12).isel(run=slice(0, 2))
    for method, found in least_squares(crossings, law, READING).items():
        assert found["S_min"].shape == (3, len(THRESHOLDS)), method
        assert np.isnan(found["S_min"][1:]).all(), method


def test_estimates_alone_are_those_of_the_fit():
    law = get_law("two_axis_free")
    crossings = crossings_table(law, n_runs=40)
    alone = log_estimates(crossings, law, READING)
    found = least_squares(crossings, law, READING)["log_fit_t"]
    for name, logs in alone.items():
        np.testing.assert_allclose(logs, found[name][0], rtol=1e-9)
    assert np.exp(alone["B_prompt"]) == pytest.approx([90.0] * 4, rel=0.5)


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


def test_failures_and_alarms_are_counted_and_named():
    records = [{"seed": 3, "error": "ValueError: no"},
               {"seed": 4, "rows": [],
                "sampling": {"seconds": 2.0, "r_hat_max": 1.01, "alarm": True}}]
    found = sampling_summary(records)
    assert (found["sweeps"], found["failed"]) == (1, {"3": "ValueError: no"})
    sentence = summary_sentence(found)
    assert "worst r_hat 1.010, small groups reported to saturate lower in 1" in sentence
    assert "1 failed and count for nothing: seed 3: ValueError: no" in sentence


@pytest.mark.mcmc
def test_what_is_averaged_over_laws_is_held_to_the_truth_too():
    quick = Settings(draws=300, thresholds=(0.62, 0.68), least_squares=False, average=True)
    record = simulated_sweep("total", quick, 0)
    assert record["sampling"]["structure_alarm"] is True  # the truth knows the total batch alone
    found = rows_of([{"seed": 0, **record}], COLUMNS)
    own, averaged = (found.query(f"method == '{name}'").set_index(["quantity", "threshold"])
                     for name in ("posterior", "averaged"))
    assert set(averaged.index.get_level_values(0)) == {"S_min", "S(128,8)", "gain_prompts",
                                                       "gain_rollouts", "cbs_prompts(8)"}
    both = averaged.join(own.add_suffix("_own"))
    assert (both["truth"] == both["truth_own"]).all()
    off, off_own = ((both[f"estimate{s}"] - both["truth"]).abs() for s in ("", "_own"))
    assert off["S_min"].mean() < off_own["S_min"].mean()


def test_evaluations_may_be_set_for_any_family():
    study = coverage_study("base", Settings(eval_every=2))
    assert study.name == "coverage-base_every_2-two_axis_free-crossing"
    assert (study.all_settings()["eval_every"], study.all_settings()["family"]) == (2, "base")
    with pytest.raises(CBSDataError, match="eval_every is -3"):
        simulated_sweep("base", Settings(eval_every=-3), 0)


@pytest.fixture
def runs():
    """Return five batches of four seeds whose S follows the total-batch law, B_noise 500."""
    batch = np.repeat([64.0, 128, 256, 512, 1024], 4)
    steps = 100 * (1 + 500 / batch) * np.tile([0.95, 1.05, 0.97, 1.04], 5)
    return new_sweep({"run": [f"r{i}" for i in range(20)], "total_batch": batch},
                     steps_lower=steps[:, None], steps_upper=steps[:, None], threshold=[1.0])


def test_one_run_of_each_batch_drawn_anew(runs):
    drawn = [redraw(runs, seed) for seed in range(40)]
    for ds in drawn:
        assert ds["total_batch"].values.tolist() == [64, 128, 256, 512, 1024]
    assert len({tuple(ds["run"].values) for ds in drawn}) > 30
    assert {str(run) for ds in drawn for run in ds["run"].values} == set(runs["run"].values)
    assert redraw(runs, 3).equals(drawn[3])


def test_all_seeds_are_the_reference(runs):
    settings = Settings(law="total", thresholds=(1.0,))
    reference = reference_values(runs, settings, reading_of(runs))[1.0]
    assert np.exp(reference["B_noise"]) == pytest.approx(500, rel=1e-3)
    assert np.exp(reference["S_min"]) == pytest.approx(100, rel=0.02)
    assert np.exp(reference["gain_total"]) == pytest.approx((1 + 500 / 512) / (1 + 500 / 256))


def test_a_free_exponent_is_not_held_to_a_reference_that_takes_it_as_one(runs):
    settings = Settings(law="power", thresholds=(1.0,))
    assert set(reference_values(runs, settings, reading_of(runs))[1.0]) == {"S(256)",
                                                                              "gain_total"}


def test_groups_of_one_are_never_drawn():
    ds = simulate_sweep("p2b", 2)
    assert (redraw(ds, 0)["n_rollouts"].values == [2, 4, 8, 16, 32, 64]).all()
    assert (batch_labels(ds) == -1).sum() == 2


def test_tables_without_seeds_are_refused(runs):
    check_table(runs, "runs.csv")
    with pytest.raises(CBSDataError, match=r"runs.csv holds at most one run of each batch"):
        check_table(redraw(runs, 0), "runs.csv")
    two = runs.assign_coords(model=("run", ["a", "b"] * 10))
    with pytest.raises(CBSDataError, match="2 groups of runs"):
        check_table(two, "runs.csv")
    rates = runs.assign_coords(learning_rate=("run", [1e-6, 3e-6] * 10))
    with pytest.raises(CBSDataError, match="at several learning rates, 1e-06 to 3e-06"):
        check_table(rates, "runs.csv")


@pytest.mark.mcmc
def test_real_seeds_of_a_reference_benchmark(public_data):
    """RNN-T, 20 seeds of each of six batches: a handful of redraws holds the all-seed value."""
    ds = reference_sweep(public_data / "mlperf_rcp" / "rnnt_3.1.0.json", grid=1.0)
    settings = Settings(law="total", thresholds=(1.0,))
    records = [{"seed": seed, **redrawn_sweep(ds, settings, seed)} for seed in range(4)]
    rows = rows_of(records, COLUMNS)
    noise = rows[(rows["quantity"] == "B_noise")]
    assert np.exp(noise["truth"].unique()).tolist() == [pytest.approx(3690, rel=0.02)]
    table = coverage_table(rows).set_index(["method", "quantity", "threshold"])
    ours = table.loc[("posterior", "B_noise", "all")]
    assert ours["coverage"] >= 0.75
    assert 0.1 < ours["log_width"] < 1.5
    assert 0.3 < ours["log_width"] / table.loc[("log_fit_t", "B_noise", "all"), "log_width"] < 3
