"""The interface to the models: a sweep in, draws of the law's quantities out.

A further model enters `posterior_tree` and, to be calibrated, offers `CalibratedModel`; everything
else reads what they return.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.loo import law_weights, leave_one_run_out
from cbsbayes.inference.sampling import SamplerSettings, sample_crossings
from cbsbayes.inference.trajectory import sample_curves
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.laws import Law, get_law
from cbsbayes.models.trajectory import TrajectoryParameters
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.posterior.law_fit import (
    curves_tree,
    mixed_draws,
    with_log_likelihood,
)
from cbsbayes.posterior.quantities import OF_ONE_LAW
from cbsbayes.posterior.selection import alternative_laws
from cbsbayes.posterior.verdict import sampler_checks
from cbsbayes.validation.reading import Reading

__all__ = ["MODELS", "CalibratedModel", "PriorDraw", "averaged_logs", "posterior_tree",
           "with_checks"]

MODELS = ("crossing", "trajectory")


class PriorDraw(NamedTuple):
    """A sweep and the parameters it was drawn from.

    Attributes
    ----------
    sweep : xarray.Dataset
        Curves, or crossings (`cbsbayes.crossings.intervals.find_crossings`).
    parameters : xarray.Dataset
        As a posterior of one draw: dims chain, draw (1 each) and threshold.
    """

    sweep: xr.Dataset
    parameters: xr.Dataset


class CalibratedModel(Protocol):
    """What a model must offer to be calibrated."""

    scalars: tuple[str, ...]
    """Further variables of prior and posterior to be ranked, without a threshold."""

    def prior_draw(self, random_seed: int) -> PriorDraw:
        """Return parameters drawn from the prior, and a sweep drawn from the parameters."""

    def posterior(self, sweep: xr.Dataset, random_seed: int) -> xr.Dataset:
        """Return posterior draws given a sweep, under the very prior of `prior_draw`."""


def posterior_tree(
    sweep: xr.Dataset, law: Law, thresholds: ArrayLike, model: str, settings: SamplerSettings,
    ceiling_by_group: bool = False,
) -> xr.DataTree:
    """Return the fit of a model at thresholds.

    Parameters
    ----------
    sweep : xarray.Dataset
        The runs to be fitted, curves or a table of crossings.
    law : Law
        The law of S(P, G).
    thresholds : array_like
        Targets.
    model : str
        One of `MODELS`.
    settings : SamplerSettings
        How to sample.
    ceiling_by_group : bool
        Whether small groups may saturate lower (trajectory model); of laws without group sizes
        none does.

    Returns
    -------
    xarray.DataTree
        Groups ``posterior`` (dims chain, draw, threshold: ``S_min``, the law's scales, ``alpha``
        where it is free, and what else the model has), ``sample_stats``, and ``log_likelihood`` of
        whole runs.

    Raises
    ------
    CBSDataError
        If there is no such model, or the sweep cannot be fitted.
    """
    if model == "crossing":
        data = crossing_data(find_crossings(sweep, thresholds), law)
        return with_log_likelihood(sample_crossings(data, law, settings), data, law)
    if model == "trajectory":
        targets = np.asarray(thresholds, dtype=float)
        parameters = TrajectoryParameters(trajectory_data(sweep, law, None), law,
                                          ceiling_by_group=ceiling_by_group and law.two_axis)
        return curves_tree(sample_curves(parameters, settings), targets, settings.random_seed)
    raise CBSDataError(f"unknown model {model!r}; valid: {', '.join(MODELS)}")


def with_checks(tree: xr.DataTree) -> xr.Dataset:
    """Return the posterior of a tree, its sampler's worst numbers as attributes."""
    return tree["posterior"].to_dataset().assign_attrs(sampler_checks(tree)[1])


def averaged_logs(
    law: Law, own: xr.DataTree, fitted: xr.Dataset, fit: Callable[[Law], xr.DataTree],
    reading: Reading,
) -> tuple[dict[str, xr.DataArray], dict[str, float]]:
    """Return the logarithms of what a user's fit averages over laws, and the laws' weights.

    Parameters
    ----------
    law : Law
        The law of `own`.
    own : xarray.DataTree
        Its fit.
    fitted : xarray.Dataset
        The runs.
    fit : callable
        From another law to its fit of the same runs.
    reading : Reading
        The batch at which quantities are compared.

    Raises
    ------
    CBSDataError
        If no law has a weight.
    """
    trees = {law.name: own} | {name: fit(get_law(name)) for name in alternative_laws(law, fitted)}
    weights = law_weights({name: leave_one_run_out(tree) for name, tree in trees.items()})
    if not any(weights.values()):
        raise CBSDataError("for no law is it known how it predicts runs left out: the importance "
                           "weights overflow")
    logs = {name: reading.logs(get_law(name), tree["posterior"].to_dataset())
            for name, tree in trees.items()}
    shared = [name for name in logs[law.name] if name not in {*OF_ONE_LAW, reading.noise_name}]
    return {name: mixed_draws({law: found[name] for law, found in logs.items()}, weights)
            for name in shared}, weights
