"""A figure as the bytes of a file, and files of figures: SVG for pages, PDF for papers.

An SVG has no background, its text is text, and its ink follows the reader's choice of a dark or a
light page, in a page and on its own.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbsbayes.plots.style import GREY, GRID, INK, PAPER, SETTINGS, detached
from cbsbayes.sweep.files import write_whole

__all__ = ["FORMATS", "draw_figure", "figure_bytes", "write_figure"]

FORMATS = ("svg", "pdf")

_SETTINGS: Any = SETTINGS | {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "cbsbayes"}
_UNDATED = {"pdf": {"CreationDate": None, "ModDate": None}, "svg": {"Date": None}}
_DARK = {INK: "#e1e4e6", "#000000": "#e1e4e6", GREY: "#a0a8b0", GRID: "#363c42", PAPER: "#16191c"}
_RULES = "".join(f'[style*="{part}: {light}"]{{{part}:{dark} !important}}'
                 for light, dark in _DARK.items() for part in ("fill", "stroke"))
_STYLE = f"<style>@media (prefers-color-scheme: dark){{{_RULES}}}</style>"

_PLACES = re.compile(r' (?:d|x|y)="[^"]*"')
_TOO_LONG = re.compile(r"(?<=\.\d)\d+| \n(?=[LCMz])")  # a tenth of a point is enough


def figure_bytes(figure: Figure, fmt: str = "svg", *, dpi: float = 160) -> bytes:
    """Return a figure as the bytes of one file; the same plot gives the same bytes.

    Parameters
    ----------
    figure : Figure
    fmt : {"svg", "pdf", "png"}
        PDF text is embedded as TrueType, so it prints and stays selectable.
    dpi : float
        Dots per inch of a PNG.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(buffer, format=fmt, dpi=dpi, metadata=_UNDATED.get(fmt),
                       transparent=fmt == "svg")
    if fmt != "svg":
        return buffer.getvalue()
    text = _PLACES.sub(lambda part: _TOO_LONG.sub("", part[0]), buffer.getvalue().decode())
    head, tag, rest = text.partition("<defs>")
    return f"{head}{_STYLE}\n {tag}{rest}".encode()


def draw_figure(plot: Callable[..., Axes | Figure], *args: Any, **kwargs: Any) -> Figure:
    """Return the whole figure that a plot function draws, unknown to pyplot."""
    with detached():
        drawn = plot(*args, **kwargs)
    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    assert figure is not None  # drawn into axes of its own
    return figure


def write_figure(figure: Figure, stem: Path, formats: Sequence[str] = FORMATS) -> None:
    """Write a figure as ``STEM.svg`` and ``STEM.pdf``, each file whole or not at all."""
    for fmt in formats:
        write_whole(stem.with_name(f"{stem.name}.{fmt}"), figure_bytes(figure, fmt))
