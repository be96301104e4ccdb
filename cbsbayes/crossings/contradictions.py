r"""What in the data contradicts every law, whatever is fitted: asked of crossings and curves.

**S rises with the batch.** Under every law a larger batch needs no more updates. Pairs of runs of
which one has at least as many prompts and rollouts, and more of one, are compared where their
intervals tell which S is larger. With :math:`a_{ij}` the sign of the batches' order and
:math:`b_{ij}` that of S summed over thresholds, :math:`\Gamma = \sum a_{ij} b_{ij}` is Kendall's
statistic for a partial order; its variance where batch and S have nothing to do with each other is
Daniels' [1]_. Where batches were run at several learning rates, only runs of one rate are compared.

References
----------
.. [1] Daniels, "The relation between measures of correlation in the universe of sample
   permutations", Biometrika 33 (1944).
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from cbsbayes.sweep.dataset import choose_metric
from cbsbayes.sweep.groups import learning_rate_rule, varied_rates

__all__ = ["copied_curves", "rising_steps"]

_RISING = 2.3  # standard errors; 1 % of sweeps in which S does not depend on the batch
_LEAST_EVALUATIONS = 3  # fewer values may be equal by chance


def rising_steps(crossings: xr.Dataset) -> str | None:
    """Return a sentence where S rises with the batch on average, else None.

    Parameters
    ----------
    crossings : xarray.Dataset
        Of `cbsbayes.crossings.intervals.find_crossings`.
    """
    larger, slower = _larger_batch(crossings), _more_steps(crossings)
    rates = crossings["learning_rate"].values
    if len(varied_rates(crossings)) and learning_rate_rule(crossings) is None:
        larger *= rates[:, None] == rates
    gamma = float((larger * slower).sum(dtype=np.int64))
    variance = _variance(larger, slower)
    if gamma <= 0 or gamma < _RISING * np.sqrt(variance):
        return None
    rising, falling = ((np.sign(slower) * larger == sign).sum() // 2 for sign in (1, -1))
    return (f"S rises with the batch: of {rising + falling} pairs of runs, the one with the larger "
            f"batch needed more updates in {rising}. No law allows that: look for a setting that "
            "changed with the batch, such as the learning rate, or for batches in the wrong order.")


def _larger_batch(crossings: xr.Dataset) -> np.ndarray:
    """Return 1 where the row's batch is larger than the column's, -1 smaller, 0 neither."""
    one_axis = (crossings["n_prompts"].values < 0).any()
    names = ("total_batch",) if one_axis else ("n_prompts", "n_rollouts")
    sizes = [crossings[name].values for name in names]
    no_less = np.logical_and.reduce([size[:, None] >= size for size in sizes])
    return no_less.astype(np.int8) - no_less.T.astype(np.int8)


def _more_steps(crossings: xr.Dataset) -> np.ndarray:
    """Return at how many thresholds the row's S is larger than the column's, less the reverse."""
    ordered = crossings.transpose("run", "threshold")
    more = np.zeros(2 * (ordered.sizes["run"],), dtype=np.int8)
    for lower, upper in zip(ordered["lower"].values.T, ordered["upper"].values.T, strict=True):
        more += lower[:, None] >= upper  # False where either is NaN
    return more - more.T


def _variance(a: np.ndarray, b: np.ndarray) -> float:
    """Return Daniels' variance of Σ a b over permutations of the runs."""
    n = len(a)
    if n < 3:
        return float("inf")
    squares = [float((m.astype(np.int16)**2).sum(dtype=np.int64)) for m in (a, b)]
    rows = [float((m.sum(axis=1, dtype=np.int64)**2).sum()) for m in (a, b)]
    shared = (rows[0] - squares[0]) * (rows[1] - squares[1])
    return 4 * shared / (n * (n - 1) * (n - 2)) + 2 * squares[0] * squares[1] / (n * (n - 1))


def copied_curves(ds: xr.Dataset, metric: str | None = None) -> list[list[str]]:
    """Return runs that share one curve to the last digit: copies, which are no replicates.

    Parameters
    ----------
    ds : xarray.Dataset
        A sweep; one of crossings has no curves.
    metric : str, optional
        Validation set; the sweep's default unless given.

    Returns
    -------
    list of list of str
        Two and more names each.
    """
    if "accuracy" not in ds:
        return []
    accuracy = ds["accuracy"].sel(metric=choose_metric(ds, metric)).transpose("run", "step").values
    alike: dict[bytes, list[str]] = {}
    for run, row in zip(ds["run"].values, accuracy, strict=True):
        known = row[~np.isnan(row)]
        if known.size >= _LEAST_EVALUATIONS and np.ptp(known) > 0:
            alike.setdefault(np.nan_to_num(row, nan=-np.inf).tobytes(), []).append(str(run))
    return [runs for runs in alike.values() if len(runs) > 1]
