"""What gradient norms say of the noise scale: ``python benchmarks/gradient_norms.py``.

First N at 8 rollouts of both shipped sweeps by accuracy range, medians and 90 % intervals in
prompts; then how often 90 % intervals hold a known N, in sweeps whose runs share |G|^2 up to a
scatter, and how wide they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cbsbayes.noise.logged import norms_at_accuracy, norms_in_ranges
from cbsbayes.sweep.files import read_sweep

DATA = Path(__file__).resolve().parent.parent / "data"
EDGES = {"verl_tiny": [0.3, 0.45, 0.6, 0.75, 0.85, 0.92],
         "tiny_grpo": [0.3, 0.45, 0.55, 0.65, 0.72, 0.78, 0.83, 0.87, 0.90, 0.93]}
DESIGNS = [((8, 16, 32, 64, 128), 3), ((8, 16, 32, 64, 128), 1), ((8, 32, 128), 2)]
SCATTERS = (0.02, 0.15)  # between runs, of log |G|^2
NOISE, SWEEPS, DRAWS = 60.0, 400, 400


def shipped(name: str, edges: list[float]) -> None:
    """Print N of a shipped sweep."""
    norms = norms_at_accuracy(read_sweep(DATA / name / "sweep.nc"), None)
    found = norms_in_ranges(norms[norms["n_rollouts"] == 8], np.array(edges), size="n_prompts",
                            n_draws=2000, rng=np.random.default_rng(0))
    for one in found:
        low, middle, high = np.quantile(one.draws, [0.05, 0.5, 0.95])
        print(f"| {name} | {one.accuracy:.2f} | {middle:.0f} ({low:.0f}–{high:.0f}) | "
              f"{one.n_runs} |")


def simulated(batches: tuple[int, ...], seeds: int, scatter: float) -> tuple[float, float]:
    """Return coverage and median log width over sweeps of one accuracy range."""
    held, widths = 0, []
    for sweep in range(SWEEPS):
        rng = np.random.default_rng([sweep, seeds, len(batches)])
        prompts = np.repeat(batches, seeds).astype(float)
        signal = np.exp(scatter * rng.normal(size=prompts.size))
        norms = signal + NOISE / prompts * rng.chisquare(1000, prompts.size) / 1000
        table = pd.DataFrame({"run": np.arange(prompts.size), "n_prompts": prompts, "updates": 20.0,
                              "norm_sq": norms, "level": 0.5, "accuracy": 0.5})
        (one,) = norms_in_ranges(table, np.array([1.0]), size="n_prompts", n_draws=DRAWS, rng=rng)
        low, high = np.quantile(one.draws, [0.05, 0.95], method="nearest")
        held += low <= NOISE <= high
        widths.append(np.log(high / low) if low > 0 else np.inf)
    return held / SWEEPS, float(np.median(widths))


if __name__ == "__main__":
    print("| sweep | accuracy | N at 8 rollouts | runs |\n|---|---|---|---|")
    for name, edges in EDGES.items():
        shipped(name, edges)
    print("\n| batches | seeds | scatter of log G^2 | coverage | log width |\n" + 5 * "|---" + "|")
    for batches, seeds in DESIGNS:
        for scatter in SCATTERS:
            cover, width = simulated(batches, seeds, scatter)
            print(f"| {len(batches)} | {seeds} | {scatter:g} | {cover:.2f} | {width:.2f} |")
