"""Tables of text: what is printed, what is a bound, and as CSV and LaTeX that compiles."""

from __future__ import annotations

import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cbsbayes.models.laws import LAWS
from cbsbayes.report.fit_page import answer_table, fit_tables
from cbsbayes.report.tables import (
    MAX_ROWS,
    Cell,
    Column,
    Table,
    escape,
    from_columns,
    key_values,
    latex_formula,
    latex_table,
    latex_text,
    print_table,
    text_frame,
)
from cbsbayes.report.text import Estimate, quantities

HOSTILE = r"\input{/etc/passwd} 50% & #1 $x$ a_b ^ ~ {open} \\ <b> | \"q\""


def balanced(tex):
    """Whether braces close, every dollar has its other, and environments nest."""
    bare = re.sub(r"\\[\\{}$&#_%]", "", tex)
    depth = 0
    for sign in bare:
        depth += (sign == "{") - (sign == "}")
        if depth < 0:
            return False
    begun = re.findall(r"\\(begin|end)\{(\w+)\}", tex)
    open_now = []
    for way, name in begun:
        if way == "begin":
            open_now.append(name)
        elif not open_now or open_now.pop() != name:
            return False
    return depth == 0 and bare.count("$") % 2 == 0 and not open_now


def unescaped(tex):
    """Return the special characters of a cell's text that stand bare, outside mathematics."""
    text = re.sub(r"\\[a-zA-Z]+(\{\})?|\\[{}$&#_%]", "", tex)
    return set(re.sub(r"\$[^$]*\$", "", text)) & set("\\$&#_%^{}")


@pytest.fixture(scope="module")
def tables(facts):
    return fit_tables(facts)


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_the_answer_starts_with_gains_and_ends_with_what_leans_on_the_law(facts):
    table = answer_table(facts)
    heads = [row[0] for row in texts(table)]
    assert [c.label for c in table.columns] == ["quantity", *(f"{t:g}" for t in facts.thresholds)]
    assert heads[0] == "Doubling the prompts"
    labels = list(quantities().values())
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


def test_the_laws_stand_side_by_side(tables, fit):
    rows = tables["laws"].rows
    first = [row[1].text for row in rows if row[0].text == "Prompt CBS"]
    assert first == [fit.law.name, *(name for name in fit.others if name in first), "average"]
    assert {row[1].text for row in rows if row[1].mark == "ours"} == {fit.law.name}
    assert [row[0] for row in texts(tables["law_comparison"])] == fit.law_table["law"].tolist()


def test_rows_are_those_of_the_fits_tables(tables, facts, fit):
    assert [c.label for c in tables["comparison"].columns] == [
        "along", "target", "least squares", "log least squares", "this fit"]
    rows = {"comparison": fit.comparison.groupby(["axis", "at", "threshold"]).ngroups,
            "overhead": len(facts.definitions), "left_out": (~fit.runs["used"].astype(bool)).sum()}
    assert {name: len(tables[name].rows) for name in rows} == rows
    anchor = next(row for row in texts(tables["overhead"]) if row[0].startswith("steps_2"))
    assert anchor[-2:] == ["1", "2"]
    assert "an orphan tail" in tables["left_out"].rows[0][1].text


def test_diagnostics_are_the_worst_of_each_quantity(tables, fit):
    rows = {row[0]: row for row in texts(tables["convergence"])}
    worst = fit.cbs[fit.cbs["quantity"] == "S_min"]["ess_bulk"].min()
    assert rows["S_min"][2] == f"{round(worst):,}"
    assert len(rows) == fit.cbs["quantity"].nunique()


def test_a_simulated_sweep_shows_its_truth(tables, fit):
    rows = {row[0]: row for row in tables["truth"].rows}
    assert {"S_min", "B_prompt", "B_rollout", "Exponent α"} <= {cell.text for cell in rows}
    truth = fit.sweep["true_S_min"].to_series()
    (shown,) = (row[1].text for row in tables["truth"].rows if row[0].text == "S_min")
    assert truth.min() <= float(shown.replace(",", "")) <= truth.max()


def test_nested_settings_get_dotted_names():
    table = key_values({"a": {"b": [1, 20261121], "c": None}, "d": True}, "")
    assert texts(table) == [["d", "yes"], ["a.b", "1, 20261121"], ["a.c", ""]]


def test_what_stands_below_has_a_column_of_its_own_in_files():
    table = from_columns("c", {"name": [Cell("a", "at 8"), Cell("b")],
                               "S / S_min": [Estimate("0.86", "0.8–0.9"), None]})
    assert text_frame(table).to_dict("list") == {
        "name": ["a", "b"], "name, below": ["at 8", ""], "S / S_min": ["0.86", "—"],
        "S / S_min, below": ["0.8–0.9", ""]}


@pytest.fixture
def table():
    columns = (Column("name_1"), Column("S / S_min", True))
    return Table(f"A caption with {HOSTILE}", columns, [
        (Cell(HOSTILE), Cell("0.86", "0.8–0.9")),
        (Cell("[1] in brackets"), Cell("−3 × 10⁻⁴", mark="upper_bound"))])


def test_every_special_character_is_escaped():
    assert escape("50 % of a_b & {c} #1 $5") == r"50 \% of a\_b \& \{c\} \#1 \$5"
    assert escape("\\") == r"\textbackslash{}"
    assert escape("−1 ≤ α–β × ½") == r"$-$1 $\le$ $\alpha$--$\beta$ $\times$ $\frac{1}{2}$"
    assert escape("two\nlines") == "two lines"


@given(st.text())
def test_any_text_is_escaped_and_balanced(text):
    assert unescaped(escape(text)) == set()
    assert balanced(latex_text(text))
    assert "\n" not in latex_text(text)


def test_symbols_are_set_as_mathematics():
    assert latex_text("S = 2 S_min") == r"S = 2 $S_{\min}$"
    assert latex_text("B_prompt and not_B_prompt_x") == (
        r"$B_{\mathrm{prompt}}$ and not\_B\_prompt\_x")


@pytest.mark.parametrize("name", LAWS)
def test_laws_are_formulas(name):
    formula = latex_formula(LAWS[name])
    assert balanced(formula)
    assert formula.startswith(r"$S = S_{\min}")
    assert "_min" not in formula
    assert "^alpha" not in formula


def test_a_table_is_balanced_and_every_row_has_its_cells(table):
    tex = latex_table(table, "odd/name {x}")
    assert balanced(tex)
    assert r"\label{tab:odd-name-x-}" in tex
    rows = tex.split("\\midrule\n")[1].split("\n\\bottomrule")[0].split("\n")
    assert len(rows) == 2
    assert all(row.endswith(r" \\") for row in rows)
    assert all(len(re.findall(r"(?<!\\)&", row)) == 1 for row in rows)
    assert rows[1].startswith("{}[1]")
    assert r"\begin{tabular}{lr}" in tex
    assert "(0.8--0.9)" in tex


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX engine on this machine")
def test_a_latex_engine_takes_it(tmp_path, table):
    text = ("\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs,longtable}"
            "\\begin{document}" + latex_table(table, "x") + "\\end{document}")
    (tmp_path / "x.tex").write_text(text)
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"],
                          cwd=tmp_path, capture_output=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout[-800:]


def test_the_console_cuts_no_number_and_no_word():
    columns = (Column("target"), *(Column(f"{level:g}", True) for level in (0.4, 0.5, 0.6, 0.7)))
    numbers = [f"{k}.0 (3.25–{k + 10}.5)" for k in range(4)]
    table = Table("a caption", columns, [(Cell("extrapolated far away"), *map(Cell, numbers))])
    for width in (30, 50, 80, 200):
        console = Console(file=io.StringIO(), width=width)
        print_table(table, console)
        lines = console.file.getvalue().splitlines()
        assert all(len(line.rstrip()) <= width for line in lines)
        text = "\n".join(lines)
        assert all(number in text for number in numbers)
        assert "extrapolated" in text
