"""Tables of a user: curves, crossings, and histories of one run as other tools export them.

A table of curves has a row per run, step and validation set: ``run, step, accuracy`` and a batch
(``n_prompts, n_rollouts``, or ``total_batch`` for one-axis data); optional ``metric, n_items,
seconds_per_step``, ``signal_fraction`` or ``frac_zero_adv``, ``direction`` and whatever
`cbsbayes.logs.run_columns` lets a user state. A table of crossings has ``run, threshold``, a batch,
and ``steps`` or ``steps_lower, steps_upper``: the last evaluation below the threshold (0: it was
passed at the first one) and the first at or above it (``inf``: never reached).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.columns import PER_RUN, Table, load_table
from cbsbayes.logs.history import NoRunsError, empty_history, history_from_rows
from cbsbayes.logs.keys import validation_key
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.run_name import run_name

__all__ = ["is_crossings", "logs_of", "read_crossings", "read_curves", "read_runs",
           "read_table"]

_CURVES = ("run", "step", "accuracy", "metric", "n_items", "seconds_per_step", "signal_fraction",
           "frac_zero_adv", *PER_RUN)
_CROSSINGS = ("run", "threshold", "steps", "steps_lower", "steps_upper", *PER_RUN)
_STEPS = ("_step", "step", "Step", "global_step", "train/global_step", "training/global_step")
_RANGES = ("__MIN", "__MAX")  # of a wandb chart's export


def read_table(path: Path, root: Path) -> tuple[list[RunLog], list[str]]:
    """Read the runs of a table, whatever kind its columns make it.

    Parameters
    ----------
    path : Path
        A CSV, TSV or Parquet file.
    root : Path
        The folder given by the user.

    Returns
    -------
    logs : list of RunLog
        One per run, in order of appearance.
    notes : list of str
        Columns that nothing reads, rows written twice.

    Raises
    ------
    NoRunsError
        Where the file holds no table of runs.
    CBSDataError
        Where a cell is impossible, a per-run column changes within a run, or two rows give one
        evaluation or crossing different values.
    """
    return logs_of(load_table(path), path, root)


def logs_of(table: Table, path: Path, root: Path) -> tuple[list[RunLog], list[str]]:
    """Return the runs of a table in memory; see `read_table`."""
    if any(table.has(name) for name in ("run", "accuracy", "n_prompts", "total_batch")):
        return read_crossings(table) if is_crossings(table) else read_curves(table)
    steps = next(filter(table.has, _STEPS), None)
    if steps is None:
        table.require(("run", "step", "accuracy"), "a table of curves")
        raise NoRunsError(f"{table.origin} has no column of steps ({', '.join(_STEPS)})")
    columns = [str(name) for name in table.frame.columns if not str(name).endswith(_RANGES)]
    chart = [tuple(name.rsplit(" - ", 1)) for name in columns if " - " in name]
    if chart:
        parts = {run: {f"{run} - {key}": key for name, key in chart if name == run}
                 for run, _ in chart}
    else:
        alone = {"Wall time", "Step", "Value"} == set(columns)
        keys = {name: validation_key("value") if alone and name == "Value" else name
                for name in columns if name and name not in (steps, "Wall time")
                and not name.startswith(("_", "Unnamed"))}
        parts = {run_name(path, root): keys}
    ident = path.relative_to(root).as_posix()
    logs = [_history_log(table, steps, keys, name, f"{ident}#{name}" if chart else ident)
            for name, keys in parts.items()]
    if all(log.history.empty for log in logs):
        raise NoRunsError(f"{table.origin} holds no metric of numbers beside {steps}")
    return logs, []


def _history_log(table: Table, steps: str, keys: dict[str, str], name: str, ident: str) -> RunLog:
    step = table.numbers(steps)
    values = {}
    for column, key in keys.items():
        try:
            values[key] = table.numbers(column)
        except CBSDataError:  # text, lists and media are no metrics
            continue
    good = np.isfinite(step) & (step >= 0)
    rows = [(float(step[i]), {key: float(column[i]) for key, column in values.items()
                              if not math.isnan(column[i])}) for i in np.flatnonzero(good)]
    history, notes = history_from_rows([row for row in rows if row[1]])
    return RunLog(id=ident, name=name, source="history", history=history, notes=tuple(notes))


def read_curves(table: Table) -> tuple[list[RunLog], list[str]]:
    """Read the runs of a table of curves; the set m is logged under ``val-core/m/acc/mean@1``."""
    table.require(("run", "step", "accuracy"), "a table of curves")
    runs, codes = table.runs()
    step, accuracy = table.numbers("step"), table.numbers("accuracy")
    table.check("step", step, np.isfinite(step) & (step >= 0), "a finite number from 0")
    table.check("accuracy", accuracy, ~np.isinf(accuracy), "finite, or blank where not evaluated")
    metric = table.texts("metric") if table.has("metric") else [""] * len(codes)
    rows = pd.DataFrame({"run": [runs[code] for code in codes],
                         "metric": [name or "accuracy" for name in metric],
                         "step": step, "accuracy": accuracy, **_extras(table)})
    values = [*rows.columns[3:]]
    cells = rows.groupby(["run", "metric", "step"])["accuracy"]
    conflict = cells.nunique() > 1
    if conflict.any():
        run, name, at = place = conflict.index[int(conflict.argmax())]
        got = ", ".join(f"{value:g}" for value in cells.get_group(place).dropna())
        raise CBSDataError(
            f"{table.origin}: run {run!r} has several accuracies ({got}) for {name!r} at step "
            f"{at:g}; give every run an id of its own in column 'run'")
    repeated = int(rows.duplicated(["run", "metric", "step"]).sum())
    notes = [f"{table.origin}: {repeated} row(s) written twice were counted once"]
    items = _items(table, rows)
    logs = []
    for settings, (run, own) in zip(table.settings(), rows.groupby("run", sort=False), strict=True):
        history, _ = history_from_rows(
            (at, {validation_key(name) if key == "accuracy" else key: value
                  for key, value in zip(values, logged, strict=True)})
            for at, name, logged in zip(own["step"], own["metric"], own[values].to_numpy(),
                                        strict=True))
        name = str(run)
        sized = {"n_items": items[name]} if name in items else {}
        logs.append(RunLog(id=name, name=name, source="table", history=history,
                           settings={**settings, **sized}))
    return logs, [*table.unused(_CURVES), *(notes if repeated else [])]


def _items(table: Table, rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return the items of each metric by run, for runs that state them."""
    items: dict[str, dict[str, int]] = {}
    if not table.has("n_items"):
        return items
    values = table.numbers("n_items")
    values = np.where(values == -1, np.nan, values)  # unknown in the dataset's own long table
    good = np.isnan(values) | ((values >= 1) & (np.mod(values, 1) == 0))
    table.check("n_items", values, good, "a whole number above 0")
    for run, metric, size in zip(rows["run"], rows["metric"], values, strict=True):
        if size > 0 and items.setdefault(run, {}).setdefault(metric, int(size)) != size:
            raise CBSDataError(
                f"{table.origin}: run {run!r} has several values of n_items for {metric!r} "
                f"({items[run][metric]}, {size:g}); a validation set has one size")
    return items


def _extras(table: Table) -> dict[str, np.ndarray]:
    """Return per-step columns under the keys that logs use for them."""
    extras: dict[str, np.ndarray] = {}
    if table.has("seconds_per_step"):
        seconds = table.numbers("seconds_per_step")
        good = np.isnan(seconds) | ((seconds > 0) & np.isfinite(seconds))
        table.check("seconds_per_step", seconds, good, "a number above 0")
        extras["perf/time_per_step"] = seconds
    if table.has("signal_fraction", "frac_zero_adv"):
        raise CBSDataError(f"{table.origin} has both signal_fraction and frac_zero_adv "
                           "(1 - signal_fraction); keep one")
    for name in filter(table.has, ("signal_fraction", "frac_zero_adv")):
        share = table.numbers(name)
        table.check(name, share, np.isnan(share) | ((share >= 0) & (share <= 1)), "from 0 to 1")
        extras["signal_fraction"] = share if name == "signal_fraction" else 1 - share
    return extras


def read_runs(path: Path) -> dict[str, dict[str, Any]]:
    """Read a user's table of runs: what is to be laid over what their logs say.

    Parameters
    ----------
    path : Path
        A CSV, TSV or Parquet file with a column ``run`` (a run's name or id) and any of those
        that `cbsbayes.logs.run_columns` lets a user state, or ``n_items``.

    Returns
    -------
    dict
        What is stated, by run.

    Raises
    ------
    CBSDataError
        Where there is no column ``run``, a column is not known or a cell is impossible.
    """
    table = load_table(path)
    table.require(("run",), "a table of runs")
    unknown = table.unused(("run", "n_items", *PER_RUN))
    if unknown:
        raise CBSDataError(f"{unknown[0]}; valid: run, {', '.join(PER_RUN)}, n_items")
    names, codes = table.runs()
    stated = table.settings()
    if table.has("n_items"):
        for run, size in zip(codes, table.numbers("n_items"), strict=True):
            if size > 0:
                stated[run]["n_items"] = int(size)
    return dict(zip(names, stated, strict=True))


def is_crossings(table: Table) -> bool:
    """Return whether the table's columns make it one of crossings rather than curves."""
    return not (table.has("step") or table.has("accuracy")) and any(
        table.has(name) for name in _CROSSINGS[1:5])


def read_crossings(table: Table) -> tuple[list[RunLog], list[str]]:
    """Read the runs of a table of crossings; steps count optimizer updates."""
    exact = table.has("steps")
    bounds = ("steps",) if exact else ("steps_lower", "steps_upper")
    table.require(("run", "threshold", *bounds), "a table of crossings")
    if exact and (table.has("steps_lower") or table.has("steps_upper")):
        raise CBSDataError(f"{table.origin} has both steps and steps_lower, steps_upper; keep the "
                           "bounds, which can say more")
    runs, codes = table.runs()
    settings = table.settings()
    threshold = table.numbers("threshold")
    table.check("threshold", threshold, np.isfinite(threshold), "a finite number")
    lower, upper = (table.numbers(name) for name in (bounds[0], bounds[-1]))
    known = ~(np.isnan(lower) & np.isnan(upper))
    if exact:
        table.check("steps", lower, ~known | ((lower > 0) & np.isfinite(lower)),
                    "a number above 0; for a run that never reached the threshold give "
                    "steps_lower (its last step) and steps_upper = inf instead")
    else:
        table.check("steps_lower", lower, ~known | ((lower >= 0) & np.isfinite(lower)),
                    "a number from 0 (0: passed at the first evaluation)")
        table.check("steps_upper", upper, ~known | ((upper > 0) & (upper >= lower)),
                    "at least steps_lower and above 0, or inf")
    crossings = pd.DataFrame({"threshold": threshold, "steps_lower": lower, "steps_upper": upper})
    twice = crossings.assign(run=codes).duplicated(["run", "threshold"])
    if twice.any():
        row = int(twice.argmax())
        raise CBSDataError(
            f"{table.origin}, data row {row + 1}: run {runs[codes[row]]!r} has threshold "
            f"{threshold[row]:g} twice; give every run an id of its own in column 'run'")
    logs = [RunLog(id=run, name=run, source="crossings", history=empty_history(),
                   settings=settings[i],
                   crossings=crossings[codes == i].sort_values("threshold", ignore_index=True))
            for i, run in enumerate(runs)]
    return logs, table.unused(_CROSSINGS)
