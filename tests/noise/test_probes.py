"""Probes that runs logged: known truths come back from their sums, with their units."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from probe_truth import simulate_probes

from cbsbayes.errors import CBSDataError
from cbsbayes.ingest import ingest
from cbsbayes.noise.probes import probes_of
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


class TestSums:
    def test_prompt_and_rollout_parts_are_unbiased_and_add_up(self):
        signal, between, within = 4.0, 3.0, 10.0
        rng = np.random.default_rng(5)
        logged = [probed(rng, signal, between, within, (24, 6, 30)) for _ in range(200)]
        keys = {f"actor/grad_noise/{key}": np.array([[row[key] for row in logged]])
                for key in logged[0]}
        probes = probes_of(sweep_of(keys, n_prompts=24, n_rollouts=6))
        mean = probes[["tr_between", "tr_within", "g_sq"]].mean()
        error = probes[mean.index].std() / np.sqrt(len(probes))
        assert (abs(mean - [between, within, signal]) < 4 * error).all()
        np.testing.assert_allclose(probes["tr_sigma"],
                                   6 * probes["tr_between"] + probes["tr_within"])

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
        probes = probes_of(ingest([str(tmp_path)]))
        np.testing.assert_allclose(probes[["tr_sigma", "g_sq"]], np.column_stack([above, below]))
        assert probes["update"].tolist() == list(range(1, 13))


def test_what_cannot_be_measured_is_refused():
    bare = new_sweep({"run": ["a"], "n_prompts": 8, "n_rollouts": 8},
                     accuracy=[[[0.1, 0.2]]], step=[0, 10], metric=["m"])
    with pytest.raises(CBSDataError, match="no gradient noise was logged"):
        probes_of(bare)
    ratios = sweep_of({"grad_noise/B_noise_estimate": np.ones((1, 5))})
    with pytest.raises(CBSDataError, match="noise_B_noise_estimate but no probe with tr_sigma"):
        probes_of(ratios)
