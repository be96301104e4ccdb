"""Text of the report: numbers, estimates, labels of quantities, sentences from templates.

A number beside a credible interval is printed to the digit that the interval's width supports (the
Particle Data Group's rule: two significant digits of a width that starts with 100 to 354, one of a
larger one), and never with fewer than two significant digits of its own, so that both ends of a
skewed interval stay readable. What the data do not identify is never printed as a bare median:
`Estimate` is "≥ 512", "≤ 40" or "not identified" instead.

Sentences stand in ``templates/text``, one a line, tables and labels in ``templates/tables.toml``;
Python hands them `cbsbayes.report.facts.Facts` and tables. Text is plain here: the page, LaTeX and
the terminal escape it.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from cbsbayes.errors import one_line
from cbsbayes.models.laws import Law

__all__ = ["MISSING", "NO_BREAK", "RATES", "Estimate", "at_text", "batch_text", "bound", "count",
           "doubled_text", "environment", "estimate", "formula", "interval", "number", "paragraph",
           "parse_at", "percent", "place_text", "plain", "plus_minus", "probability", "quantities",
           "quantity_label", "rate_number", "rate_text", "row_label", "section_text", "sentences",
           "short", "spec"]

MINUS, INFINITY = "\N{MINUS SIGN}", "\N{INFINITY}"
NO_BREAK, EN_DASH, MISSING = "\N{NO-BREAK SPACE}", "\N{EN DASH}", "\N{EM DASH}"
_SMALLEST = 1e-4  # below it "< 0.0001" tells a reader as much
_SURE = 0.995
_ENDS = ("median", "ci_lower", "ci_upper")
_STATUSES = ("identified", "upper_bound", "lower_bound", "not_identified")
_AT = {"n_prompts": "{} prompts", "n_rollouts": "{} rollouts", "total_batch": "batch {}",
       "axis": "along {}", "learning_rate": "learning rate {}"}
_DOUBLED = {"gain_prompts": "n_prompts", "gain_rollouts": "n_rollouts", "gain_total": "total_batch"}
RATES = ("best_rate", "largest_stable_rate")
"""Quantities that are learning rates."""

type Row = Mapping[Any, Any] | pd.Series


def _decimals(value: float, digits: int) -> int:
    """Return the decimals at which a positive value has so many significant digits."""
    return digits - 1 - math.floor(math.log10(value))


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
    sign, size = MINUS if value < 0 else "", abs(value)
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
    return number(value, 0) if float(value).is_integer() else short(value)


def interval(lower: float, upper: float) -> str:
    """Return ``lower–upper``, with "to" in place of the dash where an end is negative."""
    join = EN_DASH if lower >= 0 else " to "
    return join.join(_beside(end, upper - lower) for end in (lower, upper))


def _beside(value: float, width: float) -> str:
    """Return a number to the decimals that a width supports, or more to keep two digits of it."""
    if not (math.isfinite(width) and width > 0 and math.isfinite(value)):
        return number(value)
    leading = round(width * 10.0 ** _decimals(width, 3))
    shared = _decimals(width, 2 if leading < 355 else 1)
    return number(value, max(shared, _decimals(abs(value), 2)) if value else shared)


def bound(value: float, *, upper: bool) -> str:
    """Return ``≤ value`` or ``≥ value``, rounded outwards to three significant digits."""
    outwards = value
    if math.isfinite(value) and value:
        scale = 10.0 ** _decimals(abs(value), 3)
        scaled = round(value * scale, 6)  # 512.0000000001 is not a reason to print 513
        outwards = (math.ceil(scaled) if upper else math.floor(scaled)) / scale
    return f"{'≤' if upper else '≥'}{NO_BREAK}{number(outwards)}"


def percent(share: float) -> str:
    """Return a share as a whole percentage, one decimal below 1 %; from 1,000 % on as a factor."""
    hundred = 100 * share
    if math.isfinite(hundred) and hundred >= 1000:
        return f"{number(share, digits=2)}-fold"
    return f"{number(hundred, 1 if 0 < abs(hundred) < 0.95 else 0)}{NO_BREAK}%"


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
    interval: str = ""
    status: str = "identified"

    @property
    def identified(self) -> bool:
        """Whether the data alone say how large the quantity is."""
        return self.status == "identified"

    def __str__(self) -> str:
        """Return value and interval in one piece of running text."""
        return f"{self.value} ({self.interval})" if self.interval else self.value


def estimate(row: Row | None, name: str = "", factor: float = 1.0) -> Estimate | None:
    """Return the estimate that a row of a table holds, None where it holds none.

    Parameters
    ----------
    row : mapping, Series or None
        With ``NAME`` or ``NAME_median``, ``NAME_lower, NAME_upper`` and perhaps ``NAME_status``;
        without a name ``median, ci_lower, ci_upper, status`` as in ``cbs.csv``. Where no status is
        given, an open side makes a bound of the other one.
    name : str
        Of the columns.
    factor : float
        On the numbers, for another unit.
    """
    if row is None:
        return None
    middle = f"{name}_median" if f"{name}_median" in row else name
    ends = (middle, f"{name}_lower", f"{name}_upper") if name else _ENDS
    median, lower, upper = (factor * float(row[end]) for end in ends)
    status = str(row.get(f"{name}_status" if name else "status", ""))
    if status not in _STATUSES:
        status = _status(median, lower, upper)
    if status == "identified":
        if math.isnan(upper - lower) or math.isclose(lower, upper, rel_tol=1e-6):
            return Estimate(short(median))  # nothing is uncertain in it, or nothing known of that
        return Estimate(_beside(median, upper - lower), interval(lower, upper))
    limit = {"upper_bound": upper, "lower_bound": lower}.get(status, math.nan)
    if status == "lower_bound" and limit == math.inf:
        return Estimate("never", "", status)  # S of a group that saturates below the target
    if math.isfinite(limit):
        return Estimate(bound(limit, upper=status == "upper_bound"), "", status)
    return Estimate("not identified", "", "not_identified") if status else None


def _status(median: float, lower: float, upper: float) -> str:
    """Return the status of numbers by which of them are known, "" where none is."""
    if math.isfinite(median):
        return "identified"
    if median == math.inf or (math.isfinite(lower) and not math.isfinite(upper)):
        return "lower_bound"
    return "upper_bound" if math.isfinite(upper) and not math.isfinite(lower) else ""


def rate_number(rate: float) -> str:
    """Return a learning rate as its papers write it.

    Examples
    --------
    >>> rate_number(0.00019), rate_number(2e-4)
    ('1.9e-4', '2e-4')
    """
    mantissa, exponent = f"{rate:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def rate_text(row: Row) -> str:
    """Return a learning rate with its interval, too small for a number of decimals."""
    if row["status"] == "identified":
        median, *ends = (row[name] for name in ("median", "ci_lower", "ci_upper"))
        known = f" ({' to '.join(map(rate_number, ends))})" if np.isfinite(ends).all() else ""
        return rate_number(median) + known
    upper = row["status"] == "upper_bound"
    limit = row["ci_upper" if upper else "ci_lower"]
    if row["status"] == "not_identified" or not np.isfinite(limit):
        return "not identified"
    return f"{bound(1.0, upper=upper)[0]} {rate_number(limit)}"


def plain(value: object) -> str:
    """Return any cell's value as text of one line.

    Missing values are empty and numbers short; line breaks and other control characters of
    a name are made visible.
    """
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, float, np.number)):
        return "" if np.isnan(value) else count(float(value))
    return NO_BREAK.join(map(one_line, str(value).split(NO_BREAK)))


def parse_at(at: object) -> dict[str, str]:
    """Return ``n_prompts=128,n_rollouts=8`` as a dict; empty text and NaN give an empty one."""
    parts = [part.partition("=") for part in plain(at).split(",") if part.strip()]
    return {key.strip(): value.strip() for key, _, value in parts}


def at_text(at: object) -> str:
    """Return what is held fixed as text, e.g. ``128 prompts × 8 rollouts``."""
    return _fixed_text(parse_at(at))


def _fixed_text(fixed: dict[str, str]) -> str:
    gain = fixed.pop("gain", "")
    batch = " × ".join(_AT[key].format(value) if key in _AT else f"{key} = {value}"
                       for key, value in fixed.items())
    saving = f"saving {percent(float(gain))}" if gain else ""
    return ", ".join(filter(None, [batch, saving]))


def doubled_text(quantity: str, at: str) -> str:
    """Return the step of a gain and what is held fixed: ``16 → 32 prompts at 8 rollouts``."""
    fixed = parse_at(at)
    start = float(fixed.pop(_DOUBLED[quantity]))
    unit = "samples" if quantity == "gain_total" else quantity.removeprefix("gain_")
    step, held = f"{count(start)} → {count(2 * start)} {unit}", _fixed_text(fixed)
    return f"{step} at {held}" if held else step


def batch_text(row: Row, units: bool = True) -> str:
    """Return a batch: ``256 prompts × 4 rollouts``, on one axis its samples; or without units."""
    names = {"n_prompts": "prompts", "n_rollouts": "rollouts"}
    if not row.get("n_rollouts", math.nan) > 0:
        names = {"total_batch": "samples"}
    return " × ".join(f"{count(row[axis])} {unit}" if units else count(row[axis])
                      for axis, unit in names.items())


def plus_minus(row: Row, name: str, factor: float = 1.0) -> str:
    """Return a number ± its Monte Carlo error, ``NAME_error``, to the error's first digit."""
    value, error = factor * row[name], factor * row[f"{name}_error"]
    known = error > 0 and math.isfinite(error)
    return f"{number(value, _decimals(error, 1) if known else None)} ± {number(error, digits=1)}"


def place_text(row: Row) -> str:
    """Return where a row of ``cbs.csv`` holds: what is fixed or doubled, a remark, the unit."""
    name, at = str(row["quantity"]), plain(row["at"])
    place = doubled_text(name, at) if name in _DOUBLED else at_text(at)
    unit = "" if plain(row["unit"]) == "1" else plain(row["unit"])
    return "; ".join(filter(None, [place, spec("tables")["remarks"].get(name, ""), unit]))


def row_label(row: Row) -> str:
    """Return quantity, what is held fixed, and unit of a row."""
    at = f" at {at_text(row['at'])}" if row["at"] else ""
    unit = "" if row["unit"] == "1" else f", {row['unit']}"
    return f"{quantity_label(row['quantity'])}{at}{unit}"


def formula(law: Law) -> str:
    """Return the law in one line, with the signs of print."""
    return law.formula.replace("alpha", "α").replace(" - ", f" {MINUS} ")


@cache
def spec(name: str) -> dict[str, Any]:
    """Return a file of ``templates`` in TOML: ``tables``, ``pages`` or ``latex``."""
    text = files("cbsbayes.report").joinpath(f"templates/{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def quantities() -> dict[str, str]:
    """Return the label of every quantity, in the order in which tables print them."""
    return spec("tables")["quantities"]


def quantity_label(quantity: str) -> str:
    """Return the label of a quantity; an unknown one keeps its own name."""
    return quantities().get(quantity, quantity)


def sentences(template: str, **context: Any) -> list[str]:
    """Return the sentences of a template of ``templates/text``; its empty lines are left out."""
    text = environment().get_template(f"{template}.txt.j2").render(**context)
    lines = (re.sub(" +", " ", line).strip(" ") for line in text.split("\n"))
    return [line for line in lines if line]


def section_text(slug: str, **context: Any) -> tuple[str, list[str]]:
    """Return introduction and sentences of a section, from ``templates/text/sections``.

    Lines that begin with ``> `` are the introduction; a section may have no text.
    """
    if f"sections/{slug}.txt.j2" not in environment().list_templates():
        return "", []
    lines = sentences(f"sections/{slug}", **context)
    intro = " ".join(line.removeprefix("> ") for line in lines if line.startswith("> "))
    return intro, [line for line in lines if not line.startswith("> ")]


def paragraph(template: str, **context: Any) -> str:
    """Return the sentences of a template as one paragraph."""
    return " ".join(sentences(template, **context))


@cache
def environment() -> Environment:
    """Return the environment of sentences and tables; nothing is escaped in it."""
    found = Environment(
        loader=PackageLoader("cbsbayes.report", "templates/text"), autoescape=False,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True)
    found.filters |= {
        "number": number, "short": short, "count": count, "percent": percent, "plain": plain,
        "probability": probability, "estimate": estimate, "at": at_text, "batch": batch_text,
        "label": quantity_label, "place": place_text, "pm": plus_minus, "row_label": row_label,
        "interval": interval, "value": lambda value: Estimate(number(value, digits=2))}
    return found
