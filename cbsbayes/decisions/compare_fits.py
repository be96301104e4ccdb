"""Fits side by side: differences and ratios of what is read off them, as posteriors.

Fits of different runs are independent given the model, so a draw of one may stand beside any draw
of another: they are paired at random, and P(first > second) counts all pairs. Thresholds and
batches are those that both fits have; nothing is interpolated. A number that the data do not
settle in one of the two leaves the ratio a bound, or nothing: the lower end of first/second is
known where the lower end of the first and the upper end of the second are.

Fits whose runs differ in passes over each batch (``ppo_epochs``) are compared in what they cost as
well: the samples generated and the sample passes to the target, at batches that both have and along
diagonals of equal optimisation, where a trainer step of both makes as many sample passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cbsbayes.decisions.batches import COLUMNS, as_fit, evenly, find_row, label_fits
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.quantities import OF_ONE_LAW, design_of, quantities
from cbsbayes.posterior.tidy import masked
from cbsbayes.sweep.dataset import is_one_axis

__all__ = ["LAW_BOUND", "check_comparable", "common_thresholds", "compare_fits",
           "nothing_in_common", "ratio_status", "shared_runs"]

LAW_BOUND = frozenset({"cbs_prompts", "cbs_samples", "cbs_rollouts", "S_min", *OF_ONE_LAW})
"""Quantities that are numbers only together with their law."""

_DISTINCT = 8  # values of a curve that two runs do not share by chance
_LARGEST = 1e100  # stands for an infinite S: two of them are alike
_PAIRINGS = 5  # random pairings of the draws, so that the pairing itself adds little


class _Side:
    """One fit as a comparison sees it: its short name, and all that is read off the posterior."""

    def __init__(self, label: str, fit: Fit) -> None:
        self.label, self.fit, design = label, fit, design_of(fit.crossings)
        self.batches = design.batches
        self.quantities = {(quantity.name, quantity.at): quantity
                           for quantity in quantities(fit.law, fit.posterior, design)}
        # passes over each batch and updates per trainer step, of most runs
        self.passes = [int(np.bincount(fit.sweep[name].values).argmax())
                       for name in ("ppo_epochs", "updates_per_step")]

    def known(self, key: tuple[str, str], threshold: float) -> tuple[np.ndarray, str]:
        """Return draws of a quantity at a threshold (NaN where it has none), shape (draw,).

        With them what the data settle of it.
        """
        held = self.quantities[key].draws
        if "threshold" in held.dims:
            held = held.sel(threshold=threshold, method="nearest")
        row = find_row(self.fit.cbs, key[0], threshold, key[1])
        return held.values.reshape(-1), "not_identified" if row is None else str(row["status"])


class _Pair(NamedTuple):
    """What of both fits is put in relation: quantities, and factors that they are taken times."""

    name: str
    at: str
    unit: str
    keys: tuple[tuple[str, str], tuple[str, str]]
    factors: tuple[float, float] = (1.0, 1.0)


def compare_fits(
    fits: Mapping[str, Fit] | Sequence[Any], *, names: Sequence[str] | None = None,
    ci_prob: float = 0.9, random_seed: int = 0,
) -> pd.DataFrame:
    """Return the table of ``compare.csv``: a row per pair of fits, quantity, batch and threshold.

    Parameters
    ----------
    fits : mapping of str to Fit, or sequence of Fit or path
        The fits in the order in which they are named first and second, by short names
        (`label_fits` gives them where there are none).
    names : sequence of str, optional
        Quantities to keep; all unless given.
    ci_prob : float
        Probability of the equal-tailed intervals.
    random_seed : int
        Seed of the pairing of draws.

    Returns
    -------
    DataFrame
        `COLUMNS` of ``compare``. ``ratio`` is first / second and ``difference`` first - second,
        for the population of runs, empty as far as the data do not settle them (``status``, or
        ``not_comparable`` where the laws differ and the quantity is one of its law).

    Raises
    ------
    CBSDataError
        As `check_comparable`; or if one is no fit, or there is no such quantity, or nothing in
        common.
    """
    if isinstance(fits, str | Fit) or not isinstance(fits, Mapping | Sequence):
        raise CBSDataError(f"{type(fits).__name__} was given; a comparison needs several fits: "
                           "give a list of them, or a dict of short names to fits")
    if not isinstance(fits, Mapping):
        given = [as_fit(fit) for fit in fits]
        fits = dict(zip(label_fits(given), given, strict=True))
    check_comparable(fits)
    sides = [_Side(label, fit) for label, fit in fits.items()]
    pairs = [(first, second, pair) for first, second in combinations(sides, 2)
             for pair in _pairs(first, second)]
    if names is not None:
        known = dict.fromkeys(pair.name for _, _, pair in pairs)
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise CBSDataError(f"no two fits have the quantity {', '.join(unknown) or repr('')}; "
                               f"valid: {', '.join(known)}")
    rng = np.random.default_rng(random_seed)
    rows = [_row(first, second, pair, threshold, ci_prob, rng) for first, second, pair in pairs
            if names is None or pair.name in names
            for threshold in _thresholds(first, second, pair)]
    table = pd.DataFrame(rows, columns=COLUMNS["compare"])
    if table["threshold"].isna().all():
        raise CBSDataError(nothing_in_common(fits))
    return table


def _pairs(first: _Side, second: _Side) -> Iterator[_Pair]:
    for key, quantity in first.quantities.items():
        if key in second.quantities:
            yield _Pair(*key, quantity.unit, (key, key))
    if first.passes != second.passes:
        yield from _reuse_pairs(first, second)


def _reuse_pairs(first: _Side, second: _Side) -> Iterator[_Pair]:
    """Yield what a target costs at batches that both have, and along diagonals.

    A batch P × G of one update generates P·G/e samples, e being the passes over each; a trainer
    step of u updates makes P·G·u sample passes.
    """
    (e1, u1), (e2, u2) = first.passes, second.passes
    for (p1, g1), (p2, g2) in product(first.batches, second.batches):
        if g1 != g2 or (p1 != p2 and p1 * u1 != p2 * u2):
            continue
        keys = (("steps", f"n_prompts={p1},n_rollouts={g1}"),
                ("steps", f"n_prompts={p2},n_rollouts={g2}"))
        b1, b2 = float(p1 * g1), float(p2 * g2)
        if p1 == p2:
            yield _Pair("generated_samples", keys[0][1], "samples", keys, (b1 / e1, b2 / e2))
            continue
        at = f"n_rollouts={g1},passes_per_step={p1 * g1 * u1}"
        yield _Pair("steps", at, "updates", keys)
        yield _Pair("generated_samples", at, "samples", keys, (b1 / e1, b2 / e2))
        yield _Pair("sample_passes", at, "samples", keys, (b1, b2))


def _thresholds(first: _Side, second: _Side, pair: _Pair) -> list[float]:
    """Return the thresholds fitted in both; NaN for a quantity that all thresholds share."""
    if "threshold" not in first.quantities[pair.keys[0]].draws.dims:
        return [float("nan")]
    return common_thresholds(first.fit, second.fit)


def _row(
    first: _Side, second: _Side, pair: _Pair, threshold: float, ci_prob: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "quantity": pair.name, "at": pair.at, "threshold": threshold, "unit": pair.unit,
        "ci_prob": ci_prob, "remark": ""}
    draws, statuses = [], []
    for name, side, key, factor in zip(("first", "second"), (first, second), pair.keys,
                                       pair.factors, strict=True):
        values, status = side.known(key, threshold)
        draws.append(factor * values)
        statuses.append(status)
        row |= {name: side.label, f"{name}_law": side.fit.law.name, f"{name}_status": status}
        row |= _numbers((f"{name}_median", f"{name}_lower", f"{name}_upper"), draws[-1], status,
                        ci_prob)
    if pair.name in LAW_BOUND and first.fit.law.name != second.fit.law.name:
        return row | {"status": "not_comparable", "remark": "the laws differ"}
    known = ratio_status(*statuses)
    a, b = _paired(draws[0], draws[1], rng)
    for name, values in (("ratio", a / b), ("difference", a - b)):
        row |= _numbers((name, f"{name}_lower", f"{name}_upper"), values, known, ci_prob)
    larger = _p_larger(*draws) if known == "identified" else np.nan
    return row | {"status": known, "p_first_larger": larger}


def ratio_status(first: str, second: str) -> str:
    """Return what is settled of first/second, from what is settled of each.

    Examples
    --------
    >>> ratio_status("identified", "upper_bound"), ratio_status("upper_bound", "upper_bound")
    ('lower_bound', 'not_identified')
    """
    has_lower, has_upper = {"identified", "lower_bound"}, {"identified", "upper_bound"}
    lower = first in has_lower and second in has_upper
    upper = first in has_upper and second in has_lower
    if lower:
        return "identified" if upper else "lower_bound"
    return "upper_bound" if upper else "not_identified"


def _numbers(
    columns: Sequence[str], draws: np.ndarray, status: str, ci_prob: float
) -> dict[str, float]:
    """Return median and ends by their columns, NaN as far as they are the prior's."""
    return dict(zip(columns, masked(draws, status, ci_prob), strict=True))


def _paired(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return draws of both side by side, every draw of the longer in each of some pairings."""
    size = max(len(first), len(second))
    both = [np.concatenate([rng.permutation(np.resize(np.minimum(draws, _LARGEST), size))
                            for _ in range(_PAIRINGS)]) for draws in (first, second)]
    return both[0], both[1]


def _p_larger(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of all pairs in which the first is larger; a tie counts half."""
    ordered = np.sort(second)
    below = np.searchsorted(ordered, first, "left") + np.searchsorted(ordered, first, "right")
    return float(below.mean() / (2 * len(ordered)))


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
        if shared_runs(first, second) == min(fit.crossings.sizes["run"] for fit in (first, second)):
            raise CBSDataError(f"{a} and {b} are fits of the same runs, so that their posteriors "
                               "are not independent and no difference can be stated; to compare "
                               "laws on the same runs see the section on laws of either page")
    for (a, first), (b, second) in permutations(fits.items(), 2):
        if is_one_axis(first.crossings) and second.law.two_axis:
            raise CBSDataError(f"{a} has total batches only and {b} is fitted with the law "
                               f"{second.law.name} of prompts and rollouts; fit {b} with --law "
                               "total as well, or compare fits of the same axes")


def shared_runs(first: Fit, second: Fit) -> int:
    """Return how many runs are in both, known by their batch and values, whatever their names."""
    return len(_marks(first) & _marks(second))


def _marks(fit: Fit) -> set[tuple[object, ...]]:
    """Return what tells each fitted run: batch, values and, where those are few, its name."""
    names = fit.crossings["run"].values
    runs = fit.sweep.sel(run=names)
    values = runs["accuracy"] if "accuracy" in runs else runs["steps_lower"]
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
    listed = "; ".join(f"{label}: {_listed(fit.thresholds)}" for label, fit in fits.items())
    low = max(float(fit.thresholds.min()) for fit in fits.values())
    high = min(float(fit.thresholds.max()) for fit in fits.values())
    if low > high:
        return (f"no threshold was fitted in two of the fits, and their ranges do not meet "
                f"({listed}); nothing is extrapolated: train the weaker longer, or compare at a "
                "threshold that both reach")
    every = np.unique(np.concatenate([fit.thresholds for fit in fits.values()]))
    few = evenly(every[(every >= low) & (every <= high)], 4)
    return (f"no threshold was fitted in two of the fits ({listed}); nothing is interpolated: fit "
            f"all again with --thresholds {_listed(few, ',')}")


def _listed(values: np.ndarray, join: str = ", ") -> str:
    return join.join(f"{value:g}" for value in values)
