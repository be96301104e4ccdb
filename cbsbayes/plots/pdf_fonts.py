"""One subset of each font for all PDFs of a process.

Matplotlib embeds in every PDF the glyphs of that PDF, and cutting them out of a font takes longer
than drawing a figure. The characters that figures usually hold are cut out once; a text with any
other gets its own subset from matplotlib. What is embedded never depends on what was drawn before,
so the same figure gives the same bytes.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

from matplotlib.backends import _backend_pdf_ps
from matplotlib.font_manager import get_font

__all__ = ["shared_subsets"]

_BACKEND: Any = _backend_pdf_ps  # private: whatever it no longer has is done without

_USUAL = (string.ascii_letters + string.digits + string.punctuation
          + " \N{NO-BREAK SPACE}·×−–—…±≤≥½→←∞σαβδκμτφ√²³ﬀﬁﬂﬃﬄ")  # the last: drawn for fi and fl

type Cut = Callable[[Any, Collection[int]], AbstractContextManager[Any]]


class _Saved:
    """A font that is already a file: `save` is all that the backend asks of it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def save(self, file: BytesIO, **_: Any) -> None:
        file.write(self._data)


class _Subset(NamedTuple):
    font: _Saved
    glyph_index_map: dict[int, int]


@contextmanager
def shared_subsets() -> Iterator[None]:
    """Let PDFs written inside share their fonts' subsets.

    Where a matplotlib to come has no such function to stand in for, PDFs are only slower.
    """
    original: Cut | None = getattr(_BACKEND, "get_glyphs_subset", None)
    if original is None:
        yield
        return

    def cut(font_path: Any, glyphs: Collection[int]) -> AbstractContextManager[Any]:
        if set(glyphs) <= _usual_glyphs(font_path):
            return nullcontext(_usual_subset(font_path, original))
        return original(font_path, glyphs)

    _BACKEND.get_glyphs_subset = cut
    try:
        yield
    finally:
        _BACKEND.get_glyphs_subset = original


@cache
def _usual_glyphs(font_path: Any) -> frozenset[int]:
    glyph_of = get_font(font_path).get_charmap()
    return frozenset(glyph_of[ord(c)] for c in _USUAL if ord(c) in glyph_of)


@cache
def _usual_subset(font_path: Any, cut: Cut) -> _Subset:
    file = BytesIO()
    with cut(font_path, set(_usual_glyphs(font_path))) as subset:
        subset.font.save(file, reorderTables=False)
        return _Subset(_Saved(file.getvalue()), dict(subset.glyph_index_map))
