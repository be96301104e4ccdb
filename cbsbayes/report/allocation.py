"""Which batch to run, as the page and the terminal show it: sentences, and tables of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cbsbayes.report import numbers
from cbsbayes.report.allocation_words import (
    at_threshold,
    check_sentences,
    group_size_sentences,
    split_sentences,
    target_sentences,
)
from cbsbayes.report.numbers import Estimate, estimate, probability
from cbsbayes.report.tables import Cell, Column, Table, estimate_cell
from cbsbayes.report.text import plain

if TYPE_CHECKING:
    from cbsbayes.decisions.decision import Decision
    from cbsbayes.posterior.fit import Fit

__all__ = ["Allocation", "allocation", "allocation_tables"]

_NUMERIC = True


@dataclass(frozen=True)
class Allocation:
    """A decision as the page and the terminal show it.

    Attributes
    ----------
    sentences, notes : list of str
        The answer, and its reservations.
    tables : list of Table
        Splits, group sizes, batches that meet a target, the front, iso-batch runs.
    """

    sentences: list[str]
    notes: list[str]
    tables: list[Table]


def allocation(decision: Decision, fit: Fit) -> Allocation:
    """Return the words and tables of a decision."""
    said = [*split_sentences(decision, fit), *group_size_sentences(decision, fit),
            *target_sentences(decision, fit), *check_sentences(decision)]
    return Allocation(said, decision.notes, list(allocation_tables(decision).values()))


def allocation_tables(decision: Decision) -> dict[str, Table]:
    """Return the tables of a decision by the names of their files; absent ones are left out."""
    made = {"splits": _splits(decision), "group_size": _group_sizes(decision),
            "targets": _targets(decision), "front": _front(decision),
            "iso_batch": _check(decision)}
    return {name: table for name, table in made.items() if table is not None}


def _splits(decision: Decision) -> Table | None:
    table = at_threshold(decision, "splits")
    if table is None:
        return None
    columns = (Column("prompts × rollouts"), Column("range"), Column("S, updates", _NUMERIC),
               Column("P(best)", _NUMERIC), Column("P(best) inside", _NUMERIC),
               Column("expected regret", _NUMERIC), Column("P(within 5 %)", _NUMERIC))
    caption = (f"Splits of {decision.total:,d} samples at threshold {plain(decision.threshold)}, "
               "a typical run. Regret: share of updates lost against the best split, "
               "with its interval below.")
    return Table(caption, columns, [_split_row(row) for _, row in table.iterrows()])


def _split_row(row: pd.Series) -> tuple[Cell, ...]:
    steps = estimate_cell(_interval(row, "steps"))
    regret = (Cell(numbers.percent(row["regret"]), f"{numbers.percent(row['regret_lower'])} to "
                   f"{numbers.percent(row['regret_upper'])}") if not np.isnan(row["regret"])
              else Cell(numbers.MISSING))
    mark = "ours" if row["chosen"] else ""
    return (Cell(f"{int(row['n_prompts']):,d} × {int(row['n_rollouts']):,d}", mark=mark),
            Cell(str(row["range"])), steps, Cell(_chance(row["p_best"])),
            Cell(_chance(row["p_best_inside"])), regret, Cell(_chance(row["p_close"])))


def _interval(row: pd.Series, name: str) -> Estimate | None:
    if np.isnan(row[name]):
        return None
    status = "identified" if np.isfinite(row[name]) else "lower_bound"  # it may never arrive
    return estimate({"median": row[name], "ci_lower": row[f"{name}_lower"],
                     "ci_upper": row[f"{name}_upper"], "status": status})


def _chance(p: float) -> str:
    return probability(p).replace("above ", "> ").replace("below ", "< ") if np.isfinite(
        p) else numbers.MISSING


def _group_sizes(decision: Decision) -> Table | None:
    table = decision.tables.get("group_size")
    if table is None:
        return None
    thresholds = list(dict.fromkeys(table["threshold"]))
    rows = []
    for at, part in table.groupby("at", sort=False):
        held, _, value = str(at).partition("=")
        label = (f"at {plain(int(value))} samples" if held == "total_batch" else
                 f"at a cost, prompt / rollout = {value}" if value else "at a fixed batch")
        rows.append((Cell(label), *(estimate_cell(estimate(row)) for _, row in part.iterrows())))
    return Table("Cheapest group size in rollouts, by threshold.",
                 (Column("group size"), *(Column(plain(t), _NUMERIC) for t in thresholds)), rows)


def _targets(decision: Decision) -> Table | None:
    table = at_threshold(decision, "targets")
    if table is None:
        return None
    first = table.iloc[0]
    columns = (Column("along"), Column("for"), Column("end"), Column("batch"),
               Column("samples", _NUMERIC), Column("range"), Column("P(met)", _NUMERIC),
               Column("largest P", _NUMERIC))
    caption = (f"At most {numbers.count(first['value'])} {first['target']} to threshold "
               f"{plain(decision.threshold)} with probability {first['probability']:.12g}.")
    return Table(caption, columns, [_target_row(row) for _, row in table.iterrows()])


def _target_row(row: pd.Series) -> tuple[Cell, ...]:
    line = Cell(f"{row['along']} at {row['at']}" if row["at"] else str(row["along"]))
    if not row["met"]:
        return (line, Cell(str(row["applies_to"])), Cell(""), Cell("cannot be met"), Cell(""),
                Cell(""), Cell(""), Cell(_chance(row["p_most"])))
    batch = (f"{int(row['n_prompts']):,d} × {int(row['n_rollouts']):,d}"
             if np.isfinite(row["n_prompts"]) else "")
    return (line, Cell(str(row["applies_to"])), Cell(str(row["end"])), Cell(batch),
            Cell(numbers.count(row["total_batch"])), Cell(str(row["range"])),
            Cell(_chance(row["p_met"])), Cell(_chance(row["p_most"])))


def _front(decision: Decision) -> Table | None:
    table = at_threshold(decision, "front")
    if table is None:
        return None
    tried = table[table["kind"] == "tried"].sort_values(["total_batch", "steps"])
    columns = (Column("batch tried"), Column("S, updates", _NUMERIC),
               Column("E, samples", _NUMERIC), Column("P(on the front)", _NUMERIC))
    return Table("Updates against samples at threshold "
                 f"{plain(decision.threshold)}, a typical run: P(on the front) is the probability "
                 "that no other batch tried takes no more of both.", columns,
                 [_front_row(row) for _, row in tried.iterrows()])


def _front_row(row: pd.Series) -> tuple[Cell, ...]:
    name = (f"{int(row['n_prompts']):,d} × {int(row['n_rollouts']):,d}"
            if np.isfinite(row["n_prompts"]) else numbers.count(row["total_batch"]))
    return (Cell(name), estimate_cell(_interval(row, "steps")),
            estimate_cell(_interval(row, "samples")), Cell(_chance(row["p_on_front"])))


def _check(decision: Decision) -> Table | None:
    table = at_threshold(decision, "iso_batch")
    if table is None or table.empty:
        return None
    columns = (Column("prompts × rollouts"), Column("runs", _NUMERIC),
               Column("observed, updates", _NUMERIC), Column("predicted", _NUMERIC),
               Column("P(best) of those run", _NUMERIC), Column("verdict"))
    seen = "which has seen them" if table["runs_seen"].iloc[0] else "which left them out"
    return Table(f"Runs of {decision.total:,d} samples at threshold {plain(decision.threshold)} "
                 f"beside a fit {seen}: geometric means over runs, and the prediction for the "
                 "mean of so many new runs.", columns, [_check_row(row) for _, row in
                                                       table.iterrows()])


def _check_row(row: pd.Series) -> tuple[Cell, ...]:
    never = int(row["n_not_reached"])
    observed = (f"> {numbers.short(row['observed_lower'])}" if np.isinf(row["observed_upper"])
                else numbers.interval(row["observed_lower"], row["observed_upper"]))
    return (Cell(f"{int(row['n_prompts']):,d} × {int(row['n_rollouts']):,d}"),
            Cell(numbers.count(row["n_runs"]), f"{never} not there" if never else ""),
            Cell(observed, mark="ours" if row["observed_least"] else ""),
            estimate_cell(_interval(row, "predicted")), Cell(_chance(row["p_best"])),
            Cell(str(row["verdict"])))
