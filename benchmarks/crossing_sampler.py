"""Three ways to sample the crossing model, side by side: ``python benchmarks/crossing_sampler.py``.

``kernel`` is what a fit uses: nutpie on the hand-written gradient. ``graph`` is nutpie on the PyMC
model compiled anew, ``pymc`` PyMC's own NUTS on it. Same data, draws and target acceptance; one
core, so that CPU seconds are those of the sampler. Prints Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import time
import timeit
from collections.abc import Callable

import arviz as az
import numpy as np
import xarray as xr

from cbsbayes.crossing import choose_thresholds, find_crossings
from cbsbayes.laws import Law, get_law
from cbsbayes.models.crossing import build_crossing_model
from cbsbayes.models.crossing_data import CrossingData, crossing_data
from cbsbayes.models.crossing_flat import FlatCrossing
from cbsbayes.models.crossing_kernel import log_density, sampler_callbacks
from cbsbayes.models.crossing_words import data_words
from cbsbayes.sampling import SamplerSettings, sample_crossings
from cbsbayes.simulate import simulate_sweep

NUTPIE = {"draws": 1000, "tune": 1000, "chains": 4, "cores": 1, "target_accept": 0.9,
          "adaptation": "low_rank", "progress_bar": False, "save_warmup": False}
Timed = tuple[float, float, xr.DataTree]  # CPU seconds compiling, sampling; what came back


def simulated(law: Law, n_runs: int) -> CrossingData:
    """Return crossings of `n_runs` simulated runs at six thresholds."""
    sweep = simulate_sweep("all", n_runs // 17 + 1)
    sweep = sweep.isel(run=np.flatnonzero(sweep["n_rollouts"].values > 1)[:n_runs])
    return crossing_data(find_crossings(sweep, choose_thresholds(sweep)), law)


def kernel(data: CrossingData, law: Law, seed: int) -> Timed:
    """Sample as a fit does; compiled code is loaded from disk after the first time."""
    start = time.process_time()
    sampler_callbacks()
    compiled = time.process_time()
    tree = sample_crossings(data, law, SamplerSettings(random_seed=seed, cores=1))
    return compiled - start, time.process_time() - compiled, tree


def graph(data: CrossingData, law: Law, seed: int) -> Timed:
    """Compile the PyMC model for nutpie, then sample."""
    import nutpie

    start = time.process_time()
    model = nutpie.compile_pymc_model(build_crossing_model(data, law))
    compiled = time.process_time()
    tree = nutpie.sample(model, seed=seed, **NUTPIE)
    return compiled - start, time.process_time() - compiled, tree


def pymc(data: CrossingData, law: Law, seed: int) -> Timed:
    """Sample with PyMC's own NUTS, which says how much of the time it sampled."""
    start, began = time.process_time(), time.perf_counter()
    tree = sample_crossings(data, law, SamplerSettings("pymc", random_seed=seed, cores=1))
    total, wall = time.process_time() - start, time.perf_counter() - began
    sampling = total * tree["posterior"].attrs["sampling_time"] / wall
    return total - sampling, sampling, tree


def row(name: str, way: Callable[[CrossingData, Law, int], Timed], data: CrossingData, law: Law,
        repeats: int) -> str:
    """Return the table row of one way, medians over seeds."""
    results = []
    for seed in range(repeats):
        compiling, sampling, tree = way(data, law, seed)
        posterior = tree["posterior"].to_dataset()[["S_min", *law.scales, "sigma_run"]]
        ess = min(float(v.min()) for v in az.ess(posterior).data_vars.values())
        results.append((compiling, sampling, ess, ess / sampling, ess / (compiling + sampling),
                        int(tree["sample_stats"]["diverging"].sum())))
    medians = [statistics.median(column) for column in zip(*results, strict=True)]
    return f"| {name} | " + " | ".join(f"{m:.3g}" for m in medians) + " |"


def gradient_time(data: CrossingData, law: Law) -> float:
    """Return microseconds per log density and gradient, the best of several rounds."""
    flat = FlatCrossing(data, law)
    words, position = data_words(flat), flat.center
    log_density(position, words)
    return 1e3 * min(timeit.repeat(lambda: log_density(position, words), number=1000, repeat=7,
                                   timer=time.process_time))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=57, help="runs of the simulated sweep")
    parser.add_argument("--law", default="two_axis_free", help="law fitted")
    parser.add_argument("--repeats", type=int, default=3, help="seeds; medians are printed")
    options = parser.parse_args()
    law = get_law(options.law)
    data = simulated(law, options.runs)
    print(f"{options.law}, {data.log_lower.shape[0]} runs x {data.log_lower.shape[1]} thresholds, "
          f"median of {options.repeats}; {gradient_time(data, law):.1f} microseconds a gradient\n")
    print("| | compiling, CPU s | sampling, CPU s | least ESS | ESS/CPU s | with compiling "
          "| divergences |\n|---|---|---|---|---|---|---|")
    for name, way in (("kernel", kernel), ("graph", graph), ("pymc", pymc)):
        print(row(name, way, data, law, options.repeats), flush=True)


if __name__ == "__main__":
    main()
