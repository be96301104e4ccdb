"""Fits side by side: numbers against draws, bounds, refusals, and the command's files."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fitted import SETTINGS, groups_sweep, quick_sampling, run
from page_reader import check_command_page

from cbsbayes.compare import main
from cbsbayes.decisions.comparable import check_comparable, no_common_thresholds, remarks
from cbsbayes.decisions.compare_fits import (
    COMPARE_COLUMNS,
    LAW_BOUND,
    Side,
    compare_sides,
    ratio_status,
)
from cbsbayes.decisions.given_fits import find_fits, label_fits
from cbsbayes.decisions.pooled_table import ANOTHER, MEAN, POOLED_COLUMNS, few_groups, pooled_table
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.report.contrast import contrast_sentences, main_rows
from cbsbayes.simulate import simulate_sweep
from cbsbayes.sweep.files import write_sweep

THRESHOLDS = (0.6, 0.65)


def make(model, seed, law="auto", thresholds=THRESHOLDS, design="p1+p2b", truth="two_axis"):
    ds = simulate_sweep(design, 1, law=truth, random_seed=seed)
    ds["model"] = ds["model"].astype("<U20")
    ds["model"][:] = model
    with quick_sampling():
        return fit_sweep(ds, law=law, thresholds=thresholds, sampler=SETTINGS, beside=False)


@pytest.fixture(scope="module")
def fits():
    return [make("alpha", 11), make("beta", 12)]


@pytest.fixture(scope="module")
def sides(fits):
    return [Side(name, fit) for name, fit in zip(("alpha", "beta"), fits, strict=True)]


@pytest.fixture(scope="module")
def table(sides):
    return compare_sides(sides)


@pytest.fixture(scope="module")
def other_law():
    return make("gamma", 13, law="two_axis_sqrt")


@pytest.fixture(scope="module")
def folders(fits, tmp_path_factory):
    root = tmp_path_factory.mktemp("fits")
    for name, fit in zip(("one", "two"), fits, strict=True):
        (root / name).mkdir()
        fit.save(root / name / "fit.nc")
    return root


def test_rows_hold_what_both_fits_have(table, fits):
    assert list(table.columns) == COMPARE_COLUMNS
    assert set(table["threshold"].dropna()) == set(THRESHOLDS)
    known = set(zip(fits[0].cbs["quantity"], fits[0].cbs["at"], strict=True))
    assert set(zip(table["quantity"], table["at"], strict=True)) == known
    for side, fit in (("first", fits[0]), ("second", fits[1])):
        row = table[(table["quantity"] == "S_min") & (table["threshold"] == 0.65)].iloc[0]
        own = fit.cbs[(fit.cbs["quantity"] == "S_min") & (fit.cbs["threshold"] == 0.65)].iloc[0]
        assert row[f"{side}_median"] == pytest.approx(own["median"], rel=1e-12)
        assert row[f"{side}_upper"] == pytest.approx(own["ci_upper"], rel=1e-12)


def test_ratios_are_those_of_independent_draws(table, fits):
    row = table[(table["quantity"] == "S_min") & (table["threshold"] == 0.65)].iloc[0]
    a, b = (fit.posterior["S_min"].sel(threshold=0.65).values.ravel() for fit in fits)
    every = np.log(a)[:, None] - np.log(b)[None, :]
    expected = np.exp(np.quantile(every, [0.05, 0.5, 0.95]))
    found = row[["ratio_lower", "ratio", "ratio_upper"]].astype(float)
    np.testing.assert_allclose(np.log(found), np.log(expected), atol=0.02)
    assert row["p_first_larger"] == pytest.approx((every > 0).mean(), abs=1e-12)
    np.testing.assert_allclose(row["difference"], np.median(a[:, None] - b), rtol=0.05)


def test_the_other_way_round_is_the_inverse(table, sides):
    back = compare_sides(sides[::-1])
    for (_, one), (_, two) in zip(table.iterrows(), back.iterrows(), strict=True):
        if one["status"] == "identified":
            assert one["p_first_larger"] == pytest.approx(1 - two["p_first_larger"], abs=1e-9)
            assert one["ratio"] == pytest.approx(1 / two["ratio"], rel=0.05)


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


def test_different_laws_are_named_and_their_numbers_not_put_in_relation(sides, other_law):
    table = compare_sides([sides[0], Side("gamma", other_law)])
    bound = table["quantity"].isin(LAW_BOUND)
    assert bound.any()
    assert not bound.all()
    assert (table.loc[bound, "status"] == "not_comparable").all()
    assert table.loc[bound, ["ratio", "difference", "p_first_larger"]].isna().all(axis=None)
    assert (table.loc[~bound, "status"] != "not_comparable").all()
    assert set(table["second_law"]) == {"two_axis_sqrt"}
    told = contrast_sentences(table[table["quantity"] == "cbs_prompts"])
    assert all("two_axis_sqrt" in line and "two_axis_free" in line for line in told)
    assert any("laws differ" in line for line in remarks([sides[0].fit, other_law], ["a", "c"]))


def test_simulated_runs_are_said_to_be_simulated(fits):
    assert sum("simulated" in line for line in remarks(fits, ["a", "b"])) == 2


def test_the_same_runs_are_refused(fits):
    with pytest.raises(CBSDataError, match="fits of the same runs"):
        check_comparable([fits[0], fits[0]], ["a", "b"])
    with pytest.raises(CBSDataError, match="needs two"):
        check_comparable(fits[:1], ["a"])


def test_total_batches_are_refused_beside_two_axes(fits):
    one_axis = make("delta", 5, law="total", design="batch", truth="total")
    with pytest.raises(CBSDataError, match="--law total"):
        check_comparable([fits[0], one_axis], ["a", "d"])


def test_opposite_directions_are_refused(fits):
    tree = fits[1].tree.copy()
    tree["sweep"].attrs["direction"] = "decreasing"
    with pytest.raises(CBSDataError, match="same kind of target"):
        check_comparable([fits[0], Fit(tree)], ["a", "b"])


def test_shared_runs_are_told(fits):
    """Half of one sweep's runs in the other: allowed, with the reason why it is not quite right."""
    first = simulate_sweep("p1+p2b", 1, random_seed=11)
    second = simulate_sweep("p1+p2b", 1, random_seed=12)
    half = first.sizes["run"] // 2
    second["accuracy"][:half] = first["accuracy"][:half].values
    with quick_sampling():
        mixed = fit_sweep(second, thresholds=THRESHOLDS, sampler=SETTINGS, beside=False)
    told = remarks([fits[0], mixed], ["a", "m"])
    assert any("not independent" in line for line in told)
    check_comparable([fits[0], mixed], ["a", "m"])


def test_without_common_thresholds_the_remedy_is_named(fits):
    other = make("epsilon", 14, thresholds=(0.62, 0.66))
    message = no_common_thresholds([fits[0], other], ["a", "e"])
    assert "--thresholds 0.62,0.65" in message
    far = make("zeta", 15, thresholds=(0.7, 0.72))
    assert "do not meet" in no_common_thresholds([fits[0], far], ["a", "z"])


def test_pooling_keeps_the_fits_and_draws_them_together(sides):
    table = pooled_table(sides, names=["cbs_prompts", "gain_prompts"])
    assert list(table.columns) == POOLED_COLUMNS
    assert set(table["member"]) == {"alpha", "beta", MEAN, ANOTHER}
    for _, rows in table.groupby(["quantity", "at", "threshold"]):
        by = rows.set_index("member")
        ends = np.log(by.loc[["alpha", "beta"], "alone"].astype(float))
        after = np.log(by.loc[["alpha", "beta"], "pooled"].astype(float))
        assert np.ptp(after) <= np.ptp(ends) + 0.02  # draws of the stand-in posterior scatter
        assert by.loc[ANOTHER, "pooled_upper"] > by.loc[MEAN, "pooled_upper"]
    assert "Two groups" in few_groups(table)


def test_laws_are_not_pooled(sides, other_law):
    table = pooled_table([sides[0], Side("gamma", other_law)])
    assert not set(table["quantity"]) & LAW_BOUND
    assert "gain_prompts" in set(table["quantity"])


def test_labels_tell_fits_apart(fits, tmp_path):
    places = [tmp_path / "x" / "fit.nc", tmp_path / "y" / "fit.nc"]
    assert label_fits(fits, places) == ["alpha", "beta"]
    assert label_fits([fits[0], fits[0]], places) == ["x", "y"]


def test_folders_of_groups_count_as_several(folders, tmp_path):
    assert [path.parent.name for path in find_fits([folders])] == ["one", "two"]
    with pytest.raises(CBSDataError, match="given twice"):
        find_fits([folders, folders / "one"])
    with pytest.raises(CBSDataError, match="does not exist"):
        find_fits([tmp_path / "none"])
    with pytest.raises(CBSDataError, match=r"holds no fit\.nc"):
        find_fits([tmp_path])


def test_the_command_writes_table_sentences_and_figure(folders, tmp_path, capsys):
    assert main([str(folders), "-o", str(tmp_path), "--pool"]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["compare.csv", "compare.pdf", "compare.png", "compare.txt", "index.html",
                     "paper.tex", "paper.txt", "pooled.csv", "tables"]
    table = pd.read_csv(tmp_path / "compare.csv", keep_default_na=False, na_values=[""])
    assert list(table.columns) == COMPARE_COLUMNS
    text = (tmp_path / "compare.txt").read_text()
    assert "Two groups" in text
    assert "P(alpha larger)" in text
    assert "for typical runs" in text
    assert "\\x" not in text
    out = capsys.readouterr().out
    assert "alpha against beta at target 0.65" in out
    page = check_command_page(tmp_path, out)
    assert "How do alpha and beta differ" in page.words
    assert "alpha against beta at every target" in page.words
    assert (tmp_path / "tables" / "pooled.csv").exists()
    assert main([str(folders), "-o", str(tmp_path), "--quiet"]) == 0
    assert not (tmp_path / "pooled.csv").exists()
    assert not (tmp_path / "tables" / "pooled.csv").exists()
    assert capsys.readouterr().out == ""


def test_json_has_no_nan(folders, tmp_path, capsys):
    assert main([str(folders), "-o", str(tmp_path), "--json", "--quantity", "alpha,S_min"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert {row["quantity"] for row in found["compare"]} == {"alpha", "S_min"}


@pytest.mark.parametrize(("arguments", "words"), [
    (["--quantity", "cbs"], "no fit has the quantity cbs; valid: "),
    (["--threshold", "0.9"], "is not common to alpha and beta; common: 0.6, 0.65"),
    (["--ci-prob", "1.5"], "valid: from 0.5 to below 1"),
])
def test_faults_are_one_line(folders, tmp_path, capsys, arguments, words):
    assert main([str(folders), "-o", str(tmp_path), *arguments]) == 1
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_fit_that_is_not_trusted_is_told_and_gives_status_3(fits, tmp_path, capsys):
    tree = fits[1].tree.copy()
    tree.attrs["verdict"] = json.dumps(fits[1].verdict | {"trusted": False})
    for name, fit in (("one", fits[0]), ("two", Fit(tree))):
        (tmp_path / name).mkdir()
        fit.save(tmp_path / name / "fit.nc")
    assert main([str(tmp_path), "-o", str(tmp_path / "out")]) == 3
    assert "beta did not pass its checks" in capsys.readouterr().out
    assert "Not all of these fits are to be trusted yet" in check_command_page(
        tmp_path / "out").words
    assert (tmp_path / "out" / "compare.csv").exists()


def test_the_first_rows_are_what_leans_least_on_the_law(table):
    rows = main_rows(table, {"n_prompts": 128.0, "n_rollouts": 8.0}, 0.65)
    assert rows["quantity"].iloc[0] == "gain_prompts"
    assert not rows.duplicated("quantity").any()
    assert "cbs_samples" not in set(rows["quantity"])


def test_runs_are_known_under_other_names(tmp_path, capsys):
    """Two groups of one file whose runs are the same curves."""
    path = write_sweep(groups_sweep(), tmp_path / "sweep.nc")
    assert run(path, "-o", tmp_path / "fits", "--quiet") in (0, 3)
    assert main([str(tmp_path / "fits"), "-o", str(tmp_path / "out")]) == 1
    assert "fits of the same runs" in capsys.readouterr().err


def test_draws_used_are_the_posterior(sides):
    draws = sides[0].draws(("S_min", ""), 1)
    np.testing.assert_array_equal(draws, sides[0].fit.posterior["S_min"].values[..., 1].ravel())
