r"""Definitions of "critical" other than S = 2 S_min: one posterior each, and how to translate them.

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

from collections.abc import Hashable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cbsbayes.models.laws import Law
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.quantities import GAIN, Quantity, design_of
from cbsbayes.posterior.surface import (
    LINES,
    Condition,
    Surface,
    doubling_saves,
    excess_samples,
    steps_ratio,
)
from cbsbayes.posterior.tidy import masked, tidy

__all__ = ["EXCESS", "OVERHEAD_COLUMNS", "Definition", "definitions", "overhead_table"]

EXCESS = 0.2  # Zhang et al.'s overhead over linear scaling
OVERHEAD_COLUMNS = [
    "group", "law", "threshold", "at", "definition", "condition", "unit", "anchor", "median",
    "ci_lower", "ci_upper", "ci_prob", "ci_kind", "status", "tried", "ratio", "ratio_lower",
    "ratio_upper", "steps_ratio", "steps_ratio_lower", "steps_ratio_upper"]
_EXACT = 1e-8  # a spread below it is rounding: the number follows from the law alone
_TINY = 1e-9  # prompts or samples, where samples are the least that α = 1 has


class Definition(NamedTuple):
    """One definition of a critical batch.

    Attributes
    ----------
    name, formula : str
        In the columns ``definition`` and ``condition``.
    condition : Condition
        Met at the batch.
    beyond : float
        Beyond which batch it is looked for.
    """

    name: str
    formula: str
    condition: Condition
    beyond: float = 0.0


def definitions(law: Law, smallest: float, symbol: str) -> list[Definition]:
    """Return the definitions that have a value under a law, the one to compare with first.

    Parameters
    ----------
    law : Law
        The law fitted.
    smallest : float
        The smallest batch tried, from which samples of linear scaling are counted.
    symbol : str
        Of the batch, in formulas.
    """
    samples, percent = f"{symbol}·S({symbol}) = {1 + EXCESS:g} ×", f"{100 * EXCESS:g}"
    found = [Definition(f"steps_{ratio:g}x", f"S = {ratio:g} S_min", steps_ratio(ratio))
             for ratio in (2.0, 1.5, 1.2, 1.1)]
    found.append(Definition(f"linear_{percent}",
                            f"{samples} the same at {symbol} = {smallest:.12g}",
                            excess_samples(EXCESS, smallest), smallest))
    if law.alpha == 1.0:
        found.append(Definition(f"least_{percent}", f"{samples} least {symbol}·S",
                                excess_samples(EXCESS, _TINY), _TINY))
    return [*found, Definition(f"doubling_{100 * GAIN:g}",
                               f"S(2{symbol}) = {1 - GAIN:g} S({symbol})", doubling_saves(GAIN))]


@lru_cache(maxsize=16)
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
        the population of runs. Empty where the law has no scale along one batch axis.
    """
    surfaces = [Surface(fit.law, draws) for draws in (fit.posterior, fit.prior)]
    design, lines = design_of(fit.crossings), []
    if not fit.law.two_axis:
        lines = [("total", 1, np.array(design.total))]
    else:
        lines = [("prompts", g, np.array([p for p, rollouts in design.batches if rollouts == g]))
                 for g in sorted(design.groups)]
    rows = [row for line in lines
            for row in sorted(_rows(fit, surfaces, *line), key=lambda row: float(row["threshold"]))]
    return pd.DataFrame(rows, columns=OVERHEAD_COLUMNS)


def _rows(
    fit: Fit, surfaces: list[Surface], along: str, held: int, tried: np.ndarray
) -> Iterator[dict[Hashable, Any]]:
    """Yield the rows of one line: along the total batch, or prompts at an n_rollouts held."""
    ci_prob, smallest = float(fit.settings["ci_prob"]), tried.min()
    at, unit, symbol = (("", "samples", "B") if along == "total" else
                        (f"n_rollouts={held}", "prompts", "P"))
    asked = definitions(fit.law, smallest, symbol)
    batches, before = ([surface.solve(one.condition, along, held, beyond=one.beyond)
                        for one in asked] for surface in surfaces)
    after, first = ([Quantity(one.name, at, unit, batch, if_reached=True)
                     for one, batch in zip(asked, found, strict=True)]
                    for found in (batches, before))
    table = tidy(after, first, ci_prob, diagnostics=False)
    known = table[table["quantity"] == asked[0].name].set_index("threshold")["status"]
    for one, batch in zip(asked, batches, strict=True):
        log_ratio = (surfaces[0].log_steps(*LINES[along](batch, held))
                     - surfaces[0].log_steps(*LINES[along](np.inf, held)))
        for row in table[table["quantity"] == one.name].to_dict("records"):
            twice, level = known[row["threshold"]], {"threshold": row["threshold"]}
            median = row["median"]
            yield row | {
                "group": fit.group, "law": fit.law.name, "definition": one.name,
                "condition": one.formula, "anchor": smallest if one.beyond == smallest else np.nan,
                "tried": "" if np.isnan(median) else "below" if median < smallest else
                         "above" if median > tried.max() else "inside",
                **_numbers("ratio", (batch / batches[0]).sel(level).values,
                           row["status"] if twice == "identified" else twice, ci_prob),
                **_numbers("steps_ratio", np.exp(log_ratio.sel(level).values), row["status"],
                           ci_prob)}


def _numbers(name: str, draws: np.ndarray, status: str, ci_prob: float) -> dict[Hashable, float]:
    """Return median and interval of a ratio; it is settled if what is in it is, or never varies."""
    values = draws.ravel()
    with np.errstate(divide="ignore", invalid="ignore"):
        fixed = np.ptp(np.log(values)) < _EXACT  # it follows from the definition alone
    settled = "identified" if fixed or status == "identified" else "not_identified"
    return dict(zip((name, f"{name}_lower", f"{name}_upper"), masked(values, settled, ci_prob),
                    strict=True))
