"""The sweep dataset: build it, join it, and read simple facts off it.

Its schema is in `cbsbayes.sweep.schema`.

A sweep is one Dataset with a row per training run: validation curves in optimizer updates, or
a table of crossings, with every run's batch (n_prompts x n_rollouts), seed and settings as
coordinates.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.build import add_notes, new_sweep, notes_of
from cbsbayes.sweep.learning_rate import learning_rate_rule
from cbsbayes.sweep.merge import append, merge
from cbsbayes.sweep.schema import digest, validate

__all__ = ["add_notes", "append", "choose_metric", "digest", "group_of", "is_one_axis",
           "long_table", "merge", "new_sweep", "notes_of", "validate"]


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


def group_of(ds: xr.Dataset) -> xr.DataArray:
    """Return each run's group, a readable label; runs of different groups are never pooled.

    A group is model × dataset × algorithm × learning_rate × ppo_epochs; parts that are unknown
    (or, for ppo_epochs, 1) are left out of the label. Where every batch size has one learning
    rate, that it changes with the batch is a rule and makes no groups
    (`cbsbayes.sweep.learning_rate`).

    Returns
    -------
    xarray.DataArray
        Text, dims run.
    """
    known = np.isfinite(ds["learning_rate"].values)
    settings = list(zip(ds["model"].values.tolist(), ds["dataset"].values.tolist(),
                        ds["algorithm"].values.tolist(), ds["ppo_epochs"].values.tolist(),
                        known.tolist(), strict=True))
    labels = np.full(ds.sizes["run"], "", dtype=object)
    for setting in dict.fromkeys(settings):
        alike = np.array([other == setting for other in settings])
        rule = learning_rate_rule(ds.isel(run=np.flatnonzero(alike)))
        for k in np.flatnonzero(alike):
            rate = f"lr {ds['learning_rate'].values[k]:g}" if known[k] else ""
            model, dataset, algorithm, epochs, _ = setting
            labels[k] = _label(model, dataset, algorithm, epochs, rule.label if rule else rate)
    return xr.DataArray(labels.astype(np.str_), dims="run", coords={"run": ds["run"]},
                        name="group")


def _label(model: str, dataset: str, algorithm: str, epochs: int, rate: str) -> str:
    parts = [model, dataset, algorithm, rate, f"{epochs} epochs" if epochs > 1 else ""]
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
