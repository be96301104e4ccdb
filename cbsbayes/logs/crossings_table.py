"""A table of crossings: how many updates each run needed to reach each threshold.

Columns: ``run, threshold``, ``n_prompts, n_rollouts`` (or ``total_batch``), and ``steps`` or
``steps_lower, steps_upper``: the last evaluation below the threshold (0: it was passed at the
first one) and the first at or above it (``inf``: never reached).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.columns import Table
from cbsbayes.logs.history import empty_history
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.table import PER_RUN_COLUMNS

__all__ = ["CROSSING_COLUMNS", "is_crossings", "read_crossings"]

CROSSING_COLUMNS = ("run", "threshold", "steps", "steps_lower", "steps_upper", *PER_RUN_COLUMNS)


def is_crossings(table: Table) -> bool:
    """Return whether the table's columns make it one of crossings rather than curves."""
    if table.has("step") or table.has("accuracy"):
        return False
    return any(table.has(name) for name in ("threshold", "steps", "steps_lower", "steps_upper"))


def read_crossings(table: Table) -> tuple[list[RunLog], list[str]]:
    """Read the runs of a table of crossings.

    Parameters
    ----------
    table : Table
        One row per run and threshold; steps count optimizer updates.

    Returns
    -------
    logs : list of RunLog
        One per run, in order of appearance, without history.
    notes : list of str
        Columns that nothing reads.

    Raises
    ------
    CBSDataError
        Where a column is missing, a cell is impossible, a threshold comes twice for one run, or
        a per-run column changes within a run.
    """
    one_number = table.has("steps")
    bounds = ("steps",) if one_number else ("steps_lower", "steps_upper")
    table.require(("run", "threshold", *bounds), "a table of crossings")
    if one_number and (table.has("steps_lower") or table.has("steps_upper")):
        raise CBSDataError(
            f"{table.origin} has both steps and steps_lower, steps_upper; keep the bounds, which "
            "can say more"
        )
    runs, codes = table.runs()
    settings = table.settings()
    crossings = _exact(table) if one_number else _intervals(table)
    _check_unique(table, runs, codes, crossings["threshold"])
    logs = [
        RunLog(
            id=run,
            name=run,
            source="crossings",
            history=empty_history(),
            settings=settings[i],
            crossings=crossings[codes == i].sort_values("threshold", ignore_index=True),
        )
        for i, run in enumerate(runs)
    ]
    return logs, table.unused(CROSSING_COLUMNS)


def _thresholds(table: Table) -> np.ndarray:
    threshold = table.numbers("threshold")
    table.check("threshold", threshold, np.isfinite(threshold), "a finite number")
    return threshold


def _exact(table: Table) -> pd.DataFrame:
    steps = table.numbers("steps")
    good = np.isnan(steps) | ((steps > 0) & np.isfinite(steps))
    table.check(
        "steps",
        steps,
        good,
        "a number above 0; for a run that never reached the threshold give steps_lower (its last "
        "step) and steps_upper = inf instead",
    )
    return pd.DataFrame(
        {"threshold": _thresholds(table), "steps_lower": steps, "steps_upper": steps}
    )


def _intervals(table: Table) -> pd.DataFrame:
    lower, upper = table.numbers("steps_lower"), table.numbers("steps_upper")
    known = ~(np.isnan(lower) & np.isnan(upper))
    good = ~known | ((lower >= 0) & np.isfinite(lower))
    table.check("steps_lower", lower, good, "a number from 0 (0: passed at the first evaluation)")
    good = ~known | ((upper > 0) & (upper >= lower))
    table.check("steps_upper", upper, good, "at least steps_lower and above 0, or inf")
    return pd.DataFrame(
        {"threshold": _thresholds(table), "steps_lower": lower, "steps_upper": upper}
    )


def _check_unique(table: Table, runs: list[str], codes: np.ndarray, threshold: pd.Series) -> None:
    twice = pd.DataFrame({"run": codes, "threshold": threshold}).duplicated()
    if twice.any():
        row = int(twice.argmax())
        raise CBSDataError(
            f"{table.origin}, data row {row + 1}: run {runs[codes[row]]!r} has threshold "
            f"{threshold[row]:g} twice; give every run an id of its own in column 'run'"
        )
