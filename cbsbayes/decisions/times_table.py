"""Times to the target as a tidy table: hours, GPU-hours, price and samples of every batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.time_to_target import NEW, TYPICAL, Machine, Times, quantiles

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["TIME_COLUMNS", "times_table"]

TIME_COLUMNS = [
    "group", "law", "threshold", "n_prompts", "n_rollouts", "total_batch", "range", "gpus",
    "gpus_measured", "applies_to", "seconds_per_update", "hours", "hours_lower", "hours_upper",
    "gpu_hours", "gpu_hours_lower", "gpu_hours_upper", "price", "price_lower", "price_upper",
    "samples", "samples_lower", "samples_upper", "p_fastest", "ci_prob"]


def times_table(fit: Fit, times: Times) -> pd.DataFrame:
    """Return the table of ``times.csv``, columns `TIME_COLUMNS`.

    A row per threshold, kind of run, GPU count and batch. ``p_fastest`` is the probability that no
    other batch of the grid inside the range tried takes a typical run less time, on as many GPUs.
    GPU-hours and price are empty where the number of GPUs or the price is not known.
    """
    prob = float(fit.settings["ci_prob"])
    rows = [{"group": fit.group, "law": fit.law.name, "ci_prob": prob, **row}
            for row in _rows(times, prob)]
    return pd.DataFrame(rows, columns=TIME_COLUMNS)


def _rows(times: Times, prob: float) -> Iterable[dict[str, Any]]:
    counts = times.machine.counts
    for k, threshold in enumerate(times.thresholds):
        for kind in (TYPICAL, NEW):
            samples = quantiles(times.samples(kind)[:, k], prob)
            for g, count in enumerate(counts):
                hours = quantiles(times.hours[kind][:, k, :, g], prob)
                fastest = _p_fastest(times, k, g) if kind == TYPICAL else None
                for b, (prompts, rollouts) in enumerate(times.batches):
                    yield {"threshold": threshold, **_batch(times, prompts, rollouts),
                           "range": times.range[b], "applies_to": kind,
                           "gpus": count if times.machine.gpus else np.nan,
                           "gpus_measured": g == 0,
                           "seconds_per_update": float(np.median(times.seconds[:, b, g])),
                           **_named("hours", hours[:, b]), **_named("samples", samples[:, b]),
                           **_costs(times.machine, count, hours[:, b]),
                           "p_fastest": np.nan if fastest is None else fastest[b]}


def _batch(times: Times, prompts: float, rollouts: float) -> dict[str, float]:
    return {"n_prompts": prompts, "n_rollouts": rollouts, "total_batch": prompts * rollouts}


def _costs(machine: Machine, count: int, hours: np.ndarray) -> dict[str, float]:
    if not machine.gpus:
        return {}
    costs = _named("gpu_hours", hours * count)
    if machine.price is not None:
        costs |= _named("price", hours * count * machine.price)
    return costs


def _named(name: str, three: np.ndarray) -> dict[str, float]:
    return dict(zip((name, f"{name}_lower", f"{name}_upper"), three.tolist(), strict=True))


def _p_fastest(times: Times, k: int, g: int) -> np.ndarray:
    hours = np.where(times.inside, times.hours[TYPICAL][:, k, :, g], np.inf)
    arrives = np.isfinite(hours.min(axis=1))  # else none is the fastest
    best = np.bincount(hours[arrives].argmin(axis=1), minlength=hours.shape[1]) / len(hours)
    return np.where(times.inside, best, np.nan)
