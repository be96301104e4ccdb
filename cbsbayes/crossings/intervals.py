"""Where curves cross targets: what a sweep says about S, the updates to a target, as intervals.

Evaluations come every k updates, runs end, and some start beyond the target, so S is known as
left-censored, in an interval, right-censored, or not at all (docs/model.md, section 3). Dropping
the right-censored, as least squares must, removes small batches not at random. Three rules say
what counts as a crossing:

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
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.dataset import choose_metric
from cbsbayes.sweep.schema import AXES

__all__ = ["INTERVAL", "LEFT", "RIGHT", "RULES", "UNUSABLE", "Curves", "bounds", "curves_of",
           "find_crossings", "monotone_rows"]

UNUSABLE, LEFT, INTERVAL, RIGHT = -1, 0, 1, 2
RULES = ("isotonic", "first", "consecutive")
_CONFIRMED = 2.0  # standard errors that a run's last pool must lie above the target
_ROUNDING = 1e-9  # by which a pool mean or .1 * 6 may miss the target or pool that it equals


def find_crossings(
    ds: xr.Dataset, thresholds: ArrayLike, *, metric: str | None = None, rule: str = "isotonic",
) -> xr.Dataset:
    """Return bounds on every run's crossing of every threshold.

    Parameters
    ----------
    ds : xarray.Dataset
        A sweep of curves, or of crossings (then metric and rule do not apply).
    thresholds : array_like
        Targets; of a table of crossings, those it holds.
    metric : str, optional
        Validation set; the sweep's default unless given.
    rule : {"isotonic", "first", "consecutive"}
        What counts as a crossing.

    Returns
    -------
    xarray.Dataset
        Dims (run, threshold), thresholds sorted: ``lower, upper`` in updates (the crossing lies
        in (lower, upper]; lower 0 = left-censored, upper inf = right-censored, NaN = unusable)
        and ``status`` (-1 unusable, 0 left, 1 interval, 2 right); run coordinates kept. The
        attribute ``is_share`` is 1 where all values lie between 0 and 1, as accuracies do.

    Raises
    ------
    CBSDataError
        If a threshold is not finite or not in the table, or rule or metric are unknown.
    """
    targets = np.unique(np.asarray(thresholds, dtype=np.float64))
    if targets.size == 0 or not np.isfinite(targets).all():
        raise CBSDataError(f"thresholds are {targets.tolist()}; give at least one finite number")
    if "steps_lower" in ds:
        lower, upper, status, targets = _from_table(ds, targets)
        how = {"rule": "table", "metric": "", "is_share": _are_shares(targets)}
    else:
        curves = curves_of(ds, metric=metric, rule=rule)
        columns = [bounds(curves, float(target)) for target in targets]
        lower, upper, status = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
        how = {"rule": rule, "metric": metric or str(ds.attrs.get("metric", "")),
               "is_share": _are_shares(curves.sign * curves.value)}
    dims = ("run", "threshold")
    runs = {name: coord for name, coord in ds.coords.items() if coord.dims == ("run",)}
    field = AXES["threshold"]
    return xr.Dataset(
        {"lower": (dims, lower, {"long_name": "last update before the crossing, 0 left-censored",
                                 "units": "updates"}),
         "upper": (dims, upper, {"long_name": "update by which it was crossed, inf never",
                                 "units": "updates"}),
         "status": (dims, status, {
             "long_name": "what is known of the crossing", "units": "1",
             "flag_values": np.array([UNUSABLE, LEFT, INTERVAL, RIGHT], dtype=np.int8),
             "flag_meanings": "unusable left interval right"})},
        coords={**runs, "threshold": (field.dims, targets, {"long_name": field.long_name,
                                                            "units": field.units})},
        attrs={"direction": ds.attrs["direction"], **how},
    )


def _are_shares(values: np.ndarray) -> int:
    known = values[np.isfinite(values)]
    return int(known.size > 0 and known.min() >= 0.0 and known.max() <= 1.0)


def _from_table(
    ds: xr.Dataset, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    known = ds["threshold"].values
    nearest = np.abs(known[:, None] - targets).argmin(axis=0)
    odd = targets[~np.isclose(known[nearest], targets, rtol=1e-9, atol=0)]
    if odd.size:
        raise CBSDataError(f"threshold {odd[0]:g} is not in the table of crossings; it holds "
                           f"{', '.join(f'{t:g}' for t in known)}")
    table = ds[["steps_lower", "steps_upper"]].isel(threshold=nearest).transpose("run", "threshold")
    lower, upper = table["steps_lower"].values, table["steps_upper"].values
    informative = ~np.isnan(lower) & ((lower > 0) | np.isfinite(upper))
    usable = informative & (ds["usable"].values == 1)[:, None]
    return *_classified(lower, upper, usable), known[nearest]


def _classified(
    lower: np.ndarray, upper: np.ndarray, usable: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the bounds, NaN where unusable, and what is known."""
    status = np.select([~usable, np.isinf(upper), lower == 0], [UNUSABLE, RIGHT, LEFT], INTERVAL)
    return (np.where(usable, lower, np.nan), np.where(usable, upper, np.nan),
            status.astype(np.int8))


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
    return _classified(lower, upper, curves.usable & (upper > 0) & (crossed | (lower > 0)))


def _noise(values: np.ndarray, fitted: np.ndarray) -> float:
    """Return the sd of values around their monotone fits, pools counted as what was fitted."""
    free = (np.isfinite(fitted).sum() - np.isfinite(fitted[:, :1]).sum()
            - (np.diff(fitted, axis=1) > _ROUNDING * np.maximum(1.0, np.abs(fitted[:, 1:]))).sum())
    return float(np.sqrt(np.nansum((values - fitted)**2) / free)) if free > 0 else 0.0


def _unconfirmed(curves: Curves, target: float) -> np.ndarray:
    """Return which evaluations lie in a run's last pool, if that may meet the target by luck."""
    last = np.nanmax(curves.value, axis=1, initial=-np.inf)
    pool = curves.value >= (last - _ROUNDING * np.maximum(1.0, np.abs(last)))[:, None]
    error = curves.noise / np.sqrt(np.maximum(pool.sum(axis=1), 1))
    return pool & (last < target + _CONFIRMED * error)[:, None]


def _pack(step: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    missing = np.isnan(value)
    order = np.argsort(missing, axis=1, kind="stable")
    packed = np.take_along_axis(value, order, axis=1)
    return np.where(np.isnan(packed), np.nan, step[order]), packed
