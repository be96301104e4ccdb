"""The page of every command: one self-contained HTML file that asks nothing of any network.

A command says what stands on its page (`Page`, in `Section`), ``templates/pages.toml`` in which
order, one template how it looks. Figures are inlined as data, the style sheet is named in the
content security policy by its hash, and there is no script: a target is chosen by radio buttons,
values are shown by titles of an SVG laid over a figure. Everything that comes from data passes
through Jinja's autoescape.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law
from cbsbayes.plots.gallery import GalleryItem, write_figure
from cbsbayes.plots.marks import Tip, tips_of
from cbsbayes.report.tables import (
    Table,
    key_values,
    latex_formula,
    latex_table,
    latex_text,
    print_table,
    shown,
    text_frame,
)
from cbsbayes.report.text import formula, plain, section_text, spec
from cbsbayes.sweep.files import write_csv, write_whole

__all__ = ["Page", "PageFigure", "Section", "drawn", "page_tables", "print_answer", "render_index",
           "render_page", "sections_of", "standard_output", "write_page"]

_WIDTH = 80  # where output is no terminal
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
    tips : sequence of Tip
        What the pointer is told at places of the figure; those of the target chosen are ringed.
    choices : mapping of str to PageFigure
        The same figure at every target, by name; the first that is shown is the one of `chosen`.
    """

    slug: str
    title: str
    caption: str
    svg: bytes | None
    skipped_reason: str = ""
    tips: Sequence[Tip] = ()
    choices: Mapping[str, PageFigure] = field(default_factory=dict)
    chosen: str = ""


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
    level : {"good", "limited", "failed"}
        The verdict on what it starts from.
    verdict : str
        The same in one line.
    answer : sequence of str
        The sentences that the command prints, the first the shortest answer.
    sections : sequence of Section
        In their order.
    paper : str
        A paragraph for a paper.
    made : mapping
        The command line, settings, versions and data.
    files : sequence of str
        What was written beside the page.
    asked : str
        What was asked of the command, as a paragraph; may be empty.
    cautions : sequence of str
        What a reader must know before the answer.
    definitions : mapping of str to str
        Terms of the tables and what they mean.
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
    level: str
    verdict: str
    answer: Sequence[str]
    sections: Sequence[Section]
    paper: str
    made: Mapping[str, object]
    files: Sequence[str]
    asked: str = ""
    cautions: Sequence[str] = ()
    definitions: Mapping[str, str] = field(default_factory=dict)
    laws: Sequence[Law] = ()
    note: str = ""
    checks: Sequence[str] = ()
    map: PageFigure | None = None


def sections_of(
    command: str, tables: Mapping[str, Table | None], figures: Iterable[PageFigure] = (),
    notes: Mapping[str, Sequence[str]] | None = None,
    lines: Mapping[str, Sequence[str]] | None = None, **context: object,
) -> list[Section]:
    """Return the sections of a command's page as ``pages.toml`` lists them, empty ones left out.

    Parameters
    ----------
    command : str
        In ``templates/pages.toml``.
    tables : mapping of str to Table
        Every table by the name of its files; None where there is none.
    figures : iterable of PageFigure
        Those of no section are left to the folder.
    notes : mapping of str to sequence of str
        Sentences that were made elsewhere, by the slug of their section.
    lines : mapping of str to sequence of str
        Lines to be typed, by the slug of their section.
    **context
        For the sections' own text, ``templates/text/sections``.
    """
    known = {name: table for name, table in tables.items() if table is not None}
    drawn, found = list(figures), []
    for part in spec("pages")[command]["sections"]:
        slug, wanted = part["slug"], part.get("tables", [])
        top = {name: table for name, table in known.items() if _is_one_of(name, wanted)}
        folded = {name: table for name, table in known.items() if name not in top
                  and _is_one_of(name.partition("_at_")[0], part.get("folded", []))}
        intro, own = section_text(slug, **context)
        content: dict[str, Any] = {
            "intro": intro, "sentences": [*own, *(notes or {}).get(slug, [])], "tables": top,
            "folded": folded, "lines": (lines or {}).get(slug, []),
            "figures": [figure for figure in drawn if figure.slug in part.get("figures", [])]}
        if any(content.values()):
            found.append(Section(slug, part["title"], **content, kind=part.get("kind", ""),
                                 closed=part.get("closed", False)))
    return found


def _is_one_of(name: str, wanted: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in wanted)


def drawn(
    items: Iterable[GalleryItem], folder: Path, formats: Sequence[str] = ("svg",)
) -> list[PageFigure]:
    """Draw figures into a folder; those there are no data for keep the reason.

    Parameters
    ----------
    items : iterable of GalleryItem
        What to draw.
    folder : Path
        Where; it must exist.
    formats : sequence of str
        ``svg``, which the page takes, and others.
    """
    found = []
    for item in items:
        try:
            figure = item.draw()
        except CBSDataError as error:
            found.append(PageFigure(item.slug, item.title, item.caption, None, str(error)))
            continue
        write_figure(figure, folder / item.slug, formats)
        svg = (folder / f"{item.slug}.svg").read_bytes()
        found.append(PageFigure(item.slug, item.title, item.caption, svg, tips=tips_of(figure)))
    return found


def page_tables(page: Page) -> dict[str, Table]:
    """Return every table of a page by the name of its files."""
    tables = {name: table for section in page.sections
              for name, table in {**section.tables, **section.folded}.items()}
    return {**tables, "made": _made(page)}


def render_page(page: Page) -> str:
    """Return the page as HTML."""
    return _render("page.html.j2", page=page, made=_made(page))


def write_page(
    page: Page, folder: Path, tables: Mapping[str, pd.DataFrame] | None = None
) -> Path:
    """Write the page, its tables as CSV and LaTeX, and its paragraph; return the page's path.

    Parameters
    ----------
    page : Page
        What stands on it.
    folder : Path
        Where.
    tables : mapping of str to DataFrame, optional
        In full, by the name of their CSV file.

    Raises
    ------
    OSError
        If the folder cannot be written; every file is whole or as it was.
    """
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for name, full in (tables or {}).items():
        write_csv(folder / f"{name}.csv", full)
    for name, table in page_tables(page).items():
        write_csv(folder / f"tables/{name}.csv", text_frame(table))
        write_whole(folder / f"tables/{name}.tex", latex_table(table, name))
    write_whole(folder / "paper.txt", page.paper + "\n")
    write_whole(folder / "paper.tex", _paper_tex(page.paper, page.laws) + "\n")
    return write_whole(folder / "index.html", render_page(page))


def render_index(entries: Sequence[Mapping[str, str]]) -> str:
    """Return a short page that lists the reports of several groups.

    Parameters
    ----------
    entries : sequence of mapping
        Of every group its label ``group``; its ``headline``, the answer in one sentence or why it
        could not be fitted; and where it was fitted the ``href`` of its page relative to the index,
        with forward slashes, and the ``level`` of its verdict.
    """
    return _render("index.html.j2", entries=entries)


def _paper_tex(text: str, laws: Sequence[Law]) -> str:
    """Return a paragraph as LaTeX, the formulas of laws as mathematics."""
    found = {formula(law): latex_formula(law) for law in laws}
    parts = re.split(f"({'|'.join(map(re.escape, found))})", text) if found else [text]
    return "".join(found.get(part) or latex_text(part) for part in parts)


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
    environment.filters |= {"quoted": partial(quote, safe=_SAFE), "view_box": _view_box,
                            "visible": plain}
    return environment


def _view_box(svg: bytes) -> str:
    """Return the view box of an SVG, so that another one fits on it."""
    found = re.search(rb'viewBox="([\d. -]*)"', svg)
    return found[1].decode() if found else "0 0 1 1"


@cache
def _style() -> tuple[str, str]:
    """Return the style sheet and the source expression that lets the policy admit it."""
    sheet = files("cbsbayes.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    digest = hashlib.sha256(sheet.encode()).digest()
    return sheet, f"'sha256-{base64.b64encode(digest).decode()}'"


def standard_output() -> Console:
    """Return the terminal, 80 columns wide where it is none."""
    return Console(emoji=False, highlight=False, width=None if sys.stdout.isatty() else _WIDTH)


def print_answer(
    head: str, lines: Sequence[str], notes: Sequence[str], tables: Sequence[Table | None],
    page: Path,
) -> None:
    """Print what a command answers: the question in bold, sentences, tables, where the rest is.

    Parameters
    ----------
    head : str
        What was asked.
    lines, notes : sequence of str
        The answer, and its reservations.
    tables : sequence of Table
        Below them, those there are.
    page : Path
        Where the rest is.
    """
    console = standard_output()
    console.print(f"[bold]{shown(head)}[/bold]")
    for line in [*lines, *(f"  · {note}" for note in notes)]:
        console.print(shown(line))
    for table in filter(None, tables):
        console.print()
        print_table(table, console)
    console.print(f"Page, figures, tables: {shown(str(page))}", soft_wrap=True)
