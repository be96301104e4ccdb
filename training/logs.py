"""What a run's own log says: how far it came, what it validated to, how long a step takes.

Read from the JSONL of verl's ``file`` logger, a row per trainer step. A killed run may leave a
last line that is cut; it does not count.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["RunProgress", "has_passed", "read_progress", "read_rows"]

_CORE = "val-core/"


@dataclass(frozen=True)
class RunProgress:
    """Progress and measured times of one run.

    Attributes
    ----------
    last_step : int
        The last trainer step logged, 0 before the first.
    validated : int
        The last trainer step that was evaluated, -1 if none.
    scores : dict of str to float
        The last validation's ``val-core`` metrics.
    step_seconds : float
        Median duration of a trainer step without the first and without steps that save a
        checkpoint; verl 0.9.1 does not count validation in it. NaN where not logged.
    validation_seconds : float
        Median duration of a validation, NaN where not logged.
    tokens_per_step : float
        Median of prompt and response tokens in a trainer step, NaN where not logged.
    """

    last_step: int = 0
    validated: int = -1
    scores: dict[str, float] = field(default_factory=dict)
    step_seconds: float = math.nan
    validation_seconds: float = math.nan
    tokens_per_step: float = math.nan


def read_progress(path: Path) -> RunProgress:
    """Read one log; a file that is missing or empty is a run that has not begun.

    Parameters
    ----------
    path : Path
        The JSONL file.

    Returns
    -------
    RunProgress
    """
    rows = read_rows(path)
    if not rows:
        return RunProgress()
    core = [(step, data) for step, data in rows if any(key.startswith(_CORE) for key in data)]
    validated, last = core[-1] if core else (-1, {})
    steady = [data for step, data in rows if "perf/time_per_step" in data][1:]
    unsaved = [data for data in steady if not data.get("timing_s/save_checkpoint")]
    return RunProgress(
        last_step=max(step for step, _ in rows), validated=validated,
        scores=_scores(last),
        step_seconds=_median(unsaved, "perf/time_per_step"),
        validation_seconds=_median([data for _, data in rows], "timing_s/testing"),
        tokens_per_step=_median(steady, "perf/total_num_tokens"))


def has_passed(path: Path, score: float, evaluations: int) -> bool:
    """Return whether every ``val-core`` metric was at a score in so many evaluations in a row.

    Once true it stays so, whatever is logged until the trainer has ended: a run that slides back
    below the score in those seconds is finished all the same.
    """
    in_a_row = 0
    for _, data in read_rows(path):
        if scores := _scores(data).values():
            in_a_row = in_a_row + 1 if min(scores) >= score else 0
            if 0 < evaluations == in_a_row:
                return True
    return False


def _scores(data: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in data.items()
            if key.startswith(_CORE) and isinstance(value, int | float)}


def read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the trainer steps of a log with what was logged; empty where there is no file."""
    if not path.is_file():
        return []
    rows = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
                rows.append((int(entry["step"]), dict(entry["data"])))
            except (ValueError, TypeError, KeyError):
                continue
    return rows


def _median(rows: list[dict[str, Any]], key: str) -> float:
    values = [row[key] for row in rows if isinstance(row.get(key), int | float)]
    return float(median(values)) if values else math.nan
