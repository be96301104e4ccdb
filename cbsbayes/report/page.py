"""The page of every command: one self-contained HTML file that asks nothing of any network.

A command says what stands on its page (`Page`, in `Section`); how it looks is one template.
Figures are inlined as data, the style sheet is named in the content security policy by its hash,
and there is no script. Everything that comes from data passes through Jinja's autoescape.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from cbsbayes.errors import one_line
from cbsbayes.models.laws import Law
from cbsbayes.report.latex import latex_formula, latex_table, latex_text
from cbsbayes.report.numbers import NO_BREAK
from cbsbayes.report.tables import Table, key_values, text_frame
from cbsbayes.report.text import formula
from cbsbayes.sweep.files import write_csv, write_whole

__all__ = ["IndexEntry", "Page", "PageFigure", "Section", "page_figure", "page_tables",
           "render_index", "render_page", "write_page"]

_SAFE = " !$*+,-./:;=?[]^_`{|}~"  # of a data address, in an attribute too


@dataclass(frozen=True)
class PageFigure:
    """A figure as the page shows it.

    Attributes
    ----------
    slug : str
        Its short name.
    title, caption : str
        Shown below it as text.
    svg : bytes or None
        None where the figure was not drawn.
    skipped_reason : str
        One sentence that says why it was not.
    """

    slug: str
    title: str
    caption: str
    svg: bytes | None
    skipped_reason: str = ""


@dataclass(frozen=True)
class Section:
    """One section of a page.

    Attributes
    ----------
    slug, title : str
        Its place in links, of letters and hyphens, and its heading.
    intro : str
        A paragraph below the heading; may be empty.
    sentences : sequence of str
        As a list.
    tables, folded : mapping of str to Table
        By the name of their files; folded ones open on a click.
    figures : sequence of PageFigure
        Below the tables.
    lines : sequence of str
        To be typed into a terminal.
    kind : str
        Of its tables, as the style sheet knows it: ``narrow`` has short headings of rows,
        ``wide-text`` long cells.
    closed : bool
        Whether the whole section opens on a click.
    """

    slug: str
    title: str
    intro: str = ""
    sentences: Sequence[str] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    folded: Mapping[str, Table] = field(default_factory=dict)
    figures: Sequence[PageFigure] = ()
    lines: Sequence[str] = ()
    kind: str = ""
    closed: bool = False


@dataclass(frozen=True)
class Page:
    """What stands on the page of a command.

    Attributes
    ----------
    kicker, title : str
        What kind of page it is, and the question it answers.
    asked : str
        What was asked of the command, as a paragraph; may be empty.
    level : {"good", "limited", "failed"}
        The verdict on what it starts from.
    verdict : str
        The same in one line.
    cautions : sequence of str
        What a reader must know before the answer.
    answer : sequence of str
        The sentences that the command prints, the first the shortest answer.
    sections : sequence of Section
        In their order.
    definitions : mapping of str to str
        Terms of the tables and what they mean.
    paper : str
        A paragraph for a paper.
    made : mapping
        The command line, settings, versions and data.
    files : sequence of str
        What was written beside the page.
    laws : sequence of Law
        Whose formulas stand in the paragraph.
    note : str
        Below the answer: how its numbers are meant; may be empty.
    checks : sequence of str
        What the verdict rests on, folded below it.
    map : PageFigure, optional
        Stands beside the answer.
    """

    kicker: str
    title: str
    asked: str
    level: str
    verdict: str
    cautions: Sequence[str]
    answer: Sequence[str]
    sections: Sequence[Section]
    definitions: Mapping[str, str]
    paper: str
    made: Mapping[str, object]
    files: Sequence[str]
    laws: Sequence[Law] = ()
    note: str = ""
    checks: Sequence[str] = ()
    map: PageFigure | None = None


@dataclass(frozen=True)
class IndexEntry:
    """One group's report in the list of reports.

    Attributes
    ----------
    group : str
        The group's label.
    href : str
        Path of its page relative to the index, with forward slashes; empty where it could not
        be fitted.
    headline : str
        Its answer in one sentence, or why it could not be fitted.
    level : str
        ``good``, ``limited`` or ``failed``, of its verdict; empty where it was not fitted.
    """

    group: str
    href: str
    headline: str
    level: str


def page_figure(folder: Path, slug: str, title: str, caption: str) -> PageFigure:
    """Return a figure from the PNG of that name in the folder."""
    return PageFigure(slug, title, caption, (folder / f"{slug}.svg").read_bytes())


def page_tables(page: Page) -> dict[str, Table]:
    """Return every table of a page by the name of its files."""
    tables = {name: table for section in page.sections
              for name, table in {**section.tables, **section.folded}.items()}
    return {**tables, "made": _made(page)}


def render_page(page: Page) -> str:
    """Return the page as HTML."""
    return _render("page.html.j2", page=page, made=_made(page))


def write_page(page: Page, folder: Path) -> Path:
    """Write the page, its tables as CSV and LaTeX, and its paragraph; return the page's path.

    Raises
    ------
    OSError
        If the folder cannot be written; every file is whole or as it was.
    """
    _write_tables(page_tables(page), folder / "tables")
    write_whole(folder / "paper.txt", page.paper + "\n")
    write_whole(folder / "paper.tex", _paper_tex(page.paper, list(page.laws)) + "\n")
    return write_whole(folder / "index.html", render_page(page))


def render_index(entries: Iterable[IndexEntry]) -> str:
    """Return a short page that lists the reports of several groups."""
    listed = [(entry, f"./{quote(entry.href)}") for entry in entries]  # "./": never a scheme
    return _render("index.html.j2", entries=listed)


def _write_tables(tables: Mapping[str, Table], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", text_frame(table))
        write_whole(folder / f"{name}.tex", latex_table(table, name))


def _paper_tex(text: str, laws: Sequence[Law]) -> str:
    """Return a paragraph as LaTeX, the formulas of laws as mathematics."""
    for k, law in enumerate(laws):
        if formula(law) in text:
            parts = [_paper_tex(part, laws[k + 1:]) for part in text.split(formula(law))]
            return latex_formula(law).join(parts)
    return latex_text(text)


def _made(page: Page) -> Table:
    return key_values(page.made, "Command, settings, versions and data.")


def _render(template: str, **context: Any) -> str:
    sheet, style_hash = _style()
    return _environment().get_template(template).render(
        style=sheet, style_hash=style_hash, **context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cbsbayes.report", "templates"), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"data_uri": _data_uri, "visible": _visible}
    return environment


def _visible(text: str) -> str:
    """Return text with line breaks and control characters as escapes, spaces of print kept."""
    return NO_BREAK.join(one_line(part) for part in text.split(NO_BREAK))


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml,{quote(svg, safe=_SAFE)}"


@cache
def _style() -> tuple[str, str]:
    """Return the style sheet and the source expression that lets the policy admit it."""
    sheet = files("cbsbayes.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    digest = hashlib.sha256(sheet.encode()).digest()
    return sheet, f"'sha256-{base64.b64encode(digest).decode()}'"
