"""Clip fraction and KL from verl's own log lines into the sweep, where updates are off-policy."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cbsbayes.logs.verl_jsonl import read_verl_jsonl
from cbsbayes.sweep.files import read_sweep, write_sweep
from cbsbayes.sweep.from_logs import build_sweep
from cbsbayes.sweep.merge import merge

KEY = "val-core/openai/gsm8k/acc/mean@1"


def write_log(folder, epochs, clipped):
    """Write a run's log as verl's file logger does, with its configuration beside it."""
    config = {"data": {"train_batch_size": 64}, "actor_rollout_ref": {
        "rollout": {"n": 8}, "actor": {"ppo_mini_batch_size": 64, "ppo_epochs": epochs}}}
    lines = [{"step": step, "data": {KEY: 0.1 + 0.1 * step, "actor/pg_clipfrac": clipped * step,
                                     "actor/ppo_kl": 0.001, "actor/pg_loss": 0.0}}
             for step in (1, 2, 3)]
    path = folder / f"cbs_p3_m_d_np64_nr8_k{epochs}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / f"{path.stem}.config.yaml").write_text(json.dumps(config))  # JSON is YAML
    return read_verl_jsonl(path, folder)


def sweep_of(folder, *runs):
    return build_sweep([write_log(folder, epochs, clipped) for epochs, clipped in runs])


def test_means_over_training_are_kept(tmp_path):
    ds = sweep_of(tmp_path, (1, 0.0), (4, 0.02))
    by_reuse = dict(zip(ds["ppo_epochs"].values.tolist(), ds["clip_fraction"].values.tolist(),
                        strict=True))
    assert by_reuse == {1: 0.0, 4: pytest.approx(0.04)}
    assert ds["policy_kl"].values.tolist() == pytest.approx([0.001, 0.001])
    assert "reference_kl" not in ds
    again = read_sweep(write_sweep(ds, tmp_path / "sweep.nc"))
    np.testing.assert_array_equal(again["clip_fraction"], ds["clip_fraction"])


def test_a_sweep_of_single_updates_holds_none(tmp_path):
    assert "clip_fraction" not in sweep_of(tmp_path, (1, 0.0))


def test_sweeps_with_and_without_are_merged(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    both = merge([sweep_of(tmp_path / "a", (1, 0.0)), sweep_of(tmp_path / "b", (4, 0.02))])
    assert np.isnan(both["clip_fraction"].values[both["ppo_epochs"].values == 1]).all()
    assert np.isfinite(both["clip_fraction"].values[both["ppo_epochs"].values == 4]).all()
