"""The fit as an object: what it reads off its tree, and that a file gives the same object."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit import Fit, stacked, table_to_json, thinned
from cbsbayes.posterior.surface import steps_ratio
from cbsbayes.sweep.files import write_tree

TABLES = ("cbs", "comparison", "runs", "law_table")


@pytest.fixture(scope="module")
def loaded(fit, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "fit.nc"
    assert fit.save(path) == path
    return Fit.load(path)


def test_a_file_gives_the_same_object(fit, loaded):
    xr.testing.assert_identical(fit.tree, loaded.tree)
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(fit, name), getattr(loaded, name))
    assert list(fit.others) == list(loaded.others)
    assert list(fit.others) == ["two_axis", "two_axis_sqrt", "two_axis_free_plain", "total"]
    for name, table in fit.others.items():
        pd.testing.assert_frame_equal(table, loaded.others[name])
    assert (fit.law, fit.group, fit.settings, fit.verdict) == (
        loaded.law, loaded.group, loaded.settings, loaded.verdict)
    np.testing.assert_array_equal(fit.thresholds, loaded.thresholds)
    xr.testing.assert_identical(fit.log_steps([64, 128], 8), loaded.log_steps([64, 128], 8))


def test_parts_of_the_tree(fit, sweep):
    assert set(fit.tree.children) == {
        "posterior", "sample_stats", "prior", "posterior_predictive", "prior_predictive",
        "log_likelihood", "observed_data", "constant_data", "sweep"}
    assert fit.sweep.sizes["run"] == sweep.sizes["run"]
    used = fit.runs.loc[fit.runs["used"], "run"]
    assert fit.crossings["run"].values.tolist() == used.tolist()
    assert set(fit.crossings.dims) == {"run", "threshold"}
    n_run, n_threshold = len(used), len(fit.thresholds)
    assert fit.posterior["S_min"].dims == ("chain", "draw", "threshold")
    assert fit.posterior["run_effect"].sizes == {"chain": 4, "draw": 200, "run": n_run}
    for name, n_draws in (("predictive", 800), ("prior_predictive", 200)):
        steps = getattr(fit, name)["steps"]
        assert steps.dims == ("sample", "run", "threshold")
        assert steps.shape == (n_draws, n_run, n_threshold)
        assert (steps > 0).all()
        assert np.isfinite(steps).all()
    log_p = fit.tree["log_likelihood"]["run_log_likelihood"]
    assert log_p.dims == ("chain", "draw", "run")
    assert np.isfinite(log_p).all()
    xr.testing.assert_identical(log_p["chain"].variable, fit.posterior["chain"].variable)


def test_log_steps_at_batches_by_hand(fit):
    at = fit.log_steps([32, 64, 128], [8, 8, 16])
    assert at.dims == ("sample", "threshold", "batch")
    assert at.shape == (800, len(fit.thresholds), 3)
    draws = stacked(thinned(fit.posterior))
    noise = draws["B_prompt"] + draws["B_rollout"] / 15
    by_hand = draws["S_min"] * (1 + noise / 128) ** draws["alpha"]
    np.testing.assert_allclose(np.exp(at.isel(batch=2)), by_hand.transpose("sample", "threshold"))
    one = fit.log_steps([32, 64, 128], [8, 8, 16], threshold=float(fit.thresholds[1]))
    np.testing.assert_array_equal(one.transpose("sample", "batch"), at.isel(threshold=1))


@pytest.mark.parametrize(("prompts", "rollouts"), [([32, 64], 8), ([32, 64], [8]), (64, [4, 8]),
                                                   (np.array([32]), 8)])
def test_one_number_stands_for_all_batches(fit, prompts, rollouts):
    n = max(np.size(prompts), np.size(rollouts))
    expected = fit.log_steps(np.broadcast_to(prompts, n), np.broadcast_to(rollouts, n))
    np.testing.assert_array_equal(fit.log_steps(prompts, rollouts), expected)
    assert expected.sizes["batch"] == n


def test_one_axis_data_pass_the_total_batch_and_one(one_axis):
    at = one_axis.log_steps([256, 512], 1, threshold=one_axis.thresholds[0])
    draws = stacked(thinned(one_axis.posterior)).isel(threshold=0)
    by_hand = draws["S_min"] * (1 + draws["B_noise"] / 512)
    np.testing.assert_allclose(np.exp(at.isel(batch=1)), by_hand)
    assert one_axis.law.name == "total"
    assert list(one_axis.others) == ["power"]


def test_a_condition_is_solved_at_every_threshold_or_at_one(fit):
    batch = fit.solve(steps_ratio(2.0), along="prompts", at=8)
    assert batch.dims == ("sample", "threshold")
    np.testing.assert_allclose(np.log(batch / fit.solve(steps_ratio(2.0), along="total", at=8)),
                               -np.log(8))
    one = fit.solve(steps_ratio(2.0), "prompts", 8, threshold=float(fit.thresholds[1]))
    np.testing.assert_allclose(one, batch.isel(threshold=1))
    k = 17
    away = (fit.log_steps(float(one[k]), 8, fit.thresholds[1])[k, 0]
            - fit.log_steps(np.inf, 8, fit.thresholds[1])[k, 0])
    assert float(away) == pytest.approx(np.log(2.0))


def test_new_runs_at_the_runs_own_batches_are_their_replicates(fit):
    """As often as there are runs, and every replicate is taken once."""
    n = fit.crossings.sizes["run"]
    level = float(fit.thresholds[0])
    new = fit.new_run(np.full(n, 64), np.full(n, 8), level)
    added = new.values - fit.log_steps(64, 8, level).values
    law = fit.log_steps(fit.crossings["n_prompts"], fit.crossings["n_rollouts"], level)
    replicated = np.log(fit.predictive["steps"].sel(threshold=level).transpose("sample", "run"))
    np.testing.assert_allclose(np.sort(added, axis=1),
                               np.sort(replicated.values - law.values, axis=1), atol=1e-9)
    assert fit.new_run([64, 64], 8).dims == ("sample", "threshold", "batch")
    assert not fit.new_run(64, 8).equals(fit.new_run(64, 8, random_seed=1))


def test_a_summary_holds_one_target_and_stands_in_a_notebook(fit):
    level = float(fit.thresholds[0])
    table = fit.summary(level)
    assert {"gain_prompts", "cbs_prompts", "S_min", "alpha"} <= set(table["quantity"])
    held = fit.cbs[fit.cbs["threshold"] == level].set_index(["quantity", "at"])["median"]
    for row in table[table["quantity"] != "alpha"].itertuples():
        assert row.median == pytest.approx(held[row.quantity, row.at], nan_ok=True)
    with pytest.raises(CBSDataError, match=r"threshold 0\.123 was not fitted"):
        fit.summary(0.123)
    assert repr(fit).startswith("<cbsbayes.Fit of simulated")
    assert "\n" not in repr(fit)
    html = fit._repr_html_()
    assert fit.verdict["title"] in html
    assert html.count("</tr>") == len(fit.summary()) + 1


def test_steps_of_what_was_not_fitted_are_refused(fit):
    with pytest.raises(CBSDataError, match=r"threshold 0\.123 was not fitted; fitted: 0\.\d+, "):
        fit.log_steps([32], [8], threshold=0.123)


@pytest.mark.parametrize(("prompts", "rollouts"), [([0, 32], 8), ([32], 1), ([-4], 8),
                                                   ([np.nan], 8)])
def test_batches_without_a_value_are_refused(fit, prompts, rollouts):
    with pytest.raises(CBSDataError, match=r"has no value at n_prompts .*valid: above 0 and above"):
        fit.log_steps(prompts, rollouts)


def test_a_fit_whose_law_had_other_parameters_is_refused(rate_fit, tmp_path):
    tree = rate_fit.tree.copy()
    tree["posterior"] = tree["posterior"].to_dataset().drop_vars("slope_below")
    Fit(tree).save(tmp_path / "old.nc")
    with pytest.raises(CBSDataError, match=r"has no slope_below, .*another version wrote it"):
        Fit.load(tmp_path / "old.nc")


def test_what_is_not_a_fit_is_refused(tmp_path, sweep_file):
    with pytest.raises(CBSDataError, match=r"sweep\.nc is not a fit; give the folder or fit\.nc"):
        Fit.load(sweep_file)
    with pytest.raises(CBSDataError, match=r"fit\.nc does not exist"):
        Fit.load(tmp_path)
    write_tree(xr.DataTree.from_dict({"posterior": xr.Dataset({"a": ("x", [1.0])})}),
               tmp_path / "other.nc")
    with pytest.raises(CBSDataError, match="is not a fit"):
        Fit.load(tmp_path / "other.nc")


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text(max_size=6), st.floats(), st.integers(-9, 10**12),
                          st.booleans()), min_size=1, max_size=5))
def test_tables_survive_json(rows):
    table = pd.DataFrame(rows, columns=["text", "number", "count", "flag"])
    again = pd.DataFrame(json.loads(table_to_json(table)))
    pd.testing.assert_frame_equal(again, table, check_exact=True)
