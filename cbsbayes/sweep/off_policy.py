"""How far a run's updates strayed from the policy that sampled: clip fraction and KL, by run.

With several optimizer updates per trainer step, all but the first work on samples of an older
policy. verl logs the share of tokens whose ratio was clipped and the KL between the two policies as
means over the updates of a trainer step; both are zero by construction with one update per step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

__all__ = ["OFF_POLICY_KEYS", "off_policy_means"]

OFF_POLICY_KEYS = {"clip_fraction": "actor/pg_clipfrac", "policy_kl": "actor/ppo_kl",
                   "reference_kl": "actor/kl_loss"}
"""Variable of the sweep to verl's key."""


def off_policy_means(
    histories: Sequence[pd.DataFrame], updates_per_step: Sequence[int]
) -> dict[str, list[float]]:
    """Return each run's mean over training of what was logged of `OFF_POLICY_KEYS`.

    Parameters
    ----------
    histories : sequence of DataFrame
        One per run, index trainer steps.
    updates_per_step : sequence of int
        Optimizer updates per trainer step, one per run.

    Returns
    -------
    dict
        Variable to a value per run, NaN where not logged; empty where every run makes one update
        per trainer step, for then there is nothing to tell.
    """
    if max(updates_per_step, default=1) <= 1:
        return {}
    means = {name: [_mean(history, key) for history in histories]
             for name, key in OFF_POLICY_KEYS.items()}
    return {name: values for name, values in means.items() if np.isfinite(values).any()}


def _mean(history: pd.DataFrame, key: str) -> float:
    if key not in history.columns:
        return float("nan")
    values = history[key].to_numpy(dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")
