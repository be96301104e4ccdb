"""A quick fit whose runs have step times, and a clock with times that are known."""

from __future__ import annotations

import numpy as np
import xarray as xr
from fitted import SETTINGS, quick_sampling

from cbsbayes.decisions.batches import NEW_RUN, POPULATION
from cbsbayes.decisions.time_to_target import Machine, Times
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.simulation.sweep import simulate_sweep

T_0, C_P, C_R = 20.0, 0.05, 0.02


def timed(sweep, sigma=0.05, seed=0):
    """Return a sweep with step times of a known truth."""
    ds = sweep.copy(deep=True)
    noise = np.random.default_rng(seed).normal(size=ds.sizes["run"])
    prompts, samples = ds["n_prompts"].values, ds["total_batch"].values
    ds["step_time"].values[:] = (T_0 + C_P * prompts + C_R * samples) * np.exp(sigma * noise)
    return ds


def timed_fit(design="p1+p2b", *, one_axis=False):
    """Return a fit of a timed simulated sweep, its draws from the quick sampler."""
    ds = timed(simulate_sweep(design, 1, random_seed=3))
    if one_axis:
        for name in ("n_prompts", "n_rollouts", "train_batch_prompts", "mini_batch_prompts"):
            ds[name].values[:] = -1
    with quick_sampling():
        return fit_sweep(ds, sampler=SETTINGS)


def made_times(medians, *, spread=0.1, machine=None, inside=None, draws=400):
    """Return times of one threshold whose medians (hours) are known, a batch each."""
    machine = machine or Machine()
    medians = np.asarray(medians, dtype=float)
    z = np.linspace(-1.5, 1.5, draws)
    grid = medians[:, None] / np.array(machine.counts)
    hours = np.stack([grid * np.exp(width * spread * z)[:, None, None] for width in (1, 3)])
    where = np.where(np.full(len(medians), True) if inside is None else inside, "tried",
                     "extrapolated")
    return Times(machine, xr.Dataset(
        {"hours": (("applies_to", "sample", "threshold", "batch", "gpus"), hours[:, :, None]),
         "steps": (("applies_to", "sample", "threshold", "batch"), hours[:, :, None, :, 0])},
        coords={"applies_to": [POPULATION, NEW_RUN], "threshold": [0.7],
                "n_prompts": ("batch", 2.0 ** np.arange(len(medians))),
                "n_rollouts": ("batch", np.full(len(medians), 8.0)), "range": ("batch", where)}))
