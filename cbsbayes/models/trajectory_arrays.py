"""The arrays that the compiled likelihood of the trajectory model is given."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cbsbayes.models.batches import batch_weights, middle_batch
from cbsbayes.models.item_set import n_terms, wave_sizes
from cbsbayes.models.laws import Law
from cbsbayes.models.trajectory_data import TrajectoryData, ramps

__all__ = ["ALPHA", "CEILING", "CURVATURE", "KAPPA", "LEVEL", "MEMORY", "OFFSET", "RUN",
           "SATURATION", "SCALES", "SERIAL", "START", "TREND", "WANDER", "WHITE",
           "TrajectoryArrays", "curve_arrays", "trajectory_arrays"]

# Places of the shared parameters; from SCALES on level and trend of every noise scale, then waves.
(START, CEILING, SATURATION, LEVEL, KAPPA, CURVATURE, ALPHA, RUN, WANDER, OFFSET, WHITE, SERIAL,
 MEMORY, TREND, SCALES) = range(15)


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


def trajectory_arrays(data: TrajectoryData, law: Law) -> TrajectoryArrays:
    """Return the arrays of one model."""
    log_step = np.log(data.steps)
    batches, batch = np.unique(np.column_stack([data.n_prompts, data.n_rollouts]), axis=0,
                               return_inverse=True)
    empty = curve_arrays(data, law, data.log_tau, batches)
    return empty._replace(
        run_start=data.run_start, start=_start(data), group_share=1.0 / data.n_rollouts,
        batch=batch.reshape(-1)[data.run_of], log_step=log_step, time=data.steps / data.spacing,
        reference=data.reference, accuracy=data.accuracy,
        binomial=data.variance / (data.n_items * data.count),
        log_spread=np.log(2.0 * np.sqrt(data.variance)), ramps=ramps(log_step, data.knots))


def curve_arrays(
    data: TrajectoryData, law: Law, log_tau: np.ndarray, batches: np.ndarray
) -> TrajectoryArrays:
    """Return the arrays of the shared curve alone, at nodes and batches of one's own.

    Parameters
    ----------
    data : TrajectoryData
        The curves fitted.
    law : Law
        The law.
    log_tau : numpy.ndarray
        Nodes of log progress, shape (node,).
    batches : numpy.ndarray
        n_prompts and n_rollouts, shape (batch, 2).
    """
    low, high = data.accuracy_range
    with_middle = np.vstack([batches, middle_batch(data.n_prompts, data.n_rollouts)])
    none, whole = np.empty(0), np.empty(0, dtype=np.int64)
    return TrajectoryArrays(
        weights=batch_weights(law, data.log_batch_scale, *with_middle.T),
        power=law.name == "power", middle=data.middle, log_tau=log_tau,
        lowest=low, length=high - low, wave_sizes=wave_sizes(data, n_terms(data)),
        run_start=whole, start=np.empty((0, 3)),
        group_share=none, batch=whole, log_step=none, time=none, reference=none, accuracy=none,
        binomial=none, log_spread=none, ramps=np.empty((0, len(data.knots) - 1)))


def _start(data: TrajectoryData) -> np.ndarray:
    """Return accuracy before training, variance and weight; one shared checkpoint counts once."""
    known = np.isfinite(data.start)
    shared = known.any() and np.ptp(data.start[known]) == 0
    weight = known / known.sum() if shared else known.astype(float)
    start = np.where(known, data.start, 0.5)
    p = np.clip(start, 0.5 / data.n_items, 1 - 0.5 / data.n_items)
    return np.column_stack([start, p * (1 - p) / data.n_items, weight])
