"""Errors that speak to the user: what, the value got, what is valid, the remedy."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["CBSDataError", "listed", "one_line"]


class CBSDataError(ValueError):
    """The input cannot be used as it is.

    The message is one line that a user can act on: what was wrong, the value got, what
    is valid, and the remedy. Commands print it without a traceback and exit with status 1.
    """


def one_line(text: object) -> str:
    """Return text with every control character and line break made visible as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def listed(names: Iterable[str], limit: int = 8) -> str:
    """Return names joined by commas, cut after `limit` with a count of the rest."""
    every = list(names)
    rest = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + rest
