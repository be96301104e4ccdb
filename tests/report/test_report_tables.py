"""Tables of text: what is printed, what is a bound, what is left out, and their CSV."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.report.facts import Facts
from cbsbayes.report.numbers import Estimate
from cbsbayes.report.tables import (
    MAX_ROWS,
    Cell,
    answer_table,
    comparison_table,
    definitions_table,
    from_columns,
    key_values,
    law_comparison_table,
    laws_table,
    left_out_table,
    text_frame,
    worst_table,
)
from cbsbayes.report.text import QUANTITIES


@pytest.fixture
def facts(fit):
    return Facts(fit)


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_the_answer_starts_with_gains_and_ends_with_what_leans_on_the_law(facts):
    table = answer_table(facts)
    heads = [row[0] for row in texts(table)]
    assert [c.label for c in table.columns] == ["quantity", *(f"{t:g}" for t in facts.thresholds)]
    assert heads[0] == "Doubling the prompts"
    labels = [label for label, _ in QUANTITIES.values()]
    assert [labels.index(head) for head in heads] == sorted(labels.index(head) for head in heads)
    assert len(heads) == len(set(heads))
    assert all(column.numeric for column in table.columns[1:])


def test_the_spread_holds_the_answer_at_other_batches_too(facts):
    short, wide = answer_table(facts), answer_table(facts, MAX_ROWS)
    assert {tuple(row) for row in short.rows} <= {tuple(row) for row in wide.rows}
    assert len(wide.rows) > len(short.rows)
    main = answer_table(facts, thresholds=[facts.threshold])
    assert len(main.columns) == 2
    assert len(main.rows) == len(short.rows)


def test_bounds_are_marked_and_missing_values_are_a_dash():
    table = from_columns("c", {
        "name": ["a", "b", "c"], "value": [Estimate("≥ 5", "", "lower_bound"), None, 1234.5],
        "long": ["x" * 50, True, np.nan]})
    assert texts(table) == [["a", "≥ 5", "x" * 50], ["b", "—", "yes"], ["c", "1,234", ""]]
    assert [row[1].mark for row in table.rows] == ["lower_bound", "missing", ""]
    assert table.rows[0][2].mark == "long"
    assert [column.numeric for column in table.columns] == [False, True, False]


def test_the_laws_stand_side_by_side(facts, fit):
    rows = texts(laws_table(facts))
    first = [row[1] for row in rows if row[0] == "Prompt CBS"]
    assert first == [fit.law.name, *(name for name in fit.others if name in first), "average"]
    marked = [row[1].text for row in laws_table(facts).rows if row[1].mark == "ours"]
    assert set(marked) == {fit.law.name}
    ranked = law_comparison_table(facts)
    assert [row[0] for row in texts(ranked)] == fit.law_table["law"].tolist()


def test_the_comparison_has_a_row_per_axis_and_target(facts, fit):
    table = comparison_table(facts)
    assert [c.label for c in table.columns] == [
        "along", "target", "least squares", "log least squares", "this fit"]
    assert len(table.rows) == len(fit.comparison.groupby(["axis", "at", "threshold"]))


def test_definitions_are_those_of_the_main_target(facts):
    table = definitions_table(facts)
    assert len(table.rows) == len(facts.definitions)
    anchor = next(row for row in texts(table) if row[0].startswith("steps_2"))
    assert anchor[-2:] == ["1", "2"]


def test_runs_left_out_come_with_their_reason(fit):
    table = left_out_table(fit)
    assert [c.label for c in table.columns] == ["run", "reason"]
    assert "an orphan tail" in table.rows[0][1].text
    assert len(table.rows) == (~fit.runs["used"].astype(bool)).sum()


def test_diagnostics_are_the_worst_of_each_quantity(facts, fit):
    rows = {row[0]: row for row in texts(worst_table(facts))}
    worst = fit.cbs[fit.cbs["quantity"] == "S_min"]["ess_bulk"].min()
    assert rows["S_min"][2] == f"{round(worst):,}"
    assert len(rows) == fit.cbs["quantity"].nunique()


def test_nested_settings_get_dotted_names():
    table = key_values({"a": {"b": [1, 20261121], "c": None}, "d": True}, "")
    assert texts(table) == [["d", "yes"], ["a.b", "1, 20261121"], ["a.c", ""]]


def test_what_stands_below_has_a_column_of_its_own_in_files():
    table = from_columns("c", {"name": [Cell("a", "at 8"), Cell("b")],
                               "S / S_min": [Estimate("0.86", "0.8–0.9", "identified"), None]})
    assert text_frame(table).to_dict("list") == {
        "name": ["a", "b"], "name, below": ["at 8", ""], "S / S_min": ["0.86", "—"],
        "S / S_min, below": ["0.8–0.9", ""]}
