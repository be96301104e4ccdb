"""Metric keys: every logger's spelling comes out as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.logs.keys import Score, canonical_key, read_score, validation_columns, validation_key

parts = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=8)
sources = st.lists(parts, min_size=1, max_size=3).map("/".join)
counted = st.builds(
    "{}@{}".format, st.sampled_from(["mean", "std", "best", "worst", "maj"]), st.integers(1, 4096)
)


@pytest.mark.parametrize(
    ("logged", "canonical"),
    [
        ("val-core/openai/gsm8k/acc/mean@1", "val-core/openai/gsm8k/acc/mean@1"),
        ("val-core/openai/gsm8k/acc/mean_at_1", "val-core/openai/gsm8k/acc/mean@1"),
        ("val-core/openai/gsm8k/acc/mean_1", "val-core/openai/gsm8k/acc/mean@1"),
        ("val-aux/math/reward/best_at_16/mean", "val-aux/math/reward/best@16/mean"),
        ("val-core/math/acc/maj_8/std", "val-core/math/acc/maj@8/std"),
        ("actor/grad_noise/prompt/tr_sigma", "grad_noise/prompt/tr_sigma"),
        ("grad_noise/S_min", "grad_noise/S_min"),
        ("actor/grad_norm", "actor/grad_norm"),
        ("val-aux/num_turns/mean", "val-aux/num_turns/mean"),
        ("response_length/mean_1", "response_length/mean_1"),
        ("val-core/set_mean_1/acc/mean@1", "val-core/set_mean_1/acc/mean@1"),
        ("val-core/a\ud800/acc/mean_1", r"val-core/a\ud800/acc/mean@1"),
    ],
)
def test_canonical_spelling(logged, canonical):
    assert canonical_key(logged) == canonical


@given(st.one_of(st.text(), st.builds("val-core/{}".format, st.text())))
def test_canonical_key_changes_nothing_twice(key):
    once = canonical_key(key)
    assert canonical_key(once) == once


@given(sources, parts, counted, st.sampled_from(["", "/mean", "/std"]))
def test_every_loggers_spelling_is_one_key(source, variable, statistic, tail):
    verl = validation_key(source, variable, statistic + tail)
    mlflow = validation_key(source, variable, statistic.replace("@", "_at_") + tail)
    tensorboardx = validation_key(source, variable, statistic.replace("@", "_") + tail)
    assert verl == canonical_key(verl) == canonical_key(mlflow) == canonical_key(tensorboardx)


@given(sources, parts.filter(lambda part: part != "mean"), st.sampled_from(["mean", "maj", "best"]),
       st.integers(1, 4096), st.sampled_from(["", "/mean"]))
def test_scores_are_read_from_the_right(source, variable, statistic, n, tail):
    for group in ("val-core", "val-aux"):
        key = f"{group}/{source}/{variable}/{statistic}@{n}{tail}"
        assert read_score(key) == Score(source, variable, statistic, n, key, group == "val-core")


@pytest.mark.parametrize("key", [
    "", "val-core", "val-core/", "val-core/acc/mean@1", "val-aux/num_turns/mean", "critic/x/mean@1",
    "val-core/m/acc/std@4", "val-core/m/acc/best@4/std", "val-core/m/acc/worst@4/mean"])
def test_other_keys_are_no_scores(key):
    assert read_score(key) is None


def test_other_trainers_keys_count_where_there_is_no_core_score():
    core = validation_key("m")
    assert validation_columns(["val-aux/m/acc/mean@1", core, "eval/acc"]) == [core]
    assert validation_columns(["eval/acc", "val_loss", "valuation", "actor/lr"]) == [
        "eval/acc", "val_loss"]
