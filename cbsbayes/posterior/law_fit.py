"""One law fitted to one group of runs by the crossing model: draws, prior, table, replicates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.inference.loo import run_log_likelihoods
from cbsbayes.inference.sampling import (
    SamplerSettings,
    crossing_log_likelihoods,
    sample_crossings,
    sample_prior,
)
from cbsbayes.models.crossing_data import CrossingData, crossing_data
from cbsbayes.models.crossing_parameters import CrossingParameters
from cbsbayes.models.laws import Law
from cbsbayes.models.measured_noise import noise_data
from cbsbayes.posterior.fit import stacked
from cbsbayes.posterior.predictive import parameters, replicate_log_steps
from cbsbayes.posterior.quantities import Quantity, design_of, quantities
from cbsbayes.posterior.tidy import cbs_table

__all__ = ["PRIOR_DRAWS", "LawFit", "fit_crossings", "with_log_likelihood"]

PRIOR_DRAWS = 2000  # 1,000 leave a status near its line to chance


@dataclass(frozen=True)
class LawFit:
    """One law's draws on the same runs as the others.

    Attributes
    ----------
    law : Law
        The law.
    tree : xarray.DataTree
        Groups ``posterior, sample_stats, log_likelihood``.
    prior : xarray.Dataset
        Prior draws, dims (chain, draw, run, threshold).
    quantities, prior_quantities : list of Quantity
        Draws of everything that is told, from posterior and prior.
    cbs : pandas.DataFrame
        Their table.
    replicate : callable
        From draws (dim ``sample``) and a random generator to log S (updates) of one new run per
        draw and run, shape (sample, run, threshold).
    constants : xarray.Dataset
        What the model was given besides the data.
    """

    law: Law
    tree: xr.DataTree
    prior: xr.Dataset
    quantities: list[Quantity]
    prior_quantities: list[Quantity]
    cbs: pd.DataFrame
    replicate: Callable[[xr.Dataset, np.random.Generator], np.ndarray]
    constants: xr.Dataset


def fit_crossings(
    law: Law, crossings: xr.Dataset, sampler: SamplerSettings, group: str, ci_prob: float,
    noise: pd.DataFrame | None = None,
) -> LawFit:
    """Return a law fitted to crossings.

    Parameters
    ----------
    law : Law
        The law of S(P, G).
    crossings : xarray.Dataset
        Of the runs to be fitted.
    sampler : SamplerSettings
        How to sample.
    group : str
        Label of the runs.
    ci_prob : float
        Probability of the equal-tailed intervals.
    noise : DataFrame, optional
        Measured gradient noise that is data too (`cbsbayes.models.measured_noise`).
    """
    data = crossing_data(crossings, law)
    if noise is not None:
        sign = 1.0 if crossings.attrs.get("direction", "increasing") == "increasing" else -1.0
        data = replace(data, noise=noise_data(noise, law, sign * data.threshold))
    tree = with_log_likelihood(sample_crossings(data, law, sampler), data, law)
    posterior = tree["posterior"].to_dataset()
    prior = sample_prior(data, law, draws=PRIOR_DRAWS, random_seed=sampler.random_seed)
    tried = replace(design_of(crossings), parts_known=_parts_known(data, law))
    told = quantities(law, posterior, tried), quantities(law, prior, tried)
    table = cbs_table(*told, law=law, group=group, ci_prob=ci_prob)

    def replicate(draws: xr.Dataset, rng: np.random.Generator) -> np.ndarray:
        return replicate_log_steps(parameters(draws, data, law), data, rng) + data.log_steps_scale

    return LawFit(law, tree, prior, *told, table, replicate, _constants(data))


def with_log_likelihood(tree: xr.DataTree, data: CrossingData, law: Law) -> xr.DataTree:
    """Return the tree of a crossing fit with a group ``log_likelihood`` of whole runs."""
    posterior = tree["posterior"].to_dataset()
    log_p = crossing_log_likelihoods(CrossingParameters(data, law), stacked(posterior))
    tree["log_likelihood"] = xr.DataTree(run_log_likelihoods(log_p, posterior, data.run))
    return tree


def _parts_known(data: CrossingData, law: Law) -> bool:
    """Return whether measured noise tells prompts from rollouts."""
    return data.noise is not None and law.two_axis and data.noise.parts == law.scales


def _constants(data: CrossingData) -> xr.Dataset:
    noise = {} if data.noise is None else {
        "noise_probes": ("noise_range", data.noise.n_probes),
        "noise_resolved": ("noise_range", data.noise.resolved().astype(np.int8)),
        "noise_runs": ((), data.noise.n_runs)}
    return xr.Dataset(
        noise |
        {"n_prompts": ("run", data.n_prompts), "n_rollouts": ("run", data.n_rollouts),
         "threshold_logit": ("threshold", data.threshold_logit),
         "log_steps_scale": ((), data.log_steps_scale),
         **{f"log_scale_{name}": ((), value) for name, value in data.log_batch_scale.items()}},
        coords={"run": data.run, "threshold": data.threshold})
