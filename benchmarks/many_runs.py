"""Sampling against the number of runs: ``python benchmarks/many_runs.py``.

Simulated crossings at six thresholds, the default law, few draws: what grows with the runs is the
time of one density call, what should not is how many of them a draw takes. Prints Markdown.
"""

from __future__ import annotations

import timeit

from process_cpu import cpu_seconds
from samplers import LAW, simulated

from cbsbayes.inference.sampling import SamplerSettings, crossing_density, sample_crossings
from cbsbayes.models.crossing_parameters import CrossingParameters

SETTINGS = SamplerSettings(draws=100, tune=150, chains=2, cores=2)
RUNS = (60, 600, 5000)


def row(n_runs: int) -> str:
    """Return one row of the table."""
    data = simulated(LAW, n_runs)
    parameters = CrossingParameters(data, LAW)
    density, position = crossing_density(parameters), parameters.center
    density(position)
    call = min(timeit.repeat(lambda: density(position), number=10, repeat=5)) / 10
    start = cpu_seconds()
    stats = sample_crossings(data, LAW, SETTINGS)["sample_stats"]
    seconds = cpu_seconds() - start
    return (f"| {len(data.run):,} | {1e3 * call:.2f} | {1e6 * call / n_runs:.1f} | {seconds:.1f} | "
            f"{float(stats['n_steps'].mean()):.1f} | {int(stats['diverging'].sum())} |")


def main() -> None:
    """Print the table."""
    print(f"{SETTINGS.chains} chains of {SETTINGS.tune} + {SETTINGS.draws} draws.\n\n"
          "| runs | density, ms | a run, microseconds | sampling, CPU s | steps a draw | "
          "divergences |\n|---|---|---|---|---|---|")
    for n_runs in RUNS:
        print(row(n_runs), flush=True)


if __name__ == "__main__":
    main()
