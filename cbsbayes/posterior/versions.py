"""Versions of everything that a number may depend on."""

from __future__ import annotations

import platform
from importlib.metadata import version

__all__ = ["versions"]

_PACKAGES = ("pymc", "pytensor", "nutpie", "arviz-stats", "xarray", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Return Python's and the packages' versions by name."""
    ours = {"python": platform.python_version(), "cbsbayes": version("cbsbayes")}
    return ours | {name: version(name) for name in _PACKAGES}
