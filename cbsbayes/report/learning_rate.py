"""What a report says of learning rates: at one target, the rate as text in every number of it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cbsbayes.posterior.learning_rate import RULES, best_rates
from cbsbayes.posterior.tidy import interval
from cbsbayes.report.tables import MAX_ROWS, Table, laid_out
from cbsbayes.report.text import Estimate, at_text, bound, estimate, parse_at, sentences

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.facts import Facts

__all__ = ["RATES", "best_rate_text", "rate_number", "rate_sentences", "rate_table_shown",
           "rate_text"]

_ALONG = ("rate_slope", "cbs_tuned", "cbs_at_rate", "apparent_exponent")
RATES = ("best_rate", "largest_stable_rate")
"""Quantities that are learning rates."""
_RULE_NAMES = dict(zip(RULES, ("constant", "square-root", "linear"), strict=True))


def rate_number(rate: float) -> str:
    """Return a learning rate as its papers write it.

    Examples
    --------
    >>> rate_number(0.00019), rate_number(2e-4)
    ('1.9e-4', '2e-4')
    """
    mantissa, exponent = f"{rate:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def rate_text(row: dict[Hashable, Any]) -> str:
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


def best_rate_text(fit: Fit, n_prompts: float, n_rollouts: float, threshold: float) -> str:
    """Return the best learning rate at a batch; empty where the law knows none."""
    if not fit.law.learning_rate:
        return ""
    draws = best_rates(fit, n_prompts, n_rollouts, threshold)
    lower, upper = interval(draws, float(fit.settings["ci_prob"]))
    return rate_text({"status": "identified", "median": np.median(draws), "ci_lower": lower,
                      "ci_upper": upper})


def _rows(facts: Facts) -> pd.DataFrame:
    """Return the rows at the main target, with ``place`` and ``value`` as text."""
    here = facts.rates[np.isclose(facts.rates["threshold"], facts.threshold)]
    records = here.to_dict("records")
    values: Any = [Estimate(rate_text(row)) if row["quantity"] in RATES else estimate(row)
                   for row in records]
    return here.assign(place=[at_text(row["at"]) for row in records], value=values)


def rate_table_shown(facts: Facts) -> Table | None:
    """Return the table of the page: the best rate at every batch, and what holds along it."""
    rows = _rows(facts)
    kept = rows[rows["quantity"].isin(("best_rate", "steps_at_best", *_ALONG))]
    return laid_out("learning_rate", kept, target=facts.target, interval=facts.interval)


def rate_sentences(facts: Facts) -> list[str]:
    """Return the answer in sentences; none where the law knows no learning rate."""
    if not facts.fit.law.learning_rate:
        return []
    rows = _rows(facts)
    usual = [f"{axis}={value:g}" for axis, value in facts.batch.items()]
    held = next((text for text in usual if text.startswith("n_rollouts")), "")
    line = rows[rows["at"].map(lambda at: held in at or not parse_at(at))]
    best = _best_row(facts, rows, line)
    costs = [] if best is None else rows[
        (rows["quantity"] == "rate_cost")
        & rows["at"].str.startswith(f"{best['at']},")].to_dict("records")
    rules = line[line["quantity"] == "p_rule"].sort_values("median").to_dict("records")
    named = {quantity: line[line["quantity"] == quantity].to_dict("records")[:MAX_ROWS]
             for quantity in _ALONG}
    stable = line[line["quantity"] == "largest_stable_rate"].to_dict("records")
    return sentences(
        "learning_rate", facts=facts, best=best, costs=costs, named=named, stable=stable,
        rule=_RULE_NAMES[parse_at(rules[-1]["at"])["rule"]] if rules else "",
        p_rule=rules[-1]["median"] if rules else np.nan,
        rate=lambda row: rate_number(float(parse_at(row["at"])["learning_rate"])))


def _best_row(
    facts: Facts, rows: pd.DataFrame, line: pd.DataFrame
) -> dict[Hashable, Any] | None:
    """Return the best rate at the batch advised, else at the middle one of the usual line."""
    axes = facts.advice.axes if facts.advice else None
    at = "" if axes is None else f"n_prompts={axes[0]:g},n_rollouts={axes[1]:g}"
    advised = rows[(rows["quantity"] == "best_rate") & (rows["at"] == at)]
    usual = line[line["quantity"] == "best_rate"]
    found = advised if len(advised) else usual.iloc[len(usual) // 2:][:1]
    return found.to_dict("records")[0] if len(found) else None
