"""Sample the crossing model: nutpie on the compiled kernel, or PyMC's own NUTS on the definition.

nutpie's low-rank mass-matrix adaptation was the fastest sampler measured on this model. It is given
`cbsbayes.models.crossing_kernel`, because compiling the PyMC model for nutpie takes several times
as long as sampling it. Both samplers return the same variables.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.laws import Law
from cbsbayes.models.crossing_data import CrossingData
from cbsbayes.models.crossing_flat import FlatCrossing
from cbsbayes.models.crossing_words import data_words
from cbsbayes.models.priors import PRIORS, Priors

__all__ = ["SAMPLERS", "SamplerSettings", "sample_crossings", "sample_prior"]

SAMPLERS = ("nutpie", "pymc")
_TARGET_ACCEPT = 0.95  # .9 does on most sweeps, but where only bounds are known draws diverge
_REDUNDANT = "run_effect_z"  # run_effect over sigma_run


@dataclass(frozen=True)
class SamplerSettings:
    """How to sample.

    Attributes
    ----------
    sampler : {"nutpie", "pymc"}
        Which NUTS.
    draws, tune, chains : int
        Kept and discarded draws of each chain, and chains.
    random_seed : int
        Same seed, same sampler and versions: same draws.
    cores : int
        Chains at once.
    """

    sampler: str = "nutpie"
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
        Groups ``posterior`` and ``sample_stats``, dims chain, draw, run, threshold.
    """
    sample = _sample_nutpie if settings.sampler == "nutpie" else _sample_pymc
    return sample(data, law, settings, priors.at(len(data.threshold)))


def _sample_nutpie(
    data: CrossingData, law: Law, settings: SamplerSettings, priors: Priors
) -> xr.DataTree:
    import nutpie

    flat = FlatCrossing(data, law, priors)
    tree = nutpie.sample(
        _nutpie_model(flat), draws=settings.draws, tune=settings.tune, chains=settings.chains,
        cores=settings.cores, seed=settings.random_seed, target_accept=_TARGET_ACCEPT,
        adaptation="low_rank", save_warmup=False, progress_bar=False,
    )
    return xr.DataTree.from_dict({
        "posterior": flat.unpack(tree["posterior"]["position"].values),
        "sample_stats": tree["sample_stats"].to_dataset()})


def _nutpie_model(flat: FlatCrossing) -> Any:
    """Return the kernel as nutpie takes a compiled PyMC model: by address, without Python.

    Called as a Python function it would cost twice the time, and two chains would wait for each
    other. Draws stay flat until sampling is over.
    """
    from nutpie.compile_pymc import CompiledPyMCModel

    from cbsbayes.models.crossing_kernel import sampler_callbacks

    density, copy = sampler_callbacks()
    shape = (flat.n_dim,)
    return CompiledPyMCModel(
        compiled_logp_func=density, compiled_expand_func=copy, user_data=data_words(flat),
        initial_point_func=flat.initial_point, n_expanded=flat.n_dim,
        shape_info=(["position"], [slice(0, flat.n_dim)], [shape]),
        dims={}, shared_data={}, shared_var_keys={}, logp_func=None, expand_func=None,
        _n_dim=flat.n_dim, _shapes={"position": shape}, _coords={},
    )


def _sample_pymc(
    data: CrossingData, law: Law, settings: SamplerSettings, priors: Priors
) -> xr.DataTree:
    import pymc as pm

    from cbsbayes.models.crossing import build_crossing_model

    with build_crossing_model(data, law, priors), _quiet():
        tree = pm.sample(
            draws=settings.draws, tune=settings.tune, chains=settings.chains,
            cores=settings.cores, random_seed=settings.random_seed, nuts_sampler="pymc",
            target_accept=_TARGET_ACCEPT, progressbar=False, compute_convergence_checks=False,
        )
    return xr.DataTree.from_dict({
        "posterior": tree["posterior"].to_dataset().drop_vars(_REDUNDANT),
        "sample_stats": tree["sample_stats"].to_dataset()})


def sample_prior(
    data: CrossingData, law: Law, *, draws: int = 1000, random_seed: int = 0,
    priors: Priors = PRIORS,
) -> xr.Dataset:
    """Return draws from the prior of everything the posterior holds.

    Returns
    -------
    xarray.Dataset
        Dims (chain, draw, run, threshold), one chain.
    """
    import pymc as pm

    from cbsbayes.models.crossing import build_crossing_model

    model = build_crossing_model(data, law, priors.at(len(data.threshold)))
    with model, _quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The effect of Potentials", UserWarning)
        # Python's own linker: a prior draw is cheap, compiling its graph is not.
        tree = pm.sample_prior_predictive(draws, random_seed=random_seed,
                                          compile_kwargs={"mode": "FAST_COMPILE"})
    return tree["prior"].to_dataset().drop_vars(_REDUNDANT)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyMC's own log lines out of a command's output; ours says what is being done."""
    log = logging.getLogger("pymc")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
