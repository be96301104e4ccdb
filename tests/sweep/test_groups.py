"""Which runs are fitted together, and which are set apart."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.dataset import new_sweep
from cbsbayes.sweep.groups import (
    choose_runs,
    group_names,
    learning_rate_rule,
    of_group,
    varied_rates,
    without_baseline,
)


def sweep(n_prompts, n_rollouts, *, algorithm="grpo", total_batch=None, **columns):
    n_runs = len(n_prompts)
    runs = {"run": [f"r{k}" for k in range(n_runs)], "n_prompts": n_prompts,
            "n_rollouts": n_rollouts, "algorithm": np.broadcast_to(algorithm, n_runs), **columns}
    if total_batch is not None:
        runs["total_batch"] = total_batch
    return new_sweep(runs, accuracy=np.full((n_runs, 1, 2), 0.5), step=[0.0, 10.0], metric=["m"])


BOTH = ([16, 32, 64, 32], [8, 8, 8, 16])


def test_groups_of_one_are_set_apart_under_a_group_baseline_only():
    ds = sweep([128] * 4, [1, 2, 4, 8])
    reasons = choose_runs(ds)
    assert "group of one has no baseline" in reasons["r0"]
    assert [reasons[run] for run in ("r1", "r2", "r3")] == ["", "", ""]
    assert choose_runs(ds, group_baseline=False)["r0"] == ""
    plain = sweep([128] * 4, [1, 2, 4, 8], algorithm="reinforce_plus_plus")
    assert set(choose_runs(plain).values()) == {""}


def test_single_rollouts_stay_where_there_are_no_larger_groups():
    ds = sweep([16, 32, 64], [1, 1, 1])
    assert set(choose_runs(ds).values()) == {""}
    larger_unusable = sweep([16, 32, 64, 64], [1, 1, 1, 8], usable=[1, 1, 1, 0])
    assert list(choose_runs(larger_unusable).values())[:3] == ["", "", ""]


def test_unusable_runs_are_named_with_their_reason():
    ds = sweep([16, 32, 64], [8, 8, 8], usable=[1, 0, 0], remark=["merged", "orphan tail", ""])
    assert choose_runs(ds) == {"r0": "", "r1": "orphan tail",
                               "r2": "marked as not usable in the sweep"}


def test_an_estimator_is_known_only_if_all_runs_agree():
    assert not without_baseline(sweep(*BOTH, algorithm=["gae", "gae", "grpo", "gae"]))
    assert without_baseline(sweep(*BOTH, algorithm=["gae", "GAE", "ppo", "gae"]))
    assert not without_baseline(sweep(*BOTH, algorithm=""))


def test_groups_differ_where_settings_do():
    ds = sweep([64] * 2, [8] * 2, algorithm=["grpo", ""], model="m", dataset=["gsm8k", ""],
               learning_rate=[1e-6, np.nan], ppo_epochs=[1, 2])
    assert group_names(ds) == ["m · 2 epochs", "m · gsm8k · grpo · lr 1e-06"]
    assert group_names(sweep([64] * 2, [8] * 2, algorithm="")) == ["all runs"]


def test_groups_are_never_pooled():
    ds = sweep([16, 32, 64, 16], [8] * 4, algorithm=["grpo"] * 3 + ["rloo"])
    assert group_names(ds) == ["grpo", "rloo"]
    assert list(of_group(ds, "grpo")["run"].values) == ["r0", "r1", "r2"]
    with pytest.raises(CBSDataError, match="no group 'ppo'; the sweep's groups are: grpo"):
        of_group(ds, "ppo")


def scaled(rate, **columns):
    """Return a sweep of both axes, its learning rates a function of prompts and rollouts."""
    prompts, rollouts = (axis.ravel() for axis in np.meshgrid([16, 32, 64], [4, 8]))
    return sweep(prompts, rollouts, learning_rate=rate(prompts, rollouts), **columns)


@pytest.mark.parametrize(("rate", "axis", "exponent", "label"), [
    (lambda p, g: 1e-6 * np.sqrt(p * g / 64), "total_batch", 0.5, "grpo · lr ∝ batch^0.5"),
    (lambda p, g: 1e-6 * (p / 16), "n_prompts", 1.0, "grpo · lr ∝ prompts^1"),
    (lambda p, g: 1e-6 / g, "n_rollouts", -1.0, "grpo · lr ∝ rollouts^-1"),
])
def test_one_learning_rate_per_batch_is_a_rule_not_a_group(rate, axis, exponent, label):
    ds = scaled(rate)
    assert group_names(ds) == [label]
    rule = learning_rate_rule(ds)
    assert rule.axis == axis
    assert rule.exponent == pytest.approx(exponent, abs=1e-5)
    assert rule.standard_error < 1e-5
    assert f"^{exponent:.2f}" in rule.sentence


def test_a_rule_that_is_not_a_power_has_its_error():
    rule = learning_rate_rule(scaled(lambda p, g: 1e-6 * np.sqrt(p * g) * np.tile([1, 1.2, 1], 2)))
    assert rule.axis == "total_batch"
    assert rule.exponent == pytest.approx(0.5, abs=2 * rule.standard_error)
    assert 0.02 < rule.standard_error < 0.2
    two = sweep([16, 32], [8, 8], learning_rate=[1e-6, 2e-6])
    assert learning_rate_rule(two).standard_error is None
    assert "standard error" not in learning_rate_rule(two).sentence


def test_learning_rates_are_one_group_of_which_each_can_be_asked_for():
    both = sweep([16, 32, 64] * 2, [8] * 6, learning_rate=[1e-6] * 3 + [1e-6, 2e-6, 4e-6])
    assert learning_rate_rule(both) is None
    assert varied_rates(both).tolist() == [1e-6, 2e-6, 4e-6]
    assert group_names(both) == ["grpo · lr 1e-06 to 4e-06"]
    assert list(of_group(both, "grpo · lr 1e-06")["run"].values) == ["r0", "r1", "r2", "r3"]
    assert of_group(both, "grpo · lr 1e-06 to 4e-06").sizes["run"] == 6
    one = sweep([16, 32, 64], [8] * 3, learning_rate=[1e-6] * 3)
    assert learning_rate_rule(one) is None
    assert group_names(one) == ["grpo · lr 1e-06"]
    unknown = sweep([16, 32, 64], [8] * 3, learning_rate=[1e-6, 2e-6, np.nan])
    assert group_names(unknown) == ["grpo", "grpo · lr ∝ batch^1"]


def test_each_estimator_has_a_rule_of_its_own():
    ds = sweep([16, 32, 64] * 2, [8] * 6, algorithm=["grpo"] * 3 + ["rloo"] * 3,
               learning_rate=[1e-6, 2e-6, 4e-6] + [1e-6] * 3)
    assert group_names(ds) == ["grpo · lr ∝ batch^1", "rloo · lr 1e-06"]
