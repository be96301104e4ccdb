"""Build a sweep dataset from plain arrays; whatever is unknown gets the schema's default."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.schema import (
    AXES,
    RUN_COORDS,
    SCHEMA_VERSION,
    VARIABLES,
    Field,
    digest,
    validate,
)

__all__ = ["add_notes", "clean_text", "field_array", "new_sweep", "noise_name", "notes_of"]

_PER_RUN = ("first_step", "last_step", "step_time", "signal_fraction", "clip_fraction",
            "policy_kl", "reference_kl")
_SPARSE = _PER_RUN[3:]  # held only where logged


def new_sweep(
    runs: pd.DataFrame | Mapping[str, Any],
    *,
    accuracy: ArrayLike | None = None,
    step: ArrayLike | None = None,
    metric: Sequence[str] | None = None,
    n_items: ArrayLike | None = None,
    steps_lower: ArrayLike | None = None,
    steps_upper: ArrayLike | None = None,
    threshold: ArrayLike | None = None,
    noise: Mapping[str, ArrayLike] | None = None,
    train_step: ArrayLike | None = None,
    direction: str = "increasing",
    default_metric: str = "",
    title: str = "",
    history: str = "",
    notes: Iterable[str] = (),
    extra_attrs: Mapping[str, Mapping[str, Any]] | None = None,
) -> xr.Dataset:
    """Build a valid sweep from plain arrays; whatever is unknown gets the schema's default.

    Parameters
    ----------
    runs : pandas.DataFrame or mapping
        A column ``run`` (unique ids), any run coordinate of the schema, and any of
        ``first_step, last_step, step_time, signal_fraction, clip_fraction, policy_kl,
        reference_kl``. Missing values (None, NaN) become the default. ``total_batch`` may be
        left out where n_prompts and n_rollouts are given, ``last_step`` where there are curves.
    accuracy : array_like, optional
        Curves, dims (run, metric, step); NaN where not evaluated.
    step : array_like, optional
        Optimizer updates of the evaluations, sorted and unique.
    metric : sequence of str, optional
        Names of the validation sets.
    n_items : array_like, optional
        Validation items per metric, -1 unknown.
    steps_lower, steps_upper : array_like, optional
        Crossings in updates, dims (run, threshold), instead of curves.
    threshold : array_like, optional
        Targets of the crossings.
    noise : mapping, optional
        Measured gradient noise: source key (``grad_noise/x``) to array (run, train_step).
    train_step : array_like, optional
        Optimizer updates of the noise measurements.
    direction : {"increasing", "decreasing"}
        Whether the target is reached from below (accuracy) or from above (loss).
    default_metric : str
        The metric a fit takes unless told; by default the only one.
    title, history : str
        CF attributes; a stamped default stands in for an empty one.
    notes : iterable of str
        Sentences about the data that every report repeats.
    extra_attrs : mapping, optional
        Further attributes by variable name, e.g. what `step_time` leaves out.

    Returns
    -------
    xarray.Dataset
        The validated sweep.

    Raises
    ------
    CBSDataError
        If the arrays do not make a valid sweep.
    """
    if accuracy is not None and n_items is None:
        n_items = np.full(len(list(metric or [])), -1)
    ds = _with_given(
        _runs_only(_table(runs)),
        {"metric": metric, "step": step, "threshold": threshold, "train_step": train_step},
        {"accuracy": accuracy, "n_items": n_items, "steps_lower": steps_lower,
         "steps_upper": steps_upper})
    for key, given in (noise or {}).items():
        ds[noise_name(key)] = _noise_array(key, given)
    ds = _fill_last_step(ds)
    for name, attrs in (extra_attrs or {}).items():
        ds[name].attrs.update(attrs)
    if not default_metric and ds.sizes.get("metric") == 1:
        default_metric = str(ds["metric"].values[0])
    ds.attrs = _attrs(title, history, direction, default_metric, list(notes))
    validate(ds)
    return ds.assign_attrs(digest=digest(ds))


def noise_name(key: str) -> str:
    """Return the variable name of a gradient-noise key, e.g. ``grad_noise/x/y`` → ``noise_x_y``."""
    return "noise_" + key.removeprefix("actor/").removeprefix("grad_noise/").replace("/", "_")


def notes_of(ds: xr.Dataset) -> list[str]:
    """Return the sentences about the data that ride along in the attribute ``notes``."""
    return list(json.loads(str(ds.attrs.get("notes") or "[]")))


def add_notes(ds: xr.Dataset, sentences: Iterable[str]) -> xr.Dataset:
    """Return `ds` with further notes, each kept once."""
    notes = dict.fromkeys([*notes_of(ds), *sentences])
    return ds.assign_attrs(notes=json.dumps(list(notes), ensure_ascii=False))


def _table(runs: pd.DataFrame | Mapping[str, Any]) -> pd.DataFrame:
    if "run" not in runs:
        raise CBSDataError(f"the table of runs has columns {list(runs)}; a column 'run' with "
                           "unique ids is needed")
    count = len(runs["run"])
    # Object columns: pandas would refuse text that is not valid Unicode, and we escape it.
    return pd.DataFrame({name: pd.Series([values] * count if np.ndim(values) == 0 else list(values),
                                         dtype=object) for name, values in runs.items()})


def _runs_only(table: pd.DataFrame) -> xr.Dataset:
    coords = {"run": field_array("run", AXES["run"], table["run"])}
    coords |= {name: field_array(name, field, _column(table, name))
               for name, field in RUN_COORDS.items()}
    prompts, rollouts, total = (coords[name][1] for name in ("n_prompts", "n_rollouts",
                                                             "total_batch"))
    known = np.isnan(total) & (prompts > 0) & (rollouts > 0)
    total[known] = (prompts * rollouts)[known]
    values = {name: field_array(name, VARIABLES[name], _column(table, name))
              for name in _PER_RUN if name in table or name not in _SPARSE}
    return xr.Dataset(values, coords)


def _with_given(
    ds: xr.Dataset, axes: Mapping[str, Any], values: Mapping[str, Any]
) -> xr.Dataset:
    ds = ds.assign_coords({name: field_array(name, AXES[name], given)
                           for name, given in axes.items() if given is not None})
    try:
        return ds.assign({name: field_array(name, VARIABLES[name], given)
                          for name, given in values.items() if given is not None})
    except ValueError as error:
        raise CBSDataError(f"the arrays do not fit together: {error}") from None


def _attrs(
    title: str, history: str, direction: str, metric: str, notes: list[str]
) -> dict[str, Any]:
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    return {"title": title or "sweep of training runs",
            "history": history or f"{stamp} made by cbsbayes", "Conventions": "CF-1.11",
            "schema_version": SCHEMA_VERSION, "direction": direction, "metric": metric,
            "notes": json.dumps(notes, ensure_ascii=False)}


def _column(table: pd.DataFrame, name: str) -> Any:
    default = (RUN_COORDS.get(name) or VARIABLES[name]).default
    if name not in table:
        return np.full(len(table), default)
    return table[name].where(table[name].notna(), default)


def field_array(name: str, field: Field, values: Any) -> tuple[Any, ...]:
    """Return ``(dims, values, attrs)`` as the schema wants them.

    Raises
    ------
    CBSDataError
        If the values are not of the field's type or dimensions.
    """
    if field.dtype is np.str_:
        array = np.array([clean_text(value) for value in np.atleast_1d(values)], dtype=np.str_)
    else:
        try:
            given = np.asarray(values, dtype=np.float64)
            whole = np.dtype(field.dtype).kind == "f" or bool((given == np.round(given)).all())
        except (TypeError, ValueError) as error:
            raise CBSDataError(f"{name!r} holds what is no number ({error})") from None
        if not whole:
            odd = given[given != np.round(given)].ravel()[0]
            raise CBSDataError(f"{name!r} holds {odd:g}; valid: whole numbers")
        array = given.astype(field.dtype)
    if array.ndim != len(field.dims):
        raise CBSDataError(f"{name!r} has {array.ndim} dimensions, valid: {field.dims}")
    return field.dims, array, {"long_name": field.long_name, "units": field.units}


def clean_text(value: Any) -> str:
    """Return `value` as text that netCDF can hold: valid Unicode without NUL."""
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("\0", "\\x00")


def _noise_array(key: str, values: ArrayLike) -> tuple[Any, ...]:
    attrs = {"long_name": f"measured gradient noise, {key}", "units": "1", "source_key": key}
    return ("run", "train_step"), np.asarray(values, dtype=np.float64), attrs


def _fill_last_step(ds: xr.Dataset) -> xr.Dataset:
    if "accuracy" not in ds:
        return ds
    evaluated = ds["accuracy"].notnull().any("metric")
    last = ds["step"].where(evaluated).max("step")
    ds["last_step"].values = np.where(np.isnan(ds["last_step"]), last, ds["last_step"])
    return ds
