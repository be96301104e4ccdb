"""Posterior to tidy tables: one row per threshold, quantity and what is held fixed.

A scale that the data do not identify is a bound or nothing, never a bare median: the columns that
would mislead are empty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.convergence import convergence
from cbsbayes.identification import identify
from cbsbayes.laws import Law
from cbsbayes.quantities import Quantity

__all__ = ["CBS_COLUMNS", "cbs_table", "interval"]

CBS_COLUMNS = ["group", "law", "threshold", "quantity", "at", "unit", "median", "mean", "sd",
               "ci_lower", "ci_upper", "ci_prob", "ci_kind", "status", "r_hat", "ess_bulk",
               "ess_tail"]


def interval(draws: np.ndarray, ci_prob: float) -> tuple[float, float]:
    """Return the equal-tailed interval of draws, shape (draw,)."""
    lower, upper = np.quantile(draws, [(1 - ci_prob) / 2, (1 + ci_prob) / 2])
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
    rows = []
    for quantity, before in zip(posterior, prior, strict=True):
        chains = _convergence(quantity.draws)
        thresholds = _thresholds(quantity.draws)
        for k, threshold in enumerate(thresholds):
            row = {"group": group, "law": law.name, "threshold": threshold,
                   "quantity": quantity.name, "at": quantity.at, "unit": quantity.unit}
            draws, prior_draws = _flat(quantity.draws, k), _flat(before.draws, k)
            status = identify(draws, prior_draws, log_scale=quantity.log_scale)
            row |= _statistics(draws, status, ci_prob)
            rows.append(row | {name: values[k] for name, values in chains.items()})
    return pd.DataFrame(rows, columns=CBS_COLUMNS)


def _thresholds(draws: xr.DataArray) -> list[float]:
    return draws["threshold"].values.tolist() if "threshold" in draws.dims else [float("nan")]


def _flat(draws: xr.DataArray, k: int) -> np.ndarray:
    chosen = draws.isel(threshold=k) if "threshold" in draws.dims else draws
    return chosen.values.reshape(-1)


def _statistics(draws: np.ndarray, status: str, ci_prob: float) -> dict[str, object]:
    lower, upper = interval(draws, ci_prob)
    row: dict[str, object] = {"ci_prob": ci_prob, "ci_kind": "eti", "status": status,
                              "median": np.nan, "mean": np.nan, "sd": np.nan,
                              "ci_lower": np.nan, "ci_upper": np.nan}
    if status == "identified":
        row |= {"median": float(np.median(draws)), "mean": float(draws.mean()),
                "sd": float(draws.std(ddof=1)), "ci_lower": lower, "ci_upper": upper}
    elif status == "upper_bound":
        row["ci_upper"] = upper
    elif status == "lower_bound":
        row["ci_lower"] = lower
    return row


def _convergence(draws: xr.DataArray) -> dict[str, np.ndarray]:
    """Return r_hat and effective sample sizes per threshold."""
    values = draws.transpose("chain", "draw", ...).values
    return convergence(values[..., None] if values.ndim == 2 else values)._asdict()
