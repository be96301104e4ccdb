"""Seconds per trainer step and the share of prompt groups with a signal, from a run's log.

verl's ``perf/time_per_step`` (``timing_s/step``) counts validation up to 0.5 and leaves it out
from 0.6.1 on; the first step warms caches up and steps that save a checkpoint wait for the disk.
So the median is taken over the steps without any of these. Where every step validates,
``timing_s/testing`` is taken off if the parts that verl times do not fill the step without it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["LEFT_OUT", "signal_fraction", "step_seconds"]

LEFT_OUT = ("median over trainer steps without the first logged step, steps that save a "
            "checkpoint and steps that validate (where the log tells)")
"""What `step_seconds` leaves out, for the variable's attributes."""

_STEP_KEYS = ("perf/time_per_step", "timing_s/step")
_PART_KEYS = tuple(f"timing_s/{part}" for part in (
    "gen", "reward", "old_log_prob", "ref", "values", "adv", "update_critic", "update_actor",
    "update_weights", "save_checkpoint"))


def _column(history: pd.DataFrame, key: str) -> np.ndarray:
    if key not in history.columns:
        return np.full(len(history), np.nan)
    return history[key].to_numpy(dtype=np.float64)


def step_seconds(history: pd.DataFrame) -> float:
    """Return the typical duration of one trainer step.

    Parameters
    ----------
    history : pandas.DataFrame
        A `RunLog`'s history, index trainer steps.

    Returns
    -------
    float
        Seconds; NaN where the log has no durations beyond its first step.
    """
    key = next((key for key in _STEP_KEYS if key in history.columns), None)
    if key is None:
        return np.nan
    seconds = _column(history, key)
    usable = np.isfinite(seconds) & (seconds > 0)
    if not usable.any():
        return np.nan
    usable[np.argmax(usable)] = False
    usable &= ~(_column(history, "timing_s/save_checkpoint") > 0)
    testing = np.nan_to_num(_column(history, "timing_s/testing"))
    if (usable & (testing <= 0)).any():
        usable &= testing <= 0
    else:
        seconds = seconds - np.where(_testing_inside(history, seconds, testing), testing, 0.0)
    return float(np.median(seconds[usable])) if usable.any() else np.nan


def _testing_inside(
    history: pd.DataFrame, seconds: np.ndarray, testing: np.ndarray
) -> np.ndarray:
    """Tell where the step's duration counts validation: the timed parts leave room for it."""
    parts = np.nansum([_column(history, key) for key in _PART_KEYS], axis=0)
    return (parts > 0) & (seconds - parts > 0.5 * testing)


def signal_fraction(history: pd.DataFrame) -> float:
    """Return the mean share of prompt groups with non-zero advantage over training.

    Read from the first column called ``signal_fraction``, else from 1 minus the one called
    ``frac_zero_adv``, with or without a prefix; NaN where the log has neither.
    """
    for name, zero_share in (("signal_fraction", False), ("frac_zero_adv", True)):
        for key in sorted(str(c) for c in history.columns if str(c).rpartition("/")[2] == name):
            values = _column(history, key)
            values = values[np.isfinite(values)]
            if values.size:
                return float(np.mean(1 - values if zero_share else values))
    return np.nan
