"""Threshold crossings as intervals: what a sweep says about S, the updates to a target.

Evaluations come every k updates, runs end, and some start beyond the target, so S is known as
left-censored, in an interval, right-censored, or not at all (docs/model.md, section 3). Dropping
the right-censored, as least squares must, removes small batches not at random.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from cbsbayes.crossings.rules import INTERVAL, LEFT, RIGHT, RULES, UNUSABLE, bounds, curves_of
from cbsbayes.crossings.thresholds import choose_thresholds
from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.schema import AXES

__all__ = ["INTERVAL", "LEFT", "RIGHT", "RULES", "UNUSABLE", "choose_thresholds",
           "find_crossings"]


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
        What counts as a crossing, see `cbsbayes.crossings.rules`.

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
    targets = _checked(thresholds)
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
         "status": (dims, status, _status_attrs())},
        coords={**runs, "threshold": (field.dims, targets, {"long_name": field.long_name,
                                                            "units": field.units})},
        attrs={"direction": ds.attrs["direction"], **how},
    )


def _are_shares(values: np.ndarray) -> int:
    known = values[np.isfinite(values)]
    return int(known.size > 0 and known.min() >= 0.0 and known.max() <= 1.0)


def _status_attrs() -> dict[str, object]:
    values = np.array([UNUSABLE, LEFT, INTERVAL, RIGHT], dtype=np.int8)
    return {"long_name": "what is known of the crossing", "units": "1", "flag_values": values,
            "flag_meanings": "unusable left interval right"}


def _checked(thresholds: ArrayLike) -> np.ndarray:
    targets = np.unique(np.atleast_1d(np.asarray(thresholds, dtype=np.float64)))
    if targets.size == 0 or not np.isfinite(targets).all():
        raise CBSDataError(f"thresholds are {targets.tolist()}; give at least one finite number")
    return targets


def _from_table(
    ds: xr.Dataset, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    known = ds["threshold"].values
    nearest = np.abs(known[:, None] - targets).argmin(axis=0)
    if not np.isclose(known[nearest], targets, rtol=1e-9, atol=0).all():
        odd = targets[~np.isclose(known[nearest], targets, rtol=1e-9, atol=0)][0]
        raise CBSDataError(f"threshold {odd:g} is not in the table of crossings; it holds "
                           f"{', '.join(f'{t:g}' for t in known)}")
    table = ds[["steps_lower", "steps_upper"]].isel(threshold=nearest).transpose("run", "threshold")
    lower, upper = table["steps_lower"].values, table["steps_upper"].values
    informative = ~np.isnan(lower) & ((lower > 0) | np.isfinite(upper))
    usable = informative & (ds["usable"].values == 1)[:, None]
    status = np.select([~usable, np.isinf(upper), lower == 0], [UNUSABLE, RIGHT, LEFT], INTERVAL)
    return (np.where(usable, lower, np.nan), np.where(usable, upper, np.nan),
            status.astype(np.int8), known[nearest])
