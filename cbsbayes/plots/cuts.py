"""The cut through the (n_prompts, n_rollouts) plane along which a curve is drawn.

A two-axis law is a surface; a figure shows it along prompts at a fixed number of rollouts, or along
rollouts at a fixed number of prompts. Data and laws of one axis have the total batch alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.reading import cbs_row, run_table

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["AXES", "Cut", "axes_of", "choose_cut"]

AXES = ("prompts", "rollouts", "total")
_COLUMN = {"prompts": "n_prompts", "rollouts": "n_rollouts", "total": "total_batch"}
_OTHER = {"prompts": "n_rollouts", "rollouts": "n_prompts"}
_CBS = {"prompts": ("cbs_prompts",), "rollouts": ("cbs_rollouts",),
        "total": ("cbs_samples", "B_noise")}
_TEXT = {"n_prompts": "prompts per update", "n_rollouts": "rollouts per prompt",
         "total_batch": "samples per update"}


@dataclass(frozen=True)
class Cut:
    """One cut: the axis that varies and what is held fixed.

    Attributes
    ----------
    axis : {"prompts", "rollouts", "total"}
    fixed : int or None
        Rollouts (along prompts) or prompts (along rollouts) held fixed; None along the total.
    least : float
        The smallest value of the axis at which the law holds (2 rollouts where groups need a
        baseline).
    """

    axis: str
    fixed: int | None = None
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
    def unit(self) -> str:
        """Return the unit of a batch along the axis."""
        return "samples" if self.axis == "total" else self.axis

    @property
    def fixed_text(self) -> str:
        """Return what is held fixed as text after a comma, '' where nothing is."""
        return "".join(f", at {value:,.0f} {_TEXT[name]}" for name, value in self.at.items())

    @property
    def label(self) -> str:
        """Return the text for an axis along the cut."""
        return f"{_TEXT[self.column].capitalize()}{self.fixed_text}"

    def critical(self, table: pd.DataFrame, threshold: float) -> pd.Series | None:
        """Return the row of a CBS table with the critical batch size along the cut, or None."""
        rows = [cbs_row(table, name, threshold, at) for name in _CBS[self.axis]
                for at in (self.at, {})]
        return next((row for row in rows if row is not None), None)

    def batches(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (n_prompts, n_rollouts) at positions `x` along the axis."""
        x = np.asarray(x, dtype=float)
        held = np.full_like(x, 1.0 if self.fixed is None else self.fixed)
        return (held, x) if self.axis == "rollouts" else (x, held)

    def contains(self, runs: pd.DataFrame) -> np.ndarray:
        """Return which runs lie on the cut."""
        on_it = [(runs[name] == value).to_numpy() for name, value in self.at.items()]
        return on_it[0] if on_it else np.full(len(runs), True)

    def grid(self, x: np.ndarray, beyond: float = 1.5, n: int = 49) -> np.ndarray:
        """Return `n` positions, evenly spaced in log, a factor past the batches tried."""
        low, high = float(np.min(x)) / beyond, float(np.max(x)) * beyond
        return np.geomspace(max(low, self.least), high, n)


def choose_cut(fit: Fit, axis: str | None = None, fixed: int | None = None) -> Cut:
    """Return the cut asked for, or the one along which most batches were tried.

    Parameters
    ----------
    fit : Fit
    axis : {"prompts", "rollouts", "total"}, optional
        Default: prompts where both axes are known and the law has both, else total.
    fixed : int, optional
        What to hold fixed; by default the value with most batches along the axis.

    Raises
    ------
    CBSDataError
        If the axis is unknown, does not vary in the fitted runs, or no run has the fixed value.
    """
    runs = run_table(fit.crossings)
    one_axis = bool((runs["n_prompts"] <= 0).all()) or not fit.law.two_axis
    axis = axis or ("total" if one_axis else "prompts")
    if axis not in AXES:
        raise CBSDataError(f"unknown axis {axis!r}; valid axes: {', '.join(AXES)}")
    if one_axis != (axis == "total"):
        raise CBSDataError(f"nothing to draw along {axis}: " + (
            "data or law know the total batch only; use the total axis" if one_axis else
            "prompts and rollouts are known; use either"))
    if one_axis:
        return Cut(axis)
    held, varied = _OTHER[axis], _COLUMN[axis]
    counts = runs.groupby(held)[varied].agg(["nunique", "size"]).sort_index()
    if fixed is None:
        fixed = int(counts.sort_values(["nunique", "size"], kind="stable").index[-1])
    n_values = int(counts["nunique"].get(fixed, 0))
    if n_values < 2:
        raise CBSDataError(f"nothing to draw along {axis}: the fitted runs have {n_values} "
                           f"value of {varied} at {held}={fixed}; two are needed")
    least = 2.0 if axis == "rollouts" and fit.law.needs_baseline_group else 0.0
    return Cut(axis, fixed, least)


def axes_of(fit: Fit) -> list[str]:
    """Return the axes along which a fit can be drawn."""
    found = []
    for axis in AXES:
        try:
            found.append(choose_cut(fit, axis).axis)
        except CBSDataError:
            continue
    return found
