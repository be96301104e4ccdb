"""Sample the crossing model: with run effects integrated out, or by NUTS with them.

``marginal`` (`cbsbayes.inference.marginal`) is the fastest by far; where its draws should not be
used, NUTS takes over and the tree says why. ``nutpie`` is NUTS with a low-rank mass matrix on
`cbsbayes.models.crossing_kernel`, because compiling the PyMC model for it takes several times as
long as sampling. ``pymc`` is PyMC's own NUTS on the definition. All return the same variables.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from cbsbayes.crossings.thresholds import MIN_BATCH_SIZES
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.marginal import sample_marginal
from cbsbayes.models.crossing_data import CrossingData
from cbsbayes.models.crossing_flat import FlatCrossing
from cbsbayes.models.crossing_words import data_words
from cbsbayes.models.laws import Law
from cbsbayes.models.priors import PRIORS, Priors

__all__ = ["SAMPLERS", "SamplerSettings", "nutpie_model", "quiet_pymc", "sample_crossings",
           "sample_prior"]

SAMPLERS = ("marginal", "nutpie", "pymc")
_TARGET_ACCEPT = 0.95  # .9 does on most sweeps, but where only bounds are known draws diverge
_TARGET_ACCEPT_NOISE = 0.99  # accuracy ranges without a probe make narrow places
_REDUNDANT = "run_effect_z"  # run_effect over sigma_run


@dataclass(frozen=True)
class SamplerSettings:
    """How to sample.

    Attributes
    ----------
    sampler : {"marginal", "nutpie", "pymc"}
        Walkers with run effects integrated out, or one of two NUTS. The trajectory model
        integrates its runs' own parameters out for all three.
    draws, tune, chains : int
        Kept and discarded draws of each chain, and chains; ``marginal`` needs no `tune`.
    random_seed : int
        Same seed, same sampler and versions: same draws.
    cores : int
        Chains at once.
    """

    sampler: str = "marginal"
    draws: int = 1000
    tune: int = 1000
    chains: int = 4
    random_seed: int = 0
    cores: int = 2

    def __post_init__(self) -> None:
        """Refuse settings that cannot be sampled with."""
        if self.sampler not in SAMPLERS:
            raise CBSDataError(f"unknown sampler {self.sampler!r}; valid: {', '.join(SAMPLERS)}")
        for name, least in (("draws", 50), ("tune", 100), ("chains", 2)):
            if getattr(self, name) < least:
                raise CBSDataError(f"{name} is {getattr(self, name)}; valid: at least {least}, "
                                   "r_hat and ESS need them")


def sample_crossings(
    data: CrossingData, law: Law, settings: SamplerSettings, priors: Priors = PRIORS
) -> xr.DataTree:
    """Return the posterior of the crossing model.

    Parameters
    ----------
    data : CrossingData
        Crossings of the runs to be fitted.
    law : Law
        The law of S(P, G).
    settings : SamplerSettings
        How to sample.
    priors : Priors
        Of the model.

    Returns
    -------
    xarray.DataTree
        Groups ``posterior`` and ``sample_stats``, dims chain, draw, run, threshold; the latter's
        attribute ``fell_back`` says why NUTS took over, where it did.
    """
    priors, why = _priors_for(data, priors), ""
    if settings.sampler == "marginal":
        posterior, stats, why = sample_marginal(
            FlatCrossing(data, law, priors), chains=settings.chains, draws=settings.draws,
            cores=settings.cores, random_seed=settings.random_seed)
        if not why:
            return xr.DataTree.from_dict({"posterior": posterior, "sample_stats": stats})
    sample = _sample_pymc if settings.sampler == "pymc" else _sample_nutpie
    tree = sample(data, law, settings, priors)
    tree["sample_stats"].attrs["fell_back"] = why
    return tree


def _sample_nutpie(
    data: CrossingData, law: Law, settings: SamplerSettings, priors: Priors
) -> xr.DataTree:
    import nutpie

    from cbsbayes.models.crossing_kernel import sampler_callbacks

    flat = FlatCrossing(data, law, priors)
    model = nutpie_model(sampler_callbacks(), data_words(flat), flat.n_dim, flat.initial_point)
    tree = nutpie.sample(
        model, draws=settings.draws, tune=settings.tune, chains=settings.chains,
        cores=settings.cores, seed=settings.random_seed, target_accept=_target_accept(data),
        adaptation="low_rank", save_warmup=False, progress_bar=False,
    )
    return xr.DataTree.from_dict({
        "posterior": flat.unpack(tree["posterior"]["position"].values),
        "sample_stats": tree["sample_stats"].to_dataset()})


def _priors_for(data: CrossingData, priors: Priors) -> Priors:
    n_batches = len(np.unique(np.column_stack([data.n_prompts, data.n_rollouts]), axis=0))
    if data.noise is not None and n_batches < MIN_BATCH_SIZES:
        priors = priors.few_batches()
    return priors.at(len(data.threshold))


def _target_accept(data: CrossingData) -> float:
    return _TARGET_ACCEPT if data.noise is None else _TARGET_ACCEPT_NOISE


def nutpie_model(
    callbacks: tuple[Any, Any], words: np.ndarray, n_dim: int,
    start: Callable[[int], np.ndarray],
) -> Any:
    """Return a kernel as nutpie takes a compiled PyMC model: by address, without Python.

    Called as a Python function it would cost twice the time, and two chains would wait for each
    other. Draws stay flat until sampling is over.

    Parameters
    ----------
    callbacks : tuple
        Log density with gradient, and the copy of a draw, as C functions.
    words : numpy.ndarray
        The kernel's data.
    n_dim : int
        Length of the flat vector.
    start : callable
        From a seed to a starting point, shape (n_dim,).
    """
    from nutpie.compile_pymc import CompiledPyMCModel

    density, copy = callbacks
    return CompiledPyMCModel(
        compiled_logp_func=density, compiled_expand_func=copy, user_data=words,
        initial_point_func=start, n_expanded=n_dim,
        shape_info=(["position"], [slice(0, n_dim)], [(n_dim,)]),
        dims={}, shared_data={}, shared_var_keys={}, logp_func=None, expand_func=None,
        _n_dim=n_dim, _shapes={"position": (n_dim,)}, _coords={},
    )


def _sample_pymc(
    data: CrossingData, law: Law, settings: SamplerSettings, priors: Priors
) -> xr.DataTree:
    import pymc as pm

    from cbsbayes.models.crossing import build_crossing_model

    with build_crossing_model(data, law, priors), quiet_pymc():
        tree = pm.sample(
            draws=settings.draws, tune=settings.tune, chains=settings.chains,
            cores=settings.cores, random_seed=settings.random_seed, nuts_sampler="pymc",
            target_accept=_target_accept(data), progressbar=False, compute_convergence_checks=False,
        )
    return xr.DataTree.from_dict({
        "posterior": tree["posterior"].to_dataset().drop_vars(_REDUNDANT),
        "sample_stats": tree["sample_stats"].to_dataset()})


def sample_prior(
    data: CrossingData, law: Law, *, draws: int = 1000, random_seed: int = 0,
    priors: Priors = PRIORS,
) -> xr.Dataset:
    """Return draws from the prior of everything the posterior holds but measured noise.

    Returns
    -------
    xarray.Dataset
        Dims (chain, draw, run, threshold), one chain.
    """
    flat = FlatCrossing(replace(data, noise=None), law, _priors_for(data, priors))
    position = flat.prior_draws(draws, np.random.default_rng(random_seed))
    return flat.unpack(position[None])


@contextlib.contextmanager
def quiet_pymc() -> Iterator[None]:
    """Keep PyMC's own log lines out of a command's output; ours says what is being done."""
    log = logging.getLogger("pymc")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
