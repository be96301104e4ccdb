"""One law fitted to one group of runs by the trajectory model, from their whole curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.inference.trajectory_sampling import sample_curves
from cbsbayes.models.laws import Law
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_flat import FlatTrajectory
from cbsbayes.models.trajectory_read import read_thresholds
from cbsbayes.models.trajectory_replicate import replicated_log_steps
from cbsbayes.posterior.law_fit import PRIOR_DRAWS, LawFit
from cbsbayes.posterior.quantities import design_of, quantities
from cbsbayes.posterior.tidy import cbs_table

__all__ = ["fit_curves"]


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
    data = trajectory_data(fitted, law, metric)
    flat = FlatTrajectory(data, law, ceiling_by_group=ceiling_by_group and law.two_axis)
    tree, flat = sample_curves(flat, targets, sampler)
    rng = np.random.default_rng(sampler.random_seed)
    prior = read_thresholds(flat, flat.prior_draws(PRIOR_DRAWS, rng)[None], targets,
                            sampler.random_seed)
    tried = design_of(fitted)
    told = (quantities(law, tree["posterior"].to_dataset(), tried),
            quantities(law, prior, tried))
    table = cbs_table(*told, law=law, group=group, ci_prob=ci_prob)

    def replicate(draws: xr.Dataset, rng: np.random.Generator) -> np.ndarray:
        return replicated_log_steps(flat, draws, rng)

    return LawFit(law, tree, prior, *told, table, replicate, _constants(flat))


def _constants(flat: FlatTrajectory) -> xr.Dataset:
    data = flat.data
    return xr.Dataset(
        {"n_prompts": ("run", data.n_prompts), "n_rollouts": ("run", data.n_rollouts),
         "log_steps_scale": ((), data.log_steps_scale), "middle_logit": ((), data.middle),
         "typical_accuracy": ("progress", data.typical.accuracy),
         **{f"log_scale_{name}": ((), value) for name, value in data.log_batch_scale.items()}},
        coords={"run": data.run, "progress": np.exp(data.typical.log_tau + data.log_steps_scale)})
