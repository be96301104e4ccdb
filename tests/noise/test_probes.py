"""Measured noise scales: known truths come back, with their units, or are not resolved."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from probe_truth import simulate_probes

from cbsbayes.errors import CBSDataError
from cbsbayes.ingest import ingest
from cbsbayes.noise.probes import (
    COLUMNS,
    fieller,
    noise_scales,
    probes_of,
    ratio_of_means,
)
from cbsbayes.probe.estimators import HalfSums, split_estimates
from cbsbayes.sweep.dataset import new_sweep

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
    (row,) = table[(table["quantity"] == quantity) & (table["window"] == window)].to_dict("records")
    return row


def probed(rng, signal, between, within, shape):
    """Do to gradients (prompt, rollout, direction) of known traces what verl's probe does."""
    n_prompts, n_rollouts, n_dims = shape
    prompt = rng.normal(scale=math.sqrt(between / n_dims), size=(n_prompts, 1, n_dims))
    gradients = (math.sqrt(signal / n_dims) + prompt
                 + rng.normal(scale=math.sqrt(within / n_dims), size=shape))
    half = n_rollouts // 2
    parts = np.stack([gradients[:, :half].sum(axis=1), gradients[:, half:].sum(axis=1)], axis=1)
    total = gradients.sum(axis=(0, 1))
    sums = HalfSums(np.ones(n_prompts), np.square(parts).sum(axis=2),
                    (parts[:, 0] * parts[:, 1]).sum(axis=1), float(total @ total),
                    (half, n_rollouts - half))
    return split_estimates(sums) | {"n_samples": n_prompts * n_rollouts}


class TestNaiveFormula:
    def test_a_noise_scale_of_4096_reads_243_from_256_samples(self):
        above, below, biased = simulate_probes(TRUTH, BATCH, 20_000)
        assert np.mean(above / biased) == pytest.approx(243, abs=2)  # ratio of every probe
        assert above.mean() / biased.mean() == pytest.approx(241, abs=2)
        assert np.mean(below < 0) == pytest.approx(0.30, abs=0.01)
        assert above.mean() / below.mean() == pytest.approx(TRUTH, rel=0.05)


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
        logged = [[probed(rng, signal, between, within, (16, 8, 40)) for _ in range(n_probes)]
                  for _ in range(n_sets)]
        keys = {f"actor/grad_noise/{key}": np.array([[row[key] for row in run] for run in logged])
                for key in logged[0][0]}
        table = noise_scales(sweep_of(keys), n_windows=1)
        for quantity, truth in truths.items():
            rows = table[table["quantity"] == quantity]
            covered = rows["ci_lower"].le(truth) & rows["ci_upper"].ge(truth)
            assert len(rows) == n_sets
            assert covered.mean() > 0.79  # binomial, 3.3 standard errors below .9

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

    @pytest.mark.parametrize(("above", "below", "lower"), [(100, 0, 100), (100, -5, 0), (0, 0, 0)])
    def test_a_denominator_not_above_zero_gives_a_bound_at_most(self, above, below, lower):
        noise = np.random.default_rng(0).normal(size=(2, 40))
        noise -= noise.mean(axis=1, keepdims=True)
        ratio = ratio_of_means(above + noise[0], below + noise[1])
        assert (ratio.status, ratio.upper) == ("not_resolved", math.inf)
        assert math.isnan(ratio.estimate)
        assert ratio.lower > lower if (above, below) == (100, 0) else ratio.lower == 0


class TestTable:
    def test_columns_units_and_rows(self):
        table = noise_scales(simulated_sweep(2), n_windows=3)
        assert list(table.columns) == ["run", *COLUMNS]
        assert len(table) == 2 * 3 * 2  # runs, windows, B_simple and B_naive
        assert set(table["unit"]) == {"samples"}
        row = pick(table[table["run"] == "r1"], "B_simple", window=2)
        assert (row["update_from"], row["update_to"]) == (140.0, 260.0)
        assert (row["n_probes"], row["n_samples"]) == (13, BATCH)
        assert noise_scales(simulated_sweep(1, 2), n_windows=9)["window"].max() == 2

    def test_parts_add_up_in_samples(self):
        rng = np.random.default_rng(5)
        logged = [probed(rng, 4.0, 3.0, 10.0, (24, 6, 30)) for _ in range(30)]
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

    def test_seeds_of_a_batch_are_pooled(self):
        sweep = simulated_sweep(4, 10, n_prompts=[32, 32, 64, 64], seed=6)
        table = noise_scales(sweep, by=("n_prompts", "n_rollouts"), n_windows=1)
        assert list(table.columns[:2]) == ["n_prompts", "n_rollouts"]
        assert table[["n_prompts", "n_probes"]].drop_duplicates().to_numpy().tolist() == [
            [32, 20], [64, 20]]

    def test_numerator_and_denominator_are_averaged_separately(self):
        sums = {"grad_noise/tr_sigma": np.array([[10.0, 20, 30, 40, np.nan]]),
                "grad_noise/g_sq": np.array([[10.0, 1, 1, 8, 5]])}
        row = pick(noise_scales(sweep_of(sums), n_windows=1, ci_prob=0.5), "B_simple")
        assert row["estimate"] == pytest.approx(100 / 20)  # not the mean ratio, 14
        assert (row["numerator"], row["denominator"], row["n_probes"]) == (25, 5, 4)

    @pytest.mark.parametrize(("n_probes", "status"), [(3, "too_few"), (5, "not_resolved")])
    def test_a_short_window_far_below_the_noise_scale(self, n_probes, status):
        table = noise_scales(simulated_sweep(n_probes=n_probes, seed=4), n_windows=1)
        row = pick(table, "B_simple")
        assert row["status"] == status
        assert math.isnan(row["estimate"])
        assert row["ci_lower"] < TRUTH < row["ci_upper"] == math.inf
        if status == "not_resolved":
            assert pick(table, "B_naive")["estimate"] < BATCH  # resolved, and wrong

    def test_probes_of_usable_runs_with_the_unbiased_signal_derived_where_not_logged(self):
        assert set(probes_of(simulated_sweep(2, 5, usable=[1, 0]))["run"]) == {"r0"}
        full = simulated_sweep(1, 20)
        derived = probes_of(full.drop_vars("noise_g_sq"))
        np.testing.assert_allclose(derived["g_sq"], probes_of(full)["g_sq"])

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
        row = pick(noise_scales(ingest([str(tmp_path)]), n_windows=1), "B_simple")
        assert row["estimate"] == pytest.approx(above.mean() / below.mean())
        assert (row["update_from"], row["update_to"]) == (1, 12)


def test_what_cannot_be_measured_is_refused():
    bare = new_sweep({"run": ["a"], "n_prompts": 8, "n_rollouts": 8},
                     accuracy=[[[0.1, 0.2]]], step=[0, 10], metric=["m"])
    with pytest.raises(CBSDataError, match="no gradient noise was logged"):
        noise_scales(bare)
    ratios = sweep_of({"grad_noise/B_noise_estimate": np.ones((1, 5))})
    with pytest.raises(CBSDataError, match="noise_B_noise_estimate but no probe with tr_sigma"):
        noise_scales(ratios)
    for arguments, message in (
            ({"n_windows": 0}, "n_windows is 0"), ({"ci_prob": 1.0}, "ci_prob is 1"),
            ({"by": ("colour",)}, r"cannot group by \['colour'\]"), ({"by": ()}, "by nothing")):
        with pytest.raises(CBSDataError, match=message):
            noise_scales(simulated_sweep(1, 5), **arguments)
