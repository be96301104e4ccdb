"""What the crossing model is given: crossings on the log scale, free of units.

S is divided by the geometric mean of its observed values and every batch by that of the batches
tried, so that updates, epochs or millions of samples give the same fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from cbsbayes.crossings.intervals import INTERVAL, LEFT, RIGHT, UNUSABLE
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law, batch_axes, batch_scales
from cbsbayes.models.noise_data import NoiseData

__all__ = ["FAR", "LOGISTIC_SCALE", "CrossingData", "crossing_data"]

FAR = 30.0  # log distance that stands for 0 and infinity; e^30 spans any sweep
LOGISTIC_SCALE = np.sqrt(3.0) / np.pi  # of a logistic variable of standard deviation 1
_MIN_WIDTH = 2e-3  # log width given to an exact S, far below any seed-to-seed spread
_USUAL_STEP, _LEAST_STEP = 0.5, 0.02  # between targets: where no run crossed two, and at least
_UNLINKED = 1e4  # finite, because the gradient of exp(-gap/length) at infinity is NaN


@dataclass(frozen=True)
class CrossingData:
    """Arrays of the crossing model; dims (run, threshold) unless said otherwise.

    Attributes
    ----------
    run : numpy.ndarray
        Names, shape (run,).
    threshold : numpy.ndarray
        Targets from easy to hard, shape (threshold,).
    threshold_logit : numpy.ndarray
        Centred position of the targets, logit accuracy where they are accuracies.
    n_prompts, n_rollouts : numpy.ndarray
        Batch of one update, shape (run,); the total batch and 1 in one-axis data.
    log_lower, log_upper : numpy.ndarray
        Log bounds on S over its scale; ±`FAR` where there is none.
    informative : numpy.ndarray
        Bool; False where a crossing is unusable or implied by another threshold's.
    midpoint : numpy.ndarray
        Log midpoint of interval-censored crossings, 0 elsewhere.
    previous : numpy.ndarray
        Int index of the next easier threshold that the run crossed in an interval.
    gap : numpy.ndarray
        Hardness between the two; so large that no correlation is left where there is none.
    log_steps_scale : float
        Log of the geometric mean S, updates.
    log_batch_scale : dict
        Log of the geometric middle of the batches tried, per noise scale.
    log_rate : numpy.ndarray
        Log learning rate over its geometric mean, shape (run,); 0 where the law has none.
    log_rate_scale : float
        Log of that mean.
    noise : NoiseData or None
        Measured gradient noise, where it is data too.
    """

    run: np.ndarray
    threshold: np.ndarray
    threshold_logit: np.ndarray
    n_prompts: np.ndarray
    n_rollouts: np.ndarray
    log_lower: np.ndarray
    log_upper: np.ndarray
    informative: np.ndarray
    midpoint: np.ndarray
    previous: np.ndarray
    gap: np.ndarray
    log_steps_scale: float
    log_batch_scale: dict[str, float]
    log_rate: np.ndarray
    log_rate_scale: float
    noise: NoiseData | None = None


def crossing_data(
    crossings: xr.Dataset, law: Law, threshold_logit: np.ndarray | None = None
) -> CrossingData:
    """Return the model's arrays from the crossings of the runs to be fitted.

    Parameters
    ----------
    crossings : xarray.Dataset
        Of `cbsbayes.crossings.intervals.find_crossings`, runs that may be fitted only.
    law : Law
        Says which noise scales there are.
    threshold_logit : numpy.ndarray, optional
        Position of the targets, where another sweep placed them.

    Raises
    ------
    CBSDataError
        If no crossing says anything, a group law is given groups of one, or a law of learning
        rates runs whose rate is not known.
    """
    harder_up = crossings.attrs.get("direction", "increasing") == "increasing"
    ordered = crossings.sortby("threshold", ascending=harder_up).transpose("run", "threshold")
    status = ordered["status"].values
    lower, upper = ordered["lower"].values, ordered["upper"].values
    informative = _informative(lower, upper, status)
    if not informative.any():
        raise CBSDataError("no run says anything about any threshold given; valid thresholds lie "
                           "between the accuracy before training and the best accuracy reached")
    scale = float(_log_middle(lower, upper, status)[informative].mean())
    log_lower, log_upper = _log_bounds(lower, upper, status, informative, scale)
    known = informative & (status == INTERVAL)
    x = _threshold_logit(ordered, harder_up) if threshold_logit is None else threshold_logit
    previous, gap = _previous(known, informative, x)
    n_prompts, n_rollouts = batch_axes(ordered)
    law.require_groups(n_rollouts)
    log_rate = _log_rates(ordered, law)
    return CrossingData(
        run=ordered["run"].values.astype(str), threshold=ordered["threshold"].values,
        threshold_logit=x,
        n_prompts=n_prompts, n_rollouts=n_rollouts, log_lower=log_lower, log_upper=log_upper,
        informative=informative, midpoint=np.where(known, (log_lower + log_upper) / 2, 0.0),
        previous=previous, gap=gap, log_steps_scale=scale,
        log_batch_scale=batch_scales(law, n_prompts, n_rollouts),
        log_rate=log_rate - log_rate.mean(), log_rate_scale=float(log_rate.mean()),
    )


def _log_rates(ds: xr.Dataset, law: Law) -> np.ndarray:
    if not law.learning_rate:
        return np.zeros(ds.sizes["run"])
    rates = ds["learning_rate"].values
    if unknown := int((~(np.isfinite(rates) & (rates > 0))).sum()):
        raise CBSDataError(f"law {law.name!r} needs every run's learning rate, {unknown} of "
                           f"{len(rates)} do not state it; use --law two_axis_free")
    return np.log(rates)


def _threshold_logit(ordered: xr.Dataset, harder_up: bool) -> np.ndarray:
    """Return the centred position of targets from easy to hard.

    Logit accuracy where all values are shares, because learning curves are closer to straight
    there. Of any other score the unit is arbitrary, and so its targets are as far apart as they
    are in log updates, in which logit accuracy is about measured.
    """
    threshold = ordered["threshold"].values
    if ordered.attrs.get("is_share", 1) and (threshold > 0).all() and (threshold < 1).all():
        x = np.log(threshold / (1 - threshold))
        x = x if harder_up else -x
    else:
        x = np.concatenate([[0.0], np.cumsum(_log_steps_apart(ordered))])
    return x - x.mean()


def _log_steps_apart(ordered: xr.Dataset) -> np.ndarray:
    """Return the mean log updates from each target to the next, over runs that crossed both."""
    status = ordered["status"].values
    middle = _log_middle(ordered["lower"].values, ordered["upper"].values, status)
    apart = np.diff(np.where(status == INTERVAL, middle, np.nan), axis=1)
    both = np.isfinite(apart)
    mean = np.where(both, apart, 0.0).sum(axis=0) / np.maximum(both.sum(axis=0), 1)
    usual = mean[both.any(axis=0)].mean() if both.any() else _USUAL_STEP
    return np.maximum(np.where(both.any(axis=0), mean, usual), _LEAST_STEP)


def _log_middle(lower: np.ndarray, upper: np.ndarray, status: np.ndarray) -> np.ndarray:
    """Return the middle of intervals in log updates, and the bound where there is one only."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.select([status == LEFT, status == RIGHT], [np.log(upper), np.log(lower)],
                         (np.log(lower) + np.log(upper)) / 2)


def _informative(lower: np.ndarray, upper: np.ndarray, status: np.ndarray) -> np.ndarray:
    """Return which crossings say something of their own.

    A run that was past a threshold at its first evaluation was past all easier ones; a run that
    never reached one never reached the harder. Only the binding bound is kept, otherwise one
    fact would count once per threshold. In a table of crossings bounds may differ by threshold;
    a bound goes only where another one is at least as tight.
    """
    left, right = status == LEFT, status == RIGHT
    earliest = -_so_far(np.where(left, -upper, -np.inf)[:, ::-1])[:, ::-1]
    latest = _so_far(np.where(right, lower, -np.inf))
    implied = (left & (earliest <= upper)) | (right & (latest >= lower))
    return (status != UNUSABLE) & ~implied


def _so_far(values: np.ndarray) -> np.ndarray:
    """Return the largest of the columns before each, shape of `values`; the first has none."""
    none = np.full((len(values), 1), -np.inf)
    return np.hstack([none, np.maximum.accumulate(values, axis=1)[:, :-1]])


def _log_bounds(
    lower: np.ndarray, upper: np.ndarray, status: np.ndarray, informative: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(invalid="ignore", divide="ignore"):
        low = np.where(informative & (status != LEFT), np.log(lower) - scale, -FAR)
        high = np.where(informative & (status != RIGHT), np.log(upper) - scale, FAR)
    exact = high - low < _MIN_WIDTH
    middle = (low + high) / 2
    return (np.where(exact, middle - _MIN_WIDTH / 2, low),
            np.where(exact, middle + _MIN_WIDTH / 2, high))


def _previous(
    known: np.ndarray, informative: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each crossing the next easier one known as an interval, and how far it lies."""
    last = _so_far(np.where(known, np.arange(len(x)), -1))
    linked = informative & (last >= 0)
    previous = np.where(linked, last, 0).astype(np.int64)
    return previous, np.where(linked, x - x[previous], _UNLINKED)
