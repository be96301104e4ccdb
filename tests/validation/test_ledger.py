"""What is finished stays finished, and other settings are not mixed in."""

from __future__ import annotations

import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.validation.ledger import Ledger

SETTINGS = {"draws": 500, "thresholds": [0.6, 0.7]}


@pytest.fixture
def path(tmp_path):
    ledger = Ledger(tmp_path / "new" / "study.jsonl", SETTINGS)
    ledger.add(0, {"rows": [["a", 0.6, float("inf")]], "sampling": {}})
    ledger.add(1, {"error": "ValueError: once"})
    return ledger.path


def test_sweeps_are_found_again_and_failed_ones_are_not_finished(path):
    again = Ledger(path, SETTINGS)
    assert again.finished == {0}
    assert again.records[0]["rows"] == [["a", 0.6, float("inf")]]
    again.add(1, {"rows": [], "sampling": {}})
    assert Ledger(path, SETTINGS).finished == {0, 1}
    assert len(path.read_text().splitlines()) == 4  # appended, nothing rewritten


def test_a_line_cut_off_while_written_is_fitted_again(path):
    whole = path.read_text()
    path.write_text(whole + '{"seed": 2, "rows": [["a", 0.')
    ledger = Ledger(path, SETTINGS)
    assert ledger.finished == {0}
    ledger.add(2, {"rows": [], "sampling": {}})
    assert Ledger(path, SETTINGS).finished == {0, 2}


def test_other_settings_are_refused(path):
    with pytest.raises(CBSDataError, match="made with draws = 500, now draws is 400"):
        Ledger(path, SETTINGS | {"draws": 400})
    with pytest.raises(CBSDataError, match="made with law = None, now law is 'total'"):
        Ledger(path, SETTINGS | {"law": "total"})


@pytest.mark.parametrize("content", ["run,step\n1,2\n", "[1]\n", '{"seed": 0}\n'])
def test_a_file_that_is_no_ledger_is_left_alone(tmp_path, content):
    path = tmp_path / "other.jsonl"
    path.write_text(content)
    with pytest.raises(CBSDataError, match="not a file of cbsbayes"):
        Ledger(path, SETTINGS)
    assert path.read_text() == content
