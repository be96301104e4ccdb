"""Numbers as text: as many digits as the interval supports, thousands separators, no more.

A number beside a credible interval is printed to the digit that the interval's width supports
(the Particle Data Group's rule: two significant digits of a width that starts with 100 to 354,
one of a larger one), and never with fewer than two significant digits of its own, so that both
ends of a skewed interval stay readable.
"""

from __future__ import annotations

import math

__all__ = ["bound", "count", "decimals_for", "decimals_of_width", "interval", "number", "percent",
           "short", "value_with_interval"]

MINUS = "\N{MINUS SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"
EN_DASH = "\N{EN DASH}"
MISSING = "\N{EM DASH}"
INFINITY = "\N{INFINITY}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PLAIN_RANGE = (1e-4, 1e12)  # outside it a power of ten reads better than zeros


def decimals_for(value: float, digits: int = 2) -> int:
    """Return the decimals at which `value` has `digits` significant digits.

    Negative results mean tens, hundreds and so on.

    Raises
    ------
    ValueError
        If the value is not a positive finite number.
    """
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"value must be positive and finite, got {value}")
    return digits - 1 - math.floor(math.log10(value))


def decimals_of_width(width: float) -> int:
    """Return the decimals that an interval of this width supports."""
    leading = round(width * 10.0 ** decimals_for(width, 3))
    return decimals_for(width, 2 if leading < 355 else 1)


def number(value: float, decimals: int | None = None, *, digits: int = 3) -> str:
    """Return a number as text with thousands separators.

    Parameters
    ----------
    value : float
        NaN gives an em dash, infinities the symbol.
    decimals : int, optional
        Digits after the point, negative for tens and hundreds; by default as many as
        `digits` significant digits need.
    digits : int
        Significant digits where `decimals` is not given; also those of the mantissa of
        numbers below 0.0001 or from 10¹² on, which are printed with a power of ten.
    """
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return INFINITY if value > 0 else MINUS + INFINITY
    if value == 0:
        return "0"
    low, high = _PLAIN_RANGE
    if not low <= abs(value) < high:
        return _power_of_ten(value, digits)
    places = decimals_for(abs(value), digits) if decimals is None else decimals
    text = f"{round(value, places):,.{max(places, 0)}f}"
    return text.replace("-", MINUS)


def _power_of_ten(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa.replace('-', MINUS)} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def short(value: float) -> str:
    """Return a number to four significant digits without trailing zeros, e.g. ``0.7``."""
    text = number(value, digits=4)
    return text.rstrip("0").rstrip(".") if "." in text and "×" not in text else text


def count(value: float) -> str:
    """Return a whole number with thousands separators; other numbers as `short` does."""
    whole = math.isfinite(value) and float(value).is_integer() and abs(value) < _PLAIN_RANGE[1]
    return number(value, 0) if whole else short(value)


def _own_decimals(value: float, shared: int) -> int:
    """Return the shared decimals, or more where the value would lose its second digit."""
    return max(shared, decimals_for(abs(value))) if value else shared


def interval(lower: float, upper: float) -> str:
    """Return ``lower–upper``, with "to" in place of the dash where an end is negative."""
    if math.isnan(lower) and math.isnan(upper):
        return MISSING
    join = EN_DASH if lower >= 0 else " to "
    width = upper - lower
    if not (math.isfinite(width) and width > 0):
        return f"{number(lower)}{join}{number(upper)}"
    shared = decimals_of_width(width)
    ends = [number(end, _own_decimals(end, shared)) for end in (lower, upper)]
    return join.join(ends)


def value_with_interval(value: float, lower: float, upper: float) -> tuple[str, str]:
    """Return the value and its interval as two texts of matching precision."""
    width = upper - lower
    if not (math.isfinite(width) and width > 0 and math.isfinite(value)):
        return number(value), interval(lower, upper)
    return number(value, _own_decimals(value, decimals_of_width(width))), interval(lower, upper)


def bound(value: float, *, upper: bool) -> str:
    """Return ``≤ value`` or ``≥ value``, rounded outwards to three significant digits."""
    sign = "≤" if upper else "≥"
    if not math.isfinite(value) or value == 0:
        return f"{sign}{NO_BREAK}{number(value)}"
    scale = 10.0 ** decimals_for(abs(value), 3)
    scaled = round(value * scale, 6)  # 512.0000000001 is not a reason to print 513
    outwards = (math.ceil(scaled) if upper else math.floor(scaled)) / scale
    return f"{sign}{NO_BREAK}{number(outwards)}"


def percent(share: float) -> str:
    """Return a share as a whole percentage (one decimal below 1 %), with a no-break space."""
    hundred = 100 * share
    text = number(hundred, 1) if 0 < abs(hundred) < 0.95 else number(hundred, 0)
    return f"{text}{NO_BREAK}%"
