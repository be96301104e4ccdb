"""The law that the varied axes and the estimator allow."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.models.law_choice import choose_law
from cbsbayes.models.laws import get_law
from cbsbayes.sweep.dataset import new_sweep


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
    with pytest.raises(CBSDataError, match="unknown law 'linear'"):
        choose_law(sweep(*BOTH), "linear")


def test_one_axis_and_two_axes_in_one_group_are_refused():
    mixed = sweep([16, 32, -1], [8, 8, -1], total_batch=[128.0, 256.0, 512.0])
    with pytest.raises(CBSDataError, match=r"1 of 3 runs state only total_batch.*fit them apart"):
        choose_law(mixed)
