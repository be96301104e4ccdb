"""Lines of a text log, whatever the terminal, the shell or a compressor did to it."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

__all__ = ["DAMAGED", "open_bytes", "read_lines"]

DAMAGED = "\N{REPLACEMENT CHARACTER}"  # stands where bytes were no text
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_LONGEST = 2**23  # characters; a longer line comes in pieces, so that memory stays bounded


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, unpacked where its name ends in ``.gz``."""
    return cast(IO[bytes], gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file without ANSI colours.

    Lines end at line feeds and carriage returns (progress bars redraw by the latter). A byte
    order mark decides between UTF-8 and UTF-16 (a Windows shell's redirection writes the
    second); bytes that are no text come out as U+FFFD. A ``.gz`` file is unpacked; where it is
    cut, its lines end.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    str
        One line; its end, if it has one, is a line feed.

    Raises
    ------
    OSError
        Where the file cannot be read.
    """
    with open_bytes(path) as file, contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile):
        utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        file.seek(0)
        encoding = "utf-16" if utf16 else "utf-8-sig"
        with io.TextIOWrapper(file, encoding=encoding, errors="replace", newline=None) as text:
            while line := text.readline(_LONGEST):
                yield _ANSI.sub("", line)
