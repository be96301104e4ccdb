"""``python -m cbsbayes.validate``: studies run, go on, are refused, and end up on a page."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from cbsbayes.sweep.dataset import new_sweep
from cbsbayes.sweep.files import write_sweep
from cbsbayes.validate import main

QUICK = ["--law", "two_axis", "--draws", "50", "--tune", "100", "--thresholds", "0.62,0.68",
         "--workers", "1"]


def run(*arguments):
    return main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a coverage study of two families and a calibration."""
    folder = tmp_path_factory.mktemp("validation")
    assert run("--family", "p1+p2b,hill", "--sweeps", 1, "-o", folder, "--quiet", *QUICK) == 0
    assert run("sbc", "--sweeps", 2, "-o", folder, "--quiet", *QUICK) == 0
    return folder


@pytest.mark.mcmc
def test_tables_figures_and_page_of_all_studies(folder):
    coverage = pd.read_csv(folder / "coverage.csv")
    assert set(coverage["family"]) == {"p1+p2b", "hill"}
    assert set(coverage["method"]) == {"posterior", "curve_fit", "log_fit_t", "log_fit_boot"}
    assert coverage.query("threshold == 'all'")["n"].eq(2).all()
    assert pd.read_csv(folder / "sbc.csv")["n"].eq(2).all()
    studies = json.loads((folder / "studies.json").read_text())
    assert [s["summary"]["sweeps"] for s in studies.values()] == [1, 1, 2]
    page = (folder / "README.md").read_text()
    for study in studies.values():
        assert f"`{study['command']}`" in page
    for line in page.splitlines():
        if line.startswith("!["):
            drawn = folder / line.partition("(")[2].rstrip(")")
            assert "<svg" in drawn.read_text("utf-8")


@pytest.mark.mcmc
def test_a_second_run_fits_only_what_is_missing_and_other_settings_are_refused(folder, capsys):
    ledger = folder / "sweeps" / "coverage-hill-two_axis-crossing.jsonl"
    before = ledger.read_text()
    assert run("--family", "hill", "--sweeps", 2, "-o", folder, *QUICK) == 0
    after = ledger.read_text()
    assert after.startswith(before)
    assert len(after.splitlines()) == len(before.splitlines()) + 1
    out, err = capsys.readouterr()
    assert "2 sweeps fitted" in out
    assert "cbsbayes.validate: sweep 2 of 2, " in err
    pooled = pd.read_csv(folder / "coverage.csv").query("threshold == 'all'")
    assert pooled.groupby("family")["n"].first().to_dict() == {"p1+p2b": 2, "hill": 4}
    other = [*QUICK[:3], "60", *QUICK[4:]]
    assert run("--family", "hill", "--sweeps", 2, "-o", folder, "--quiet", *other) == 1
    assert "made with draws = 50, now draws is 60" in capsys.readouterr().err


@pytest.mark.mcmc
def test_fits_that_fail_are_counted_and_named(tmp_path, capsys):
    """Below the accuracy before training there is nothing to fit."""
    arguments = [*QUICK[:-4], "--thresholds", "0.3", "--workers", "1"]
    assert run("--sweeps", 1, "-o", tmp_path, *arguments) == 3
    assert "0 sweeps fitted. 1 failed and count for nothing: seed 0: CBSDataError: no run" in (
        capsys.readouterr().out)
    assert "1 failed" in (tmp_path / "README.md").read_text()


@pytest.mark.mcmc
def test_seeds_of_a_table(tmp_path):
    rng = np.random.default_rng(0)
    batch = np.repeat([64.0, 128, 256, 512, 1024], 4)
    steps = (100 * (1 + 500 / batch) * np.exp(rng.normal(0, 0.05, 20)))[:, None]
    write_sweep(new_sweep({"run": [f"r{i}" for i in range(20)], "total_batch": batch},
                          steps_lower=steps, steps_upper=steps, threshold=[1.0]),
                tmp_path / "runs.nc")
    assert run("seeds", "--table", tmp_path / "runs.nc", "--sweeps", 1, "-o", tmp_path / "out",
               "--draws", 50, "--tune", 100, "--workers", 1, "--quiet") == 0
    table = pd.read_csv(tmp_path / "out" / "seeds.csv")
    assert set(table["table"]) == {"runs"}
    assert {"B_noise", "S_min", "gain_total"} <= set(table["quantity"])
    assert "| B_noise |" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--family", "base,bass"], "unknown family 'bass'"),
    (["--law", "cubic"], "unknown law 'cubic'"), (["--model", "oracle"], "unknown model 'oracle'"),
    (["--draws", "3"], "draws is 3"), (["seeds"], "seeds needs --table FILE"),
    (["--table", "runs.nc"], "--table is for seeds"),
    (["sbc", "--average"], "--average is for coverage, not for sbc; leave it out")])
def test_what_cannot_be_done_is_refused_before_anything_is_fitted(arguments, message, tmp_path,
                                                                  capsys):
    assert run("-o", tmp_path / "out", *arguments) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
