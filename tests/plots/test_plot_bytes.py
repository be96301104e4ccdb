"""Figures as files: laid out once, the caller's figure untouched, fonts shared but never wrong."""

from __future__ import annotations

import io
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends import _backend_pdf_ps as backend
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from PIL import Image

from cbsbayes import plots
from cbsbayes.plots.pdf_fonts import shared_subsets


def figure_of(title="S at B ≥ 8 · α", layout="constrained"):
    figure = Figure(figsize=(3, 2), layout=layout)
    ax = figure.subplots()
    ax.plot([1, 2, 3], [2, 1, 3], label="a curve")
    ax.set_title(title)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def usual_png(figure, dpi=160):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
    return np.asarray(Image.open(buffer).convert("RGB")).astype(int)


def embedded_fonts(pdf):
    """Return the TrueType files inside a PDF."""
    return [get_font_of(stream) for stream in streams(pdf) if stream[:4] == b"\x00\x01\x00\x00"]


def streams(pdf):
    for match in re.finditer(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        try:
            yield zlib.decompress(match[1])
        except zlib.error:
            continue


def get_font_of(data):
    from fontTools.ttLib import TTFont

    return TTFont(io.BytesIO(data))


@pytest.mark.parametrize("layout", ["constrained", None])
@pytest.mark.parametrize("dpi", [72, 160])
def test_a_png_shows_what_savefig_shows(layout, dpi):
    drawn = np.asarray(Image.open(io.BytesIO(plots.figure_bytes(figure_of(layout=layout), dpi=dpi)))
                       .convert("RGB")).astype(int)
    usual = usual_png(figure_of(layout=layout), dpi)
    assert drawn.shape == usual.shape
    assert np.mean(np.abs(drawn - usual).max(axis=2) > 24) < 1e-3  # 256 colours


def test_a_figure_is_left_as_it_was():
    figure = figure_of()
    before = (figure.canvas, figure.get_layout_engine(), figure.dpi, figure.get_size_inches())
    plots.figure_files(figure, ("png", "pdf", "svg"))
    after = (figure.canvas, figure.get_layout_engine(), figure.dpi, figure.get_size_inches())
    assert after[:3] == before[:3]
    np.testing.assert_array_equal(after[3], before[3])


def test_a_failure_leaves_the_figure_as_it_was():
    figure = figure_of()
    before = (figure.canvas, figure.get_layout_engine(), figure.dpi)
    with pytest.raises(ValueError, match="nope"):
        plots.figure_files(figure, ("nope",))
    assert (figure.canvas, figure.get_layout_engine(), figure.dpi) == before


def test_all_formats_at_once_are_the_formats_one_by_one():
    together = plots.figure_files(figure_of(), ("png", "pdf", "svg"))
    assert together == {fmt: plots.figure_bytes(figure_of(), fmt) for fmt in together}


@pytest.mark.parametrize("title", ["first flight: S ≥ 8 · α", "Łódź ∫ 漢"])
def test_a_pdf_embeds_every_glyph_it_shows(title, recwarn):
    figure = figure_of(title)
    fonts = embedded_fonts(plots.figure_bytes(figure, "pdf"))
    recwarn.clear()  # no font has the last one; matplotlib says so
    path = findfont(FontProperties(family="DejaVu Sans"))
    known = get_font(path).get_charmap()
    outlines = get_font_of(Path(path).read_bytes())
    wanted = {tuple(outline(outlines, outlines.getGlyphOrder()[known[ord(c)]]))
              for c in title if ord(c) in known and c != " "}
    held = {tuple(outline(font, name)) for font in fonts for name in font.getGlyphOrder()}
    assert fonts
    assert wanted - {()} <= held


def outline(font, name):
    glyph = font["glyf"][name]
    return [] if glyph.numberOfContours <= 0 else [tuple(p) for p in glyph.coordinates]


def test_bytes_do_not_depend_on_what_was_drawn_before():
    first = plots.figure_bytes(figure_of("abc"), "pdf")
    plots.figure_bytes(figure_of("Łódź ∫"), "pdf")
    assert plots.figure_bytes(figure_of("abc"), "pdf") == first


def test_matplotlib_is_put_back():
    before = backend.get_glyphs_subset
    with shared_subsets():
        assert backend.get_glyphs_subset is not before
    assert backend.get_glyphs_subset is before


def test_a_matplotlib_without_the_function_still_writes_pdfs(monkeypatch):
    monkeypatch.delattr(backend, "get_glyphs_subset")
    with shared_subsets():
        assert not hasattr(backend, "get_glyphs_subset")
