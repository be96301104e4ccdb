"""From the records of any source to the sweep dataset, with every decision written down.

In this order: coordinates of each log (`cbsbayes.sweep.run_settings`), copies and attempts
(`cbsbayes.logs`), unique ids, the validation metric (`cbsbayes.sweep.validation_metric`),
dense arrays in optimizer updates (`cbsbayes.sweep.layout`). What was left out, mended or chosen
becomes a note of the dataset and, where it concerns one run, its remark.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.attempts import Run, join_attempts
from cbsbayes.logs.copies import drop_copies
from cbsbayes.logs.history import listed
from cbsbayes.logs.run_columns import RUN_COLUMNS
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.trainers import trainer_of
from cbsbayes.sweep.build import Content, clean_text, new_sweep
from cbsbayes.sweep.layout import lay_out_crossings, lay_out_curves, lay_out_noise
from cbsbayes.sweep.run_settings import run_settings
from cbsbayes.sweep.training_metrics import LEFT_OUT

__all__ = ["build_sweep"]


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
        columns, content = lay_out_crossings(runs, direction)
    else:
        runs, columns, content, said = lay_out_curves(runs, ids, metric, direction)
        noise, left_out = lay_out_noise(runs)
        content |= noise
        notes += [*said, *left_out]
    table = pd.DataFrame([_row(run, name) for run, name in zip(runs, ids, strict=True)])
    empty = [name for name, column in RUN_COLUMNS.items() if not column.always
             and (table[name] == column.default).all()]
    about = Content(direction=direction, history=history,
                    notes=list(dict.fromkeys(map(clean_text, notes))),
                    extra_attrs={"step_time": {"comment": LEFT_OUT}})
    return new_sweep(table.drop(columns=empty).assign(**columns), **(content | about))


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
    asked = [f"{trainer.name} does not log {', '.join(missing)}"
             for run in runs if not run.coords and (trainer := trainer_of(run.log.config))
             and (missing := trainer.missing(run.log.config))]
    why = "".join(f"; {text}" for text in dict.fromkeys(asked))
    if not kept:
        left_out = "".join(f"; {text}" for text in faults if text.startswith("left out: "))
        raise CBSDataError(
            f"no batch size was found for any of {len(runs)} runs ({listed(unknown)}), neither "
            "in what they log, in a configuration nor in a name like "
            f"cbs_p1_model_data_np128_nr8{why}{left_out}; state it in a table (--runs: columns "
            "run, n_prompts, n_rollouts, seed) or in a <name>.config.yaml beside the log, or pass "
            "--config")
    if not unknown:
        return kept, []
    return kept, [f"{len(unknown)} run(s) left out, no batch size in settings, configuration "
                  f"or name: {listed(unknown, len(unknown))}{why}"]


def _order(run: Run) -> tuple[Any, ...]:
    c = run.coords
    return (c["model"], c["dataset"], c["phase"], c["total_batch"], c["n_prompts"],
            c["n_rollouts"], c["seed"], run.log.name, run.log.created, run.log.id)


def _unique_ids(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """Make ids from names; the second run of a name becomes ``name#2``."""
    names = [clean_text(run.log.name or run.log.id or "run") for run in runs]
    counts = Counter(names)
    seen: Counter[str] = Counter()
    ids: dict[str, str] = {}
    for name in names:
        seen[name] += 1
        own = name if seen[name] == 1 else f"{name}#{seen[name]}"
        while own in ids:
            seen[name] += 1
            own = f"{name}#{seen[name]}"
        ids[own] = name
    notes = [f"{count} runs are called {name}; they are kept apart as replicates with the ids "
             f"{listed(own for own, of in ids.items() if of == name)}"
             for name, count in counts.items() if count > 1]
    return list(ids), notes


def _log_notes(runs: Sequence[Run]) -> list[str]:
    """Gather what the readers had to mend; runs with the same note share a sentence."""
    names = defaultdict(list)
    for run in runs:
        for note in run.log.notes:
            names[note].append(run.log.name)
    return [f"run {who[0]}: {note}" if len(who) == 1 else f"{len(who)} runs ({listed(who)}): {note}"
            for note, who in names.items()]


def _direction(runs: Sequence[Run]) -> str:
    """Return the one direction that the sources state; increasing if none does."""
    stated = defaultdict(list)
    for run in runs:
        value = run.log.settings.get("direction")
        if isinstance(value, str) and value.strip():
            stated[value.strip().lower()].append(run.log.name)
    if len(stated) > 1 or not set(stated) <= {"increasing", "decreasing"}:
        got = ", ".join(f"{value!r} ({listed(who, 3)})" for value, who in sorted(stated.items()))
        raise CBSDataError(f"direction is {got}; valid, for all runs together: increasing "
                           "(accuracy) or decreasing (loss, error rate)")
    return next(iter(stated), "increasing")


def _row(run: Run, name: str) -> dict[str, Any]:
    log = run.log
    row = {"run": name, "name": log.name, "state": log.state, "source": log.source,
           "attempts": run.attempts, "usable": int(run.usable), "remark": run.remark,
           **run.coords}
    return {key: clean_text(value) if isinstance(value, str) else value
            for key, value in row.items()}
