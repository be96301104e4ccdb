"""Whether fits may be compared at all, and what a reader must know when they are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.dataset import is_one_axis

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["check_comparable", "common_thresholds", "no_common_thresholds", "remarks"]

_TELLING = 8  # values of a curve that two runs do not share by chance


def check_comparable(fits: Sequence[Fit], labels: Sequence[str]) -> None:
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
    for (a, first), (b, second) in combinations(zip(labels, fits, strict=True), 2):
        _same_direction(a, first, b, second)
        _same_axes(a, first, b, second)
        if len(_shared_runs(first, second)) == min(_n_runs(first), _n_runs(second)):
            raise CBSDataError(f"{a} and {b} are fits of the same runs, so that their posteriors "
                               "are not independent and no difference can be stated; to compare "
                               "laws on the same runs see the section on laws of either page")


def _same_direction(a: str, first: Fit, b: str, second: Fit) -> None:
    ways = [str(fit.sweep.attrs.get("direction", "increasing")) for fit in (first, second)]
    if ways[0] != ways[1]:
        raise CBSDataError(f"the target of {a} is {ways[0]} and that of {b} {ways[1]}; only fits "
                           "of the same kind of target can be compared")


def _same_axes(a: str, first: Fit, b: str, second: Fit) -> None:
    for (name, one), (other, two) in (((a, first), (b, second)), ((b, second), (a, first))):
        if is_one_axis(one.crossings) and two.law.two_axis:
            raise CBSDataError(
                f"{name} has total batches only and {other} is fitted with the law "
                f"{two.law.name} of prompts and rollouts; fit {other} with --law total as well, "
                "or compare fits of the same axes")


def _n_runs(fit: Fit) -> int:
    return int(fit.crossings.sizes["run"])


def _shared_runs(first: Fit, second: Fit) -> set[tuple[object, ...]]:
    """Return the runs fitted in both, known by their batch and values, whatever their names."""
    return _marks(first) & _marks(second)


def _marks(fit: Fit) -> set[tuple[object, ...]]:
    """Return what tells each fitted run: batch, values and, where those are few, its name."""
    names = fit.crossings["run"].values
    runs = fit.sweep.sel(run=names)
    values = (runs["accuracy"] if "accuracy" in runs else runs["steps_lower"]).transpose("run", ...)
    batches = zip(runs["n_prompts"].values.tolist(), runs["n_rollouts"].values.tolist(),
                  runs["total_batch"].values.tolist(), strict=True)
    marks: set[tuple[object, ...]] = set()
    for name, batch, row in zip(names.tolist(), batches, values.values, strict=True):
        known = row[np.isfinite(row)]
        marks.add((*batch, known.tobytes(), "" if known.size >= _TELLING else str(name)))
    return marks


def common_thresholds(first: Fit, second: Fit) -> list[tuple[int, int]]:
    """Return places of the thresholds fitted in both, as pairs of indices; none interpolated."""
    return [(i, int(np.flatnonzero(np.isclose(second.thresholds, t))[0]))
            for i, t in enumerate(first.thresholds)
            if np.isclose(second.thresholds, t).any()]


def no_common_thresholds(fits: Sequence[Fit], labels: Sequence[str]) -> str:
    """Return why there is nothing to compare, with thresholds to fit all again with."""
    listed = "; ".join(f"{label}: {_numbers(fit.thresholds)}"
                       for label, fit in zip(labels, fits, strict=True))
    low = max(float(fit.thresholds.min()) for fit in fits)
    high = min(float(fit.thresholds.max()) for fit in fits)
    if low > high:
        return (f"no threshold was fitted in two of the fits, and their ranges do not meet "
                f"({listed}); nothing is extrapolated: train the weaker longer, or compare at a "
                "threshold that both reach")
    every = np.unique(np.concatenate([fit.thresholds for fit in fits]))
    inside = every[(every >= low) & (every <= high)]
    places = np.linspace(0, len(inside) - 1, min(4, len(inside))).round().astype(int)
    few = inside[np.unique(places)]
    return (f"no threshold was fitted in two of the fits ({listed}); nothing is interpolated: fit "
            f"all again with --thresholds {_numbers(few, ',')}")


def _numbers(values: np.ndarray, join: str = ", ") -> str:
    return join.join(f"{value:g}" for value in values)


def remarks(fits: Sequence[Fit], labels: Sequence[str]) -> list[str]:
    """Return what must be known to read the comparison, one sentence each."""
    told = [f"The fit {label} did not pass its checks; what is said of it is provisional."
            for label, fit in zip(labels, fits, strict=True) if not fit.verdict["trusted"]]
    told += [f"{label} is fitted to simulated runs, not to measured ones."
             for label, fit in zip(labels, fits, strict=True) if fit.sweep.attrs.get("simulated")]
    told += _differ([fit.law.name for fit in fits], labels, "laws",
                    "noise scales, critical batch sizes, exponents and S_min are then not the "
                    "same quantities and are not put in relation")
    told += _differ([str(fit.settings.get("metric") or "") for fit in fits], labels, "metrics",
                    "a threshold is a statement on its own metric")
    told += _differ([str(fit.settings.get("model", "crossing")) for fit in fits], labels,
                    "models", "part of a difference may be the model's")
    for (a, first), (b, second) in combinations(zip(labels, fits, strict=True), 2):
        shared = len(_shared_runs(first, second))
        if shared:
            told.append(f"{shared} runs are in both {a} and {b}: their posteriors are not "
                        "independent, and the intervals of differences are too wide.")
    return told


def _differ(values: Sequence[str], labels: Sequence[str], what: str, so: str) -> list[str]:
    if len(set(values)) == 1:
        return []
    listed = ", ".join(f"{label}: {value or 'not named'}"
                       for label, value in zip(labels, values, strict=True))
    return [f"The {what} differ ({listed}); {so}."]
