"""What the trajectory model is given: every evaluation of every run, free of units.

Updates are divided by the geometric mean at which runs pass the middle accuracy and every batch by
that of the batches tried, so that updates, epochs or millions of samples give the same fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.optimize import isotonic_regression

from cbsbayes.crossings.intervals import curves_of, monotone_rows
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law, batch_axes, batch_scales

__all__ = ["ALPHA", "CEILING", "CURVATURE", "KAPPA", "LEVEL", "MEMORY", "N_WAVES_READ", "OFFSET",
           "RUN", "SATURATION", "SCALES", "SERIAL", "START", "TREND", "WANDER", "WHITE",
           "TrajectoryArrays", "TrajectoryData", "TypicalCurve", "trajectory_data"]

# Places of the shared parameters; from SCALES on level and trend of every noise scale, then waves.
(START, CEILING, SATURATION, LEVEL, KAPPA, CURVATURE, ALPHA, RUN, WANDER, OFFSET, WHITE, SERIAL,
 MEMORY, TREND, SCALES) = range(15)

N_WAVES_READ = 60  # of the bend, when a threshold is read off
_MOST_WAVES, _LEAST_WAVES = 15, 4  # that a fit carries
_ROUGHNESS = 0.06  # variance of the slope d'(a) that the waves fitted may have at most
_DEPARTURE, _DECAY = 0.10, 1.5  # of the curve from its formula, over the range of accuracy
_UNKNOWN_ITEMS = 500  # taken where nobody said how many: wider than most sets would need
_N_KNOTS = 5  # ends of a run's wander increments
_KNOT_SPAN = 50.0  # the first knot lies at the longest run over this
_NODE_SPACING = 0.3  # of log τ at most; the cubic's error is then below 1e-5 of accuracy
_NODES_OVER_RISE = 40  # more where the curve rises: some six to the finest wave of the bend
_FIRST_PIECES = 12  # of the curve before any fit
_WIDTH = 0.12  # of log updates: evaluations closer than this are averaged
_MARGIN, _RELATIVE_MARGIN = 0.02, 0.05  # of the accuracies seen
_QUIETEST = 0.02  # accuracy nearer to 0 or 1 is taken to be as noisy as this one
_BEFORE, _AFTER = 40.0, 2.0  # the grid of τ reaches from first/40 to twice the last evaluation


class TypicalCurve(NamedTuple):
    """Accuracy over log progress as a table, (node,) each; accuracy does not fall."""

    log_tau: np.ndarray
    accuracy: np.ndarray


class TrajectoryArrays(NamedTuple):
    """What the compiled likelihood is given.

    Attributes
    ----------
    weights : numpy.ndarray
        What exp(level) of each noise scale is multiplied by, shape (scale, batch + 1); the last
        batch is the middle one.
    power : bool
        Whether the law is ``power``.
    middle : float
        Logit of the accuracy at which noise levels are stated.
    log_tau : numpy.ndarray
        Nodes of log progress, shape (node,).
    lowest, length : float
        Of the stretch of accuracy over which the waves of the bend are laid out.
    wave_sizes : numpy.ndarray
        Standard deviation of each wave in accuracy, shape (term,).
    run_start : numpy.ndarray
        Where each run's evaluations begin, shape (run + 1,).
    start : numpy.ndarray
        Accuracy before training, its binomial variance and its weight, shape (run, 3).
    group_share : numpy.ndarray
        1/n_rollouts of every run, shape (run,).
    batch, log_step, time, reference, accuracy : numpy.ndarray
        Of every evaluation: the run's batch, log updates, updates in spacings of the evaluations,
        the deviation around which it is linearised, what was seen.
    binomial, log_spread : numpy.ndarray
        Binomial variance over all items asked, and log of its root over that at accuracy 1/2.
    ramps : numpy.ndarray
        How far each increment of wander has come, shape (evaluation, ramp).
    """

    weights: np.ndarray
    power: bool
    middle: float
    log_tau: np.ndarray
    lowest: float
    length: float
    wave_sizes: np.ndarray
    run_start: np.ndarray
    start: np.ndarray
    group_share: np.ndarray
    batch: np.ndarray
    log_step: np.ndarray
    time: np.ndarray
    reference: np.ndarray
    accuracy: np.ndarray
    binomial: np.ndarray
    log_spread: np.ndarray
    ramps: np.ndarray


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
    typical : TypicalCurve
        A first idea of the shared curve: where nodes of log progress lie.
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
    typical: TypicalCurve

    @property
    def batches(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct n_prompts and n_rollouts, shape (batch, 2), and the batch of every run."""
        found, batch = np.unique(np.column_stack([self.n_prompts, self.n_rollouts]), axis=0,
                                 return_inverse=True)
        return found, batch.reshape(-1)

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

    @property
    def start_terms(self) -> np.ndarray:
        """Accuracy before training, its variance and its weight, shape (run, 3).

        One checkpoint that all runs share counts once.
        """
        known = np.isfinite(self.start)
        shared = known.any() and np.ptp(self.start[known]) == 0
        p = np.clip(self.start, 0.5 / self.n_items, 1 - 0.5 / self.n_items)
        terms = [self.start, p * (1 - p) / self.n_items, known / known.sum() if shared else known]
        return np.where(known, terms, [[0.5], [0.25], [0.0]]).T.copy()

    @property
    def n_terms(self) -> int:
        """How many waves of the bend the fit carries: as many as keep accuracy rising."""
        low, high = self.accuracy_range
        return int(np.clip(_ROUGHNESS * (high - low) * self.n_items, _LEAST_WAVES, _MOST_WAVES))

    def wave_sizes(self, count: int) -> np.ndarray:
        """Return the standard deviation of the bend's waves in accuracy, shape (wave,).

        Those of a finite item set, and from the third on of the curve's departure from its formula
        (`cbsbayes.models.trajectory_curve`).
        """
        length = self.accuracy_range[1] - self.accuracy_range[0]
        k = np.arange(1, count + 1)
        departure = _DEPARTURE * length * k**-_DECAY * (k > 2)
        return np.hypot(np.sqrt(2.0 * length / self.n_items) / (k * np.pi), departure)

    def waves(self, accuracy: np.ndarray, count: int) -> np.ndarray:
        """Return the waves at levels of accuracy, shape (*accuracy, wave)."""
        low, high = self.accuracy_range
        angle = np.pi * (accuracy[..., None] - low) / (high - low)
        return self.wave_sizes(count) * np.sin(angle * np.arange(1, count + 1))

    @cached_property
    def log_tau(self) -> np.ndarray:
        """Nodes of log progress, closer where the typical curve is steep, shape (node,)."""
        first = np.log(self.steps.min() / _BEFORE)
        last = np.log(self.steps.max() * _AFTER)
        fine = np.linspace(first, last, 2000)
        low, high = self.accuracy_range
        needed = (fine - first) / _NODE_SPACING
        risen = np.clip(np.interp(fine, *self.typical) - low, 0, None) / (high - low)
        needed += risen * _NODES_OVER_RISE
        count = int(needed[-1] - needed[0]) + 2
        return np.interp(np.linspace(needed[0], needed[-1], count), needed, fine)

    @cached_property
    def knots(self) -> np.ndarray:
        """Ends of the wander's increments in log updates, shape (knot,)."""
        last = np.log(self.steps.max())
        return np.linspace(last - np.log(_KNOT_SPAN), last, _N_KNOTS)

    def ramps(self, log_steps: np.ndarray) -> np.ndarray:
        """Return how far each wander increment has come, times its prior's unit, (step, ramp).

        Increments are smooth steps between knots; their variance grows with the width of a step.
        """
        lower, width = self.knots[:-1], np.diff(self.knots)
        along = np.clip((log_steps[:, None] - lower) / width, 0.0, 1.0)
        return np.asarray(along**2 * (3.0 - 2.0 * along) * np.sqrt(width / 0.5))


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
    if law.learning_rate:
        raise CBSDataError(f"the trajectory model has no form of law {law.name!r}; use --model "
                           "crossing, or --law two_axis_free where each batch has one rate")
    _check(fitted)
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
    low = float(np.nanmedian(start) if np.isfinite(start).any() else smooth[after].min())
    ends = np.clip([low, smooth[after].max()], 0.005, 0.995)
    middle = float(np.log(ends / (1 - ends)).mean())
    scale = _log_scale(step, smooth, after, middle)
    prompts, rollouts = batch_axes(fitted)
    law.require_groups(rollouts)
    spacing = np.exp(-scale) * _spacing(step, after)
    run_start, log_step, accuracy, count = _condensed(step, value, after)
    log_steps = log_step - scale
    typical = _first_curve(np.log(step[after]) - scale, smooth[after], low)
    return TrajectoryData(
        run=fitted["run"].values.astype(str), n_prompts=prompts, n_rollouts=rollouts,
        run_start=run_start, steps=np.exp(log_steps), accuracy=accuracy, count=count,
        seen_start=np.concatenate([[0], np.cumsum(after.sum(axis=1))]).astype(np.int64),
        seen_steps=step[after] / np.exp(scale), spacing=spacing,
        expected=np.interp(log_steps, *typical),
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


def _check(fitted: xr.Dataset) -> None:
    if "accuracy" not in fitted:
        raise CBSDataError("the sweep is a table of crossings, which has no curves; use "
                           "--model crossing")
    if fitted.attrs["direction"] != "increasing":
        raise CBSDataError("the target is reached from above; the trajectory model is one of "
                           "accuracies that rise; use --model crossing")


def _n_items(fitted: xr.Dataset, metric: str | None) -> int:
    name = metric if metric is not None else fitted.attrs["metric"]
    known = int(fitted["n_items"].sel(metric=name))
    return known if known > 0 else _UNKNOWN_ITEMS


def _accuracy_range(seen: np.ndarray) -> tuple[float, float]:
    low, high = float(np.nanmin(seen)), float(np.nanmax(seen))
    margin = max(_MARGIN, _RELATIVE_MARGIN * (high - low))
    return max(low - margin, 0.0), min(high + margin, 1.0)


def _first_curve(log_steps: np.ndarray, smooth: np.ndarray, low: float) -> TypicalCurve:
    """Return the monotone mean of all runs; the first fit puts a better one."""
    ends = np.quantile(log_steps, np.linspace(0.0, 1.0, _FIRST_PIECES + 1))
    piece = np.clip(np.searchsorted(ends, log_steps, side="right") - 1, 0, _FIRST_PIECES - 1)
    filled = np.unique(piece)
    middle = np.array([log_steps[piece == k].mean() for k in filled])
    mean = isotonic_regression([smooth[piece == k].mean() for k in filled]).x
    return TypicalCurve(np.append(middle[0] - 2.0, middle), np.append(min(low, mean[0]), mean))


def _log_scale(step: np.ndarray, smooth: np.ndarray, after: np.ndarray, middle: float) -> float:
    """Return the mean log update at which runs pass the middle, or end if they do not."""
    target = 1.0 / (1.0 + np.exp(-middle))
    reached = after & (np.nan_to_num(smooth, nan=-1.0) >= target)
    last = np.where(after, step, 0.0).max(axis=1)
    first = np.where(reached.any(axis=1), step[np.arange(len(step)), reached.argmax(axis=1)], last)
    return float(np.log(first[last > 0]).mean())
