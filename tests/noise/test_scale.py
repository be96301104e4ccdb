"""Measured noise scales: known truths come back, with their units, or are not resolved."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt

from cbsbayes import plots
from cbsbayes.errors import CBSDataError
from cbsbayes.ingest import ingest
from cbsbayes.noise.probes import probes_of
from cbsbayes.noise.scale import (
    COLUMNS,
    bootstrap_interval,
    fieller,
    naive_corrected,
    naive_expectation,
    noise_scales,
    ratio_of_means,
)
from cbsbayes.plots.noise_bias import simulate_probes
from cbsbayes.plots.style import detached
from cbsbayes.sweep.build import new_sweep
from training.grad_noise.estimators import HalfSums, split_estimates

TRUTH, BATCH = 4096.0, 256


def sweep_of(probes, *, updates=None, **coords):
    """Make a sweep from logged sums, key to array (run, probe)."""
    n_runs, n_probes = next(iter(probes.values())).shape
    runs = {"run": [f"r{i}" for i in range(n_runs)], "n_prompts": 32, "n_rollouts": 8, **coords}
    return new_sweep(runs, accuracy=np.full((n_runs, 1, 2), 0.5), step=[0, 100],
                     metric=["m"], noise=probes,
                     train_step=np.arange(n_probes) * 10.0 if updates is None else updates)


def simulated_sweep(n_runs=1, n_probes=40, *, n_samples=BATCH, truth=TRUTH, seed=0, **coords):
    rng = np.random.default_rng(seed)
    above, below, biased = (
        part.reshape(n_runs, n_probes) for part in
        simulate_probes(truth, n_samples, n_runs * n_probes, random_seed=rng))
    return sweep_of({"grad_noise/tr_sigma": above, "grad_noise/g_sq": below,
                     "grad_noise/gbar_sq": biased,
                     "grad_noise/n_samples": np.full_like(above, n_samples)}, **coords)


def pick(table, quantity, window=1):
    rows = table[(table["quantity"] == quantity) & (table["window"] == window)]
    assert len(rows) == 1
    return rows.iloc[0]


def two_level_gradients(rng, signal, between, within, shape):
    """Return gradients of rollouts, dims (prompt, rollout, direction), with known traces."""
    n_prompts, _, n_dims = shape
    mean = np.full(n_dims, math.sqrt(signal / n_dims))
    prompt = rng.normal(scale=math.sqrt(between / n_dims), size=(n_prompts, 1, n_dims))
    return mean + prompt + rng.normal(scale=math.sqrt(within / n_dims), size=shape)


def probed(gradients):
    """Do to gradients what the probe in verl's actor does."""
    half = gradients.shape[1] // 2
    parts = np.stack([gradients[:, :half].sum(axis=1), gradients[:, half:].sum(axis=1)], axis=1)
    total = gradients.sum(axis=(0, 1))
    sums = HalfSums(np.ones(len(gradients)), np.square(parts).sum(axis=2),
                    (parts[:, 0] * parts[:, 1]).sum(axis=1), float(total @ total),
                    (half, gradients.shape[1] - half))
    return split_estimates(sums) | {"n_samples": gradients.shape[0] * gradients.shape[1]}


class TestNaiveFormula:
    def test_a_noise_scale_of_4096_reads_243_from_256_samples(self):
        above, below, biased = simulate_probes(TRUTH, BATCH, 20_000)
        assert np.mean(above / biased) == pytest.approx(243, abs=2)  # ratio of every probe
        assert above.mean() / biased.mean() == pytest.approx(241, abs=2)
        assert float(naive_expectation(TRUTH, BATCH)) == pytest.approx(4096 / 17)
        assert np.mean(below < 0) == pytest.approx(0.30, abs=0.01)
        assert above.mean() / below.mean() == pytest.approx(TRUTH, rel=0.05)

    @given(st.floats(1e-3, 1e6), st.floats(1, 1e6))
    def test_the_correction_undoes_the_bias(self, b_simple, n_samples):
        naive = naive_expectation(b_simple, n_samples)
        assert naive < n_samples
        assert float(naive_corrected(naive, n_samples)) == pytest.approx(b_simple, rel=1e-6)

    def test_at_the_batch_there_is_no_finite_noise_scale(self):
        np.testing.assert_array_equal(naive_corrected([256.0, 300.0], 256), [np.inf, np.inf])


class TestIntervals:
    @pytest.mark.parametrize("n_samples", [256, 1024, 16_384])
    def test_fieller_covers_the_truth_as_often_as_it_says(self, n_samples):
        rng = np.random.default_rng(n_samples)
        n_sets, n_probes = 1500, 20
        above, below, _ = (part.reshape(n_sets, n_probes) for part in simulate_probes(
            TRUTH, n_samples, n_sets * n_probes, random_seed=rng))
        ratios = [ratio_of_means(x, y) for x, y in zip(above, below, strict=True)]
        covered = np.mean([ratio.lower <= TRUTH <= ratio.upper for ratio in ratios])
        assert covered == pytest.approx(0.9, abs=0.025)  # 3 standard errors
        not_resolved = np.mean([ratio.status == "not_resolved" for ratio in ratios])
        assert (not_resolved > 0.05) == (n_samples == 256)

    def test_prompt_and_rollout_parts_cover_their_truths(self):
        rng = np.random.default_rng(3)
        signal, between, within = 1.0, 12.0, 60.0
        truths = {"B_simple": 8 * between + within, "B_between": between, "B_within": within}
        n_sets, n_probes = 80, 12  # every run is one set of probes
        logged = [[probed(two_level_gradients(rng, signal, between, within, (16, 8, 40)))
                   for _ in range(n_probes)] for _ in range(n_sets)]
        keys = {f"actor/grad_noise/{key}": np.array([[row[key] for row in run] for run in logged])
                for key in logged[0][0]}
        table = noise_scales(sweep_of(keys), n_windows=1)
        for quantity, truth in truths.items():
            rows = table[table["quantity"] == quantity]
            covered = rows["ci_lower"].le(truth) & rows["ci_upper"].ge(truth)
            assert len(rows) == n_sets
            assert covered.mean() > 0.79  # binomial, 3.3 standard errors below .9

    def test_bootstrap_agrees_where_the_ratio_is_resolved(self):
        above, below, _ = simulate_probes(TRUTH, 4096, 200)
        ratio = ratio_of_means(above, below)
        low, high = bootstrap_interval(above, below, n_draws=4000)
        width = ratio.upper - ratio.lower
        assert low == pytest.approx(ratio.lower, abs=0.15 * width)
        assert high == pytest.approx(ratio.upper, abs=0.15 * width)
        assert bootstrap_interval(above, below) == bootstrap_interval(above, below)

    @given(st.integers(0, 2**31), st.floats(0.01, 100), st.floats(0.5, 0.99))
    def test_scaling_the_numerator_scales_the_interval(self, seed, scale, ci_prob):
        above, below, _ = simulate_probes(100, 64, 10, random_seed=seed)
        one, other = (ratio_of_means(above * k, below, ci_prob) for k in (1, scale))
        assert one.status == other.status
        np.testing.assert_allclose(np.array(other[:3]), np.array(one[:3]) * scale, rtol=1e-6)
        if one.status == "resolved":
            assert one.lower <= one.estimate <= one.upper

    @given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.01, 4), st.floats(0.01, 4),
           st.floats(-0.99, 0.99), st.floats(0, 20))
    def test_the_interval_is_the_set_that_is_not_rejected(self, x, y, sx, sy, rho, theta):
        covariance = np.array([[sx * sx, rho * sx * sy], [rho * sx * sy, sy * sy]])
        lower, upper = fieller(x, y, covariance, 1.645)
        away = (x - theta * y) ** 2 - 1.645**2 * (
            sx * sx - 2 * theta * rho * sx * sy + theta**2 * sy * sy)
        if lower + 1e-6 < theta < upper - 1e-6 and lower > 0 and y > 0:
            assert away <= 1e-9
        elif y > 0 and (theta < lower - 1e-6 or theta > upper + 1e-6):
            assert away >= -1e-9


class TestNotResolved:
    def test_a_denominator_around_zero_gives_a_bound_and_no_number(self):
        rng = np.random.default_rng(0)
        below = rng.normal(0, 1, 40)
        ratio = ratio_of_means(rng.normal(100, 1, 40), below - below.mean())
        assert ratio.status == "not_resolved"
        assert math.isnan(ratio.estimate)
        assert ratio.lower > 100
        assert ratio.upper == math.inf

    def test_a_negative_denominator_is_no_negative_noise_scale(self):
        rng = np.random.default_rng(1)
        ratio = ratio_of_means(rng.normal(100, 1, 40), rng.normal(-5, 1, 40))
        assert ratio[1:] == (0.0, math.inf, "not_resolved")

    def test_two_averages_around_zero_say_nothing(self):
        rng = np.random.default_rng(2)
        above, below = rng.normal(0, 1, (2, 9))
        ratio = ratio_of_means(above - above.mean(), below - below.mean())
        assert ratio[1:] == (0.0, math.inf, "not_resolved")

    def test_three_probes_are_too_few(self):
        table = noise_scales(simulated_sweep(n_probes=3), n_windows=1)
        assert set(table["status"]) == {"too_few"}
        assert table["estimate"].isna().all()
        assert table["bootstrap_lower"].isna().all()

    def test_a_short_window_far_below_the_noise_scale(self):
        table = noise_scales(simulated_sweep(n_probes=5, seed=4), n_windows=1)
        row = pick(table, "B_simple")
        assert row["status"] == "not_resolved"
        assert math.isnan(row["estimate"])
        assert 0 < row["ci_lower"] < TRUTH < row["ci_upper"] == math.inf
        assert pick(table, "B_naive")["status"] == "resolved"  # and wrong
        assert pick(table, "B_naive")["estimate"] < BATCH


class TestTable:
    def test_columns_units_and_rows(self):
        table = noise_scales(simulated_sweep(2), n_windows=3)
        assert list(table.columns) == ["run", *COLUMNS]
        assert len(table) == 2 * 3 * 2  # runs, windows, B_simple and B_naive
        assert set(table["unit"]) == {"samples"}
        row = pick(table[table["run"] == "r1"], "B_simple", window=2)
        assert (row["update_from"], row["update_to"]) == (140.0, 260.0)
        assert row["n_probes"] == 13
        assert row["n_samples"] == BATCH

    def test_parts_add_up_in_samples(self):
        rng = np.random.default_rng(5)
        logged = [probed(two_level_gradients(rng, 4.0, 3.0, 10.0, (24, 6, 30)))
                  for _ in range(30)]
        keys = {f"grad_noise/{key}": np.array([[row[key] for row in logged]])
                for key in logged[0]}
        table = noise_scales(sweep_of(keys, n_prompts=24, n_rollouts=6), n_windows=1)
        simple, between, within = (pick(table, f"B_{name}") for name in
                                   ("simple", "between", "within"))
        assert simple["estimate"] == pytest.approx(6 * between["estimate"] + within["estimate"])
        assert [row["unit"] for row in (simple, between, within)] == ["samples", "prompts",
                                                                      "rollouts"]
        assert between["estimate"] == pytest.approx(0.75, rel=0.2)
        assert within["estimate"] == pytest.approx(2.5, rel=0.1)

    def test_windows_follow_a_noise_scale_that_grows(self):
        parts = [simulate_probes(b, 1024, 30, random_seed=i)
                 for i, b in enumerate((100, 400, 1600))]
        above, below, _ = (np.concatenate(part)[None] for part in zip(*parts, strict=True))
        table = noise_scales(sweep_of({"grad_noise/tr_sigma": above, "grad_noise/g_sq": below}),
                             n_windows=3)
        estimates = table.loc[table["quantity"] == "B_simple", "estimate"]
        np.testing.assert_allclose(estimates, [100, 400, 1600], rtol=0.15)

    def test_seeds_of_a_cell_are_pooled(self):
        sweep = simulated_sweep(4, 10, n_prompts=[32, 32, 64, 64], seed=6)
        table = noise_scales(sweep, by=("n_prompts", "n_rollouts"), n_windows=1)
        assert list(table.columns[:2]) == ["n_prompts", "n_rollouts"]
        assert table[["n_prompts", "n_probes"]].drop_duplicates().to_numpy().tolist() == [
            [32, 20], [64, 20]]

    def test_numerator_and_denominator_are_averaged_separately(self):
        sums = {"grad_noise/tr_sigma": np.array([[10.0, 20, 30, 40]]),
                "grad_noise/g_sq": np.array([[10.0, 1, 1, 8]])}
        row = pick(noise_scales(sweep_of(sums), n_windows=1, ci_prob=0.5), "B_simple")
        assert row["estimate"] == pytest.approx(100 / 20)  # not the mean ratio, 14
        assert (row["numerator"], row["denominator"]) == (25, 5)

    def test_probes_without_a_value_are_skipped(self):
        sweep = simulated_sweep(1, 20)
        sweep["noise_tr_sigma"].values[0, :5] = np.nan
        assert pick(noise_scales(sweep, n_windows=1), "B_simple")["n_probes"] == 15

    def test_unusable_runs_are_left_out(self):
        assert set(probes_of(simulated_sweep(2, 5, usable=[1, 0]))["run"]) == {"r0"}

    def test_the_unbiased_signal_is_derived_where_it_was_not_logged(self):
        full = simulated_sweep(1, 20)
        derived = probes_of(full.drop_vars("noise_g_sq"))
        np.testing.assert_allclose(derived["g_sq"], probes_of(full)["g_sq"])

    def test_more_windows_than_probes(self):
        assert noise_scales(simulated_sweep(1, 2), n_windows=9)["window"].max() == 2


class TestSources:
    @pytest.mark.parametrize("prefix", ["", "actor/"])
    def test_from_a_file_as_verl_writes_it(self, tmp_path, prefix):
        above, below, _ = simulate_probes(50, 512, 12)
        lines = [{"step": 0, "data": {"val-core/openai/gsm8k/acc/mean@1": 0.1}}]
        for i in range(12):
            lines.append({"step": i + 1, "data": {
                "training/global_step": i + 1, "val-core/openai/gsm8k/acc/mean@1": 0.2,
                f"{prefix}grad_noise/tr_sigma": above[i], f"{prefix}grad_noise/g_sq": below[i]}})
        (tmp_path / "cbs_p1_m_d_np64_nr8.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines))
        sweep = ingest([str(tmp_path)])
        row = pick(noise_scales(sweep, n_windows=1), "B_simple")
        assert row["estimate"] == pytest.approx(above.mean() / below.mean())
        assert (row["update_from"], row["update_to"]) == (1, 12)

    def test_a_sweep_without_probes(self):
        with pytest.raises(CBSDataError, match="no gradient noise was logged"):
            noise_scales(sweep_without_noise())

    def test_ratios_alone_are_not_enough(self):
        sweep = sweep_of({"grad_noise/B_noise_estimate": np.ones((1, 5))})
        with pytest.raises(CBSDataError, match="noise_B_noise_estimate but no probe with tr_sigma"):
            noise_scales(sweep)

    @pytest.mark.parametrize(("arguments", "message"), [
        ({"n_windows": 0}, "n_windows is 0"), ({"ci_prob": 1.0}, "ci_prob is 1"),
        ({"by": ("colour",)}, r"cannot group by \['colour'\]"), ({"by": ()}, "group by nothing"),
    ])
    def test_arguments_out_of_range(self, arguments, message):
        with pytest.raises(CBSDataError, match=message):
            noise_scales(simulated_sweep(1, 5), **arguments)


def sweep_without_noise():
    return new_sweep({"run": ["a"], "n_prompts": 8, "n_rollouts": 8},
                     accuracy=[[[0.1, 0.2]]], step=[0, 10], metric=["m"])


class TestFigure:
    @pytest.fixture(autouse=True)
    def _no_pyplot(self):
        with detached():
            yield
        plt.close("all")

    def drawn(self, ax, gid):
        (line,) = [line for line in ax.lines if line.get_gid() == gid]
        return line.get_xdata(), line.get_ydata()

    def test_the_naive_ratio_follows_the_batch_and_ours_the_truth(self):
        ax = plots.plot_noise_bias()
        batches, naive = self.drawn(ax, "naive")
        assert (naive < batches).all()
        np.testing.assert_allclose(naive, naive_expectation(TRUTH, batches), rtol=0.15)
        at, ours = self.drawn(ax, "ours")
        np.testing.assert_allclose(ours[at >= 1024], TRUTH, rtol=0.2)
        _, bound = self.drawn(ax, "bound")
        assert (bound < TRUTH).all()
