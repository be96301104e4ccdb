"""Where the crossing model's intervals lie apart from those of the trajectory model, it is said."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cbsbayes.posterior.cross_check import disagreements


def table(shift=0.0, n=5, quantity="gain_prompts"):
    lower = np.linspace(0.5, 0.9, n)
    return pd.DataFrame({"quantity": quantity, "at": "n_prompts=64,n_rollouts=8",
                         "threshold": np.linspace(0.5, 0.9, n), "ci_lower": lower + shift,
                         "ci_upper": lower + shift + 0.05})


def test_intervals_that_touch_are_not_worth_a_word():
    assert disagreements(table(), table(0.04)) == []


def test_intervals_apart_are_counted():
    said = disagreements(table(), table(0.2))
    assert len(said) == 1
    assert "5 of 5 numbers (gain_prompts)" in said[0]


def test_one_number_in_many_may_be_apart():
    other = table(n=20)
    other.loc[0, ["ci_lower", "ci_upper"]] += 1
    assert disagreements(table(n=20), other) == []


def test_what_is_not_identified_or_not_asked_is_not_compared():
    other = table(0.2)
    other[["ci_lower", "ci_upper"]] = np.nan
    assert disagreements(table(), other) == []
    assert disagreements(table(quantity="alpha"), table(0.2, quantity="alpha")) == []
