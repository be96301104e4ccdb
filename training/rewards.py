r"""Verifiable rewards: the ``####`` rule for GSM8K, math-verify for MATH.

verl calls `compute_score` for every rollout and every validation answer
(``reward.custom_reward_function.path=training/rewards.py``). It returns a mapping: ``score`` is
what GRPO sees, ``acc`` is correctness alone. verl takes ``acc`` as the core validation metric
(``val-core/<data_source>/acc/mean@N``), so a format score never leaks into the accuracy.

An answer is read strictly, because a rule that picks up any number rewards guessing: the last
``####`` or the last ``\boxed{}`` counts, whatever stood before.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from cbsbayes.errors import CBSDataError

__all__ = ["RULES", "compute_score", "last_boxed", "number_after_hashes"]

RULES = {
    "openai/gsm8k": "hashes",
    "nvidia/OpenMathInstruct-2/gsm8k": "hashes",
    "nvidia/OpenMathInstruct-2/math": "boxed",
    "DigitalLearningGmbH/MATH-lighteval": "boxed",
    "HuggingFaceH4/MATH-500": "boxed",
}
r"""Rule by data source: ``hashes`` reads a number after ``####``, ``boxed`` a ``\boxed{}``."""

_NUMBER = re.compile(  # atomic, so that 5.5/6 is no number rather than 5
    r"\s*([-−]?)\s*\$?\s*((?>[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+))"
    r"(?!\s*[-+−/^*=]\s*[$\\]?[0-9])(?![a-zA-Z.]?[0-9])")
_BOX = re.compile(r"\\f?boxed\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is text


def compute_score(data_source: str, solution_str: str, ground_truth: str,
                  extra_info: dict[str, Any] | None = None, *, format_score: float = 0.0,
                  timeout: float = 10.0, **_: Any) -> dict[str, float]:
    """Score one answer of the model.

    Parameters
    ----------
    data_source : str
        A key of `RULES`.
    solution_str : str
        The model's whole answer.
    ground_truth : str
        The right answer: a number for ``hashes``, LaTeX for ``boxed``.
    extra_info : dict, optional
        The row's ``extra_info``, which verl passes; no rule needs it.
    format_score : float
        Score of a wrong answer in the format asked for; 0 gives the plain 0/1 reward.
    timeout : float
        Seconds after which an expression that cannot be compared counts as wrong.

    Returns
    -------
    dict
        ``score``; ``acc``, 0 or 1, correctness alone; ``formatted``, 0 or 1, whether there was
        an answer in the format asked for; ``unchecked``, 0 or 1, whether the comparison ran out
        of time, so that `acc` is 0 without proof.

    Raises
    ------
    CBSDataError
        If there is no rule for `data_source`, a ground truth is no answer under its rule, or
        math-verify is needed and not installed.
    """
    rule = RULES.get(data_source)
    if rule is None:
        raise CBSDataError(f"no reward rule for data source {data_source!r}; known: "
                           f"{', '.join(RULES)}; add it to training.rewards.RULES")
    judge = _judge_hashes if rule == "hashes" else _judge_boxed
    formatted, correct = judge(solution_str, ground_truth, timeout)
    score = 1.0 if correct else format_score if formatted else 0.0
    return {"score": score, "acc": float(correct is True), "formatted": float(formatted),
            "unchecked": float(correct is None)}


def number_after_hashes(text: str) -> Decimal | None:
    """Return the number after the last ``####``, GSM8K's way of giving an answer.

    Thousands separators, a dollar sign before and words after the number are allowed; a fraction
    or a sum is no number.

    Parameters
    ----------
    text : str
        A solution.

    Returns
    -------
    Decimal or None
        None where there is no ``####``, or no number behind the last one.
    """
    _, hashes, rest = text.rpartition("####")
    found = _NUMBER.match(rest) if hashes else None
    if found is None:
        return None
    number = Decimal(found[2].replace(",", ""))
    return -number if found[1] else number


def last_boxed(text: str) -> str | None:
    r"""Return what stands in the last ``\boxed{}``, MATH's way of giving an answer.

    Parameters
    ----------
    text : str
        A solution.

    Returns
    -------
    str or None
        None where the last box is missing, empty, or never closed.
    """
    starts = [found.end() for found in _BOX.finditer(text)]
    if not starts:
        return None
    depth = 1
    for brace in _BRACE.finditer(text, starts[-1]):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[starts[-1]:brace.start()].strip() or None
    return None


def _judge_hashes(solution: str, truth: str, timeout: float) -> tuple[bool, bool]:
    """Return whether there is an answer, and whether it is right."""
    del timeout  # numbers need no search
    right = number_after_hashes(f"#### {truth}")
    if right is None:
        raise CBSDataError(f"the ground truth {truth!r} is no number; rows of this data source "
                           "are scored by the #### rule: prepare them with python -m data.prepare")
    answer = number_after_hashes(solution)
    return answer is not None, answer == right


def _judge_boxed(solution: str, truth: str, timeout: float) -> tuple[bool, bool | None]:
    """Return whether there is an answer, and whether it is right; None where nobody knows."""
    answer = last_boxed(solution)
    if answer is None:
        return False, False
    if "".join(answer.split()) == "".join(truth.split()):
        return True, True
    from training.math_check import same_math

    return True, same_math(truth, answer, timeout)
