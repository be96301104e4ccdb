"""Which fits are meant, whether they may be compared, and what a reader must know when they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.dataset import is_one_axis

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["check_comparable", "common_thresholds", "find_fits", "label_fits", "nothing_in_common",
           "remarks"]

_DISTINCT = 8  # values of a curve that two runs do not share by chance
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
    places = [path.resolve() for path in found]
    for path, place in zip(found, places, strict=True):
        if places.count(place) > 1:
            raise CBSDataError(f"{path} was given twice; a fit says nothing against itself: give "
                               "each fit once")
    return found


def _fits_at(given: Path) -> list[Path]:
    if not given.exists():
        raise CBSDataError(f"{given} does not exist; give folders or fit.nc files that "
                           "python -m cbsbayes.fit wrote")
    if not given.is_dir():
        return [given]
    inside = sorted([*given.glob("fit.nc")] or given.glob("*/fit.nc"))
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
    shared = set(split[0]).intersection(*split[1:]) if len(fits) > 1 else set()
    labels = [_JOIN.join(part for part in parts if part not in shared) for parts in split]
    laws = [_JOIN.join(filter(None, (label, fit.law.name)))
            for label, fit in zip(labels, fits, strict=True)]
    folders = [path.parent.name or str(path) if path.name == "fit.nc" else path.stem
               for path in paths]
    for names in (labels, laws, folders):
        if all(names) and len(set(names)) == len(names):
            return names
    return [f"{k}. {folder}" for k, folder in enumerate(folders, start=1)]


def check_comparable(fits: Mapping[str, Fit]) -> None:
    """Refuse comparisons that would mean nothing.

    Raises
    ------
    CBSDataError
        With fewer than two fits, targets of opposite direction, the same runs twice, or data
        of total batches beside a law of two axes.
    """
    if len(fits) < 2:
        raise CBSDataError(f"{len(fits)} fit was given; a comparison needs two: give more folders "
                           "written by python -m cbsbayes.fit")
    for (a, first), (b, second) in combinations(fits.items(), 2):
        ways = [str(fit.sweep.attrs.get("direction", "increasing")) for fit in (first, second)]
        if ways[0] != ways[1]:
            raise CBSDataError(f"the target of {a} is {ways[0]} and that of {b} {ways[1]}; only "
                               "fits of the same kind of target can be compared")
        _check_axes(a, first, b, second)
        _check_axes(b, second, a, first)
        runs = (first.crossings.sizes["run"], second.crossings.sizes["run"])
        if len(_shared_runs(first, second)) == min(runs):
            raise CBSDataError(f"{a} and {b} are fits of the same runs, so that their posteriors "
                               "are not independent and no difference can be stated; to compare "
                               "laws on the same runs see the section on laws of either page")


def _check_axes(a: str, first: Fit, b: str, second: Fit) -> None:
    if is_one_axis(first.crossings) and second.law.two_axis:
        raise CBSDataError(f"{a} has total batches only and {b} is fitted with the law "
                           f"{second.law.name} of prompts and rollouts; fit {b} with --law total "
                           "as well, or compare fits of the same axes")


def _shared_runs(first: Fit, second: Fit) -> set[tuple[object, ...]]:
    """Return the runs fitted in both, known by their batch and values, whatever their names."""
    return _marks(first) & _marks(second)


def _marks(fit: Fit) -> set[tuple[object, ...]]:
    """Return what tells each fitted run: batch, values and, where those are few, its name."""
    names = fit.crossings["run"].values
    runs = fit.sweep.sel(run=names)
    values = (runs["accuracy"] if "accuracy" in runs else runs["steps_lower"]).transpose("run", ...)
    batches = zip(*(runs[name].values.tolist()
                    for name in ("n_prompts", "n_rollouts", "total_batch")), strict=True)
    marks: set[tuple[object, ...]] = set()
    for name, batch, row in zip(names.tolist(), batches, values.values, strict=True):
        known = row[np.isfinite(row)]
        marks.add((*batch, known.tobytes(), "" if known.size >= _DISTINCT else str(name)))
    return marks


def common_thresholds(first: Fit, second: Fit) -> list[float]:
    """Return the thresholds fitted in both, in the first's order; none is interpolated."""
    return [float(t) for t in first.thresholds if np.isclose(second.thresholds, t).any()]


def nothing_in_common(fits: Mapping[str, Fit]) -> str:
    """Return why there is nothing to compare, with thresholds to fit all again with."""
    if any(common_thresholds(a, b) for a, b in combinations(fits.values(), 2)):
        return ("the fits have no quantity in common that is read off at the same batch; compare "
                "sweeps that share an n_prompts or an n_rollouts, or fit all with one --law")
    listed = "; ".join(f"{label}: {_numbers(fit.thresholds)}" for label, fit in fits.items())
    low = max(float(fit.thresholds.min()) for fit in fits.values())
    high = min(float(fit.thresholds.max()) for fit in fits.values())
    if low > high:
        return (f"no threshold was fitted in two of the fits, and their ranges do not meet "
                f"({listed}); nothing is extrapolated: train the weaker longer, or compare at a "
                "threshold that both reach")
    every = np.unique(np.concatenate([fit.thresholds for fit in fits.values()]))
    inside = every[(every >= low) & (every <= high)]
    few = np.unique(np.linspace(0, len(inside) - 1, min(4, len(inside))).round().astype(int))
    return (f"no threshold was fitted in two of the fits ({listed}); nothing is interpolated: fit "
            f"all again with --thresholds {_numbers(inside[few], ',')}")


def _numbers(values: np.ndarray, join: str = ", ") -> str:
    return join.join(f"{value:g}" for value in values)


def remarks(fits: Mapping[str, Fit]) -> list[str]:
    """Return what must be known to read the comparison, one sentence each."""
    out = [f"Sampling checks not passed by {label}: what is said of it is provisional."
           for label, fit in fits.items() if not fit.verdict["sampling"]["passed"]]
    out += [f"{label} is fitted to simulated runs, not to measured ones."
            for label, fit in fits.items() if fit.sweep.attrs.get("simulated")]
    out += _differ("laws", {label: fit.law.name for label, fit in fits.items()},
                   "noise scales, critical batch sizes, exponents and S_min are then not the same "
                   "quantities and are not put in relation")
    out += _differ("metrics", {label: str(fit.settings.get("metric") or "not named")
                               for label, fit in fits.items()},
                   "a threshold is a statement on its own metric")
    out += _differ("models", {label: str(fit.settings.get("model", "crossing"))
                              for label, fit in fits.items()},
                   "part of a difference may be the model's")
    for (a, first), (b, second) in combinations(fits.items(), 2):
        shared = len(_shared_runs(first, second))
        if shared:
            out.append(f"{shared} runs are in both {a} and {b}: their posteriors are not "
                       "independent, and the intervals of differences are too wide.")
    return out


def _differ(what: str, values: Mapping[str, str], so: str) -> list[str]:
    if len(set(values.values())) == 1:
        return []
    listed = ", ".join(f"{label}: {value}" for label, value in values.items())
    return [f"The {what} differ ({listed}); {so}."]
