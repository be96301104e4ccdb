"""Fits side by side: differences and ratios of what is read off them, as posteriors.

Fits of different runs are independent given the model, so a draw of one may stand beside any draw
of another: they are paired at random, and P(first > second) counts all pairs. Thresholds and
batches are those that both fits have; nothing is interpolated. A number that the data do not
settle in one of the two leaves the ratio a bound, or nothing: the lower end of first/second is
known where the lower end of the first and the upper end of the second are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.decisions.comparable import common_thresholds
from cbsbayes.posterior.quantities import Quantity, quantities, tried_batches
from cbsbayes.posterior.summary import interval

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["COMPARE_COLUMNS", "LAW_BOUND", "Side", "compare_sides", "ratio_status"]

LAW_BOUND = frozenset({"cbs_prompts", "cbs_samples", "cbs_rollouts", "B_noise", "B_prompt",
                       "B_rollout", "alpha", "S_min", "E_min"})
"""Quantities that are numbers only together with their law."""

_SIDES = ("median", "lower", "upper", "status")
COMPARE_COLUMNS = [
    "quantity", "at", "threshold", "unit", "first", "second", "first_law", "second_law",
    *(f"first_{part}" for part in _SIDES), *(f"second_{part}" for part in _SIDES),
    "ratio", "ratio_lower", "ratio_upper", "difference", "difference_lower", "difference_upper",
    "status", "p_first_larger", "ci_prob", "remark"]
_NEVER = 1e100  # stands for S that is infinite: two of them are alike
_PAIRINGS = 5  # random pairings of the draws, so that the pairing itself adds little


@dataclass(frozen=True)
class Side:
    """One fit as a comparison sees it.

    Attributes
    ----------
    label : str
        Its short name.
    fit : Fit
        The fit.
    """

    label: str
    fit: Fit

    @cached_property
    def quantities(self) -> dict[tuple[str, str], Quantity]:
        """Everything read off the posterior, by quantity and what is held fixed."""
        return self._read(self.fit.posterior)

    @cached_property
    def prior_quantities(self) -> dict[tuple[str, str], Quantity]:
        """The same of the prior."""
        return self._read(self.fit.prior)

    def _read(self, draws: xr.Dataset) -> dict[tuple[str, str], Quantity]:
        tried = tried_batches(self.fit.crossings)
        return {(q.name, q.at): q for q in quantities(self.fit.law, draws, tried)}

    @cached_property
    def _status(self) -> dict[tuple[str, str], list[str]]:
        table = self.fit.cbs.assign(at=self.fit.cbs["at"].fillna(""))
        return {(str(name), str(at)): rows["status"].tolist()
                for (name, at), rows in table.groupby(["quantity", "at"], sort=False)}

    def status(self, key: tuple[str, str], k: int) -> str:
        """Return what the data settle of a quantity at the threshold in place `k`."""
        known = self._status[key]
        return known[k if len(known) > 1 or self.per_threshold(key) else 0]

    def per_threshold(self, key: tuple[str, str]) -> bool:
        """Return whether a quantity has a value for each threshold."""
        return "threshold" in self.quantities[key].draws.dims

    def draws(self, key: tuple[str, str], k: int, *, prior: bool = False) -> np.ndarray:
        """Return draws of a quantity at the threshold in place `k`, shape (draw,)."""
        held = (self.prior_quantities if prior else self.quantities)[key].draws
        chosen = held.isel(threshold=k) if "threshold" in held.dims else held
        return chosen.values.reshape(-1)


def compare_sides(
    sides: Sequence[Side], *, names: Sequence[str] | None = None, ci_prob: float = 0.9,
    random_seed: int = 0,
) -> pd.DataFrame:
    """Return the table of ``compare.csv``: a row per pair of fits, quantity, batch and threshold.

    Parameters
    ----------
    sides : sequence of Side
        The fits, in the order in which they are named first and second.
    names : sequence of str, optional
        Quantities to keep; all unless given.
    ci_prob : float
        Probability of the equal-tailed intervals.
    random_seed : int
        Seed of the pairing of draws.

    Returns
    -------
    DataFrame
        Columns `COMPARE_COLUMNS`. ``ratio`` is first / second and ``difference`` first - second,
        for typical runs, empty as far as the data do not settle them (``status``, or
        ``not_comparable`` where the laws differ and the quantity is one of its law).
    """
    rng = np.random.default_rng(random_seed)
    rows = [row for first, second in combinations(sides, 2)
            for row in _pair_rows(first, second, names, ci_prob, rng)]
    return pd.DataFrame(rows, columns=COMPARE_COLUMNS)


def _pair_rows(
    first: Side, second: Side, names: Sequence[str] | None, ci_prob: float,
    rng: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    places = common_thresholds(first.fit, second.fit)
    for key, quantity in first.quantities.items():
        if key not in second.quantities or (names is not None and key[0] not in names):
            continue
        if not first.per_threshold(key):
            yield _row(first, second, key, quantity, (0, 0), float("nan"), ci_prob, rng)
            continue
        for i, j in places:
            threshold = float(first.fit.thresholds[i])
            yield _row(first, second, key, quantity, (i, j), threshold, ci_prob, rng)


def _row(
    first: Side, second: Side, key: tuple[str, str], quantity: Quantity, place: tuple[int, int],
    threshold: float, ci_prob: float, rng: np.random.Generator,
) -> dict[str, Any]:
    row = {"quantity": key[0], "at": key[1], "threshold": threshold, "unit": quantity.unit,
           "first": first.label, "second": second.label, "first_law": first.fit.law.name,
           "second_law": second.fit.law.name, "ci_prob": ci_prob, "remark": ""}
    draws = [side.draws(key, k) for side, k in zip((first, second), place, strict=True)]
    status = [side.status(key, k) for side, k in zip((first, second), place, strict=True)]
    for name, values, known in zip(("first", "second"), draws, status, strict=True):
        shown = _shown(values, known, ci_prob)
        row |= {f"{name}_{part}": value for part, value in shown.items()}
        row[f"{name}_status"] = known
    if key[0] in LAW_BOUND and first.fit.law.name != second.fit.law.name:
        return row | {"status": "not_comparable", "remark": "the laws differ"}
    known = ratio_status(*status)
    a, b = _paired(draws[0], draws[1], rng)
    ratio, difference = _shown(a / b, known, ci_prob), _shown(a - b, known, ci_prob)
    row |= {f"ratio{_end(part)}": value for part, value in ratio.items()}
    row |= {f"difference{_end(part)}": value for part, value in difference.items()}
    row["p_first_larger"] = _p_larger(draws[0], draws[1]) if known == "identified" else np.nan
    return row | {"status": known}


def _end(part: str) -> str:
    return "" if part == "median" else f"_{part}"


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


def _shown(draws: np.ndarray, status: str, ci_prob: float) -> dict[str, float]:
    """Return median and ends, empty as far as they are the prior's."""
    lower, upper = interval(draws, ci_prob)
    return {"median": float(np.median(draws)) if status == "identified" else np.nan,
            "lower": lower if status in ("identified", "lower_bound") else np.nan,
            "upper": upper if status in ("identified", "upper_bound") else np.nan}


def _paired(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return draws of both side by side, every draw of the longer in each of some pairings."""
    size = max(len(first), len(second))
    first, second = (np.minimum(draws, _NEVER) for draws in (first, second))
    both = [np.concatenate([rng.permutation(np.resize(draws, size)) for _ in range(_PAIRINGS)])
            for draws in (first, second)]
    return both[0], both[1]


def _p_larger(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of all pairs in which the first is larger; a tie counts half."""
    ordered = np.sort(second)
    below = np.searchsorted(ordered, first, "left") + np.searchsorted(ordered, first, "right")
    return float(below.mean() / (2 * len(ordered)))
