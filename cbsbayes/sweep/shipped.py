"""The real sweep that comes with the package, the default input of ``python -m cbsbayes.fit``."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from cbsbayes.errors import CBSDataError

__all__ = ["default_sweep_path"]


def default_sweep_path() -> Path:
    """Return the shipped sweep: packaged with an installed wheel, or ``data/`` of a checkout.

    Raises
    ------
    CBSDataError
        If neither is there.
    """
    packaged = Path(str(resources.files("cbsbayes"))) / "shipped" / "verl_tiny.nc"
    checkout = Path(__file__).resolve().parents[2] / "data" / "verl_tiny" / "sweep.nc"
    for path in (packaged, checkout):
        if path.is_file():
            return path
    raise CBSDataError("the shipped sweep is missing from this installation; give a sweep file, "
                       "or reinstall cbsbayes")
