"""What the trajectory model is given: every evaluation of every run, free of units.

Updates are divided by the geometric mean at which runs pass the middle accuracy and every batch by
that of the batches tried, so that updates, epochs or millions of samples give the same fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import xarray as xr
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

from cbsbayes.crossings.rules import curves_of, monotone_rows
from cbsbayes.errors import CBSDataError
from cbsbayes.models.batches import batch_axes, batch_scales
from cbsbayes.models.laws import Law

__all__ = ["Curve", "N_KNOTS", "UNKNOWN_ITEMS", "TrajectoryData", "ramps", "trajectory_data"]

UNKNOWN_ITEMS = 500  # taken where nobody said how many: wider than most sets would need
N_KNOTS = 5  # ends of a run's wander increments
_KNOT_SPAN = 50.0  # the first knot lies at the longest run over this
_NODE_SPACING = 0.3  # of log τ at most; the cubic's error is then below 1e-5 of accuracy
_NODES_OVER_RISE = 40  # more where the curve rises: some six to the finest wave of the bend
_FIRST_PIECES = 12  # of the curve before any fit
_FAR = 1e3  # spacings before a run's first evaluation: its serial noise owes nothing to others
_WIDTH = 0.12  # of log updates: evaluations closer than this are averaged
_MARGIN, _RELATIVE_MARGIN = 0.02, 0.05  # of the accuracies seen
_QUIETEST = 0.02  # accuracy nearer to 0 or 1 is taken to be as noisy as this one
_BEFORE, _AFTER = 40.0, 2.0  # the grid of τ reaches from first/40 to twice the last evaluation


@dataclass(frozen=True)
class Curve:
    """Accuracy over log progress, as a table.

    Attributes
    ----------
    log_tau : numpy.ndarray
        Log progress over the scale of updates, shape (node,).
    accuracy : numpy.ndarray
        Not falling, shape (node,).
    """

    log_tau: np.ndarray
    accuracy: np.ndarray

    def level(self, log_tau: np.ndarray) -> np.ndarray:
        """Return the accuracy at log progress, shape of `log_tau`."""
        return self._smooth(np.clip(log_tau, self.log_tau[0], self.log_tau[-1]))

    def slope(self, log_tau: np.ndarray) -> np.ndarray:
        """Return its slope by log progress."""
        inside = (log_tau >= self.log_tau[0]) & (log_tau <= self.log_tau[-1])
        at = np.clip(log_tau, self.log_tau[0], self.log_tau[-1])
        return np.where(inside, self._smooth.derivative()(at), 0.0)

    @cached_property
    def _smooth(self) -> PchipInterpolator:
        return PchipInterpolator(self.log_tau, self.accuracy)


@dataclass(frozen=True)
class TrajectoryData:
    """Arrays of the trajectory model.

    Attributes
    ----------
    run : numpy.ndarray
        Names, shape (run,).
    n_prompts, n_rollouts : numpy.ndarray
        Batch of one update, shape (run,); the total batch and 1 in one-axis data.
    run_start : numpy.ndarray
        Where each run's evaluations begin, shape (run + 1,).
    steps, accuracy : numpy.ndarray
        Evaluations after the start, run after run, shape (evaluation,); updates over the scale.
        Neighbours in log updates are averaged: late in a run, where evaluations lie dense, the
        serial noise of neighbours is alike, and what is left of its model's errors there would
        outweigh all that the run says about S.
    expected : numpy.ndarray
        What the shared curve expects there, which says how noisy an evaluation is. Not the run's
        own smoothed curve: a scale that follows the data would explain them.
    count : numpy.ndarray
        How many evaluations each of these averages, shape (evaluation,).
    seen_start, seen_steps : numpy.ndarray
        The same of the evaluations as they were made.
    spacing : float
        Median updates between them, over the scale.
    start : numpy.ndarray
        Accuracy before training, shape (run,); NaN where it was not evaluated.
    n_items : int
        Items of the validation set.
    accuracy_range : tuple of float
        Ends of the accuracies seen, with a margin: where the item set may bend the scale.
    log_steps_scale : float
        Log of the scale of updates.
    middle : float
        Logit of the middle accuracy, at which noise levels are stated.
    log_batch_scale : dict
        Log of the geometric middle of the batches tried, per noise scale.
    reference : numpy.ndarray
        Deviation in log updates around which each evaluation is linearised, shape (evaluation,).
    typical : Curve
        The curve along which the item set's bend is laid out.
    """

    run: np.ndarray
    n_prompts: np.ndarray
    n_rollouts: np.ndarray
    run_start: np.ndarray
    steps: np.ndarray
    accuracy: np.ndarray
    expected: np.ndarray
    count: np.ndarray
    seen_start: np.ndarray
    seen_steps: np.ndarray
    spacing: float
    start: np.ndarray
    n_items: int
    accuracy_range: tuple[float, float]
    log_steps_scale: float
    middle: float
    log_batch_scale: dict[str, float]
    reference: np.ndarray
    typical: Curve

    def around(
        self, reference: np.ndarray, typical: Curve, expected: np.ndarray
    ) -> TrajectoryData:
        """Return the same data linearised around other deviations and another curve."""
        return replace(self, reference=reference, typical=typical, expected=expected)

    @property
    def run_of(self) -> np.ndarray:
        """The run of every evaluation, shape (evaluation,)."""
        return np.repeat(np.arange(len(self.run)), np.diff(self.run_start))

    @cached_property
    def variance(self) -> np.ndarray:
        """Binomial variance of one item at every evaluation, kept off 0."""
        low, high = self.accuracy_range
        p = np.clip(self.expected, max(low, _QUIETEST), min(high, 1.0 - _QUIETEST))
        return p * (1 - p)

    @cached_property
    def gap(self) -> np.ndarray:
        """Updates since the run's evaluation before, in spacings, shape (evaluation,)."""
        gap = np.diff(self.steps, prepend=0.0) / self.spacing
        gap[self.run_start[:-1][np.diff(self.run_start) > 0]] = _FAR
        return gap

    @cached_property
    def log_tau(self) -> np.ndarray:
        """Nodes of log progress, closer where the typical curve is steep, shape (node,)."""
        first = np.log(self.steps.min() / _BEFORE)
        last = np.log(self.steps.max() * _AFTER)
        fine = np.linspace(first, last, 2000)
        low, high = self.accuracy_range
        needed = (fine - first) / _NODE_SPACING
        needed += np.clip(self.typical.level(fine) - low, 0, None) / (high - low) * _NODES_OVER_RISE
        count = int(needed[-1] - needed[0]) + 2
        return np.interp(np.linspace(needed[0], needed[-1], count), needed, fine)

    @cached_property
    def knots(self) -> np.ndarray:
        """Ends of the wander's increments in log updates, shape (knot,)."""
        last = np.log(self.steps.max())
        return np.linspace(last - np.log(_KNOT_SPAN), last, N_KNOTS)


def ramps(log_steps: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return how far each wander increment has come, times its prior's unit, (*log_steps, ramp).

    Increments are smooth steps between knots; their variance grows with the width of a step.
    """
    lower, width = knots[:-1], np.diff(knots)
    along = np.clip((np.asarray(log_steps)[..., None] - lower) / width, 0.0, 1.0)
    return along**2 * (3.0 - 2.0 * along) * np.sqrt(width / 0.5)


def trajectory_data(fitted: xr.Dataset, law: Law, metric: str | None) -> TrajectoryData:
    """Return the model's arrays from the runs to be fitted.

    Parameters
    ----------
    fitted : xarray.Dataset
        A sweep of accuracies, runs that may be fitted only.
    law : Law
        Says which noise scales there are.
    metric : str or None
        Validation set.

    Raises
    ------
    CBSDataError
        If the sweep is a table of crossings, its target is not an accuracy, or a group law is
        given groups of one.
    """
    _check(fitted, law)
    curves = curves_of(fitted, metric=metric, rule="first")
    step, value = curves.step, curves.value
    smooth = monotone_rows(value)
    after = np.isfinite(step) & (step > 0)
    if not after.any():
        raise CBSDataError("no run was evaluated after its start; the trajectory model needs "
                           "evaluations during training")
    if np.nanmin(value) < 0 or np.nanmax(value) > 1:
        raise CBSDataError(f"accuracies reach from {np.nanmin(value):g} to {np.nanmax(value):g}; "
                           "the trajectory model needs values from 0 to 1; use --model crossing")
    start = np.where(step[:, 0] == 0, value[:, 0], np.nan)
    middle = _middle(smooth[after], start)
    scale = _log_scale(step, smooth, after, middle)
    prompts, rollouts = batch_axes(fitted)
    spacing = np.exp(-scale) * _spacing(step, after)
    run_start, log_step, accuracy, count = _condensed(step, value, after)
    log_steps = log_step - scale
    typical = _first_curve(np.log(step[after]) - scale, smooth[after], start)
    return TrajectoryData(
        run=fitted["run"].values.astype(str), n_prompts=prompts, n_rollouts=rollouts,
        run_start=run_start, steps=np.exp(log_steps), accuracy=accuracy, count=count,
        seen_start=np.concatenate([[0], np.cumsum(after.sum(axis=1))]).astype(np.int64),
        seen_steps=step[after] / np.exp(scale), spacing=spacing,
        expected=typical.level(log_steps),
        start=start, n_items=_n_items(fitted, metric),
        accuracy_range=_accuracy_range(np.concatenate([accuracy, start])),
        log_steps_scale=scale, middle=middle,
        log_batch_scale=batch_scales(law, prompts, rollouts),
        reference=np.zeros(len(log_steps)), typical=typical)


def _spacing(step: np.ndarray, after: np.ndarray) -> float:
    """Return the median updates between evaluations."""
    gaps = np.diff(np.where(after, step, np.nan), axis=1)
    known = gaps[np.isfinite(gaps)]
    return float(np.median(known)) if known.size else float(np.median(step[after]))


def _condensed(
    step: np.ndarray, value: np.ndarray, after: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return evaluations of every run, neighbours averaged, and how many each averages."""
    log_step, accuracy, count, ends = [], [], [], [0]
    for i in range(len(step)):
        at, seen = np.log(step[i, after[i]]), value[i, after[i]]
        piece, first = np.zeros(len(at), dtype=int), -np.inf
        for k in range(len(at)):
            new = at[k] - first >= _WIDTH
            piece[k] = (piece[k - 1] if k else -1) + new
            first = at[k] if new else first
        size = np.bincount(piece)
        log_step.append(np.bincount(piece, at) / size)
        accuracy.append(np.bincount(piece, seen) / size)
        count.append(size)
        ends.append(ends[-1] + len(size))
    return (np.array(ends, dtype=np.int64), np.concatenate(log_step), np.concatenate(accuracy),
            np.concatenate(count).astype(float))


def _check(fitted: xr.Dataset, law: Law) -> None:
    if "accuracy" not in fitted:
        raise CBSDataError("the sweep is a table of crossings, which has no curves; use "
                           "--model crossing")
    if fitted.attrs["direction"] != "increasing":
        raise CBSDataError("the target is reached from above; the trajectory model is one of "
                           "accuracies that rise; use --model crossing")
    rollouts = fitted["n_rollouts"].values
    if law.needs_baseline_group and ((rollouts < 2) & (rollouts >= 0)).any():
        raise CBSDataError(f"law {law.name!r} has no value at n_rollouts = {rollouts.min():g}; "
                           "it needs 2 and more, use its _plain form or leave those runs out")


def _n_items(fitted: xr.Dataset, metric: str | None) -> int:
    name = metric if metric is not None else fitted.attrs["metric"]
    known = int(fitted["n_items"].sel(metric=name))
    return known if known > 0 else UNKNOWN_ITEMS


def _accuracy_range(seen: np.ndarray) -> tuple[float, float]:
    low, high = float(np.nanmin(seen)), float(np.nanmax(seen))
    margin = max(_MARGIN, _RELATIVE_MARGIN * (high - low))
    return max(low - margin, 0.0), min(high + margin, 1.0)


def _middle(smooth: np.ndarray, start: np.ndarray) -> float:
    """Return the logit half way between where runs start and where the best of them end."""
    low = np.nanmedian(start) if np.isfinite(start).any() else smooth.min()
    ends = np.clip([low, smooth.max()], 0.005, 0.995)
    return float(np.log(ends / (1 - ends)).mean())


def _first_curve(log_steps: np.ndarray, smooth: np.ndarray, start: np.ndarray) -> Curve:
    """Return the monotone mean of all runs; the first fit puts a better one."""
    low = float(np.nanmedian(start)) if np.isfinite(start).any() else float(smooth.min())
    ends = np.quantile(log_steps, np.linspace(0.0, 1.0, _FIRST_PIECES + 1))
    piece = np.clip(np.searchsorted(ends, log_steps, side="right") - 1, 0, _FIRST_PIECES - 1)
    filled = np.unique(piece)
    middle = np.array([log_steps[piece == k].mean() for k in filled])
    mean = isotonic_regression([smooth[piece == k].mean() for k in filled]).x
    return Curve(np.concatenate([[middle[0] - 2.0], middle]),
                 np.concatenate([[min(low, mean[0])], mean]))


def _log_scale(step: np.ndarray, smooth: np.ndarray, after: np.ndarray, middle: float) -> float:
    """Return the mean log update at which runs pass the middle, or end if they do not."""
    target = 1.0 / (1.0 + np.exp(-middle))
    reached = after & (np.nan_to_num(smooth, nan=-1.0) >= target)
    last = np.where(after, step, 0.0).max(axis=1)
    first = np.where(reached.any(axis=1), step[np.arange(len(step)), reached.argmax(axis=1)], last)
    return float(np.log(first[last > 0]).mean())
