"""Versions of everything that a number may depend on."""

from __future__ import annotations

import platform
from importlib.metadata import version

__all__ = ["versions"]

_PACKAGES = ("cbsbayes", "pymc", "pytensor", "nutpie", "arviz-stats", "xarray", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Return Python's and the packages' versions by name."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
