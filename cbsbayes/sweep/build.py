"""Build a sweep dataset from plain arrays; whatever is unknown gets the schema's default."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_columns import RUN_COLUMNS
from cbsbayes.sweep.schema import (
    AXES,
    RUN_COORDS,
    SCHEMA_VERSION,
    VARIABLES,
    Field,
    digest,
    validate,
)

__all__ = ["Content", "add_notes", "clean_text", "field_array", "new_sweep", "noise_name",
           "notes_of", "sealed"]

_MEASURED = [name for name, field in VARIABLES.items() if field.dims == ("run",)]
_ALWAYS = {"first_step", "last_step", "step_time",
           *(name for name, column in RUN_COLUMNS.items() if column.always)}


class Content(TypedDict, total=False):
    """What a sweep holds besides its table of runs, all of it optional.

    Attributes
    ----------
    accuracy : array_like
        Curves, dims (run, metric, step); NaN where not evaluated.
    step : array_like
        Optimizer updates of the evaluations, sorted and unique.
    metric : sequence of str
        Names of the validation sets.
    n_items : array_like
        Validation items per metric, -1 unknown.
    steps_lower, steps_upper : array_like
        Crossings in updates, dims (run, threshold), instead of curves.
    threshold : array_like
        Targets of the crossings.
    noise : mapping
        Measured gradient noise: source key (``grad_noise/x``) to array (run, train_step).
    train_step : array_like
        Optimizer updates of the noise measurements.
    direction : {"increasing", "decreasing"}
        Whether the target is reached from below (accuracy, the default) or from above (loss).
    default_metric : str
        The metric a fit takes unless told; by default the only one.
    title, history : str
        CF attributes; a stamped default stands in for an empty one.
    notes : iterable of str
        Sentences about the data that every report repeats.
    extra_attrs : mapping
        Further attributes by variable name, e.g. what `step_time` leaves out.
    """

    accuracy: ArrayLike
    step: ArrayLike
    metric: Sequence[str]
    n_items: ArrayLike
    steps_lower: ArrayLike
    steps_upper: ArrayLike
    threshold: ArrayLike
    noise: Mapping[str, ArrayLike]
    train_step: ArrayLike
    direction: str
    default_metric: str
    title: str
    history: str
    notes: Iterable[str]
    extra_attrs: Mapping[str, Mapping[str, Any]]


def new_sweep(
    runs: pd.DataFrame | Mapping[str, Any], **content: Unpack[Content]
) -> xr.Dataset:
    """Build a valid sweep from plain arrays; whatever is unknown gets the schema's default.

    Parameters
    ----------
    runs : pandas.DataFrame or mapping
        A column ``run`` (unique ids) and any variable of the schema along ``run``. Missing values
        (None, NaN) become the default. ``total_batch`` may be left out where n_prompts and
        n_rollouts are given, ``last_step`` where there are curves.
    **content
        See `Content`.

    Returns
    -------
    xarray.Dataset
        The validated sweep.

    Raises
    ------
    CBSDataError
        If the arrays do not make a valid sweep.
    """
    given: dict[str, Any] = {key: value for key, value in content.items() if value is not None}
    if "accuracy" in given:
        given.setdefault("n_items", np.full(len(list(given.get("metric", []))), -1))
    ds = _runs_only(_table(runs))
    ds = ds.assign_coords({name: field_array(name, field, given[name])
                           for name, field in AXES.items() if name in given})
    try:
        ds = ds.assign({name: field_array(name, field, given[name])
                        for name, field in VARIABLES.items() if name in given})
    except ValueError as error:
        raise CBSDataError(f"the arrays do not fit together: {error}") from None
    for key, values in given.get("noise", {}).items():
        attrs = {"long_name": f"measured gradient noise, {key}", "units": "1", "source_key": key}
        ds[noise_name(key)] = (("run", "train_step"), np.asarray(values, dtype=np.float64), attrs)
    if "accuracy" in ds:
        evaluated = ds["accuracy"].notnull().any("metric")
        ds["last_step"] = ds["last_step"].fillna(ds["step"].where(evaluated).max("step"))
    for name, attrs in given.get("extra_attrs", {}).items():
        ds[name].attrs.update(attrs)
    only = str(ds["metric"].values[0]) if ds.sizes.get("metric") == 1 else ""
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    ds.attrs = {"title": given.get("title") or "sweep of training runs",
                "history": given.get("history") or f"{stamp} made by cbsbayes",
                "Conventions": "CF-1.11", "schema_version": SCHEMA_VERSION,
                "direction": given.get("direction", "increasing"),
                "metric": given.get("default_metric") or only,
                "notes": json.dumps(list(given.get("notes", ())), ensure_ascii=False)}
    return sealed(ds)


def sealed(ds: xr.Dataset) -> xr.Dataset:
    """Return a sweep with the digest of its content; raise where it breaks the schema."""
    return validate(ds).assign_attrs(digest=digest(ds))


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
    def arrays(fields: Mapping[str, Field]) -> dict[str, tuple[Any, ...]]:
        return {name: field_array(name, field, _column(table, name, field.default))
                for name, field in fields.items() if name in table or name in _ALWAYS}

    coords = arrays(RUN_COORDS) | {"run": field_array("run", AXES["run"], table["run"])}
    prompts, rollouts, total = (coords[name][1] for name in ("n_prompts", "n_rollouts",
                                                             "total_batch"))
    known = np.isnan(total) & (prompts > 0) & (rollouts > 0)
    total[known] = (prompts * rollouts)[known]
    return xr.Dataset(arrays({name: VARIABLES[name] for name in _MEASURED}), coords)


def _column(table: pd.DataFrame, name: str, default: Any) -> Any:
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
        except (TypeError, ValueError) as error:
            raise CBSDataError(f"{name!r} holds what is no number ({error})") from None
        odd = given[given != np.round(given)] if np.dtype(field.dtype).kind == "i" else given[:0]
        if odd.size:
            raise CBSDataError(f"{name!r} holds {odd.ravel()[0]:g}; valid: whole numbers")
        array = given.astype(field.dtype)
    if array.ndim != len(field.dims):
        raise CBSDataError(f"{name!r} has {array.ndim} dimensions, valid: {field.dims}")
    return field.dims, array, {"long_name": field.long_name, "units": field.units}


def clean_text(value: Any) -> str:
    """Return `value` as text that netCDF can hold: valid Unicode without NUL."""
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("\0", "\\x00")
