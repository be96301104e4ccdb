"""The fit: from crossings and laws to quantities, tables and a verdict."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["sentence"]


@cache
def _sentences() -> dict[str, str]:
    return tomllib.loads(files(__name__).joinpath("sentences.toml").read_text("utf-8"))


def sentence(name: str, **values: Any) -> str:
    """Return a sentence of ``sentences.toml`` with its values filled in."""
    return _sentences()[name].format(**values)
