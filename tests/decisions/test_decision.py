"""Iso-batch runs predicted and observed: the verdicts by hand, and on the shipped real sweep."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from fitted import changed, quick_sampling

from cbsbayes.decisions.batches import COLUMNS, middle_threshold
from cbsbayes.decisions.decision import check_table, fit_without, iso_runs
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.nuts import SamplerSettings
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.sweep.files import default_sweep_path, read_sweep

TOTAL = 2048  # 256 × 8 and 128 × 16


def observed(fit, factor=1.0, **ends):
    """Return the fit with its runs where it predicts them, those at 128 × 16 moved."""
    runs = fit.crossings
    steps = np.exp(fit.log_steps(runs["n_prompts"].values, runs["n_rollouts"].values))
    steps = steps.median("sample").rename(batch="run").assign_coords(run=runs["run"])
    at = (runs["n_rollouts"] == 16).broadcast_like(steps)
    steps = steps * xr.where(at, factor, 1.0)
    found = {"lower": 0.99 * steps, "upper": steps, "status": xr.ones_like(runs["status"])}
    found |= {name: xr.where(at, value, found[name]) for name, value in ends.items()}
    return changed(fit, crossings=runs.assign({name: values.transpose("run", "threshold")
                                               for name, values in found.items()}))


@pytest.fixture(scope="module")
def table(fit):
    return check_table(observed(fit), TOTAL)


def test_every_split_at_every_threshold_and_none_is_accused(table, fit):
    assert list(table.columns) == COLUMNS["iso_batch"]
    assert len(table) == 2 * len(fit.thresholds)
    assert (table["n_prompts"] * table["n_rollouts"] == TOTAL).all()
    assert table["runs_seen"].all()
    assert (table["predicted_lower"] < table["predicted"]).all()
    for name in ("p_best", "p_least"):
        np.testing.assert_allclose(table.groupby("threshold")[name].sum(), 1.0)
    assert set(table["verdict"]) == {"agree"}


@pytest.mark.parametrize(("factor", "verdict"), [(3.0, "slower"), (0.3, "faster")])
def test_a_split_that_does_not_fit_is_named(fit, factor, verdict):
    found = check_table(observed(fit, factor), TOTAL).set_index("n_rollouts")["verdict"]
    assert set(found.loc[16]) == {verdict}
    assert set(found.loc[8]) == {"agree"}


def test_a_run_that_never_arrived_counts_from_its_end(fit):
    found = check_table(observed(fit, lower=1e4, upper=np.inf, status=2), TOTAL)
    row = found[(found["n_rollouts"] == 16) & (found["threshold"] == middle_threshold(fit))].iloc[0]
    assert row["n_not_reached"] == row["n_runs"] == 1
    assert (row["observed_lower"], row["observed_upper"]) == (pytest.approx(1e4), np.inf)
    assert row["verdict"] == "slower"
    assert np.isnan(row["observed"])


def test_what_nothing_predicts_or_was_not_split_is_refused(fit):
    with pytest.raises(CBSDataError, match="no two splits of 100 samples"):
        iso_runs(fit, 100)
    runs = fit.crossings
    alone = changed(fit, crossings=runs.isel(run=(runs["n_prompts"] == 128)
                                             | (runs["total_batch"] == 2048)))
    with pytest.raises(CBSDataError, match=r"without the runs of 2,048 samples n_prompts does not"):
        fit_without(alone, 2048)


def test_the_runs_are_left_out(fit):
    with quick_sampling():
        without = fit_without(fit, TOTAL)
    held = fit.crossings["run"].values[fit.crossings["total_batch"].values == TOTAL]
    assert len(held) == 2
    assert set(without.crossings["run"].values) == (
        set(fit.crossings["run"].values) - set(held))
    assert without.law == fit.law
    np.testing.assert_array_equal(without.thresholds, fit.thresholds)
    assert not check_table(fit, TOTAL, without)["runs_seen"].any()


@pytest.mark.mcmc
def test_the_shipped_iso_batch_runs_are_predicted_by_a_fit_that_left_them_out():
    """Fifteen runs of 128 samples, five splits, predicted from the other 24 runs."""
    sweep = read_sweep(default_sweep_path())
    settings = SamplerSettings(chains=2, draws=500, tune=500, cores=1, random_seed=1)
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
