"""A page without a command: every kind of part, with a text of choice everywhere."""

from __future__ import annotations

import numpy as np

from cbsbayes.models.laws import get_law
from cbsbayes.report.page import Page, PageFigure, Section
from cbsbayes.report.tables import Cell, Column, Table


def svg(width=9.0, height=4.2):
    """Return a real figure as SVG bytes."""
    from matplotlib.figure import Figure

    from cbsbayes.plots import figure_bytes

    figure = Figure(figsize=(width, height), dpi=110)
    ax = figure.subplots()
    batch = np.geomspace(4, 256)
    ax.loglog(batch, 30 * (1 + 90 / batch) ** 0.62)
    return figure_bytes(figure)


def stand_in_table(text, columns=12):
    heads = (Column(text), *(Column(text, True) for _ in range(columns)))
    return Table(text, heads, [tuple(Cell(text, text) for _ in heads)])


def stand_in_page(text, **changes):
    """Return a page whose every text is `text`."""
    figure = PageFigure("plan", text, text, svg())
    section = Section("runs", text, text, [text], {"runs": stand_in_table(text)},
                      {"all_runs": stand_in_table(text)},
                      [figure, PageFigure("none", text, text, None, text)], [text, text], "narrow")
    closed = Section("more", text, text, closed=True)
    parts = {"kicker": text, "title": text, "asked": text, "level": "limited", "verdict": text,
             "cautions": [text], "answer": [text, text], "sections": [section, closed],
             "definitions": {text: text}, "paper": text, "made": {"command": text, text: text},
             "files": [text], "laws": [get_law("two_axis_free")]}
    return Page(**(parts | changes))
