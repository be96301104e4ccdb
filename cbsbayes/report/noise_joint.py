"""Words and table of the fit with measured noise as data, beside the fit without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cbsbayes.noise.beside_fit import FACTOR, verdict_of
from cbsbayes.posterior.joint import LARGE_OFFSET
from cbsbayes.report import numbers
from cbsbayes.report.estimates import Estimate, at_words, estimate, plain, quantity_label
from cbsbayes.report.tables import Cell, Column, Table, estimate_cell

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["joint_context", "joint_sentences", "joint_table_shown"]

_COLUMNS = tuple(Column(label, label not in ("quantity", "verdict"))
                 for label in ("quantity", "accuracy", "with", "without", "verdict"))
_SHOWN = ("gain_prompts", "gain_rollouts", "batch_at_gain", "cbs_prompts", "cbs_rollouts",
          "best_n_rollouts", "B_noise", "B_prompt", "B_rollout", "S_min", "alpha", "steps",
          "steps_new_run")
_LABELS = {"steps": "S, typical run", "steps_new_run": "S, one new run"}
_VERDICTS = {"agree": "agree", "differ": "differ", "not_resolved": "not resolved", "": "with only"}
_OFFSET = {"agree": f"agree within a factor of {FACTOR:g}", "differ": "differ",
           "not_resolved": "are not told apart from either"}


def joint_context(fit: Fit, threshold: float) -> dict[str, Any] | None:
    """Return what the page shows of a joint fit; None where measured noise was not data."""
    table = getattr(fit, "noise_joint", None)
    if table is None:
        return None
    return {"sentences": joint_sentences(table, fit),
            "table": joint_table_shown(table, threshold), "n_rows": len(table)}


def joint_sentences(table: pd.DataFrame, fit: Fit) -> list[str]:
    """Return what the joint fit rests on: the offset, and what was to be had without it."""
    row = table[table["quantity"] == "noise_offset"].iloc[0]
    said = verdict_of(float(np.exp(row["with_lower"])), float(np.exp(row["with_upper"])))
    level = numbers.percent(float(row["ci_prob"]))
    out = [f"Measured noise is exp(δ) times the fitted one, δ = {row['with_median']:.2f} "
           f"({level} from {row['with_lower']:.2f} to {row['with_upper']:.2f}): curves and "
           f"gradients {_OFFSET[said]}."]
    if abs(row["with_median"]) > LARGE_OFFSET:
        out.append(f"|δ| is above {LARGE_OFFSET:g}, which one number should not have to absorb: "
                   "the fit without the measurement is the safer one.")
    missing = str(fit.tree.attrs.get("noise_joint_missing", ""))
    if missing:
        return [*out, f"Without the measurement these runs cannot be fitted: {missing}."]
    counts = table["verdict"].value_counts()
    both = int(counts.drop("", errors="ignore").sum())
    return [*out, f"Of {both} numbers that both fits give, {counts.get('agree', 0)} agree (each "
            "median inside the interval of the other) and "
            f"{counts.get('differ', 0)} differ (intervals apart)."]


def joint_table_shown(table: pd.DataFrame, threshold: float) -> Table:
    """Return the rows of one threshold; ``noise_joint.csv`` has all."""
    here = table[np.isclose(table["threshold"], threshold) | table["threshold"].isna()]
    rows = [_cells(row) for name in _SHOWN for _, row in here[here["quantity"] == name].iterrows()]
    level = numbers.percent(float(table["ci_prob"].iloc[0]))
    return Table(f"With measured noise as data and without, the same runs and law; equal-tailed "
                 f"{level} intervals below. 'Not tried' marks batches beyond those that were run.",
                 _COLUMNS, rows)


def _cells(row: pd.Series) -> tuple[Cell, ...]:
    name = _LABELS.get(str(row["quantity"])) or quantity_label(str(row["quantity"]))
    at = at_words(str(row["at"])) + ("" if row["tried"] else ", not tried")
    label = f"{name} at {at}" if row["at"] else name
    threshold = plain(row["threshold"])
    return (Cell(label, "" if row["unit"] == "1" else str(row["unit"])), Cell(threshold),
            estimate_cell(_side(row, "with")), estimate_cell(_side(row, "without")),
            Cell(_VERDICTS[str(row["verdict"])]))


def _side(row: pd.Series, side: str) -> Estimate | None:
    if not row[f"{side}_status"]:
        return None
    return estimate({"median": row[f"{side}_median"], "ci_lower": row[f"{side}_lower"],
                     "ci_upper": row[f"{side}_upper"], "status": row[f"{side}_status"]})
