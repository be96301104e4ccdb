"""The cut through the (n_prompts, n_rollouts) plane that a curve S(B) is drawn along.

A two-axis law is a surface; a figure shows it along prompts at a fixed number of rollouts,
along rollouts at a fixed number of prompts, or in samples along the first of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.reading import run_table

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["AXES", "Slice", "choose_slice"]

AXES = ("prompts", "rollouts", "total")
_OTHER = {"prompts": "n_rollouts", "rollouts": "n_prompts", "total": "n_rollouts"}
_COLUMN = {"prompts": "n_prompts", "rollouts": "n_rollouts", "total": "total_batch"}
_WORDS = {"prompts": "Prompts per update", "rollouts": "Rollouts per prompt",
          "total": "Batch size B (samples per update)"}


@dataclass(frozen=True)
class Slice:
    """One cut: the axis that varies and what is held fixed.

    Attributes
    ----------
    axis : {"prompts", "rollouts", "total"}
    fixed : int or None
        Rollouts (for prompts and total) or prompts (for rollouts) held fixed; None for
        one-axis data and for laws of the total batch drawn against the total batch.
    least : float
        The smallest value of the axis at which the law holds (2 rollouts where groups
        need a baseline).
    """

    axis: str
    fixed: int | None
    least: float = 0.0

    @property
    def column(self) -> str:
        """Return the run coordinate along the axis."""
        return _COLUMN[self.axis]

    @property
    def at(self) -> dict[str, float]:
        """Return what is held fixed, as in the column `at` of the tables."""
        return {} if self.fixed is None else {_OTHER[self.axis]: float(self.fixed)}

    @property
    def xlabel(self) -> str:
        """Return the words under the x axis."""
        return f"{_WORDS[self.axis]}{f', {self.fixed_words}' if self.fixed else ''}"

    @property
    def fixed_words(self) -> str:
        """Return what is held fixed in words, '' where nothing is."""
        if self.fixed is None:
            return ""
        unit = "prompts per update" if self.axis == "rollouts" else "rollouts per prompt"
        return f"at {self.fixed:,d} {unit}"

    def batches(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (n_prompts, n_rollouts) at positions `x` along the axis."""
        x = np.asarray(x, dtype=float)
        if self.fixed is None:
            return x, np.ones_like(x)
        held = np.full_like(x, self.fixed)
        if self.axis == "rollouts":
            return held, x
        return (x / held, held) if self.axis == "total" else (x, held)

    def total(self, x: np.ndarray) -> np.ndarray:
        """Return the total batch at positions `x` along the axis."""
        n_prompts, n_rollouts = self.batches(x)
        return n_prompts * n_rollouts

    def contains(self, runs: pd.DataFrame) -> np.ndarray:
        """Return which runs lie on the cut."""
        if self.fixed is None:
            return np.full(len(runs), True)
        return (runs[_OTHER[self.axis]] == self.fixed).to_numpy()

    def grid(self, x: np.ndarray, n: int = 81) -> np.ndarray:
        """Return `n` positions, evenly spaced in log, a factor 1.5 past the batches tried."""
        low, high = float(np.min(x)) / 1.5, float(np.max(x)) * 1.5
        return np.geomspace(max(low, self.least), high, n)


def _most_varied(runs: pd.DataFrame, held: str, varied: str) -> tuple[int, int]:
    """Return (value of `held`, number of values of `varied`) of the richest cut."""
    counts = runs.groupby(held)[varied].agg(["nunique", "size"]).sort_index()
    best = counts.sort_values(["nunique", "size"], kind="stable").index[-1]
    return int(best), int(counts.loc[best, "nunique"])


def choose_slice(fit: Fit, axis: str | None = None, *, n_prompts: int | None = None,
                 n_rollouts: int | None = None) -> Slice:
    """Return the cut asked for, or the one along which most batches were tried.

    Parameters
    ----------
    fit : Fit
    axis : {"prompts", "rollouts", "total"}, optional
        Default: prompts where both axes are known, else total.
    n_prompts, n_rollouts : int, optional
        What to hold fixed; by default the value with most batches along the axis.

    Raises
    ------
    CBSDataError
        If the axis is unknown, does not vary in the fitted runs, or no run has the fixed value.
    """
    runs = run_table(fit.crossings)
    one_axis = bool((runs["n_prompts"] <= 0).all())
    axis = axis or ("total" if one_axis else "prompts")
    if axis not in AXES:
        raise CBSDataError(f"unknown axis {axis!r}; valid axes: {', '.join(AXES)}")
    if axis == "total" and (one_axis or not fit.law.two_axis):
        return Slice(axis, None)
    if one_axis:
        raise CBSDataError(f"nothing to draw along {axis}: the data give the total batch only; "
                           "use the total axis")
    held, varied = _OTHER[axis], _COLUMN["prompts" if axis == "total" else axis]
    asked = n_prompts if held == "n_prompts" else n_rollouts
    if asked is None:
        asked, n_values = _most_varied(runs, held, varied)
    else:
        n_values = int(runs.loc[runs[held] == asked, varied].nunique())
    if n_values < 2:
        raise CBSDataError(f"nothing to draw along {axis}: the fitted runs have {n_values} "
                           f"value of {varied} at {held}={asked}; two are needed")
    least = 2.0 if axis == "rollouts" and fit.law.needs_baseline_group else 0.0
    return Slice(axis, int(asked), least)
