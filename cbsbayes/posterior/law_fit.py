"""One law fitted to the runs selected, by either model: draws, prior, quantities, replicates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.inference.loo import run_log_likelihoods
from cbsbayes.inference.nuts import SamplerSettings
from cbsbayes.inference.sampling import (
    crossing_log_likelihoods,
    sample_crossings,
    sample_prior,
)
from cbsbayes.inference.trajectory import TrajectoryDraws, sample_curves
from cbsbayes.models.crossing_data import CrossingData, crossing_data
from cbsbayes.models.crossing_parameters import CrossingParameters
from cbsbayes.models.laws import Law
from cbsbayes.models.measured_noise import noise_data
from cbsbayes.models.trajectory import TrajectoryParameters
from cbsbayes.models.trajectory_data import TrajectoryData, trajectory_data
from cbsbayes.models.trajectory_read import read_thresholds, replicated_log_steps
from cbsbayes.posterior.fit import stacked, thinned
from cbsbayes.posterior.predictive import parameters, replicate_log_steps
from cbsbayes.posterior.quantities import Design, Quantity, design_of, quantities
from cbsbayes.posterior.selection import Selection
from cbsbayes.posterior.tidy import cbs_table

__all__ = ["PRIOR_DRAWS", "LawFit", "curves_tree", "fit_law", "with_log_likelihood"]

PRIOR_DRAWS = 2000  # 1,000 leave a status near its line to chance

Replicate = Callable[[xr.Dataset, np.random.Generator], np.ndarray]
"""From draws (dim ``sample``) and a random generator to log S (updates) of one new run per draw
and run, shape (sample, run, threshold)."""


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
    replicate : callable
        New runs from draws.
    constants : xarray.Dataset
        What the model was given besides the data.
    quantities, prior_quantities : list of Quantity
        Draws of everything that is read off, from posterior and prior.
    cbs : pandas.DataFrame
        Their table.
    """

    law: Law
    tree: xr.DataTree
    prior: xr.Dataset
    replicate: Replicate
    constants: xr.Dataset
    quantities: list[Quantity]
    prior_quantities: list[Quantity]
    cbs: pd.DataFrame

    @property
    def posterior(self) -> xr.Dataset:
        """Draws, dims (chain, draw, run, threshold)."""
        return self.tree["posterior"].to_dataset()

    def replicates(self, draws: xr.Dataset, random_seed: int) -> xr.Dataset:
        """Return S (updates) of new runs at the runs' batches, dims (chain, draw, run, threshold).

        Parameters
        ----------
        draws : xarray.Dataset
            Of the posterior or the prior.
        random_seed : int
            Of the new runs.
        """
        some = thinned(draws)
        log_steps = self.replicate(stacked(some), np.random.default_rng(random_seed))
        shape = (some.sizes["chain"], some.sizes["draw"], *log_steps.shape[1:])
        steps = np.exp(np.minimum(log_steps, 700.0)).reshape(shape)
        about = {"long_name": "replicated S of another run", "units": "updates"}
        return xr.Dataset({"steps": (("chain", "draw", "run", "threshold"), steps, about)},
                          coords={"run": self.constants["run"], "threshold": draws["threshold"],
                                  "chain": some["chain"], "draw": some["draw"]})


def fit_law(law: Law, selected: Selection, model: str | None = None) -> LawFit:
    """Return a law fitted to the runs selected.

    Parameters
    ----------
    law : Law
        The law of S(P, G).
    selected : Selection
        Runs, targets and options.
    model : {"crossing", "trajectory"}, optional
        That of the options unless given.
    """
    options = selected.options
    fit = _fit_crossings if (model or options.model) == "crossing" else _fit_curves
    tree, prior, replicate, constants, design = fit(law, selected, options.sampler)
    both = (quantities(law, tree["posterior"].to_dataset(), design),
            quantities(law, prior, design))
    table = cbs_table(*both, law=law, group=selected.group, ci_prob=options.ci_prob)
    return LawFit(law, tree, prior, replicate, constants, *both, table)


_Parts = tuple[xr.DataTree, xr.Dataset, Replicate, xr.Dataset, Design]


def _fit_crossings(law: Law, selected: Selection, sampler: SamplerSettings) -> _Parts:
    crossings, noise = selected.crossings, selected.noise
    data = crossing_data(crossings, law)
    if noise is not None:
        sign = 1.0 if crossings.attrs.get("direction", "increasing") == "increasing" else -1.0
        data = replace(data, noise=noise_data(noise, law, sign * data.threshold))
    tree = with_log_likelihood(sample_crossings(data, law, sampler), data, law)
    prior = sample_prior(data, law, draws=PRIOR_DRAWS, random_seed=sampler.random_seed)
    parts_known = data.noise is not None and law.two_axis and data.noise.parts == law.scales

    def replicate(draws: xr.Dataset, rng: np.random.Generator) -> np.ndarray:
        return replicate_log_steps(parameters(draws, data, law), data, rng) + data.log_steps_scale

    return (tree, prior, replicate, _constants(data),
            replace(design_of(crossings), parts_known=parts_known))


def _fit_curves(law: Law, selected: Selection, sampler: SamplerSettings) -> _Parts:
    targets, seed = np.sort(selected.crossings["threshold"].values), sampler.random_seed
    ceilings = selected.options.ceiling_by_group and law.two_axis
    data = trajectory_data(selected.fitted, law, selected.metric)
    draws = sample_curves(TrajectoryParameters(data, law, ceiling_by_group=ceilings), sampler)
    parameters = draws.parameters
    position = parameters.prior_draws(PRIOR_DRAWS, np.random.default_rng(seed))
    prior = read_thresholds(parameters, position[None], targets, seed)

    def replicate(draws: xr.Dataset, rng: np.random.Generator) -> np.ndarray:
        return replicated_log_steps(parameters, draws, rng)

    return (curves_tree(draws, targets, seed), prior, replicate, _constants(data),
            design_of(selected.fitted))


def curves_tree(draws: TrajectoryDraws, thresholds: np.ndarray, random_seed: int) -> xr.DataTree:
    """Return groups ``posterior`` at thresholds, ``sample_stats`` and ``log_likelihood``.

    Parameters
    ----------
    draws : TrajectoryDraws
        Of the shared parameters and the run effects.
    thresholds : numpy.ndarray
        Accuracies, rising, shape (threshold,).
    random_seed : int
        For waves of the item set that are added from their prior.
    """
    parameters = draws.parameters
    run = parameters.data.run
    posterior = read_thresholds(parameters, draws.position, thresholds, random_seed)
    posterior = posterior.assign_coords(run=run)
    posterior["run_effect"] = (("chain", "draw", "run"), draws.run_effect)
    log_p = parameters.run_log_likelihoods(draws.position.reshape(-1, parameters.n_dim))
    return xr.DataTree.from_dict({
        "posterior": posterior, "sample_stats": draws.stats.assign_attrs(note=draws.note),
        "log_likelihood": run_log_likelihoods(log_p, posterior, run)})


def with_log_likelihood(tree: xr.DataTree, data: CrossingData, law: Law) -> xr.DataTree:
    """Return the tree of a crossing fit with a group ``log_likelihood`` of whole runs."""
    posterior = tree["posterior"].to_dataset()
    log_p = crossing_log_likelihoods(CrossingParameters(data, law), stacked(posterior))
    tree["log_likelihood"] = xr.DataTree(run_log_likelihoods(log_p, posterior, data.run))
    return tree


def _constants(data: CrossingData | TrajectoryData) -> xr.Dataset:
    """Return what a model is given besides the data: batches, and what measured noise there is."""
    constants = xr.Dataset(
        {"n_prompts": ("run", data.n_prompts), "n_rollouts": ("run", data.n_rollouts),
         "log_steps_scale": ((), data.log_steps_scale)}, coords={"run": data.run})
    noise = data.noise if isinstance(data, CrossingData) else None
    return constants if noise is None else constants.assign(
        noise_probes=("noise_range", noise.n_probes), noise_runs=((), noise.n_runs),
        noise_resolved=("noise_range", noise.resolved().astype(np.int8)))
