"""The sweep dataset: build it, join it, and read simple facts off it (schema: `cbsbayes.schema`).

A sweep is one Dataset with a row per training run: validation curves in optimizer updates, or
a table of crossings, with every run's batch (n_prompts x n_rollouts), seed and settings as
coordinates.
"""

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
from cbsbayes.schema import AXES, RUN_COORDS, SCHEMA_VERSION, VARIABLES, Field, digest, validate

__all__ = ["add_notes", "append", "digest", "group_of", "is_one_axis", "long_table", "merge",
           "new_sweep", "notes_of", "validate"]

_PER_RUN = ("first_step", "last_step", "step_time", "signal_fraction")


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
        ``first_step, last_step, step_time, signal_fraction``. Missing values (None, NaN) become
        the default. ``total_batch`` may be left out where n_prompts and n_rollouts are given,
        ``last_step`` where there are curves.
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
    table = pd.DataFrame(runs).reset_index(drop=True)
    if "run" not in table:
        raise CBSDataError(f"the table of runs has columns {list(table)}; a column 'run' with "
                           "unique ids is needed")
    ds = xr.Dataset(coords={"run": _field_array("run", AXES["run"], table["run"])})
    ds = ds.assign_coords({name: _field_array(name, field, _column(table, name))
                           for name, field in RUN_COORDS.items()})
    values = {"accuracy": accuracy, "n_items": n_items, "steps_lower": steps_lower,
              "steps_upper": steps_upper}
    axes = {"metric": metric, "step": step, "threshold": threshold, "train_step": train_step}
    if accuracy is not None and n_items is None:
        values["n_items"] = np.full(len(list(metric or [])), -1)
    for name, given in axes.items():
        if given is not None:
            ds = ds.assign_coords({name: _field_array(name, AXES[name], given)})
    for name, given in values.items():
        if given is not None:
            ds[name] = _field_array(name, VARIABLES[name], given)
    for key, given in (noise or {}).items():
        ds[noise_name(key)] = _noise_array(key, given)
    for name in _PER_RUN:
        if name in table or name != "signal_fraction":
            ds[name] = _field_array(name, VARIABLES[name], _column(table, name))
    ds = _fill_last_step(ds)
    for name, attrs in (extra_attrs or {}).items():
        ds[name].attrs.update(attrs)
    if not default_metric and ds.sizes.get("metric") == 1:
        default_metric = str(ds["metric"].values[0])
    ds.attrs = _attrs(title, history, direction, default_metric, list(notes))
    validate(ds)
    ds.attrs["digest"] = digest(ds)
    return ds


def noise_name(key: str) -> str:
    """Return the variable name of a gradient-noise key, e.g. ``grad_noise/x/y`` → ``noise_x_y``."""
    return "noise_" + key.removeprefix("actor/").removeprefix("grad_noise/").replace("/", "_")


def _attrs(
    title: str, history: str, direction: str, metric: str, notes: list[str]
) -> dict[str, Any]:
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    return {"title": title or "sweep of training runs",
            "history": history or f"{stamp} made by cbsbayes", "Conventions": "CF-1.11",
            "schema_version": SCHEMA_VERSION, "direction": direction, "metric": metric,
            "notes": json.dumps(notes, ensure_ascii=False)}


def _column(table: pd.DataFrame, name: str) -> Any:
    field = RUN_COORDS.get(name) or VARIABLES[name]
    if name in table:
        column = table[name]
        if field.default is None:
            return column
        # Object first: pandas would refuse to fill a nullable or str column with another type.
        return column.astype(object).where(column.notna(), field.default)
    if name == "total_batch":
        if {"n_prompts", "n_rollouts"} <= set(table):
            return table["n_prompts"] * table["n_rollouts"]
        raise CBSDataError("the runs state neither n_prompts and n_rollouts nor total_batch; the "
                           "batch of one update is needed")
    return np.full(len(table), field.default)


def _field_array(name: str, field: Field, values: Any) -> tuple[Any, ...]:
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


def notes_of(ds: xr.Dataset) -> list[str]:
    """Return the sentences about the data that ride along in the attribute ``notes``."""
    return list(json.loads(str(ds.attrs.get("notes") or "[]")))


def add_notes(ds: xr.Dataset, sentences: Iterable[str]) -> xr.Dataset:
    """Return `ds` with further notes, each kept once."""
    notes = dict.fromkeys([*notes_of(ds), *sentences])
    return ds.assign_attrs(notes=json.dumps(list(notes), ensure_ascii=False))


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


def group_of(ds: xr.Dataset) -> xr.DataArray:
    """Return each run's group, a readable label; runs of different groups are never pooled.

    A group is model × dataset × algorithm × learning_rate × ppo_epochs; parts that are unknown
    (or, for ppo_epochs, 1) are left out of the label.

    Returns
    -------
    xarray.DataArray
        Text, dims run.
    """
    parts = zip(ds["model"].values, ds["dataset"].values, ds["algorithm"].values,
                ds["learning_rate"].values, ds["ppo_epochs"].values, strict=True)
    labels = [_label(*part) for part in parts]
    return xr.DataArray(np.array(labels, dtype=np.str_), dims="run",
                        coords={"run": ds["run"]}, name="group")


def _label(model: str, dataset: str, algorithm: str, rate: float, epochs: int) -> str:
    parts = [str(model), str(dataset), str(algorithm)]
    if np.isfinite(rate):
        parts.append(f"lr {rate:g}")
    if epochs > 1:
        parts.append(f"{epochs} epochs")
    return " · ".join(part for part in parts if part) or "all runs"


def long_table(ds: xr.Dataset) -> pd.DataFrame:
    """Return one row per evaluation.

    Returns
    -------
    pandas.DataFrame
        Columns ``run, phase, seed, n_prompts, n_rollouts, total_batch, metric, step`` (updates),
        ``trainer_step, accuracy, n_items, samples`` (used until then); empty for a sweep of
        crossings.
    """
    columns = ["run", "phase", "seed", "n_prompts", "n_rollouts", "total_batch", "metric", "step",
               "trainer_step", "accuracy", "n_items", "samples"]
    if "accuracy" not in ds:
        return pd.DataFrame(columns=columns)
    accuracy = ds["accuracy"].transpose("run", "metric", "step").values
    run, metric, step = np.nonzero(~np.isnan(accuracy))
    table = pd.DataFrame({name: ds[name].values[run] for name in columns[:6]})
    table["metric"] = ds["metric"].values[metric]
    table["step"] = ds["step"].values[step]
    table["trainer_step"] = table["step"] / ds["updates_per_step"].values[run]
    table["accuracy"] = accuracy[run, metric, step]
    table["n_items"] = ds["n_items"].values[metric]
    table["samples"] = table["step"] * table["total_batch"]
    return table[columns]


def merge(sweeps: Sequence[xr.Dataset]) -> xr.Dataset:
    """Join sweeps run by run, on the sorted union of their steps, metrics and thresholds.

    A run that two sweeps hold with equal content is kept once. Simulated truths (``true_*``)
    are left out. Notes are joined, and the first sweep's title and default metric hold.

    Raises
    ------
    CBSDataError
        If there is nothing to join, kinds or directions differ, one run id has two contents, or
        a metric has two item counts.
    """
    if not sweeps:
        raise CBSDataError("no sweep to merge; give at least one")
    for ds in sweeps:
        validate(ds)
    _check_mergeable(sweeps)
    kept: list[xr.Dataset] = []
    seen: dict[str, xr.Dataset] = {}
    for ds in sweeps:
        fresh = []
        for position, run in enumerate(ds["run"].values.tolist()):
            row = ds.isel(run=[position])
            if run in seen and not _same_run(seen[run], row):
                raise CBSDataError(f"run {run!r} is in two sweeps with different content; rename "
                                   "it, or append the newer sweep to replace it")
            if run not in seen:
                fresh.append(position)
                seen[run] = row
        if fresh:
            kept.append(ds.isel(run=fresh))
    return _concatenate(kept, [note for ds in sweeps for note in notes_of(ds)])


def append(ds: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Return `ds` with the runs of `other` added; a run of the same id is replaced.

    Replaced runs are named in the notes. Raises as `merge` does.
    """
    validate(ds)
    validate(other)
    stale = np.isin(ds["run"].values, other["run"].values)
    notes = [f"Run {run} was replaced by newer data."
             for run in ds["run"].values[stale]
             if not _same_run(ds.sel(run=[run]), other.sel(run=[run]))]
    keep = ds.isel(run=np.flatnonzero(~stale))
    parts = [keep, other] if keep.sizes["run"] else [other.assign_attrs(ds.attrs)]
    joined = merge(parts)
    return _seal(add_notes(joined, [*notes_of(ds), *notes_of(other), *notes]))


def _check_mergeable(sweeps: Sequence[xr.Dataset]) -> None:
    for name, of in {"direction": lambda ds: ds.attrs["direction"],
                     "kind": lambda ds: "curves" if "accuracy" in ds else "crossings"}.items():
        values = {of(ds) for ds in sweeps}
        if len(values) > 1:
            raise CBSDataError(f"the sweeps differ in {name}: {', '.join(sorted(values))}; keep "
                               "them in two files")


def _same_run(one: xr.Dataset, two: xr.Dataset) -> bool:
    return digest(_trim(one)) == digest(_trim(two))


def _trim(row: xr.Dataset) -> xr.Dataset:
    """Drop what other runs brought into a run's row: steps, metrics and series it never had."""
    row = row.drop_vars([n for n in row.data_vars if "run" not in row[n].dims])
    for dim in set(row.dims) - {"run"}:
        row = row.dropna(dim, how="all", subset=[n for n in row.data_vars if dim in row[n].dims])
    return row.drop_vars([n for n in row.data_vars if bool(row[n].isnull().all())]).assign_attrs(
        metric="")


def _concatenate(parts: Sequence[xr.Dataset], notes: Sequence[str]) -> xr.Dataset:
    items = _joined_items(parts)
    names = list(dict.fromkeys(n for ds in parts for n in ds.data_vars
                               if "run" in ds[n].dims and not str(n).startswith("true_")))
    templates = {n: next(ds[n] for ds in parts if n in ds) for n in names}
    aligned = [_with_all(ds, templates) for ds in parts]
    joined = xr.concat(aligned, "run", join="outer", combine_attrs="override",
                       coords="minimal", compat="equals", data_vars="all")
    for axis in ("step", "train_step", "threshold"):
        if axis in joined.dims:
            joined = joined.sortby(axis)
    if items:
        field = VARIABLES["n_items"]
        counts = [items[str(m)] for m in joined["metric"].values]
        joined["n_items"] = _field_array("n_items", field, counts)
    return _seal(add_notes(joined, notes))


def _with_all(ds: xr.Dataset, templates: Mapping[Any, xr.DataArray]) -> xr.Dataset:
    ds = ds.drop_vars([n for n in ds.data_vars if n not in templates])
    for name, template in templates.items():
        if name not in ds:
            other = {d: template[d] for d in template.dims if d != "run"}
            ds = ds.assign_coords({d: ds[d] if d in ds.coords else c for d, c in other.items()})
            shape = [ds.sizes[d] for d in template.dims]
            ds[name] = (template.dims, np.full(shape, np.nan), template.attrs)
    return ds


def _joined_items(parts: Sequence[xr.Dataset]) -> dict[str, int]:
    items: dict[str, int] = {}
    for ds in parts:
        for metric, count in zip(*(ds[n].values.tolist() for n in ("metric", "n_items")),
                                 strict=True) if "accuracy" in ds else ():
            known = items.get(metric, -1)
            if -1 not in (known, count) and known != count:
                raise CBSDataError(f"metric {metric!r} has {known} items in one sweep and {count} "
                                   "in another; they are different validation sets, rename one")
            items[metric] = max(known, count)
    return items


def _seal(ds: xr.Dataset) -> xr.Dataset:
    validate(ds)
    return ds.assign_attrs(digest=digest(ds))
