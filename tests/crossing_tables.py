"""Crossings made up for tests of the model: every kind of censoring, one axis or two."""

from __future__ import annotations

import numpy as np
import xarray as xr

from cbsbayes.crossings.intervals import INTERVAL, LEFT, RIGHT, UNUSABLE
from cbsbayes.models.laws import Law

THRESHOLDS = np.array([0.4, 0.5, 0.65, 0.8])


def crossings_table(law: Law, n_thresholds: int = 4, n_runs: int = 12, seed: int = 0) -> xr.Dataset:
    """Return crossings with left, right and interval censoring, exact S and gaps."""
    rng = np.random.default_rng(seed)
    threshold = THRESHOLDS[:n_thresholds]
    prompts = rng.choice([16, 32, 64, 128, 256], n_runs)
    rollouts = rng.choice([2, 4, 8, 16], n_runs)
    n_prompts, n_rollouts = (prompts, rollouts) if law.two_axis else (np.full(n_runs, -1),) * 2
    steps = (40 * (1 + 90 / prompts[:, None] + 300 / (prompts * rollouts)[:, None])
             * np.exp(np.arange(n_thresholds) * 0.5 + rng.normal(0, 0.1, (n_runs, n_thresholds))))
    lower, upper = np.floor(steps / 10) * 10, np.floor(steps / 10) * 10 + 10
    status = np.full(steps.shape, INTERVAL)
    lower[0], upper[0] = steps[0], steps[0]  # measured exactly
    for run, code, low, high in ((1, LEFT, 0.0, None), (2, RIGHT, None, np.inf),
                                 (3, UNUSABLE, np.nan, np.nan)):
        at = -1 if code == RIGHT else 0
        status[run, at] = code
        lower[run, at] = lower[run, at] if low is None else low
        upper[run, at] = upper[run, at] if high is None else high
    coords = {"run": [f"run{i}" for i in range(n_runs)], "threshold": threshold,
              "n_prompts": ("run", n_prompts), "n_rollouts": ("run", n_rollouts),
              "total_batch": ("run", (prompts * rollouts).astype(float)),
              "learning_rate": ("run", rng.choice([1e-6, 1.5e-6, 2e-6], n_runs))}
    dims = ("run", "threshold")
    return xr.Dataset({"lower": (dims, lower), "upper": (dims, upper), "status": (dims, status)},
                      coords=coords, attrs={"direction": "increasing"})


def all_left(law: Law) -> xr.Dataset:
    """Return a sweep whose every run was past every threshold at its first evaluation."""
    table = crossings_table(law)
    dims = ("run", "threshold")
    shape = table["status"].shape
    return table.assign(status=(dims, np.full(shape, LEFT)), lower=(dims, np.zeros(shape)),
                        upper=(dims, np.full(shape, 5.0)))
