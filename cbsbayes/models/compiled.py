"""The compiler of every density: numba, with a cache on disk that survives damage; two sums.

Densities are written in loops: numba compiles them three times as fast as expressions over arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

__all__ = ["add_scaled", "compiled", "dot"]

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


_summed = partial(compiled, fastmath={"reassoc", "contract"})


@_summed
def dot(a: np.ndarray, b: np.ndarray) -> float:
    """Return the sum of products."""
    total = 0.0
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@_summed
def add_scaled(factor: float, row: np.ndarray, gradient: np.ndarray) -> None:
    """Add a multiple of a row to the gradient."""
    for j in range(len(row)):
        gradient[j] += factor * row[j]
