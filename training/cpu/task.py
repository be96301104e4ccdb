"""The verifiable task: three-digit addition, answered with the lowest digit first.

``abc+def=`` is answered by four digits, ``123+456=`` by ``9750``. Data preparation only: neither
torch nor verl is imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["CHARACTERS", "DATA_SOURCE", "DIGITS", "answer", "compute_score", "draw", "prompt",
           "rows"]

DATA_SOURCE = "tiny/add3"
DIGITS = 3
CHARACTERS = "0123456789+="


def prompt(a: int, b: int) -> str:
    """Return the question, e.g. ``007+456=``."""
    return f"{a:0{DIGITS}}+{b:0{DIGITS}}="


def answer(a: int, b: int) -> str:
    """Return the sum with its lowest digit first and padded, e.g. ``3640`` for 007+456."""
    return f"{a + b:0{DIGITS + 1}}"[::-1]


def draw(n_train: int, n_validation: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw distinct operand pairs for training and validation.

    Parameters
    ----------
    n_train, n_validation : int
        Numbers of pairs.
    seed : int
        Seed of the draw.

    Returns
    -------
    tuple of np.ndarray
        dims (item, operand) each; no pair is in both.
    """
    size = 10**DIGITS
    codes = np.random.default_rng(seed).choice(size * size, n_train + n_validation, replace=False)
    pairs = np.stack(np.divmod(codes, size), axis=1)
    return pairs[:n_train], pairs[n_train:]


def rows(pairs: np.ndarray, split: str) -> list[dict[str, Any]]:
    """Return operand pairs as the rows verl reads from Parquet.

    Parameters
    ----------
    pairs : np.ndarray
        dims (item, operand).
    split : str
        ``train`` or ``test``; kept in ``extra_info``.

    Returns
    -------
    list of dict
    """
    return [{"data_source": DATA_SOURCE, "ability": "math",
             "prompt": [{"role": "user", "content": prompt(a, b)}],
             "reward_model": {"style": "rule", "ground_truth": answer(a, b)},
             "extra_info": {"split": split, "index": index}}
            for index, (a, b) in enumerate(pairs.tolist())]


def compute_score(data_source: str, solution_str: str, ground_truth: str,
                  extra_info: dict[str, Any] | None = None, **_: object) -> float:
    """Return 1.0 for exactly the right digits and 0.0 otherwise (verl's reward function)."""
    return float(solution_str.strip() == ground_truth)
