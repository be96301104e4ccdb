"""Compile a kernel with numba and keep the machine code for the next process, where that can be.

Numba keeps it beside the source, in the user's cache where the package is installed read-only, or
under ``NUMBA_CACHE_DIR``. Where none of them can be written it refuses to compile at all; here the
kernel is then compiled anew in every process, which takes seconds but gives the same numbers. A
place that fills up while the code is written ends in one line that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba import cfunc, njit
from numba.core.caching import FunctionCache

from cbsbayes.errors import CBSDataError

__all__ = ["compiled", "compiled_callback"]


def compiled(function: Callable[..., Any]) -> Any:
    """Return a function compiled when it is first called; other kernels may call it.

    Its first call raises `CBSDataError` if the code cannot be written where it is to be kept.
    """
    kernel = _kept(lambda cache: njit(cache=cache, error_model="numpy", nogil=True)(function))
    cache = kernel._cache  # private, but there is no other way to hear of its failures
    save = cache.save_overload

    def save_overload(*given: Any) -> None:
        with _naming(cache.cache_path):
            save(*given)

    cache.save_overload = save_overload
    return kernel


def compiled_callback(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function at once to be called from C by its address.

    It raises `CBSDataError` if the code cannot be written where it is to be kept.
    """
    def decorator(function: Callable[..., Any]) -> Any:
        def build(cache: bool) -> Any:
            with _naming(FunctionCache(function).cache_path if cache else ""):
                return cfunc(signature, cache=cache, error_model="numpy")(function)

        return _kept(build)

    return decorator


def _kept(build: Callable[[bool], Any]) -> Any:
    try:
        return build(True)
    except RuntimeError as error:
        if "cannot cache function" not in str(error):
            raise
        return build(False)


@contextmanager
def _naming(folder: str) -> Iterator[None]:
    """Turn a disk that refuses into one line that names the folder and the remedy."""
    try:
        yield
    except OSError as error:
        raise CBSDataError(
            f"cannot keep compiled code in {folder}: {error.strerror or error}; free space there, "
            "or set NUMBA_CACHE_DIR to a folder that takes some megabytes") from error
