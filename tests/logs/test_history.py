"""Logged rows become one history: one row per step, numbers only."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.logs.history import history_from_rows, to_number

values = st.one_of(st.floats(width=64), st.none(), st.sampled_from(["NaN", "Infinity", "text"]))
rows = st.lists(
    st.tuples(
        st.integers(0, 6).map(float),
        st.dictionaries(st.sampled_from(["a", "b", "actor/grad_noise/x"]), values),
    ),
    max_size=12,
)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("Infinity", math.inf),
        ("-inf", -math.inf),
        (True, 1.0),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.int64(3), 3.0),
        ("0.5", None),
        ([0.5], None),
        ({}, None),
        (10**400, None),
    ],
)
def test_numbers(value, number):
    assert to_number(value) == number


@given(rows)
def test_later_values_that_are_known_win(given_rows):
    history, notes = history_from_rows(given_rows)
    expected: dict[tuple[float, str], float] = {}
    for step, row in given_rows:
        for key, value in row.items():
            number = to_number(value)
            place = step, key.removeprefix("actor/")
            if number is not None and not (math.isnan(number) and place in expected):
                expected[place] = number
    assert history.index.is_monotonic_increasing
    assert history.index.is_unique
    assert set(history.index) == {step for step, _ in given_rows}
    found = history.stack()
    np.testing.assert_array_equal(
        [found.get(place, math.nan) for place in expected], list(expected.values())
    )
    n_known = sum(not math.isnan(value) for value in expected.values())
    assert int(history.notna().sum().sum()) == n_known
    known = [(step, key) for step, row in given_rows for key, value in row.items()
             if (number := to_number(value)) is not None and not math.isnan(number)]
    assert any("logged twice" in note for note in notes) == (len(set(known)) < len(known))


def test_what_is_no_number_is_named():
    history, notes = history_from_rows([(1.0, {"a": 1, "table": [1, 2], "words": "much"})])
    assert list(history.columns) == ["a"]
    assert notes == ["not numbers, left out: table, words"]
