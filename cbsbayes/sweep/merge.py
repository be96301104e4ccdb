"""Join sweeps run by run: merge new files, append newer data, never pool by accident."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_columns import RUN_COLUMNS
from cbsbayes.sweep.build import add_notes, field_array, notes_of, sealed
from cbsbayes.sweep.schema import RUN_COORDS, VARIABLES, digest, validate

__all__ = ["append", "merge"]


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
    home: dict[str, xr.Dataset] = {}
    for ds in sweeps:
        runs = ds["run"].values.tolist()
        for run in runs:
            if run in home and not _same_run(home[run].sel(run=[run]), ds.sel(run=[run])):
                raise CBSDataError(f"run {run!r} is in two sweeps with different content; rename "
                                   "it, or append the newer sweep to replace it")
        fresh = [position for position, run in enumerate(runs) if run not in home]
        home = {run: ds for run in runs} | home
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
    return sealed(add_notes(joined, [*notes_of(ds), *notes_of(other), *notes]))


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
    row = _complete(row).drop_vars([n for n in row.data_vars if "run" not in row[n].dims])
    row = row.drop_vars([n for n in row.data_vars if bool(row[n].isnull().all())])
    for dim in set(row.dims) - {"run"}:
        having = [n for n in row.data_vars if dim in row[n].dims]
        row = row.dropna(dim, how="all", subset=having) if having else row.drop_dims([dim])
    return row.assign_attrs(metric="")


def _complete(ds: xr.Dataset) -> xr.Dataset:
    """Give a sweep every coordinate of its runs, so that all sweeps have the same."""
    runs = ds.sizes["run"]
    return ds.assign_coords({
        name: field_array(name, RUN_COORDS[name], np.full(runs, column.default))
        for name, column in RUN_COLUMNS.items() if name not in ds})


def _concatenate(parts: Sequence[xr.Dataset], notes: Sequence[str]) -> xr.Dataset:
    items = _joined_items(parts)
    optional = {name for name, column in RUN_COLUMNS.items() if not column.always}
    whole = all(optional.isdisjoint(ds.coords) for ds in parts)
    rows = [(ds if whole else _complete(ds)).drop_vars(
        [n for n in ds.data_vars if "run" not in ds[n].dims or str(n).startswith("true_")])
        for ds in parts]
    joined = xr.concat(rows, "run", join="outer", combine_attrs="override", coords="minimal",
                       compat="equals", data_vars="all")
    for name in joined.data_vars:  # concat fills a variable that the first sweep lacks, bare
        joined[name].attrs = next(ds[name].attrs for ds in parts if name in ds)
    for axis in ("step", "train_step", "threshold"):
        if axis in joined.dims:
            joined = joined.sortby(axis)
    if items:
        counts = [items[str(m)] for m in joined["metric"].values]
        joined["n_items"] = field_array("n_items", VARIABLES["n_items"], counts)
    # One truth no longer describes the whole, but that some of it is simulated must stay.
    joined.attrs = {key: joined.attrs[key] for key in joined.attrs
                    if key not in ("truth", "true_alpha")}
    if any("simulated" in ds.attrs for ds in parts):
        joined.attrs["simulated"] = 1
    return sealed(add_notes(joined, notes))


def _joined_items(parts: Sequence[xr.Dataset]) -> dict[str, int]:
    items: dict[str, int] = {}
    for ds in parts:
        if "accuracy" not in ds:
            continue
        for metric, count in zip(ds["metric"].values.tolist(), ds["n_items"].values.tolist(),
                                 strict=True):
            known = items.get(metric, -1)
            if -1 not in (known, count) and known != count:
                raise CBSDataError(f"metric {metric!r} has {known} items in one sweep and {count} "
                                   "in another; they are different validation sets, rename one")
            items[metric] = max(known, count)
    return items
