"""What a run's log says of its training, one number per run.

verl's ``perf/time_per_step`` (``timing_s/step``) counts validation up to 0.5 and leaves it out
from 0.6.1 on; the first step warms caches up and steps that save a checkpoint wait for the disk.
So the median is taken over the steps without any of these. Where every step validates,
``timing_s/testing`` is taken off if the parts that verl times do not fill the step without it.

The rest are means over training. With several optimizer updates per trainer step, all but the
first work on samples of an older policy: clip fraction and policy KL tell how far they strayed, and
are zero by construction (and not kept) with one update per step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cbsbayes.logs.history import column

__all__ = ["LEFT_OUT", "MEANS", "OFF_POLICY", "Mean", "signal_fraction", "step_seconds",
           "training_means"]

LEFT_OUT = ("median over trainer steps without the first logged step, steps that save a "
            "checkpoint and steps that validate (where the log tells)")
"""What `step_seconds` leaves out, for the variable's attributes."""

_STEP_KEYS = ("perf/time_per_step", "timing_s/step")
_PART_KEYS = tuple(f"timing_s/{part}" for part in (
    "gen", "reward", "old_log_prob", "ref", "values", "adv", "update_critic", "update_actor",
    "update_weights", "save_checkpoint"))


@dataclass(frozen=True)
class Mean:
    """A metric whose mean over training is kept: the first of `keys` that was logged."""

    keys: tuple[str, ...]
    long_name: str
    units: str = "1"


MEANS: Mapping[str, Mean] = {
    "clip_fraction": Mean(("actor/pg_clipfrac",),
                          "share of tokens with a clipped ratio, mean over training"),
    "policy_kl": Mean(("actor/ppo_kl",),
                      "KL between sampling and updated policy, mean over training", "nats"),
    "reference_kl": Mean(("actor/kl_loss",),
                         "KL loss to the reference policy, mean over training", "nats"),
    "grad_norm": Mean(("actor/grad_norm", "train/grad_norm", "grad_norm"),
                      "gradient norm before clipping, mean over training"),
    "entropy": Mean(("actor/entropy", "actor/entropy_loss", "train/entropy", "entropy"),
                    "entropy of the policy, mean over training", "nats"),
    "reward": Mean(("critic/score/mean", "train/reward", "rollout/reward", "reward"),
                   "training reward, mean over training"),
    "response_length": Mean(("response_length/mean", "train/completions/mean_length",
                             "completions/mean_length", "rollout/response_len/mean"),
                            "tokens per completion, mean over training", "tokens"),
    "throughput": Mean(("perf/throughput",), "tokens per second and GPU, mean over training",
                       "tokens s-1"),
    "tokens_per_step": Mean(("perf/total_num_tokens",),
                            "tokens per trainer step, mean over training", "tokens"),
}
"""Variable of the sweep to what it is read from."""

OFF_POLICY = ("clip_fraction", "policy_kl", "reference_kl")
"""Kept where some run makes several updates per trainer step."""


def training_means(
    histories: Sequence[pd.DataFrame], updates_per_step: Sequence[int]
) -> dict[str, list[float]]:
    """Return each run's means over training of `MEANS`.

    Parameters
    ----------
    histories : sequence of DataFrame
        One per run, index trainer steps.
    updates_per_step : sequence of int
        Optimizer updates per trainer step, one per run.

    Returns
    -------
    dict
        Variable to a value per run, NaN where not logged; variables that no run logged are left
        out, and those of `OFF_POLICY` where every run makes one update per trainer step.
    """
    on_policy = max(updates_per_step, default=1) <= 1
    means = {name: [_mean(history, mean.keys) for history in histories]
             for name, mean in MEANS.items() if not (on_policy and name in OFF_POLICY)}
    return {name: values for name, values in means.items() if np.isfinite(values).any()}


def _mean(history: pd.DataFrame, keys: Sequence[str]) -> float:
    for key in keys:
        values = column(history, key)
        if np.isfinite(values).any():
            return float(values[np.isfinite(values)].mean())
    return np.nan


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
    key = next((key for key in _STEP_KEYS if key in history.columns), "")
    seconds = column(history, key)
    usable = np.isfinite(seconds) & (seconds > 0)
    if not usable.any():
        return np.nan
    usable[np.argmax(usable)] = False
    usable &= ~(column(history, "timing_s/save_checkpoint") > 0)
    testing = np.nan_to_num(column(history, "timing_s/testing"))
    if (usable & (testing <= 0)).any():
        usable &= testing <= 0
    else:  # validation is inside the step where the timed parts leave room for it
        parts = np.nansum([column(history, key) for key in _PART_KEYS], axis=0)
        inside = (parts > 0) & (seconds - parts > 0.5 * testing)
        seconds = seconds - np.where(inside, testing, 0.0)
    return float(np.median(seconds[usable])) if usable.any() else np.nan


def signal_fraction(history: pd.DataFrame) -> float:
    """Return the mean share of prompt groups with non-zero advantage over training.

    Read from the first column called ``signal_fraction``, else from 1 minus the one called
    ``frac_zero_adv`` or ``frac_reward_zero_std``, with or without a prefix; NaN where the log has
    none.
    """
    for name in ("signal_fraction", "frac_zero_adv", "frac_reward_zero_std"):
        for key in sorted(str(c) for c in history.columns if str(c).rpartition("/")[2] == name):
            values = column(history, key)
            values = values[np.isfinite(values)]
            if values.size:
                return float(np.mean(values if name == "signal_fraction" else 1 - values))
    return np.nan
