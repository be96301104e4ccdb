"""The front of updates and samples."""

from __future__ import annotations

import numpy as np
import pytest
from fit_fixture import make_fit, make_one_axis_fit
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cbsbayes.decisions.front import FRONT_COLUMNS, best_tried_group, front_table, on_front


def test_by_hand():
    steps = np.array([[100.0, 60.0, 55.0], [100.0, 60.0, 61.0]])
    total = np.array([64.0, 128.0, 128.0])
    np.testing.assert_allclose(on_front(np.log(steps), total), [1.0, 0.5, 0.5])


def test_equal_batches_are_both_on_it():
    np.testing.assert_allclose(on_front(np.zeros((3, 2)), np.array([8.0, 8.0])), [1.0, 1.0])


@given(arrays.arrays(float, (1, 6), elements=st.floats(-2, 2)),
       arrays.arrays(float, (6,), elements=st.floats(1, 1000)))
def test_the_front_is_what_no_other_beats(log_steps, total):
    steps = log_steps[0]
    samples = steps + np.log(total)
    beaten = [any(steps[j] <= steps[i] and samples[j] <= samples[i]
                  and (steps[j] < steps[i] or samples[j] < samples[i]) for j in range(6))
              for i in range(6)]
    np.testing.assert_array_equal(on_front(log_steps, total) == 0, beaten)


@pytest.fixture(scope="module")
def table():
    return front_table(make_fit(), [0.7])


class TestTable:
    def test_columns(self, table):
        assert list(table.columns) == FRONT_COLUMNS
        assert set(table["kind"]) == {"tried", "curve"}
        np.testing.assert_allclose(table["samples"], table["steps"] * table["total_batch"])

    def test_every_cell_is_there_once_without_single_rollouts(self, table):
        tried = table[table["kind"] == "tried"]
        assert len(tried) == len(tried.drop_duplicates(["n_prompts", "n_rollouts"]))
        assert tried["n_rollouts"].min() == 2
        assert (tried["range"] == "tried").all()
        assert tried["p_on_front"].between(0, 1).all()

    def test_the_best_group_is_on_the_front_and_the_worst_is_not(self, table):
        tried = table[(table["kind"] == "tried") & (table["total_batch"] == 256)]
        best = tried.loc[tried["steps"].idxmin()]
        assert best["n_rollouts"] == 4
        assert best["p_on_front"] > 0.9
        assert tried.loc[tried["steps"].idxmax(), "p_on_front"] < 0.01

    def test_along_the_curve_updates_are_bought_with_samples(self, table):
        curve = table[table["kind"] == "curve"]
        assert set(curve["n_rollouts"]) == {best_tried_group(make_fit(), 0.7)} == {4}
        assert (np.diff(curve["steps"]) < 0).all()
        assert (np.diff(curve["samples"]) > 0).all()
        assert curve["p_on_front"].isna().all()


def test_one_axis_is_all_front():
    table = front_table(make_one_axis_fit(), [3.0])
    assert table["n_rollouts"].isna().all()
    tried = table[table["kind"] == "tried"]
    assert tried["total_batch"].tolist() == [2.0**k for k in range(6, 14)]
    assert (tried["p_on_front"] == 1.0).all()
