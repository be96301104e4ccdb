"""Data frames as tables of text that a template can lay out; nothing is computed here.

A `Table` knows its columns, which of them are numbers (aligned right), and its cells; the
template knows how they look. Text stays text: escaping is the template's work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cbsbayes.noise.beside_fit import shown_rows
from cbsbayes.posterior.cautions import CROSS_CHECK
from cbsbayes.posterior.tidy import AVERAGE
from cbsbayes.report import numbers
from cbsbayes.report.facts import (
    MAX_ROWS,
    Facts,
    chosen_ats,
    doubled_text,
    find,
    known_quantities,
)
from cbsbayes.report.numbers import Estimate, compared_estimate, estimate, estimate_of
from cbsbayes.report.text import QUANTITIES, at_text, plain, quantity_label

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["MAX_ROWS", "Cell", "Column", "Table", "answer_table", "checks_table",
           "comparison_table", "definitions_table", "estimate_cell", "from_columns", "joint_table",
           "key_values", "law_comparison_table", "laws_table", "left_out_table", "noise_table",
           "text_frame", "worst_table"]

_DERIVED = ("cbs_samples", "E_min")  # follow from rows that are printed
_SCALES = ("cbs_prompts", "cbs_rollouts", "B_noise", "B_prompt", "B_rollout", "S_min", "alpha")
_METHODS = {"least_squares": "least squares", "log_least_squares": "log least squares",
            "posterior": "this fit"}
_LAW_COLUMNS = {"law": "law", "elpd_diff": "elpd behind best", "dse": "standard error",
                "weight": "weight", "k_hat_max": "largest Pareto k", "sigma_run": "σ_run"}
_JOINT = {"steps": "S, typical run", "steps_new_run": "S, one new run"}
_LONG = 40  # characters from which a cell asks for room


@dataclass(frozen=True)
class Column:
    """One column: its heading and whether its cells are numbers."""

    label: str
    numeric: bool = False


@dataclass(frozen=True)
class Cell:
    """One cell: text, a second line below it, and a mark that the style sheet knows."""

    text: str
    below: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes
    ----------
    caption : str
        What the table shows, with the definition of its intervals.
    columns : tuple of Column
        One per cell of a row; the first is the row's heading.
    rows : list of tuple of Cell
        May be empty.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)


def estimate_cell(value: Estimate | None) -> Cell:
    """Return the cell of an estimate; None is an empty cell."""
    if value is None:
        return Cell(numbers.MISSING, mark="missing")
    return Cell(value.value, value.interval, "" if value.identified else value.status)


def from_columns(caption: str, columns: Mapping[str, Iterable[object]]) -> Table:
    """Return columns of estimates, cells, numbers or text as a table.

    A column is one of numbers where every value is a number, an estimate or None.
    """
    values = {name: list(column) for name, column in columns.items()}
    heads = tuple(Column(name, all(_is_number(value) for value in column))
                  for name, column in values.items())
    rows = zip(*([_cell(value) for value in column] for column in values.values()), strict=True)
    return Table(caption, heads, list(rows))


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, Estimate) or (
        isinstance(value, (int, float, np.number)) and not isinstance(value, bool))


def _cell(value: object) -> Cell:
    if isinstance(value, Cell):
        return value
    if value is None or isinstance(value, Estimate):
        return estimate_cell(value)
    text = plain(value)
    return Cell(text, mark="long" if len(text) > _LONG else "")


def key_values(pairs: Mapping[str, object], caption: str) -> Table:
    """Return a mapping as a table of two columns; nested mappings give dotted names."""
    flat = pd.json_normalize(dict(pairs)).astype(object).iloc[0]
    text = [", ".join(map(_as_typed, value if isinstance(value, (list, tuple)) else [value]))
            for value in flat]
    return from_columns(caption, {"name": [Cell(str(name)) for name in flat.index],
                                  "value": [Cell(value) for value in text]})


def _as_typed(value: object) -> str:
    """Return a setting as it would be typed: whole numbers without separators."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return str(value) if whole else plain(value)


def answer_table(
    facts: Facts, limit: int = 1, thresholds: Sequence[float] | None = None
) -> Table:
    """Return every quantity against the thresholds, what leans least on the law first.

    Parameters
    ----------
    facts : Facts
        The fit's.
    limit : int
        Rows of one quantity: the usual batch alone, or those next to it as well.
    thresholds : sequence of float, optional
        The columns; all unless given.
    """
    cbs = facts.fit.cbs
    rows = [(name, at) for name in known_quantities(cbs) if name not in _DERIVED
            for at in chosen_ats(cbs, name, facts.batch, limit)]
    columns: dict[str, list[object]] = {"quantity": [_quantity(cbs, *row) for row in rows]}
    columns |= {plain(t): [_estimate(cbs, name, t, at) for name, at in rows]
                for t in (facts.thresholds if thresholds is None else thresholds)}
    return from_columns(f"Median and {_interval(facts)}, by target, under the law "
                        f"{facts.fit.law.name}; doubling: updates after over before.", columns)


def _quantity(cbs: pd.DataFrame, name: str, at: str) -> Cell:
    label, remark = QUANTITIES[name]
    units = cbs.loc[(cbs["quantity"] == name) & (cbs["at"].map(plain) == at), "unit"]
    unit = "" if plain(units.iloc[0]) == "1" else plain(units.iloc[0])
    place = doubled_text(name, at) if name.startswith("gain_") else at_text(at)
    return Cell(label, "; ".join(filter(None, [place, remark, unit])))


def _estimate(cbs: pd.DataFrame, name: str, threshold: float, at: str) -> Estimate | None:
    row = find(cbs, name, threshold, at)
    return None if row is None else estimate(row)


def _interval(facts: Facts) -> str:
    return f"equal-tailed {numbers.percent(facts.ci_prob)} interval"


def laws_table(facts: Facts) -> Table | None:
    """Return the scales under every law fitted, None where there is only one."""
    fit = facts.fit
    if not fit.others:
        return None
    laws = {fit.law.name: fit.cbs, **fit.others, AVERAGE: fit.averaged}
    if fit.cross_check is not None:
        laws[f"{fit.law.name}, {CROSS_CHECK}"] = fit.cross_check
    rows = [(scale, law, at) for scale in _SCALES for law, cbs in laws.items()
            for at in chosen_ats(cbs, scale, facts.batch, limit=1)]
    columns: dict[str, list[object]] = {
        "quantity": [_quantity(laws[law], scale, at) for scale, law, at in rows],
        "law": [Cell(law, mark="ours" if law == fit.law.name else "") for _, law, _ in rows]}
    columns |= {plain(t): [_estimate(laws[law], scale, t, at) for scale, law, at in rows]
                for t in facts.thresholds}
    return from_columns("The same data under other laws, and averaged over all by their weights: "
                        f"median and {_interval(facts)}.", columns)


def law_comparison_table(facts: Facts) -> Table | None:
    """Return the laws ranked by left-out runs; None of one law."""
    table = facts.fit.law_table
    if len(table) < 2:
        return None
    return from_columns("Laws compared by leaving out one run at a time.", {
        label: table[name] if name == "law" else
        [Estimate(numbers.number(value, digits=2), "", "identified") for value in table[name]]
        for name, label in _LAW_COLUMNS.items() if name in table})


def comparison_table(facts: Facts) -> Table:
    """Return the noise scale by method, a row per axis and threshold."""
    table = facts.fit.comparison.assign(at=facts.fit.comparison["at"].map(plain))
    methods = [name for name in _METHODS if name in set(table["method"])]
    records = {(row["axis"], row["at"], row["threshold"], row["method"]): row
               for row in table.to_dict("records")}
    keys = list(dict.fromkeys(key[:3] for key in records))
    columns: dict[str, list[object]] = {
        "along": [Cell(axis, f"at {at_text(at)}" if at else "") for axis, at, _ in keys],
        "target": [Cell(plain(threshold)) for _, _, threshold in keys]}
    for method in methods:
        rows = [records.get((*key, method)) for key in keys]
        columns[_METHODS[method]] = [row and compared_estimate(row) for row in rows]
    return from_columns("Noise scale by method, with the interval of each below it.", columns)


def definitions_table(facts: Facts) -> Table | None:
    """Return the definitions of a critical batch at the main target; None where there are none."""
    rows = facts.definitions
    if rows.empty:
        return None
    place = f" at {at_text(rows['at'].iloc[0])}" if plain(rows["at"].iloc[0]) else ""
    return from_columns(
        f"One posterior under other definitions of a critical batch{place}, {facts.target}: "
        f"median and {_interval(facts)}.",
        {"definition": rows["definition"], "condition": rows["condition"],
         str(rows["unit"].iloc[0]): [estimate(row) for _, row in rows.iterrows()],
         "tried": [{"below": "smaller than any", "above": "larger than any"}.get(
             str(tried), str(tried)) for tried in rows["tried"]],
         "factor to S = 2 S_min": [_ratio(row, "ratio") for _, row in rows.iterrows()],
         "S / S_min there": [_ratio(row, "steps_ratio") for _, row in rows.iterrows()]})


def _ratio(row: pd.Series, name: str) -> Estimate:
    """Return a ratio whose open side is missing; a number alone where it follows by definition."""
    middle, lower, upper = (float(row[f"{name}{end}"]) for end in ("", "_lower", "_upper"))
    if np.isfinite(middle) and np.isclose(lower, upper, rtol=1e-6):
        return Estimate(numbers.short(middle), "", "identified")
    status = ("identified" if np.isfinite(middle) else "lower_bound" if np.isfinite(lower)
              else "upper_bound" if np.isfinite(upper) else "not_identified")
    return estimate_of(middle, lower, upper, status)


def noise_table(facts: Facts) -> Table | None:
    """Return measured beside fitted gradient noise, averaged up to each target; None without."""
    if isinstance(facts.noise, str):
        return None
    rows = shown_rows(facts.noise, facts.fit)
    rows = rows[rows["average"] == "up_to"]
    listed = [row for _, row in rows.iterrows()]
    return from_columns(
        "Gradient noise measured and fitted, both averaged over progress from the start up to "
        f"the accuracy; {_interval(facts)}s.",
        {"scale": [Cell(str(row["quantity"]), at_text(row["at"])) for row in listed],
         "law": rows["law"], "accuracy": [Cell(plain(t)) for t in rows["threshold"]],
         "measured": [_measured(row) for row in listed],
         "fitted": [_side(row, "fitted", row["fitted_status"]) for row in listed],
         "measured / fitted": [_side(row, "ratio", "identified" if np.isfinite(row["ratio"])
                                     else "lower_bound") for row in listed],
         "probes": rows["n_probes"],
         "verdict": [str(verdict).replace("_", " ") for verdict in rows["verdict"]]})


def _measured(row: pd.Series) -> Estimate | None:
    """Return a measured noise scale; a bound where it is not resolved, None without probes."""
    if row["measured_status"] == "too_few":
        return None
    resolved = row["measured_status"] == "resolved"
    return _side(row, "measured", "identified" if resolved else "lower_bound")


def _side(row: pd.Series, side: str, status: str) -> Estimate:
    return estimate_of(row[side], row[f"{side}_lower"], row[f"{side}_upper"], status)


def joint_table(facts: Facts) -> Table | None:
    """Return the fit with measured noise as data beside that without, at the main target."""
    table = facts.fit.noise_joint
    if table is None:
        return None
    here = np.isclose(table["threshold"], facts.threshold) | table["threshold"].isna()
    names = table["quantity"].isin([*QUANTITIES, *_JOINT])
    rows = [row for _, row in table[here & names].iterrows()]
    sides = {side: [estimate_of(row[f"{side}_median"], row[f"{side}_lower"], row[f"{side}_upper"],
                                row[f"{side}_status"]) if row[f"{side}_status"] else None
                    for row in rows] for side in ("with", "without")}
    return from_columns(
        f"With measured noise as data and without, {facts.target}; {_interval(facts)}s.",
        {"quantity": [Cell(_JOINT.get(row["quantity"], quantity_label(row["quantity"])),
                           at_text(row["at"]) + ("" if row["tried"] else ", not tried"))
                      for row in rows],
         **sides, "verdict": [str(row["verdict"]).replace("_", " ") for row in rows]})


def left_out_table(fit: Fit) -> Table | None:
    """Return the runs left out of a fit, each with the reason; None where all are used."""
    runs = fit.runs.loc[~fit.runs["used"].astype(bool)]
    if runs.empty:
        return None
    return from_columns("Runs left out of the fit.", {"run": runs["run"], "reason": runs["reason"]})


def checks_table(facts: Facts) -> Table:
    """Return the checks of the sampler and the numbers behind them."""
    verdict = facts.fit.verdict
    checks = {name.replace("_", " "): "passed" if passed else "failed or not made"
              for name, passed in sorted(verdict["checks_made"].items())}
    return key_values({**checks, **verdict.get("diagnostics", {})}, "Checks of the sampler.")


def worst_table(facts: Facts) -> Table:
    """Return per quantity the largest r_hat and the smallest effective sample sizes."""
    worst = facts.fit.cbs.groupby("quantity").agg(
        r_hat=("r_hat", "max"), ess_bulk=("ess_bulk", "min"), ess_tail=("ess_tail", "min"))
    worst = worst.loc[known_quantities(facts.fit.cbs)].rename(index=quantity_label)
    return from_columns("The worst value of each diagnostic, by quantity.", {
        "quantity": worst.index, "r_hat": worst["r_hat"].round(3),
        "bulk ESS": worst["ess_bulk"].round(), "tail ESS": worst["ess_tail"].round()})


def text_frame(table: Table) -> pd.DataFrame:
    """Return a table's text as a frame, what stands below a cell in a column of its own."""
    found: dict[str, list[str]] = {}
    for k, column in enumerate(table.columns):
        found[column.label] = [row[k].text for row in table.rows]
        below = [row[k].below for row in table.rows]
        if any(below):
            found[f"{column.label}, below"] = below
    return pd.DataFrame(found)
