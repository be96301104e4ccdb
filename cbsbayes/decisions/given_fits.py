"""The fits a command was given: files, folders of one fit, folders of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cbsbayes.errors import CBSDataError

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["find_fits", "label_fits"]

_JOIN = " · "  # between the parts of a group's label


def find_fits(paths: Sequence[Path]) -> list[Path]:
    """Return the files of all fits meant, those of a folder of several groups in their order.

    Parameters
    ----------
    paths : sequence of Path
        ``fit.nc`` files, folders that hold one, or folders whose folders do.

    Raises
    ------
    CBSDataError
        If a path holds no fit, or the same file is meant twice.
    """
    found = [path for given in paths for path in _fits_at(given)]
    seen: set[Path] = set()
    for path in found:
        if path.resolve() in seen:
            raise CBSDataError(f"{path} was given twice; a fit says nothing against itself: give "
                               "each fit once")
        seen.add(path.resolve())
    return found


def _fits_at(given: Path) -> list[Path]:
    if not given.exists():
        raise CBSDataError(f"{given} does not exist; give folders or fit.nc files that "
                           "python -m cbsbayes.fit wrote")
    if not given.is_dir():
        return [given]
    if (given / "fit.nc").is_file():
        return [given / "fit.nc"]
    inside = sorted(path for path in given.glob("*/fit.nc") if path.is_file())
    if not inside:
        raise CBSDataError(f"{given} holds no fit.nc, nor does any folder in it; give a folder "
                           "that python -m cbsbayes.fit wrote")
    return inside


def label_fits(fits: Sequence[Fit], paths: Sequence[Path]) -> list[str]:
    """Return a short name for every fit: what sets its group apart, else its folder.

    Parts that all group labels share are left out; where labels do not tell the fits apart the
    law, then the folder, is added.
    """
    split = [fit.group.split(_JOIN) for fit in fits]
    shared = set(split[0]).intersection(*split[1:])
    labels = [_JOIN.join(part for part in parts if part not in shared) for parts in split]
    if all(labels) and len(set(labels)) == len(labels):
        return labels
    laws = [f"{_JOIN.join(part for part in (label, fit.law.name) if part)}"
            for label, fit in zip(labels, fits, strict=True)]
    if len(set(laws)) == len(laws):
        return laws
    places = [path.parent.name or str(path) if path.name == "fit.nc" else path.stem
              for path in paths]
    if len(set(places)) == len(places):
        return places
    return [f"{k}. {place}" for k, place in enumerate(places, start=1)]
