"""What figures read off a fit: targets, runs, rows of tables, and the cut along which a curve runs.

A two-axis law is a surface; a figure shows it along prompts at a fixed number of rollouts, or along
rollouts at a fixed number of prompts. Data and laws of one axis have the total batch alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.intervals import LEFT
from cbsbayes.decisions.batches import Line, find_row, fitted_threshold, one_threshold
from cbsbayes.errors import CBSDataError
from cbsbayes.plots.style import plain_number

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["AXES", "Cut", "axes_of", "batch_of", "choose_cut",
          "crossing_table", "named", "one_threshold", "pick_thresholds", "run_table", "steps_at",
           "steps_label", "target_text", "threshold_label"]

AXES = ("prompts", "rollouts", "total")
_CBS = {"prompts": ("cbs_prompts",), "rollouts": ("cbs_rollouts",),
        "total": ("cbs_samples", "B_noise")}
_TEXT = {"n_prompts": "prompts per update", "n_rollouts": "rollouts per prompt",
         "total_batch": "samples per update"}
_RUN = ("run", "phase", "n_prompts", "n_rollouts", "total_batch")
_MOST = 6  # thresholds of one figure


def steps_at(fit: Fit, batches: np.ndarray, threshold: float) -> np.ndarray:
    """Return posterior draws of S at batches, shape (batch, 2): (sample, batch), updates."""
    return np.exp(fit.log_steps(batches[:, 0], batches[:, 1], threshold).values)


def pick_thresholds(fit: Fit, threshold: float | Sequence[float] | None) -> list[float]:
    """Return the thresholds to draw: those asked for, or all of the fit thinned to six."""
    if threshold is not None:
        return [fitted_threshold(fit, float(value)) for value in np.atleast_1d(threshold)]
    fitted = np.sort(np.asarray(fit.thresholds, dtype=float))
    keep = np.unique(np.linspace(0, len(fitted) - 1, min(_MOST, len(fitted))).round())
    return fitted[keep.astype(int)].tolist()


def target_text(fit: Fit) -> str:
    """Return what a threshold is one of: "accuracy ≥", or "target ≤" for a loss."""
    falling = fit.sweep.attrs.get("direction", "increasing") == "decreasing"
    name = "target" if falling or "accuracy" not in fit.sweep else "accuracy"
    return f"{name} {'≤' if falling else '≥'}"


def named(fit: Fit, threshold: float) -> str:
    """Return the name of a threshold's curve: "≥ 0.7"."""
    return f"{target_text(fit)[-1]} {threshold:g}"


def threshold_label(fit: Fit, threshold: float) -> str:
    """Return a threshold as text: "accuracy ≥ 0.7", or "target ≤ 3.2" for a loss."""
    return f"{target_text(fit)} {threshold:g}"


def steps_label(fit: Fit) -> str:
    """Return the unit of S: "updates", or what a table of crossings says it is."""
    unit = str(fit.crossings["lower"].attrs.get("units", "")) or "updates"
    return "updates" if unit in {"1", "update"} else unit


def run_table(data: xr.Dataset, *more: str) -> pd.DataFrame:
    """Return one row per run with its phase and batch, and other variables of one value a run."""
    return pd.DataFrame({name: data[name].values for name in (*_RUN, *more)})


def crossing_table(fit: Fit, threshold: float) -> pd.DataFrame:
    """Return the fitted runs' crossings of one threshold, without unusable ones.

    Returns
    -------
    DataFrame
        The columns of `run_table` with `lower` and `upper` (updates) and `status`.
    """
    at = fit.crossings.sel(threshold=threshold, method="nearest")
    table = run_table(at, "lower", "upper", "status")
    return table[table["status"] >= LEFT].reset_index(drop=True)


def batch_of(run: pd.Series) -> str:
    """Return a run's batch as text: "128 × 8", or the total where the axes are unknown."""
    if run["n_prompts"] > 0 and run["n_rollouts"] > 0:
        return f"{run['n_prompts']:,.0f} × {run['n_rollouts']:,.0f}"
    return plain_number(float(run["total_batch"]))


class Cut(Line):
    """One cut through a fit's surface, and what a figure says of it."""

    @property
    def unit(self) -> str:
        """Return the unit of a batch along the axis."""
        return "samples" if self.axis == "total" else self.axis

    @property
    def fixed_text(self) -> str:
        """Return what is held fixed as text after a comma, '' where nothing is."""
        return f", at {self.fixed:,d} {_TEXT[self.held]}" if self.held else ""

    @property
    def label(self) -> str:
        """Return the text for an axis along the cut."""
        return f"{_TEXT[self.column].capitalize()}{self.fixed_text}"

    def critical(self, table: pd.DataFrame, threshold: float) -> pd.Series | None:
        """Return the row of a CBS table with the critical batch size along the cut, or None."""
        rows = [find_row(table, name, threshold, at) for name in _CBS[self.axis]
                for at in (self.at, "")]
        return next((row for row in rows if row is not None), None)

    def contains(self, runs: pd.DataFrame) -> np.ndarray:
        """Return which runs lie on the cut."""
        if not self.held:
            return np.full(len(runs), True)
        return (runs[self.held] == self.fixed).to_numpy()

    def tried(self, runs: pd.DataFrame) -> np.ndarray:
        """Return the batches tried along the axis, sorted."""
        return np.unique(runs.loc[self.contains(runs), self.column].to_numpy(dtype=float))


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
    if fixed is None:
        held, varied = Cut(axis).held, Cut(axis).column
        counts = runs.groupby(held)[varied].agg(["nunique", "size"])
        fixed = int(counts.sort_values(["nunique", "size"], kind="stable").index[-1])
    cut = Cut(axis, fixed, 2.0 if axis == "rollouts" and fit.law.needs_baseline_group else 0.0)
    if len(cut.tried(runs)) < 2:
        raise CBSDataError(f"nothing to draw along {axis}: the fitted runs have "
                           f"{len(cut.tried(runs))} value of {cut.column} at {cut.at}; two are "
                           "needed")
    return cut


def axes_of(fit: Fit) -> list[str]:
    """Return the axes along which a fit can be drawn."""
    found = []
    for axis in AXES:
        try:
            found.append(choose_cut(fit, axis).axis)
        except CBSDataError:
            continue
    return found
