"""The page that all commands share: files beside it, text that stays text, folders it leaves."""

from __future__ import annotations

import pytest
from command_page_fixture import stand_in_page, stand_in_table
from page_reader import Page, check_command_page

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.report.command_page import (
    Part,
    check_page_folder,
    page_figure,
    paper_tex,
    render_command_page,
    write_command_page,
)
from cbsbayes.report.words import formula

HOSTILE = ["<script>alert(1)</script>", "x\ny", "{{7*7}}", "{% raw %}", "\"><img src=x>",
           "&lt;b&gt;", "javascript:alert(1)"]


def test_what_is_written(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "older.csv").write_text("of an earlier page")
    page = stand_in_page("some words")
    (tmp_path / "plan.png").write_bytes(page.parts[0].figures[0].png_bytes)
    assert write_command_page(page, tmp_path) == tmp_path / "index.html"
    check_command_page(tmp_path)
    assert sorted(path.stem for path in (tmp_path / "tables").glob("*.csv")) == [
        "all_runs", "made", "runs"]
    assert page_figure(tmp_path, "plan", "t", "c").png_bytes == page.parts[0].figures[0].png_bytes


def test_a_table_that_is_not_on_the_page_is_seen(tmp_path):
    page = stand_in_page("some words")
    (tmp_path / "plan.png").write_bytes(page.parts[0].figures[0].png_bytes)
    write_command_page(page, tmp_path)
    (tmp_path / "tables" / "runs.csv").write_text("a,b\nelsewhere,1\n")
    with pytest.raises(AssertionError, match=r"runs\.csv"):
        check_command_page(tmp_path)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_data_stays_text(text):
    plain = Page(render_command_page(stand_in_page("plain")))
    read = Page(render_command_page(stand_in_page(text)))
    assert read.elements == plain.elements
    assert all(a.startswith(("data:", "#")) for a in read.addresses)
    assert " ".join(text.split()) in read.words
    assert "49" not in read.words


def test_a_page_of_nothing_but_words():
    page = Page(render_command_page(stand_in_page(
        "yes", trusted=True, cautions=[], answer=["yes"], parts=[])))
    assert "img" not in page.elements
    assert page.ids == ["answer", "definitions", "made"]


def test_formulas_of_laws_are_mathematics():
    laws = [get_law("two_axis"), get_law("total")]
    text = f"100 % under {formula(laws[0])} and {formula(laws[1])}, P_x."
    out = paper_tex(text, laws)
    assert out.startswith(r"100 \% under $S")
    assert out.endswith(r"$, P\_x.")
    assert out.count("$") == 4


@pytest.mark.parametrize("name", ["fit.nc", "fit.json"])
def test_the_page_of_a_fit_is_not_replaced(tmp_path, name):
    check_page_folder(tmp_path)
    check_page_folder(tmp_path / "none")
    (tmp_path / name).write_text("")
    with pytest.raises(CBSDataError, match="it holds a fit, whose page this one would replace"):
        check_page_folder(tmp_path)


def test_what_nobody_drew_has_no_figure():
    page = stand_in_page("x", parts=[Part("a", "A", tables={"a": stand_in_table("x")})])
    assert "figure" not in Page(render_command_page(page)).elements
