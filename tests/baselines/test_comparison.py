"""The posterior's row beside both least-squares fits, on each axis that was varied."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cbsbayes.baselines import comparison_rows, fit_baselines
from cbsbayes.baselines.comparison import comparison_table
from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.simulate import simulate_sweep

THRESHOLDS = [0.62, 0.68]


@pytest.fixture(scope="module")
def baselines():
    ds = simulate_sweep("p1+p2b", seeds=1, random_seed=3)
    crossings = find_crossings(ds, THRESHOLDS)
    return fit_baselines(ds, crossings, THRESHOLDS, n_bootstrap=20)


def cbs(law, rows):
    """Return a table of quantities: (threshold, quantity, at, median, lower, upper)."""
    columns = ["threshold", "quantity", "at", "median", "ci_lower", "ci_upper"]
    return pd.DataFrame(rows, columns=columns).assign(law=law)


MAIN = [(t, name, at, v, v / 2, v * 2) for k, t in enumerate(THRESHOLDS) for name, at, v in [
    ("cbs_prompts", "n_rollouts=8", 100.0 + k), ("cbs_samples", "n_rollouts=8", 800.0 + k),
    ("cbs_rollouts", "n_prompts=128", 5.0 + k), ("S_min", "", 40.0 + k)]]
TOTAL = [(t, name, "", v + k, v / 3, v * 3) for k, t in enumerate(THRESHOLDS)
         for name, v in [("B_noise", 900.0), ("S_min", 50.0)]]


def posterior_rows(table):
    return table[table["method"] == "posterior"].set_index(["threshold", "axis", "at"])


def test_a_posterior_row_per_axis_and_threshold(baselines):
    table = comparison_table(baselines, cbs("two_axis_free", MAIN), cbs("total", TOTAL), "tiny",
                             n_runs=17)
    assert list(table.columns) == list(comparison_rows(baselines, "tiny").columns)
    rows = posterior_rows(table)
    assert list(rows.index) == [(t, axis, at) for t in THRESHOLDS for axis, at in [
        ("total", ""), ("prompts", "n_rollouts=8"), ("rollouts", "n_prompts=128")]]
    assert rows.loc[(0.68, "prompts", "n_rollouts=8"), "B_noise"] == 101.0
    assert rows.loc[(0.68, "prompts", "n_rollouts=8"), "S_min"] == 41.0
    assert rows.loc[(0.62, "total", ""), "B_noise"] == 900.0  # of the total-batch law
    assert rows.loc[(0.62, "total", ""), "S_min"] == 50.0
    assert rows.loc[(0.62, "total", ""), "ci_upper"] == 2700.0
    assert set(table["group"]) == {"tiny"}
    assert rows["r2"].isna().all()


def test_the_limit_along_rollouts_is_not_the_two_axis_s_min(baselines):
    rows = posterior_rows(comparison_table(baselines, cbs("two_axis_free", MAIN),
                                           cbs("total", TOTAL), "tiny", n_runs=17))
    assert np.isnan(rows.loc[(0.62, "rollouts", "n_prompts=128"), "S_min"])
    assert rows.loc[(0.62, "rollouts", "n_prompts=128"), "B_noise"] == 5.0
    main = [*TOTAL, *[row for row in MAIN if row[1] == "cbs_rollouts"]]
    rows = posterior_rows(comparison_table(baselines, cbs("total", main), None, "tiny", n_runs=17))
    assert rows.loc[(0.62, "rollouts", "n_prompts=128"), "S_min"] == 50.0


def test_least_squares_rows_stay_as_they_are_and_come_first(baselines):
    table = comparison_table(baselines, cbs("two_axis_free", MAIN), cbs("total", TOTAL), "tiny",
                             n_runs=17)
    kept = table[table["method"] != "posterior"].reset_index(drop=True)
    expected = comparison_rows(baselines, "tiny").sort_values(
        ["threshold"], kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(kept, expected)
    for _, rows in table.groupby(["threshold", "axis", "at"]):
        assert list(rows["method"]) == ["least_squares", "log_least_squares", "posterior"]


def test_least_squares_counts_the_runs_of_its_axis_the_posterior_all_it_was_fitted_to(baselines):
    table = comparison_table(baselines, cbs("two_axis_free", MAIN), cbs("total", TOTAL), "tiny",
                             n_runs=17)
    theirs = table[table["method"] != "posterior"]
    for _, rows in theirs.groupby(["threshold", "axis", "at"]):
        assert (rows["n_runs_used"] + rows["n_runs_dropped"]).nunique() == 1
    assert set(posterior_rows(table)["n_runs_used"]) == {17}
    assert set(posterior_rows(table)["n_runs_dropped"]) == {0}


def test_what_the_data_do_not_say_stays_empty(baselines):
    nan = float("nan")
    main = [(t, name, at, nan, nan, v) for t, name, at, v, _, _ in MAIN]
    rows = posterior_rows(comparison_table(baselines, cbs("two_axis", main), cbs("total", TOTAL),
                                           "tiny", n_runs=17))
    row = rows.loc[(0.62, "prompts", "n_rollouts=8")]
    assert np.isnan(row["B_noise"])
    assert np.isnan(row["ci_lower"])
    assert row["ci_upper"] == 100.0


def test_axes_without_a_posterior_get_no_row(baselines):
    main = [row for row in MAIN if row[1] in ("cbs_prompts", "S_min")]
    rows = posterior_rows(comparison_table(baselines, cbs("two_axis", main), None, "tiny",
                                           n_runs=17))
    assert set(rows.index.get_level_values("axis")) == {"prompts"}


def test_one_axis_data_have_the_total_batch_only():
    ds = simulate_sweep("batch", seeds=1, law="total", random_seed=1)
    fits = fit_baselines(ds, find_crossings(ds, THRESHOLDS), THRESHOLDS, n_bootstrap=20)
    power = [(t, name, "", v, v / 2, v * 2) for t in THRESHOLDS
             for name, v in [("B_noise", 700.0), ("cbs_samples", 750.0), ("S_min", 30.0)]]
    table = comparison_table(fits, cbs("power", power), None, "g", n_runs=17)
    assert set(table["axis"]) == {"total"}
    assert set(posterior_rows(table)["B_noise"]) == {750.0}  # where S = 2 S_min
