"""Does a ramp of batch sizes take what was said before it was run? ``python benchmarks/ramp_runs.py``.

`data/verl_lr/ramp.csv` has verl runs that changed their batch and learning rate where they first
scored an accuracy, going on from the checkpoint. The runs of constant batches in
``data/verl_lr/sweep.nc`` are fitted, and the updates and samples that the ramp took to each target
are laid beside what they predict for one new run (median and 90 % interval): up to the change what
the first batch takes, from there what the second takes between the two targets.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from left_out_seeds import DATA

from cbsbayes.crossings.intervals import monotone_rows
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.sweep.files import read_sweep

THRESHOLDS = (0.5, 0.6, 0.7, 0.8)


def predicted(fit: Fit, parts: pd.DataFrame, targets: tuple[float, float]) -> pd.DataFrame:
    """Return draws of a new run's updates at each batch of the ramp, columns first and second."""
    draws = np.exp(fit.new_run(parts["n_prompts"].values, parts["n_rollouts"].values,
                               learning_rate=parts["learning_rate"].values))
    first = draws.isel(batch=0).sel(threshold=targets[0]).values
    second = draws.isel(batch=1)
    return pd.DataFrame({"first": first, "second": (
        second.sel(threshold=targets[1]) - second.sel(threshold=targets[0])).values})


def observed(run: pd.DataFrame, targets: tuple[float, float]) -> tuple[float, float]:
    """Return the updates at which a run's monotone curve reaches both targets."""
    run = run.sort_values("step")
    curve = monotone_rows(run["accuracy"].to_numpy()[None])[0]
    reached = [run["step"].to_numpy()[curve >= target] for target in targets]
    return float(reached[0][0]), float(reached[1][0])


def main() -> None:
    """Fit, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", default="0.6,0.8", help="of the change and of the end")
    options = parser.parse_args()
    start, end = (float(text) for text in options.targets.split(","))
    table = pd.read_csv(DATA / "verl_lr" / "ramp.csv")
    parts = table.groupby("part")[["n_prompts", "n_rollouts", "learning_rate"]].first()
    fit = fit_sweep(read_sweep(DATA / "verl_lr" / "sweep.nc"), thresholds=THRESHOLDS,
                    alternatives=False, sampler=SamplerSettings())
    said, sizes = predicted(fit, parts, (start, end)), parts["n_prompts"] * parts["n_rollouts"]
    print(parts.to_string(), "\n")
    rows = []
    for seed, run in table.groupby("seed"):
        first, whole = observed(run, (start, end))
        changed = run.loc[run["part"] == 2, "step"].min()
        rows.append({"seed": seed, f"updates to {start:g}": first, "changed after": changed,
                     f"updates to {end:g}": whole,
                     "samples": changed * sizes.iloc[0] + (whole - changed) * sizes.iloc[1]})
    runs = pd.DataFrame(rows)
    print(runs.to_string(index=False), "\n")
    samples = said["first"] * sizes.iloc[0] + said["second"] * sizes.iloc[1]
    for name, draws, seen in (
        (f"updates to {start:g}", said["first"], runs[f"updates to {start:g}"]),
        (f"updates from {start:g} to {end:g}", said["second"],
         runs[f"updates to {end:g}"] - runs[f"updates to {start:g}"]),
        (f"updates to {end:g}", said.sum(axis=1), runs[f"updates to {end:g}"]),
        ("samples", samples, runs["samples"])):
        low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95])
        print(f"{name}: said {middle:.4g} ({low:.4g} to {high:.4g}) for a new run; mean of "
              f"{len(seen)} runs {seen.mean():.4g}, inside "
              f"{((seen >= low) & (seen <= high)).sum()}")


if __name__ == "__main__":
    main()
