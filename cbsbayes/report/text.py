"""Text of the report: labels of quantities, names as one line, and sentences from templates.

Sentences stand in ``templates/text``, one a line; Python hands them `Facts` and tables. Text is
plain here: the page escapes it, LaTeX escapes it, the terminal escapes it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from cbsbayes.errors import one_line
from cbsbayes.models.laws import Law
from cbsbayes.report import numbers

__all__ = ["QUANTITIES", "at_text", "formula", "paragraph", "parse_at", "plain", "quantity_label",
           "section_text", "sentences"]

QUANTITIES: dict[str, tuple[str, str]] = {
    "gain_prompts": ("Doubling the prompts", ""),
    "gain_rollouts": ("Doubling the rollouts", ""),
    "gain_total": ("Doubling the batch", ""),
    "batch_at_gain": ("Largest batch where doubling pays", ""),
    "cbs_prompts": ("Prompt CBS", "S = 2 S_min"),
    "cbs_samples": ("Prompt CBS in samples", "S = 2 S_min"),
    "cbs_rollouts": ("Rollout CBS", "S = 2 × its limit"),
    "best_n_rollouts": ("Best group size", "at a fixed batch"),
    "B_noise": ("B_noise", ""),
    "B_prompt": ("B_prompt", ""),
    "B_rollout": ("B_rollout", ""),
    "alpha": ("Exponent α", ""),
    "S_min": ("S_min", ""),
    "E_min": ("E_min", ""),
    "ceiling_loss": ("Loss of ceiling λ", "groups reach exp(−λ/rollouts) of the gain"),
    "reach": ("Gain within a group's reach", "as a share of endless groups'"),
    "ceiling": ("Ceiling", ""),
    "steps": ("S at a batch tried", ""),
}
"""Label and remark of every quantity, in the order in which tables print them."""

_AT = {"n_prompts": "{} prompts", "n_rollouts": "{} rollouts", "total_batch": "batch {}",
       "axis": "along {}"}


def quantity_label(quantity: str) -> str:
    """Return the label of a quantity; an unknown one keeps its own name."""
    return QUANTITIES.get(quantity, (quantity, ""))[0]


def plain(value: object) -> str:
    """Return any cell's value as text of one line.

    Missing values are empty and numbers short; line breaks and other control characters of
    a name are made visible.
    """
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, float, np.number)):
        return "" if np.isnan(value) else numbers.count(float(value))
    return one_line(value)


def parse_at(at: object) -> dict[str, str]:
    """Return ``n_prompts=128,n_rollouts=8`` as a dict; empty text and NaN give an empty one."""
    parts = [part.partition("=") for part in plain(at).split(",") if part.strip()]
    return {key.strip(): value.strip() for key, _, value in parts}


def at_text(at: object) -> str:
    """Return what is held fixed in words, e.g. ``128 prompts × 8 rollouts``."""
    fixed = parse_at(at)
    gain = fixed.pop("gain", "")
    batch = " × ".join(_AT[key].format(value) if key in _AT else f"{key} = {value}"
                       for key, value in fixed.items())
    saving = f"saving {numbers.percent(float(gain))}" if gain else ""
    return ", ".join(filter(None, [batch, saving]))


def formula(law: Law) -> str:
    """Return the law in one line, with the signs of print."""
    return law.formula.replace("alpha", "α").replace(" - ", f" {numbers.MINUS} ")


def sentences(template: str, **context: Any) -> list[str]:
    """Return the sentences of a template of ``templates/text``; its empty lines are left out."""
    return [line for line in _lines(template, context) if line]


def _lines(template: str, context: dict[str, Any]) -> list[str]:
    text = _environment().get_template(f"{template}.txt.j2").render(**context)
    return [re.sub(" +", " ", line).strip(" ") for line in text.split("\n")]


def section_text(slug: str, **context: Any) -> tuple[str, str, list[str]]:
    """Return title, introduction and sentences of a section, from ``templates/text/sections``.

    Its first line is the title, the second the introduction, which may be empty.
    """
    title, intro, *rest = [*_lines(f"sections/{slug}", context), ""]
    return title, intro, [line for line in rest if line]


def paragraph(template: str, **context: Any) -> str:
    """Return the sentences of a template as one paragraph."""
    return " ".join(sentences(template, **context))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cbsbayes.report", "templates/text"), autoescape=False,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True)
    environment.filters |= {
        "number": numbers.number, "count": numbers.count, "percent": numbers.percent,
        "probability": numbers.probability, "plain": plain, "at": at_text,
        "label": quantity_label}
    return environment
