"""Text logs: their lines, and the configuration that a trainer prints among them.

verl prints its whole resolved configuration by ``pprint`` before the first step (a Python literal
over many lines, each with Ray's prefix), forks print JSON; a shell's trace or Hydra's error shows
the command with its overrides. All are data: literals are parsed, nothing is run.
"""

from __future__ import annotations

import ast
import codecs
import contextlib
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import yaml

from cbsbayes.logs.run_log import NoRunsError

__all__ = ["DAMAGED", "PrintedConfig", "open_bytes", "read_bytes", "read_lines"]

DAMAGED = "\N{REPLACEMENT CHARACTER}"
"""Stands where bytes were no text."""
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_LONGEST = 2**23  # characters; a longer line comes in pieces, so that memory stays bounded
_LARGEST = 2**31  # bytes of a file that is read whole
_RAY = re.compile(r"\s*\((?:\S+ )?pid=\d+(?:, ip=[^)]*)?\) ?")
_REPEATED = re.compile(r"\[repeated \d+x across cluster\].*")
_STRING = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
_NO_LITERAL = re.compile(r"<[^<>']*>|\b(?:nan|inf)\b")
_COMMAND = re.compile(r"main_ppo|job with overrides|verl\.trainer|\b(?:python3?|torchrun)\b")
_OVERRIDE = re.compile(r"(?<![\w.])\+{0,2}([a-z_]\w*(?:\.\w+)+)=('[^']*'|\"[^\"]*\"|[^\s'\",\]]+)")
_MOST_LINES = 20_000  # verl's configuration has about 1,100
_LONGEST_COMMAND = 100_000  # characters


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, unpacked where its name ends in ``.gz``."""
    return cast(IO[bytes], gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def read_bytes(path: Path) -> bytes:
    """Read a file whole, unpacked where its name ends in ``.gz``.

    Raises
    ------
    NoRunsError
        Where it holds more than 2 GiB, or is cut while packed.
    OSError
        Where the file cannot be read.
    """
    try:
        with open_bytes(path) as file:
            content = file.read(_LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise NoRunsError(f"{path} cannot be unpacked ({error}); pack it again") from None
    if len(content) > _LARGEST:
        raise NoRunsError(f"{path} holds more than {_LARGEST:,} bytes; cut it into parts")
    return content


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file without ANSI colours.

    Lines end at line feeds and carriage returns (progress bars redraw by the latter). A byte
    order mark decides between UTF-8 and UTF-16 (a Windows shell's redirection writes the
    second); NUL and bytes that are no text come out as U+FFFD. A ``.gz`` file is unpacked; where
    it is cut, its lines end.

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
                yield _ANSI.sub("", line).replace("\0", DAMAGED)


class PrintedConfig:
    """Gathers the lines of one printed configuration.

    Attributes
    ----------
    config : dict
        The last whole one; the command's overrides, by dotted path, where only they are known.
    """

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self._lines: list[str] = []
        self._prefix = ""
        self._depth = 0

    def forget(self) -> None:
        """Drop a configuration that was begun and not ended."""
        self._lines = []

    def feed(self, line: str) -> bool:
        """Take one line; return whether it completes a configuration."""
        found = _RAY.match(line)
        prefix = found[0].strip() if found else ""
        text = _REPEATED.sub("", line[found.end() if found else 0 :]).rstrip()
        if self._lines and prefix != self._prefix:
            return False  # another process in between
        if not self._lines:
            if text.strip() != "{" and not text.lstrip().startswith(("{'", '{"')):
                return self._command(text)
            self._prefix, self._depth = prefix, 0
        self._lines.append(text)
        bare = _STRING.sub("", text)
        self._depth += sum(map(bare.count, "{[(")) - sum(map(bare.count, "}])"))
        if self._depth > 0 and len(self._lines) < _MOST_LINES:
            return False
        tree = _parse("\n".join(self._lines))
        self._lines = []
        if not isinstance(tree, dict) or "step" in tree or not any(
                isinstance(value, dict) for value in tree.values()):
            return False  # a logged row, or something else
        self.config = {str(key): value for key, value in tree.items()}
        return True

    def _command(self, text: str) -> bool:
        if "=" not in text or len(text) > _LONGEST_COMMAND or not _COMMAND.search(text):
            return False
        if any(isinstance(value, dict) for value in self.config.values()):
            return False  # the whole configuration is known
        overrides = {key: _scalar(value) for key, value in _OVERRIDE.findall(text)}
        self.config = self.config | overrides
        return bool(overrides)


def _parse(text: str) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    for literal in (text, _NO_LITERAL.sub("None", text)):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return ast.literal_eval(literal.strip())
    return None


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text.strip("'\""))
    except (yaml.YAMLError, ValueError):
        return text
