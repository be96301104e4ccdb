"""The sweep dataset's schema, version 1: what every variable is, and whether a dataset keeps it.

One Dataset, dense in steps (NaN = not evaluated there), because that is the form in which
xarray's own verbs are right; run settings are coordinates along ``run``, never dimensions.
A dataset holds curves, ``accuracy(run, metric, step)``, or a table of crossings,
``steps_lower`` and ``steps_upper`` ``(run, threshold)``. Other variables (simulated truths
``true_*``, say) may ride along where they name their unit. Run settings are listed in
``cbsbayes/logs/run_columns.toml``, all else in ``variables.toml``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_log import RUN_COLUMNS, read_fields

__all__ = ["ALWAYS", "AXES", "FIELDS", "SCHEMA_VERSION", "VARIABLES", "content_digest", "digest",
           "validate"]

SCHEMA_VERSION = 1


_READ = read_fields("cbsbayes.sweep", "variables.toml")

AXES = {name: field for name, field in _READ.items() if (name,) == field.dims}
"""Coordinates with a dimension of their own."""

VARIABLES = {name: field for name, field in _READ.items() if name not in AXES}
"""Data variables: curves or crossings, and what is measured of each run."""

FIELDS = {**AXES, **RUN_COLUMNS, **VARIABLES}
"""All that a sweep may hold, but for measured gradient noise and simulated truths."""

ALWAYS = [name for name, field in FIELDS.items() if field.always and field.dims == ("run",)]
"""What every sweep holds of each run."""

_CURVES = ("accuracy", "n_items", "metric", "step")
_CROSSINGS = ("steps_lower", "steps_upper", "threshold")
_ATTRIBUTES = (str, int, float, np.number, np.ndarray, list)


def validate(ds: xr.Dataset) -> xr.Dataset:
    """Return `ds` unchanged if it keeps the schema.

    Parameters
    ----------
    ds : xarray.Dataset
        A sweep with dims run and, for curves, metric and step; for crossings, threshold.

    Returns
    -------
    xarray.Dataset
        The same object.

    Raises
    ------
    CBSDataError
        At the first thing that breaks the schema: what, the value got, what is valid.
    """
    problem = next(_problems(ds), None)
    if problem is not None:
        raise CBSDataError(problem)
    return ds


def digest(ds: xr.Dataset) -> str:
    """Return the SHA-256 of the sweep's content: all values with their names, dims and units.

    Title, history and notes do not count, so that the same data ingested on another day have
    the same digest. Independent of string widths, byte order and the order of variables.
    """
    head = {key: str(ds.attrs.get(key, "")) for key in ("schema_version", "direction", "metric")}
    return content_digest(ds, head)


def content_digest(ds: xr.Dataset, head: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all values of a dataset and of a head, which JSON must hold."""
    total = hashlib.sha256()
    total.update(json.dumps(head, sort_keys=True).encode())
    for name in sorted(str(name) for name in ds.variables):
        variable = ds.variables[name]
        labels = [name, *map(str, variable.dims), *map(str, variable.shape),
                  str(variable.attrs.get("units", ""))]
        total.update(json.dumps(labels).encode())
        total.update(_content_bytes(np.asarray(variable.values)))
    return total.hexdigest()


def _content_bytes(values: np.ndarray) -> bytes:
    if values.dtype.kind in "UOT":
        return json.dumps([str(value) for value in values.ravel()]).encode()
    if values.dtype.kind == "f":
        # One NaN and one zero: their other bit patterns mean the same.
        values = np.where(np.isnan(values), np.nan, values) + 0.0
        return values.astype("<f8").tobytes()
    return values.astype("<i8").tobytes()


def _problems(ds: xr.Dataset) -> Iterator[str]:
    """Yield what breaks the schema; each check may rely on those before it."""
    version = ds.attrs.get("schema_version")
    if version is None or str(version) != str(SCHEMA_VERSION):
        yield (f"the sweep's schema_version is {version}; this version of cbsbayes reads "
               f"{SCHEMA_VERSION}; ingest the logs again")
    direction = ds.attrs.get("direction")
    if direction not in ("increasing", "decreasing"):
        yield (f"the sweep's direction is {direction!r}; valid: increasing (accuracy) or "
               "decreasing (loss, error rate)")
    curves, crossings = "accuracy" in ds, "steps_lower" in ds or "steps_upper" in ds
    if curves == crossings:
        yield (f"a sweep holds curves (accuracy) or crossings (steps_lower, steps_upper), got "
               f"{'both' if curves else 'neither'}; keep them in two files")
    required = [*ALWAYS, *(_CURVES if curves else _CROSSINGS)]
    for name in required:
        if name not in ds.variables:
            yield (f"the sweep has no {name!r}; schema version {SCHEMA_VERSION} needs "
                   f"{', '.join(required)}; ingest the logs again")
    for name, variable in ds.variables.items():
        yield from _of_variable(str(name), variable)
    every = [ds.attrs, *(variable.attrs for variable in ds.variables.values())]
    for key, value in (item for attrs in every for item in attrs.items()):
        if isinstance(value, bool) or not isinstance(value, _ATTRIBUTES):
            yield (f"attribute {key!r} is {value!r}; netCDF holds text and numbers only; store it "
                   "as JSON text")
    try:
        if not isinstance(json.loads(str(ds.attrs.get("notes") or "[]")), list):
            raise ValueError("not a list")
    except ValueError as error:
        yield f"attribute 'notes' is no JSON list of sentences ({error}); ingest the logs again"
    for axis in set(AXES) & {str(dim) for dim in ds.dims}:
        yield from _of_axis(axis, ds[axis].values)
    yield from _of_runs(ds)
    if crossings:
        yield from _of_bounds(ds)


def _of_variable(name: str, variable: xr.Variable) -> Iterator[str]:
    field = FIELDS.get(name)
    if "/" in name:
        yield f"variable name {name!r} holds '/', which netCDF refuses; use '_'"
    if field is not None and variable.dims != field.dims:
        yield f"{name!r} has dims {variable.dims}, valid: {field.dims}"
    if field is not None and variable.dtype.kind != field.kind:
        yield f"{name!r} is of type {variable.dtype}, valid: {field.dtype}"
    for key in ("long_name", "units"):
        if not isinstance(variable.attrs.get(key), str):
            yield (f"{name!r} has no attribute {key!r}; every variable names its meaning and its "
                   "unit ('1' for pure numbers)")


def _of_axis(axis: str, values: np.ndarray) -> Iterator[str]:
    if not values.size and axis != "train_step":
        yield f"the sweep is empty along {axis!r}; give at least one"
    unique, counts = np.unique(values, return_counts=True)
    if unique.size != values.size:
        yield f"{axis!r} holds {unique[counts > 1][0]} more than once; it must be unique"
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == unique)).all():
        yield f"{axis!r} must be finite and sorted, got {values[:6]}"
    if axis in ("step", "train_step") and (values < 0).any():
        yield f"{axis!r} starts at {values[0]:g}; updates count from 0"


def _of_runs(ds: xr.Dataset) -> Iterator[str]:
    prompts, rollouts = ds["n_prompts"].values, ds["n_rollouts"].values
    total = ds["total_batch"].values
    product = np.where(prompts > 0, prompts * rollouts, total)
    faults = {
        name: (ds[name].values < low, f"at least {low}")
        for name, column in RUN_COLUMNS.items() if name in ds and column.kind == "i"
        for low in [min(column.least, column.blank)]
    } | {
        "n_rollouts": ((prompts > 0) != (rollouts > 0),
                       "positive with n_prompts, or both -1 for one-axis data"),
        "n_prompts": ((prompts < -1) | (prompts == 0), "positive, or -1 for one-axis data"),
        "total_batch": (~(np.isfinite(total) & (total > 0) & np.isclose(total, product)),
                        "positive, or n_prompts and n_rollouts whose product it is"),
        "usable": (~np.isin(ds["usable"].values, (0, 1)), "0 or 1"),
        "run": (ds["run"].values == "", "a text that is not empty"),
    }
    for name, (wrong, valid) in faults.items():
        for at in np.flatnonzero(wrong)[:1]:
            yield (f"run {str(ds['run'].values[at])!r} has {name} = {ds[name].values[at]}; valid: "
                   f"{valid}")
    if "accuracy" in ds and np.isinf(ds["accuracy"].values).any():
        yield "'accuracy' holds inf; valid: finite, or NaN where not evaluated"


def _of_bounds(ds: xr.Dataset) -> Iterator[str]:
    lower, upper = ds["steps_lower"].values, ds["steps_upper"].values
    good = (lower >= 0) & (lower <= upper) & np.isfinite(lower) & (upper > 0)
    for run, k in np.argwhere(~good & ~(np.isnan(lower) & np.isnan(upper)))[:1]:
        yield (f"run {str(ds['run'].values[run])!r} has steps_lower = {lower[run, k]:g}, "
               f"steps_upper = {upper[run, k]:g}; valid: 0 <= lower <= upper (0 left-censored, "
               "inf never reached), or both NaN")
    rising = ds.attrs["direction"] == "increasing"
    harder = np.arange(lower.shape[1]) if rising else np.arange(lower.shape[1])[::-1]
    earliest = np.fmax.accumulate(lower[:, harder], axis=1)
    for run, k in np.argwhere(upper[:, harder] < earliest)[:1]:
        threshold = ds["threshold"].values[harder[k]]
        yield (f"run {str(ds['run'].values[run])!r}: threshold {threshold:g} is passed by update "
               f"{upper[run, harder[k]]:g}, but an easier one not before {earliest[run, k]:g}; "
               "correct the table, or its direction")
