"""The validation metric, chosen by rule and never by the order of columns; facts of training."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.detect import read_source
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
    plan = choose_metric(columns, metric)
    return plan.default, {s.label: s.keys for s in plan.series}


def test_gsm8k_before_math():
    default, series = kept({"a": [MATH, GSM], "b": [GSM, MATH]})
    assert default == "openai/gsm8k"
    assert list(series) == ["lighteval/MATH", "openai/gsm8k"]


def test_the_choice_is_told():
    notes = choose_metric({"a": [MATH, GSM]}).notes
    assert notes == ("the default metric is openai/gsm8k, of 2 kept: lighteval/MATH, openai/gsm8k",)


def test_the_only_one_that_all_have():
    assert kept({"a": [AIME, OLYMPIAD], "b": [AIME]})[0] == "aime24"


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


@pytest.mark.parametrize(("metric", "label"), [
    (AIME, "aime24"), (AIME.replace("@", "_at_"), "aime24"), ("aime24", "aime24"),
    ("AIME", "aime24"), ("gsm", "openai/gsm8k"), ("openai/gsm8k", "openai/gsm8k"),
])
def test_the_user_names_one(metric, label):
    assert kept({"a": [GSM, AIME], "b": [GSM]}, metric)[0] == label


def test_any_column_may_be_named_by_its_key():
    default, series = kept({"a": [GSM, "critic/score/mean"]}, "critic/score/mean")
    assert default == "critic/score/mean"
    assert series["critic/score/mean"] == ("critic/score/mean",)


def test_a_named_key_stands_for_itself_only():
    four = GSM.replace("@1", "@4")
    assert kept({"a": [GSM], "b": [four]}, four)[1] == {"openai/gsm8k": (four,)}


@pytest.mark.parametrize(("metric", "message"), [
    ("humaneval", "is no validation metric; candidates: lighteval/MATH .1 run., openai/gsm8k"),
    ("a", "fits 2 validation metrics"),
])
def test_a_name_that_fits_none_or_several(metric, message):
    with pytest.raises(CBSDataError, match=message):
        choose_metric({"a": [GSM, MATH]}, metric)


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
    four = GSM.replace("@1", "@4")
    plan = choose_metric({"a": [GSM], "b": [four], "c": [four]})
    assert plan.series[0].keys == (four, GSM)
    assert plan.notes == ("openai/gsm8k: most runs validate with mean@4, these otherwise: "
                          "a (mean@1); the same accuracy is measured with other noise",)


def test_keys_of_old_verl():
    assert kept({"a": ["val/test_score/openai/gsm8k"]})[0] == "openai/gsm8k"


@given(st.permutations([GSM, MATH, AIME, GSM.replace("@1", "@4"), "actor/lr"]), st.booleans())
def test_the_order_of_columns_does_not_matter(columns, swap):
    runs = {"a": columns, "b": columns[::-1]}
    plan = choose_metric(dict(reversed(runs.items())) if swap else runs)
    assert plan == choose_metric({"a": sorted(columns), "b": sorted(columns)})


def test_values_of_a_series():
    four = GSM.replace("@1", "@4")
    history = pd.DataFrame({GSM: [0.1, 0.2, np.nan, 0.4], four: [np.nan, 0.25, np.nan, 0.45]},
                           index=pd.Index([0.0, 5.0, 7.0, 10.0], name="step"))
    series = choose_metric({"a": [GSM, four]}).series[0]
    steps, values = series_values(history, series)
    assert steps.tolist() == [0, 5, 10]
    assert values.tolist() == [0.1, 0.25, 0.45]


def test_a_core_score_of_repeated_prompts_gives_way_to_that_of_all():
    """verl 0.4 and 0.5: mean@3 covers the prompts that come three times, mean@1 the others."""
    core, aux = "val-core/count/reward/mean@3", "val-aux/count/reward/mean@1"
    plan = choose_metric({"a": [core, aux, "val-aux/count/reward/mean@2"]})
    assert plan.series[0].keys == (aux,)
    assert "mean@3 covers only prompts that come 3 times" in plan.notes[0]
    assert kept({"a": [core]})[1] == {"count": (core,)}


FORK = ["val/em/nq", "val/utility/nq", "val/search_count/nq", "actor/lr", "val/em/nq/std"]


@pytest.mark.parametrize(("metric", "key"), [("em", "val/em/nq"), ("utility", "val/utility/nq"),
                                             ("val/em/nq", "val/em/nq"), ("lr", "actor/lr")])
def test_a_part_of_another_trainers_key_is_enough(metric, key):
    assert kept({"a": FORK}, metric)[0] == key


def test_other_trainers_columns_are_listed_validation_first():
    with pytest.raises(CBSDataError, match="found: val/em/nq, val/utility/nq, val/em/nq/std"):
        choose_metric({"a": FORK})
    with pytest.raises(CBSDataError, match="'nq' fits 2 columns: val/em/nq, val/utility/nq; give"):
        choose_metric({"a": FORK}, "nq")
    assert kept({"a": ["eval/acc", "eval/loss", "eval_runtime", "train/reward"]})[0] == "eval/acc"


# facts of training


def logged(**columns):
    names = {key.replace("__", "/"): values for key, values in columns.items()}
    length = len(next(iter(names.values())))
    return pd.DataFrame(names, index=pd.Index(np.arange(1.0, length + 1), name="step"))


def test_the_first_step_is_left_out():
    assert step_seconds(logged(perf__time_per_step=[60.0, 2.0, 3.0, 4.0])) == 3


def test_the_first_step_with_a_duration_is_the_first():
    assert step_seconds(logged(perf__time_per_step=[np.nan, 60.0, 3.0])) == 3


def test_timing_stands_in():
    assert step_seconds(logged(timing_s__step=[9.0, 5.0, 5.0])) == 5


def test_checkpoints_and_validations_are_left_out():
    seconds = [60.0, 5, 5, 45, 5, 105, 45]
    log = logged(perf__time_per_step=seconds,
                  timing_s__save_checkpoint=[np.nan] * 5 + [60, np.nan],
                  timing_s__testing=[np.nan, np.nan, np.nan, 40, np.nan, 40, 40])
    assert step_seconds(log) == 5


@pytest.mark.parametrize("inside", [40.0, 0.0])
def test_validation_at_every_step(inside):
    log = logged(perf__time_per_step=[60.0, *[5.0 + inside] * 3], timing_s__testing=[40.0] * 4,
                  timing_s__gen=[3.0] * 4, timing_s__update_actor=[2.0] * 4)
    assert step_seconds(log) == 5


@pytest.mark.parametrize("log", [
    logged(perf__time_per_step=[60.0]), logged(actor__lr=[1.0, 1.0]),
    logged(perf__time_per_step=[np.nan, np.nan]), logged(perf__time_per_step=[0.0, -1.0, np.inf]),
])
def test_unknown(log):
    assert np.isnan(step_seconds(log))


def test_signal_fraction():
    assert signal_fraction(logged(train__signal_fraction=[0.2, np.nan, 0.4])) == pytest.approx(0.3)
    assert signal_fraction(logged(frac_zero_adv=[0.2, 0.4])) == pytest.approx(0.7)
    assert np.isnan(signal_fraction(logged(actor__lr=[1.0])))


def test_both_signals_prefer_the_one_that_says_it():
    assert signal_fraction(logged(frac_zero_adv=[0.9], signal_fraction=[0.5])) == 0.5
    assert signal_fraction(logged(frac_zero_adv=[0.9], signal_fraction=[np.nan])) == (
        pytest.approx(0.1))


def test_genuine_log(public_data):
    folder = public_data / "verl_logs"
    history = read_source(str(folder / "long.jsonl"))[0][0].history
    seconds = history["timing_s/step"].dropna()
    assert seconds.iloc[1:].min() < step_seconds(history) < seconds.iloc[0]
