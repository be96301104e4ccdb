"""Each run: used how, or left out why."""

from __future__ import annotations

import numpy as np

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.posterior.selection import runs_table
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.sweep.groups import choose_runs


def test_a_row_per_run_with_reason_and_crossings():
    ds = simulate_sweep("p2b", seeds=1, max_updates=200, random_seed=2)
    reasons = choose_runs(ds)
    fitted = ds.isel(run=[reasons[str(run)] == "" for run in ds["run"].values])
    crossings = find_crossings(fitted, [0.6, 0.7, 0.74])
    table = runs_table(ds, reasons, crossings)
    assert list(table["run"]) == [str(run) for run in ds["run"].values]
    assert list(table.columns) == [
        "run", "name", "phase", "n_prompts", "n_rollouts", "total_batch", "seed", "state", "used",
        "reason", "first_step", "last_step", "attempts", "remark", "lower_0.6", "upper_0.6",
        "lower_0.7", "upper_0.7", "lower_0.74", "upper_0.74"]
    apart = table[~table["used"]]
    assert list(apart["n_rollouts"]) == [1]
    assert "group of one" in apart["reason"].iloc[0]
    assert apart[["lower_0.6", "upper_0.6"]].isna().all(axis=None)
    used = table[table["used"]].reset_index(drop=True)
    np.testing.assert_array_equal(used["upper_0.7"], crossings["upper"].sel(threshold=0.7).values)
    np.testing.assert_array_equal(used["lower_0.6"], crossings["lower"].sel(threshold=0.6).values)
    assert np.isinf(used["upper_0.74"]).any()  # right-censored stays visible
    assert (used["reason"] == "").all()


def test_thresholds_that_differ_late_keep_their_own_columns():
    ds = simulate_sweep("p1", seeds=1)
    crossings = find_crossings(ds, [0.65000001, 0.65000002])
    columns = runs_table(ds, choose_runs(ds), crossings).columns
    assert {"lower_0.65000001", "upper_0.65000002"} <= set(columns)
    found = find_crossings(ds, [0.1 + 0.2 + 0.35])
    assert "upper_0.65" in runs_table(ds, choose_runs(ds), found).columns
