"""Lines of a text log, whatever the terminal or the shell did to it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["DAMAGED", "read_lines"]

DAMAGED = "\N{REPLACEMENT CHARACTER}"  # stands where bytes were no text
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file without ANSI colours.

    Lines end at line feeds and carriage returns (progress bars redraw by the latter). A byte
    order mark decides between UTF-8 and UTF-16 (a Windows shell's redirection writes the
    second); bytes that are no text come out as U+FFFD.

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
    with path.open("rb") as file:
        mark = file.read(2)
    utf16 = mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if utf16 else "utf-8-sig"
    with path.open(encoding=encoding, errors="replace", newline=None) as file:
        for line in file:
            yield _ANSI.sub("", line)
