r"""Definitions of "critical" beside S = 2 S_min: one posterior each, and how to translate them.

Along the batch P (prompts at a group size G, or samples under the total-batch laws), with
:math:`f(P) = S(P)/S_{min}`:

================  ==================================  ===========================================
``steps_<1+ε>x``  f(P) = 1 + ε                        ε = 1 is S = 2 S_min [1]_; for the two-axis
                                                      laws P = N/((1 + ε)^(1/α) - 1)
``linear_20``     P f(P) = 1.2 P_0 f(P_0), P > P_0    updates 20 % above linear scaling from the
                                                      batch P_0 [2]_: as many more samples. α = 1:
                                                      P = 0.2 N + 1.2 P_0
``least_20``      P f(P) = 1.2 N                      the same from P_0 → 0, which only α = 1 has:
                                                      20 % above the least possible samples
``doubling_10``   f(2P) = 0.9 f(P)                    doubling still saves 10 % of the updates
================  ==================================  ===========================================

Zhang et al. scale linearly from the batch that is best for their data budget; here P_0 is the
smallest batch tried, and the rule cannot return less than 1.2 P_0 where α ≤ 1: a sweep that
starts beyond linear scaling hears only of its own start. For α ≠ 1 samples to target have no
least value above zero at P → 0, so an anchor is needed. Where noise changes along progress, f is
its average and every batch is solved from f itself (`cbsbayes.posterior.surface`).

References
----------
.. [1] McCandlish et al., "An Empirical Model of Large-Batch Training", arXiv:1812.06162.
.. [2] Zhang et al., "How Does Critical Batch Size Scale in Pre-training?", arXiv:2410.21676.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cbsbayes.models.laws import Law
from cbsbayes.posterior.identification import identify
from cbsbayes.posterior.overhead_line import Line, lines_of
from cbsbayes.posterior.quantities import GAIN, tried_batches
from cbsbayes.posterior.summary import interval

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["DEFINITIONS", "EXCESS", "OVERHEADS", "OVERHEAD_COLUMNS", "Definition", "definitions",
           "overhead_table"]

OVERHEADS = (0.1, 0.2, 0.5)  # ε beside 1
EXCESS = 0.2  # Zhang et al.'s overhead over linear scaling
OVERHEAD_COLUMNS = [
    "group", "law", "threshold", "at", "definition", "condition", "unit", "anchor", "median",
    "ci_lower", "ci_upper", "ci_prob", "ci_kind", "status", "tried", "ratio", "ratio_lower",
    "ratio_upper", "steps_ratio", "steps_ratio_lower", "steps_ratio_upper"]
_EXACT = 1e-9  # a spread below it is rounding: the number follows from the law alone


@dataclass(frozen=True)
class Definition:
    """One definition of a critical batch.

    Attributes
    ----------
    name : str
        In the column ``definition``.
    kind : {"steps", "linear", "least", "doubling"}
        Which condition it is.
    level : float
        The share it names: ε, the excess over linear scaling, or what doubling saves.
    """

    name: str
    kind: str
    level: float

    def condition(self, symbol: str, anchor: float) -> str:
        """Return the condition as a formula in the batch's symbol, P or B."""
        if self.kind == "steps":
            return f"S = {1 + self.level:g} S_min"
        if self.kind == "doubling":
            return f"S(2{symbol}) = {1 - self.level:g} S({symbol})"
        times = f"{symbol}·S({symbol}) = {1 + self.level:g} "
        if self.kind == "least":
            return f"{times}× least {symbol}·S"
        return f"{times}× the same at {symbol} = {anchor:.12g}"

    def solve(self, line: Line) -> np.ndarray:
        """Return the batch, shape (draw, threshold)."""
        if self.kind == "steps":
            return line.at_overhead(self.level)
        if self.kind == "doubling":
            return line.at_gain(self.level)
        if self.kind == "least":
            return line.at_least_excess(self.level)
        return line.at_linear_excess(self.level)


DEFINITIONS: tuple[Definition, ...] = (
    Definition("steps_2x", "steps", 1.0),
    *(Definition(f"steps_{1 + e:g}x", "steps", e) for e in sorted(OVERHEADS, reverse=True)),
    Definition(f"linear_{100 * EXCESS:g}", "linear", EXCESS),
    Definition(f"least_{100 * EXCESS:g}", "least", EXCESS),
    Definition(f"doubling_{100 * GAIN:g}", "doubling", GAIN),
)
"""All definitions; the first is the one the others are told against."""


def definitions(law: Law) -> list[Definition]:
    """Return the definitions that have a value under a law."""
    return [d for d in DEFINITIONS if d.kind != "least" or law.alpha == 1.0]


def overhead_table(fit: Fit) -> pd.DataFrame:
    """Return the table of ``overhead.csv``: every definition at every group size and threshold.

    Parameters
    ----------
    fit : Fit
        A fit of either model.

    Returns
    -------
    DataFrame
        Columns `OVERHEAD_COLUMNS`. ``median`` and its interval in ``unit`` (prompts at the
        n_rollouts named in ``at``, or samples), empty as far as the data do not settle it
        (``status``); ``tried`` says whether the median lies inside, below or above the batches
        tried there; ``ratio`` is the batch over that of S = 2 S_min, ``steps_ratio`` S/S_min at
        the batch, both with the draws paired, empty where a batch in them is not identified. For
        a typical run. Empty where the law has no scale along one batch axis.
    """
    rows = [row for line, before in _pairs(fit) for row in _rows(fit, line, before)]
    table = pd.DataFrame(rows, columns=OVERHEAD_COLUMNS)
    return table.sort_values(["at", "threshold"], key=_in_order, kind="stable",
                             ignore_index=True)


def _pairs(fit: Fit) -> Iterator[tuple[Line, Line]]:
    tried = tried_batches(fit.crossings)
    yield from zip(lines_of(fit.law, fit.posterior, tried), lines_of(fit.law, fit.prior, tried),
                   strict=True)


def _in_order(column: pd.Series) -> pd.Series:
    """Return a sort key that keeps group sizes in the order of their numbers."""
    if column.name != "at":
        return column
    return column.map(lambda at: float(at.partition("=")[2] or 0))


def _rows(fit: Fit, line: Line, before: Line) -> Iterator[dict[str, Any]]:
    ci_prob = float(fit.settings["ci_prob"])
    twice = DEFINITIONS[0].solve(line)
    known = _statuses(twice, DEFINITIONS[0].solve(before))
    for definition in definitions(fit.law):
        batch = definition.solve(line)
        status = _statuses(batch, definition.solve(before))
        steps = line.ratio_at(batch)
        for k, threshold in enumerate(fit.thresholds.tolist()):
            row = {"group": fit.group, "law": fit.law.name, "threshold": threshold, "at": line.at,
                   "definition": definition.name, "unit": line.unit, "ci_prob": ci_prob,
                   "condition": definition.condition(line.symbol, line.smallest),
                   "anchor": line.smallest if definition.kind == "linear" else np.nan,
                   "ci_kind": "eti", "status": status[k]}
            row |= _shown(batch[:, k], status[k], ci_prob, ("median", "ci_lower", "ci_upper"))
            row["tried"] = _where(row["median"], line)
            both = status[k] if known[k] == "identified" else known[k]
            for name, values, settled in (("ratio", (batch / twice)[:, k], both),
                                          ("steps_ratio", steps[:, k], status[k])):
                settled = settled if settled == "identified" else "not_identified"
                if np.ptp(np.log(values)) < _EXACT:  # follows from the definition alone
                    settled = "identified"
                row |= _shown(values, settled, ci_prob, (name, f"{name}_lower", f"{name}_upper"))
            yield row


def _statuses(draws: np.ndarray, prior: np.ndarray) -> list[str]:
    """Return what is settled at each threshold, from draws (draw, threshold)."""
    return [identify(draws[:, k], prior[:, k]) for k in range(draws.shape[1])]


def _shown(
    draws: np.ndarray, status: str, ci_prob: float, names: tuple[str, str, str]
) -> dict[str, float]:
    """Return median and interval under their names, empty as far as they are the prior's."""
    lower, upper = interval(draws, ci_prob)
    values = {"identified": (float(np.median(draws)), lower, upper),
              "upper_bound": (np.nan, np.nan, upper),
              "lower_bound": (np.nan, lower, np.nan)}.get(status, (np.nan,) * 3)
    return dict(zip(names, values, strict=True))


def _where(median: float, line: Line) -> str:
    if np.isnan(median):
        return ""
    if median < line.smallest:
        return "below"
    return "above" if median > line.largest else "inside"
