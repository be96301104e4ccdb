"""Real seeds redrawn: one run of each batch, all seeds as the reference."""

from __future__ import annotations

import numpy as np
import pytest
from mlperf import reference_sweep

from cbsbayes.crossings.thresholds import batch_labels
from cbsbayes.errors import CBSDataError
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.sweep.dataset import new_sweep
from cbsbayes.validation.coverage import COLUMNS, Settings, coverage_table
from cbsbayes.validation.reading import reading_of
from cbsbayes.validation.seeds import check_table, redraw, redrawn_sweep, reference_values
from cbsbayes.validation.study import rows_of


@pytest.fixture
def table():
    """Return five batches of four seeds whose S follows the total-batch law, B_noise 500."""
    batch = np.repeat([64.0, 128, 256, 512, 1024], 4)
    steps = 100 * (1 + 500 / batch) * np.tile([0.95, 1.05, 0.97, 1.04], 5)
    return new_sweep({"run": [f"r{i}" for i in range(20)], "total_batch": batch},
                     steps_lower=steps[:, None], steps_upper=steps[:, None], threshold=[1.0])


def test_one_run_of_each_batch_drawn_anew(table):
    drawn = [redraw(table, seed) for seed in range(40)]
    for ds in drawn:
        assert ds["total_batch"].values.tolist() == [64, 128, 256, 512, 1024]
    assert len({tuple(ds["run"].values) for ds in drawn}) > 30
    assert {str(run) for ds in drawn for run in ds["run"].values} == set(table["run"].values)
    assert redraw(table, 3).equals(drawn[3])


def test_all_seeds_are_the_reference(table):
    settings = Settings(law="total", thresholds=(1.0,))
    reference = reference_values(table, settings, reading_of(table))[1.0]
    assert np.exp(reference["B_noise"]) == pytest.approx(500, rel=1e-3)
    assert np.exp(reference["S_min"]) == pytest.approx(100, rel=0.02)
    assert np.exp(reference["gain_total"]) == pytest.approx((1 + 500 / 512) / (1 + 500 / 256))


def test_a_free_exponent_is_not_held_to_a_reference_that_takes_it_as_one(table):
    settings = Settings(law="power", thresholds=(1.0,))
    assert set(reference_values(table, settings, reading_of(table))[1.0]) == {"S(256)",
                                                                              "gain_total"}


def test_groups_of_one_are_never_drawn():
    ds = simulate_sweep("p2b", 2)
    assert (redraw(ds, 0)["n_rollouts"].values == [2, 4, 8, 16, 32, 64]).all()
    assert (batch_labels(ds) == -1).sum() == 2


def test_tables_without_seeds_are_refused(table):
    check_table(table, "runs.csv")
    with pytest.raises(CBSDataError, match=r"runs.csv holds at most one run of each batch"):
        check_table(redraw(table, 0), "runs.csv")
    two = table.assign_coords(model=("run", ["a", "b"] * 10))
    with pytest.raises(CBSDataError, match="2 groups of runs"):
        check_table(two, "runs.csv")


@pytest.mark.mcmc
def test_real_seeds_of_a_reference_benchmark(public_data):
    """RNN-T, 20 seeds of each of six batches: a handful of redraws holds the all-seed value."""
    ds = reference_sweep(public_data / "mlperf_rcp" / "rnnt_3.1.0.json", grid=1.0)
    settings = Settings(law="total", thresholds=(1.0,))
    records = [{"seed": seed, **redrawn_sweep(ds, settings, seed)} for seed in range(4)]
    rows = rows_of(records, COLUMNS)
    noise = rows[(rows["quantity"] == "B_noise")]
    assert np.exp(noise["truth"].unique()).tolist() == [pytest.approx(3690, rel=0.02)]
    table = coverage_table(rows).set_index(["method", "quantity", "threshold"])
    ours = table.loc[("posterior", "B_noise", "all")]
    assert ours["coverage"] >= 0.75
    assert 0.1 < ours["log_width"] < 1.5
    assert 0.3 < ours["width_over_t"] < 3
