"""Iso-batch runs predicted and observed: the verdicts by hand, and on the shipped real sweep."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from fit_fixture import make_fit
from fitted import SETTINGS, quick_sampling

from cbsbayes.decisions.decision import CHECK_COLUMNS, check_table, fit_without, iso_runs
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.sweep.files import default_sweep_path, read_sweep

TOTAL = 256


def moved(stand_in, n_rollouts, factor):
    """Return the stand-in with the crossings of one split of the batch moved."""
    at = ((stand_in.crossings["total_batch"] == TOTAL)
          & (stand_in.crossings["n_rollouts"] == n_rollouts))
    factor = xr.where(at, factor, 1.0)
    stand_in.crossings = stand_in.crossings.assign(
        lower=stand_in.crossings["lower"] * factor, upper=stand_in.crossings["upper"] * factor)
    return stand_in


@pytest.fixture(scope="module")
def table():
    return check_table(make_fit(), TOTAL)


def test_every_split_at_every_threshold(table):
    assert list(table.columns) == CHECK_COLUMNS
    assert len(table) == 4 * table["n_rollouts"].nunique()
    assert (table["n_prompts"] * table["n_rollouts"] == TOTAL).all()
    assert table["runs_seen"].all()
    assert (table["predicted_lower"] < table["predicted"]).all()
    for name in ("p_best", "p_least"):
        assert table.groupby("threshold")[name].sum().tolist() == pytest.approx([1.0] * 4)


def test_runs_that_agree_are_not_accused(table):
    assert (table["verdict"] == "agree").mean() > 0.9


@pytest.mark.parametrize(("factor", "verdict"), [(1.6, "slower"), (0.6, "faster")])
def test_a_split_that_does_not_fit_is_named(factor, verdict):
    found = check_table(moved(make_fit(), 4, factor), TOTAL)
    at = (found["n_rollouts"] == 4) & (found["threshold"] == 0.8)
    assert found.loc[at, "verdict"].tolist() == [verdict]


def test_a_run_that_never_arrived_counts_from_its_end():
    stand_in = make_fit()
    at = (stand_in.crossings["total_batch"] == TOTAL) & (stand_in.crossings["n_rollouts"] == 4)
    at = at & (stand_in.crossings["threshold"] == 0.7)
    stand_in.crossings = stand_in.crossings.assign(
        lower=xr.where(at, 300.0, stand_in.crossings["lower"]),
        upper=xr.where(at, np.inf, stand_in.crossings["upper"]),
        status=xr.where(at, 2, stand_in.crossings["status"]))
    found = check_table(stand_in, TOTAL)
    row = found[(found["n_rollouts"] == 4) & (found["threshold"] == 0.7)].iloc[0]
    assert row["n_not_reached"] == row["n_runs"] == 1
    assert (row["observed_lower"], row["observed_upper"]) == (pytest.approx(300.0), np.inf)
    assert row["verdict"] == "slower"
    assert np.isnan(row["observed"])


def test_a_batch_that_was_not_split_is_refused():
    with pytest.raises(CBSDataError, match="no two splits of 100 samples"):
        iso_runs(make_fit(), 100)


def test_runs_that_nothing_else_predicts_are_refused():
    with quick_sampling():
        alone = fit_sweep(simulate_sweep("p2c", 1), sampler=SETTINGS, alternatives=False)
    with pytest.raises(CBSDataError, match=r"without the runs of 2,048 samples n_prompts does not"):
        fit_without(alone, 2048)


def test_the_runs_are_left_out(fit):
    with quick_sampling():
        without = fit_without(fit, 2048)
    held = fit.crossings["run"].values[fit.crossings["total_batch"].values == 2048]
    assert len(held) == 2
    assert set(without.crossings["run"].values) == (
        set(fit.crossings["run"].values) - set(held))
    assert without.law == fit.law
    np.testing.assert_array_equal(without.thresholds, fit.thresholds)
    table = check_table(fit, 2048, without)
    assert not table["runs_seen"].any()


@pytest.mark.mcmc
def test_the_shipped_iso_batch_runs_are_predicted_by_a_fit_that_left_them_out():
    """Fifteen runs of 128 samples, five splits, predicted from the other 24 runs."""
    sweep = read_sweep(default_sweep_path())
    settings = SamplerSettings(chains=2, draws=500, tune=500, random_seed=1)
    fit = fit_sweep(sweep, thresholds=[0.5, 0.7, 0.8, 0.9], sampler=settings, alternatives=False)
    table = check_table(fit, 128, fit_without(fit, 128))
    assert len(table) == 20
    assert (table["verdict"] == "agree").sum() >= 18
    inside = table[table["observed"].notna()]
    assert len(inside) >= 15
    assert np.abs(np.log(inside["observed"] / inside["predicted"])).median() < 0.12
    # the split said to be the best took no more than a few per cent above the least observed
    for _, at in inside.groupby("threshold"):
        said = at.loc[at["p_best"].idxmax()]
        assert said["observed"] < 1.2 * at["observed"].min()
