"""Is a learning rate predicted that was left out? ``python benchmarks/left_out_rates.py SWEEP``.

Every learning rate of a sweep is left out in turn, the law of learning rates is fitted to the
others, and the crossings of the runs left out are laid beside 90 % predictive intervals for a new
run at their batch and rate. Printed by rate and threshold: the share of crossings inside, the
median log width of the intervals, root mean square and mean of observed over predicted log S, both
averaged over the seeds of a batch first, and ``seeds``, how far single runs scatter around the mean
of theirs. The lowest and the highest rate are extrapolations.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from left_out_seeds import share_inside, summary

from cbsbayes.crossings.intervals import INTERVAL, LEFT, UNUSABLE, find_crossings
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.sweep.files import read_sweep
from cbsbayes.sweep.groups import varied_rates


def predicted(fit: Fit, held: xr.Dataset, thresholds: list[float]) -> pd.DataFrame:
    """Return observed and predicted crossings of runs, a row for each."""
    crossings, rows = find_crossings(held, thresholds, metric=fit.settings["metric"]), []
    axes = [held[name].values for name in ("n_prompts", "n_rollouts", "learning_rate")]
    draws = np.exp(fit.new_run(*axes[:2], learning_rate=axes[2]))
    for i, cell in enumerate(zip(*(axis.tolist() for axis in axes), strict=True)):
        for threshold in thresholds:
            found = crossings.isel(run=i).sel(threshold=threshold)
            low, high, status = (found[name].item() for name in ("lower", "upper", "status"))
            if status == UNUSABLE:
                continue
            steps = draws.isel(batch=i).sel(threshold=threshold).values
            lower, middle, upper = np.log(np.quantile(steps, [0.05, 0.5, 0.95]))
            known = status == INTERVAL
            rows.append({"threshold": threshold, "cell": cell, "width": upper - lower,
                         "inside": share_inside(steps, low if status != LEFT else 0.0, high),
                         "error": 0.5 * np.log(low * high) - middle if known else np.nan})
    return pd.DataFrame(rows)


def main() -> None:
    """Fit, predict and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--thresholds", default="0.4,0.6,0.8")
    parser.add_argument("--draws", type=int, default=500)
    options = parser.parse_args()
    sweep = read_sweep(options.sweep)
    thresholds = [float(text) for text in options.thresholds.split(",")]
    settings = SamplerSettings(chains=2, draws=options.draws, tune=options.draws)
    for rate in varied_rates(sweep):
        left = np.isclose(sweep["learning_rate"].values, rate, rtol=1e-5, atol=0.0)
        fit = fit_sweep(sweep.isel(run=np.flatnonzero(~left)), thresholds=thresholds,
                        sampler=settings, alternatives=False)
        alpha = fit.posterior["alpha"].quantile([0.05, 0.5, 0.95]).values.round(2)
        print(f"\nwithout {rate:g}, law {fit.law.name}: alpha {alpha[1]} ({alpha[0]}–{alpha[2]})")
        rows = predicted(fit, sweep.isel(run=np.flatnonzero(left)), thresholds)
        of_cell = rows.groupby(["threshold", "cell"])["error"].var().groupby("threshold").mean()
        print(summary(rows).assign(seeds=of_cell**0.5).round(3).to_string(), flush=True)


if __name__ == "__main__":
    main()
