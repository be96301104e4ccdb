"""Which runs are fitted together, and which are set apart and why.

Runs of different models, data sets, estimators or reuse are never pooled. Runs that differ in
their learning rate only are one group: the rate is part of its law, at one batch size as along a
rule such as lr ∝ batch^k; those of one rate can still be asked for by its name. Within a group,
every run that does not enter the fit is named with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError

__all__ = ["LearningRateRule", "choose_runs", "group_names", "group_of", "learning_rate_rule",
           "of_group", "rounded_rates", "varied_rates", "without_baseline"]

_NO_BASELINE = frozenset({"reinforce_plus_plus", "reinforce", "remax", "ppo", "gae"})
_AXES = {"total_batch": "batch", "n_prompts": "prompts", "n_rollouts": "rollouts"}
_SINGLE = ("n_rollouts = 1: a group of one has no baseline, the raw reward is its advantage; "
           "another estimator, set apart")
_ROUNDING = 1e-9  # of a sum of squares, below which two fits are as good


def group_of(ds: xr.Dataset, *, by_rate: bool = False) -> xr.DataArray:
    """Return each run's group, a readable label; runs of different groups are never pooled.

    A group is model × dataset × algorithm × ppo_epochs, and whether the learning rate is known;
    parts that are unknown (or, for ppo_epochs, 1) are left out of the label, which names the
    learning rate, its rule or its range too.

    Parameters
    ----------
    ds : xarray.Dataset
        A sweep.
    by_rate : bool
        Whether each learning rate is a group of its own.

    Returns
    -------
    xarray.DataArray
        Text, dims run.
    """
    settings = pd.DataFrame({name: ds[name].values
                             for name in ("model", "dataset", "algorithm", "ppo_epochs")})
    rates = pd.Series(ds["learning_rate"].values)
    settings["rate"] = rates.map("{:g}".format) if by_rate else np.isfinite(rates)
    labels = np.full(len(settings), "", dtype=object)
    for places in settings.groupby(list(settings)).indices.values():
        model, dataset, algorithm, epochs = settings.iloc[places[0], :4]
        parts = [model, dataset, algorithm, _rate_label(ds.isel(run=places)),
                 f"{epochs} epochs" if epochs > 1 else ""]
        labels[places] = " · ".join(filter(None, parts)) or "all runs"
    return xr.DataArray(labels.astype(np.str_), dims="run", coords={"run": ds["run"]},
                        name="group")


def _rate_label(ds: xr.Dataset) -> str:
    if rule := learning_rate_rule(ds):
        return rule.label
    rates = varied_rates(ds)
    if len(rates):
        return f"lr {rates[0]:g} to {rates[-1]:g}"
    rate = ds["learning_rate"].values[0]
    return f"lr {rate:g}" if np.isfinite(rate) else ""


def varied_rates(ds: xr.Dataset) -> np.ndarray:
    """Return the learning rates of runs, sorted; none where there is one, or some are unknown."""
    rates = np.unique(rounded_rates(ds["learning_rate"].values))
    known = np.isfinite(rates).all() and (rates > 0).all()
    return rates if known and len(rates) > 1 else rates[:0]


def rounded_rates(rates: Iterable[float]) -> np.ndarray:
    """Return learning rates to six digits, so that the same ones are equal, shape (rate,)."""
    return np.array([float(f"{rate:.6g}") for rate in rates])


def group_names(ds: xr.Dataset) -> list[str]:
    """Return the groups of a sweep, sorted."""
    return sorted({str(name) for name in group_of(ds).values})


def of_group(ds: xr.Dataset, group: str) -> xr.Dataset:
    """Return the runs of one group, or those of it that have one learning rate.

    Raises
    ------
    CBSDataError
        If there is no such group; the message lists those there are.
    """
    for by_rate in (False, True):
        places = np.flatnonzero(group_of(ds, by_rate=by_rate).values == group)
        if len(places):
            return ds.isel(run=places)
    raise CBSDataError(f"no group {group!r}; the sweep's groups are: {'; '.join(group_names(ds))}")


def without_baseline(ds: xr.Dataset) -> bool:
    """Return whether the group's estimator has no baseline from the other rollouts (1/G law)."""
    names = {str(a).lower() for a in ds["algorithm"].values}
    return bool(names) and names <= _NO_BASELINE


def choose_runs(ds: xr.Dataset, *, group_baseline: bool = True) -> dict[str, str]:
    """Return for every run why it is left out of the fit, or ``""`` where it enters.

    Parameters
    ----------
    ds : xarray.Dataset
        All runs of a group.
    group_baseline : bool
        Whether the law fitted has one, so that groups of one are left out.
    """
    usable, remark = ds["usable"].values == 1, ds["remark"].values
    rollouts = ds["n_rollouts"].values
    group_baseline = group_baseline and not without_baseline(ds)
    single = (rollouts == 1) & bool((rollouts[usable] >= 2).any() and group_baseline)
    reasons = np.select([usable & ~single, usable, remark != ""], ["", _SINGLE, remark],
                        "marked as not usable in the sweep")
    return dict(zip(ds["run"].values.tolist(), reasons.tolist(), strict=True))


class LearningRateRule(NamedTuple):
    """The learning rate as a power of the batch, fitted to one rate per batch size.

    Attributes
    ----------
    axis : str
        What it follows best: ``total_batch``, ``n_prompts`` or ``n_rollouts``.
    exponent : float
        k in lr ∝ batch^k.
    standard_error : float or None
        Of k; None of two batch sizes.
    lowest, highest : float
        The rates used.
    """

    axis: str
    exponent: float
    standard_error: float | None
    lowest: float
    highest: float

    @property
    def label(self) -> str:
        """The rule in short, for the name of a group."""
        return f"lr ∝ {_AXES[self.axis]}^{self.exponent:.2g}"

    @property
    def sentence(self) -> str:
        """The rule in words."""
        error = "" if self.standard_error is None else (
            f" (standard error {self.standard_error:.2g})")
        return (f"The learning rate changes with the batch, one rate for each batch size, from "
                f"{self.lowest:g} to {self.highest:g}: lr ∝ {_AXES[self.axis]}^{self.exponent:.2f}"
                f"{error}.")


def learning_rate_rule(ds: xr.Dataset) -> LearningRateRule | None:
    """Return how the learning rate of runs follows their batch.

    Parameters
    ----------
    ds : xarray.Dataset
        A sweep or a part of it.

    Returns
    -------
    LearningRateRule or None
        None where there is only one rate, where some are unknown, and where rates differ at one
        batch size.
    """
    rates = rounded_rates(ds["learning_rate"].values)
    batches = np.column_stack([ds[name].values for name in _AXES])
    pairs = np.unique(np.column_stack([batches, rates]), axis=0)
    if not len(varied_rates(ds)) or len(pairs) > len(np.unique(batches, axis=0)):
        return None
    log_rate = np.log(pairs[:, -1])
    best, least = None, np.inf
    for name, sizes in zip(_AXES, pairs.T, strict=False):
        if (sizes <= 0).any() or np.ptp(sizes) == 0:
            continue
        squares, exponent, error = _line(np.log(sizes), log_rate)
        if squares < least - _ROUNDING:
            least = squares
            best = LearningRateRule(name, exponent, error, float(rates.min()), float(rates.max()))
    return best


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float | None]:
    """Return the sum of squares left, the slope and its standard error of a straight line."""
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    squares = float(((y - slope * x)**2).sum())
    free = len(x) - 2
    return squares, slope, float(np.sqrt(squares / free / (x @ x))) if free > 0 else None
