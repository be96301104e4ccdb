"""Sampling against the number of runs: ``python benchmarks/many_runs.py``.

Simulated crossings at six thresholds, the default law, few draws: what grows with the runs is the
time of one density call, what should not is how many of them a draw takes. The two chains are drawn
one after the other and both at once; which is taken unless asked is starred. Prints Markdown.
"""

from __future__ import annotations

import time
import timeit
from dataclasses import replace
from unittest.mock import patch

from process_cpu import cpu_seconds
from samplers import LAW, simulated

from cbsbayes.inference.nuts import SHORT
from cbsbayes.inference.sampling import SamplerSettings, crossing_density, sample_crossings
from cbsbayes.models.crossing_parameters import CrossingParameters

SETTINGS = SamplerSettings(draws=100, tune=150, chains=2, cores=2)
RUNS = (6, 19, 39, 60, 600, 5000)


def row(n_runs: int) -> str:
    """Return one row of the table."""
    data = simulated(LAW, n_runs)
    parameters = CrossingParameters(data, LAW)
    density, position = crossing_density(parameters), parameters.center
    density(position)
    call = min(timeit.repeat(lambda: density(position), number=10, repeat=5)) / 10
    cells, stats = [], None
    for cores in (1, 2):
        with patch("cbsbayes.inference.nuts.SHORT", 0.0):  # as many at once as asked
            wall, start = time.perf_counter(), cpu_seconds()
            stats = sample_crossings(data, LAW, replace(SETTINGS, cores=cores))["sample_stats"]
        star = "*" if (cores == 1) == (call < SHORT) else ""
        cells.append(f"{time.perf_counter() - wall:.1f} / {cpu_seconds() - start:.1f}{star}")
    return (f"| {len(data.run):,} | {1e3 * call:.3f} | {1e6 * call / n_runs:.1f} | "
            f"{' | '.join(cells)} | {float(stats['n_steps'].mean()):.1f} | "
            f"{int(stats['diverging'].sum())} |")


def main() -> None:
    """Print the table."""
    sample_crossings(simulated(LAW, 6), LAW, SETTINGS)  # imports and compiles
    print(f"{SETTINGS.chains} chains of {SETTINGS.tune} + {SETTINGS.draws} draws; seconds of wall "
          "and processor.\n\n| runs | density, ms | a run, microseconds | one after the other | "
          "both at once | steps a draw | divergences |\n|---|---|---|---|---|---|---|")
    for n_runs in RUNS:
        print(row(n_runs), flush=True)


if __name__ == "__main__":
    main()
