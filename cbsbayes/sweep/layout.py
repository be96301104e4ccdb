"""From runs to dense arrays in optimizer updates: curves, crossings and gradient noise.

An evaluation at trainer step k lies at update k × ``updates_per_step``. All runs share the sorted
union of positions; NaN says that a run has nothing there.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.attempts import Run
from cbsbayes.logs.history import listed
from cbsbayes.logs.keys import canonical_key
from cbsbayes.sweep.build import clean_text, noise_name
from cbsbayes.sweep.off_policy import off_policy_means
from cbsbayes.sweep.training_metrics import signal_fraction, step_seconds
from cbsbayes.sweep.validation_metric import (
    MetricPlan,
    choose_metric,
    series_values,
    validation_columns,
)

__all__ = ["lay_out_crossings", "lay_out_curves", "lay_out_noise", "scatter"]

Part = tuple[tuple[int, ...], np.ndarray, np.ndarray]
"""Where a series belongs (leading indices), its positions on the axis, its values."""


def scatter(parts: Sequence[Part], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    r"""Lay ragged series out on the sorted union of their positions.

    Parameters
    ----------
    parts : sequence of (index, positions, values)
        Leading indices into `shape`, then two 1-D arrays of one length.
    shape : tuple of int
        Leading dims of the result.

    Returns
    -------
    axis : ndarray of float64
        Dims (position,), sorted and unique.
    values : ndarray of float64
        Dims (\*shape, position), NaN where nothing was given.
    """
    positions = [part[1] for part in parts]
    axis = np.unique(np.concatenate(positions)) if parts else np.empty(0)
    values = np.full((*shape, axis.size), np.nan)
    for index, where, what in parts:
        values[index][np.searchsorted(axis, where)] = what
    return axis, values


def lay_out_curves(
    runs: list[Run], ids: Sequence[str], metric: str | None, direction: str
) -> tuple[dict[str, Any], list[Run], list[str]]:
    """Lay out the validation curves; runs without the chosen metric become unusable.

    Parameters
    ----------
    runs : list of Run
    ids : sequence of str
        Their unique ids, for messages.
    metric : str or None
        What the user asks for.
    direction : str
        ``increasing`` or ``decreasing``.

    Returns
    -------
    content : dict
        Arguments of `cbsbayes.sweep.build.new_sweep`, and under ``runs`` columns by run.
    runs : list of Run
    notes : list of str

    Raises
    ------
    CBSDataError
        If no metric is clear, a value is impossible, or a validation set has two sizes.
    """
    plan = choose_metric({name: _columns(run.log.history)
                          for name, run in zip(ids, runs, strict=True)}, metric)
    parts, notes = _evaluations(runs, ids, plan, direction)
    step, accuracy = scatter(parts, (len(runs), len(plan.series)))
    labels = [clean_text(series.label) for series in plan.series]
    default = [series.label for series in plan.series].index(plan.default)
    evaluated = ~np.isnan(accuracy[:, default])
    runs, missing = _without_metric(runs, ids, plan.default, evaluated.any(axis=1))
    last = np.array([step[np.flatnonzero(row)[-1]] if row.any() else np.nan for row in evaluated])
    histories = [run.log.history for run in runs]
    own = {"first_step": [_first_step(run) for run in runs], "last_step": last,
           "step_time": [step_seconds(history) for history in histories]}
    signal = [signal_fraction(history) for history in histories]
    if not np.isnan(signal).all():
        own["signal_fraction"] = signal
    own |= off_policy_means(histories, [run.coords["updates_per_step"] for run in runs])
    content = {"runs": own, "accuracy": accuracy, "step": step, "metric": labels,
               "n_items": _n_items(runs, [s.label for s in plan.series], plan.default),
               "default_metric": labels[default]}
    return content, runs, [*plan.notes, *notes, *missing]


def _columns(history: pd.DataFrame) -> list[str]:
    """Return the columns that hold a number (training columns are taken at their word)."""
    validation = validation_columns(history.columns)
    empty = {key for key in validation if np.isnan(history[key].to_numpy(np.float64)).all()}
    return [str(key) for key in history.columns if key not in empty]


def _evaluations(
    runs: Sequence[Run], ids: Sequence[str], plan: MetricPlan, direction: str
) -> tuple[list[Part], list[str]]:
    parts: list[Part] = []
    notes = []
    for i, (run, name) in enumerate(zip(runs, ids, strict=True)):
        for j, series in enumerate(plan.series):
            steps, values = series_values(run.log.history, series)
            good = np.isfinite(values) & (steps >= 0)
            if not good.all():
                notes.append(f"run {name}: {int((~good).sum())} evaluation(s) of {series.label} "
                             "left out, infinite or at a negative step")
            steps, values = steps[good], values[good]
            outside = (values < 0) | (values > 1)
            if (series.checked and direction == "increasing" and run.log.source != "table"
                    and outside.any()):
                raise CBSDataError(
                    f"run {name}: {series.label} is {values[outside][0]:g} at trainer step "
                    f"{steps[outside][0]:g}; verl's acc lies in [0, 1]; choose another with "
                    "--metric, or give the curves as a table if this is another target")
            if steps.size:
                parts.append(((i, j), steps * run.coords["updates_per_step"], values))
    return parts, notes


def _without_metric(
    runs: Sequence[Run], ids: Sequence[str], label: str, has_metric: np.ndarray
) -> tuple[list[Run], list[str]]:
    kept, missing = [], []
    for run, name, has in zip(runs, ids, has_metric, strict=True):
        if not has:
            missing.append(name)
            said = f"no evaluation of {label}; it is not fitted"
            run = replace(run, usable=False, remark="; ".join(filter(None, [run.remark, said])))
        kept.append(run)
    notes = [f"{len(missing)} of {len(kept)} runs not fitted, without an evaluation of {label}: "
             f"{listed(missing, 20)}; another metric may be chosen with --metric"]
    return kept, notes if missing else []


def _first_step(run: Run) -> float:
    steps = run.log.history.index.to_numpy(np.float64)
    steps = steps[steps >= 0]
    return float(steps.min()) * run.coords["updates_per_step"] if steps.size else math.nan


def _n_items(runs: Sequence[Run], labels: Sequence[str], default: str) -> list[int]:
    """Return the items of each validation set; a bare number speaks of the default one."""
    found: dict[str, tuple[int, str]] = {}
    for run in runs:
        stated = run.log.settings.get("n_items", _configured_items(run.log.config))
        sizes = stated if isinstance(stated, dict) else {} if stated is None else {default: stated}
        for label, size in sizes.items():
            known = found.setdefault(label, (int(size), run.log.name))
            if known[0] != int(size):
                raise CBSDataError(
                    f"{label} has {known[0]} items in run {known[1]} and {int(size)} in run "
                    f"{run.log.name}; a validation set has one size, name them apart in "
                    "column 'metric'")
    return [found.get(label, (-1, ""))[0] for label in labels]


def _configured_items(config: Mapping[str, Any]) -> dict[str, int] | None:
    """Return what `training` notes in a run's configuration; None where it says nothing."""
    own = config.get("cbs")
    items = own.get("validation_items") if isinstance(own, Mapping) else None
    if not isinstance(items, Mapping):
        return None
    return {str(key): size for key, size in items.items() if isinstance(size, int) and size > 0}


def lay_out_noise(runs: Sequence[Run]) -> tuple[dict[str, Any], list[str]]:
    """Lay out the measured gradient noise on one axis of updates.

    Returns
    -------
    content : dict
        ``noise`` (source key to an array, dims (run, train_step)) and ``train_step``; empty where
        nothing was measured.
    notes : list of str
    """
    parts: dict[str, list[Part]] = defaultdict(list)
    for i, run in enumerate(runs):
        steps = run.log.history.index.to_numpy(np.float64) * run.coords["updates_per_step"]
        for column in run.log.history.columns:
            key = canonical_key(str(column))
            if key.startswith("grad_noise/"):
                values = run.log.history[column].to_numpy(np.float64)
                good = np.isfinite(values) & (steps >= 0)
                parts[key].append(((i,), steps[good], values[good]))
    keys: dict[str, str] = {}
    notes = []
    for key in sorted(parts):
        kept = keys.setdefault(noise_name(key), key)
        if kept != key:
            notes.append(f"{key} was left out: it would have the same name as {kept}")
    if not keys:
        return {}, notes
    axis = np.unique(np.concatenate([part[1] for key in keys.values() for part in parts[key]]))
    # An empty series over the whole axis gives every key the same one.
    noise = {key: scatter([((0,), axis, np.full(axis.size, np.nan)), *parts[key]], (len(runs),))[1]
             for key in keys.values()}
    return {"noise": noise, "train_step": axis}, notes


def lay_out_crossings(runs: Sequence[Run]) -> dict[str, Any]:
    """Lay out tables of crossings on the sorted union of their thresholds.

    Returns
    -------
    dict
        ``steps_lower, steps_upper`` (dims (run, threshold), updates), ``threshold``, and under
        ``runs`` columns by run.

    Raises
    ------
    CBSDataError
        If some runs are curves.
    """
    curves = [run.log.name for run in runs if run.log.crossings is None]
    if curves:
        raise CBSDataError(f"{len(curves)} of {len(runs)} runs are curves ({listed(curves, 3)}), "
                           "the others crossings; ingest them into two files")
    tables = [run.log.crossings for run in runs]
    bounds = {}
    for name in ("steps_lower", "steps_upper"):
        parts = [((i,), table["threshold"].to_numpy(np.float64), table[name].to_numpy(np.float64))
                 for i, table in enumerate(tables) if table is not None]
        threshold, bounds[name] = scatter(parts, (len(runs),))
    known = np.stack([np.where(np.isfinite(b), b, 0.0) for b in bounds.values()]).max(axis=(0, 2))
    last = np.where(known > 0, known, np.nan)
    return {"runs": {"last_step": last}, "threshold": threshold, **bounds}
