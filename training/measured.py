"""What runs took: ``python -m training.measured outputs/tiny`` prints a table for `RUNS.md`.

Seconds are medians over the trainer steps of all runs of a cell, the first step and those with a
probe left out; verl 0.9.1 times validation apart. A probe's share is its part of the training
time, validation not counted, at the interval it was made at. Start and end are what a finished
attempt took beyond its steps and validations: imports, Ray, logging between steps.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from cbsbayes._command import EXIT_OK, run_command
from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_name import parse_name
from training.logs import read_rows

__all__ = ["Cost", "cell_costs", "main", "markdown"]

_STEP, _PROBE, _VALIDATION = "perf/time_per_step", "actor/grad_noise/seconds", "timing_s/testing"
_COLUMNS = ("n_prompts × n_rollouts", "runs", "s per step", "old log-probs", "update",
            "validation", "probe", "probe / step", "probe's share", "start and end, s",
            "minutes a run")


class Cost(NamedTuple):
    """Measured seconds of one cell; NaN where not logged.

    Attributes
    ----------
    n_runs : int
        Runs measured.
    step, log_probs, update, validation, probe : float
        Medians, in seconds.
    share : float
        Seconds of all probes over those of all steps.
    around, minutes : float
        Median start and end in seconds, and median duration of a finished attempt in minutes.
    """

    n_runs: int
    step: float
    log_probs: float
    update: float
    validation: float
    probe: float
    share: float
    around: float
    minutes: float


def cell_costs(folder: Path) -> dict[tuple[int, int], Cost]:
    """Return what the runs of a sweep's folder took, by (n_prompts, n_rollouts).

    Raises
    ------
    CBSDataError
        If the folder has no log of a run with a batch in its name.
    """
    logs: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for path in sorted((folder / "logs").glob("*.jsonl")):
        name = parse_name(path.stem)
        if name is not None:
            logs[name.n_prompts, name.n_rollouts].append(path)
    if not logs:
        raise CBSDataError(f"{folder / 'logs'} holds no log of a run with its batch in its name; "
                           "give the folder that python -m training.sweep wrote")
    return {cell: _cost(paths, folder) for cell, paths in sorted(logs.items())}


def _cost(paths: Sequence[Path], folder: Path) -> Cost:
    runs = {path: [data for _, data in read_rows(path)] for path in paths}
    steps = [data for rows in runs.values()
             for data in [data for data in rows if _STEP in data][1:]]
    calm = [data for data in steps if _PROBE not in data]
    everything = [data for rows in runs.values() for data in rows]
    total = sum(_values(everything, _STEP))
    minutes, around = [], []
    for path, rows in runs.items():
        for seconds in _attempt(folder / "runs" / path.stem / "run.json"):
            minutes.append(seconds / 60)
            around.append(seconds - sum(_values(rows, _STEP)) - sum(_values(rows, _VALIDATION)))
    return Cost(len(paths), _median(_values(calm, _STEP)),
                _median(_values(calm, "timing_s/old_log_prob")),
                _median(_values(calm, "timing_s/update_actor")),
                _median(_values(everything, _VALIDATION)), _median(_values(steps, _PROBE)),
                sum(_values(everything, _PROBE)) / total if total else float("nan"),
                _median(around), _median(minutes))


def _values(rows: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [float(row[key]) for row in rows if isinstance(row.get(key), int | float)]


def _median(values: Sequence[float]) -> float:
    return float(median(values)) if values else float("nan")


def _attempt(record: Path) -> Iterator[float]:
    """Yield the seconds of a run that one attempt finished; nothing for any other."""
    try:
        attempts = json.loads(record.read_text(encoding="utf-8"))["attempts"]
        if len(attempts) == 1 and attempts[0]["exit_status"] == 0:
            begun, ended = (datetime.fromisoformat(attempts[0][end])
                            for end in ("started", "ended"))
            yield (ended - begun).total_seconds()
    except (OSError, ValueError, KeyError, TypeError):
        return


def markdown(costs: dict[tuple[int, int], Cost]) -> str:
    """Return the table as Markdown."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    for (prompts, rollouts), cost in costs.items():
        cells = [f"{prompts} × {rollouts}", str(cost.n_runs),
                 *(f"{seconds:.2g}" for seconds in cost[1:6]), f"{cost.probe / cost.step:.1f}",
                 f"{100 * cost.share:.0f} %", f"{cost.around:.0f}", f"{cost.minutes:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.measured",
        description="Print what the runs of a sweep's folder took, as Markdown.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a sweep's folder, outputs/PHASE")
    options = parser.parse_args(argv)

    def show() -> int:
        print(markdown(cell_costs(options.folder)))
        return EXIT_OK

    return run_command(show, "training.measured")


if __name__ == "__main__":
    sys.exit(main())
