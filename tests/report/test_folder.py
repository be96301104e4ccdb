"""A fit's folder: what is in it, how it replaces an earlier one, and nothing half-written."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fitted import changed, few_figures

from cbsbayes.errors import CBSDataError
from cbsbayes.plots import gallery
from cbsbayes.posterior.fit import Fit
from cbsbayes.report.facts import Facts
from cbsbayes.report.folder import draw_figures, fit_summary, write_fit

FILES = ["averaged.csv", "cbs.csv", "comparison.csv", "figures", "fit.json", "fit.nc", "index.html",
         "manifest.json", "overhead.csv", "paper.tex", "paper.txt", "runs.csv", "tables"]


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_netcdf_holds_the_groups_of_the_contract(written, fit):
    xr.testing.assert_identical(Fit.load(written).tree, fit.tree)
    with xr.open_dataset(written / "fit.nc", group="posterior") as posterior:
        assert {"S_min", "B_prompt", "B_rollout", "alpha"} <= set(posterior.data_vars)


@pytest.mark.parametrize(("name", "columns"), [
    ("cbs", "group law threshold quantity at unit median mean sd ci_lower ci_upper ci_prob "
            "ci_kind status r_hat ess_bulk ess_tail"),
    ("comparison", "group threshold axis at method S_min B_noise ci_lower ci_upper n_runs_used "
                   "n_runs_dropped r2"),
])
def test_tables_have_exactly_the_columns_of_the_contract(written, fit, name, columns):
    table = pd.read_csv(written / f"{name}.csv", keep_default_na=False, na_values=[""])
    assert list(table.columns) == columns.split()
    expected = getattr(fit, name)
    assert len(table) == len(expected)
    for column in table:
        kept = expected[column]
        if kept.dtype.kind == "f":
            np.testing.assert_array_equal(table[column].astype(float), kept)
        else:
            assert table[column].fillna("").astype(str).tolist() == kept.astype(str).tolist()


def test_runs_have_the_columns_of_the_contract_and_two_per_threshold(written, fit):
    table = pd.read_csv(written / "runs.csv")
    bounds = [f"{bound}_{t:g}" for t in fit.thresholds for bound in ("lower", "upper")]
    columns = ("run name phase n_prompts n_rollouts total_batch seed state used reason "
               "first_step last_step attempts remark")
    assert list(table.columns) == [*columns.split(), *bounds]
    assert table["run"].tolist() == fit.sweep["run"].values.tolist()
    used = table[table["used"]]
    first = float(fit.thresholds[0])
    np.testing.assert_array_equal(used[f"upper_{first:g}"],
                                  fit.crossings["upper"].sel(threshold=first))


def test_statuses_and_units_are_of_the_contract(written):
    table = pd.read_csv(written / "cbs.csv", keep_default_na=False, na_values=[""])
    assert set(table["status"]) <= {"identified", "upper_bound", "lower_bound", "not_identified"}
    loose = table[table["status"] != "identified"]
    assert loose[["median", "mean", "sd"]].isna().all(axis=None)
    assert set(table["quantity"]) <= {
        "S_min", "E_min", "alpha", "B_noise", "B_prompt", "B_rollout", "gain_prompts",
        "gain_rollouts", "batch_at_gain", "cbs_prompts", "cbs_samples", "cbs_rollouts",
        "best_n_rollouts", "steps"}
    assert set(table["ci_kind"]) == {"eti"}


def refuse(token):
    raise AssertionError(f"{token} is no JSON")


def test_the_json_is_json_and_says_how_it_was_made(written, fit):
    found = json.loads((written / "fit.json").read_text(), parse_constant=refuse)
    assert {"group", "answer", "law", "formula", "thresholds", "ci_prob", "versions", "data_digest",
            "priors", "checks_made", "diagnostics", "sampling", "reached", "identified",
            "sentences", "level", "title", "laws"} <= set(found)
    assert found["data_digest"] == fit.settings["data_digest"]
    assert found["n_runs"] + found["n_runs_left_out"] == fit.sweep.sizes["run"]
    assert [row["law"] for row in found["laws"]] == fit.law_table["law"].tolist()
    assert found["laws"][0]["elpd"] == fit.law_table["elpd"][0]


def test_numbers_that_json_cannot_hold_are_null(fit):
    worst = {"r_hat_max": math.nan, "ess_bulk_min": 3.0}
    found = fit_summary(Facts(changed(fit, verdict=fit.verdict | {"diagnostics": worst})))
    assert found["diagnostics"] == worst | {"r_hat_max": None}
    json.dumps(found, allow_nan=False)


def test_the_page_shows_the_figures_and_the_command(written, fit):
    page = (written / "index.html").read_text()
    assert "python -m cbsbayes.fit sweep.nc" in page
    drawn = list((written / "figures").iterdir())
    assert len(drawn) > 5
    assert {path.suffix for path in drawn} == {".svg"}
    assert page.count("data:image/svg+xml,") == len(drawn)


@pytest.mark.parametrize(("which", "kinds"), [
    ("none", set()), ("page", {".svg"}), ("pdf", {".svg", ".pdf"}), ("all", {".svg"})])
def test_figures_can_be_chosen(fit, tmp_path, monkeypatch, which, kinds):
    items = {item.slug: item for item in gallery.all_figures(fit)}
    few = [items["gains"], items["laws"]]
    monkeypatch.setattr(gallery, "page_figures", lambda fit: few[:1])
    monkeypatch.setattr(gallery, "all_figures", lambda fit: few)
    draw_figures(fit, tmp_path / "figures", which)
    files = list((tmp_path / "figures").iterdir())
    assert {path.suffix for path in files} == kinds
    assert ("laws" in {path.stem for path in files}) == (which in ("all", "pdf"))


def test_a_fit_is_written_in_stages_and_replaces_an_earlier_one_cleanly(written, fit, tmp_path):
    folder, said = tmp_path / "new" / "folder", []
    with few_figures(2):
        write_fit(fit, folder, stage=said.append)
    assert said == ["writing fit.nc", "writing tables", "drawing figures", "writing the page"]
    (folder / "figures" / "notes.txt").write_text("the user's")
    with few_figures():
        write_fit(fit, folder)
    assert listing(folder) == FILES
    drawn = listing(folder / "figures")
    assert "notes.txt" in drawn
    assert len(drawn) == 2
    for name in ("cbs.csv", "comparison.csv", "runs.csv", "fit.json"):
        assert (folder / name).read_bytes() == (written / name).read_bytes()
    xr.testing.assert_identical(Fit.load(folder).tree, Fit.load(written).tree)


def test_a_figure_without_data_says_why_and_leaves_no_file(fit, tmp_path, monkeypatch):
    def missing():
        raise CBSDataError("no step times were logged")

    first = next(item for item in gallery.page_figures(fit) if item.slug == "gains")
    items = [first, first._replace(slug="steps_prompts", draw=missing)]
    monkeypatch.setattr(gallery, "page_figures", lambda fit, **options: items)
    write_fit(fit, tmp_path)
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {first.slug}
    assert "no step times were logged" in (tmp_path / "index.html").read_text()


def test_a_disk_that_refuses_is_one_line_with_the_folder(fit, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cbsbayes.report.folder.write_whole", full)
    with pytest.raises(CBSDataError, match=r"cannot write into .*: No space left on device; free"):
        write_fit(fit, tmp_path)
