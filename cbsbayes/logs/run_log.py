"""The one record that every source yields, and the one list of what is known of a run.

Nothing downstream knows where data came from. The schema of the sweep, the reader of tables and
the reader of configurations share `RUN_COLUMNS`; the keys under which trainers write these values
are in ``trainers.toml``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

__all__ = ["RUN_COLUMNS", "STATED", "Origin", "RunColumn", "RunLog"]

_UNKNOWN = ("", "none", "null", "nan")
_LARGEST = 2**53  # whole numbers that float64 holds


class Origin(NamedTuple):
    """Settings of a run and where they stand.

    Attributes
    ----------
    name : str
        ``--runs``, ``table``, ``configuration`` (what the log itself holds), a file's name,
        ``--config``.
    values : mapping
        A trainer's nested configuration, or values under the dataset's own names.
    """

    name: str
    values: Mapping[str, Any]


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
        under its canonical key (`cbsbayes.logs.history`); NaN where a metric was not logged.
    settings : tuple of Origin
        What is known of its settings; the first that knows a value wins.
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
    settings: tuple[Origin, ...] = ()
    crossings: pd.DataFrame | None = None
    state: str = "unknown"
    created: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunColumn:
    """One value per run.

    Attributes
    ----------
    dtype : type
        ``numpy.str_``, ``numpy.int64``, ``numpy.int8`` or ``numpy.float64``.
    long_name, units : str
        Meaning and unit.
    default : object
        The value where it is unknown.
    least : int
        The lowest valid value of a whole number; numbers that are not whole lie above 0.
    stated : bool
        Whether a user may state it: a column of a table, a key of a configuration.
    always : bool
        Whether every sweep has it; else only those where some run knows it.
    """

    dtype: type
    long_name: str
    units: str = "1"
    default: Any = ""
    least: int = 1
    stated: bool = False
    always: bool = True

    def known(self, value: Any) -> bool:
        """Return whether `value` says something: not blank, not NaN, not the default."""
        if value is None or isinstance(value, Mapping | list | tuple):
            return False
        text = str(value).strip().lower()
        return text not in _UNKNOWN and not (self.default == -1 and text in ("-1", "-1.0"))

    def read(self, value: Any) -> Any:
        """Return a value as text, int or float.

        Raises
        ------
        ValueError
            If it is impossible; the message says what is valid.
        """
        if self.dtype is np.str_:
            return str(value).strip()
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if self.dtype is np.float64:
            if not 0 < number < math.inf:
                raise ValueError("a number above 0")
            return number
        if not (self.least <= number <= _LARGEST and number.is_integer()):
            raise ValueError(f"a whole number from {self.least}")
        return int(number)


def _text(long_name: str, **more: Any) -> RunColumn:
    return RunColumn(np.str_, long_name, **more)


def _count(long_name: str, units: str = "1", default: int = -1, **more: Any) -> RunColumn:
    return RunColumn(np.int64, long_name, units, default, **more)


RUN_COLUMNS: dict[str, RunColumn] = {
    "name": _text("display name of the run"),
    "phase": _text("phase of the sweep", stated=True),
    "model": _text("model trained", stated=True),
    "dataset": _text("data trained on", stated=True),
    "algorithm": _text("advantage estimator", stated=True),
    "state": _text("how the run ended", default="unknown"),
    "source": _text("kind of source the run was read from"),
    "n_prompts": _count("prompts per optimizer update, -1 for one-axis data", "prompts",
                        stated=True),
    "n_rollouts": _count("completions per prompt, -1 for one-axis data", "rollouts", stated=True),
    "total_batch": RunColumn(np.float64, "samples per optimizer update", "samples", np.nan,
                             stated=True),
    "train_batch_prompts": _count("prompts per trainer step, -1 unknown", "prompts", stated=True),
    "mini_batch_prompts": _count("prompts per mini-batch, -1 unknown", "prompts", stated=True),
    "ppo_epochs": _count("passes over each training batch", default=1, stated=True),
    "updates_per_step": _count("optimizer updates per trainer step", "updates", 1, stated=True),
    "learning_rate": RunColumn(np.float64, "learning rate, NaN unknown", default=np.nan,
                               stated=True),
    "seed": _count("random seed, -1 unknown", least=0, stated=True),
    "trainer": _text("trainer that wrote the configuration", stated=True, always=False),
    "trainer_version": _text("version of the trainer", stated=True, always=False),
    "n_gpus": _count("GPUs used, -1 unknown", "GPUs", stated=True, always=False),
    "read_from": _text("where each setting was read", always=False),
    "attempts": _count("attempts merged into the run", default=1),
    "usable": RunColumn(np.int8, "1 where the run may be fitted, 0 where it is only kept",
                        default=1, least=0),
    "remark": _text("what was mended, merged or is wrong"),
}
"""Coordinates along ``run``."""

STATED = tuple(name for name, column in RUN_COLUMNS.items() if column.stated)
"""What a user may state of a run, in a table or a configuration, under these names."""
