"""The compiler of every density: numba, with a cache on disk that survives damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

__all__ = ["compiled"]

_NEWEST = max(path.stat().st_mtime for path in Path(__file__).parent.glob("*.py"))


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function, its machine code kept on disk; it runs without the interpreter's lock.

    A file of numba's cache that cannot be read is an error there each time (numba issue 10434): an
    empty or cut one, as a full disk or a crash leaves it, or one that names classes of an earlier
    version of this package. All end in a full stop; others, and those that are older than any
    module here, are removed.
    """
    kernel = njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    for path in Path(str(kernel.stats.cache_path)).glob(f"*.{function.__name__}-*.nb[ic]"):
        if path.stat().st_mtime < _NEWEST or not path.read_bytes().endswith(b"."):
            path.unlink(missing_ok=True)
    return kernel
