"""Compile a kernel with numba and keep the machine code for the next process, where that can be.

Numba keeps it beside the source, in the user's cache where the package is installed read-only, or
under ``NUMBA_CACHE_DIR``. Where none of them can be written it refuses to compile at all; here the
kernel is then compiled anew in every process, which takes seconds but gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import cfunc, njit

__all__ = ["compiled", "compiled_callback"]


def compiled(function: Callable[..., Any]) -> Any:
    """Return a function compiled when it is first called; other kernels may call it."""
    return _kept(lambda cache: njit(cache=cache, error_model="numpy", nogil=True)(function))


def compiled_callback(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function at once to be called from C by its address."""
    return lambda function: _kept(
        lambda cache: cfunc(signature, cache=cache, error_model="numpy")(function))


def _kept(build: Callable[[bool], Any]) -> Any:
    try:
        return build(True)
    except RuntimeError as error:
        if "cannot cache function" not in str(error):
            raise
        return build(False)
