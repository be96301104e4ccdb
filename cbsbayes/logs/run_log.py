"""The one record that every source yields; nothing downstream knows where data came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

__all__ = ["RunLog"]


@dataclass(frozen=True)
class RunLog:
    """What one source says about one training run (or one attempt of it).

    Attributes
    ----------
    id : str
        Unique within its source (a wandb id, a file's path relative to the folder given).
    name : str
        Display name; need not be unique (restarts, seeds).
    source : str
        Kind of the source: ``wandb``, ``wandb_file``, ``verl_jsonl``, ``verl_console``,
        ``tensorboard``, ``history``, ``table`` or ``crossings``.
    history : pandas.DataFrame
        Index ``step`` (trainer steps, float64, sorted, unique); one float64 column per metric
        under its canonical key (`cbsbayes.logs.keys`); NaN where a metric was not logged.
    config : mapping
        The trainer's nested configuration as plain Python values; empty where unknown.
    further : tuple of (str, mapping)
        Other configurations of the run by what they are called in messages, each counting less
        than the one before and all less than `config`.
    stated : mapping
        What the user states of the run in a table of runs, under the dataset's own names; it
        wins over everything else.
    settings : mapping
        Run coordinates that the source states outright, under the dataset's own names
        (``n_prompts``, ``seed``, ``total_batch`` …); they win over config and name.
    crossings : pandas.DataFrame or None
        For tables of crossings: columns ``threshold, steps_lower, steps_upper`` (updates).
    state : str
        ``finished``, ``running``, ``failed``, ``crashed`` or ``unknown``.
    created : str
        ISO time the run started, or ``""``; orders attempts of one run.
    notes : tuple of str
        What the reader had to mend or leave out, one sentence each.
    """

    id: str
    name: str
    source: str
    history: pd.DataFrame
    config: Mapping[str, Any] = field(default_factory=dict)
    further: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    stated: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    crossings: pd.DataFrame | None = None
    state: str = "unknown"
    created: str = ""
    notes: tuple[str, ...] = ()
