"""Importance sampling against the walkers: ``python benchmarks/importance.py``.

The crossing model with run effects integrated out, on simulated sweeps: draws of a multivariate t
around the mode, reweighted, and once more from the mean and covariance that the first round found;
beside them the sampler that a fit uses. The share of effective draws is 1/(n Σ w²) for weights w
and the least bulk ESS over n for walkers. A row is the median of all sweeps, worst in brackets.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
from arviz_stats.base import array_stats
from samplers import LAW
from scipy.special import gammaln

from cbsbayes.crossings.intervals import choose_thresholds, find_crossings
from cbsbayes.inference.diagnostics import convergence
from cbsbayes.inference.hmc import walk
from cbsbayes.inference.mode import find_mode, root_of_covariance
from cbsbayes.models import crossing_kernel as kernel
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.crossing_flat import FlatCrossing
from cbsbayes.models.crossing_words import data_words
from cbsbayes.simulate import simulate_sweep

DRAWS, FREEDOM = 4000, 8.0
Row = tuple[float, float, float]  # share of effective draws, k-hat or r_hat, effective per CPU s


def sweep_rows(seed: int, n_seeds: int) -> list[Row]:
    """Return the rows of one simulated sweep: two rounds of importance sampling, and walkers."""
    sweep = simulate_sweep("all", n_seeds, random_seed=seed)
    sweep = sweep.isel(run=np.flatnonzero(sweep["n_rollouts"].values > 1))
    data = crossing_data(find_crossings(sweep, choose_thresholds(sweep)), LAW)
    flat = FlatCrossing(data, LAW, marginal=True)
    words, rng = data_words(flat), np.random.default_rng(seed)
    density = partial(kernel.log_density, words=words)
    mode = find_mode(density, flat.center, flat.sd)
    root = root_of_covariance(density, mode, flat.sd)
    first, middle, factor = reweighted(words, mode, root, rng)
    second, _, _ = reweighted(words, middle, factor, rng)
    start = time.process_time()
    found = walk(partial(kernel.gradients, words=words), mode, root, chains=4, draws=DRAWS // 4,
                 cores=1, random_seed=seed)
    seconds = time.process_time() - start
    checks = convergence(found.position)
    least = checks.ess_bulk.min()
    return [first, second, (least / DRAWS, checks.r_hat.max(), least / seconds)]


def reweighted(
    words: np.ndarray, middle: np.ndarray, factor: np.ndarray, rng: np.random.Generator
) -> tuple[Row, np.ndarray, np.ndarray]:
    """Return one round's row, and the mean and root of the covariance that it found."""
    start, n_dim = time.process_time(), len(middle)
    z = rng.standard_normal((DRAWS, n_dim)) * np.sqrt(FREEDOM / rng.chisquare(FREEDOM, DRAWS)
                                                      )[:, None]
    x = middle + z @ factor.T
    log_weight = kernel.log_densities(x, words)[0] - log_t(z)
    log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    seconds = time.process_time() - start
    effective = 1.0 / (weight**2).sum()
    _, k_hat = array_stats.psislw(-log_weight)  # it takes the negative of log weights
    mean = weight @ x
    covariance = (x - mean).T @ ((x - mean) * weight[:, None])
    row = (effective / DRAWS, float(k_hat), effective / seconds)
    return row, mean, np.linalg.cholesky(covariance + 1e-9 * np.diag(np.diag(covariance)))


def log_t(z: np.ndarray) -> np.ndarray:
    """Return the log density of a multivariate t but for the scale, shape (draw,)."""
    n = z.shape[1]
    return (gammaln((FREEDOM + n) / 2) - gammaln(FREEDOM / 2) - n / 2 * np.log(FREEDOM * np.pi)
            - (FREEDOM + n) / 2 * np.log1p((z**2).sum(axis=1) / FREEDOM))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=20)
    options = parser.parse_args()
    for n_seeds in (1, 3):
        rows = np.array([sweep_rows(seed, n_seeds) for seed in range(options.sweeps)])
        print(f"### {17 * n_seeds} runs, {options.sweeps} sweeps, {DRAWS} draws\n\n"
              "| | effective share | Pareto k-hat; r_hat | effective draws per CPU s |\n"
              "|---|---|---|---|")
        for k, name in enumerate(("importance sampling around the mode", "the same, adapted once",
                                  "walkers, warm-up included")):
            share, diagnostic, pace = rows[:, k].T
            print(f"| {name} | {np.median(share):.3f} ({share.min():.4f}) | "
                  f"{np.median(diagnostic):.2f} ({diagnostic.max():.2f}) | "
                  f"{np.median(pace):.0f} ({pace.min():.0f}) |")
        print(flush=True)


if __name__ == "__main__":
    main()
