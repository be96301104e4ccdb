"""Least squares of S(B): common practice with its faults, and the log fit done fairly.

The log fit's estimates are those that scipy confirms, in any unit, its intervals cover.
"""

from __future__ import annotations

import json
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from cbsbayes.baselines.least_squares import fit_log_law, interval_midpoints, resample_weights
from cbsbayes.baselines.table import least_squares, log_least_squares, percentile_interval
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law

BATCH = np.array([1024, 128, 256, 4096, 512, 2048], dtype=float)
PROMPTS = np.array([16, 32, 64, 128, 256, 512, 128, 128, 128, 128, 32, 64, 256, 512], dtype=float)
ROLLOUTS = np.array([8, 8, 8, 8, 8, 8, 2, 4, 16, 32, 32, 16, 4, 2], dtype=float)


def noisy_steps(batch, *, s_min=50.0, b_noise=700.0, sd=0.1, seed=0):
    noise = np.random.default_rng(seed).normal(0, sd, batch.size)
    return s_min * (1 + b_noise / batch) * np.exp(noise)


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
    assert fit.n_runs_dropped == 6 - fit.n_runs_used == np.isnan(steps).sum()
    assert np.isnan([fit.ci_lower, fit.ci_upper]).all()


@pytest.mark.parametrize("seed", range(3))
def test_least_squares_is_the_nonnegative_linear_regression_on_one_over_b(seed):
    batch = np.repeat(BATCH, 3)
    steps = noisy_steps(batch, seed=seed)
    (s_min, e_min), _ = optimize.nnls(np.column_stack([np.ones(batch.size), 1 / batch]), steps)
    fit = least_squares(batch, steps)
    assert fit.S_min == pytest.approx(s_min, rel=1e-3)
    assert fit.S_min * fit.B_noise == pytest.approx(e_min, rel=1e-3)


def test_least_squares_needs_three_crossings():
    for method in (least_squares, log_least_squares):
        fit = method([64, 128, 256], [50, np.inf, 40])
        assert np.isnan(fit.B_noise)
        assert fit.note == "2 of 3 runs have a crossing to fit; three are needed"


def test_least_squares_that_does_not_converge_says_so(monkeypatch):
    def give_up(*args, **kwargs):
        raise RuntimeError("Optimal parameters not found")

    monkeypatch.setattr(import_module("cbsbayes.baselines.least_squares"), "curve_fit", give_up)
    fit = least_squares(BATCH, [50, 300, np.nan, 50, 100, 75])
    assert np.isnan([fit.S_min, fit.B_noise, fit.r2]).all()
    assert "did not converge" in fit.note
    assert (fit.n_runs_used, fit.n_runs_dropped) == (5, 1)


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


@settings(max_examples=40)
@given(log_s=st.floats(-20, 20), log_b=st.floats(-1, 12), unit=st.floats(-15, 15))
def test_log_fit_recovers_noise_free_truth_in_any_unit(log_s, log_b, unit):
    batch, b_noise = BATCH * np.exp(unit), np.exp(log_b + unit)
    fit = log_least_squares(batch, np.exp(log_s) * (1 + b_noise / batch), n_bootstrap=5)
    assert fit.B_noise == pytest.approx(b_noise, rel=1e-4)
    assert fit.S_min == pytest.approx(np.exp(log_s), rel=1e-4)
    assert fit.r2 == pytest.approx(1, abs=1e-6)
    assert fit.ci_lower == pytest.approx(fit.B_noise, rel=1e-3)
    assert fit.ci_upper == pytest.approx(fit.B_noise, rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_log_fit_finds_the_optimum_scipy_finds(seed):
    batch = np.repeat(BATCH, 2)
    steps = noisy_steps(batch, sd=0.2, seed=seed)
    best = optimize.least_squares(
        lambda theta: np.log(steps) - theta[0] - np.log1p(np.exp(theta[1]) / batch),
        [np.log(50), np.log(700)], xtol=1e-13, ftol=1e-13, gtol=1e-13)
    fit = log_least_squares(batch, steps, n_bootstrap=1)
    assert np.log([fit.S_min, fit.B_noise]) == pytest.approx(best.x, abs=1e-5)


def test_log_fit_does_not_depend_on_units():
    steps, scale = noisy_steps(BATCH), 1e-9
    base, by_steps, by_batch = (log_least_squares(*runs, n_bootstrap=30) for runs in (
        (BATCH, steps), (BATCH, steps * scale), (BATCH * scale, steps)))
    for name in ("B_noise", "ci_lower", "ci_upper"):
        assert getattr(by_steps, name) == pytest.approx(getattr(base, name), rel=1e-6)
        assert getattr(by_batch, name) == pytest.approx(scale * getattr(base, name), rel=1e-6)
    assert by_steps.S_min == pytest.approx(scale * base.S_min, rel=1e-6)
    assert by_batch.S_min == pytest.approx(base.S_min, rel=1e-6)


@pytest.mark.parametrize("steps", [np.full(6, 50.0), np.array([100, 30, 50, 200, 75, 150.0])],
                         ids=["flat", "rising"])
def test_flat_and_rising_steps_give_noise_zero(steps):
    """Common practice, which says nothing of its doubt, gives a plain number."""
    assert 0 < least_squares(BATCH, steps).B_noise < np.inf
    fit = log_least_squares(BATCH, steps)
    assert fit.B_noise == 0
    assert fit.S_min == pytest.approx(np.exp(np.mean(np.log(steps))), rel=1e-4)
    assert fit.ci_lower == 0


@pytest.mark.parametrize("power", [1.0, 1.3], ids=["one over B", "steeper"])
def test_steps_that_fall_throughout_give_noise_infinite(power):
    fit = log_least_squares(BATCH, 1e6 / BATCH**power)
    assert (fit.S_min, fit.B_noise, fit.ci_upper) == (0, np.inf, np.inf)
    law = fit_log_law(get_law("total"), BATCH, np.ones(6), 1e6 / BATCH**power, n_bootstrap=0)
    middle = np.exp(np.mean(np.log(BATCH)))  # there S is E_min/B
    assert law.log_parameters.sum() == pytest.approx(np.log(1e6 * middle ** (1 - power)), abs=1e-4)


def test_bootstrap_interval_reaches_zero_where_the_data_are_nearly_flat():
    fit = log_least_squares(np.repeat(BATCH, 3), noisy_steps(np.repeat(BATCH, 3), b_noise=1.0,
                                                               seed=1))
    assert fit.ci_lower == 0
    assert np.isfinite(fit.ci_upper)


def test_censored_runs_are_counted_not_fitted():
    steps = interval_midpoints([0, 25, 100, 200, 50], [25, 50, np.inf, 225, 75])
    assert np.isnan(steps).tolist() == [True, False, True, False, False]
    assert steps[1] == pytest.approx(np.sqrt(25 * 50))
    fit = log_least_squares([2048, 1024, 64, 128, 512], steps)
    assert (fit.n_runs_used, fit.n_runs_dropped) == (3, 2)


def test_same_seed_same_interval():
    steps = noisy_steps(BATCH)
    one, two, other = (log_least_squares(BATCH, steps, n_bootstrap=20, random_seed=seed)
                       for seed in (3, 3, 4))
    assert one == two
    assert (one.ci_lower, one.ci_upper) != (other.ci_lower, other.ci_upper)


def t_interval(batch, steps):
    """Return B_noise and its t-interval, on the log scale."""
    fit = fit_log_law(get_law("total"), batch, np.ones(batch.size), steps, n_bootstrap=1)
    half = fit.t_quantile(0.9) * np.sqrt(fit.covariance[1, 1])
    return fit.log_parameters[1] + np.array([0.0, -half, half])


def test_t_interval_covers_as_often_as_it_says():
    batch = np.repeat(BATCH, 2)
    ends = np.array([t_interval(batch, noisy_steps(batch, seed=s)) for s in range(400)])
    covered = np.mean((ends[:, 1] <= np.log(700)) & (np.log(700) <= ends[:, 2]))
    assert covered == pytest.approx(0.9, abs=0.045)  # three standard errors of 400 draws


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize("ending", ["", "_plain"])
def test_a_law_of_two_axes_is_fitted_as_scipy_fits_it(alpha, ending):
    law = get_law(f"two_axis{'' if alpha == 1 else '_sqrt'}{ending}")
    divisor = ROLLOUTS if ending else ROLLOUTS - 1
    noise = np.random.default_rng(2).normal(0, 0.1, PROMPTS.size)
    y = np.log(40) + alpha * np.log1p((60 + 500 / divisor) / PROMPTS) + noise

    def residual(theta):
        return y - theta[0] - alpha * np.log1p(
            (np.exp(theta[1]) + np.exp(theta[2]) / divisor) / PROMPTS)

    best = optimize.least_squares(residual, np.log([40, 60, 500]), xtol=1e-13, ftol=1e-13,
                                  gtol=1e-13)
    covariance = 2 * best.cost / (y.size - 3) * np.linalg.inv(best.jac.T @ best.jac)
    fit = fit_log_law(law, PROMPTS, ROLLOUTS, np.exp(y))
    assert fit.log_parameters == pytest.approx(best.x, abs=1e-5)
    assert np.log(fit.parameters) == pytest.approx(best.x, abs=1e-5)
    np.testing.assert_allclose(fit.covariance, covariance, rtol=1e-3, atol=1e-6)
    assert fit.t_quantile(0.9) == pytest.approx(stats.t.ppf(0.95, y.size - 3))
    low, high = (percentile_interval(column, 0.9) for column in fit.draws.T[1:])
    assert low[0] < fit.parameters[1] < low[1]
    assert high[0] < fit.parameters[2] < high[1]


@settings(max_examples=25)
@given(log_bp=st.floats(1, 8), log_br=st.floats(2, 9), unit=st.floats(-10, 10))
def test_two_axes_recover_noise_free_truth_in_any_unit(log_bp, log_br, unit):
    noise = np.exp(log_bp) + np.exp(log_br) / (ROLLOUTS - 1)
    fit = fit_log_law(get_law("two_axis_free"), PROMPTS * np.exp(unit), ROLLOUTS,
                      30 * (1 + noise / PROMPTS) * np.exp(-unit), n_bootstrap=3)
    truth = np.array([30 * np.exp(-unit), np.exp(log_bp + unit), np.exp(log_br + unit)])
    assert fit.parameters == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize("varied", ["prompts", "rollouts"])
def test_one_phase_does_not_separate_the_two_scales(varied):
    runs = ROLLOUTS == 8 if varied == "prompts" else PROMPTS == 128
    steps = 30 * (1 + (60 + 500 / (ROLLOUTS - 1)) / PROMPTS)
    fit = fit_log_law(get_law("two_axis"), PROMPTS[runs], ROLLOUTS[runs], steps[runs],
                      n_bootstrap=1)
    assert np.isnan([*fit.parameters, *fit.draws[0], fit.covariance[1, 1]]).all()


def test_no_rollout_noise_is_zero_not_a_small_number():
    fit = fit_log_law(get_law("two_axis"), PROMPTS, ROLLOUTS, 30 * (1 + 60 / PROMPTS),
                      n_bootstrap=0)
    assert fit.parameters[2] == 0
    assert fit.parameters[1] == pytest.approx(60, rel=1e-3)
    assert np.isnan(fit.covariance).all()


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


@pytest.mark.parametrize(("size", "b_noise"), [
    ("85M", 2191), ("151M-ablation", 3240), ("302M", 5433), ("604M", 7907), ("1.2B", 11131)])
def test_log_fit_gives_the_published_pretraining_noise_scales(public_data, size, b_noise):
    path = public_data / "zhang2024_cbs" / "chinchilla_steps_to_loss.json"
    data = json.loads(path.read_text())
    fit = log_least_squares(data["batch_sizes_sequences"],
                            data["steps_to_goal_cell5_used_for_fit"][size])
    s_min, e_min = data["published_fit_a_plus_b_over_B"][size]
    assert fit.B_noise == pytest.approx(b_noise, rel=3e-4)
    assert (fit.S_min, fit.S_min * fit.B_noise) == pytest.approx((s_min, e_min), rel=1e-4)
    assert fit.ci_lower < b_noise < fit.ci_upper


def test_log_fit_of_the_rnnt_reference_points(public_data):
    cells = json.loads((public_data / "mlperf_rcp" / "rnnt_3.1.0.json").read_text()).values()
    batch = np.concatenate([np.full(len(c["Epochs to converge"]), c["BS"]) for c in cells])
    epochs = np.concatenate([c["Epochs to converge"] for c in cells])
    fit = log_least_squares(batch, epochs / batch)
    assert fit.n_runs_used == 120
    assert fit.B_noise == pytest.approx(3690, rel=1e-3)
    middle, low, high = t_interval(batch, epochs / batch)
    assert (high - middle) / stats.t.ppf(0.95, 118) == pytest.approx(0.033, abs=5e-4)
    assert fit.ci_lower < 3690 < fit.ci_upper
    assert np.log(fit.ci_upper / fit.ci_lower) == pytest.approx(high - low, rel=0.35)
