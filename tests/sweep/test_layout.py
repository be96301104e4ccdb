"""Ragged series on one axis."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.sweep.layout import scatter

SERIES = st.dictionaries(st.integers(0, 40), st.floats(-10, 10), max_size=8)


@given(st.lists(SERIES, min_size=1, max_size=5))
def test_everything_lies_where_it_was_and_nothing_else(series):
    parts = [((i,), np.array(sorted(s), float), np.array([s[k] for k in sorted(s)], float))
             for i, s in enumerate(series)]
    axis, values = scatter(parts, (len(series),))
    assert axis.tolist() == sorted(set().union(*series))
    for row, given_values in zip(values, series, strict=True):
        known = ~np.isnan(row)
        assert dict(zip(axis[known], row[known], strict=True)) == given_values


def test_nothing():
    axis, values = scatter([], (2, 3))
    assert axis.size == 0
    assert values.shape == (2, 3, 0)
