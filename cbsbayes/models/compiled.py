"""The compiler of every density: numba, with a cache on disk that survives damage."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit

__all__ = ["compiled"]


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function, its machine code kept on disk; it runs without the interpreter's lock.

    An empty file in numba's cache, as a full disk or a crash leaves it, is an error there each time
    (numba issue 10434). All are pickles, whose last byte is a full stop; others are removed.
    """
    kernel = njit(cache=True, nogil=True, error_model="numpy")(function)
    _remove_damaged(kernel.stats.cache_path)
    return kernel


@cache
def _remove_damaged(folder: str) -> None:
    for path in Path(folder).glob("*.nb[ic]"):
        if not path.read_bytes().endswith(b"."):
            path.unlink(missing_ok=True)
