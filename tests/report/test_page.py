"""The page of every command: one file, text that stays text, files beside it, folders it leaves."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from page_fixture import stand_in_page, stand_in_table, svg
from page_reader import Page, check_command_page

from cbsbayes.models.laws import get_law
from cbsbayes.report.page import PageFigure, Section, render_index, render_page, write_page
from cbsbayes.report.text import formula

HOSTILE = ["<script>alert(1)</script>", "a/b", "x\ny", "{{7*7}}", "{% raw %}", "\"><img src=x>",
           "&lt;b&gt;", "javascript:alert(1)"]


@pytest.fixture
def folder(tmp_path):
    page = stand_in_page("some words")
    (tmp_path / "plan.svg").write_bytes(page.sections[0].figures[0].svg)
    write_page(page, tmp_path)
    return tmp_path


def test_the_policy_forbids_everything_but_the_page_itself():
    page = render_page(stand_in_page("words"))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    sheet = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    assert policy.replace("&#39;", "'") == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'")


def test_what_is_written_stands_on_the_page(folder):
    page = stand_in_page("some words")
    assert write_page(page, folder) == folder / "index.html"
    check_command_page(folder)
    assert sorted(path.stem for path in (folder / "tables").glob("*.csv")) == [
        "all_runs", "made", "runs"]


def test_a_table_that_is_not_on_the_page_is_seen(folder):
    (folder / "tables" / "runs.csv").write_text("a,b\nelsewhere,1\n")
    with pytest.raises(AssertionError, match=r"runs\.csv"):
        check_command_page(folder)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_data_stays_text(text):
    plain = Page(render_page(stand_in_page("plain")))
    read = Page(render_page(stand_in_page(text)))
    assert read.elements == plain.elements
    assert all(address.startswith(("data:", "#")) for address in read.addresses)
    assert read.words.count(text.replace("\n", r"\n")) > 10
    assert "49" not in read.words


def test_answer_verdict_and_map_come_first():
    page = stand_in_page("words", verdict="Sampling checks passed", answer=["Run 8 × 4."],
                         map=PageFigure("map", "The map", "How to read it.", svg()))
    read = Page(render_page(page))
    places = [read.words.index(part) for part in ("Run 8 × 4.", "Sampling checks passed",
                                                  "The map")]
    assert places == sorted(places)
    assert read.ids[:3] == ["answer", "figure-map", "runs"]


def test_a_page_of_nothing_but_words():
    page = Page(render_page(stand_in_page("yes", cautions=[], answer=["yes"], sections=[])))
    assert "img" not in page.elements
    assert page.ids == ["answer", "paper", "definitions", "made"]
    page = stand_in_page("x", sections=[Section("a", "A", tables={"a": stand_in_table("x")})])
    assert "figure" not in Page(render_page(page)).elements


def test_formulas_of_laws_are_mathematics(tmp_path):
    laws = [get_law("two_axis"), get_law("total")]
    text = f"100 % under {formula(laws[0])} and {formula(laws[1])}, P_x."
    write_page(stand_in_page("x", paper=text, laws=laws), tmp_path)
    out = (tmp_path / "paper.tex").read_text()
    assert out.startswith(r"100 \% under $S")
    assert out.endswith("$, P\\_x.\n")
    assert out.count("$") == 4


def test_the_index_lists_every_group():
    entries = [{"group": "qwen · gsm8k", "href": "qwen-gsm8k/index.html", "level": "good",
                "headline": "It is 73 prompts."},
               *({"group": name, "href": name, "headline": name, "level": "failed"}
                 for name in HOSTILE), {"group": "small", "headline": "too few batch sizes"}]
    read = Page(render_index(entries))
    links = [a for a in read.addresses if not a.startswith("data:")]
    assert links[0] == "./qwen-gsm8k/index.html"
    assert len(links) == 9
    assert all(link.startswith("./") for link in links)
    for part in ("10 groups.", "<script>alert(1)</script>", "not passed", "not fitted"):
        assert part in read.words
    assert "No group was fitted." in Page(render_index([])).words
