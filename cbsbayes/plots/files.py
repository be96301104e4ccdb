"""A figure as the bytes of files: laid out once, then drawn once for each format.

``savefig(bbox_inches="tight")`` lays a figure out and draws it without ink for every format before
it draws at all. Here the layout and the box around the ink are found once and given to each
format, all PDFs share their fonts' subsets, and PNG gets
its palette from the pixels without a detour over a file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import BboxBase

from cbsbayes.plots.pdf_fonts import shared_subsets

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["figure_bytes", "figure_files"]

_SETTINGS: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "cbsbayes",
                  "text.usetex": False}
_UNDATED = {"pdf": {"CreationDate": None, "ModDate": None}, "svg": {"Date": None}}
_COLOURS = 256
_WHITE = 0xFFFFFFFF  # of all four bytes


def figure_bytes(figure: Figure, fmt: str = "png", *, dpi: float = 160) -> bytes:
    """Return a figure as the bytes of one file; see `figure_files`."""
    return figure_files(figure, (fmt,), dpi=dpi)[fmt]


def figure_files(
    figure: Figure, formats: Sequence[str] = ("png", "pdf"), *, dpi: float = 160
) -> dict[str, bytes]:
    """Return a figure as the bytes of files, by format.

    Parameters
    ----------
    figure : Figure
        Left as it was.
    formats : sequence of {"png", "pdf", "svg"}
        PDF text is embedded as TrueType, so it prints and stays selectable; no date is
        written, so the same figure gives the same bytes.
    dpi : float
        Dots per inch of a PNG.

    Returns
    -------
    dict of str to bytes
    """
    with matplotlib.rc_context(_SETTINGS), _laid_out(figure, dpi) as box:
        return {fmt: _png(figure, box, dpi) if fmt == "png" else _vector(figure, box, fmt)
                for fmt in formats}


@contextmanager
def _laid_out(figure: Figure, dpi: float) -> Iterator[BboxBase]:
    """Fix the figure's layout and give the box around its ink, inches, with the usual margin."""
    canvas, engine, before = figure.canvas, figure.get_layout_engine(), figure.dpi
    FigureCanvasAgg(figure)
    figure.set_dpi(dpi)
    try:
        if engine is not None:
            engine.execute(figure)
        box = figure.get_tightbbox().padded(matplotlib.rcParams["savefig.pad_inches"])
        with matplotlib.rc_context(_NO_LAYOUT):
            figure.set_layout_engine(None)  # "none" would keep the extra pass without ink
        yield box
    finally:
        figure.set_layout_engine(engine)
        figure.set_dpi(before)
        figure.set_canvas(canvas)


_NO_LAYOUT: Any = {"figure.autolayout": False, "figure.constrained_layout.use": False}


def _vector(figure: Figure, box: BboxBase, fmt: str) -> bytes:
    buffer = io.BytesIO()
    with shared_subsets():
        figure.savefig(buffer, format=fmt, metadata=_UNDATED.get(fmt), bbox_inches=box)
    return buffer.getvalue()


def _png(figure: Figure, box: BboxBase, dpi: float) -> bytes:
    """Return a PNG with 256 colours: a third of the size, so that thirty fit into one page."""
    pixels = io.BytesIO()
    figure.savefig(pixels, format="rgba", dpi=dpi, bbox_inches=box)
    width = int(box.width * dpi)
    buffer = io.BytesIO()
    _with_palette(pixels.getvalue(), width).save(buffer, "png")
    return buffer.getvalue()


def _with_palette(rgba: bytes, width: int) -> Image:
    """Return an image in white and 255 colours chosen among the pixels that are not white.

    Most of a figure is white: leaving it out of the choice takes a third of the time.
    """
    from PIL import Image

    pixels = np.frombuffer(rgba, dtype=np.uint32)
    ink = np.flatnonzero(pixels != _WHITE)
    ink = ink if ink.size else np.array([0])
    row = Image.frombytes("RGBA", (len(ink), 1), pixels[ink].tobytes()).convert("RGB")
    row = row.quantize(_COLOURS - 1, dither=Image.Dither.NONE)
    place = np.full(len(pixels), _COLOURS - 1, dtype=np.uint8)
    place[ink] = np.frombuffer(row.tobytes(), dtype=np.uint8)
    chosen = row.getpalette() or []
    image = Image.frombytes("P", (width, len(pixels) // width), place.tobytes())
    image.putpalette([*chosen, *[255] * (3 * _COLOURS - len(chosen))])
    return image
