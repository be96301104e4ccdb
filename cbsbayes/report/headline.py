"""The main table: every quantity against every threshold, what leans least on the law first.

Quantities stand in rows and thresholds in columns, so that one row can be read from the
easiest to the hardest target. Where a quantity was read off at many batches the table shows
those next to the batch most runs had; the full table has them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cbsbayes.report.estimates import (
    QUANTITIES,
    Estimate,
    at_words,
    estimate,
    parse_at,
    plain,
)
from cbsbayes.report.tables import Cell, Column, Table, estimate_cell

__all__ = ["chosen_ats", "find", "headline_table", "laws_table", "usual_batch"]

MAX_ROWS = 4  # rows per quantity in the main table
_ALONG_ROLLOUTS = ("gain_rollouts", "cbs_prompts", "cbs_samples")  # the others vary with prompts
SCALES = ("cbs_prompts", "cbs_rollouts", "B_noise", "B_prompt", "B_rollout", "S_min", "alpha")


def find(
    cbs: pd.DataFrame, quantity: str, threshold: float, at: str | None = None,
) -> Estimate | None:
    """Return an estimate of the quantity table, None where it has no such row.

    Parameters
    ----------
    cbs : pandas.DataFrame
        The quantity table.
    quantity, threshold, at
        What to look up; without `at` the first row of the quantity at the threshold. A row
        without a threshold (the exponent) holds at every threshold.
    """
    level = cbs["threshold"].to_numpy(dtype=float)
    named = (cbs["quantity"] == quantity).to_numpy(dtype=bool)
    rows = np.flatnonzero(named & (np.isclose(level, threshold) | np.isnan(level))).tolist()
    if at is not None:
        rows = [row for row in rows if plain(cbs["at"].array[row]) == at]
    return estimate(cbs.iloc[rows[0]]) if len(rows) else None


def usual_batch(runs: pd.DataFrame) -> dict[str, float]:
    """Return the value of each axis that most of the used runs had (the larger of equals)."""
    used = runs.loc[runs["used"].astype(bool)]
    axes = ("n_prompts", "n_rollouts", "total_batch")
    known = {axis: used.loc[used[axis] > 0, axis] for axis in axes}
    return {axis: float(values.mode().max()) for axis, values in known.items() if len(values)}


def chosen_ats(
    cbs: pd.DataFrame, quantity: str, usual: Mapping[str, float], limit: int = MAX_ROWS,
) -> list[str]:
    """Return at most `limit` of the batches a quantity was read off at, the usual one included.

    Parameters
    ----------
    cbs : pandas.DataFrame
        The quantity table.
    quantity : str
        A name in its column ``quantity``.
    usual : mapping
        The usual batch (`usual_batch`).
    limit : int
        How many to return at most.

    Returns
    -------
    list of str
        Values of the column ``at`` in the table's order: of those on the axis a quantity
        varies along, evenly spread ones.
    """
    ats = list(dict.fromkeys(cbs.loc[cbs["quantity"] == quantity, "at"].map(plain)))
    distance = {at: _distance(at, usual) for at in ats}
    held = "n_prompts" if quantity in _ALONG_ROLLOUTS else "n_rollouts"
    fixed = {at: _distance(at, {k: v for k, v in usual.items() if k == held}) for at in ats}
    line = [at for at in ats if fixed[at] == min(fixed.values())]
    nearest = min(line, key=distance.__getitem__, default=None)
    if len(line) <= limit or nearest is None:
        return line
    if limit == 1:
        return [nearest]
    spread = {line[i] for i in np.linspace(0, len(line) - 1, limit).round().astype(int)}
    if nearest not in spread:
        inner = [at for at in line[1:-1] if at in spread] or line[:1]  # of ties the first goes
        spread.discard(min(inner, key=distance.__getitem__))
        spread.add(nearest)
    return [at for at in line if at in spread]


def _distance(at: str, usual: Mapping[str, float]) -> float:
    """Return how far a batch lies from the usual one, in doublings summed over the axes."""
    fixed = parse_at(at)
    shared = [axis for axis in usual if _is_positive(fixed.get(axis, ""))]
    return float(sum(abs(np.log2(float(fixed[axis]) / usual[axis])) for axis in shared))


def _is_positive(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def headline_table(
    cbs: pd.DataFrame, thresholds: Sequence[float], runs: pd.DataFrame, caption: str,
) -> Table:
    """Return the main table: a row per quantity (and batch), a column per threshold."""
    usual = usual_batch(runs)
    names = [name for name in QUANTITIES if name in set(cbs["quantity"])]
    rows: list[tuple[Cell, ...]] = []
    for name in names:
        rows += _quantity_rows(cbs, name, chosen_ats(cbs, name, usual), thresholds)
    return Table(caption, (Column("quantity"), *_threshold_columns(thresholds)), rows)


def _threshold_columns(thresholds: Sequence[float]) -> list[Column]:
    return [Column(plain(float(t)), True) for t in thresholds]


def _quantity_rows(
    cbs: pd.DataFrame, quantity: str, ats: Sequence[str], thresholds: Sequence[float],
) -> list[tuple[Cell, ...]]:
    """Return one row, or a heading and a row per batch the quantity was read off at."""
    label, remark = QUANTITIES[quantity]
    if ats == [""]:
        return [(Cell(label, remark), *_estimates(cbs, quantity, "", thresholds))]
    units = _units(cbs, quantity)
    shown = len(set(units.values())) > 1  # along prompts and along rollouts in one table
    rows = [(Cell(f"{units[at]} at {at_words(at)}" if shown else f"at {at_words(at)}",
                  mark="indented"), *_estimates(cbs, quantity, at, thresholds)) for at in ats]
    return [(Cell(label, remark),), *rows]


def _units(cbs: pd.DataFrame, quantity: str) -> dict[str, str]:
    rows = cbs.loc[cbs["quantity"] == quantity]
    return dict(zip(rows["at"].map(plain), rows["unit"].map(plain), strict=True))


def _estimates(
    cbs: pd.DataFrame, quantity: str, at: str, thresholds: Sequence[float],
) -> list[Cell]:
    return [estimate_cell(find(cbs, quantity, float(t), at)) for t in thresholds]


def laws_table(
    law: str, cbs: pd.DataFrame, others: Mapping[str, pd.DataFrame],
    thresholds: Sequence[float], runs: pd.DataFrame, caption: str,
) -> Table:
    """Return the scales under the default law and the fixed-exponent laws, one below the other.

    Parameters
    ----------
    law : str
        The default law's name.
    cbs : pandas.DataFrame
        Its quantity table.
    others : mapping
        The quantity tables of the other laws, by name.
    thresholds : sequence of float
        Columns of the table.
    runs : pandas.DataFrame
        The table of runs, which tells the usual batch.
    caption : str
        What the table shows.
    """
    usual = usual_batch(runs)
    rows: list[tuple[Cell, ...]] = []
    for quantity in SCALES:
        told = [(name, table, at) for name, table in {law: cbs, **others}.items()
                for at in chosen_ats(table, quantity, usual, limit=1)]
        if told:
            label, remark = QUANTITIES[quantity]
            place = f"at {at_words(told[0][2])}" if told[0][2] else ""
            rows.append((Cell(label, "; ".join(part for part in (place, remark) if part)),))
        rows += [(Cell(name, mark="indented ours" if name == law else "indented"),
                  *_estimates(table, quantity, at, thresholds)) for name, table, at in told]
    return Table(caption, (Column("law"), *_threshold_columns(thresholds)), rows)
