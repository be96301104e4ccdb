"""The configuration that a trainer prints before its first step, found among a log's lines.

verl prints its whole resolved configuration by ``pprint`` (a Python literal over many lines, each
with Ray's prefix), forks print JSON; a shell's trace or Hydra's error shows the command with its
overrides. All are data: literals are parsed, nothing is run.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import yaml

__all__ = ["PrintedConfig"]

_RAY = re.compile(r"^\s*\((?:\S+ )?pid=\d+(?:, ip=[^)]*)?\) ?")
_REPEATED = re.compile(r"\s*\[repeated \d+x across cluster\][^\n]*$")
_STRING = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
_NO_LITERAL = re.compile(r"<[^<>']*>|\b(?:nan|inf)\b")
_COMMAND = re.compile(r"main_ppo|job with overrides|verl\.trainer|(?:python3?|torchrun)\S* .*\w=")
_OVERRIDE = re.compile(r"(?<![\w.])\+{0,2}([a-z_]\w*(?:\.\w+)+)=('[^']*'|\"[^\"]*\"|[^\s'\",\]]+)")
_MOST_LINES = 20_000  # verl's has about 1,100


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
        text = _REPEATED.sub("", line[found.end() if found else 0 :].rstrip("\n"))
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
        literal, self._lines = "\n".join(self._lines), []
        tree = _parse(literal)
        if not isinstance(tree, dict) or "step" in tree or not any(
                isinstance(value, dict) for value in tree.values()):
            return False  # a logged row, or something else
        self.config = {str(key): value for key, value in tree.items()}
        return True

    def _command(self, text: str) -> bool:
        if "=" not in text or not _COMMAND.search(text):
            return False
        overrides = {key: _scalar(value) for key, value in _OVERRIDE.findall(text)}
        if any(isinstance(value, dict) for value in self.config.values()):
            return False  # the whole configuration is known
        self.config = self.config | overrides
        return bool(overrides)


def _parse(text: str) -> Any:
    for literal in (text, _NO_LITERAL.sub("None", text)):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
        try:
            return ast.literal_eval(literal.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            pass
    return None


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text.strip("'\""))
    except yaml.YAMLError:
        return text
