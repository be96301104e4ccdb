"""History rows of wandb, as its client or its log files give them, made ready for a history."""

from __future__ import annotations

import importlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.history import history_from_rows, to_number
from cbsbayes.logs.verl import flat_metrics

__all__ = ["history_from_wandb", "import_wandb"]

_TRAINER_STEPS = ("train/global_step", "trainer/global_step", "training/global_step",
                  "global_step")


def import_wandb(module: str = "wandb") -> ModuleType:
    """Import wandb, or one of its modules, where it is installed.

    Raises
    ------
    CBSDataError
        If the extra is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CBSDataError(
            f"reading wandb runs needs the wandb client ({error}); "
            "install it with `pip install 'cbsbayes[wandb]'`"
        ) from error


def history_from_wandb(
    rows: Iterable[Mapping[str, Any]], step_metrics: Sequence[tuple[str, str]] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """Gather wandb's rows into a history; see `cbsbayes.logs.history.history_from_rows`.

    wandb's own ``_step`` counts calls of its logger. It is the trainer's step where the trainer
    logs so (verl does); otherwise the step is the metric that ``define_metric`` names, or
    the column ``global_step`` where that differs from ``_step``.

    Parameters
    ----------
    rows : iterable of mapping
        Each with ``_step`` and any number of metrics. Nested mappings become dotted keys;
        histograms, media and wandb's own keys (``_runtime`` …) are left out.
    step_metrics : sequence of (str, str)
        Metrics, by name or with a star at the end, and the metric that counts their steps.

    Returns
    -------
    history : pandas.DataFrame
        Index ``step`` (float64, sorted, unique), float64 columns sorted by canonical key.
    notes : list of str
        What was mended or left out.
    """
    flat = [(to_number(row.get("_step")), dict(flat_metrics(row, by="."))) for row in rows]
    steps = step_metrics or _trainer_step(flat)
    unplaced: list[float | None] = []
    history, notes = history_from_rows(_placed(flat, steps, unplaced))
    if unplaced:
        notes.append(f"{len(unplaced)} row(s) without a step were left out")
    return history, notes


def _trainer_step(flat: Sequence[tuple[float | None, Mapping[str, Any]]]
                  ) -> list[tuple[str, str]]:
    return [("*", key) for key in _TRAINER_STEPS
            if any(row.get(key, step) != step for step, row in flat)][:1]


def _placed(
    flat: Sequence[tuple[float | None, Mapping[str, Any]]],
    step_metrics: Sequence[tuple[str, str]], unplaced: list[float | None],
) -> Iterator[tuple[float, Mapping[str, Any]]]:
    latest: dict[str, float] = {}
    counters = {counter for _, counter in step_metrics}
    for own_step, row in flat:
        latest |= {key: number for key in counters & row.keys()
                   if (number := to_number(row[key])) is not None and math.isfinite(number)}
        parts: dict[float | None, dict[str, Any]] = defaultdict(dict)
        for key, value in row.items():
            if key in counters:
                continue
            counter = _counter(key, step_metrics)
            start = 0.0 if own_step == 0 else None  # before training, whatever counts
            parts[latest.get(counter, start) if counter else own_step][key] = value
        for step, values in (parts or {own_step: {}}).items():
            if step is None or not math.isfinite(step):
                unplaced.append(step)
            else:
                yield step, values


def _counter(key: str, step_metrics: Sequence[tuple[str, str]]) -> str:
    """Return what counts the steps of a metric: its own entry, else the longest that fits."""
    fits = [(name != key, -len(name), counter) for name, counter in step_metrics
            if name == key or (name.endswith("*") and key.startswith(name[:-1]))]
    return min(fits)[2] if fits else ""
