"""Several sources as one list of runs: ids made unique, a run logged twice counted once.

verl writes one run to the console, a file and wandb at the same time. Such copies agree in every
validation value they share (to float32, which is what TensorBoard keeps), even where one was cut
short; only the longest goes on. Copies of equal length that any one kind of source holds are
found later, by `cbsbayes.logs.attempts`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.detect import Reading
from cbsbayes.logs.run_log import RunLog

__all__ = ["gather"]

_PREFERRED = (
    "wandb", "wandb_file", "verl_jsonl", "verl_console", "tensorboard", "table", "crossings",
)  # fmt: skip
_TABLES = ("table", "crossings")
_DISTINCT = 4  # evaluations and values that runs of different names do not share by chance
_HEAD = 2  # evaluations that copies must share to be compared in full; step 0 alone is no sign


def gather(readings: Sequence[Reading]) -> tuple[list[RunLog], list[str]]:
    """Join what several sources gave.

    Parameters
    ----------
    readings : sequence of Reading
        One per source, in the order given.

    Returns
    -------
    logs : list of RunLog
        With ids that are unique; an id that two sources share gets its source in front.
    notes : list of str
        All readings' notes, and a sentence for every copy left out.

    Raises
    ------
    CBSDataError
        Where a run comes in several tables.
    """
    notes = [note for reading in readings for note in reading.notes]
    placed = [(reading.source, log) for reading in readings for log in reading.logs]
    logs, copies = _without_copies(_with_unique_ids(placed))
    return logs, [*notes, *copies]


def _with_unique_ids(placed: Sequence[tuple[str, RunLog]]) -> list[RunLog]:
    tables = Counter(log.id for _, log in placed if log.source in _TABLES)
    for source, log in placed:
        if log.source in _TABLES and tables[log.id] > 1:
            raise CBSDataError(
                f"run {log.id!r} of {source} comes in several tables; "
                "put all rows of a run into one table, or give every run an id of its own"
            )
    count = Counter(log.id for _, log in placed)
    return [
        replace(log, id=f"{source}/{log.id} ({log.source})") if count[log.id] > 1 else log
        for source, log in placed
    ]


def _without_copies(logs: Sequence[RunLog]) -> tuple[list[RunLog], list[str]]:
    """Leave out logs of another kind that hold a run once more."""
    alike: dict[bytes, list[RunLog]] = defaultdict(list)
    values = {log.id: _validation(log) for log in logs}
    for log in sorted(logs, key=lambda one: (-len(values[one.id]), _PREFERRED.index(one.source))):
        alike[values[log.id].head(_HEAD).to_csv().encode()].append(log)
    left_out: dict[str, str] = {}
    configs = {log.id: log.config for log in logs}
    for group in alike.values():
        for i, log in enumerate(group):
            kept = [other for other in group[:i] if other.id not in left_out]
            original = next((o for o in kept if _is_copy(log, o, values)), None)
            if original is not None:
                left_out[log.id] = original.id
                configs[original.id] = configs[original.id] or log.config
    notes = [f"{one} logs the run of {two} and was left out" for one, two in left_out.items()]
    rest = [replace(log, config=configs[log.id]) for log in logs if log.id not in left_out]
    return rest, notes


def _validation(log: RunLog) -> pd.DataFrame:
    """Return the core validation metrics as float32, without rows that have none."""
    keys = [key for key in log.history.columns if key.startswith("val-core/")]
    return log.history[sorted(keys)].dropna(how="all").astype(np.float32)


def _is_copy(log: RunLog, other: RunLog, values: dict[str, pd.DataFrame]) -> bool:
    if log.source == other.source:
        return False
    one, two = values[log.id], values[other.id]
    steps = one.index.intersection(two.index)
    if len(steps) < _HEAD or not one.loc[steps].equals(two.loc[steps]):
        return False
    telling = min(len(steps), np.unique(one.loc[steps]).size)
    return log.name == other.name or telling >= _DISTINCT
