"""Seconds of a fit in a fresh process, imports included: ``python benchmarks/fresh_process.py``.

Every run is a new interpreter that reads crossings of simulated runs from a netCDF file and fits
the law two_axis_free to them: posterior, prior, table of quantities, no figures. Wall seconds run
from before the interpreter starts until the table is there; CPU seconds are those of all its
threads. Kernels are cached, but for one size once more without. Prints Markdown: medians, and the
worst diagnostics of the seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SAMPLERS_LEFT_OUT = ("pymc",)
FEW, FEW_DRAWS = 600, 300  # from so many runs on, so many draws of a chain leave 1,000 effective
HEADER = ("| runs | sampler | kernels | wall, s (range) | CPU, s | least ESS | largest r_hat | "
          "divergences |\n|---|---|---|---|---|---|---|---|")


def write_runs(path: Path, n_runs: int) -> None:
    """Write simulated runs as a sweep."""
    import numpy as np

    from cbsbayes.simulation.sweep import simulate_sweep
    from cbsbayes.sweep.files import write_sweep

    sweep = simulate_sweep("all", n_runs // 16 + 1)  # 16 of a seed's 17 runs have a group
    several = np.flatnonzero(sweep["n_rollouts"].values > 1)
    sweep = sweep.isel(run=several[:n_runs])
    if sweep.sizes["run"] < n_runs:
        raise SystemExit(f"{sweep.sizes['run']} runs simulated, not {n_runs}")
    write_sweep(sweep, path)


def draws_of(n_runs: int) -> int:
    """Return the draws of each of four chains."""
    return 1000 if n_runs < FEW else FEW_DRAWS


def fit(path: Path, sampler: str, seed: int) -> None:
    """Fit, and print when that was done and what the draws are worth."""
    from cbsbayes.inference.sampling import SamplerSettings
    from cbsbayes.models.laws import get_law
    from cbsbayes.posterior.law_fit import fit_law
    from cbsbayes.posterior.selection import FitOptions, select
    from cbsbayes.sweep.files import read_sweep

    sweep = read_sweep(path)
    settings = SamplerSettings(sampler, draws=draws_of(sweep.sizes["run"]), random_seed=seed)
    selected = select(sweep, FitOptions(law="two_axis_free", sampler=settings))
    fitted = fit_law(get_law("two_axis_free"), selected)
    done, cpu = time.time(), time.process_time()
    from cbsbayes.posterior.verdict import sampler_checks

    attrs = fitted.tree["sample_stats"].attrs
    print(json.dumps({"done": done, "cpu": cpu, **sampler_checks(fitted.tree)[1],
                      "rows": len(fitted.table(selected)), "note": attrs.get("note", "")}))


def one_run(path: Path, sampler: str, seed: int, cache: str | None) -> dict[str, Any]:
    """Fit in a fresh interpreter; `cache` is where kernels are kept, None for the usual place."""
    environment = os.environ | ({} if cache is None else {"NUMBA_CACHE_DIR": cache})
    start = time.time()
    done = subprocess.run([sys.executable, __file__, "--fit", str(path), sampler, str(seed)],
                          env=environment, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"wall": found["done"] - start}


def row(n_runs: int, sampler: str, kernels: str, found: list[dict[str, Any]]) -> str:
    """Return one row of the table."""
    wall = [each["wall"] for each in found]
    again = sum(bool(each["note"]) for each in found)
    name = sampler + (f", {again} of {len(found)} sampled again" if again else "")
    return (f"| {n_runs:,} | {name} | {kernels} | {statistics.median(wall):.2f} "
            f"({min(wall):.2f}–{max(wall):.2f}) | "
            f"{statistics.median(each['cpu'] for each in found):.2f} | "
            f"{min(each['ess_bulk_min'] for each in found):.0f} | "
            f"{max(each['r_hat_max'] for each in found):.4f} | "
            f"{sum(each['divergences'] for each in found):.0f} |")


def measure(sizes: list[int], samplers: list[str], repeats: int, cold: int) -> None:
    """Measure and print, row by row."""
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for n_runs in sizes:
            path = Path(scratch) / f"{n_runs}.nc"
            write_runs(path, n_runs)
            for sampler in samplers:
                one_run(path, sampler, 0, None)  # fills the caches
                found = [one_run(path, sampler, seed, None) for seed in range(repeats)]
                print(row(n_runs, sampler, "cached", found), flush=True)
                if n_runs == cold:
                    empty = [tempfile.mkdtemp(dir=scratch) for _ in range(min(repeats, 3))]
                    found = [one_run(path, sampler, k, e) for k, e in enumerate(empty)]
                    print(row(n_runs, sampler, "none", found), flush=True)


def main() -> None:
    """Measure, or be what is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="19,60,600,5000", help="sizes of simulated sweeps")
    parser.add_argument("--samplers", default="", help="all but PyMC's own unless given")
    parser.add_argument("--repeats", type=int, default=5, help="fresh processes of each kind")
    parser.add_argument("--cold", type=int, default=60, help="size fitted without kernels too")
    parser.add_argument("--fit", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        fit(Path(options.fit[0]), options.fit[1], int(options.fit[2]))
        return
    from cbsbayes.inference.sampling import SAMPLERS

    samplers = options.samplers.split(",") if options.samplers else [
        sampler for sampler in SAMPLERS if sampler not in SAMPLERS_LEFT_OUT]
    measure([int(n) for n in options.runs.split(",")], samplers, options.repeats, options.cold)
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"\nMedians of {options.repeats} processes (no kernels: of up to 3), four chains of "
          f"1,000 draws, of {FEW_DRAWS} from {FEW} runs on, on two of {os.cpu_count()} shared "
          f"cores; load averages at the end: {loads}.")


if __name__ == "__main__":
    main()
