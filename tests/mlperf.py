"""Public measurements as sweeps of crossings, read from the formats they were published in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.sweep.dataset import new_sweep


def reference_sweep(
    path: Path, *, grid: float = 0.0, samples: float = 1.0, below: float = np.inf
) -> xr.Dataset:
    """Return reference convergence points as crossings of one target, called 1.

    `grid` is the distance of evaluations in the file's unit (0: taken as exact; one larger than
    what a run took: known as a bound only), `samples` the samples in that unit; runs that took
    `below` or more are left out.
    """
    cells = json.loads(path.read_text(encoding="utf-8"))
    runs = pd.DataFrame([
        {"run": f"{cell}_{seed}", "total_batch": float(points["BS"]), "taken": float(taken)}
        for cell, points in cells.items() for seed, taken in enumerate(points["Epochs to converge"])
        if taken < below])
    lower, upper = (taken.to_numpy()[:, None] * samples / runs[["total_batch"]].to_numpy()
                    for taken in ((runs["taken"] - grid).clip(lower=0), runs["taken"]))
    return new_sweep(runs[["run", "total_batch"]], steps_lower=lower, steps_upper=upper,
                     threshold=[1.0])


def pretraining_sweep(path: Path, size: str, *, exact: bool) -> xr.Dataset:
    """Return steps to the goal loss of one model size (Zhang et al. 2024), a run per batch size.

    Not exact: evaluations lay on an unknown grid, of which the round numbers tell the spacing (a
    power of ten, at most 1,000): S lies in (S - spacing, S].
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    upper = np.array(data["steps_to_goal_cell5_used_for_fit"][size])
    spacing = np.array([max(p for p in (1, 10, 100, 1000) if s % p == 0) for s in upper])
    batch = np.array(data["batch_sizes_sequences"], dtype=float)
    return new_sweep({"run": [f"B{b:g}" for b in batch], "total_batch": batch, "model": size},
                     steps_lower=(upper - (0 if exact else spacing))[:, None],
                     steps_upper=upper[:, None], threshold=[data["goal_loss"][size]],
                     direction="decreasing")


def grpo_sweep(folder: Path) -> xr.Dataset:
    """Return the Qwen3.5 GRPO reference runs as curves, from their ``:::MLLOG`` lines."""
    runs, points = [], []
    for path in sorted(folder.glob("GBS*/seed_*.out")):
        events = _events(path)
        evaluations = [e for e in events if e["key"] == "eval_accuracy"]
        known = {e["key"]: e["value"] for e in events if e["event_type"] == "POINT_IN_TIME"}
        batch = known["global_batch_size"]
        runs.append({"run": f"{path.parent.name}_{path.stem}", "seed": known["seed"],
                     "n_prompts": known["num_prompts_per_step"],
                     "n_rollouts": known["num_generations_per_prompt"], "algorithm": "grpo"})
        points.append({e["metadata"]["samples_count"] / batch: e["value"] for e in evaluations})
    curves = pd.DataFrame(points).sort_index(axis=1)
    return new_sweep(pd.DataFrame(runs), accuracy=curves.to_numpy()[:, None], step=curves.columns,
                     metric=["r2e_gym/pass@4"])


def _events(path: Path) -> list[dict]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line.split(":::MLLOG ", 1)[1]) for line in lines if ":::MLLOG " in line]
