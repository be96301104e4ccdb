"""Ranks are scipy's, ties and all."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from cbsbayes.inference.ranks import mean_ranks


@pytest.mark.parametrize("shape", [(3, 7), (1, 1), (5, 400), (0, 5), (4, 0)])
@pytest.mark.parametrize("levels", [1, 4, 10**9])
def test_ranks_are_those_of_scipy(shape, levels):
    values = np.random.default_rng(0).integers(0, levels, shape).astype(float)
    expected = rankdata(values, axis=1) if values.size else np.empty(shape)
    assert mean_ranks(values).tolist() == expected.tolist()


def test_infinite_values_tie_with_each_other():
    assert mean_ranks(np.array([[np.inf, 0.0, np.inf, -np.inf]])).tolist() == [[3.5, 2, 3.5, 1]]
