"""Do intervals hold the truth with measured noise as data: a count over simulated sweeps.

``python benchmarks/noise_joint_coverage.py``

Simulated sweeps log gradient noise with a known offset to the noise that slows them
(`cbsbayes.simulation.noise`). Exponent and offset of every sweep are drawn from their priors. Four
fits of each under ``two_axis_free``, two chains of 500 draws:

``without``  all runs (one seed of p1, p2b and p2c), as fitted by default
``with``     the same runs with their noise as data (``--use-gradient-noise``)
``norms``    the same runs with their gradient norms as data instead
``anchor``   two runs of one batch, (64, 8), with their noise as data

Printed by quantity: median log error, share of nominal 90 % intervals that hold the truth with the
Monte Carlo error over sweeps, and median log width. ``S elsewhere`` is S of a population at every
other batch of the design. True noise scales are averages over progress; delta's truth is the
offset of the measurement.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.models.laws import get_law
from cbsbayes.models.parameters import NOISE_PRIORS, PRIORS
from cbsbayes.noise.logged import norms_at_accuracy, probes_at_accuracy
from cbsbayes.posterior.fit import Fit, stacked
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.surface import Surface
from cbsbayes.simulation.noise import with_gradient_noise, with_gradient_norms
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.simulation.truth import true_steps

THRESHOLDS = (0.60, 0.65, 0.70, 0.72)
ANCHOR = (64, 8)
LAW = "two_axis_free"
NOISE_OF = {"with": probes_at_accuracy, "anchor": probes_at_accuracy, "norms": norms_at_accuracy}


def simulated(seed: int, alpha: float | None, offset: float | None) -> xr.Dataset:
    """Return a sweep of 19 batches and a second seed of the anchor's, with its noise."""
    rng = np.random.default_rng([7, seed])
    mean, sd, lower, upper = PRIORS.alpha
    while alpha is None or not lower < alpha < upper:
        alpha = float(rng.normal(mean, sd))
    offset = float(rng.normal(0, NOISE_PRIORS.offset_sd)) if offset is None else offset
    ds = simulate_sweep("p1+p2b+p2c", 2, alpha=alpha, random_seed=seed)
    probed = with_gradient_noise(ds, every=20, offset=offset, random_seed=seed)
    return with_gradient_norms(probed, offset=offset, random_seed=seed)


def errors(fit: Fit, ds: xr.Dataset, name: str) -> list[dict[str, object]]:
    """Return log error, width and cover of every quantity of a fit."""
    draws = stacked(fit.posterior)
    rows = []

    def add(quantity: str, log_draws: np.ndarray, log_truth: float, threshold: float) -> None:
        low, middle, high = np.quantile(log_draws, [0.05, 0.5, 0.95])
        rows.append({"fit": name, "quantity": quantity, "threshold": threshold,
                     "error": middle - log_truth, "width": high - low,
                     "inside": low <= log_truth <= high})

    add("alpha", draws["alpha"].values, float(ds.attrs["true_alpha"]), np.nan)
    if "noise_offset" in draws:
        add("delta", draws["noise_offset"].values, float(ds.attrs["true_noise_offset"]), np.nan)
    for k, t in enumerate(draws["threshold"].values.tolist()):  # those that were reached
        for quantity, log_draws, truth in _by_threshold(fit, draws.isel(threshold=k), ds, t):
            add(quantity, log_draws, truth, t)
    return rows


def _by_threshold(fit: Fit, draws: xr.Dataset, ds: xr.Dataset, t: float) -> list[tuple]:
    from cbsbayes.simulation.truth import mean_noise, progress_at, truth_of

    truth = truth_of(ds)
    mean = mean_noise(truth, t)
    surface = Surface(fit.law, draws)

    def log_s(p: float, g: float) -> tuple[np.ndarray, float]:
        return surface.log_steps(p, g).values, float(np.log(true_steps(truth, p, g, t)))

    at, doubled = log_s(128, 8), log_s(256, 8)
    noise = get_law("two_axis").noise_in_prompts(8, draws["B_prompt"], draws["B_rollout"]).values
    rows = [("S_min", np.log(draws["S_min"].values), float(np.log(progress_at(truth, t)))),
            ("B_prompt", np.log(draws["B_prompt"].values), np.log(mean["B_prompt"])),
            ("B_rollout", np.log(draws["B_rollout"].values), np.log(mean["B_rollout"])),
            ("N(8)", np.log(noise), np.log(mean["B_prompt"] + mean["B_rollout"] / 7)),
            ("S(128,8)", *at), ("gain_prompts", doubled[0] - at[0], doubled[1] - at[1])]
    cells = {(int(p), int(g)) for p, g in zip(ds["n_prompts"].values, ds["n_rollouts"].values,
                                              strict=True) if g > 1} - {ANCHOR}
    return rows + [("S elsewhere", *log_s(*cell)) for cell in sorted(cells)]


def chosen(ds: xr.Dataset, name: str) -> xr.Dataset:
    """Return the runs of one of the fits."""
    if name == "anchor":
        same = (ds["n_prompts"].values == ANCHOR[0]) & (ds["n_rollouts"].values == ANCHOR[1])
        return ds.isel(run=np.flatnonzero(same))
    return ds.isel(run=np.flatnonzero(ds["seed"].values == ds["seed"].values.min()))


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return error, cover with its Monte Carlo error, and width by fit and quantity."""
    out = []
    for (name, quantity), part in rows.groupby(["fit", "quantity"], sort=False):
        by_sweep = part.groupby("sweep")["inside"].mean()
        out.append({"fit": name, "quantity": quantity, "error": part["error"].median(),
                    "cover": by_sweep.mean(), "mc": by_sweep.std() / np.sqrt(len(by_sweep)),
                    "width": part["width"].median(), "rms": np.sqrt((part["error"]**2).mean()),
                    "sweeps": len(by_sweep)})
    return pd.DataFrame(out)


def main() -> None:
    """Simulate, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, help="seed of the first sweep")
    parser.add_argument("--fits", default="without,with,norms,anchor", help="comma-separated")
    parser.add_argument("--alpha", type=float, help="one exponent for all; default: its prior")
    parser.add_argument("--offset", type=float, help="one offset for all; default: its prior")
    parser.add_argument("--rows", help="CSV file to write every single row to")
    options = parser.parse_args()
    settings, rows, started = SamplerSettings(chains=2, draws=500, tune=500), [], time.time()
    for seed in range(options.first, options.first + options.sweeps):
        ds = simulated(seed, options.alpha, options.offset)
        for name in options.fits.split(","):
            try:
                fit = fit_sweep(chosen(ds, name), law=LAW, thresholds=THRESHOLDS,
                                alternatives=False, sampler=settings,
                                noise=None if name == "without" else NOISE_OF[name](ds, None))
            except CBSDataError as error:
                print(f"sweep {seed}, {name}: not fitted: {error}", flush=True)
                continue
            found = [{"sweep": seed, **row} for row in errors(fit, ds, name)]
            rows += found
            worst = fit.verdict["diagnostics"]
            if worst["r_hat_max"] > 1.05 or worst["divergences"] > 0:
                print(f"sweep {seed}, {name}: r_hat {worst['r_hat_max']:.3f}, "
                      f"{worst['divergences']:.0f} divergences", flush=True)
        if options.rows:
            pd.DataFrame(rows).to_csv(options.rows, index=False)
    print(summary(pd.DataFrame(rows)).round(3).to_string(index=False))
    print(f"{time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
