"""A figure as the bytes of a file: no date in it, text as text, only a little white around."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

__all__ = ["figure_bytes", "figure_files"]

_SETTINGS: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "cbsbayes"}
_UNDATED = {"pdf": {"CreationDate": None, "ModDate": None}, "svg": {"Date": None}}
_COLOURS = 256


def figure_files(
    figure: Figure, formats: Sequence[str] = ("png", "pdf"), *, dpi: float = 160
) -> dict[str, bytes]:
    """Return a figure as the bytes of files, by format; see `figure_bytes`."""
    return {fmt: figure_bytes(figure, fmt, dpi=dpi) for fmt in formats}


def figure_bytes(figure: Figure, fmt: str = "png", *, dpi: float = 160) -> bytes:
    """Return a figure as the bytes of one file; the same figure gives the same bytes.

    Parameters
    ----------
    figure : Figure
    fmt : {"png", "pdf", "svg"}
        PDF text is embedded as TrueType, so it prints and stays selectable; a PNG has a palette
        of 256 colours, a third of its usual size.
    dpi : float
        Dots per inch of a PNG.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(buffer, format=fmt, dpi=dpi, bbox_inches="tight",
                       metadata=_UNDATED.get(fmt))
    return _with_palette(buffer) if fmt == "png" else buffer.getvalue()


def _with_palette(png: io.BytesIO) -> bytes:
    image = Image.open(png).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()
