"""Posterior to tidy tables: one row per threshold, quantity and what is held fixed.

A scale that the data do not identify is a bound or nothing, never a bare median: the columns that
would mislead are empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.inference.diagnostics import convergence
from cbsbayes.models.laws import Law
from cbsbayes.posterior.identification import identify_sorted, sorted_quantiles
from cbsbayes.posterior.quantities import Quantity

__all__ = ["CBS_COLUMNS", "cbs_table", "interval"]

CBS_COLUMNS = ["group", "law", "threshold", "quantity", "at", "unit", "median", "mean", "sd",
               "ci_lower", "ci_upper", "ci_prob", "ci_kind", "status", "r_hat", "ess_bulk",
               "ess_tail"]
_MOST_NEVER = 0.05  # of draws in which the target is not reached, beyond which nothing is said
_NEVER = 1e30  # stands for infinite draws where they are compared


def interval(draws: np.ndarray, ci_prob: float) -> tuple[float, float]:
    """Return the equal-tailed interval of draws, shape (draw,); an end may be infinite."""
    levels = [(1 - ci_prob) / 2, (1 + ci_prob) / 2]
    if np.isinf(draws).any():  # between which there is nothing to interpolate
        lower, upper = np.quantile(draws, levels, method="inverted_cdf")
    else:
        lower, upper = np.quantile(draws, levels)
    return float(lower), float(upper)


def cbs_table(
    posterior: Sequence[Quantity], prior: Sequence[Quantity], *, law: Law, group: str,
    ci_prob: float,
) -> pd.DataFrame:
    """Return the table of ``cbs.csv``.

    Parameters
    ----------
    posterior, prior : sequence of Quantity
        The same quantities from posterior and prior draws, in the same order.
    law : Law
        The law they belong to.
    group : str
        Label of the runs fitted.
    ci_prob : float
        Probability of the equal-tailed intervals.

    Returns
    -------
    pandas.DataFrame
        Columns `CBS_COLUMNS`; quantities in the order given, each over its thresholds.
    """
    chains = _convergence([quantity.draws for quantity in posterior])
    rows = []
    for quantity, before, of_chains in zip(posterior, prior, chains, strict=True):
        numbers = _statistics(quantity, before, ci_prob)
        for k, threshold in enumerate(_thresholds(quantity.draws)):
            row = {"group": group, "law": law.name, "threshold": threshold,
                   "quantity": quantity.name, "at": quantity.at, "unit": quantity.unit,
                   "ci_prob": ci_prob, "ci_kind": "eti"}
            rows.append(row | numbers[k] | {name: values[k] for name, values in of_chains.items()})
    return pd.DataFrame(rows, columns=CBS_COLUMNS)


def _thresholds(draws: xr.DataArray) -> list[float]:
    return draws["threshold"].values.tolist() if "threshold" in draws.dims else [float("nan")]


def _columns(draws: xr.DataArray) -> np.ndarray:
    """Return draws as shape (threshold, chain, draw); one threshold where there is none."""
    values = draws.transpose(..., "chain", "draw").values
    return np.ascontiguousarray(values[None] if values.ndim == 2 else values)


def _statistics(quantity: Quantity, before: Quantity, ci_prob: float) -> list[dict[str, object]]:
    """Return what each threshold's row says of the draws, from draws sorted once."""
    draws, prior = (_columns(q.draws).reshape(-1, q.draws.sizes["chain"] * q.draws.sizes["draw"])
                    for q in (quantity, before))
    if quantity.if_reached:
        draws, prior = _if_reached(draws, _MOST_NEVER), _if_reached(prior, 1.0)
    ordered, ordered_prior = np.sort(draws, axis=1), np.sort(prior, axis=1)
    levels = np.array([0.5, (1 - ci_prob) / 2, (1 + ci_prob) / 2])
    ends = sorted_quantiles(ordered, levels)
    some_never = np.isinf(ordered[:, -1:])  # then there is no mean
    moments = np.where(some_never, np.nan, _moments(np.where(some_never, 0.0, draws)))
    found = np.column_stack([moments, ends])
    statuses = [_status(after, first, end[2], log_scale=quantity.log_scale)
                for after, first, end in zip(ordered, ordered_prior, ends, strict=True)]
    return [_told(status, *numbers)
            for status, numbers in zip(statuses, found.tolist(), strict=True)]


def _if_reached(draws: np.ndarray, most: float) -> np.ndarray:
    """Return rows whose NaN stand for others of the row, where no more are NaN than that share."""
    never = np.isnan(draws)
    filled = draws.copy()
    for row, lost in zip(filled, never, strict=True):
        if 0 < lost.mean() <= most and not lost.all():
            row[lost] = np.resize(row[~lost], lost.sum())
    return filled


def _moments(draws: np.ndarray) -> np.ndarray:
    """Return mean and standard deviation of every row, shape (threshold, 2)."""
    return np.column_stack([draws.mean(axis=1), draws.std(axis=1, ddof=1)])


def _status(
    ordered: np.ndarray, prior: np.ndarray, upper: float, *, log_scale: bool
) -> str:
    """Return what the data settle; S that may be infinite has no upper end."""
    if np.isinf(ordered[-1]) or np.isinf(prior[-1]):
        ordered, prior = np.minimum(ordered, _NEVER), np.minimum(prior, _NEVER)
    status = identify_sorted(ordered, prior, log_scale=log_scale)
    if not np.isinf(upper):
        return status
    return "lower_bound" if status in ("identified", "lower_bound") else "not_identified"


def _told(
    status: str, mean: float, sd: float, median: float, lower: float, upper: float
) -> dict[str, object]:
    """Return the columns of a row that its status allows to be filled."""
    row: dict[str, object] = {"status": status, "median": np.nan, "mean": np.nan, "sd": np.nan,
                              "ci_lower": np.nan, "ci_upper": np.nan}
    if status == "identified":
        row |= {"median": median, "mean": mean, "sd": sd, "ci_lower": lower, "ci_upper": upper}
    elif status == "upper_bound":
        row["ci_upper"] = upper
    elif status == "lower_bound":
        row["ci_lower"] = lower
    return row


def _convergence(quantities: Sequence[xr.DataArray]) -> list[dict[str, np.ndarray]]:
    """Return r_hat and effective sample sizes of each quantity, per threshold.

    Neighbours with as many draws go together: some columns at once cost less than one by one.
    """
    found = []
    finite = (np.minimum(_columns(draws), _NEVER) for draws in quantities)
    for _, alike in groupby(finite, key=lambda columns: columns.shape[1:]):
        columns = list(alike)
        together = convergence(np.moveaxis(np.concatenate(columns), 0, 2))._asdict()
        ends = np.cumsum([len(values) for values in columns])[:-1]
        parts = {name: np.split(values, ends) for name, values in together.items()}
        found += [{name: values[i] for name, values in parts.items()} for i in range(len(columns))]
    return found
