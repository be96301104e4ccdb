"""History rows of wandb, as its client or its log files give them, made ready for a history."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.history import history_from_rows, to_number

__all__ = ["history_from_wandb", "import_wandb"]


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


def history_from_wandb(rows: Iterable[Mapping[str, Any]]) -> tuple[pd.DataFrame, list[str]]:
    """Gather wandb's rows into a history; see `cbsbayes.logs.history.history_from_rows`.

    Parameters
    ----------
    rows : iterable of mapping
        Each with ``_step`` and any number of metrics. Nested mappings become dotted keys;
        histograms, media and wandb's own keys (``_runtime`` …) are left out.

    Returns
    -------
    history : pandas.DataFrame
        Index ``step`` (float64, sorted, unique), float64 columns sorted by canonical key.
    notes : list of str
        What was mended or left out.
    """
    placed: list[tuple[float, Mapping[str, Any]]] = []
    unplaced = 0
    for row in rows:
        step = to_number(row.get("_step"))
        if step is None or not math.isfinite(step):
            unplaced += 1
        else:
            placed.append((step, dict(_flat(row))))
    history, notes = history_from_rows(placed)
    if unplaced:
        notes.append(f"{unplaced} row(s) without a step were left out")
    return history, notes


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield metrics under dotted keys, without media and without wandb's own ``_`` keys."""
    media = {key.rpartition(".")[0] for key in row if key.rpartition(".")[2] == "_type"}
    for key, value in row.items():
        above, _, own = key.rpartition(".")
        if own.startswith("_") or above in media:
            continue
        if not isinstance(value, Mapping):
            yield prefix + key, value
        elif "_type" not in value:
            yield from _flat(value, f"{prefix}{key}.")
