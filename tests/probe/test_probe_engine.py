"""The probe in verl's own FSDP2 engine on CPU: exact against plain autograd, alike on two ranks.

verl's engine runs in processes of its own (`one_rank.py`): one alone, and two over gloo with
prompt groups that straddle them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cbsbayes.probe.plan import Row, make_plan

if any(importlib.util.find_spec(name) is None for name in ("torch", "verl", "ray")):
    pytest.skip("the probe runs inside verl (extra: training)", allow_module_level=True)

SCRIPT = Path(__file__).with_name("one_rank.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory, root):
    """Run the engine on one rank and on two; return each rank's results."""
    folder = tmp_path_factory.mktemp("engine")
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-m", "training.cpu.assets", "-o", folder / "assets", "--steps",
                    "0", "--n-train", "8", "--n-validation", "8"],
                   env=environment, check=True, capture_output=True, timeout=900)
    model = str(folder / "assets" / "tiny")
    for world in (1, 2):
        port = str(free_port())
        processes = [subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), model, str(rank), str(world), port],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for rank in range(world)]
        outputs = [process.communicate(timeout=900)[0] for process in processes]
        for process, output in zip(processes, outputs, strict=True):
            assert process.returncode == 0, output[-3000:]
    return {(rank, world): dict(np.load(folder / f"rank{rank}of{world}.npz"))
            for rank, world in ((0, 1), (0, 2), (1, 2))}


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def statistics(results, name):
    metrics = json.loads(str(results[name]))
    return {key.removeprefix("grad_noise/"): value for key, value in metrics.items()
            if key != "grad_noise/seconds"}


def test_a_probe_changes_nothing(found):
    for results in found.values():
        assert results["unchanged"], "parameters must be bit-identical"
        assert results["random_state_kept"]
        assert results["gradients_cleared"]
        assert results["moved"], "verl's own update must follow"


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean"])
def test_weighted_parts_recombine_to_the_full_gradient(found, mode):
    for results in found.values():
        full = results[f"full {mode}"]
        np.testing.assert_allclose(results[f"parts {mode}"], full, atol=1e-6 * np.abs(full).max())


def test_statistics_equal_explicit_autograd_of_every_rollout(found):
    results = found[0, 1]
    rows = [Row(**row) for row in json.loads(str(results["rows"]))[0]]
    order, tokens = results["order"], sum(row.weight for row in rows)
    x = results["explicit"][order].astype(np.float64) * len(rows) / tokens  # mean x = gradient
    plan = make_plan([rows], update=0, unit=1)
    halves = [[x[half.rows[0]].mean(0) for half in unit.halves] for unit in plan.units]
    groups = np.array([x[[*unit.halves[0].rows[0], *unit.halves[1].rows[0]]].mean(0)
                       for unit in plan.units])
    n, rollouts = len(groups), sum(plan.half_rollouts)
    g_sq = np.mean([groups[p] @ groups[q] for p in range(n) for q in range(n) if p != q])
    variance = (groups**2).sum(1).mean() - g_sq
    within = np.mean([((a - b) ** 2).sum() for a, b in halves])
    within /= sum(1 / r for r in plan.half_rollouts)
    expected = {"gbar_sq": (x.mean(0) ** 2).sum(), "g_sq": g_sq, "tr_sigma": rollouts * variance,
                "tr_within": within, "tr_between": variance - within / rollouts}
    measured = statistics(results, "unit1")
    assert {key: measured[key] for key in expected} == pytest.approx(expected, rel=1e-4)


def test_counts_say_what_was_probed(found):
    whole, capped = (statistics(found[0, 1], name) for name in ("unit1", "capped"))
    counts = {"n_prompts": 6, "n_rollouts": 5, "n_samples": 30, "n_units": 6, "groups": 6,
              "groups_left_out": 0, "groups_zero_advantage": 1, "frac_zero_adv": 1 / 6}
    assert {key: whole[key] for key in counts} == counts
    assert (capped["n_prompts"], capped["n_samples"], capped["groups"]) == (3, 15, 6)
    assert "micro/g_sq" in whole
    assert "micro/g_sq" not in capped  # K = 0


def test_two_ranks_measure_what_one_does(found):
    alone = statistics(found[0, 1], "unit1")
    for rank in (0, 1):
        assert statistics(found[rank, 2], "unit1") == pytest.approx(alone, rel=1e-5)


def test_units_of_one_group_per_rank_keep_the_total(found):
    alone, two = statistics(found[0, 1], "auto"), statistics(found[0, 2], "auto")
    assert (alone["n_units"], two["n_units"]) == (6, 3)
    assert two["gbar_sq"] == pytest.approx(alone["gbar_sq"], rel=1e-5)
    assert two["g_sq"] == pytest.approx(two["micro/g_sq"], rel=1e-5)  # K = 3 units = micro-batches
    assert two == statistics(found[1, 2], "auto")


@pytest.mark.parametrize("other", ["padded", "dynamic"])
def test_the_padded_layout_of_the_v0_trainer_and_dynamic_batches_give_the_same(found, other):
    for results in found.values():
        assert statistics(results, other) == pytest.approx(statistics(results, "unit1"),
                                                           rel=1e-5)


def test_the_probe_is_logged_every_m_updates_as_lists(found):
    for results in found.values():
        first, second, third = json.loads(str(results["updates"]))
        assert set(second) == {"grad_norm"}
        assert set(first) == set(third) > {"grad_noise/g_sq", "grad_noise/tr_within"}
        assert all(isinstance(v, list) for k, v in first.items() if k != "grad_norm")
        for row in (first, third):
            assert row["grad_noise/gbar_sq"][0] == pytest.approx(row["grad_norm"] ** 2, rel=1e-4)
