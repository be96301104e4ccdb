"""LaTeX that compiles whatever the text: escaped, balanced, a row a line."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.models.laws import LAWS
from cbsbayes.report.latex import escape, latex_formula, latex_table, latex_text
from cbsbayes.report.tables import Cell, Column, Table

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
