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

from collections.abc import Callable, Hashable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.models.laws import Law
from cbsbayes.posterior.conditions import doubling_saves, excess_samples, steps_ratio
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.quantities import GAIN, Quantity, design_of
from cbsbayes.posterior.surface import LINES, Condition, Surface
from cbsbayes.posterior.tidy import masked, tidy

__all__ = ["DEFINITIONS", "EXCESS", "OVERHEAD_COLUMNS", "Definition", "definitions",
           "overhead_table"]

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
    name : str
        In the column ``definition``.
    formula : str
        The condition in the batch's symbol ``{b}`` and the smallest batch tried ``{anchor}``.
    condition : callable
        From the smallest batch tried to the condition.
    anchor : float or None
        Beyond which batch it is looked for: 0; None where that is the smallest tried.
    """

    name: str
    formula: str
    condition: Callable[[float], Condition]
    anchor: float | None = 0.0

    def solve(self, surface: Surface, line: Line) -> xr.DataArray:
        """Return draws of the batch, dims of S_min."""
        anchor = line.smallest if self.anchor is None else self.anchor
        return surface.solve(self.condition(anchor), line.along, line.held, beyond=anchor)


def _steps(ratio: float) -> Definition:
    return Definition(f"steps_{ratio:g}x", f"S = {ratio:g} S_min",
                      lambda anchor: steps_ratio(ratio))


_SAMPLES = f"{{b}}·S({{b}}) = {1 + EXCESS:g} "
_LEAST = Definition(f"least_{100 * EXCESS:g}", f"{_SAMPLES}× least {{b}}·S",
                    lambda anchor: excess_samples(EXCESS, anchor), _TINY)
DEFINITIONS: tuple[Definition, ...] = (
    *map(_steps, (2.0, 1.5, 1.2, 1.1)),
    Definition(f"linear_{100 * EXCESS:g}", f"{_SAMPLES}× the same at {{b}} = {{anchor:.12g}}",
               lambda anchor: excess_samples(EXCESS, anchor), None),
    _LEAST,
    Definition(f"doubling_{100 * GAIN:g}", f"S(2{{b}}) = {1 - GAIN:g} S({{b}})",
               lambda anchor: doubling_saves(GAIN)),
)
"""All definitions; the first is the one the others are compared with."""


def definitions(law: Law) -> list[Definition]:
    """Return the definitions that have a value under a law."""
    return [d for d in DEFINITIONS if d is not _LEAST or law.alpha == 1.0]


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
        a typical run. Empty where the law has no scale along one batch axis.
    """
    posterior, prior = (Surface(fit.law, draws) for draws in (fit.posterior, fit.prior))
    rows = [row for line in _lines(fit) for row in _rows(fit, line, posterior, prior)]
    table = pd.DataFrame(rows, columns=OVERHEAD_COLUMNS)
    return table.sort_values(["at", "threshold"], key=_in_order, kind="stable",
                             ignore_index=True)


class Line(NamedTuple):
    """A line through the batches tried.

    Attributes
    ----------
    at, unit, symbol : str
        What is held fixed, as in ``cbs.csv``; prompts (P) or samples (B).
    along : str
        As `cbsbayes.posterior.surface.LINES` has it.
    held : int
        The n_rollouts held; 1 along the total batch.
    smallest, largest : float
        Of the batches tried along the line.
    """

    at: str
    unit: str
    symbol: str
    along: str
    held: int
    smallest: float
    largest: float

    def place(self, batch: float) -> str:
        """Return whether a batch lies below, above or inside those tried; empty for NaN."""
        if np.isnan(batch):
            return ""
        if batch < self.smallest:
            return "below"
        return "above" if batch > self.largest else "inside"


def _lines(fit: Fit) -> Iterator[Line]:
    """Yield the total batch, or the prompts at every group size of note."""
    design = design_of(fit.crossings)
    if not fit.law.two_axis:
        yield Line("", "samples", "B", "total", 1, min(design.total), max(design.total))
        return
    for g in design.groups:
        prompts = [p for p, rollouts in design.cells if rollouts == g]
        yield Line(f"n_rollouts={g}", "prompts", "P", "prompts", g, min(prompts), max(prompts))


def _in_order(column: pd.Series) -> pd.Series:
    """Return a sort key that keeps group sizes in the order of their numbers."""
    if column.name != "at":
        return column
    return column.map(lambda at: float(at.partition("=")[2] or 0))


def _rows(
    fit: Fit, line: Line, posterior: Surface, prior: Surface
) -> Iterator[dict[Hashable, Any]]:
    ci_prob, asked = float(fit.settings["ci_prob"]), definitions(fit.law)
    batches, before = ([definition.solve(surface, line) for definition in asked]
                       for surface in (posterior, prior))
    after, first = ([Quantity(definition.name, line.at, line.unit, batch, if_reached=True)
                     for definition, batch in zip(asked, found, strict=True)]
                    for found in (batches, before))
    table = tidy(after, first, ci_prob)
    known = table[table["quantity"] == asked[0].name].set_index("threshold")["status"]
    for definition, batch in zip(asked, batches, strict=True):
        log_ratio = (posterior.log_steps(*LINES[line.along](batch, line.held))
                     - posterior.log_steps(*LINES[line.along](np.inf, line.held)))
        anchor = line.smallest if definition.anchor is None else np.nan
        for row in table[table["quantity"] == definition.name].to_dict("records"):
            twice, at = known[row["threshold"]], {"threshold": row["threshold"]}
            yield row | {
                "group": fit.group, "law": fit.law.name, "definition": definition.name,
                "condition": definition.formula.format(b=line.symbol, anchor=line.smallest),
                "anchor": anchor, "tried": line.place(row["median"]),
                **_numbers("ratio", (batch / batches[0]).sel(at).values,
                           row["status"] if twice == "identified" else twice, ci_prob),
                **_numbers("steps_ratio", np.exp(log_ratio.sel(at).values), row["status"], ci_prob)}


def _numbers(name: str, draws: np.ndarray, status: str, ci_prob: float) -> dict[Hashable, float]:
    """Return median and interval of a ratio; it is settled if what is in it is, or never varies."""
    values = draws.ravel()
    with np.errstate(divide="ignore", invalid="ignore"):
        fixed = np.ptp(np.log(values)) < _EXACT  # it follows from the definition alone
    settled = "identified" if fixed or status == "identified" else "not_identified"
    return dict(zip((name, f"{name}_lower", f"{name}_upper"), masked(values, settled, ci_prob),
                    strict=True))
