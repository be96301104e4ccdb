"""From draws to rows: the one way from a quantity's draws to the numbers of a table.

What the data do not settle is a bound or nothing, never a bare median: `masked` decides which
numbers a status allows, `tidy` finds the status by laying posterior and prior side by side.
Tables that find their status otherwise, as that of a ratio from its two parts, use `masked`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.inference.diagnostics import convergence
from cbsbayes.models.laws import Law
from cbsbayes.posterior.identification import identify
from cbsbayes.posterior.quantities import Quantity

__all__ = ["CBS_COLUMNS", "TIDY_COLUMNS", "cbs_table", "interval", "masked", "quantiles", "tidy"]

TIDY_COLUMNS = ["threshold", "quantity", "at", "unit", "median", "mean", "sd", "ci_lower",
                "ci_upper", "ci_prob", "ci_kind", "status", "r_hat", "ess_bulk", "ess_tail"]
CBS_COLUMNS = ["group", "law", *TIDY_COLUMNS]
"""Columns of ``cbs.csv``."""

_MOST_UNREACHED = 0.05  # of draws without the target reached, beyond which nothing is stated
_HUGE = 1e30  # stands for infinite draws where they are compared


def tidy(
    draws: Sequence[Quantity], prior: Sequence[Quantity] | None, ci_prob: float
) -> pd.DataFrame:
    """Return a row for every quantity and threshold.

    Parameters
    ----------
    draws : sequence of Quantity
        From the posterior, dims (chain, draw) or sample and, unless one number for all,
        threshold.
    prior : sequence of Quantity or None
        The same quantities from the prior, in the same order; None for predictions, which are
        stated whatever the data settle.
    ci_prob : float
        Probability of the equal-tailed intervals.

    Returns
    -------
    pandas.DataFrame
        Columns `TIDY_COLUMNS`; quantities in the order given, each over its thresholds. A draw
        may be infinite, and so may an end; there is then no mean. Where draws are NaN because the
        target is not reached (`Quantity.if_reached`), the others stand for them while they are
        few; a quantity with other NaN is ``not_identified``.
    """
    rows, columns = [], []
    for quantity, before in zip(draws, prior or draws, strict=True):
        values, first = _columns(quantity.draws), _columns(before.draws)
        thresholds = (quantity.draws["threshold"].values.tolist()
                      if "threshold" in quantity.draws.dims else [float("nan")])
        for threshold, of_chains, of_prior in zip(thresholds, values, first, strict=True):
            flat, flat_prior = of_chains.ravel(), of_prior.ravel()
            if quantity.if_reached:
                flat, flat_prior = (_if_reached(flat, _MOST_UNREACHED),
                                    _if_reached(flat_prior, 1.0))
            status = ("identified" if prior is None else
                      _status(flat, flat_prior, ci_prob, log_scale=quantity.log_scale))
            rows.append({"threshold": threshold, "quantity": quantity.name, "at": quantity.at,
                         "unit": quantity.unit, "ci_prob": ci_prob, "ci_kind": "eti",
                         "status": status, **_numbers(flat, status, ci_prob)})
            columns.append(np.minimum(of_chains, _HUGE))
    table = pd.DataFrame(rows, columns=TIDY_COLUMNS)
    if columns:
        found = convergence(np.stack(columns, axis=-1))
        table[["r_hat", "ess_bulk", "ess_tail"]] = np.column_stack(
            [found.r_hat, found.ess_bulk, found.ess_tail])
    return table


def cbs_table(
    draws: Sequence[Quantity], prior: Sequence[Quantity], *, law: Law, group: str, ci_prob: float
) -> pd.DataFrame:
    """Return the table of ``cbs.csv``: `tidy` with the law and the label of the runs fitted."""
    return tidy(draws, prior, ci_prob).assign(group=group, law=law.name)[CBS_COLUMNS]


def masked(draws: np.ndarray, status: str, ci_prob: float) -> tuple[float, float, float]:
    """Return median, lower and upper end of draws, NaN as far as the status does not allow them.

    Parameters
    ----------
    draws : numpy.ndarray
        Shape (draw,).
    status : str
        One of `cbsbayes.posterior.identification.STATUSES`; any other allows nothing.
    ci_prob : float
        Probability of the equal-tailed interval.
    """
    lower, median, upper = quantiles(draws, [(1 - ci_prob) / 2, 0.5, (1 + ci_prob) / 2])
    return (float(median) if status == "identified" else np.nan,
            float(lower) if status in ("identified", "lower_bound") else np.nan,
            float(upper) if status in ("identified", "upper_bound") else np.nan)


def interval(draws: np.ndarray, ci_prob: float) -> tuple[float, float]:
    """Return the equal-tailed interval of draws, shape (draw,); an end may be infinite."""
    lower, upper = quantiles(draws, [(1 - ci_prob) / 2, (1 + ci_prob) / 2])
    return float(lower), float(upper)


def quantiles(draws: np.ndarray, levels: Sequence[float], axis: int = -1) -> np.ndarray:
    """Return quantiles along an axis, shape (level, …); a draw where some are infinite."""
    method = "inverted_cdf" if np.isinf(draws).any() else "linear"  # nothing between x and inf
    return np.quantile(draws, levels, axis=axis, method=method)  # type: ignore[call-overload,no-any-return]


def _columns(draws: xr.DataArray) -> np.ndarray:
    """Return draws as shape (threshold, chain, draw); one of a dimension that is not there."""
    if "sample" in draws.dims:
        draws = draws.rename(sample="draw").expand_dims("chain")
    values = draws.transpose(..., "chain", "draw").values
    return values[None] if values.ndim == 2 else values


def _if_reached(draws: np.ndarray, most: float) -> np.ndarray:
    """Return draws whose NaN stand for others, where no more are NaN than that share."""
    unreached = np.isnan(draws)
    if not 0 < unreached.mean() <= most or unreached.all():
        return draws
    filled = draws.copy()
    filled[unreached] = np.resize(draws[~unreached], unreached.sum())
    return filled


def _status(draws: np.ndarray, prior: np.ndarray, ci_prob: float, *, log_scale: bool) -> str:
    """Return what the data settle; draws that may be infinite may have no upper end."""
    status = identify(np.minimum(draws, _HUGE), np.minimum(prior, _HUGE), log_scale=log_scale)
    if np.isfinite(draws).all() or np.isfinite(interval(draws, ci_prob)[1]):
        return status
    return "lower_bound" if status in ("identified", "lower_bound") else "not_identified"


def _numbers(draws: np.ndarray, status: str, ci_prob: float) -> dict[str, float]:
    median, lower, upper = masked(draws, status, ci_prob)
    moments = status == "identified" and bool(np.isfinite(draws).all())
    return {"median": median, "ci_lower": lower, "ci_upper": upper,
            "mean": float(draws.mean()) if moments else np.nan,
            "sd": float(draws.std(ddof=1)) if moments else np.nan}
