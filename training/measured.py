"""What runs took: ``python -m training.measured outputs/tiny`` prints a table for `RUNS.md`.

Seconds are medians over the trainer steps of all runs of a cell, the first step and those with a
probe left out; verl 0.9.1 times validation apart. A probe's share is its part of the training
time, validation not counted, at the interval it was made at. Start and end are what a finished
attempt took beyond its steps and validations: imports, Ray, logging between steps.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd

from cbsbayes._command import EXIT_OK, run_main
from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_name import parse_name
from training.logs import read_rows

__all__ = ["cell_costs", "main", "markdown"]

_STEP, _PROBE, _VALIDATION = "perf/time_per_step", "actor/grad_noise/seconds", "timing_s/testing"
_PARTS = {_STEP: "step", "timing_s/old_log_prob": "log_probs", "timing_s/update_actor": "update"}
_COLUMNS = ("n_prompts × n_rollouts", "runs", "s per step", "old log-probs", "update",
            "validation", "probe", "probe / step", "probe's share", "start and end, s",
            "minutes a run")


def cell_costs(folder: Path) -> pd.DataFrame:
    """Return what the runs of a sweep's folder took, a row per (n_prompts, n_rollouts).

    Returns
    -------
    pandas.DataFrame
        ``n_runs``, the runs measured; ``step, log_probs, update, validation, probe``, medians in
        seconds; ``share``, seconds of all probes over those of all steps; ``around, minutes``,
        median start and end in seconds, and median duration of a finished attempt in minutes. NaN
        where not logged.

    Raises
    ------
    CBSDataError
        If the folder has no log of a run with a batch in its name.
    """
    logs = {(name.n_prompts, name.n_rollouts, path.stem): _timings(path)
            for path in sorted((folder / "logs").glob("*.jsonl"))
            if (name := parse_name(path.stem)) is not None}
    if not logs:
        raise CBSDataError(f"{folder / 'logs'} holds no log of a run with its batch in its name; "
                           "give the folder that python -m training.sweep wrote")
    cell = ["n_prompts", "n_rollouts"]
    rows = pd.concat(logs, names=[*cell, "run", "row"])
    steps = rows.dropna(subset=_STEP)
    steps = steps[steps.groupby("run").cumcount() > 0]
    calm = steps[steps[_PROBE].isna()].groupby(cell)[list(_PARTS)].median()
    runs = rows.groupby([*cell, "run"]).sum()
    attempt = pd.Series([_attempt(folder / "runs" / run / "run.json") for *_, run in runs.index],
                        runs.index)
    total, around = runs.groupby(cell).sum(), attempt - runs[_STEP] - runs[_VALIDATION]
    return pd.DataFrame({
        "n_runs": runs.groupby(cell).size(), **calm.rename(columns=_PARTS),
        "validation": rows.groupby(cell)[_VALIDATION].median(),
        "probe": steps.groupby(cell)[_PROBE].median(), "share": total[_PROBE] / total[_STEP],
        "around": around.groupby(cell).median(), "minutes": attempt.groupby(cell).median() / 60})


def _timings(path: Path) -> pd.DataFrame:
    """Return a log's seconds, a row per trainer step; NaN where not logged."""
    keys = [*_PARTS, _PROBE, _VALIDATION]
    logged = pd.DataFrame([data for _, data in read_rows(path)]).reindex(columns=keys)
    return logged.apply(pd.to_numeric, errors="coerce")


def _attempt(record: Path) -> float:
    """Return the seconds of a run that one attempt finished; NaN for any other."""
    try:
        (attempt,) = json.loads(record.read_text(encoding="utf-8"))["attempts"]
        if attempt["exit_status"] == 0:
            begun, ended = (datetime.fromisoformat(attempt[end]) for end in ("started", "ended"))
            return (ended - begun).total_seconds()
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return math.nan


def markdown(costs: pd.DataFrame) -> str:
    """Return the table of `cell_costs` as Markdown."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    for cost in costs.reset_index().itertuples():
        seconds = (cost.step, cost.log_probs, cost.update, cost.validation, cost.probe)
        cells = [f"{cost.n_prompts} × {cost.n_rollouts}", str(cost.n_runs),
                 *(f"{value:.2g}" for value in seconds), f"{cost.probe / cost.step:.1f}",
                 f"{100 * cost.share:.0f} %", f"{cost.around:.0f}", f"{cost.minutes:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return the exit status."""
    return run_main("measured", _run, argv, package="training")


def _run(options: argparse.Namespace) -> int:
    print(markdown(cell_costs(options.folder)))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
