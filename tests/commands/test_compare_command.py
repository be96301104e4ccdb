"""``cbsbayes.compare``: files, page, output and faults of the command."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from fitted import changed, verdict_of
from page_reader import check_command_page

from cbsbayes.compare import main
from cbsbayes.decisions.batches import COLUMNS
from cbsbayes.posterior.fit import Fit


@pytest.fixture(scope="module")
def folders(pair, tmp_path_factory):
    """A folder of two fits."""
    root = tmp_path_factory.mktemp("fits")
    for name, fit in zip(("alpha", "beta"), pair, strict=True):
        (root / name).mkdir()
        fit.save(root / name / "fit.nc")
    return root


def test_the_command_writes_table_sentences_and_figure(folders, tmp_path, capsys):
    assert main([str(folders), "-o", str(tmp_path)]) == 0
    assert {"compare.csv", "compare.svg", "compare.txt", "index.html", "paper.tex", "paper.txt",
            "tables"} <= {path.name for path in tmp_path.iterdir()}
    table = pd.read_csv(tmp_path / "compare.csv", keep_default_na=False, na_values=[""])
    assert list(table.columns) == COLUMNS["compare"]
    assert "P(alpha larger)" in (tmp_path / "compare.txt").read_text()
    out = capsys.readouterr().out
    assert "alpha against beta at target 0.65" in " ".join(out.split())
    assert "alpha against beta at every target" in check_command_page(tmp_path, out).words
    assert main([str(folders), "-o", str(tmp_path), "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_json_has_no_nan(folders, tmp_path, capsys):
    assert main([str(folders), "-o", str(tmp_path), "--json", "--quantity", "alpha,S_min"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert {row["quantity"] for row in found["compare"]} == {"alpha", "S_min"}


@pytest.mark.parametrize(("arguments", "words"), [
    (["--quantity", "cbs"], "no two fits have the quantity cbs; valid: "),
    (["--threshold", "0.9"], "is not common to alpha and beta; common: 0.6, 0.65"),
    (["--ci-prob", "1.5"], "valid: from 0.5 to below 1"),
])
def test_faults_are_one_line(folders, tmp_path, capsys, arguments, words):
    assert main([str(folders), "-o", str(tmp_path), *arguments]) == 1
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_failed_sampling_is_named_and_gives_status_3(folders, tmp_path, capsys):
    beta = changed(Fit.load(folders / "beta"), verdict=verdict_of(failed=True))
    failed = beta.save(tmp_path / "fit.nc")
    assert main([str(folders / "alpha"), str(failed), "-o", str(tmp_path / "out")]) == 3
    assert "not passed by beta" in capsys.readouterr().out
    check_command_page(tmp_path / "out")
    assert (tmp_path / "out" / "compare.csv").exists()


def test_the_same_runs_under_another_model_s_name_are_refused(folders, tmp_path, capsys):
    again = changed(Fit.load(folders / "alpha"), group="gamma").save(tmp_path / "fit.nc")
    assert main([str(folders / "alpha"), str(again), "-o", str(tmp_path / "out")]) == 1
    assert "fits of the same runs" in capsys.readouterr().err
