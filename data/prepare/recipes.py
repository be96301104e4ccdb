r"""What each dataset looks like in the raw, and how one of its rows becomes a problem.

GSM8K [1]_: ``question``, and an ``answer`` whose last line is ``#### 42``. MATH [2]_ and its
500-problem test subset MATH-500: ``problem``, and a ``solution`` with the answer in its last
``\boxed{}`` (MATH-500 also states it as ``answer``). OpenMathInstruct-2 [3]_: ``problem``,
``expected_answer`` and a ``problem_source`` that says which of the two it derives from; the many
solutions generated for one problem are repetitions here.

References
----------
.. [1] Cobbe et al., "Training Verifiers to Solve Math Word Problems", 2021.
.. [2] Hendrycks et al., "Measuring Mathematical Problem Solving With the MATH Dataset", 2021.
.. [3] Toshniwal et al., "OpenMathInstruct-2", 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from training.rewards import RULES, last_boxed, number_after_hashes

__all__ = ["RECIPES", "Problem", "Recipe"]

INSTRUCTIONS = {  # the wording of verl's own examples, so that results compare
    "hashes": ' Let\'s think step by step and output the final answer after "####".',
    "boxed": " Let's think step by step and output the final answer within \\boxed{}.",
}


@dataclass(frozen=True)
class Problem:
    """A problem with one right answer.

    Attributes
    ----------
    text : str
        The problem as its dataset words it.
    answer : str
        The right answer under the rule of `data_source`.
    data_source : str
        A key of `training.rewards.RULES`.
    details : tuple of (str, str)
        Level, subject, or what the problem derives from, where the dataset says so.
    """

    text: str
    answer: str
    data_source: str
    details: tuple[tuple[str, str], ...] = ()

    @property
    def prompt(self) -> str:
        """Return the problem with the instruction for the answer's format."""
        return self.text + INSTRUCTIONS[RULES[self.data_source]]


@dataclass(frozen=True)
class Recipe:
    """Where a dataset lives, which splits it has, and how to read a row.

    Attributes
    ----------
    hub : str
        Repository on the Hugging Face hub.
    config : str or None
        Its configuration there; also the folder to read where raw files come in several.
    splits : mapping of str to str
        File to write (``train``, ``test``) to the raw split it comes from.
    columns : tuple of str
        Columns every row must have, as text.
    convert : callable
        Row to problem; None where the row states no answer that its rule can check.
    """

    hub: str
    config: str | None
    splits: Mapping[str, str]
    columns: tuple[str, ...]
    convert: Callable[[Mapping[str, Any]], Problem | None]


def _gsm8k(row: Mapping[str, Any]) -> Problem | None:
    answer = number_after_hashes(row["answer"])
    if answer is None:
        return None
    return Problem(row["question"].strip(), f"{answer:f}", "openai/gsm8k")


def _math(row: Mapping[str, Any]) -> Problem | None:
    answer = last_boxed(row["solution"])
    if answer is None:
        return None
    details = (("level", str(row["level"])), ("subject", str(row["type"])))
    return Problem(row["problem"].strip(), answer, "DigitalLearningGmbH/MATH-lighteval", details)


def _math500(row: Mapping[str, Any]) -> Problem | None:
    if not row["answer"].strip():
        return None
    details = (("level", str(row["level"])), ("subject", row["subject"]))
    return Problem(row["problem"].strip(), row["answer"].strip(), "HuggingFaceH4/MATH-500", details)


def _openmathinstruct2(row: Mapping[str, Any]) -> Problem | None:
    """Give problems made from GSM8K that set's format, all others MATH's."""
    details = (("derived_from", row["problem_source"]),)
    text, answer = row["problem"].strip(), row["expected_answer"].strip()
    if row["problem_source"].endswith("gsm8k"):
        number = number_after_hashes(f"#### {answer}")
        return None if number is None else Problem(
            text, f"{number:f}", "nvidia/OpenMathInstruct-2/gsm8k", details)
    return Problem(text, answer, "nvidia/OpenMathInstruct-2/math", details) if answer else None


RECIPES = {
    "gsm8k": Recipe("openai/gsm8k", "main", {"train": "train", "test": "test"},
                    ("question", "answer"), _gsm8k),
    "math": Recipe("DigitalLearningGmbH/MATH-lighteval", None, {"train": "train", "test": "test"},
                   ("problem", "solution", "level", "type"), _math),
    "math500": Recipe("HuggingFaceH4/MATH-500", None, {"test": "test"},
                      ("problem", "answer", "subject", "level"), _math500),
    "openmathinstruct2": Recipe("nvidia/OpenMathInstruct-2", None, {"train": "train"},
                                ("problem", "expected_answer", "problem_source"),
                                _openmathinstruct2),
}
