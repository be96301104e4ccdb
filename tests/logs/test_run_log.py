"""Logged rows become one history: one spelling of every key, numbers only, one row per step."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.logs.run_log import (
    Score,
    canonical_key,
    history_from_rows,
    read_score,
    to_number,
    validation_columns,
    validation_key,
)

parts = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=8)
sources = st.lists(parts, min_size=1, max_size=3).map("/".join)


@pytest.mark.parametrize(("logged", "canonical"), [
    *((f"val-core/openai/gsm8k/acc/mean{at}1", "val-core/openai/gsm8k/acc/mean@1")
      for at in ("@", "_at_", "_")),
    ("val-aux/math/reward/best_at_16/mean", "val-aux/math/reward/best@16/mean"),
    ("val-core/math/acc/maj_8/std", "val-core/math/acc/maj@8/std"),
    ("actor/grad_noise/prompt/tr_sigma", "grad_noise/prompt/tr_sigma"),
    ("val-core/a\ud800/acc/mean_1", r"val-core/a\ud800/acc/mean@1"),
    *((key, key) for key in ("grad_noise/S_min", "actor/grad_norm", "val-aux/num_turns/mean",
                             "response_length/mean_1", "val-core/set_mean_1/acc/mean@1")),
])
def test_canonical_spelling(logged, canonical):
    assert canonical_key(logged) == canonical


@given(st.one_of(st.text(), st.builds("val-core/{}".format, st.text())))
def test_canonical_key_changes_nothing_twice(key):
    once = canonical_key(key)
    assert canonical_key(once) == once


@given(sources, parts.filter(lambda part: part != "mean"), st.sampled_from(["mean", "maj", "best"]),
       st.integers(1, 4096), st.sampled_from(["", "/mean"]))
def test_every_loggers_score_is_read_from_the_right(source, variable, statistic, n, tail):
    for group in ("val-core", "val-aux"):
        key = f"{group}/{source}/{variable}/{statistic}@{n}{tail}"
        score = Score(source, variable, statistic, n, key, group == "val-core")
        for at in ("@", "_at_", "_"):
            assert read_score(f"{group}/{source}/{variable}/{statistic}{at}{n}{tail}") == score


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


@pytest.mark.parametrize(("value", "number"), [
    ("Infinity", math.inf), ("-inf", -math.inf), (True, 1.0), (np.int64(3), 3.0), ("0.5", None),
    (np.float32(0.1), float(np.float32(0.1))), ([0.5], None), ({}, None), (10**400, None)])
def test_numbers(value, number):
    assert to_number(value) == number


values = st.one_of(st.floats(width=64), st.none(), st.sampled_from(["NaN", "Infinity", "text"]))
rows = st.lists(st.tuples(
    st.integers(0, 6).map(float),
    st.dictionaries(st.sampled_from(["a", "b", "actor/grad_noise/x"]), values)), max_size=12)


@given(rows)
def test_later_values_that_are_known_win(given_rows):
    history, notes = history_from_rows(given_rows)
    expected: dict[tuple[float, str], float] = {}
    seen: list[tuple[float, str]] = []
    for step, row in given_rows:
        for key, value in row.items():
            number, place = to_number(value), (step, key.removeprefix("actor/"))
            if number is not None and not math.isnan(number):
                seen.append(place)
                expected[place] = number
    assert history.index.is_monotonic_increasing
    assert set(history.index) == {step for step, _ in given_rows}
    assert history.stack().dropna().to_dict() == expected
    assert set(history.dtypes) <= {np.dtype("float64")}
    assert any("logged twice" in note for note in notes) == (len(set(seen)) < len(seen))


def test_what_is_no_number_is_named():
    history, notes = history_from_rows([(1.0, {"a": 1, "table": [1, 2], "words": "much"})])
    assert list(history.columns) == ["a"]
    assert notes == ["not numbers, left out: table, words"]
