"""One law fitted to one group of runs by the trajectory model, from their whole curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from cbsbayes.inference.loo import run_log_likelihoods
from cbsbayes.inference.nuts import SamplerSettings
from cbsbayes.inference.trajectory import TrajectoryDraws, sample_curves
from cbsbayes.models.laws import Law
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_parameters import TrajectoryParameters
from cbsbayes.models.trajectory_read import read_thresholds
from cbsbayes.models.trajectory_replicate import replicated_log_steps
from cbsbayes.posterior.law_fit import PRIOR_DRAWS, LawFit
from cbsbayes.posterior.quantities import design_of, quantities
from cbsbayes.posterior.tidy import cbs_table

__all__ = ["curves_tree", "fit_curves"]


def fit_curves(
    law: Law, fitted: xr.Dataset, thresholds: Sequence[float] | np.ndarray, metric: str | None,
    sampler: SamplerSettings, group: str, ci_prob: float, ceiling_by_group: bool = False,
) -> LawFit:
    """Return a law fitted to curves, read off at thresholds.

    Parameters
    ----------
    law : Law
        The law of S(P, G).
    fitted : xarray.Dataset
        A sweep of accuracies, runs that may be fitted only.
    thresholds : array_like
        Accuracies at which the posterior is read.
    metric : str or None
        Validation set.
    sampler : SamplerSettings
        How to sample.
    group : str
        Label of the runs.
    ci_prob : float
        Probability of the equal-tailed intervals.
    ceiling_by_group : bool
        Whether small groups may saturate lower; of laws without group sizes none does.
    """
    targets = np.sort(np.asarray(thresholds, dtype=float))
    draws = sample_curves(
        TrajectoryParameters(trajectory_data(fitted, law, metric), law,
                             ceiling_by_group=ceiling_by_group and law.two_axis), sampler)
    parameters, seed = draws.parameters, sampler.random_seed
    tree = curves_tree(draws, targets, seed)
    prior_position = parameters.prior_draws(PRIOR_DRAWS, np.random.default_rng(seed))
    prior = read_thresholds(parameters, prior_position[None], targets, seed)
    tried = design_of(fitted)
    told = (quantities(law, tree["posterior"].to_dataset(), tried),
            quantities(law, prior, tried))
    table = cbs_table(*told, law=law, group=group, ci_prob=ci_prob)

    def replicate(draws: xr.Dataset, rng: np.random.Generator) -> np.ndarray:
        return replicated_log_steps(parameters, draws, rng)

    return LawFit(law, tree, prior, *told, table, replicate, _constants(parameters))


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


def _constants(parameters: TrajectoryParameters) -> xr.Dataset:
    data = parameters.data
    return xr.Dataset(
        {"n_prompts": ("run", data.n_prompts), "n_rollouts": ("run", data.n_rollouts),
         "log_steps_scale": ((), data.log_steps_scale), "middle_logit": ((), data.middle),
         "typical_accuracy": ("progress", data.typical.accuracy),
         **{f"log_scale_{name}": ((), value) for name, value in data.log_batch_scale.items()}},
        coords={"run": data.run, "progress": np.exp(data.typical.log_tau + data.log_steps_scale)})
