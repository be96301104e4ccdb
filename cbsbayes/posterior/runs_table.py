"""Each run: used how, or left out why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

__all__ = ["runs_table", "unfitted_runs"]

_COORDS = ["name", "phase", "n_prompts", "n_rollouts", "total_batch", "seed", "state"]


def runs_table(
    ds: xr.Dataset, crossings: xr.Dataset, reasons: Mapping[str, str]
) -> pd.DataFrame:
    """Return the table of ``runs.csv``, a row per run of the group.

    Parameters
    ----------
    ds : xarray.Dataset
        All runs of the group.
    crossings : xarray.Dataset
        Of the runs that were fitted.
    reasons : mapping
        Why a run was left out; ``""`` where it was fitted.
    """
    table = _about_runs(ds, [reasons[str(run)] for run in ds["run"].values])
    fitted = crossings.reindex(run=ds["run"].values)
    for threshold in crossings["threshold"].values:
        for bound in ("lower", "upper"):
            column = fitted[bound].sel(threshold=threshold).values
            table[f"{bound}_{threshold:.12g}"] = column
    return table


def unfitted_runs(ds: xr.Dataset, reason: str) -> pd.DataFrame:
    """Return the same table, without crossings, of runs that are all left out for one reason."""
    return _about_runs(ds, [reason] * ds.sizes["run"])


def _about_runs(ds: xr.Dataset, reasons: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame({"run": ds["run"].values.astype(str),
                          **{name: ds[name].values for name in _COORDS}})
    table["used"] = [reason == "" for reason in reasons]
    table["reason"] = list(reasons)
    for name in ("first_step", "last_step"):
        table[name] = ds[name].values if name in ds else np.nan
    table["attempts"], table["remark"] = ds["attempts"].values, ds["remark"].values
    return table
