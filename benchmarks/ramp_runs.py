"""Does a ramp of batch sizes take what was said before? ``python benchmarks/ramp_runs.py``.

``data/verl_lr/ramp.csv`` has verl runs that changed their batch and learning rate where they first
scored an accuracy and went on from the checkpoint (parts 1 and 2), and some of the constant batch
that the ramp was compared with (part 0). The constant batches of ``data/verl_lr/sweep.nc`` are
fitted, and what the runs took is laid beside what the fit says of one new run (median and 90 %
interval): up to the change what the first batch takes, from there what the second takes from one
target to the other.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from left_out_seeds import DATA

from cbsbayes.crossings.intervals import monotone_rows
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.sweep.files import read_sweep

THRESHOLDS = (0.5, 0.6, 0.7, 0.8)


def predicted(fit: Fit, parts: pd.DataFrame, targets: tuple[float, float]) -> pd.DataFrame:
    """Return draws of what one new run takes, a column for each number compared."""
    draws = np.exp(fit.new_run(*(parts[name].values for name in ("n_prompts", "n_rollouts")),
                               learning_rate=parts["learning_rate"].values))
    start, end = (draws.sel(threshold=target).transpose("batch", "sample").values
                  for target in targets)
    sizes = (parts["n_prompts"] * parts["n_rollouts"]).values
    later = end[2] - start[2]
    return pd.DataFrame({"to the change": start[1], "from there": later,
                         "ramp": start[1] + later, "its samples": sizes[1] * start[1]
                         + sizes[2] * later, "constant": end[0], "constant's samples":
                         sizes[0] * end[0]})


def observed(
    table: pd.DataFrame, parts: pd.DataFrame, targets: tuple[float, float]
) -> pd.DataFrame:
    """Return what the runs took by their monotone curves, a row for each; NaN of the other kind."""
    sizes, rows = parts["n_prompts"] * parts["n_rollouts"], []
    for (_, constant), run in table.groupby(["seed", table["part"] == 0]):
        step = run["step"].to_numpy()
        curve = monotone_rows(run["accuracy"].to_numpy()[None])[0]
        start, end = (step[curve >= target][0] for target in targets)
        if constant:
            rows.append({"constant": end, "constant's samples": end * sizes[0]})
            continue
        change = run.loc[run["part"] == 1, "step"].max()
        rows.append({"to the change": start, "from there": end - start, "ramp": end,
                     "its samples": change * sizes[1] + (end - change) * sizes[2]})
    return pd.DataFrame(rows)


def main() -> None:
    """Fit, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", default="0.6,0.8", help="of the change and of the end")
    options = parser.parse_args()
    start, end = (float(text) for text in options.targets.split(","))
    table = pd.read_csv(DATA / "verl_lr" / "ramp.csv")
    parts = table.groupby("part")[["n_prompts", "n_rollouts", "learning_rate"]].first()
    fit = fit_sweep(read_sweep(DATA / "verl_lr" / "sweep.nc"), thresholds=THRESHOLDS,
                    alternatives=False)
    said, seen = predicted(fit, parts, (start, end)), observed(table, parts, (start, end))
    print(parts.to_string(), "\n")
    print(seen.to_string(index=False, na_rep=""), "\n")
    for name in said:
        low, middle, high = np.quantile(said[name], [0.05, 0.5, 0.95])
        runs = seen[name].dropna()
        print(f"{name}: said {middle:.4g} ({low:.4g} to {high:.4g}), {len(runs)} runs took "
              f"{runs.mean():.4g} on average, {((runs >= low) & (runs <= high)).sum()} inside")


if __name__ == "__main__":
    main()
