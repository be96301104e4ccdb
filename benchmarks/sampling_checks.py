"""How often do the sampler's checks pass? ``python benchmarks/sampling_checks.py``.

Simulated sweeps of every family are sampled with a fit's default settings and its own checks are
made (r_hat at most 1.01, 400 effective draws of everything, no divergences). Printed by family: the
share that was sampled again, the share whose checks passed in the end, the fewest effective draws
of any quantity (median and least over sweeps) and processor seconds. ``--model trajectory`` for
the other model.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from process_cpu import cpu_seconds

from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.verdict import sampler_checks
from cbsbayes.validation.families import FAMILIES, Family, family_sweep, get_family
from cbsbayes.validation.models import Settings, fitted_runs, posterior_tree


def one_sweep(family: Family, settings: Settings, seed: int) -> dict[str, float]:
    """Sample one simulated sweep; return what its checks say."""
    law = get_law(family.law or settings.law)
    sweep = fitted_runs(family_sweep(family, law, seed), law)
    begin = cpu_seconds()
    tree = posterior_tree(sweep, law, settings, seed)
    seconds = cpu_seconds() - begin
    checks, worst = sampler_checks(tree)
    return {"again": bool(tree["sample_stats"].attrs["note"]), "passed": all(checks.values()),
            "least ESS": worst["ess_bulk_min"], "CPU s": seconds}


def main() -> None:
    """Sample the sweeps one after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", default=",".join(FAMILIES))
    parser.add_argument("--sweeps", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the first sweep")
    parser.add_argument("--model", default="crossing")
    options = parser.parse_args()
    default = SamplerSettings()
    settings = Settings(model=options.model, chains=default.chains, draws=default.draws,
                        tune=default.tune)
    every: list[dict[str, float]] = []
    print("| family | sweeps | again | passed | least ESS, median | least | CPU s, median |")
    print("|---|---|---|---|---|---|---|")
    for name in options.family.split(","):
        rows = [one_sweep(get_family(name), settings, options.seed + k)
                for k in range(options.sweeps)]
        print_row(name, rows)
        every += rows
    print_row("all", every)


def print_row(name: str, rows: list[dict[str, float]]) -> None:
    """Print a row of the table."""
    table = pd.DataFrame(rows)
    ess = table["least ESS"]
    print(f"| {name} | {len(table)} | {table['again'].mean():.2f} | {table['passed'].mean():.2f} | "
          f"{ess.median():.0f} | {ess.min():.0f} | {np.median(table['CPU s']):.1f} |", flush=True)


if __name__ == "__main__":
    main()
