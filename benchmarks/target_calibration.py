"""Do batches meet their targets as often as stated? ``python benchmarks/target_calibration.py``.

Sweeps are simulated (exponent drawn from its prior) and fitted. For a number of updates around what
128 prompts × 8 rollouts truly take, the smallest batch that meets it with probability .9 is asked
for, along prompts and along rollouts, for the population of runs and for one new run. Printed
beside the probability stated at that batch: how often the simulated truth meets the target there,
for a new run with its own effect (log-normal, sd .08, as simulated).
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr

import cbsbayes
from cbsbayes.decisions.batches import NEW_RUN
from cbsbayes.decisions.front import Target, target_table
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.simulation.truth import true_steps, truth_of
from cbsbayes.validation.engine import Ledger, executor, run_sweeps
from cbsbayes.validation.families import family_sweep, get_family

LAW = "two_axis_free"
THRESHOLDS = [0.60, 0.65, 0.70]
LINES = ("n_rollouts=8", "n_prompts=128")
SIGMA_RUN = 0.08
COLUMNS = ["threshold", "at", "applies_to", "met", "p_met", "range", "came_true"]


def one_sweep(family: str, draws: int, seed: int) -> dict[str, Any]:
    """Simulate and fit one sweep; return what was stated and what is true."""
    ds = family_sweep(get_family(family), get_law(LAW), seed)
    truth, rng = truth_of(ds), np.random.default_rng([seed, 5])
    sampler = SamplerSettings(chains=2, draws=draws, tune=draws, cores=1, random_seed=seed)
    fit = fit_sweep(ds, law=LAW, thresholds=THRESHOLDS, sampler=sampler, alternatives=False)
    rows = []
    for t in THRESHOLDS:
        updates = float(true_steps(truth, 128, 8, t)) * float(np.exp(rng.normal(0.0, 0.25)))
        table = target_table(fit, Target("updates", updates), [t])
        for _, row in table[table["at"].isin(LINES)].iterrows():
            came = np.nan
            if row["met"]:
                spare = np.log(updates / true_steps(truth, row["n_prompts"], row["n_rollouts"], t))
                came = float(ndtr(spare / SIGMA_RUN) if row["applies_to"] == NEW_RUN
                             else spare >= 0)
            rows.append([t, row["at"], row["applies_to"], bool(row["met"]), float(row["p_met"]),
                         row["range"], came])
    return {"rows": rows, "sampling": {}}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return stated and true probabilities by line and kind of run; the error counts sweeps."""
    rows = []
    for (at, who), part in table[table["met"]].groupby(["at", "applies_to"]):
        by = part.groupby("sweep")["came_true"].agg(["sum", "size"])
        share = by["sum"].sum() / by["size"].sum()
        error = np.sqrt(((by["sum"] - share * by["size"]) ** 2).sum()) / by["size"].sum()
        rows.append({"held": at, "for": who, "batches": len(part), "sweeps": len(by),
                     "stated": part["p_met"].mean(), "came true": share, "+-": error})
    return pd.DataFrame(rows).set_index(["held", "for"])


def main() -> None:
    """Run what is missing and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", default="prior", help="comma-separated")
    parser.add_argument("--sweeps", type=int, default=100)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path("outputs/target_calibration"))
    options = parser.parse_args()
    for family in options.families.split(","):
        ledger = Ledger(options.output / f"{family}.jsonl",
                        {"family": family, "draws": options.draws,
                         "cbsbayes": cbsbayes.__version__})
        with executor(options.workers) as pool:
            run_sweeps(partial(one_sweep, family, options.draws), range(options.sweeps), ledger,
                       pool)
        kept = [ledger.records[seed] for seed in range(options.sweeps)]
        parts = [pd.DataFrame(record["rows"], columns=COLUMNS).assign(sweep=record["seed"])
                 for record in kept if "rows" in record]
        table = pd.concat(parts, ignore_index=True)
        print(f"\n## {family}: {len(parts)} sweeps, {len(kept) - len(parts)} failed; "
              f"{(~table['met']).sum()} of {len(table)} targets cannot be met\n")
        print(summary(table).round(3).to_string(), flush=True)


if __name__ == "__main__":
    main()
