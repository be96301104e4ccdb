"""Does the iso-batch check warn when it should? ``python benchmarks/iso_batch_check.py``.

Sweeps of all phases are simulated, by default such as the law describes and such in which small
groups saturate lower. The runs of 2,048 samples are predicted by a fit that left them out
(``python -m cbsbayes.allocate --check``). Printed by family and group size: the share of verdicts,
over sweeps and thresholds, and of sweeps with any warning.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

import cbsbayes
from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.decisions.decision import VERDICTS, check_table
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.validation.engine import Ledger, executor, run_sweeps
from cbsbayes.validation.families import family_sweep, get_family
from cbsbayes.validation.models import fitted_runs

TOTAL = 2048
LAW = "two_axis_free"
THRESHOLDS = [0.60, 0.65, 0.70]
COLUMNS = ["threshold", "n_rollouts", "n_not_reached", "observed_least", "p_least", "verdict"]


def one_sweep(family: str, draws: int, seed: int) -> dict[str, Any]:
    """Simulate a sweep, leave its iso-batch runs out, and return the verdicts on them."""
    ds = family_sweep(get_family(family), get_law(LAW), seed)
    sampler = SamplerSettings(chains=2, draws=draws, tune=draws, cores=1, random_seed=seed)
    others = ds.isel(run=np.flatnonzero(ds["total_batch"].values != TOTAL))
    predictor = fit_sweep(others, law=LAW, thresholds=THRESHOLDS, sampler=sampler,
                          alternatives=False)
    everyone = find_crossings(fitted_runs(ds, get_law(LAW)), THRESHOLDS)
    holder = SimpleNamespace(crossings=everyone, group=predictor.group, law=predictor.law,
                             settings=predictor.settings)
    table = check_table(holder, TOTAL, predictor)
    return {"rows": table[COLUMNS].to_numpy().tolist(), "sampling": {}}


def say(family: str, table: pd.DataFrame) -> None:
    """Print what was found in one family."""
    warned = table[table["verdict"] != "agree"]["sweep"].nunique()
    known = table[table.groupby(["sweep", "threshold"])["observed_least"].transform("any")]
    likeliest = known.loc[known.groupby(["sweep", "threshold"])["p_least"].idxmax()]
    shares = pd.crosstab(table["n_rollouts"], table["verdict"], normalize="index")
    print(f"\n## {family}: {get_family(family).what}; {table['sweep'].nunique()} sweeps, {warned} "
          "with a warning\n")
    print(shares.reindex(columns=list(VERDICTS), fill_value=0.0).round(3).to_string())
    print(f"\nthe likeliest split was the one of least observed S in "
          f"{likeliest['observed_least'].mean():.2f} of cases, "
          f"{likeliest['p_least'].mean():.2f} were due", flush=True)


def main() -> None:
    """Run what is missing and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", default="prior,ceiling", help="comma-separated")
    parser.add_argument("--sweeps", type=int, default=30)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path("outputs/iso_batch_check"))
    options = parser.parse_args()
    for family in options.families.split(","):
        ledger = Ledger(options.output / f"{family}.jsonl",
                        {"family": family, "draws": options.draws, "total": TOTAL,
                         "cbsbayes": cbsbayes.__version__})
        with executor(options.workers) as pool:
            run_sweeps(partial(one_sweep, family, options.draws), range(options.sweeps), ledger,
                       pool)
        parts = [pd.DataFrame(ledger.records[seed]["rows"], columns=COLUMNS).assign(sweep=seed)
                 for seed in range(options.sweeps) if "rows" in ledger.records[seed]]
        say(family, pd.concat(parts, ignore_index=True))


if __name__ == "__main__":
    main()
