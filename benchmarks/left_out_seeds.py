"""Do predictions hold for seeds that were left out? ``python benchmarks/left_out_seeds.py``.

Every seed of a shipped sweep is left out in turn, each model is fitted to the others, and the
crossings of the runs left out are laid beside 90 % predictive intervals for a new run at their
batch. Printed by threshold: the share of crossings inside, the median log width of the intervals,
and the root mean square and the mean of observed over predicted log S, both averaged over the seeds
of a batch first. A crossing is known between two evaluations only: of the predictive probability
between them, the part that lies in the interval counts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.intervals import INTERVAL, LEFT, UNUSABLE, find_crossings
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.selection import MODELS
from cbsbayes.sweep.files import read_sweep

DATA = Path(__file__).parents[1] / "data"
SWEEPS = {"verl_tiny": (0.4, 0.6, 0.8, 0.9), "tiny_grpo": (0.5, 0.7, 0.8, 0.9)}


def predicted(fit: Fit, held: xr.Dataset, seed: int, thresholds: tuple[float, ...]) -> pd.DataFrame:
    """Return observed and predicted crossings of the runs of one seed."""
    crossings = find_crossings(held, thresholds, metric=fit.settings["metric"])
    fitted, rows = fit.crossings, []
    for i, name in enumerate(held["run"].values.astype(str)):
        cell = (float(held["n_prompts"][i]), float(held["n_rollouts"][i]))
        same = np.flatnonzero((fitted["n_prompts"].values == cell[0])
                              & (fitted["n_rollouts"].values == cell[1]))
        if not len(same):
            continue
        for t in thresholds:
            found = crossings.sel(run=name, threshold=t)
            draws = fit.predictive["steps"].isel(run=same[0]).sel(threshold=t).values
            lower, middle, upper = np.log(np.quantile(draws, [0.05, 0.5, 0.95]))
            low, high = float(found["lower"]), float(found["upper"])
            status = int(found["status"])
            if status == UNUSABLE:
                continue
            inside = share_inside(draws, low if status != LEFT else 0.0, high)
            observed = 0.5 * (np.log(low) + np.log(high)) if status == INTERVAL else np.nan
            rows.append({"seed": seed, "cell": cell, "threshold": t, "inside": inside,
                         "width": upper - lower, "error": observed - middle})
    return pd.DataFrame(rows)


def share_inside(draws: np.ndarray, low: float, high: float) -> float:
    """Return which part of the predictive probability between two updates is in the 90 %."""
    below, above = np.mean(draws <= low), np.mean(draws <= high)
    if above == below:
        return float(0.05 <= below <= 0.95)
    return max(min(above, 0.95) - max(below, 0.05), 0.0) / (above - below)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return cover, width and errors of cell means by threshold."""
    means = rows.groupby(["threshold", "cell"])["error"].mean().groupby("threshold")
    by = rows.groupby("threshold")
    return pd.DataFrame({"runs": by.size(), "cover": by["inside"].mean(),
                         "width": by["width"].median(),
                         "rms": means.apply(lambda e: np.sqrt(np.nanmean(e**2))),
                         "mean": means.mean()})


def main() -> None:
    """Fit, predict and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", choices=list(SWEEPS), default="verl_tiny")
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated")
    parser.add_argument("--law", default="two_axis_free")
    parser.add_argument("--draws", type=int, default=500)
    options = parser.parse_args()
    sweep, thresholds = read_sweep(DATA / options.sweep / "sweep.nc"), SWEEPS[options.sweep]
    sweep = sweep.isel(run=np.flatnonzero(sweep["n_rollouts"].values >= 2))
    settings = SamplerSettings(chains=2, draws=options.draws, tune=options.draws)
    for model in options.models.split(","):
        parts = []
        for seed in np.unique(sweep["seed"].values).tolist():
            left = sweep["seed"].values == seed
            fit = fit_sweep(sweep.isel(run=np.flatnonzero(~left)), law=options.law, model=model,
                            thresholds=thresholds, sampler=settings, alternatives=False)
            parts.append(predicted(fit, sweep.isel(run=np.flatnonzero(left)), seed, thresholds))
            alpha = fit.posterior.get("alpha")
            if alpha is not None:
                ends = np.quantile(alpha, [0.05, 0.5, 0.95]).round(2)
                print(f"{model}, without seed {seed}: alpha {ends[1]} ({ends[0]} to {ends[2]})")
        print(f"\n{options.sweep}, {model}, law {options.law}")
        print(summary(pd.concat(parts)).round(3).to_string(), "\n", flush=True)


if __name__ == "__main__":
    main()
