"""Do ramps of batch sizes save what is said? ``python benchmarks/schedules.py``.

Sweeps are simulated in which the noise grows along training, and fitted. For 256 prompts × 8
rollouts the ramp at no more than 5 % more updates is asked for; what it truly takes is known, for
simulated training does depend on the accuracy reached alone. Printed: the ramps, the shares of
samples saved and of more updates, said and true, and how often the intervals hold the truth.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from cbsbayes.decisions.schedule import schedule_table
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.simulation.truth import true_steps, truth_of
from cbsbayes.validation.families import family_sweep, get_family

LAW = "two_axis_free"
PROMPTS, ROLLOUTS, MORE = 256.0, 8.0, 0.05


def one_sweep(family: str, draws: int, seed: int) -> dict[str, object]:
    """Simulate and fit one sweep; return what was said of its ramp and what is true."""
    ds = family_sweep(get_family(family), get_law(LAW), seed)
    sampler = SamplerSettings(chains=2, draws=draws, tune=draws, cores=1, random_seed=seed)
    fit = fit_sweep(ds, law=LAW, sampler=sampler, alternatives=False)
    table, truth = schedule_table(fit, (PROMPTS, ROLLOUTS), MORE), truth_of(ds)
    updates = np.zeros(len(table))
    for end, sign in (("to_threshold", 1.0), ("from_threshold", -1.0)):
        known = table[end].notna().to_numpy()
        updates[known] += sign * true_steps(truth, table["n_prompts"][known], ROLLOUTS,
                                            table[end][known])
    constant = float(true_steps(truth, PROMPTS, ROLLOUTS, fit.thresholds[-1]))
    row = table.iloc[0]
    true = {"more_updates": updates.sum() / constant - 1,
            "saved": 1 - (updates * table["n_prompts"]).sum() / (PROMPTS * constant)}
    return {"seed": seed, "ramp": " ".join(f"{p:g}<{t:g}" for p, t in zip(
        table["n_prompts"], table["to_threshold"], strict=True)),
        **{name + end: row[name + end] for name in true for end in ("", "_lower", "_upper")},
        **{f"true_{name}": value for name, value in true.items()}}


def main() -> None:
    """Fit the sweeps one after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", default="base")
    parser.add_argument("--sweeps", type=int, default=20)
    parser.add_argument("--draws", type=int, default=400)
    options = parser.parse_args()
    rows = []
    for seed in range(options.sweeps):
        rows.append(one_sweep(options.family, options.draws, seed))
        print(pd.DataFrame(rows[-1:]).to_string(index=False, header=not seed,
                                                float_format="%.3f"), flush=True)
    table = pd.DataFrame(rows)
    for name in ("saved", "more_updates"):
        inside = table[f"true_{name}"].between(table[f"{name}_lower"], table[f"{name}_upper"])
        error = table[name] - table[f"true_{name}"]
        print(f"{name}: said {table[name].mean():.3f}, true {table[f'true_{name}'].mean():.3f}, "
              f"error {error.mean():+.3f} (rms {np.sqrt((error**2).mean()):.3f}), 90 % intervals "
              f"hold {inside.mean():.2f} of {len(table)}, width "
              f"{(table[f'{name}_upper'] - table[f'{name}_lower']).mean():.3f}")


if __name__ == "__main__":
    main()
