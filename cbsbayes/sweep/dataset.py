"""The sweep dataset: build it from plain arrays, join it, and read simple facts off it.

A sweep is one Dataset with a row per training run: validation curves in optimizer updates, or
a table of crossings, with every run's batch (n_prompts x n_rollouts), seed and settings as
coordinates. Its schema is in `cbsbayes.sweep.schema`.
"""

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
from cbsbayes.logs.run_log import RUN_COLUMNS
from cbsbayes.sweep.schema import ALWAYS, AXES, FIELDS, SCHEMA_VERSION, digest, validate

__all__ = ["Content", "add_notes", "append", "choose_metric", "clean_text", "is_one_axis",
           "digest", "new_sweep", "noise_name", "notes_of", "validate"]


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
    grad_norm_sq : array_like
        Mean squared gradient norms since the evaluation before, dims (run, step).
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
    """

    accuracy: ArrayLike
    step: ArrayLike
    metric: Sequence[str]
    n_items: ArrayLike
    grad_norm_sq: ArrayLike
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
    if "run" not in runs:
        raise CBSDataError(f"the table of runs has columns {list(runs)}; a column 'run' with "
                           "unique ids is needed")
    variables = {name: _variable(name, _column(field.blank, runs.get(name), len(runs["run"])))
                 for name, field in FIELDS.items()
                 if field.dims == ("run",) and (name in runs or name in ALWAYS)}
    prompts, rollouts, total = (variables[name][1] for name in ("n_prompts", "n_rollouts",
                                                                "total_batch"))
    known = np.isnan(total) & (prompts > 0) & (rollouts > 0)
    total[known] = (prompts * rollouts)[known]
    variables |= {name: _variable(name, given[name]) for name in FIELDS if name in given}
    variables |= {
        noise_name(key): (("run", "train_step"), np.asarray(values, dtype=np.float64),
                          {"long_name": f"measured gradient noise, {key}", "units": "1",
                           "source_key": key})
        for key, values in given.get("noise", {}).items()}
    try:
        ds = xr.Dataset(variables).set_coords(
            [name for name in variables if name in AXES or name in RUN_COLUMNS])
    except ValueError as error:
        raise CBSDataError(f"the arrays do not fit together: {error}") from None
    if "accuracy" in ds:
        evaluated = ds["accuracy"].notnull().any("metric")
        ds["last_step"] = ds["last_step"].fillna(ds["step"].where(evaluated).max("step"))
    only = str(ds["metric"].values[0]) if ds.sizes.get("metric") == 1 else ""
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    ds.attrs = {"title": given.get("title") or "sweep of training runs",
                "history": given.get("history") or f"{stamp} made by cbsbayes",
                "Conventions": "CF-1.11", "schema_version": SCHEMA_VERSION,
                "direction": given.get("direction", "increasing"),
                "metric": given.get("default_metric") or only,
                "notes": json.dumps(list(given.get("notes", ())), ensure_ascii=False)}
    return _sealed(ds)


def _sealed(ds: xr.Dataset) -> xr.Dataset:
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


def _column(blank: Any, values: Any, count: int) -> np.ndarray:
    """Return a value per run, the default where one is missing."""
    # Object columns: pandas would refuse text that is not valid Unicode, and we escape it.
    column = pd.Series([values] * count if np.ndim(values) == 0 else list(values), dtype=object)
    return column.where(column.notna(), blank).to_numpy()


def _variable(name: str, values: Any) -> tuple[tuple[str, ...], np.ndarray, dict[str, str]]:
    """Return ``(dims, values, attrs)`` as the schema wants them.

    Raises
    ------
    CBSDataError
        If the values are not of the field's type or dimensions.
    """
    field = FIELDS[name]
    if field.kind == "U":
        array = np.array([clean_text(value) for value in np.atleast_1d(values)], dtype=np.str_)
    else:
        try:
            given = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise CBSDataError(f"{name!r} holds what is no number ({error})") from None
        odd = given[given != np.round(given)] if field.kind == "i" else given[:0]
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


def is_one_axis(ds: xr.Dataset) -> bool:
    """Return whether the runs state only a total batch (no prompts and rollouts).

    Raises
    ------
    CBSDataError
        If some runs do and others do not: they belong to different fits.
    """
    one_axis = ds["n_prompts"].values < 0
    if one_axis.any() and not one_axis.all():
        raise CBSDataError(f"{int(one_axis.sum())} of {one_axis.size} runs state only total_batch, "
                           "the others n_prompts and n_rollouts; fit them apart (--group)")
    return bool(one_axis.all())


def choose_metric(ds: xr.Dataset, metric: str | None = None) -> str:
    """Return the metric to use: the one asked for, the sweep's default, or the only one.

    Raises
    ------
    CBSDataError
        If there is no such metric, or several and no default; the message lists them.
    """
    names = [str(name) for name in ds["metric"].values]
    wanted = metric or str(ds.attrs.get("metric", "")) or (names[0] if len(names) == 1 else "")
    if wanted not in names:
        what = f"no metric {wanted!r}" if wanted else "several metrics and no default"
        raise CBSDataError(f"the sweep has {what}; choose one of: {', '.join(names)}")
    return wanted


def append(ds: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Return `ds` with the runs of `other` added; a run of the same id is replaced.

    Steps, metrics and thresholds are the sorted union of both. Replaced runs are named in the
    notes. Simulated truths (``true_*``) are left out; the title and default metric of `ds` hold.

    Raises
    ------
    CBSDataError
        If kinds or directions differ, or a metric has two item counts.
    """
    for name, of in {"direction": lambda ds: ds.attrs["direction"],
                     "kind": lambda ds: "curves" if "accuracy" in ds else "crossings"}.items():
        values = sorted({of(validate(ds)), of(validate(other))})
        if len(values) > 1:
            raise CBSDataError(f"the sweeps differ in {name}: {', '.join(values)}; keep them in "
                               "two files")
    columns = {name for name in RUN_COLUMNS if name in ds or name in other}
    old, new = (_runs_of(part, columns) for part in (ds, other))
    replaced = [f"Run {run} was replaced by newer data." for run in _changed(old, new)]
    kept = old.isel(run=np.flatnonzero(~np.isin(old["run"].values, new["run"].values)))
    joined = xr.concat([kept, new], "run", join="outer", combine_attrs="override",
                       coords="minimal", compat="equals", data_vars="all")
    for variable in joined.data_vars.values():  # one that only the second sweep has comes bare
        variable.attrs = (old if variable.name in old else new)[variable.name].attrs
    joined = joined.sortby([axis for axis in ("step", "train_step", "threshold")
                            if axis in joined.dims])
    if "n_items" in ds:
        joined["n_items"] = _joined_items(ds["n_items"], other["n_items"])
    # One truth no longer describes the whole, but that some of it is simulated must stay.
    joined.attrs = {key: value for key, value in ds.attrs.items()
                    if key not in ("truth", "true_alpha")}
    if "simulated" in other.attrs:
        joined.attrs["simulated"] = 1
    return _sealed(add_notes(joined, [*notes_of(ds), *notes_of(other), *replaced]))


def _runs_of(ds: xr.Dataset, columns: Iterable[str]) -> xr.Dataset:
    """Return what a sweep holds of its runs, with every coordinate of `columns`."""
    blank = {name: _variable(name, np.full(ds.sizes["run"], RUN_COLUMNS[name].blank))
             for name in columns if name not in ds}
    return ds.assign_coords(blank).drop_vars(
        [name for name in ds.data_vars
         if "run" not in ds[name].dims or str(name).startswith("true_")])


def _changed(old: xr.Dataset, new: xr.Dataset) -> list[str]:
    """Return the runs that are in both, with different content."""
    shared = np.intersect1d(old["run"].values, new["run"].values)
    both = xr.concat([ds.sel(run=shared).reset_coords() for ds in (old, new)], "version",
                     join="outer", data_vars="all")
    one, two = both.isel(version=0), both.isel(version=1)
    equal = (one == two) | (one.isnull() & two.isnull())
    alike = equal.all([dim for dim in equal.dims if dim != "run"]).to_array().all("variable")
    return shared[~alike.values].tolist()


def _joined_items(one: xr.DataArray, two: xr.DataArray) -> xr.DataArray:
    counts = xr.concat([one, two], "version", join="outer", fill_value=-1)
    for metric, (a, b) in zip(counts["metric"].values, counts.values.T, strict=True):
        if -1 not in (a, b) and a != b:
            raise CBSDataError(f"metric {metric!r} has {a} items in one sweep and {b} in another; "
                               "they are different validation sets, rename one")
    return counts.max("version", keep_attrs=True)
