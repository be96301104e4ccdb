"""Pages read back: elements, words and addresses; and what holds for the page of every command."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from urllib.parse import unquote, unquote_to_bytes

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """The elements, text and addresses of a page, with a check that its tags match."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.addresses, self.ids, self.text, self._open = [], [], [], [], []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        named = dict(attrs)
        self.addresses += [named[key] for key in ("src", "href", "action") if key in named]
        self.ids += [named["id"]] if "id" in named else []
        assert not any(key.startswith("on") or key == "style" for key in named)
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style" and "svg" not in self._open:  # tips
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def sound_page(source):
    """Return a page as read, after a check that it asks for nothing and links lead somewhere."""
    page = Page(source)
    assert not {"script", "iframe", "object", "embed", "form", "base"} & set(page.elements)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"@import|url\((?!#)", unquote(source))
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    return page


def check_command_page(folder, out=None):
    """Check the page in a folder against the files beside it; return it as read.

    Every figure and every table that was written stands on it, links lead somewhere, nothing is
    asked of the network, and what was printed says where it is.
    """
    page = sound_page((folder / "index.html").read_text("utf-8"))
    assert "\\x" not in page.words
    _check_figures(page, folder)
    _check_tables(page, folder)
    assert " ".join((folder / "paper.txt").read_text("utf-8").split()) in page.words
    assert (folder / "paper.tex").read_text("utf-8").count("{") == (
        (folder / "paper.tex").read_text("utf-8").count("}"))
    if out is not None:
        last = out.strip().splitlines()[-1]
        assert last.startswith("Page, figure")
        assert last.endswith(f": {folder / 'index.html'}")
    return page


def _check_figures(page, folder):
    inlined = {unquote_to_bytes(a.partition(",")[2]) for a in page.addresses
               if a.startswith("data:image/svg+xml,")}
    drawn = {path.read_bytes() for path in folder.glob("*.svg")}
    assert drawn
    assert inlined == drawn


def _check_tables(page, folder):
    tables = sorted((folder / "tables").glob("*.csv"))
    assert len(tables) > 1
    assert [path.with_suffix(".tex").exists() for path in tables] == [True] * len(tables)
    assert page.elements.count("table") == len(tables) + 1  # the symbols
    for path in tables:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
        cells = [cell for row in rows for cell in row if cell and not cell.endswith(", below")]
        missing = [cell for cell in cells if " ".join(cell.split()) not in page.words
                   and cell != "part" and not cell.endswith(")")]
        assert missing == [], path.name
