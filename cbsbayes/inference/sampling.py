"""Draws from posterior and prior of the crossing model, and what they say of whole runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr

from cbsbayes.inference.nuts import SAMPLERS, Density, SamplerSettings, sample_density
from cbsbayes.models import crossing, noise_data
from cbsbayes.models.crossing_data import CrossingData
from cbsbayes.models.crossing_parameters import CrossingParameters, crossing_arrays, noise_arrays
from cbsbayes.models.laws import Law
from cbsbayes.models.parameters import PRIORS, Priors

__all__ = ["SAMPLERS", "SamplerSettings", "crossing_density", "crossing_log_likelihoods",
           "sample_crossings", "sample_prior"]

_PYMC_TARGET_ACCEPT = 0.95
_FEWEST_BATCHES = 3  # below, seeds cannot tell their own scatter


def crossing_density(parameters: CrossingParameters) -> Density:
    """Return the log density of a model's position, with its gradient.

    Parameters
    ----------
    parameters : CrossingParameters
        Data, law and priors.
    """
    arrays, noise = crossing_arrays(parameters), noise_arrays(parameters)

    def density(position: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = crossing.log_density(position, arrays)
        if noise is None:
            return value, gradient
        more, slope = noise_data.log_density(position, noise)
        return value + more, gradient + slope

    return density


def sample_crossings(data: CrossingData, law: Law, settings: SamplerSettings) -> xr.DataTree:
    """Return the posterior of the crossing model.

    Parameters
    ----------
    data : CrossingData
        Crossings of the runs to be fitted.
    law : Law
        The law of S(P, G).
    settings : SamplerSettings
        How to sample.

    Returns
    -------
    xarray.DataTree
        Groups ``posterior`` and ``sample_stats``, dims chain, draw, run, threshold; the latter's
        attribute ``note`` says why draws were taken a second time, where they were.
    """
    parameters = CrossingParameters(data, law, _priors_for(data, PRIORS))
    if settings.sampler == "pymc":
        return _sample_pymc(parameters, settings)
    density = crossing_density(parameters)
    draws = sample_density(density, parameters.center, parameters.sd, settings)
    posterior = parameters.unpack(draws.position)
    flat = draws.position.reshape(-1, parameters.n_dim)
    uniform = np.random.default_rng(settings.random_seed).random((len(flat), len(data.run)))
    effect = crossing.run_effects(flat, uniform, crossing_arrays(parameters))
    posterior["run_effect"] = (("chain", "draw", "run"),
                               effect.reshape(*draws.position.shape[:2], -1))
    return xr.DataTree.from_dict({
        "posterior": posterior, "sample_stats": draws.stats.assign_attrs(note=draws.note)})


def crossing_log_likelihoods(parameters: CrossingParameters, draws: xr.Dataset) -> np.ndarray:
    """Return log p(crossings of a run), its run effect integrated out, shape (draw, run).

    Parameters
    ----------
    parameters : CrossingParameters
        Data and law; measured noise is not looked at.
    draws : xarray.Dataset
        Draws of a posterior or prior of this law, dims (sample, threshold).
    """
    parameters = replace(parameters, data=replace(parameters.data, noise=None))
    return crossing.run_log_likelihoods(parameters.pack(draws), crossing_arrays(parameters))


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
    rng = np.random.default_rng(random_seed)
    parameters = CrossingParameters(replace(data, noise=None), law, _priors_for(data, priors))
    prior = parameters.unpack(parameters.prior_draws(draws, rng)[None])
    effect = prior["sigma_run"].values[..., None] * rng.standard_normal((1, draws, len(data.run)))
    return prior.assign(run_effect=(("chain", "draw", "run"), effect))


def _priors_for(data: CrossingData, priors: Priors) -> Priors:
    n_batches = len(np.unique(np.column_stack([data.n_prompts, data.n_rollouts]), axis=0))
    if data.noise is not None and n_batches < _FEWEST_BATCHES:
        priors = priors.few_batches()
    return priors.at(len(data.threshold))


def _sample_pymc(parameters: CrossingParameters, settings: SamplerSettings) -> xr.DataTree:
    import pymc as pm

    from cbsbayes.models.pymc_models import build_crossing_model

    with build_crossing_model(parameters.data, parameters.law, parameters.priors):
        tree = pm.sample(
            draws=settings.draws, tune=settings.tune, chains=settings.chains,
            cores=settings.cores, random_seed=settings.random_seed, nuts_sampler="pymc",
            target_accept=_PYMC_TARGET_ACCEPT, quiet=True, compute_convergence_checks=False)
    return xr.DataTree.from_dict({
        "posterior": tree["posterior"].to_dataset().drop_vars("run_effect_z"),
        "sample_stats": tree["sample_stats"].to_dataset()})
