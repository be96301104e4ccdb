"""Sample the crossing model with its run effects integrated out.

Some 27 coordinates are left however many runs there are, smooth and nearly normal, so that
`cbsbayes.inference.hmc` samples them in a fraction of a second. Importance sampling from the same
normal approximation was measured too (`benchmarks/importance.py`): 2 to 6 % of its draws are
effective, Pareto k-hat reaches .9, and walkers leave more effective draws per second.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import xarray as xr

from cbsbayes.inference.hmc import walk
from cbsbayes.inference.mode import find_mode, root_of_covariance
from cbsbayes.models import crossing_kernel as kernel
from cbsbayes.models.crossing_flat import FlatCrossing
from cbsbayes.models.crossing_words import data_words

__all__ = ["marginal_log_likelihood", "sample_marginal"]

_TARGET_ACCEPT = (0.8, 0.9, 0.95)  # the next where a draw diverges


def sample_marginal(
    flat: FlatCrossing, *, chains: int, draws: int, cores: int, random_seed: int
) -> tuple[xr.Dataset, xr.Dataset, str]:
    """Return posterior, the sampler's numbers, and why they should not be used, if so.

    Parameters
    ----------
    flat : FlatCrossing
        The model.
    chains, draws, cores, random_seed : int
        As in `cbsbayes.inference.sampling.SamplerSettings`.

    Returns
    -------
    tuple
        Datasets of dims (chain, draw, run, threshold) and (chain, draw); empty text, or what
        failed.
    """
    flat = replace(flat, marginal=True)
    words = data_words(flat)
    density = partial(kernel.log_density, words=words)
    mode = find_mode(density, flat.center, flat.sd)
    root = root_of_covariance(density, mode, flat.sd)
    found = walk(
        partial(kernel.gradients, words=words), mode, root, chains=chains, draws=draws,
        cores=cores, random_seed=random_seed, target_accept=_TARGET_ACCEPT)
    posterior = flat.unpack(found.position)
    effect = _run_effects(found.position, words, len(flat.data.run), random_seed)
    posterior = posterior.assign_coords(run=flat.data.run)
    posterior["run_effect"] = (("chain", "draw", "run"), effect)
    return posterior, found.dataset(), found.failed


def marginal_log_likelihood(flat: FlatCrossing, draws: xr.Dataset) -> np.ndarray:
    """Return log p(crossings of a run), its run effect integrated out, shape (draw, run).

    Parameters
    ----------
    flat : FlatCrossing
        The model.
    draws : xarray.Dataset
        Draws of its posterior, dims (sample, threshold).
    """
    flat = replace(flat, data=replace(flat.data, noise=None), marginal=True)
    return kernel.log_densities(flat.pack(draws), data_words(flat))[1]


def _run_effects(position: np.ndarray, words: np.ndarray, n_runs: int, seed: int) -> np.ndarray:
    """Return one draw of every run's effect given the others', shape (chain, draw, run)."""
    flat = position.reshape(-1, position.shape[-1])
    effect = kernel.run_effects(flat, words, np.random.default_rng(seed))
    return effect.reshape(*position.shape[:2], n_runs)
