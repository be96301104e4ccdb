"""The interface to the models: a sweep in, draws of the law's quantities out.

A further model enters `posterior_tree`; everything else reads what it returns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.sampling import SamplerSettings, sample_crossings
from cbsbayes.inference.trajectory_sampling import sample_curves
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.laws import Law
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.models.trajectory_flat import FlatTrajectory
from cbsbayes.posterior.law_fit import with_log_likelihood
from cbsbayes.posterior.verdict import sampler_checks

__all__ = ["MODELS", "by_threshold", "interval", "posterior_tree", "with_checks"]

MODELS = ("crossing", "trajectory")


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
        flat = FlatTrajectory(trajectory_data(sweep, law, None), law,
                              ceiling_by_group=ceiling_by_group and law.two_axis)
        return sample_curves(flat, targets, settings)[0]
    raise CBSDataError(f"unknown model {model!r}; valid: {', '.join(MODELS)}")


def with_checks(tree: xr.DataTree) -> xr.Dataset:
    """Return the posterior of a tree, its sampler's worst numbers as attributes."""
    return tree["posterior"].to_dataset().assign_attrs(sampler_checks(tree)[1])


def interval(
    log_draws: xr.DataArray, ci_prob: float
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Return median and ends of the equal-tailed interval over chain and draw."""
    tail = (1 - ci_prob) / 2
    found = log_draws.quantile([0.5, tail, 1 - tail], ("chain", "draw"))
    middle, lower, upper = (found.isel(quantile=k, drop=True) for k in range(3))
    return middle, lower, upper


def by_threshold(values: xr.DataArray, thresholds: Sequence[float]) -> np.ndarray:
    """Return the value at every threshold, shape (threshold,); the one that holds for all."""
    if "threshold" not in values.dims:
        return np.full(len(thresholds), float(values))
    known = values["threshold"].values
    return values.values[[np.abs(known - threshold).argmin() for threshold in thresholds]]
