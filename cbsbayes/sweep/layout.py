"""From runs to dense arrays in optimizer updates: curves, crossings and gradient noise.

An evaluation at trainer step k lies at update k × ``updates_per_step``. All runs share the sorted
union of positions; NaN says that a run has nothing there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.attempts import Run
from cbsbayes.logs.history import column, listed
from cbsbayes.logs.keys import canonical_key
from cbsbayes.sweep.build import Content, clean_text, noise_name
from cbsbayes.sweep.training_metrics import signal_fraction, step_seconds, training_means
from cbsbayes.sweep.validation_metric import MetricPlan, choose_metric, series_values

__all__ = ["lay_out_crossings", "lay_out_curves", "lay_out_noise", "scatter"]

Part = tuple[tuple[int, ...], np.ndarray, np.ndarray]
"""Where a series belongs (leading indices), its positions on the axis, its values."""

type Columns = dict[str, Sequence[float]]


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
    axis = np.unique(np.concatenate([part[1] for part in parts])) if parts else np.empty(0)
    values = np.full((*shape, axis.size), np.nan)
    for index, where, what in parts:
        values[index][np.searchsorted(axis, where)] = what
    return axis, values


def lay_out_curves(
    runs: list[Run], ids: Sequence[str], metric: str | None, direction: str
) -> tuple[list[Run], Columns, Content, list[str]]:
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
    runs : list of Run
    columns : dict
        What was measured, by variable, a value per run.
    content : Content
        The curves.
    notes : list of str

    Raises
    ------
    CBSDataError
        If no metric is clear, a value is impossible, or a validation set has two sizes.
    """
    histories = [run.log.history for run in runs]
    plan = choose_metric(dict(zip(ids, histories, strict=True)), metric)
    parts, notes = _evaluations(runs, ids, plan, direction)
    step, accuracy = scatter(parts, (len(runs), len(plan.series)))
    labels = [series.label for series in plan.series]
    evaluated = ~np.isnan(accuracy[:, labels.index(plan.default)])
    runs, missing = _without_metric(runs, ids, plan.default, evaluated.any(axis=1))
    updates = [run.coords["updates_per_step"] for run in runs]
    columns: Columns = {
        "first_step": [history.index[history.index >= 0].to_numpy().min(initial=np.inf) * n
                       for history, n in zip(histories, updates, strict=True)],
        "last_step": [step[row].max(initial=-np.inf) for row in evaluated],
        "step_time": [step_seconds(history) for history in histories],
        **training_means(histories, updates)}
    signal = [signal_fraction(history) for history in histories]
    if not np.isnan(signal).all():
        columns["signal_fraction"] = signal
    columns = {name: [v if np.isfinite(v) else np.nan for v in values]
               for name, values in columns.items()}
    content = Content(
        accuracy=accuracy, step=step, metric=[clean_text(label) for label in labels],
        n_items=_n_items(runs, labels, plan.default), default_metric=clean_text(plan.default))
    return runs, columns, content, [*plan.notes, *notes, *missing]


def _evaluations(
    runs: Sequence[Run], ids: Sequence[str], plan: MetricPlan, direction: str
) -> tuple[list[Part], list[str]]:
    parts: list[Part] = []
    notes = []
    peaks: dict[str, dict[str, float]] = defaultdict(dict)
    for i, (run, name) in enumerate(zip(runs, ids, strict=True)):
        for j, series in enumerate(plan.series):
            steps, values = series_values(run.log.history, series)
            good = np.isfinite(values) & (steps >= 0)
            if not good.all():
                notes.append(f"run {name}: {int((~good).sum())} evaluation(s) of {series.label} "
                             "left out, infinite or at a negative step")
            steps, values = steps[good], values[good]
            peaks[series.label][name] = float(values.max(initial=0.0))
            outside = (values < 0) | (values > 1)
            if (series.checked and direction == "increasing" and run.log.source != "table"
                    and outside.any()):
                raise CBSDataError(
                    f"run {name}: {series.label} is {values[outside][0]:g} at trainer step "
                    f"{steps[outside][0]:g}; verl's acc lies in [0, 1]; choose another with "
                    "--metric, or give the curves as a table if this is another target")
            if steps.size:
                parts.append(((i, j), steps * run.coords["updates_per_step"], values))
    return parts, [*notes, *_percent_notes(peaks)]


def _percent_notes(peaks: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Say which runs look as if they were in percent, where the others are not."""
    notes = []
    for label, by_run in peaks.items():
        odd = [name for name, peak in by_run.items() if 2 < peak <= 100]
        if odd and any(0 < peak <= 1 for peak in by_run.values()):
            notes.append(f"{label} exceeds 1 in {len(odd)} of {len(by_run)} runs, as if in "
                         f"percent ({listed(odd)}); the others lie in [0, 1]: divide them by 100")
    return notes


def _without_metric(
    runs: Sequence[Run], ids: Sequence[str], label: str, has_metric: np.ndarray
) -> tuple[list[Run], list[str]]:
    missing = [name for name, has in zip(ids, has_metric, strict=True) if not has]
    said = f"no evaluation of {label}; it is not fitted"
    kept = [run if has else replace(run, usable=False,
                                    remark="; ".join(filter(None, [run.remark, said])))
            for run, has in zip(runs, has_metric, strict=True)]
    notes = [f"{len(missing)} of {len(kept)} runs not fitted, without an evaluation of {label}: "
             f"{listed(missing, 20)}; another metric may be chosen with --metric"]
    return kept, notes if missing else []


def _n_items(runs: Sequence[Run], labels: Sequence[str], default: str) -> list[int]:
    """Return the items of each validation set; a bare number speaks of the default one."""
    found: dict[str, tuple[int, str]] = {}
    for run in runs:
        stated = {**run.log.settings, **run.log.stated}.get(
            "n_items", _configured_items(run.log.config))
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


def lay_out_noise(runs: Sequence[Run]) -> tuple[Content, list[str]]:
    """Lay out the measured gradient noise on one axis of updates.

    Returns
    -------
    content : Content
        ``noise`` and ``train_step``; empty where nothing was measured.
    notes : list of str
    """
    parts: dict[str, list[Part]] = defaultdict(list)
    for i, run in enumerate(runs):
        steps = run.log.history.index.to_numpy(np.float64) * run.coords["updates_per_step"]
        for logged in run.log.history.columns:
            key = canonical_key(str(logged))
            if key.startswith("grad_noise/"):
                values = column(run.log.history, logged)
                good = np.isfinite(values) & (steps >= 0)
                parts[key].append(((i,), steps[good], values[good]))
    keys: dict[str, str] = {}
    notes = []
    for key in sorted(parts):
        kept = keys.setdefault(noise_name(key), key)
        if kept != key:
            notes.append(f"{key} was left out: it would have the same name as {kept}")
    if not keys:
        return Content(), notes
    axis = np.unique(np.concatenate([part[1] for key in keys.values() for part in parts[key]]))
    # An empty series over the whole axis gives every key the same one.
    noise = {key: scatter([((0,), axis, np.full(axis.size, np.nan)), *parts[key]], (len(runs),))[1]
             for key in keys.values()}
    return Content(noise=noise, train_step=axis), notes


def lay_out_crossings(runs: Sequence[Run], direction: str) -> tuple[Columns, Content]:
    """Lay out tables of crossings on the sorted union of their thresholds.

    Raises
    ------
    CBSDataError
        If some runs are curves.
    """
    curves = [run.log.name for run in runs if run.log.crossings is None]
    if curves:
        raise CBSDataError(f"{len(curves)} of {len(runs)} runs are curves ({listed(curves, 3)}), "
                           "the others crossings; ingest them into two files")
    tables = [run.log.crossings for run in runs if run.log.crossings is not None]
    shape = (len(runs),)
    threshold, lower, upper = (
        scatter([((i,), table["threshold"].to_numpy(np.float64), table[name].to_numpy(np.float64))
                 for i, table in enumerate(tables)], shape)[which]
        for which, name in ((0, "threshold"), (1, "steps_lower"), (1, "steps_upper")))
    known = np.stack([np.where(np.isfinite(b), b, 0.0) for b in (lower, upper)]).max(axis=(0, 2))
    last = np.where(known > 0, known, np.nan)
    return {"last_step": last.tolist()}, Content(threshold=threshold, steps_lower=lower,
                                                 steps_upper=upper)
