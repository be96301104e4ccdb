"""The validation metric, chosen by rule and never by the order of columns; facts of training."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.metrics import plan_metrics, series_values, signal_fraction, step_seconds

GSM = "val-core/openai/gsm8k/acc/mean@1"
MATH = "val-core/lighteval/MATH/acc/mean@1"
AIME = "val-core/aime24/acc/mean@1"
OLYMPIAD = "val-core/olympiad/acc/mean@1"


def choose_metric(columns, metric=None):
    histories = {run: pd.DataFrame(1.0, index=[0.0], columns=list(keys))
                 for run, keys in columns.items()}
    return plan_metrics(histories, metric)


def kept(columns, metric=None):
    series, default, _ = choose_metric(columns, metric)
    return default, {s.label: s.keys for s in series}


def notes_of(columns):
    return choose_metric(columns)[2]


def test_gsm8k_before_math():
    assert kept({"a": [MATH, GSM], "b": [GSM, MATH]}) == (
        "openai/gsm8k", {"lighteval/MATH": (MATH,), "openai/gsm8k": (GSM,)})
    assert notes_of({"a": [MATH, GSM]}) == [
        "the default metric is openai/gsm8k, of 2 kept: lighteval/MATH, openai/gsm8k"]


@pytest.mark.parametrize(("columns", "default"), [
    ({"a": [AIME, OLYMPIAD], "b": [AIME]}, "aime24"),  # the only one that all have
    ({"a": ["val/test_score/openai/gsm8k"]}, "openai/gsm8k"),  # a key of old verl
    ({"a": ["eval/acc", "eval/loss", "eval_runtime", "train/reward"]}, "eval/acc"),
])
def test_the_clear_one_is_taken(columns, default):
    assert kept(columns)[0] == default


@pytest.mark.parametrize("columns", [
    {"a": [AIME], "b": [OLYMPIAD]},
    {"a": [MATH], "b": [AIME]},
    {"a": [AIME, OLYMPIAD]},
    {"a": [GSM], "b": [MATH], "c": [MATH]},
    {"a": [GSM, GSM.replace("openai", "other")]},
])
def test_no_clear_metric(columns):
    with pytest.raises(CBSDataError, match=r"\(\d runs?\).*choose one with --metric"):
        choose_metric(columns)


FORK = ["val/em/nq", "val/utility/nq", "val/search_count/nq", "actor/lr", "val/em/nq/std"]
FOUR = GSM.replace("@1", "@4")


@pytest.mark.parametrize(("columns", "metric", "label", "keys"), [
    *(([GSM, AIME], named, "aime24", (AIME,))
      for named in (AIME, AIME.replace("@", "_at_"), "aime24", "AIME")),
    *(([GSM, AIME], named, "openai/gsm8k", (GSM,)) for named in ("gsm", "openai/gsm8k")),
    ([GSM, "critic/score/mean"], "critic/score/mean", "critic/score/mean", ("critic/score/mean",)),
    ([GSM, FOUR], FOUR, "openai/gsm8k", (FOUR,)),  # a key stands for itself only
    *((FORK, part, key, (key,)) for part, key in [  # a part of another trainer's key is enough
        ("em", "val/em/nq"), ("utility", "val/utility/nq"), ("val/em/nq", "val/em/nq"),
        ("lr", "actor/lr")]),
])
def test_the_user_names_one(columns, metric, label, keys):
    default, series = kept({"a": columns}, metric)
    assert (default, series[label]) == (label, keys)


@pytest.mark.parametrize(("columns", "metric", "message"), [
    ([GSM, MATH], "humaneval",
     "is no validation metric; candidates: lighteval/MATH .1 run., openai/gsm8k"),
    ([GSM, MATH], "a", "fits 2 validation metrics"),
    (FORK, "nq", "'nq' fits 2 columns: val/em/nq, val/utility/nq; give"),
    (FORK, None, "found: val/em/nq, val/utility/nq, val/em/nq/std"),  # validation first
])
def test_a_name_that_fits_none_or_several(columns, metric, message):
    with pytest.raises(CBSDataError, match=message):
        choose_metric({"a": columns}, metric)


def test_mean_before_majority_before_best():
    base = "val-core/openai/gsm8k/acc/"
    assert kept({"a": [f"{base}best@4/mean", f"{base}maj@4/mean", f"{base}mean@4"]})[1] == {
        "openai/gsm8k": (f"{base}mean@4",)}
    assert kept({"a": [f"{base}best@4/mean", f"{base}maj@4/mean"]})[1] == {
        "openai/gsm8k (maj)": (f"{base}maj@4/mean",)}
    assert kept({"a": [f"{base}best@4/mean", f"{base}best@4/std"]})[1] == {
        "openai/gsm8k (best)": (f"{base}best@4/mean",)}


def test_acc_and_reward_of_one_set_stay_apart():
    reward = "val-core/openai/gsm8k/reward/mean@1"
    default, series = kept({"a": [GSM], "b": [GSM, reward]})
    assert default == "openai/gsm8k"
    assert series == {"openai/gsm8k": (GSM,), "openai/gsm8k (reward)": (reward,)}
    assert kept({"b": [reward]})[1] == {"openai/gsm8k": (reward,)}


def test_other_numbers_of_samples_are_one_set_and_named():
    columns = {"a": [GSM], "b": [FOUR], "c": [FOUR]}
    assert kept(columns)[1] == {"openai/gsm8k": (FOUR, GSM)}
    assert notes_of(columns) == ["openai/gsm8k: most runs validate with mean@4, these otherwise: "
                                 "a (mean@1); the same accuracy is measured with other noise"]


@given(st.permutations([GSM, MATH, AIME, FOUR, "actor/lr"]), st.booleans())
def test_the_order_of_columns_does_not_matter(columns, swap):
    runs = {"a": columns, "b": columns[::-1]}
    plan = choose_metric(dict(reversed(runs.items())) if swap else runs)
    assert plan == choose_metric({"a": sorted(columns), "b": sorted(columns)})


def test_values_of_a_series():
    history = pd.DataFrame({GSM: [0.1, 0.2, np.nan, 0.4], FOUR: [np.nan, 0.25, np.nan, 0.45]},
                           index=pd.Index([0.0, 5.0, 7.0, 10.0], name="step"))
    (series,), _, _ = choose_metric({"a": [GSM, FOUR]})
    steps, values = series_values(history, series)
    assert steps.tolist() == [0, 5, 10]
    assert values.tolist() == [0.1, 0.25, 0.45]


def test_a_core_score_of_repeated_prompts_gives_way_to_that_of_all():
    """verl 0.4 and 0.5: mean@3 covers the prompts that come three times, mean@1 the others."""
    core, aux = "val-core/count/reward/mean@3", "val-aux/count/reward/mean@1"
    columns = {"a": [core, aux, "val-aux/count/reward/mean@2"]}
    assert kept(columns)[1] == {"count": (aux,)}
    assert "mean@3 covers only prompts that come 3 times" in notes_of(columns)[0]
    assert kept({"a": [core]})[1] == {"count": (core,)}


# facts of training


def logged(columns):
    length = len(next(iter(columns.values())))
    return pd.DataFrame(columns, index=pd.Index(np.arange(1.0, length + 1), name="step"))


NAN = np.nan
STEP, TESTING, GEN = "perf/time_per_step", "timing_s/testing", "timing_s/gen"


@pytest.mark.parametrize(("columns", "seconds"), [
    ({STEP: [60, 2, 3, 4]}, 3),  # the first step warms up
    ({STEP: [NAN, 60, 3]}, 3),
    ({"timing_s/step": [9, 5, 5]}, 5),
    ({STEP: [60, 5, 5, 45, 5, 105, 45], "timing_s/save_checkpoint": [NAN] * 5 + [60, NAN],
      TESTING: [NAN, NAN, NAN, 40, NAN, 40, 40]}, 5),
    *(({STEP: [60, *[5 + inside] * 3], TESTING: [40] * 4, GEN: [3] * 4,  # validation at every step
        "timing_s/update_actor": [2] * 4}, 5) for inside in (40, 0)),
    *((unknown, NAN) for unknown in [{STEP: [60]}, {"actor/lr": [1, 1]}, {STEP: [NAN, NAN]},
                                     {STEP: [0, -1, np.inf]}]),
])
def test_seconds_of_a_step(columns, seconds):
    np.testing.assert_equal(step_seconds(logged(columns).astype(float)), seconds)


@pytest.mark.parametrize(("columns", "share"), [
    ({"train/signal_fraction": [0.2, NAN, 0.4]}, 0.3), ({"frac_zero_adv": [0.2, 0.4]}, 0.7),
    ({"actor/lr": [1.0]}, NAN), ({"frac_zero_adv": [0.9], "signal_fraction": [0.5]}, 0.5),
    ({"frac_zero_adv": [0.9], "signal_fraction": [NAN]}, 0.1)])
def test_share_of_groups_with_a_signal(columns, share):
    assert signal_fraction(logged(columns)) == pytest.approx(share, nan_ok=True)
