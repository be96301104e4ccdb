"""How often the step-time model's intervals hold the truth, over simulated tables of runs.

python benchmarks/step_time_coverage.py                  # 200 tables per case
python benchmarks/step_time_coverage.py --tables 40

Cells of a sweep with three seeds each; times from known t_0, c_p, c_r with a log-normal or
heavy-tailed spread, in some cases with runs that were slowed down or a floor that overlaps.
Reported with the Monte Carlo error of the share: of the coefficients where they are above 0, of
the typical step time at batches tried and one doubling beyond, and of one new run's step time.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cbsbayes.decisions.step_times import fit_step_times

ALL = [(p, 8) for p in (4, 8, 16, 32, 64)] + [(16, g) for g in (2, 4, 16, 32)]
PROMPTS = [(p, 8) for p in (16, 32, 64, 128, 256)]
SEEDS, PROB = 3, 0.9


@dataclass(frozen=True)
class Case:
    """A truth: coefficients (seconds), spread, slowed runs, how floor and work add up, cells."""

    name: str
    truth: tuple[float, float, float]
    sigma: float = 0.1
    nu: float = np.inf
    slow: tuple[float, float] = (0.0, 1.0)
    kappa: float = 1.0
    cells: tuple[tuple[int, int], ...] = tuple(ALL)


CASES = [
    Case("all terms matter", (20.0, 0.5, 0.1)),
    Case("large spread", (20.0, 0.5, 0.1), sigma=0.4),
    Case("no cost per prompt", (20.0, 0.0, 0.2)),
    Case("heavy tails", (20.0, 0.5, 0.1), nu=3.0),
    Case("one run in ten twice as slow", (20.0, 0.5, 0.1), slow=(0.1, 2.0)),
    Case("floor and work overlap", (40.0, 0.5, 0.1), kappa=0.4),
    Case("prompts alone varied", (20.0, 0.5, 0.1), cells=tuple(PROMPTS)),
]


def terms(cells: np.ndarray) -> np.ndarray:
    """Return ones, prompts, and samples at cells of shape (cell, 2)."""
    return np.stack([np.ones(len(cells)), cells[:, 0], cells.prod(axis=1)], axis=1)


def seconds_of(case: Case, cells: np.ndarray) -> np.ndarray:
    """Return the true typical step time at cells, seconds."""
    floor, work = case.truth[0], terms(cells)[:, 1:] @ case.truth[1:]
    return (floor ** (1 / case.kappa) + work ** (1 / case.kappa)) ** case.kappa


def spread(case: Case, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return factors of n runs."""
    unit = rng.normal(size=n) if np.isinf(case.nu) else rng.standard_t(case.nu, n)
    share, factor = case.slow
    return np.exp(case.sigma * unit) * np.where(rng.random(n) < share, factor, 1.0)


def held(case: Case, seed: int) -> Iterator[tuple[str, bool]]:
    """Yield what was asked of one table and whether its interval held the truth."""
    rng = np.random.default_rng(seed)
    cells = np.repeat(np.array(case.cells, dtype=float), SEEDS, axis=0)
    truth = np.array(case.truth)
    seconds = seconds_of(case, cells) * spread(case, len(cells), rng)
    model = fit_step_times(seconds, terms(cells), ("t_0", "c_p", "c_r"), random_seed=seed)
    yield "converged", bool((model.table(PROB)["r_hat"] < 1.01).all())
    for k, name in enumerate(model.names):
        if truth[k] > 0:
            yield name, within(model.draws[name].values.ravel(), truth[k])
    inside = np.unique(cells, axis=0)
    beyond = np.array([[2 * cells[:, 0].max(), 8.0]])
    for name, batches in (("step time, tried", inside), ("step time, one doubling beyond", beyond)):
        draws, true = model.population(terms(batches)), seconds_of(case, batches)
        for k in range(len(batches)):
            yield name, within(draws[:, k], true[k])
    new = model.population(terms(inside)) * np.exp(model.deviation(len(inside), rng))
    true = seconds_of(case, inside) * spread(case, len(inside), rng)
    for k in range(len(inside)):
        yield "one new run, tried", within(new[:, k], true[k])


def within(draws: np.ndarray, truth: float) -> bool:
    """Return whether the equal-tailed interval of draws holds the truth."""
    lower, upper = np.quantile(draws, [(1 - PROB) / 2, (1 + PROB) / 2])
    return bool(lower <= truth <= upper)


def study(case: Case, tables: int) -> pd.DataFrame:
    """Return the share held by question, with its Monte Carlo error over tables."""
    rows = [(seed, *row) for seed in range(tables) for row in held(case, seed)]
    table = pd.DataFrame(rows, columns=["table", "asked", "held"])
    each = table.groupby(["asked", "table"], sort=False)["held"].mean()
    out = each.groupby("asked", sort=False).agg(["mean", "std"])
    return pd.DataFrame({"case": case.name, "share held": out["mean"].round(3),
                         "Monte Carlo error": (out["std"] / np.sqrt(tables)).round(3)})


def main() -> None:
    """Print the shares of every case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=int, default=200)
    options = parser.parse_args()
    print(f"nominal {PROB:g}, {options.tables} tables per case, {SEEDS} runs per batch")
    for case in CASES:
        print(f"\n{case.name}: t_0, c_p, c_r = {case.truth}, "
              f"spread {case.sigma:g}, kappa {case.kappa:g}")
        print(study(case, options.tables).drop(columns="case").to_string())


if __name__ == "__main__":
    main()
