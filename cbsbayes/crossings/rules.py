"""Where curves cross a target: bounds on the crossing from arrays, under three rules.

============== ==========================================================================
``isotonic``   first evaluation at which a monotone least-squares fit (PAVA) of the run's
               curve reaches the target; a noisy curve's first crossing is early, this is not
``first``      first evaluation at or above the target (the seed's rule)
``consecutive`` first of two evaluations in a row at or above the target
============== ==========================================================================

The crossing lies after the evaluation before, so it is known as an interval.

A monotone fit ends in the highest mean of any last few evaluations. Where a run ends short of the
target, noise alone often takes it there: of simulated runs that ended up to 15 % of S short, 52 %
seemed to have crossed. They are those of small batches at high targets, which bends the law. So a
run's last pool counts under ``isotonic`` only where it lies above the target by two of its standard
errors (then 15 % do); until then the crossing is known to come after the evaluation before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.optimize import isotonic_regression

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.dataset import choose_metric

__all__ = ["INTERVAL", "LEFT", "RIGHT", "RULES", "UNUSABLE", "Curves", "bounds", "curves_of",
           "monotone_rows"]

UNUSABLE, LEFT, INTERVAL, RIGHT = -1, 0, 1, 2
RULES = ("isotonic", "first", "consecutive")
_CONFIRMED = 2.0  # standard errors that a run's last pool must lie above the target
_ROUNDING = 1e-9  # a pool mean or .1 * 6 may miss the round target it equals by rounding


@dataclass(frozen=True)
class Curves:
    """Every run's evaluations, packed to the left.

    Attributes
    ----------
    step : numpy.ndarray
        Updates, shape (run, evaluation), NaN after a run's last evaluation.
    value : numpy.ndarray
        What the rule compares with the target (under ``isotonic`` the monotone fit), oriented
        so that more is better; shape (run, evaluation), NaN after the last.
    sign : float
        -1 where the target is reached from above, so that `value` is its negative.
    rule : str
        One of `RULES`.
    usable : numpy.ndarray
        Bool, shape (run,): has an evaluation and may be fitted.
    noise : float
        Sd of single evaluations around the monotone fits; 0 under the other rules.
    """

    step: np.ndarray
    value: np.ndarray
    sign: float
    rule: str
    usable: np.ndarray
    noise: float = 0.0


def curves_of(ds: xr.Dataset, *, metric: str | None = None, rule: str = "isotonic") -> Curves:
    """Return a sweep's curves as a rule sees them.

    Raises
    ------
    CBSDataError
        If the rule or the metric is unknown.
    """
    if rule not in RULES:
        raise CBSDataError(f"unknown crossing rule {rule!r}; valid: {', '.join(RULES)}")
    sign = -1.0 if ds.attrs["direction"] == "decreasing" else 1.0
    accuracy = ds["accuracy"].sel(metric=choose_metric(ds, metric)).transpose("run", "step")
    step, value = _pack(ds["step"].values, sign * accuracy.values)
    usable = (ds["usable"].values == 1) & ~np.isnan(step).all(axis=1)
    if rule != "isotonic":
        return Curves(step, value, sign, rule, usable)
    fitted = monotone_rows(value)
    return Curves(step, fitted, sign, rule, usable, _noise(value[usable], fitted[usable]))


def monotone_rows(values: np.ndarray) -> np.ndarray:
    """Return the non-decreasing least-squares fit of every row, NaN where NaN.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (run, evaluation); NaN only after a row's last value.

    Returns
    -------
    numpy.ndarray
        Same shape.
    """
    fitted = np.full(values.shape, np.nan)
    for row, count in enumerate((~np.isnan(values)).sum(axis=1)):
        if count:
            fitted[row, :count] = isotonic_regression(values[row, :count]).x
    return fitted


def bounds(curves: Curves, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lower and upper bounds of every run's crossing of one target.

    A run is unusable for a target that its evaluation before training (step 0) already meets
    under the rule, and where nothing after the start was evaluated.

    Parameters
    ----------
    curves : Curves
        From `curves_of`.
    threshold : float
        The target, in the metric's own unit and direction.

    Returns
    -------
    lower, upper : numpy.ndarray
        Updates, shape (run,): the crossing lies in (lower, upper]; lower 0 = left-censored,
        upper inf = right-censored, both NaN = unusable.
    status : numpy.ndarray
        int8, shape (run,): -1 unusable, 0 left, 1 interval, 2 right.
    """
    target = curves.sign * threshold
    # A comparison with NaN is False: padding never counts as reached.
    at_least = target - _ROUNDING * max(1.0, abs(target))
    hit = curves.value >= at_least
    accepted = hit.copy()
    if curves.rule == "consecutive":
        accepted[:, :-1] &= hit[:, 1:]
        accepted[:, -1:] = False
    accepted &= ~_unconfirmed(curves, at_least)
    crossed = accepted.any(axis=1)
    first = accepted.argmax(axis=1)
    rows = np.arange(len(first))
    upper = np.where(crossed, curves.step[rows, first], np.inf)
    before = np.where(first > 0, curves.step[rows, first - 1], 0.0)
    # An unconfirmed hit is not yet known to be below.
    below = np.where(hit | np.isnan(curves.step), 0.0, curves.step).max(axis=1, initial=0.0)
    lower = np.where(crossed, before, below)
    usable = curves.usable & (upper > 0) & (crossed | (lower > 0))
    status = np.select([~usable, ~crossed, lower == 0], [UNUSABLE, RIGHT, LEFT], INTERVAL)
    return (np.where(usable, lower, np.nan), np.where(usable, upper, np.nan),
            status.astype(np.int8))


def _noise(values: np.ndarray, fitted: np.ndarray) -> float:
    """Return the sd of values around their monotone fits, pools counted as what was fitted."""
    free = (np.isfinite(fitted).sum() - np.isfinite(fitted[:, :1]).sum()
            - (np.diff(fitted, axis=1) > 0).sum())
    return float(np.sqrt(np.nansum((values - fitted)**2) / free)) if free > 0 else 0.0


def _unconfirmed(curves: Curves, target: float) -> np.ndarray:
    """Return which evaluations lie in a run's last pool, if that may meet the target by luck."""
    last = np.nanmax(curves.value, axis=1, initial=-np.inf)
    pool = curves.value == last[:, None]
    error = curves.noise / np.sqrt(np.maximum(pool.sum(axis=1), 1))
    return pool & (last < target + _CONFIRMED * error)[:, None]


def _pack(step: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    missing = np.isnan(value)
    order = np.argsort(missing, axis=1, kind="stable")
    packed = np.take_along_axis(value, order, axis=1)
    return np.where(np.isnan(packed), np.nan, step[order]), packed
