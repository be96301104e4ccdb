"""Least squares: the practice reproduced with its faults, and the log fit that is fair."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from cbsbayes.baselines import (
    comparison_rows,
    fit_baselines,
    interval_midpoints,
    least_squares,
    log_least_squares,
    log_least_squares_two_axis,
)
from cbsbayes.baselines.bootstrap import percentile_interval, resample_weights
from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.dataset import new_sweep

BATCH = np.array([1024, 128, 256, 4096, 512, 2048], dtype=float)
PROMPTS = np.array([16, 32, 64, 128, 256, 512, 128, 128, 128, 128, 32, 64, 256, 512], dtype=float)
ROLLOUTS = np.array([8, 8, 8, 8, 8, 8, 2, 4, 16, 32, 32, 16, 4, 2], dtype=float)


def noisy_steps(batch, *, s_min=50.0, b_noise=700.0, sd=0.1, seed=0):
    noise = np.random.default_rng(seed).normal(0, sd, batch.size)
    return s_min * (1 + b_noise / batch) * np.exp(noise)


# The usual method -------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "s_min", "b_noise", "r2"), [
    ([75, 175, 125, 50, 75, 50], 48.75621880531807, 343.32361630700257, 0.9723549738989781),
    ([50, 300, np.nan, 50, 100, 75], 38.991306946186675, 849.429944411476, 0.9803177121224369),
    ([50, 50, 50, 50, 50, 50], 49.999999522668595, 3.724094171441641e-06, 0.0),
])
def test_least_squares_gives_what_the_notebook_gave(steps, s_min, b_noise, r2):
    fit = least_squares(BATCH, steps)
    assert fit.S_min == pytest.approx(s_min, rel=1e-6)
    # a flat S leaves B_noise at rounding of 0, which differs between processors
    assert fit.B_noise == pytest.approx(b_noise, rel=1e-5, abs=1e-4)
    assert fit.r2 == pytest.approx(r2, abs=1e-9)
    assert (fit.n_used, fit.n_dropped) == (np.isfinite(steps).sum(), np.isnan(steps).sum())
    assert np.isnan([fit.ci_lower, fit.ci_upper]).all()


@pytest.mark.parametrize("seed", range(5))
def test_least_squares_is_the_nonnegative_linear_regression_on_one_over_b(seed):
    batch = np.repeat(BATCH, 3)
    steps = noisy_steps(batch, seed=seed)
    (s_min, e_min), _ = optimize.nnls(np.column_stack([np.ones(batch.size), 1 / batch]), steps)
    fit = least_squares(batch, steps)
    assert fit.S_min == pytest.approx(s_min, rel=1e-3)
    assert fit.E_min == pytest.approx(e_min, rel=1e-3)
    np.testing.assert_allclose(fit.predict([100.0, 1e4]), s_min + e_min / np.array([1e2, 1e4]),
                               rtol=1e-3)


def test_least_squares_needs_three_crossings():
    assert least_squares([64, 128, 256], [50, np.inf, 40]) is None


def test_least_squares_that_does_not_converge_says_so(monkeypatch):
    def give_up(*args, **kwargs):
        raise RuntimeError("Optimal parameters not found")

    monkeypatch.setattr("cbsbayes.baselines.least_squares.curve_fit", give_up)
    fit = least_squares(BATCH, [50, 300, np.nan, 50, 100, 75])
    assert np.isnan([fit.S_min, fit.B_noise, fit.r2]).all()
    assert "did not converge" in fit.note
    assert (fit.n_used, fit.n_dropped) == (5, 1)


@pytest.mark.parametrize("fit", [least_squares, log_least_squares])
@pytest.mark.parametrize(("batch", "steps", "message"), [
    ([64, 0, 256], [3, 2, 1], r"batch holds 0; only positive numbers"),
    ([64, -128, 256], [3, 2, 1], r"batch holds -128"),
    ([64, 128, 256], [3, 2, 0], r"steps holds 0"),
    ([64, 128], [3, 2, 1], r"shapes \(2,\) and \(3,\)"),
])
def test_bad_numbers_are_refused(fit, batch, steps, message):
    with pytest.raises(CBSDataError, match=message):
        fit(batch, steps)


# The log fit ------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(log_s=st.floats(-20, 20), log_b=st.floats(-1, 12), unit=st.floats(-15, 15))
def test_log_fit_recovers_noise_free_truth_in_any_unit(log_s, log_b, unit):
    batch, b_noise = BATCH * np.exp(unit), np.exp(log_b + unit)
    fit = log_least_squares(batch, np.exp(log_s) * (1 + b_noise / batch), n_bootstrap=5)
    assert fit.B_noise == pytest.approx(b_noise, rel=1e-4)
    assert fit.S_min == pytest.approx(np.exp(log_s), rel=1e-4)
    assert fit.r2 == pytest.approx(1, abs=1e-6)
    assert fit.ci_lower == pytest.approx(fit.B_noise, rel=1e-3)
    assert fit.ci_upper == pytest.approx(fit.B_noise, rel=1e-3)


@pytest.mark.parametrize("seed", range(10))
def test_log_fit_finds_the_optimum_scipy_finds(seed):
    batch = np.repeat(BATCH, 2)
    steps = noisy_steps(batch, sd=0.2, seed=seed)
    best = optimize.least_squares(
        lambda theta: np.log(steps) - theta[0] - np.log1p(np.exp(theta[1]) / batch),
        [np.log(50), np.log(700)], xtol=1e-13, ftol=1e-13, gtol=1e-13)
    spread = np.sqrt(2 * best.cost / 10 * np.linalg.inv(best.jac.T @ best.jac)[1, 1])
    half = stats.t.ppf(0.95, 10) * spread
    fit = log_least_squares(batch, steps, ci_prob=0.9)
    assert np.log([fit.S_min, fit.B_noise]) == pytest.approx(best.x, abs=1e-5)
    assert np.log([fit.ci_t_lower, fit.ci_t_upper]) == pytest.approx(
        best.x[1] + np.array([-half, half]), abs=1e-4)


@pytest.mark.parametrize("scale", [1e-9, 1e6])
def test_log_fit_does_not_depend_on_units(scale):
    steps = noisy_steps(BATCH)
    base = log_least_squares(BATCH, steps)
    by_steps = log_least_squares(BATCH, steps * scale)
    by_batch = log_least_squares(BATCH * scale, steps)
    for name in ("B_noise", "ci_lower", "ci_upper", "ci_t_lower", "ci_t_upper"):
        assert getattr(by_steps, name) == pytest.approx(getattr(base, name), rel=1e-6)
        assert getattr(by_batch, name) == pytest.approx(scale * getattr(base, name), rel=1e-6)
    assert by_steps.S_min == pytest.approx(scale * base.S_min, rel=1e-6)
    assert by_batch.S_min == pytest.approx(base.S_min, rel=1e-6)


def test_log_fit_does_not_depend_on_the_order_of_runs():
    steps, order = noisy_steps(BATCH), np.array([3, 5, 0, 1, 4, 2])
    one, two = (log_least_squares(BATCH[i], steps[i]) for i in (slice(None), order))
    assert two.B_noise == pytest.approx(one.B_noise, rel=1e-8)
    assert (two.ci_t_lower, two.ci_t_upper) == pytest.approx((one.ci_t_lower, one.ci_t_upper))


@pytest.mark.parametrize("steps", [np.full(6, 50.0), np.array([100, 30, 50, 200, 75, 150.0])],
                         ids=["flat", "rising"])
def test_flat_and_rising_steps_give_noise_zero(steps):
    fit = log_least_squares(BATCH, steps)
    assert fit.B_noise == 0
    assert fit.S_min == pytest.approx(np.exp(np.mean(np.log(steps))), rel=1e-4)
    assert fit.predict(64) == fit.S_min
    assert np.isnan([fit.ci_t_lower, fit.ci_t_upper]).all()
    assert fit.ci_lower == 0


@pytest.mark.parametrize("power", [1.0, 1.3], ids=["one over B", "steeper"])
def test_steps_that_fall_throughout_give_noise_infinite(power):
    fit = log_least_squares(BATCH, 1e6 / BATCH**power)
    assert (fit.S_min, fit.B_noise, fit.ci_upper) == (0, np.inf, np.inf)
    assert np.isfinite(fit.E_min)
    middle = np.exp(np.mean(np.log(BATCH)))
    assert fit.predict(middle) == pytest.approx(1e6 / middle**power, rel=1e-4)


def test_bootstrap_interval_reaches_zero_where_the_data_are_nearly_flat():
    fit = log_least_squares(np.repeat(BATCH, 3), noisy_steps(np.repeat(BATCH, 3), b_noise=1.0,
                                                               seed=1))
    assert fit.ci_lower == 0
    assert np.isfinite(fit.ci_upper)


def test_one_batch_size_is_not_fitted():
    fit = log_least_squares([2048] * 6, [212, 129, 73, 73, 62, 71])
    assert np.isnan([fit.B_noise, fit.ci_lower, fit.ci_t_upper]).all()
    assert "one batch size" in fit.note


def test_censored_runs_are_counted_not_fitted():
    steps = interval_midpoints([0, 25, 100, 200, 50], [25, 50, np.inf, 225, 75])
    assert np.isnan(steps).tolist() == [True, False, True, False, False]
    assert steps[1] == pytest.approx(np.sqrt(25 * 50))
    fit = log_least_squares([2048, 1024, 64, 128, 512], steps)
    assert (fit.n_used, fit.n_dropped) == (3, 2)


def test_same_seed_same_interval():
    steps = noisy_steps(BATCH)
    one, two, other = (log_least_squares(BATCH, steps, random_seed=s) for s in (3, 3, 4))
    assert (one.ci_lower, one.ci_upper) == (two.ci_lower, two.ci_upper)
    assert (one.ci_lower, one.ci_upper) != (other.ci_lower, other.ci_upper)


def test_t_interval_covers_as_often_as_it_says():
    batch = np.repeat(BATCH, 2)
    fits = [log_least_squares(batch, noisy_steps(batch, seed=s), n_bootstrap=1)
            for s in range(400)]
    covered = np.mean([fit.ci_t_lower <= 700 <= fit.ci_t_upper for fit in fits])
    assert covered == pytest.approx(0.9, abs=0.045)  # three standard errors of 400 draws


# The bootstrap ----------------------------------------------------------------------------


def test_replicates_are_redrawn_within_their_cell_and_single_runs_together():
    cell = np.array([64, 64, 64, 128, 128, 256, 512, 1024])
    weights = resample_weights(cell, 1 / cell[:, None], 300, np.random.default_rng(0))
    for members, size in ((slice(0, 3), 3), (slice(3, 5), 2), (slice(5, 8), 3)):
        np.testing.assert_allclose(weights[:, members].sum(1), size)
    assert weights.std(0).min() > 0.3


def test_resampled_cell_means_vary_as_the_mean_of_replicates_does():
    cell, values = np.repeat([64, 128, 256], 3), np.arange(9.0) ** 2
    weights = resample_weights(cell, 1 / cell[:, None], 20000, np.random.default_rng(0))
    means = (weights * values)[:, :3].sum(1) / 3
    assert means.mean() == pytest.approx(values[:3].mean(), abs=0.05)
    assert means.var() == pytest.approx(values[:3].var(ddof=1) / 3, rel=0.05)


def test_resamples_with_one_batch_size_are_drawn_again():
    cell = np.array([64, 128, 256])
    weights = resample_weights(cell, 1 / cell[:, None], 300, np.random.default_rng(0))
    assert ((weights > 0).sum(1) >= 2).all()


def test_percentile_interval_holds_limits():
    draws = np.array([np.inf, 0.0, 5.0, np.inf, 1.0, 0.0, 2.0, 3.0, 4.0, np.inf, 2.5])
    assert percentile_interval(draws, 0.8) == (0.0, np.inf)
    assert percentile_interval(np.arange(101.0), 0.9) == (5, 95)
    assert np.isnan(percentile_interval(np.array([]), 0.9)).all()


# Two axes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize("plain", [False, True])
def test_two_axis_fit_finds_the_optimum_scipy_finds(alpha, plain):
    divisor = ROLLOUTS if plain else ROLLOUTS - 1
    noise = np.random.default_rng(2).normal(0, 0.1, PROMPTS.size)
    y = np.log(40) + alpha * np.log1p((60 + 500 / divisor) / PROMPTS) + noise

    def residual(theta):
        return y - theta[0] - alpha * np.log1p(
            (np.exp(theta[1]) + np.exp(theta[2]) / divisor) / PROMPTS)

    best = optimize.least_squares(residual, np.log([40, 60, 500]), xtol=1e-13, ftol=1e-13,
                                  gtol=1e-13)
    covariance = 2 * best.cost / (y.size - 3) * np.linalg.inv(best.jac.T @ best.jac)
    fit = log_least_squares_two_axis(PROMPTS, ROLLOUTS, np.exp(y), alpha, plain)
    assert np.log([fit.S_min, fit.B_prompt, fit.B_rollout]) == pytest.approx(best.x, abs=1e-5)
    np.testing.assert_allclose(fit.log_covariance, covariance, rtol=1e-3, atol=1e-6)
    half = stats.t.ppf(0.95, y.size - 3) * np.sqrt(covariance[2, 2])
    assert np.log(fit.t_interval("B_rollout")) == pytest.approx(
        best.x[2] + np.array([-half, half]), abs=1e-3)


def test_noise_at_a_group_size_has_the_delta_method_interval():
    y = 40 * (1 + (60 + 500 / (ROLLOUTS - 1)) / PROMPTS) * np.exp(
        np.random.default_rng(5).normal(0, 0.1, PROMPTS.size))
    fit = log_least_squares_two_axis(PROMPTS, ROLLOUTS, y)
    noise = fit.B_prompt + fit.B_rollout / 7
    draws = np.exp(np.random.default_rng(0).multivariate_normal(
        np.log([fit.B_prompt, fit.B_rollout]), fit.log_covariance[1:, 1:] * 1e-4, 20000))
    spread = 100 * np.std(np.log(draws[:, 0] + draws[:, 1] / 7))
    low, high = fit.t_interval("noise", n_rollouts=8)
    assert np.sqrt(low * high) == pytest.approx(noise)
    assert np.log(high / low) / 2 == pytest.approx(stats.t.ppf(0.95, 11) * spread, rel=0.03)
    low, high = fit.bootstrap_interval("noise", n_rollouts=8)
    assert low < noise < high
    np.testing.assert_allclose(fit.bootstrap_interval("B_prompt"),
                               percentile_interval(fit.draws[:, 1], 0.9))


@settings(max_examples=25, deadline=None)
@given(log_bp=st.floats(1, 8), log_br=st.floats(2, 9), unit=st.floats(-10, 10))
def test_two_axis_fit_recovers_noise_free_truth_in_any_unit(log_bp, log_br, unit):
    noise = np.exp(log_bp) + np.exp(log_br) / (ROLLOUTS - 1)
    steps = 30 * (1 + noise / PROMPTS)
    fit = log_least_squares_two_axis(PROMPTS * np.exp(unit), ROLLOUTS, steps * np.exp(-unit),
                                     n_bootstrap=3)
    truth = np.array([30 * np.exp(-unit), np.exp(log_bp + unit), np.exp(log_br + unit)])
    assert [fit.S_min, fit.B_prompt, fit.B_rollout] == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize("varied", ["prompts", "rollouts"])
def test_one_phase_does_not_separate_the_two_scales(varied):
    runs = ROLLOUTS == 8 if varied == "prompts" else PROMPTS == 128
    steps = 30 * (1 + (60 + 500 / (ROLLOUTS - 1)) / PROMPTS)
    fit = log_least_squares_two_axis(PROMPTS[runs], ROLLOUTS[runs], steps[runs])
    assert np.isnan([fit.S_min, fit.B_prompt, fit.B_rollout]).all()
    assert np.isnan(fit.t_interval("B_prompt")).all()
    assert np.isnan(fit.bootstrap_interval("B_prompt")).all()
    assert "apart" in fit.note


def test_no_rollout_noise_is_zero_not_a_small_number():
    fit = log_least_squares_two_axis(PROMPTS, ROLLOUTS, 30 * (1 + 60 / PROMPTS))
    assert fit.B_rollout == 0
    assert fit.B_prompt == pytest.approx(60, rel=1e-3)
    assert np.isnan(fit.t_interval("B_prompt")).all()


def test_groups_of_one_are_refused_under_a_group_baseline():
    rollouts = np.where(ROLLOUTS == 2, 1, ROLLOUTS)
    with pytest.raises(CBSDataError, match=r"n_rollouts holds 1, which has no group baseline"):
        log_least_squares_two_axis(PROMPTS, rollouts, noisy_steps(PROMPTS))
    fit = log_least_squares_two_axis(PROMPTS, rollouts, noisy_steps(PROMPTS), plain=True)
    assert np.isfinite(fit.S_min)


# Every axis of a sweep --------------------------------------------------------------------


@pytest.fixture
def sweep():
    """Crossings of a two-axis law at one threshold, every interval 10 % wide."""
    prompts = np.append(PROMPTS, [128, 16]).astype(int)
    rollouts = np.append(ROLLOUTS, [1, 2]).astype(int)
    steps = 40 * (1 + (60 + 500 / np.maximum(rollouts - 1, 0.5)) / prompts)
    upper = np.where(np.arange(16) == 15, np.inf, steps * 1.05)
    runs = {"run": [f"r{i}" for i in range(16)], "n_prompts": prompts, "n_rollouts": rollouts}
    return new_sweep(runs, steps_lower=steps[:, None] / 1.05, steps_upper=upper[:, None],
                     threshold=[0.6])


def test_every_axis_is_fitted_in_its_own_unit(sweep):
    fits = fit_baselines(sweep, find_crossings(sweep, [0.6]), [0.6])
    table = comparison_rows(fits, "g").set_index(["axis", "at", "method"])
    assert set(table.index.droplevel("method")) == {
        ("total", ""), ("prompts", "n_rollouts=2"), ("prompts", "n_rollouts=8"),
        ("rollouts", "n_prompts=128")}
    log = table.loc["prompts", "n_rollouts=8", "log_least_squares"]
    assert log["B_noise"] == pytest.approx(60 + 500 / 7, rel=1e-3)
    assert log["S_min"] == pytest.approx(40, rel=1e-3)
    raw = table.loc["prompts", "n_rollouts=8", "least_squares"]
    assert raw["S_min"] == pytest.approx(40 * 1.05, rel=1e-3)
    assert raw["B_noise"] == pytest.approx(60 + 500 / 7, rel=1e-3)
    assert table.loc["rollouts", "n_prompts=128", "log_least_squares"]["B_noise"] < 8
    assert (table["n_runs_used"] + table["n_runs_dropped"]).to_dict() == {
        key: {"total": 16, "n_rollouts=2": 3, "n_rollouts=8": 6, "n_prompts=128": 6}[
            key[1] or key[0]] for key in table.index}


def test_groups_of_one_stay_with_the_practice_and_leave_the_log_fit(sweep):
    crossings = find_crossings(sweep, [0.6])
    used = {(f.axis, f.method): f.n_used for f in fit_baselines(sweep, crossings, [0.6])
            if f.axis in ("total", "rollouts")}
    assert used == {("total", "least_squares"): 15, ("total", "log_least_squares"): 14,
                    ("rollouts", "least_squares"): 6, ("rollouts", "log_least_squares"): 5}
    plain = fit_baselines(sweep, crossings, [0.6], plain=True)
    assert [f.n_used for f in plain if f.axis == "rollouts"] == [6, 6]


def test_too_few_crossings_give_a_row_that_says_so(sweep):
    fits = fit_baselines(sweep, find_crossings(sweep, [0.6]), [0.6])
    few = [f for f in fits if f.at == "n_rollouts=2"]
    assert [f.note for f in few] == ["2 of 3 runs have a crossing to fit; three are needed"] * 2
    assert np.isnan([f.B_noise for f in few]).all()
    assert [(f.n_used, f.n_dropped) for f in few] == [(2, 1)] * 2


def test_runs_left_out_of_the_crossings_count_as_dropped(sweep):
    crossings = find_crossings(sweep, [0.6]).isel(run=slice(2, None))
    log = next(f for f in fit_baselines(sweep, crossings, [0.6])
               if f.axis == "total" and f.method == "log_least_squares")
    assert (log.n_used, log.n_dropped) == (12, 4)


def test_one_axis_data_have_the_total_axis_only():
    steps = noisy_steps(BATCH, sd=0)
    runs = {"run": [f"b{b:g}" for b in BATCH], "total_batch": BATCH}
    ds = new_sweep(runs, steps_lower=steps[:, None], steps_upper=steps[:, None], threshold=[3.2],
                   direction="decreasing")
    fits = fit_baselines(ds, find_crossings(ds, [3.2]), [3.2])
    assert [(f.axis, f.method) for f in fits] == [("total", "least_squares"),
                                                  ("total", "log_least_squares")]
    assert [f.B_noise for f in fits] == pytest.approx([700, 700], rel=1e-3)


def test_comparison_rows_have_the_columns_of_the_file(sweep):
    table = comparison_rows(fit_baselines(sweep, find_crossings(sweep, [0.6]), [0.6]), "a · b")
    assert list(table) == ["group", "threshold", "axis", "at", "method", "S_min", "B_noise",
                           "ci_lower", "ci_upper", "n_runs_used", "n_runs_dropped", "r2"]
    assert (table["group"] == "a · b").all()
    log = table[table["method"] == "log_least_squares"].dropna()
    assert (log["ci_lower"] <= log["B_noise"] * 1.0001).all()
    assert comparison_rows([], "a").columns.tolist() == list(table)


# Public measurements ----------------------------------------------------------------------


@pytest.mark.parametrize(("size", "b_noise"), [
    ("85M", 2191), ("151M-ablation", 3240), ("302M", 5433), ("604M", 7907), ("1.2B", 11131)])
def test_log_fit_gives_the_published_pretraining_noise_scales(public_data, size, b_noise):
    path = public_data / "zhang2024_cbs" / "chinchilla_steps_to_loss.json"
    data = json.loads(path.read_text())
    fit = log_least_squares(data["batch_sizes_sequences"],
                            data["steps_to_goal_cell5_used_for_fit"][size])
    s_min, e_min = data["published_fit_a_plus_b_over_B"][size]
    assert fit.B_noise == pytest.approx(b_noise, rel=3e-4)
    assert (fit.S_min, fit.E_min) == pytest.approx((s_min, e_min), rel=1e-4)
    assert fit.ci_lower < b_noise < fit.ci_upper


def test_log_fit_of_the_rnnt_reference_points(public_data):
    cells = json.loads((public_data / "mlperf_rcp" / "rnnt_3.1.0.json").read_text()).values()
    batch = np.concatenate([np.full(len(c["Epochs to converge"]), c["BS"]) for c in cells])
    epochs = np.concatenate([c["Epochs to converge"] for c in cells])
    fit = log_least_squares(batch, epochs / batch)
    assert fit.n_used == 120
    assert fit.B_noise == pytest.approx(3690, rel=1e-3)
    standard_error = np.log(fit.ci_t_upper / fit.B_noise) / stats.t.ppf(0.95, 118)
    assert standard_error == pytest.approx(0.033, abs=5e-4)
    assert fit.ci_lower < 3690 < fit.ci_upper
    assert np.log(fit.ci_upper / fit.ci_lower) == pytest.approx(
        np.log(fit.ci_t_upper / fit.ci_t_lower), rel=0.35)


def test_only_the_practice_depends_on_the_unit_of_steps(public_data):
    """DLRM's steps are fractions of an epoch: curve_fit stops before it has begun."""
    cells = json.loads((public_data / "mlperf_rcp" / "dlrm_2.1.0.json").read_text()).values()
    batch = np.concatenate([np.full(len(c["Epochs to converge"]), c["BS"]) for c in cells])
    steps = np.concatenate([c["Epochs to converge"] for c in cells]) / batch
    raw, log = ([fit(batch, steps * unit).B_noise for unit in (1, 1e9)]
                for fit in (least_squares, log_least_squares))
    assert raw[1] / raw[0] > 3
    assert log[1] == pytest.approx(log[0], rel=1e-6)


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_evaluation_grid_moves_the_practice_on_a_real_sweep(public_data, threshold):
    """Evaluated every 20 updates instead of every 2, the same p1 runs give half the noise."""
    fine, coarse = (_tiny_fits(public_data, every, threshold) for every in (2, 20))
    raw = coarse["least_squares"].B_noise / fine["least_squares"].B_noise
    assert 0.3 < raw < 0.7


def test_log_fit_refuses_where_nearly_all_crossed_before_the_first_evaluation(public_data):
    fits = _tiny_fits(public_data, 20, 0.5)
    assert (fits["least_squares"].n_used, fits["log_least_squares"].n_used) == (21, 2)
    assert np.isnan(fits["log_least_squares"].B_noise)


def _tiny_fits(public_data, every, threshold):
    table = pd.read_parquet(public_data / "tiny_grpo" / "curves.parquet")
    table = table[(table["phase"] == "p1") & (table["step"] % every == 0)]
    wide = table.pivot_table(index="run", columns="step", values="accuracy")
    runs = table.groupby("run")[["n_prompts", "n_rollouts"]].first().reset_index()
    ds = new_sweep(runs, accuracy=wide.loc[runs["run"]].to_numpy()[:, None],
                   step=wide.columns.to_numpy(), metric=["tiny_add"])
    fits = fit_baselines(ds, find_crossings(ds, [threshold]), [threshold])
    return {fit.method: fit for fit in fits if fit.axis == "prompts"}
