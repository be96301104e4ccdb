"""Samplers of the crossing model, side by side: ``python benchmarks/samplers.py``.

The default of `cbsbayes`, nutpie on the PyMC model compiled anew, PyMC's own NUTS on it, and Stan
on the same model written in its language (``crossing.stan``). The
same simulated crossings, one core's worth of seconds each: CPU time of the process and all
it started. Effective draws are the fewest of any shared parameter at any threshold. Each row's
means are laid beside the default's, in Monte Carlo errors. Prints Markdown.
"""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import arviz as az
import numpy as np
import stan_peer
import xarray as xr
from process_cpu import cpu_seconds

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.crossings.thresholds import choose_thresholds
from cbsbayes.inference.sampling import SamplerSettings, crossing_density, sample_crossings
from cbsbayes.models.crossing_data import CrossingData, crossing_data
from cbsbayes.models.crossing_parameters import CrossingParameters
from cbsbayes.models.laws import Law, get_law
from cbsbayes.models.pymc_models import build_crossing_model
from cbsbayes.simulation.sweep import simulate_sweep

LAW = get_law("two_axis_free")
SHARED = ["S_min", "B_prompt", "B_rollout", "alpha", "sigma_run", "sigma_residual"]
TARGET_ACCEPT = 0.95  # what cbsbayes gives NUTS
DRAWS, TUNE, CHAINS = 1000, 1000, 4


class Sampled(NamedTuple):
    """CPU seconds before sampling and sampling, and what came back."""

    preparing: float
    sampling: float
    tree: xr.DataTree


def simulated(law: Law, n_runs: int) -> CrossingData:
    """Return crossings of `n_runs` simulated runs at six thresholds."""
    sweep = simulate_sweep("all", n_runs // 17 + 1)
    sweep = sweep.isel(run=np.flatnonzero(sweep["n_rollouts"].values > 1)[:n_runs])
    return crossing_data(find_crossings(sweep, choose_thresholds(sweep)), law)


def ours(data: CrossingData) -> Sampled:
    """Sample as a fit does, after a short fit that loads the compiled density."""
    start = cpu_seconds()
    sample_crossings(data, LAW, SamplerSettings(draws=50, tune=100, chains=2, cores=1))
    loaded = cpu_seconds()
    tree = sample_crossings(data, LAW, SamplerSettings(cores=1))
    return Sampled(loaded - start, cpu_seconds() - loaded, tree)


def graph(data: CrossingData) -> Sampled:
    """Compile the PyMC model for nutpie, then sample."""
    import nutpie

    start = cpu_seconds()
    model = nutpie.compile_pymc_model(build_crossing_model(data, LAW))
    compiled = cpu_seconds()
    tree = nutpie.sample(model, seed=0, draws=DRAWS, tune=TUNE, chains=CHAINS, cores=1,
                         target_accept=TARGET_ACCEPT, adaptation="low_rank", progress_bar=False,
                         save_warmup=False)
    return Sampled(compiled - start, cpu_seconds() - compiled, tree)


def pymc(target_accept: float, data: CrossingData) -> Sampled:
    """Sample with PyMC's own NUTS, after a short fit of the same model that compiles it."""
    import pymc as pm

    def sample(draws: int, tune: int, chains: int) -> xr.DataTree:
        return pm.sample(draws=draws, tune=tune, chains=chains, cores=1, random_seed=0,
                         nuts_sampler="pymc", target_accept=target_accept, quiet=True,
                         compute_convergence_checks=False)

    start = cpu_seconds()
    with build_crossing_model(data, LAW):
        sample(1, 1, 1)
        compiled = cpu_seconds()
        tree = sample(DRAWS, TUNE, CHAINS)
    return Sampled(compiled - start, cpu_seconds() - compiled, tree)


def stan(target_accept: float, data: CrossingData) -> Sampled:
    """Compile, once for all sizes, and sample with Stan."""
    start = cpu_seconds()
    model = stan_peer.build(data, 0)
    compiled = cpu_seconds()
    tree = stan_peer.sample(model, target_accept, DRAWS, TUNE, CHAINS)
    return Sampled(compiled - start, cpu_seconds() - compiled, tree)


def ways() -> Iterator[tuple[str, Callable[[CrossingData], Sampled]]]:
    """Yield every sampler that can be run here, by name; the default first."""
    yield "cbsbayes", ours
    yield "nutpie on the PyMC model", graph
    peers = {"PyMC's NUTS": pymc} | ({"Stan": stan} if stan_peer.have_stan() else {})
    for name, way in peers.items():
        for target in (TARGET_ACCEPT, 0.8):
            yield f"{name}, acceptance {target:g}", partial(way, target)


def least_ess(tree: xr.DataTree) -> float:
    """Return the fewest effective draws of any shared parameter."""
    ess = az.ess(tree["posterior"].to_dataset()[SHARED], method="bulk")
    return min(float(value.min()) for value in ess.data_vars.values())


def largest_difference(tree: xr.DataTree, reference: xr.DataTree) -> tuple[float, str]:
    """Return the largest difference of means of log parameters in Monte Carlo errors, and where."""
    means, errors = zip(*(_mean_and_error(each) for each in (tree, reference)), strict=True)
    found = [(float(np.abs((means[0][name] - means[1][name]).values
                           / np.hypot(errors[0][name].values, errors[1][name].values)).max()), name)
             for name in SHARED]
    return max(found)


def _mean_and_error(tree: xr.DataTree) -> tuple[xr.Dataset, xr.Dataset]:
    logs = np.log(tree["posterior"].to_dataset()[SHARED])
    return logs.mean(("chain", "draw")), az.mcse(logs, method="mean")


def gradient_time(data: CrossingData) -> float:
    """Return microseconds per log density and gradient, the best of several rounds."""
    parameters = CrossingParameters(data, LAW)
    density, position = crossing_density(parameters), parameters.center
    density(position)
    return 1e3 * min(timeit.repeat(lambda: density(position), number=1000, repeat=5))


def measure(n_runs: int, only: str) -> None:
    """Measure samplers whose name holds `only`, and the default; print the table row by row."""
    data = simulated(LAW, n_runs)
    print(f"### {n_runs} runs, {len(data.threshold)} thresholds, {LAW.name}\n\n"
          f"The density with its gradient takes {gradient_time(data):.0f} microseconds.\n\n"
          "| | preparing, CPU s | sampling, CPU s | least ESS | ESS per CPU s | default over it | "
          "divergences | off the default's means by |\n|---|---|---|---|---|---|---|---|",
          flush=True)
    default: tuple[float, xr.DataTree] | None = None
    for name, way in ways():
        if default and only not in name:
            continue
        found = way(data)
        ess = least_ess(found.tree)
        pace = ess / found.sampling
        default = default or (pace, found.tree)
        away, where = largest_difference(found.tree, default[1])
        off = "" if found.tree is default[1] else f"{away:.1f} errors ({where})"
        print(f"| {name} | {found.preparing:.1f} | {found.sampling:.2f} | {ess:.0f} | {pace:.3g} | "
              f"{default[0] / pace:.3g} | {int(found.tree['sample_stats']['diverging'].sum())} | "
              f"{off} |", flush=True)
    compared = sum(default[1]["posterior"][name].isel(chain=0, draw=0).size for name in SHARED)
    print(f"\nThe largest of {compared} differences each; of as many right ones that are "
          "independent it lies around 2.5, those of one parameter are not.\n", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="19,60", help="sizes of simulated sweeps")
    parser.add_argument("--only", default="", help="part of a name; the default is always run")
    options = parser.parse_args()
    if not stan_peer.have_stan():
        print(stan_peer.HOW_TO_INSTALL + "\n")
    own = SamplerSettings()
    print(f"{CHAINS} chains, one core: cbsbayes {own.tune} + {own.draws} draws, "
          f"the others {TUNE} + {DRAWS}.\n")
    for n_runs in options.runs.split(","):
        measure(int(n_runs), options.only)


if __name__ == "__main__":
    main()
