"""Every law is one pure function, laws agree in their limits, and data choose among them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import LAWS, Tuning, choose_law, get_law
from cbsbayes.sweep.dataset import new_sweep

PROMPTS = np.array([4.0, 32.0, 128.0, 1024.0])
ROLLOUTS = np.array([64.0, 2.0, 8.0, 3.0])
VALUES = {"B_noise": 900.0, "B_prompt": 90.0, "B_rollout": 500.0}

positive = st.floats(1e-3, 1e6)


def test_the_formulas_by_hand():
    steps = {name: np.exp(law.log_ratio(100.0, 5.0, VALUES, 0.6)) for name, law in LAWS.items()}
    assert steps["total"] == pytest.approx(1 + 900 / 500)
    assert steps["power"] == pytest.approx(1 + (900 / 500) ** 0.6)
    assert steps["two_axis"] == pytest.approx(1 + (90 + 500 / 4) / 100)
    assert steps["two_axis_sqrt"] == pytest.approx((1 + (90 + 500 / 4) / 100) ** 0.5)
    assert steps["two_axis_free"] == pytest.approx((1 + (90 + 500 / 4) / 100) ** 0.6)
    assert steps["two_axis_plain"] == pytest.approx(1 + (90 + 500 / 5) / 100)
    assert steps["two_axis_sqrt_plain"] == pytest.approx((1 + (90 + 500 / 5) / 100) ** 0.5)
    assert steps["two_axis_free_plain"] == pytest.approx((1 + (90 + 500 / 5) / 100) ** 0.6)


@given(positive, st.integers(1, 4096), st.integers(2, 512), st.floats(0.25, 1.5))
def test_a_plain_law_without_prompt_noise_knows_the_total_batch_only(b, prompts, rollouts, alpha):
    plain = get_law("two_axis_plain").log_ratio(prompts, rollouts, {"B_prompt": 0.0,
                                                                    "B_rollout": b})
    total = get_law("total").log_ratio(prompts, rollouts, {"B_noise": b})
    assert plain == pytest.approx(total, rel=1e-12)
    free = get_law("two_axis_free").log_ratio(prompts, rollouts, {"B_prompt": b, "B_rollout": b},
                                              alpha)
    one = get_law("two_axis").log_ratio(prompts, rollouts, {"B_prompt": b, "B_rollout": b})
    assert free == pytest.approx(alpha * one, rel=1e-12)


@pytest.mark.parametrize("law", LAWS.values(), ids=str)
def test_a_larger_batch_never_takes_more_updates(law):
    more_prompts = law.log_ratio(np.geomspace(1, 1e5, 40), 8.0, VALUES, 0.6)
    more_rollouts = law.log_ratio(128.0, np.geomspace(2, 1e5, 40), VALUES, 0.6)
    assert (np.diff(more_prompts) < 0).all()
    assert (np.diff(more_rollouts) < 0).all()


def test_a_law_says_what_it_needs():
    assert get_law("two_axis_free").alpha is None
    assert get_law("two_axis").needs_baseline_group
    assert not get_law("two_axis_plain").needs_baseline_group
    assert not get_law("total").two_axis
    assert get_law("two_axis_plain").noise_in_prompts(1, 90.0, 500.0) == 590.0


def sweep(n_prompts, n_rollouts, *, algorithm="grpo", total_batch=None, **columns):
    n_runs = len(n_prompts)
    runs = {"run": [f"r{k}" for k in range(n_runs)], "n_prompts": n_prompts,
            "n_rollouts": n_rollouts, "algorithm": np.broadcast_to(algorithm, n_runs), **columns}
    if total_batch is not None:
        runs["total_batch"] = total_batch
    return new_sweep(runs, accuracy=np.full((n_runs, 1, 2), 0.5), step=[0.0, 10.0], metric=["m"])


def one_axis():
    return sweep([-1] * 3, [-1] * 3, total_batch=[10.0, 20.0, 40.0])


BOTH = ([16, 32, 64, 32], [8, 8, 8, 16])


@pytest.mark.parametrize(("batches", "algorithm", "law", "reason"), [
    (BOTH, "grpo", "two_axis_free", r"^Prompts and rollouts both vary: .* exponent free\.$"),
    (BOTH, "", "two_axis_free", "both vary"),
    (BOTH, "rloo", "two_axis_free", "both vary"),
    (BOTH, "reinforce_plus_plus_baseline", "two_axis_free", "both vary"),
    (BOTH, "reinforce_plus_plus", "two_axis_free_plain", "in 1/G because the estimator has no"),
    (BOTH, "gae", "two_axis_free_plain", "in 1/G"),
    (([16, 32, 64], [8] * 3), "grpo", "total", "^Only n_prompts varies: the total-batch law"),
    (([128] * 3, [4, 8, 16]), "grpo", "two_axis_free",
     "^Only n_rollouts varies: .*S_min cannot be told apart at one n_prompts; what rollouts buy"),
    (([128] * 3, [4, 8, 16]), "remax", "two_axis_free_plain", "Only n_rollouts varies.*in 1/G"),
])
def test_the_varied_axes_decide_the_law(batches, algorithm, law, reason):
    choice = choose_law(sweep(*batches, algorithm=algorithm))
    assert choice.law.name == law
    assert re.search(reason, choice.reason)


@pytest.mark.parametrize(("batches", "algorithm", "law"), [
    (BOTH, "grpo", "learning_rate"),
    (BOTH, "reinforce_plus_plus", "learning_rate_plain"),
    (([16, 32, 64, 16], [8] * 4), "grpo", "learning_rate_total"),
])
def test_a_law_knows_the_learning_rates_that_were_tried_at_one_batch(batches, algorithm, law):
    prompts, rollouts = (axis * 2 for axis in batches)
    ds = sweep(prompts, rollouts, algorithm=algorithm, learning_rate=[1e-6] * 4 + [3e-6] * 4)
    choice = choose_law(ds)
    assert choice.law.name == law
    assert "several learning rates, 1e-06 to 3e-06" in choice.reason
    with pytest.raises(CBSDataError, match="knows no learning rate, and runs of one batch have"):
        choose_law(ds, "total")
    one = sweep(*batches, algorithm=algorithm, learning_rate=[1e-6] * 4)
    assert not choose_law(one).law.learning_rate
    with pytest.raises(CBSDataError, match="needs runs of two learning rates"):
        choose_law(one, law)


def test_one_rate_for_each_batch_keeps_the_law_of_the_rates_used():
    ds = sweep(*BOTH, learning_rate=[1e-6, 2e-6, 4e-6, 4e-6])
    assert choose_law(ds).law.name == "two_axis_free"
    assert choose_law(ds, "learning_rate").law.learning_rate


def test_a_rate_off_the_best_one_costs_updates():
    law, x = LAWS["learning_rate"], np.geomspace(1e-3, 1e3, 601)
    log_noise = law.log_noise(64.0, 8.0, VALUES)
    best = -6.0 - 0.5 * log_noise
    ratio = law.log_ratio(64.0, 8.0, VALUES, 1.0,
                          Tuning(best + np.log(x), -6.0, 0.5, 2.0, 0.7))
    assert ratio[300] == pytest.approx(log_noise)
    assert ratio.argmin() == 300
    assert np.diff(ratio)[0] / np.diff(np.log(x))[0] == pytest.approx(-0.7, abs=0.01)
    assert np.diff(ratio)[-1] / np.diff(np.log(x))[0] == pytest.approx(2, abs=0.01)


def test_one_axis_data_get_a_law_of_the_total_batch():
    choice = choose_law(one_axis())
    assert choice.law.name == "total"
    assert choice.reason == "The data give total batches only: the total-batch law."
    assert choose_law(one_axis(), "power").law.name == "power"
    with pytest.raises(CBSDataError, match=r"'two_axis' needs n_prompts and .*total, pow"):
        choose_law(one_axis(), "two_axis")


def test_a_law_asked_for_is_taken():
    choice = choose_law(sweep(*BOTH), "two_axis_sqrt")
    assert choice.law is get_law("two_axis_sqrt")
    assert "asked for" in choice.reason
    with pytest.raises(CBSDataError, match=r"unknown law 'linear'; valid laws: total, power, two_"):
        choose_law(sweep(*BOTH), "linear")


def test_one_axis_and_two_axes_in_one_group_are_refused():
    mixed = sweep([16, 32, -1], [8, 8, -1], total_batch=[128.0, 256.0, 512.0])
    with pytest.raises(CBSDataError, match=r"1 of 3 runs state only total_batch.*fit them apart"):
        choose_law(mixed)
