"""Numbers as text: as many digits as the interval supports, thousands separators, no more.

A number beside a credible interval is printed to the digit that the interval's width supports
(the Particle Data Group's rule: two significant digits of a width that starts with 100 to 354,
one of a larger one), and never with fewer than two significant digits of its own, so that both
ends of a skewed interval stay readable. A scale that the data do not identify is never printed
as a bare median: `Estimate` writes "≥ 512", "≤ 40" or "not identified" instead.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cbsbayes.errors import CBSDataError

__all__ = ["EN_DASH", "MINUS", "MISSING", "NO_BREAK", "Estimate", "bound", "compared_estimate",
           "count", "estimate", "estimate_of", "interval", "number", "percent", "probability",
           "short", "value_with_interval"]

MINUS = "\N{MINUS SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"
EN_DASH = "\N{EN DASH}"
MISSING = "\N{EM DASH}"
INFINITY = "\N{INFINITY}"
_SMALLEST = 1e-4  # below it "< 0.0001" tells a reader as much
_SURE = 0.995
_STATUSES = ("identified", "upper_bound", "lower_bound", "not_identified")


def _decimals(value: float, digits: int) -> int:
    """Return the decimals at which a positive value has so many significant digits."""
    return digits - 1 - math.floor(math.log10(value))


def _decimals_of_width(width: float) -> int:
    leading = round(width * 10.0 ** _decimals(width, 3))
    return _decimals(width, 2 if leading < 355 else 1)


def number(value: float, decimals: int | None = None, *, digits: int = 3) -> str:
    """Return a number as text with thousands separators.

    Parameters
    ----------
    value : float
        NaN gives an em dash, infinities the symbol, what is below 0.0001 that bound.
    decimals : int, optional
        Digits after the point, negative for tens and hundreds; by default as many as
        `digits` significant digits need.
    digits : int
        Significant digits where `decimals` is not given.
    """
    if math.isnan(value):
        return MISSING
    sign = MINUS if value < 0 else ""
    size = abs(value)
    if math.isinf(value) or size == 0:
        return f"{sign}{INFINITY}" if size else "0"
    if size < _SMALLEST:
        return f"< {_SMALLEST:.4f}" if value > 0 else f"> {MINUS}{_SMALLEST:.4f}"
    places = _decimals(size, digits) if decimals is None else decimals
    text = f"{round(size, places):,.{max(places, 0)}f}"
    return text if float(text.replace(",", "")) == 0 else f"{sign}{text}"


def short(value: float) -> str:
    """Return a number to four significant digits without trailing zeros, e.g. ``0.7``."""
    text = number(value, digits=4)
    return text.rstrip("0").rstrip(".") if "." in text and " " not in text else text


def count(value: float) -> str:
    """Return a whole number with thousands separators; other numbers as `short` does."""
    whole = math.isfinite(value) and float(value).is_integer()
    return number(value, 0) if whole else short(value)


def interval(lower: float, upper: float) -> str:
    """Return ``lower–upper``, with "to" in place of the dash where an end is negative."""
    if math.isnan(lower) and math.isnan(upper):
        return MISSING
    join = EN_DASH if lower >= 0 else " to "
    return join.join(number(end, _end_decimals(end, upper - lower)) for end in (lower, upper))


def _end_decimals(value: float, width: float) -> int | None:
    """Return the decimals that the width supports, or more to keep two digits of the value."""
    if not (math.isfinite(width) and width > 0 and math.isfinite(value)):
        return None
    shared = _decimals_of_width(width)
    return max(shared, _decimals(abs(value), 2)) if value else shared


def value_with_interval(value: float, lower: float, upper: float) -> tuple[str, str]:
    """Return the value and its interval as two texts of matching precision."""
    return number(value, _end_decimals(value, upper - lower)), interval(lower, upper)


def bound(value: float, *, upper: bool) -> str:
    """Return ``≤ value`` or ``≥ value``, rounded outwards to three significant digits."""
    sign = "≤" if upper else "≥"
    if not math.isfinite(value) or value == 0:
        return f"{sign}{NO_BREAK}{number(value)}"
    scale = 10.0 ** _decimals(abs(value), 3)
    scaled = round(value * scale, 6)  # 512.0000000001 is not a reason to print 513
    outwards = (math.ceil(scaled) if upper else math.floor(scaled)) / scale
    return f"{sign}{NO_BREAK}{number(outwards)}"


def percent(share: float) -> str:
    """Return a share as a whole percentage, one decimal below 1 %; from 1,000 % on as a factor."""
    hundred = 100 * share
    if math.isfinite(hundred) and hundred >= 1000:
        return f"{number(share, digits=2)}-fold"
    text = number(hundred, 1) if 0 < abs(hundred) < 0.95 else number(hundred, 0)
    return f"{text}{NO_BREAK}%"


def probability(p: float) -> str:
    """Return a probability to two digits; near 0 and 1 as a bound.

    Examples
    --------
    >>> probability(0.874), probability(0.9999), probability(0.0)
    ('0.87', 'above 0.99', 'below 0.01')
    """
    if math.isnan(p):
        return MISSING
    if p > _SURE:
        return "above 0.99"
    return "below 0.01" if p < 1 - _SURE else f"{p:.2f}"


@dataclass(frozen=True)
class Estimate:
    """One estimate as text.

    Attributes
    ----------
    value : str
        The median, a bound with its sign, or "not identified".
    interval : str
        The credible interval; empty for anything but an identified value.
    status : str
        ``identified``, ``upper_bound``, ``lower_bound`` or ``not_identified``.
    """

    value: str
    interval: str
    status: str

    @property
    def identified(self) -> bool:
        """Whether the data alone say how large the quantity is."""
        return self.status == "identified"

    def __str__(self) -> str:
        """Return value and interval in one piece of running text."""
        return f"{self.value} ({self.interval})" if self.interval else self.value


def estimate(row: Mapping[Hashable, Any] | pd.Series) -> Estimate:
    """Return the estimate a row of the quantity table stands for.

    Parameters
    ----------
    row : pandas.Series or mapping
        Needs ``median, ci_lower, ci_upper, status``.

    Raises
    ------
    CBSDataError
        If the status is none of the four.
    """
    return estimate_of(row["median"], row["ci_lower"], row["ci_upper"], str(row["status"]))


def estimate_of(median: float, lower: float, upper: float, status: str) -> Estimate:
    """Return an estimate from its numbers and status; see `estimate`."""
    if status not in _STATUSES:
        raise CBSDataError(f"unknown status {status!r} of an estimate; valid: "
                           f"{', '.join(_STATUSES)}; write the table again")
    if status == "identified":
        return Estimate(*value_with_interval(float(median), float(lower), float(upper)), status)
    limit = {"upper_bound": upper, "lower_bound": lower}.get(status, math.nan)
    if status == "lower_bound" and limit == math.inf:
        return Estimate("never", "", status)  # S of a group that saturates below the target
    if not math.isfinite(limit):
        return Estimate("not identified", "", "not_identified")
    return Estimate(bound(float(limit), upper=status == "upper_bound"), "", status)


def compared_estimate(row: Mapping[Hashable, Any]) -> Estimate | None:
    """Return the noise scale of a row of the comparison; None where least squares gave none.

    The posterior's row leaves empty what the data do not settle: the open side of a bound, or
    everything.

    Parameters
    ----------
    row : mapping
        A row of the comparison: ``method, B_noise, ci_lower, ci_upper``.
    """
    value, lower, upper = row["B_noise"], row["ci_lower"], row["ci_upper"]
    if row["method"] == "posterior":
        known = {(False, True): "upper_bound", (True, False): "lower_bound"}
        open_ends = known.get((bool(pd.notna(lower)), bool(pd.notna(upper))), "not_identified")
        return estimate_of(value, lower, upper, open_ends if pd.isna(value) else "identified")
    if pd.isna(value):
        return None
    found = estimate_of(value, lower, upper, "identified")
    finite = math.isfinite(lower) and math.isfinite(upper)
    return found if finite else Estimate(found.value, "no interval", "identified")
