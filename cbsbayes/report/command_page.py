"""The page of a command that goes on from a fit: what was asked, the answer, tables, figures.

`cbsbayes.allocate`, `.plan` and `.compare` each say what stands on theirs
(`CommandPage`); how it looks, and that it is one file which opens from disk, is the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cbsbayes._command import one_line
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law
from cbsbayes.report.latex import latex_formula, latex_text
from cbsbayes.report.numbers import NO_BREAK
from cbsbayes.report.rendering import PageFigure, render_template
from cbsbayes.report.table_files import write_tables
from cbsbayes.report.tables import Table, key_values
from cbsbayes.report.words import formula
from cbsbayes.sweep.files import write_whole

__all__ = ["CommandPage", "Part", "check_page_folder", "law_formulas", "page_figure",
           "page_tables", "paper_tex", "render_command_page", "write_command_page"]


@dataclass(frozen=True)
class Part:
    """One section.

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
        Of its tables, as the style sheet knows it: ``narrow`` has short headings of rows.
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


@dataclass(frozen=True)
class CommandPage:
    """What stands on the page of a command.

    Attributes
    ----------
    kicker, question : str
        What kind of page it is, and the question it answers.
    asked : str
        What was asked of the command, as a paragraph.
    trusted : bool
        Whether what it starts from is to be trusted.
    verdict : str
        The same in one line.
    cautions : sequence of str
        What a reader must know before the answer.
    answer : sequence of str
        The sentences that the command prints, the first the shortest answer.
    parts : sequence of Part
        The sections.
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
    """

    kicker: str
    question: str
    asked: str
    trusted: bool
    verdict: str
    cautions: Sequence[str]
    answer: Sequence[str]
    parts: Sequence[Part]
    definitions: Mapping[str, str]
    paper: str
    made: Mapping[str, object]
    files: Sequence[str]
    laws: Sequence[Law] = ()


def check_page_folder(folder: Path) -> None:
    """Refuse the folder of a fit, whose page and tables another page would replace.

    Raises
    ------
    CBSDataError
        If a fit was written there.
    """
    if any((folder / name).exists() for name in ("fit.nc", "fit.json")):
        raise CBSDataError(f"cannot write into {folder}: it holds a fit, whose page this one would "
                           "replace; give another folder with -o")


def page_figure(folder: Path, slug: str, title: str, caption: str) -> PageFigure:
    """Return a figure from the PNG of that name in the folder."""
    return PageFigure(slug, title, caption, (folder / f"{slug}.png").read_bytes())


def page_tables(page: CommandPage) -> dict[str, Table]:
    """Return every table of a page by the name of its files."""
    tables = {name: table for part in page.parts
              for name, table in {**part.tables, **part.folded}.items()}
    return {**tables, "made": _made(page)}


def law_formulas(laws: Sequence[Law]) -> list[Law]:
    """Return laws once each, in their order."""
    return list({law.name: law for law in laws}.values())


def paper_tex(text: str, laws: Sequence[Law]) -> str:
    """Return a paragraph as LaTeX, the formulas of laws as mathematics."""
    for k, law in enumerate(laws):
        if formula(law) in text:
            parts = [paper_tex(part, laws[k + 1:]) for part in text.split(formula(law))]
            return latex_formula(law).join(parts)
    return latex_text(text)


def render_command_page(page: CommandPage) -> str:
    """Return the page as HTML."""
    return render_template("command.html.j2", page=page, made=_made(page),
                           answer=_shown(page.answer), cautions=_shown(page.cautions),
                           paper=_visible(page.paper))


def write_command_page(page: CommandPage, folder: Path) -> Path:
    """Write the page, its tables as CSV and LaTeX, and its paragraph; return the page's path.

    Raises
    ------
    OSError
        If the folder cannot be written; every file is whole or as it was.
    """
    write_tables(page_tables(page), folder / "tables")
    write_whole(folder / "paper.txt", page.paper + "\n")
    write_whole(folder / "paper.tex", paper_tex(page.paper, page.laws) + "\n")
    return write_whole(folder / "index.html", render_command_page(page))


def _made(page: CommandPage) -> Table:
    return key_values(page.made, "Command, settings, versions and data.")


def _shown(sentences: Sequence[str]) -> list[str]:
    return [_visible(sentence) for sentence in sentences]


def _visible(text: str) -> str:
    """Return text with line breaks and control characters as escapes, spaces of print kept."""
    return NO_BREAK.join(one_line(part) for part in text.split(NO_BREAK))
