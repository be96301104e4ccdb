"""Several sources as one list of runs: ids made unique, a run logged twice counted once.

verl writes one run to the console, a file and wandb at the same time. Such copies agree in every
validation value they share (to float32, which is what TensorBoard keeps), which separate runs do
not; only one of them goes on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from cbsbayes.sources.detect import Reading
from cbsbayes.sources.record import RunLog

__all__ = ["gather"]

_PREFERRED = (
    "wandb", "wandb_file", "verl_jsonl", "verl_console", "tensorboard", "table", "crossings",
)  # fmt: skip
_HEAD = 3  # evaluations that copies must share to be compared in full; step 0 alone is no sign


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
    """
    notes = [note for reading in readings for note in reading.notes]
    named = [log for reading in readings for log in _with_unique_ids(reading, readings)]
    logs, repeated = _without_repeats(named)
    logs, copies = _without_copies(logs)
    return logs, [*notes, *repeated, *copies]


def _with_unique_ids(reading: Reading, readings: Sequence[Reading]) -> list[RunLog]:
    here = Counter(log.id for log in reading.logs)
    elsewhere = {log.id for other in readings if other is not reading for log in other.logs}
    met: Counter[str] = Counter()
    logs = []
    for log in reading.logs:
        met[log.id] += 1
        name = f"{reading.source}/{log.id}" if log.id in elsewhere else log.id
        logs.append(replace(log, id=f"{name}#{met[log.id]}" if here[log.id] > 1 else name))
    return logs


def _without_repeats(logs: Iterable[RunLog]) -> tuple[list[RunLog], list[str]]:
    """Leave out logs that were given twice: the same name, settings and values throughout."""
    kept: dict[tuple[str, str], list[RunLog]] = defaultdict(list)
    notes, unique = [], []
    for log in logs:
        like = [other for other in kept[log.name, log.source] if _is_repeat(log, other)]
        if like:
            notes.append(f"run {log.id} is {like[0].id} once more and was left out")
        else:
            kept[log.name, log.source].append(log)
            unique.append(log)
    return unique, notes


def _is_repeat(log: RunLog, other: RunLog) -> bool:
    same_crossings = (log.crossings is None) == (other.crossings is None) and (
        log.crossings is None or log.crossings.equals(other.crossings)
    )
    settled = log.settings == other.settings and log.config == other.config
    return same_crossings and settled and log.history.equals(other.history)


def _without_copies(logs: Sequence[RunLog]) -> tuple[list[RunLog], list[str]]:
    """Leave out logs of another kind that hold a run once more."""
    alike: dict[bytes, list[RunLog]] = defaultdict(list)
    values = {log.id: _validation(log) for log in logs}
    for log in sorted(logs, key=lambda one: (-len(values[one.id]), _PREFERRED.index(one.source))):
        alike[values[log.id].head(_HEAD).to_csv().encode()].append(log)
    left_out: dict[str, str] = {}
    for group in alike.values():
        for i, log in enumerate(group):
            kept = [other for other in group[:i] if other.id not in left_out]
            original = next((o for o in kept if _is_copy(log, o, values)), None)
            if original is not None:
                left_out[log.id] = original.id
    notes = [
        f"{one} logs the same run as {other} and was left out" for one, other in left_out.items()
    ]
    return [log for log in logs if log.id not in left_out], notes


def _validation(log: RunLog) -> pd.DataFrame:
    """Return the core validation metrics as float32, without rows that have none."""
    keys = [key for key in log.history.columns if key.startswith("val-core/")]
    return log.history[sorted(keys)].dropna(how="all").astype(np.float32)


def _is_copy(log: RunLog, other: RunLog, values: dict[str, pd.DataFrame]) -> bool:
    if log.source == other.source:
        return False
    one, two = values[log.id], values[other.id]
    steps = one.index.intersection(two.index)
    return len(steps) >= 2 and one.loc[steps].equals(two.loc[steps])
