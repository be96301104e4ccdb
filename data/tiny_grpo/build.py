"""Make ``sweep.nc`` from ``curves.parquet``: ``python data/tiny_grpo/build.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.sweep.dataset import new_sweep
from cbsbayes.sweep.files import write_sweep

__all__ = ["build"]

HERE = Path(__file__).resolve().parent
METRIC = "tiny/add3"
NOTES = [
    "The validation set is one fixed set of 1,024 additions; it shares 4 of the 100 pairs of "
    "units digits with training.",
    "Groups of one rollout used the raw reward as advantage, without a group baseline.",
    "Seconds per step were measured on two shared CPU cores and carry the machine's load.",
]


def build(curves: pd.DataFrame) -> xr.Dataset:
    """Return the sweep dataset of the logged curves (columns: see the README)."""
    accuracy = curves.pivot(index="run", columns="step", values="accuracy")
    runs = curves.groupby("run").agg(
        phase=("phase", "first"), seed=("seed", "first"), n_prompts=("n_prompts", "first"),
        n_rollouts=("n_rollouts", "first"), learning_rate=("learning_rate", "first"),
        first_step=("step", "min"), signal_fraction=("frac_zero_adv", lambda x: 1 - x.mean()))
    # The first timed row holds the warm-up; the row before training has no time.
    timed = curves[curves["step"] > curves["step"][curves["seconds_per_step"].notna()].min()]
    runs["step_time"] = timed.groupby("run")["seconds_per_step"].median()
    single = runs["n_rollouts"] == 1
    runs["remark"] = np.where(single, "one rollout: raw reward as advantage, no baseline", "")
    runs = runs.loc[accuracy.index].reset_index().assign(
        name=accuracy.index, model="tiny", dataset="add", algorithm="grpo", state="finished",
        source="table")
    runs["train_batch_prompts"] = runs["mini_batch_prompts"] = runs["n_prompts"]
    norms = curves.pivot(index="run", columns="step", values="grad_norm") ** 2
    ds = new_sweep(
        runs, accuracy=accuracy.to_numpy()[:, None], step=accuracy.columns, metric=[METRIC],
        grad_norm_sq=norms.loc[accuracy.index],
        n_items=[curves["n_items"].iloc[0]], title="tiny_grpo: GRPO on three-digit addition, a "
        "101,568-parameter transformer", history="2026-11: built by data/tiny_grpo/build.py from "
        "curves.parquet", notes=NOTES)
    ds["step_time"].attrs["leaves_out"] = "the first logged step; evaluation is not timed"
    return ds


if __name__ == "__main__":
    write_sweep(build(pd.read_parquet(HERE / "curves.parquet")), HERE / "sweep.nc")
