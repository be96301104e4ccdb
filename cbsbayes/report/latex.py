r"""Tables and text as LaTeX: booktabs, everything escaped, signs of print as commands.

A table asks for ``\usepackage{booktabs}``; its text is UTF-8 with the signs that a plain pdfLaTeX
does not know turned into commands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cbsbayes.models.laws import Law
from cbsbayes.report.tables import Cell, Table

__all__ = ["escape", "latex_formula", "latex_table", "latex_text"]

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"$<$", ">": r"$>$", "|": r"$|$", '"': r"\textquotedbl{}",
}
_SIGNS = {
    "\N{MINUS SIGN}": r"$-$", "\N{MULTIPLICATION SIGN}": r"$\times$", "\N{EN DASH}": "--",
    "\N{EM DASH}": "---", "\N{NO-BREAK SPACE}": "~", "\N{INFINITY}": r"$\infty$",
    "\N{HORIZONTAL ELLIPSIS}": r"\dots{}", "\N{MIDDLE DOT}": r"$\cdot$",
    "\N{LESS-THAN OR EQUAL TO}": r"$\le$", "\N{GREATER-THAN OR EQUAL TO}": r"$\ge$",
    "\N{VULGAR FRACTION ONE HALF}": r"$\frac{1}{2}$", "\N{RIGHTWARDS ARROW}": r"$\to$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$", "\N{SQUARE ROOT}": r"$\surd$", "\N{CHECK MARK}": "yes",
    "\N{BALLOT X}": "no", "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''", "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{SUPERSCRIPT TWO}": r"$^2$", "\N{CIRCLED PLUS}": r"$\oplus$",
}
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "κ": "kappa",
    "λ": "lambda", "μ": "mu", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "varphi", "Σ": "Sigma",
    "Δ": "Delta",
}
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"
_PLAIN = "0123456789-"
_COMMANDS = {**_SPECIAL, **_SIGNS, **{sign: rf"$\{name}$" for sign, name in _GREEK.items()},
             **{sign: f"$^{{{plain}}}$" for sign, plain in zip(_RAISED, _PLAIN, strict=True)}}
_SYMBOLS = {  # what the reports name, as a paper would print it
    r"S\_min": r"$S_{\min}$", r"E\_min": r"$E_{\min}$",
    r"B\_noise": r"$B_{\mathrm{noise}}$", r"B\_prompt": r"$B_{\mathrm{prompt}}$",
    r"B\_rollout": r"$B_{\mathrm{rollout}}$", r"r\_hat": r"$\hat{r}$",
}


def escape(text: object) -> str:
    """Return any text as LaTeX that prints it, on one line."""
    return "".join(_COMMANDS.get(sign, sign if sign.isprintable() else " ") for sign in str(text))


def latex_text(text: str) -> str:
    """Return escaped text with the package's symbols set as mathematics."""
    out = escape(text)
    for plain, symbol in _SYMBOLS.items() if r"\_" in out else ():
        out = re.sub(rf"(?<![\w\\]){re.escape(plain)}(?!\w|\\_)", symbol.replace("\\", r"\\"), out)
    return out


def latex_formula(law: Law) -> str:
    """Return a law as mathematics."""
    out = re.sub(r"([SB])_min", r"\1_{\\min}", law.formula)
    out = re.sub(r"([Bn])_(prompts?|rollouts?|noise)", r"\1_{\\mathrm{\2}}", out)
    out = out.replace("alpha", r"{\alpha}").replace("^(1/2)", "^{1/2}")
    return f"${out}$"


def latex_table(table: Table, label: str) -> str:
    r"""Return a table as a ``table`` environment.

    Parameters
    ----------
    table : Table
        Text, as the page lays it out; what stands below a cell follows it in brackets.
    label : str
        For ``\ref``: ``tab:`` is put before it.
    """
    kinds = "".join("r" if column.numeric else "l" for column in table.columns)
    head = " & ".join(latex_text(column.label) for column in table.columns)
    caption = rf"\caption{{{latex_text(table.caption)}}}"
    name = rf"\label{{tab:{re.sub(r'[^A-Za-z0-9-]+', '-', label)}}}"
    rows = [_row(row) for row in table.rows]
    lines = ["% needs \\usepackage{booktabs}", r"\begin{table}", r"\centering", caption, name,
             rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", rf"{head} \\", r"\midrule", *rows,
             r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _row(row: Sequence[Cell]) -> str:
    cells = " & ".join(_cell(cell) for cell in row)
    # a bracket at the start of a line would be read as an option of the line end before it
    return rf"{{}}{cells} \\" if cells.startswith(("[", "*")) else rf"{cells} \\"


def _cell(cell: Cell) -> str:
    below = f" ({latex_text(cell.below)})" if cell.below else ""
    return f"{latex_text(cell.text)}{below}"
