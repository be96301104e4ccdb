"""Fits side by side: numbers against draws, bounds, passes over batches, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from fitted import PAIR_THRESHOLDS, changed, labelled

from cbsbayes.decisions.batches import COLUMNS, find_fits, label_fits
from cbsbayes.decisions.compare_fits import (
    LAW_BOUND,
    check_comparable,
    compare_fits,
    nothing_in_common,
    ratio_status,
)
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit import Fit
from cbsbayes.report.compare import remarks


@pytest.fixture(scope="module")
def fits(pair):
    return dict(zip(("alpha", "beta"), pair, strict=True))


@pytest.fixture(scope="module")
def table(fits):
    return compare_fits(fits)


def only(table, quantity, threshold=0.65, at=""):
    return table[(table["quantity"] == quantity) & (table["threshold"] == threshold)
                 & (table["at"] == at)].iloc[0]


def test_rows_hold_what_both_fits_have(table, fits):
    assert list(table.columns) == COLUMNS["compare"]
    assert set(table["threshold"].dropna()) == set(PAIR_THRESHOLDS)
    cbs = fits["alpha"].cbs
    assert set(zip(table["quantity"], table["at"], strict=True)) == set(
        zip(cbs["quantity"], cbs["at"], strict=True))
    for side, fit in zip(("first", "second"), fits.values(), strict=True):
        own = only(fit.cbs, "S_min")
        assert only(table, "S_min")[f"{side}_median"] == pytest.approx(own["median"], rel=1e-12)
        assert only(table, "S_min")[f"{side}_upper"] == pytest.approx(own["ci_upper"], rel=1e-12)


def test_ratios_are_those_of_independent_draws(table, fits):
    row = only(table, "S_min")
    a, b = (fit.posterior["S_min"].sel(threshold=0.65).values.ravel() for fit in fits.values())
    every = np.log(a)[:, None] - np.log(b)[None, :]
    found = row[["ratio_lower", "ratio", "ratio_upper"]].astype(float)
    np.testing.assert_allclose(np.log(found), np.quantile(every, [0.05, 0.5, 0.95]), atol=0.02)
    assert row["p_first_larger"] == pytest.approx((every > 0).mean(), abs=1e-12)
    np.testing.assert_allclose(row["difference"], np.median(a[:, None] - b), rtol=0.05)


@pytest.mark.parametrize(("first", "second", "settled"), [
    ("identified", "identified", "identified"), ("identified", "lower_bound", "upper_bound"),
    ("identified", "upper_bound", "lower_bound"), ("lower_bound", "upper_bound", "lower_bound"),
    ("upper_bound", "lower_bound", "upper_bound"), ("lower_bound", "lower_bound", "not_identified"),
    ("not_identified", "identified", "not_identified")])
def test_a_ratio_is_settled_where_its_parts_are(first, second, settled):
    assert ratio_status(first, second) == settled


def test_open_ends_stay_empty(table):
    for prefix, status in (("first_", "first_status"), ("ratio_", "status")):
        open_above = table[table[status].isin(["lower_bound", "not_identified"])]
        assert open_above[f"{prefix}upper"].isna().all()
    loose = table[table["status"] != "identified"]
    assert loose[["ratio", "difference", "p_first_larger"]].isna().all(axis=None)


def test_numbers_of_different_laws_are_not_put_in_relation(fits):
    both = {"alpha": fits["alpha"], "gamma": changed(fits["beta"], law="two_axis_sqrt")}
    table = compare_fits(both)
    bound = table["quantity"].isin(LAW_BOUND)
    assert bound.any()
    assert not bound.all()
    assert (table.loc[bound, "status"] == "not_comparable").all()
    assert table.loc[bound, ["ratio", "difference", "p_first_larger"]].isna().all(axis=None)
    assert (table.loc[~bound, "status"] != "not_comparable").all()
    assert any("laws differ" in line for line in remarks(both))


def test_passes_over_a_batch_are_compared_in_samples_and_along_diagonals(fits):
    """Two passes: half the samples generated at one batch; 32 prompts then match 64 of one pass."""
    two = xr.full_like(fits["beta"].sweep["ppo_epochs"], 2)
    twice = changed(fits["beta"], sweep=fits["beta"].sweep.assign_coords(
        ppo_epochs=two, updates_per_step=two))
    table = compare_fits({"one": fits["alpha"], "two": twice})
    at = "n_prompts=64,n_rollouts=8"
    steps, samples = (only(table, name, at=at) for name in ("steps", "generated_samples"))
    assert samples["first_median"] == pytest.approx(512 * steps["first_median"])
    assert samples["second_median"] == pytest.approx(256 * steps["second_median"])
    assert samples["ratio"] == pytest.approx(2 * steps["ratio"], rel=0.03)
    diagonal = "n_rollouts=8,passes_per_step=512"
    across, passes = (only(table, name, at=diagonal) for name in ("steps", "sample_passes"))
    assert across["first_median"] == pytest.approx(steps["first_median"])
    assert across["second_median"] == pytest.approx(
        only(table, "steps", at="n_prompts=32,n_rollouts=8")["second_median"])
    assert passes["ratio"] == pytest.approx(2 * across["ratio"], rel=0.03)
    assert "generated_samples" not in set(compare_fits(fits)["quantity"])


def test_remarks_name_simulated_and_failed_fits(fits):
    lines = remarks(fits)
    assert sum("simulated" in line for line in lines) == 2
    failed = sum("checks not passed by" in line for line in lines)
    assert failed == sum(not fit.verdict["sampling"]["passed"] for fit in fits.values())


def test_what_cannot_be_compared_is_refused(fits, one_axis):
    alpha, beta = fits.values()
    for given, message in (({"a": alpha}, "needs two"),
                           ({"a": alpha, "d": one_axis}, "--law total"),
                           ({"a": alpha, "b": labelled(beta, direction="decreasing")},
                            "same kind of target")):
        with pytest.raises(CBSDataError, match=message):
            check_comparable(given)


def test_runs_in_both_fits_are_named(fits):
    """Half of one sweep's runs in the other: allowed, with the reason why it is not quite right."""
    alpha, beta = fits.values()
    accuracy = beta.sweep["accuracy"].copy()
    accuracy[:accuracy.sizes["run"] // 2] = alpha.sweep["accuracy"][:accuracy.sizes["run"] // 2]
    both = {"a": alpha, "m": changed(beta, sweep=beta.sweep.assign(accuracy=accuracy))}
    assert any("not independent" in line for line in remarks(both))
    check_comparable(both)


def test_without_common_thresholds_the_remedy_is_named(fits):
    alpha, beta = fits.values()
    near, far = (Fit(xr.DataTree.from_dict(beta.tree.to_dict() | {
        "/posterior": beta.posterior.assign_coords(threshold=list(levels))}))
        for levels in ((0.62, 0.66), (0.7, 0.72)))
    assert "--thresholds 0.62,0.65" in nothing_in_common({"a": alpha, "e": near})
    with pytest.raises(CBSDataError, match="do not meet"):
        compare_fits({"a": alpha, "z": far})


def test_labels_tell_fits_apart(fits, tmp_path):
    alpha = fits["alpha"]
    groups = [changed(alpha, group=f"{name} · simulated") for name in ("one", "other")]
    places = [tmp_path / "x" / "fit.nc", tmp_path / "y" / "fit.nc"]
    assert label_fits(groups, places) == ["one", "other"]
    assert label_fits([alpha, alpha], places) == ["x", "y"]


def test_folders_of_groups_count_as_several(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "fits" / name).mkdir(parents=True)
        (tmp_path / "fits" / name / "fit.nc").touch()
    folder = tmp_path / "fits"
    assert [path.parent.name for path in find_fits([folder])] == ["one", "two"]
    for given, message in (([folder, folder / "one"], "given twice"),
                           ([tmp_path / "none"], "does not exist"),
                           ([tmp_path], r"holds no fit\.nc")):
        with pytest.raises(CBSDataError, match=message):
            find_fits(given)
