"""A command's page without a command: every kind of part, with a text of choice everywhere."""

from __future__ import annotations

from page_fixture import png

from cbsbayes.models.laws import get_law
from cbsbayes.report.command_page import CommandPage, Part
from cbsbayes.report.rendering import PageFigure
from cbsbayes.report.tables import Cell, Column, Table


def stand_in_table(text, columns=12):
    heads = (Column(text), *(Column(text, True) for _ in range(columns)))
    row = tuple(Cell(text, text) for _ in heads)
    return Table(text, heads, [(Cell(text, text),), row])


def stand_in_page(text, **changes):
    """Return a page whose every text is `text`."""
    figure = PageFigure("plan", text, text, png())
    part = Part("runs", text, text, [text], {"runs": stand_in_table(text)},
                {"all_runs": stand_in_table(text)}, [figure], [text, text], "narrow")
    parts = {"kicker": text, "question": text, "asked": text, "trusted": False, "verdict": text,
             "cautions": [text], "answer": [text, text], "parts": [part],
             "definitions": {text: text}, "paper": text, "made": {"command": text, text: text},
             "files": [text], "laws": [get_law("two_axis_free")]}
    return CommandPage(**(parts | changes))
