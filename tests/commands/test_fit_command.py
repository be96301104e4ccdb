"""``python -m cbsbayes.fit``: what it writes, prints and answers, for one group and for several."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os

import pandas as pd
import pytest
from fitted import QUICK, few_figures, groups_sweep, narrow_draws, quick_sampling, run

from cbsbayes.__main__ import command_of
from cbsbayes.fit import main
from cbsbayes.posterior.fit import Fit
from cbsbayes.sweep.files import default_sweep_path, write_sweep

FILES = ["averaged.csv", "cbs.csv", "comparison.csv", "figures", "fit.json", "fit.nc", "index.html",
         "manifest.json", "overhead.csv", "paper.tex", "paper.txt", "runs.csv", "tables"]
PARTS = [name for name in FILES if name != "manifest.json"]  # of a group's folder


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def json_of(text):
    """Return strict JSON: no NaN, no infinity."""
    return json.loads(text, parse_constant=lambda token: pytest.fail(f"{token} is no JSON"))


def diverging(data, law, settings):
    tree = narrow_draws(data, law, settings)
    tree["sample_stats"]["diverging"][0, :3] = True
    return tree


def stuck(data, law, settings):
    """Return draws in which one chain never moved from where it began."""
    tree = narrow_draws(data, law, settings)
    for name in ("S_min", "B_noise"):
        tree["posterior"][name][0] = tree["posterior"][name][0, 0]
    return tree


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Two groups that are fitted and one that has too few batch sizes, in a folder of a fit.

    Returns the folder and what was printed as JSON.
    """
    place = tmp_path_factory.mktemp("groups")
    path = write_sweep(groups_sweep(few="few\nruns"), place / "sweep.nc")
    assert run(path, "-o", place / "out", "--quiet", "--group", "small") == 0
    assert listing(place / "out") == FILES
    assert Fit.load(place / "out").group == "small"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert run(path, "-o", place / "out", "--json") == 0
    return place / "out", json_of(printed.getvalue())


def test_one_group_one_folder(sweep_file, tmp_path, capsys):
    out = tmp_path / "a" / "fit"
    assert run(sweep_file, "-o", out, "--thresholds", "0.65,65") == 0
    said, err = capsys.readouterr()
    assert listing(out) == FILES
    assert said.splitlines()[-1] == f"Page, figures, tables and draws: {out / 'index.html'}"
    assert err.startswith("cbsbayes.fit: importing …\n")
    assert "cbsbayes.fit: sampling power, law 2 of 2, " in err
    assert err.endswith("cbsbayes.fit: writing the page …\n")
    page = (out / "index.html").read_text("utf-8")
    assert "python -m cbsbayes.fit" in page
    note = "Threshold 65 is left out: no run reached it (did you mean 0.65?)."
    assert note in " ".join(said.split())
    assert note in page
    found = json.loads((out / "fit.json").read_text())
    assert (found["thresholds"], found["level"]) == ([0.65], "limited")
    assert found["reached"]["left_out"] == {"65": "no run reached it (did you mean 0.65?)"}


def test_json_is_json_and_options_reach_the_fit(sweep_file, tmp_path, capsys):
    assert run(sweep_file, "-o", tmp_path, "--json", "--law", "power", "--thresholds",
               "0.62, 0.66", "--metric", "simulated/accuracy", "--rule", "first",
               "--ci-prob", "0.8", "--chains", "3") == 0
    out, err = capsys.readouterr()
    assert err == ""
    (found,) = json_of(out)
    tables = found.pop("folder_tables")
    assert found == json.loads((tmp_path / "fit.json").read_text())
    assert set(tables) == {"cbs", "overhead", "comparison", "runs"}
    for name, rows in tables.items():
        table = pd.read_csv(tmp_path / f"{name}.csv")
        assert len(rows) == len(table)
        assert list(rows[0]) == list(table.columns)
    fit = Fit.load(tmp_path)
    assert fit.law.name == "power"
    assert fit.thresholds.tolist() == [0.62, 0.66]
    assert fit.settings | {"rule": "first", "ci_prob": 0.8, "chains": 3, "draws": 200,
                           "tune": 100, "random_seed": 1} == fit.settings
    assert set(fit.cbs["ci_prob"]) == {0.8}
    s_min = [row["median"] for row in tables["cbs"] if row["quantity"] == "S_min"]
    assert s_min == pytest.approx(fit.cbs.query("quantity == 'S_min'")["median"].tolist())


def test_without_a_sweep_the_shipped_one_is_fitted(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("cbsbayes.sweep.files.read_sweep", seen.append)
    with pytest.raises(TypeError):
        main(["-o", str(tmp_path)])
    assert seen == [default_sweep_path()]


@pytest.mark.parametrize("draws", [diverging, stuck])
def test_failed_sampling_is_written_and_said(sweep_file, tmp_path, capsys, draws):
    with quick_sampling(draws), few_figures(1):
        status = main([str(sweep_file), "-o", str(tmp_path), "--json", *QUICK])
    assert status == 3
    (found,) = json_of(capsys.readouterr().out)
    assert found["sampling"]["passed"] is False
    assert not all(found["checks_made"].values())
    assert listing(tmp_path) == FILES
    json_of((tmp_path / "fit.json").read_text())


@pytest.mark.mcmc
def test_chains_too_short_to_agree_do_not_pass(sweep_file, tmp_path):
    """The real sampler, with the fewest draws that it takes."""
    with few_figures(1):
        status = main([str(sweep_file), "-o", str(tmp_path), "--quiet", "--draws", "50",
                       "--tune", "100", "--chains", "2", "--thresholds", "0.65"])
    assert status == 3
    found = json.loads((tmp_path / "fit.json").read_text())
    assert found["checks_made"]["ess_bulk_above_400"] is False
    assert "too few effective draws" in " ".join(found["sentences"])


def test_a_folder_per_group_and_tables_of_all(together):
    folder, printed = together
    assert listing(folder) == ["02_large_b_wide_b", "03_small", "averaged.csv", "cbs.csv",
                               "comparison.csv", "fit.json", "index.html", "manifest.json",
                               "overhead.csv", "runs.csv"]
    fitted = sorted(path for path in folder.iterdir() if path.is_dir())
    for path in fitted:
        assert listing(path) == PARTS
    for name in ("cbs", "comparison"):
        parts = [pd.read_csv(path / f"{name}.csv") for path in fitted]
        whole = pd.read_csv(folder / f"{name}.csv")
        pd.testing.assert_frame_equal(whole, pd.concat(parts, ignore_index=True))
        assert whole["group"].nunique() == 2
    assert {group["group"]: "not_fitted" in group for group in printed} == {
        "few\nruns": True, "large / <b>wide</b>": False, "small": False}
    page = (folder / "index.html").read_text()
    assert "&lt;b&gt;wide&lt;/b&gt;" in page
    assert "<b>wide</b>" not in page
    assert page.count("<a href=") == 2
    for path in fitted:
        assert f'href="./{path.name}/index.html"' in page


def test_runs_of_a_group_that_is_not_fitted_are_named_with_the_reason(together):
    folder, _ = together
    table = pd.read_csv(folder / "runs.csv")
    assert len(table) == groups_sweep().sizes["run"]
    left_out = table[table["group"] == "few\nruns"]
    assert len(left_out) == 2
    assert not left_out["used"].any()
    assert left_out["reason"].str.contains("not fitted: the .* may be fitted, 2;").all()
    assert table.loc[table["group"] != "few\nruns", "used"].all()
    (found,) = [g for g in json.loads((folder / "fit.json").read_text())["groups"]
                if g["group"] == "few\nruns"]
    assert "at least 3" in found["not_fitted"]


def test_one_failed_group_decides_the_status(tmp_path):
    path = write_sweep(groups_sweep(), tmp_path / "sweep.nc")
    calls = itertools.count()

    def second_diverges(data, law, settings):
        return (narrow_draws if next(calls) < 2 else diverging)(data, law, settings)

    with quick_sampling(second_diverges), few_figures(0):
        assert main([str(path), "-o", str(tmp_path / "out"), "--quiet", *QUICK]) == 3
    groups = json.loads((tmp_path / "out" / "fit.json").read_text())["groups"]
    assert [g["sampling"]["passed"] for g in groups] == [True, False]


def test_the_page_is_about_the_target_asked_for_and_can_be_made_again(sweep_file, tmp_path, capsys):
    fit = tmp_path / "fit"
    assert run(sweep_file, "-o", fit, "--quiet", "--thresholds", "0.6,0.65,0.7", "--target", "0.7",
               "--budget", "1e9") == 0
    assert "accuracy 0.7" in json.loads((fit / "fit.json").read_text())["answer"][0]
    table = (fit / "cbs.csv").read_bytes()
    with few_figures():
        assert command_of("report")([str(fit), "--target", "0.6", "--budget", "1e9"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "accuracy 0.6" in out
    assert "Target: as asked; budget: at most 1,000,000,000 samples." in out
    assert listing(fit) == FILES
    assert (fit / "cbs.csv").read_bytes() == table
    assert command_of("report")([str(fit), "--target", "0.123"]) == 1
    assert "threshold 0.123 was not fitted; fitted: 0.6, 0.65, 0.7" in capsys.readouterr().err
    assert run(sweep_file, "-o", tmp_path / "x", "--thresholds", "0.6", "--target", "0.7") == 1
    assert "--target is 0.7, which is not among --thresholds" in capsys.readouterr().err


def test_watching_fits_again_when_the_dataset_changes(sweep_file, tmp_path, monkeypatch):
    copy, waits = tmp_path / "sweep.nc", []
    copy.write_bytes(sweep_file.read_bytes())

    def wait(seconds):
        waits.append((tmp_path / "fit" / "fit.json").stat().st_mtime_ns)
        if len(waits) == 2:
            os.utime(copy)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", wait)
    assert run(copy, "-o", tmp_path / "fit", "--quiet", "--watch", "5") == 130
    assert waits[0] == waits[1] < waits[2]
