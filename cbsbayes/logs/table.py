"""A long table of curves: one row per run, step and validation set.

Columns: ``run, step, accuracy`` and ``n_prompts, n_rollouts`` (or ``total_batch`` for one-axis
data); optional ``metric, model, dataset, phase, algorithm, seed, n_items, mini_batch_prompts,
ppo_epochs, learning_rate, direction, seconds_per_step`` and ``signal_fraction`` or
``frac_zero_adv``. There are no aliases.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.columns import Table
from cbsbayes.logs.keys import validation_key
from cbsbayes.logs.run_log import RunLog

__all__ = ["CURVE_COLUMNS", "PER_RUN_COLUMNS", "read_curves"]

PER_RUN_COLUMNS = (
    "n_prompts", "n_rollouts", "total_batch", "model", "dataset", "phase", "algorithm", "seed",
    "mini_batch_prompts", "ppo_epochs", "learning_rate", "direction",
)  # fmt: skip
CURVE_COLUMNS = (
    "run", "step", "accuracy", "metric", "n_items", "seconds_per_step", "signal_fraction",
    "frac_zero_adv", *PER_RUN_COLUMNS,
)  # fmt: skip
_DEFAULT_METRIC = "accuracy"


def read_curves(table: Table) -> tuple[list[RunLog], list[str]]:
    """Read the runs of a long table.

    Parameters
    ----------
    table : Table
        One row per evaluation; ``step`` counts trainer steps.

    Returns
    -------
    logs : list of RunLog
        One per run, in order of appearance; the validation set m is logged under
        ``val-core/m/acc/mean@1``.
    notes : list of str
        Columns that nothing reads, rows written twice.

    Raises
    ------
    CBSDataError
        Where a column is missing, a cell is impossible, a per-run column changes within a run,
        or two rows give one evaluation different values.
    """
    table.require(("run", "step", "accuracy"), "a table of curves")
    runs, codes = table.runs()
    settings = table.settings()
    rows, notes = _evaluations(table, runs, codes)
    items = _items(table, runs, rows)
    extras = _extras(table)
    logs = [
        RunLog(
            id=run,
            name=run,
            source="table",
            history=_history(rows[rows["run"] == i], extras, codes == i),
            settings={**settings[i], **items.get(i, {})},
        )
        for i, run in enumerate(runs)
    ]
    return logs, [*table.unused(CURVE_COLUMNS), *notes]


def _evaluations(
    table: Table, runs: list[str], codes: np.ndarray
) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per run, metric and step, and a note on rows written twice."""
    step, accuracy = table.numbers("step"), table.numbers("accuracy")
    table.check("step", step, np.isfinite(step) & (step >= 0), "a finite number from 0")
    table.check("accuracy", accuracy, ~np.isinf(accuracy), "finite, or blank where not evaluated")
    metric = table.texts("metric") if table.has("metric") else [""] * len(codes)
    metric = [name or _DEFAULT_METRIC for name in metric]
    rows = pd.DataFrame({"run": codes, "metric": metric, "step": step, "accuracy": accuracy})
    cells = rows.groupby(["run", "metric", "step"], sort=False)["accuracy"]
    conflict = cells.nunique() > 1
    if conflict.any():
        run, name, at = conflict.index[int(conflict.argmax())]
        got = ", ".join(f"{value:g}" for value in cells.get_group((run, name, at)).dropna())
        raise CBSDataError(
            f"{table.origin}: run {runs[run]!r} has several accuracies ({got}) for {name!r} at "
            f"step {at:g}; give every run an id of its own in column 'run'"
        )
    repeated = len(rows) - cells.ngroups
    notes = [f"{table.origin}: {repeated} row(s) written twice were counted once"]
    return rows, notes if repeated else []


def _items(table: Table, runs: list[str], rows: pd.DataFrame) -> dict[int, dict[str, object]]:
    """Return ``{"n_items": {metric: n}}`` by run's place, for runs that state it."""
    if not table.has("n_items"):
        return {}
    values = table.numbers("n_items")
    values = np.where(values == -1, np.nan, values)  # unknown in the dataset's own long table
    good = np.isnan(values) | ((values >= 1) & (np.mod(values, 1) == 0))
    table.check("n_items", values, good, "a whole number above 0")
    known = rows.assign(n_items=values).dropna(subset="n_items")
    counts = known.groupby(["run", "metric"])["n_items"].agg(["min", "max"])
    items: dict[int, dict[str, int]] = {}
    for (run, metric), (low, high) in zip(counts.index, counts.to_numpy(), strict=True):
        if low != high:
            raise CBSDataError(
                f"{table.origin}: run {runs[run]!r} has several values of n_items for {metric!r} "
                f"({low:g}, {high:g}); a validation set has one size"
            )
        items.setdefault(run, {})[metric] = int(low)
    return {run: {"n_items": sizes} for run, sizes in items.items()}


def _extras(table: Table) -> pd.DataFrame:
    """Return per-step columns under the keys that logs use for them."""
    extras: dict[str, np.ndarray] = {}
    if table.has("seconds_per_step"):
        seconds = table.numbers("seconds_per_step")
        good = np.isnan(seconds) | ((seconds > 0) & np.isfinite(seconds))
        table.check("seconds_per_step", seconds, good, "a number above 0")
        extras["perf/time_per_step"] = seconds
    shares = [name for name in ("signal_fraction", "frac_zero_adv") if table.has(name)]
    if len(shares) == 2:
        raise CBSDataError(
            f"{table.origin} has both signal_fraction and frac_zero_adv (1 - signal_fraction); "
            "keep one"
        )
    for name in shares:
        share = table.numbers(name)
        table.check(name, share, np.isnan(share) | ((share >= 0) & (share <= 1)), "from 0 to 1")
        extras["signal_fraction"] = share if name == "signal_fraction" else 1 - share
    return pd.DataFrame(extras, index=table.frame.index)


def _history(rows: pd.DataFrame, extras: pd.DataFrame, mine: np.ndarray) -> pd.DataFrame:
    cells = rows.groupby(["step", "metric"])["accuracy"].last().unstack("metric")
    keys: Mapping[str, str] = {name: validation_key(name) for name in cells.columns}
    history = cells.rename(columns=keys)
    if len(extras.columns):
        history = history.join(extras[mine].groupby(rows["step"]).last())
    history.columns = pd.Index(list(history.columns), dtype=object)
    return history.astype(np.float64).sort_index(axis=1)
