"""Fits side by side in words: a table per pair, and sentences that name each number's law."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cbsbayes.decisions.compare_fits import LAW_BOUND
from cbsbayes.report import numbers
from cbsbayes.report.numbers import Estimate, estimate
from cbsbayes.report.tables import Cell, Column, Table, estimate_cell
from cbsbayes.report.text import at_text, plain, quantity_label

__all__ = ["contrast_sentences", "contrast_table", "main_rows"]

_MAIN = ("gain_prompts", "gain_rollouts", "gain_total", "batch_at_gain", "cbs_prompts",
         "cbs_samples", "cbs_rollouts", "best_n_rollouts", "alpha", "S_min", "steps",
         "generated_samples", "sample_passes")
_SAMPLES_TOO = "cbs_samples"  # G times cbs_prompts: told only where that is not


def main_rows(table: pd.DataFrame, usual: dict[str, float], threshold: float) -> pd.DataFrame:
    """Return the rows to tell of one pair at one threshold: a batch per quantity.

    Parameters
    ----------
    table : DataFrame
        Rows of ``compare.csv`` of one pair.
    usual : dict
        The batch that most runs had (`cbsbayes.report.facts.usual_batch`).
    threshold : float
        A common threshold.
    """
    from cbsbayes.report.facts import chosen_ats

    level = table["threshold"].astype(float)
    here = table[np.isclose(level, threshold) | level.isna()]
    present = list(dict.fromkeys(here["quantity"]))
    names = [name for name in (*_MAIN, *present) if name in present]
    if "cbs_prompts" in names:
        names = [name for name in names if name != _SAMPLES_TOO]
    kept = [here[(here["quantity"] == name) & (here["at"].map(plain) == at)]
            for name in dict.fromkeys(names) for at in chosen_ats(here, name, usual, 1)]
    return pd.concat(kept) if kept else here


def side_estimate(row: pd.Series, side: str) -> Estimate:
    """Return the estimate of one side (``first``, ``second``) of a row."""
    return estimate({"median": row[f"{side}_median"], "ci_lower": row[f"{side}_lower"],
                     "ci_upper": row[f"{side}_upper"], "status": row[f"{side}_status"]})


def _ratio(row: pd.Series) -> Estimate | None:
    if row["status"] == "not_comparable":
        return None
    return estimate({"median": row["ratio"], "ci_lower": row["ratio_lower"],
                     "ci_upper": row["ratio_upper"], "status": row["status"]})


def probability(value: float) -> str:
    """Return a probability as text; within a thousandth of 0 and 1 only the side is told.

    Examples
    --------
    >>> probability(0.0004), probability(0.8123), probability(0.9999)
    ('< 0.001', '0.81', '> 0.999')
    """
    if np.isnan(value):
        return numbers.MISSING
    if value < 0.001:
        return "< 0.001"
    if value > 0.999:
        return "> 0.999"
    return f"{value:.3f}" if min(value, 1 - value) < 0.0095 else f"{value:.2f}"


def _name(row: pd.Series) -> str:
    at = at_text(row["at"])
    unit = "" if row["unit"] == "1" else f", {row['unit']}"
    return f"{quantity_label(row['quantity'])}{f' at {at}' if at else ''}{unit}"


def contrast_table(rows: pd.DataFrame, threshold: float) -> Table:
    """Return one pair's rows as a table: both sides, ratio, P(first > second)."""
    first, second = str(rows["first"].iloc[0]), str(rows["second"].iloc[0])
    columns = (Column("quantity"), Column(first, True), Column(second, True),
               Column("ratio", True), Column("P(first > second)", True))
    percent = numbers.percent(float(rows["ci_prob"].iloc[0]))
    laws = dict.fromkeys((str(rows["first_law"].iloc[0]), str(rows["second_law"].iloc[0])))
    target = "at every target" if np.isnan(threshold) else f"at target {plain(threshold)}"
    caption = (f"{first} against {second} {target}: median and equal-tailed "
               f"{percent} interval, for typical runs; law {' and '.join(laws)}.")
    return Table(caption, columns, [_cells(row) for _, row in rows.iterrows()])


def _cells(row: pd.Series) -> tuple[Cell, ...]:
    ratio = _ratio(row)
    against = Cell("laws differ", mark="missing") if ratio is None else estimate_cell(ratio)
    return (Cell(_name(row)), estimate_cell(side_estimate(row, "first")),
            estimate_cell(side_estimate(row, "second")), against,
            Cell(probability(float(row["p_first_larger"]))))


def contrast_sentences(rows: pd.DataFrame) -> list[str]:
    """Return one sentence per row, each number with its law."""
    return [_sentence(row) for _, row in rows.iterrows()]


def _sentence(row: pd.Series) -> str:
    unit = "" if row["unit"] == "1" else f" {row['unit']}"
    sides = [f"{row[side]} {side_estimate(row, side)}{unit}{_law(row, side)}"
             for side in ("first", "second")]
    at = at_text(row["at"])
    target = "" if pd.isna(row["threshold"]) else f", target {plain(float(row['threshold']))}"
    start = f"{quantity_label(row['quantity'])}{f' at {at}' if at else ''}{target}: "
    return f"{start}{sides[0]}; {sides[1]}; {_told(row)}."


def _law(row: pd.Series, side: str) -> str:
    return f" under {row[f'{side}_law']}" if row["quantity"] in LAW_BOUND else ""


def _told(row: pd.Series) -> str:
    ratio = _ratio(row)
    if ratio is None:
        return "the laws differ, so the two are not the same quantity and are not put in relation"
    if ratio.status == "not_identified":
        return "the data do not settle how the two compare"
    p = float(row["p_first_larger"])
    likely = "" if np.isnan(p) else (f", P({row['first']} larger) "
                                     f"{equals(probability(p))}")
    return f"ratio {ratio}{likely}"


def equals(text: str) -> str:
    """Return a probability's text with its sign: "= 0.81", or "> 0.999" as it is."""
    return text if text[0] in "<>" else f"= {text}"
