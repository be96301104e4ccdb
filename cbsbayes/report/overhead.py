"""Definitions of a critical batch beside each other, as a table and in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cbsbayes.report import numbers
from cbsbayes.report.estimates import Estimate, at_words, estimate, plain
from cbsbayes.report.headline import usual_batch
from cbsbayes.report.tables import Cell, Column, Table, estimate_cell

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["DEFINITION_WORDS", "all_definitions_table", "definitions_table", "overhead_section",
           "overhead_sentences", "usual_at"]

DEFINITION_WORDS = {
    "steps_2x": "twice the least updates (McCandlish et al. 2018)",
    "steps_1.5x": "50 % above the least updates",
    "steps_1.2x": "20 % above the least updates",
    "steps_1.1x": "10 % above the least updates",
    "linear_20": "20 % above linear scaling (Zhang et al. 2024)",
    "least_20": "20 % above the least samples",
    "doubling_10": "doubling still saves 10 %",
}
_OUTSIDE = {"below": "smaller than any tried", "above": "larger than any tried"}


def usual_at(overhead: pd.DataFrame, fit: Fit) -> str:
    """Return the value of ``at`` the page tells of: the usual group size where it has rows."""
    ats = list(dict.fromkeys(overhead["at"].map(plain)))
    usual = f"n_rollouts={usual_batch(fit.runs).get('n_rollouts', 0):g}"
    return usual if usual in ats else ats[0]


def definitions_table(overhead: pd.DataFrame, fit: Fit, threshold: float) -> Table:
    """Return the definitions at one threshold and group size: batch, factor, updates.

    Parameters
    ----------
    overhead : DataFrame
        The table of ``overhead.csv``, with rows.
    fit : Fit
        The fit it belongs to.
    threshold : float
        The threshold to tell of.
    """
    at = usual_at(overhead, fit)
    rows = overhead[(overhead["at"].map(plain) == at) & np.isclose(overhead["threshold"],
                                                                  threshold)]
    unit = str(rows["unit"].iloc[0])
    place = f" at {at_words(at)}" if at else ""
    columns = (Column("definition"), Column("condition"), Column(unit, True),
               Column("factor to S = 2 S_min", True), Column("S / S_min there", True))
    percent = numbers.percent(float(fit.settings["ci_prob"]))
    caption = (f"The same posterior under other definitions of a critical batch{place}, target "
               f"{plain(threshold)}, law {fit.law.name}: median and equal-tailed {percent} "
               "interval, for a typical run.")
    return Table(caption, columns, [_cells(row) for _, row in rows.iterrows()])


def all_definitions_table(overhead: pd.DataFrame) -> Table:
    """Return every row of ``overhead.csv``, under a heading per group size and threshold."""
    columns = (Column("definition"), Column("condition"), Column("batch", True),
               Column("factor to S = 2 S_min", True), Column("S / S_min there", True))
    rows: list[tuple[Cell, ...]] = []
    for (at, threshold), part in overhead.groupby(["at", "threshold"], sort=False):
        place = f"{at_words(at)}, " if plain(at) else ""
        rows.append((Cell(f"{place}target {plain(threshold)}", f"in {part['unit'].iloc[0]}"),))
        rows += [_cells(row) for _, row in part.iterrows()]
    return Table("Every definition at every group size and threshold.", columns, rows)


def _cells(row: pd.Series) -> tuple[Cell, ...]:
    batch = estimate_cell(_batch(row))
    outside = _OUTSIDE.get(str(row["tried"]), "")
    if outside:
        below = "; ".join(part for part in (batch.below, outside) if part)
        batch = Cell(batch.text, below, batch.mark)
    name = str(row["definition"])
    return (Cell(DEFINITION_WORDS.get(name, name)), Cell(plain(row["condition"])), batch,
            _factor(row, "ratio"), _factor(row, "steps_ratio"))


def _batch(row: pd.Series) -> Estimate:
    return estimate({"median": row["median"], "ci_lower": row["ci_lower"],
                     "ci_upper": row["ci_upper"], "status": row["status"]})


def _factor(row: pd.Series, name: str) -> Cell:
    """Return a factor: a number alone where it follows from the definition."""
    middle, lower, upper = (float(row[f"{name}{end}"]) for end in ("", "_lower", "_upper"))
    if np.isfinite(middle) and np.isclose(lower, upper, rtol=1e-6):
        return Cell(numbers.short(middle))
    status = ("identified" if np.isfinite(middle) else "lower_bound" if np.isfinite(lower)
              else "upper_bound" if np.isfinite(upper) else "not_identified")
    return estimate_cell(estimate({"median": middle, "ci_lower": lower, "ci_upper": upper,
                                   "status": status}))


def overhead_section(
    overhead: pd.DataFrame | None, fit: Fit, threshold: float,
) -> dict[str, Any]:
    """Return what the page shows of the definitions; ``missing`` says why there is nothing."""
    if overhead is None or overhead.empty:
        return {"missing": "These batches settle no critical batch size along one axis, so there "
                           "is nothing to define in another way."}
    return {"missing": "", "table": definitions_table(overhead, fit, threshold),
            "rest": all_definitions_table(overhead),
            "sentences": overhead_sentences(overhead, fit, threshold)}


def overhead_sentences(overhead: pd.DataFrame, fit: Fit, threshold: float) -> list[str]:
    """Return how Zhang et al.'s rule and the gain rule stand to S = 2 S_min, in words."""
    at = usual_at(overhead, fit)
    here = overhead[(overhead["at"].map(plain) == at) & np.isclose(overhead["threshold"],
                                                                  threshold)]
    told = [_sentence(row) for name in ("linear_20", "doubling_10")
            for _, row in here[here["definition"] == name].iterrows()]
    anchor = here["anchor"].dropna()
    if len(anchor) and fit.law.alpha != 1.0:
        told.append("Unless α is 1 no batch scales linearly, so that the overhead over linear "
                    "scaling is counted from the smallest batch tried, "
                    f"{plain(float(anchor.iloc[0]))} {here['unit'].iloc[0]}, and moves with it.")
    return told


def _sentence(row: pd.Series) -> str:
    words = DEFINITION_WORDS[str(row["definition"])]
    factor = _factor(row, "ratio")
    between = f" ({factor.below})" if factor.below else ""
    batch = _batch(row)
    if not batch.identified:
        return f"{words[0].upper()}{words[1:]}: {batch} {row['unit']}."
    outside = _OUTSIDE.get(str(row["tried"]), "")
    mark = f", {outside}" if outside else ""
    return (f"{words[0].upper()}{words[1:]}: {batch} {row['unit']}{mark}; "
            f"{factor.text}{between} times the batch of S = 2 S_min.")
