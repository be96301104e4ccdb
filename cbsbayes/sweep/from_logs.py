"""From the records of any source to the sweep dataset, with every decision written down.

In this order: coordinates of each log (`cbsbayes.sweep.run_settings`), copies and attempts
(`cbsbayes.logs.attempts`), unique ids, the validation metric (`cbsbayes.sweep.metrics`), dense
arrays in optimizer updates: an evaluation at trainer step k lies at update k ×
``updates_per_step``, and all runs share the sorted union of positions. What was left out, mended or
chosen becomes a note of the dataset and, where it concerns one run, its remark.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError, listed
from cbsbayes.logs.attempts import Run, drop_copies, join_attempts
from cbsbayes.logs.run_config import lookup, trainer_of
from cbsbayes.logs.run_log import RUN_COLUMNS, RunLog, column
from cbsbayes.sweep.dataset import Content, clean_text, new_sweep, noise_name
from cbsbayes.sweep.metrics import (
    LEFT_OUT,
    Series,
    plan_metrics,
    series_values,
    squared_norms,
    step_seconds,
    training_means,
)
from cbsbayes.sweep.run_settings import run_settings

__all__ = ["build_sweep"]

_MOST_CELLS = 2**23  # values of a dense array of curves; 64 MiB
_ROUNDING = 1e-6  # an accuracy in float32 may lie so far outside [0, 1]

type _Part = tuple[tuple[int, ...], np.ndarray, np.ndarray]  # indices, positions, values


def build_sweep(
    records: Iterable[RunLog], *, metric: str | None = None, history: str = ""
) -> xr.Dataset:
    """Build the sweep dataset from the records of one or several sources.

    Parameters
    ----------
    records : iterable of RunLog
        Curves or crossings, not both.
    metric : str, optional
        The validation metric: a whole key, a set's name or a part of one; chosen if left out.
    history : str
        How the dataset was made, for its attribute ``history``.

    Returns
    -------
    xarray.Dataset
        A valid sweep (`cbsbayes.sweep.schema`), runs ordered by phase, batch and seed.

    Raises
    ------
    CBSDataError
        If there is no run with a known batch, curves and crossings are mixed, or no validation
        metric is clear.
    """
    runs, notes = _read_settings(list(records))
    runs, copies = drop_copies(runs)
    runs, unknown = _with_batch(runs, notes)
    runs, joined = join_attempts(runs)
    runs = sorted(runs, key=_order)
    ids, shared = _unique_ids(runs)
    notes += [*unknown, *_log_notes(runs), *copies, *joined, *shared]
    direction = _direction(runs)
    if any(run.log.crossings is not None for run in runs):
        columns, content = _lay_out_crossings(runs)
    else:
        columns, content, said = _lay_out_curves(runs, ids, metric, direction)
        noise, left_out = _lay_out_noise(runs)
        content |= noise
        notes += [*said, *left_out]
    rows = [{"name": run.log.name, "state": run.log.state, "source": run.log.source,
             "attempts": run.attempts, "usable": run.usable, "remark": run.remark, **run.coords}
            for run in runs]
    settings = {name: [row[name] for row in rows] for name, column in RUN_COLUMNS.items()
                if column.always or any(column.known(row[name]) for row in rows)}
    content |= {"direction": direction, "history": history,
                "notes": list(dict.fromkeys(map(clean_text, notes)))}
    ds = new_sweep({"run": ids, **settings, **columns}, **content)
    ds["step_time"].attrs["comment"] = LEFT_OUT
    return ds


def _read_settings(records: Sequence[RunLog]) -> tuple[list[Run], list[str]]:
    """Read every log's coordinates; a log with an impossible number is named and left out."""
    if not records:
        raise CBSDataError("no runs were read; give a folder, file or project that holds some")
    runs, notes, faults = [], [], []
    for log in records:
        try:
            coords, said = run_settings(log)
        except CBSDataError as error:
            faults.append(str(error))
            continue
        notes += said
        remark = "; ".join(text.removeprefix(f"run {log.name}: ") for text in said)
        runs.append(Run(log, coords, remark=remark))
    if not runs:
        raise CBSDataError(faults[0])
    return runs, [*notes, *(f"left out: {fault}" for fault in faults)]


def _with_batch(runs: Sequence[Run], faults: Sequence[str]) -> tuple[list[Run], list[str]]:
    """Return the runs whose batch is known, and a note on the others."""
    kept = [run for run in runs if run.coords]
    unknown = [run.log.name or run.log.id for run in runs if not run.coords]
    asked = [f"; {trainer.name} does not log {', '.join(missing)}"
             for run in runs if not run.coords for origin in run.log.settings
             if (trainer := trainer_of(origin.values))
             and (missing := trainer.missing(origin.values))]
    why = "".join(dict.fromkeys(asked))
    if not kept:
        left_out = "".join(f"; {text}" for text in faults if text.startswith("left out: "))
        raise CBSDataError(
            f"no batch size was found for any of {len(runs)} runs ({listed(unknown)}), neither "
            "in what they log, in a configuration nor in a name like "
            f"cbs_p1_model_data_np128_nr8{why}{left_out}; state it in a table (--runs: columns "
            "run, n_prompts, n_rollouts, seed) or in a <name>.config.yaml beside the log, or pass "
            "--config")
    return kept, [f"runs left out: {len(unknown)}, no batch size in settings, configuration "
                  f"or name: {listed(unknown, len(unknown))}{why}"] if unknown else []


def _order(run: Run) -> tuple[Any, ...]:
    c = run.coords
    return (c["model"], c["dataset"], c["phase"], c["total_batch"], c["n_prompts"],
            c["n_rollouts"], c["seed"], run.log.name, run.log.created, run.log.id)


def _unique_ids(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """Make ids from names; the second run of a name becomes ``name#2``."""
    names = [clean_text(run.log.name or run.log.id or "run") for run in runs]
    ids: dict[str, str] = {}
    for name in names:
        number, own = 1, name
        while own in ids:
            number += 1
            own = f"{name}#{number}"
        ids[own] = name
    notes = [f"{count} runs are called {name}; they are kept apart as replicates with the ids "
             f"{listed(own for own, of in ids.items() if of == name)}"
             for name, count in Counter(names).items() if count > 1]
    return list(ids), notes


def _log_notes(runs: Sequence[Run]) -> list[str]:
    """Gather what the readers had to mend; runs with the same note share a sentence."""
    names = defaultdict(list)
    for run in runs:
        for note in run.log.notes:
            names[note].append(run.log.name)
    return [f"run {who[0]}: {note}" if len(who) == 1 else f"{len(who)} runs ({listed(who)}): {note}"
            for note, who in names.items()]


def _stated(run: Run, *keys: str) -> Any:
    """Return what the first origin of a run's settings says of a key, None where none does."""
    return next((value for key in keys for origin in run.log.settings
                 if (value := lookup(origin.values, key)) is not None), None)


def _direction(runs: Sequence[Run]) -> str:
    """Return the one direction that the sources state; increasing if none does."""
    stated = defaultdict(list)
    for run in runs:
        value = _stated(run, "direction")
        if isinstance(value, str) and value.strip():
            stated[value.strip().lower()].append(run.log.name)
    if len(stated) > 1 or not set(stated) <= {"increasing", "decreasing"}:
        got = ", ".join(f"{value!r} ({listed(who, 3)})" for value, who in sorted(stated.items()))
        raise CBSDataError(f"direction is {got}; valid, for all runs together: increasing "
                           "(accuracy) or decreasing (loss, error rate)")
    return next(iter(stated), "increasing")


def _lay_out_curves(
    runs: list[Run], ids: Sequence[str], metric: str | None, direction: str
) -> tuple[dict[str, Sequence[float]], Content, list[str]]:
    """Return what was measured per run, the curves and notes.

    In `runs`, those without the chosen metric become unusable.
    """
    histories = [run.log.history for run in runs]
    series, default, chosen = plan_metrics(dict(zip(ids, histories, strict=True)), metric)
    parts, notes = _evaluations(runs, ids, series, direction)
    labels = [one.label for one in series]
    step, accuracy, rounded = _scatter(parts, (len(runs), len(labels)))
    evaluated = ~np.isnan(accuracy[:, labels.index(default)])
    if not evaluated.any():
        raise CBSDataError("; ".join(notes) or f"no run has an evaluation of {default}")
    missing = np.flatnonzero(~evaluated.any(axis=1)).tolist()
    for i in missing:
        said = f"no evaluation of {default}; it is not fitted"
        remark = "; ".join(filter(None, [runs[i].remark, said]))
        runs[i] = replace(runs[i], usable=False, remark=remark)
    if missing:
        notes.append(f"{len(missing)} of {len(runs)} runs not fitted, without an evaluation of "
                     f"{default}: {listed([ids[i] for i in missing], 20)}; another metric may be "
                     "chosen with --metric")
    updates = [run.coords["updates_per_step"] for run in runs]
    columns: dict[str, Sequence[float]] = {
        "first_step": [history.index[history.index >= 0].min() * n
                       for history, n in zip(histories, updates, strict=True)],
        "last_step": [step[row].max() if row.any() else np.nan for row in evaluated],
        "step_time": [step_seconds(history) for history in histories],
        **training_means(histories, updates)}
    content = Content(
        accuracy=accuracy, step=step, metric=labels,
        n_items=_n_items(runs, labels, default), default_metric=clean_text(default))
    norms = np.array([squared_norms(history, n, np.where(row, step, np.nan))
                      for history, n, row in zip(histories, updates, evaluated, strict=True)])
    if np.isfinite(norms).any():
        content["grad_norm_sq"] = norms
    return columns, content, [*chosen, *notes, *rounded]


def _evaluations(
    runs: Sequence[Run], ids: Sequence[str], series: Sequence[Series], direction: str
) -> tuple[list[_Part], list[str]]:
    parts: list[_Part] = []
    notes = []
    for j, one in enumerate(series):
        curves: dict[str, np.ndarray] = {}
        for i, (run, name) in enumerate(zip(runs, ids, strict=True)):
            steps, values = series_values(run.log.history, one)
            good = np.isfinite(values) & (steps >= 0)
            if not good.all():
                notes.append(f"run {name}: evaluations of {one.label} "
                             f"left out: {int((~good).sum())}, infinite or at a negative step")
            steps, values = steps[good], values[good]
            outside = np.abs(values - 0.5) > 0.5 + _ROUNDING
            if (outside.any() and one.checked and direction == "increasing"
                    and run.log.source != "table"):
                notes.append(
                    f"run {name}: {one.label} is {values[outside][0]:g} at trainer step "
                    f"{steps[outside][0]:g}; verl's acc lies in [0, 1]: the run's curve is left "
                    "out; choose another with --metric, or give the curves as a table if this is "
                    "another target")
            elif steps.size:
                curves[name] = values
                parts.append(((i, j), steps * run.coords["updates_per_step"], values))
        notes += _scale_notes(one.label, curves) if direction == "increasing" else []
    return parts, notes


def _scale_notes(label: str, curves: Mapping[str, np.ndarray]) -> list[str]:
    """Say which runs leave [0, 1], where most values lie in it."""
    every = np.concatenate([*curves.values(), np.empty(0)])
    if not (every > 0).any() or np.mean((every < 0) | (every > 1)) > 0.5:
        return []
    percent = [name for name, values in curves.items() if values.max() > 2]
    outside = [name for name, values in curves.items()
               if name not in percent and (values.min() < 0 or values.max() > 1)]
    notes = []
    if percent:
        notes.append(f"{label} exceeds 1 in {len(percent)} of {len(curves)} runs, as if in percent "
                     f"({listed(percent)}), most evaluations lie in [0, 1]: divide by 100 what is")
    if outside:
        notes.append(f"{label} lies outside [0, 1] in {len(outside)} of {len(curves)} runs "
                     f"({listed(outside)}); correct it if it is an accuracy")
    return notes


def _scatter(
    parts: Sequence[_Part], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    r"""Lay ragged series out on the sorted union of their positions, dims (\*shape, position).

    Positions are rounded, as a note says, where their union would make the array too large.
    """
    positions = [at for _, at, _ in parts]
    axis = np.unique(np.concatenate([np.empty(0), *positions]))
    most, notes = _MOST_CELLS // max(math.prod(shape), 1), []
    if axis.size > most:
        width = float(axis[-1]) / max(most, 1000)
        power = 10.0 ** math.floor(math.log10(width))
        width = math.ceil(width / power) * power
        notes.append(f"the runs were evaluated at {axis.size} different updates; they are rounded "
                     f"to multiples of {width:g}")
        positions = [np.where(at > 0, np.maximum(np.round(at / width), 1) * width, at)
                     for at in positions]
        axis = np.unique(np.concatenate(positions))
    values = np.full((*shape, axis.size), np.nan)
    for (index, _, logged), at in zip(parts, positions, strict=True):
        values[index][np.searchsorted(axis, at)] = logged
    return axis, values, notes


def _n_items(runs: Sequence[Run], labels: Sequence[str], default: str) -> list[int]:
    """Return the items of each validation set; a bare number speaks of the default one."""
    found: dict[str, tuple[int, str]] = {}
    for run in runs:
        stated = _stated(run, "n_items", "cbs.validation_items")
        sizes = stated if isinstance(stated, Mapping) else {default: stated}
        for label, size in sizes.items():
            if not isinstance(size, int) or size < 1:
                continue
            known = found.setdefault(label, (size, run.log.name))
            if known[0] != size:
                raise CBSDataError(
                    f"{label} has {known[0]} items in run {known[1]} and {size} in run "
                    f"{run.log.name}; a validation set has one size, name them apart in "
                    "column 'metric'")
    return [found.get(label, (-1, ""))[0] for label in labels]


def _lay_out_noise(runs: Sequence[Run]) -> tuple[Content, list[str]]:
    """Return the measured gradient noise on one axis of updates, and notes."""
    keys: dict[str, str] = {}
    notes = []
    for key in sorted({str(key) for run in runs for key in run.log.history.columns
                       if str(key).startswith("grad_noise/")}):
        if keys.setdefault(noise_name(key), key) != key:
            notes.append(f"{key} was left out: it would have the same name as "
                         f"{keys[noise_name(key)]}")
    if not keys:
        return Content(), notes
    parts: list[_Part] = []
    for i, run in enumerate(runs):
        steps = run.log.history.index.to_numpy(np.float64) * run.coords["updates_per_step"]
        for j, key in enumerate(keys.values()):
            values = column(run.log.history, key)
            good = np.isfinite(values) & (steps >= 0)
            parts.append(((j, i), steps[good], values[good]))
    axis, noise, rounded = _scatter(parts, (len(keys), len(runs)))
    content = Content(noise=dict(zip(keys.values(), noise, strict=True)), train_step=axis)
    return content, [*notes, *rounded]


def _lay_out_crossings(runs: Sequence[Run]) -> tuple[dict[str, Sequence[float]], Content]:
    """Return the last known step of each run, and the tables on the union of their thresholds."""
    curves = [run.log.name for run in runs if run.log.crossings is None]
    if curves:
        raise CBSDataError(f"{len(curves)} of {len(runs)} runs are curves ({listed(curves, 3)}), "
                           "the others crossings; ingest them into two files")
    tables = {i: run.log.crossings.set_index("threshold") for i, run in enumerate(runs)
              if run.log.crossings is not None}
    lower, upper = (pd.concat(tables)[name].unstack() for name in ("steps_lower", "steps_upper"))
    known = pd.concat([lower, upper], axis=1)
    last = known.where(np.isfinite(known) & (known > 0)).max(axis=1)
    return {"last_step": last.tolist()}, Content(
        threshold=lower.columns, steps_lower=lower, steps_upper=upper)
