"""Where batches lie, rows of tables, and draws as columns."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.decisions.batches import (
    batches_run,
    find_row,
    interval_columns,
    range_of,
    share_least,
)

TRIED = np.array([(32, 8), (64, 8), (128, 2), (128, 8), (128, 16)], dtype=float)
TOTALS = np.array([(64.0, 1), (256.0, 1)])


@pytest.mark.parametrize(("tried", "batch", "where"), [
    *((TRIED, batch, "tried") for batch in [(64, 8), (128, 2)]),
    *((TRIED, batch, "inside") for batch in [(64, 4), (128, 4), (32, 16)]),
    *((TRIED, batch, "extrapolated") for batch in [
        (16, 8), (128, 32), (256, 1), (32, 2)]),  # the last: 64 samples, fewer than ever
    (TOTALS, (64, 1), "tried"), (TOTALS, (100, 1), "inside"), (TOTALS, (32, 1), "extrapolated"),
    (TOTALS, (300, 1), "extrapolated")])
def test_prompts_rollouts_and_samples_have_a_range(tried, batch, where):
    assert range_of([batch], tried).tolist() == [where]


def test_batches_of_runs_are_there_once(fit, one_axis):
    assert len(batches_run(fit.crossings)) == fit.crossings.sizes["run"] - 1  # 128 × 8 twice
    total = np.unique(one_axis.crossings["total_batch"])
    np.testing.assert_array_equal(batches_run(one_axis.crossings),
                                  np.column_stack([total, np.ones(len(total))]))


def test_rows_are_found_by_closeness_and_the_exponent_at_every_threshold(fit):
    levels = fit.thresholds
    row = find_row(fit.cbs, "cbs_prompts", levels[1] + 1e-12, "n_rollouts=8")
    assert (row["threshold"], row["at"]) == (levels[1], "n_rollouts=8")
    assert find_row(fit.cbs, "alpha", levels[1], "")["quantity"] == "alpha"
    assert find_row(fit.cbs, "S_min", 0.123) is find_row(fit.cbs, "speed") is None


def test_an_interval_of_infinite_draws_has_infinite_ends_and_a_finite_middle():
    found = interval_columns("hours", np.array([1.0, 2.0, 3.0, np.inf, np.inf])[:, None], 0.9)
    assert {name: values[0] for name, values in found.items()} == {
        "hours": 3.0, "hours_lower": 1.0, "hours_upper": np.inf}


def test_the_least_is_counted_where_one_arrives():
    shares = share_least(np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 5.0], [np.inf, np.inf]]))
    np.testing.assert_allclose(shares, [0.5, 0.25])
