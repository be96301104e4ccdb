"""The one list of what is known of a run: name, type, unit, default, valid values.

The schema of the sweep, the reader of tables, the reader of configurations and the building of a
sweep all use it. The keys under which trainers write these values are in `cbsbayes.logs.trainers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["RUN_COLUMNS", "STATED", "RunColumn"]

_UNKNOWN = ("", "none", "null", "nan")


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
    least : int, optional
        The lowest valid value of a whole number; numbers that are not whole lie above 0.
    stated : bool
        Whether a user may state it: a column of a table, a key of a side-car.
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
        if isinstance(value, float) and math.isnan(value):
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
        whole = self.dtype is not np.float64
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        good = math.isfinite(number) and (number >= self.least if whole else number > 0)
        if not good or (whole and number != int(number)):
            raise ValueError(f"a whole number from {self.least}" if whole
                             else "a number above 0")
        return int(number) if whole else number


def _text(long_name: str, default: str = "", stated: bool = False) -> RunColumn:
    return RunColumn(np.str_, long_name, default=default, stated=stated)


RUN_COLUMNS: dict[str, RunColumn] = {
    "name": _text("display name of the run"),
    "phase": _text("phase of the sweep", stated=True),
    "model": _text("model trained", stated=True),
    "dataset": _text("data trained on", stated=True),
    "algorithm": _text("advantage estimator", stated=True),
    "state": _text("how the run ended", default="unknown"),
    "source": _text("kind of source the run was read from"),
    "n_prompts": RunColumn(np.int64, "prompts per optimizer update, -1 for one-axis data",
                           "prompts", -1, stated=True),
    "n_rollouts": RunColumn(np.int64, "completions per prompt, -1 for one-axis data",
                            "rollouts", -1, stated=True),
    "total_batch": RunColumn(np.float64, "samples per optimizer update", "samples", np.nan,
                             stated=True),
    "train_batch_prompts": RunColumn(np.int64, "prompts per trainer step, -1 unknown", "prompts",
                                     -1, stated=True),
    "mini_batch_prompts": RunColumn(np.int64, "prompts per mini-batch, -1 unknown", "prompts", -1,
                                    stated=True),
    "ppo_epochs": RunColumn(np.int64, "passes over each training batch", default=1, stated=True),
    "updates_per_step": RunColumn(np.int64, "optimizer updates per trainer step", "updates", 1,
                                  stated=True),
    "learning_rate": RunColumn(np.float64, "learning rate, NaN unknown", default=np.nan,
                               stated=True),
    "seed": RunColumn(np.int64, "random seed, -1 unknown", default=-1, least=0, stated=True),
    "trainer": RunColumn(np.str_, "trainer that wrote the configuration", stated=True,
                         always=False),
    "n_gpus": RunColumn(np.int64, "GPUs used, -1 unknown", "GPUs", -1, stated=True, always=False),
    "batch_from": RunColumn(np.str_, "where the batch was read", always=False),
    "attempts": RunColumn(np.int64, "attempts merged into the run", default=1),
    "usable": RunColumn(np.int8, "1 where the run may be fitted, 0 where it is only kept",
                        default=1, least=0),
    "remark": _text("what was mended, merged or is wrong"),
}
"""Coordinates along ``run``."""

STATED = tuple(name for name, column in RUN_COLUMNS.items() if column.stated)
"""What a user may state of a run, in a table or a side-car, under these names."""
