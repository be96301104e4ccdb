"""A simulated sweep of reuse factors, for tests: curves whose speed is known in every cell."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cbsbayes.sweep.build import new_sweep

PROMPTS, FACTORS, ROLLOUTS = (32, 64, 128, 256), (1, 2, 4, 8), 8
SLOWDOWN = {1: 1.0, 2: 1.15, 4: 1.6, 8: 2.8}  # of updates; samples fall by SLOWDOWN / factor
_START, _GAIN, _SCALE = 0.2, 0.7, 60.0


def true_steps(prompts, factor, threshold):
    """Return the updates of a typical run."""
    progress = -_SCALE * np.log(1 - (threshold - _START) / _GAIN)
    return progress * (1 + 100 / prompts) * SLOWDOWN[factor]


def reuse_sweep(seeds=2, sigma=0.08, factors=FACTORS, prompts=PROMPTS, last=900, seed=0,
                logged=True, model="m"):
    """Return the sweep; marked as simulated."""
    rng = np.random.default_rng(seed)
    step = np.arange(0.0, last + 1, 16)
    rows, curves = [], []
    for p in prompts:
        for k in factors:
            for s in range(seeds):
                speed = np.exp(rng.normal(0, sigma)) * (1 + 100 / p) * SLOWDOWN[k]
                curve = _START + _GAIN * (1 - np.exp(-step / (_SCALE * speed)))
                curves.append(np.where(step % k == 0, curve, np.nan))
                rows.append({"run": f"p3_{model}_np{p}_k{k}_s{s}", "phase": "p3", "model": model,
                             "dataset": "d", "algorithm": "grpo", "n_prompts": p,
                             "n_rollouts": ROLLOUTS, "train_batch_prompts": p, "ppo_epochs": k,
                             "updates_per_step": k, "learning_rate": 1e-6, "seed": s,
                             "clip_fraction": 0.01 * (k - 1), "policy_kl": 0.001 * (k - 1)})
    table = pd.DataFrame(rows)
    if not logged:
        table = table.drop(columns=["clip_fraction", "policy_kl"])
    ds = new_sweep(table, accuracy=np.array(curves)[:, None, :], step=step, metric=["m"])
    ds.attrs["simulated"] = 1
    return ds
