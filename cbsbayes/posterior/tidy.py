r"""From draws to rows: the one way from a quantity's draws to the numbers of a table.

What the data do not settle is a bound or nothing, never a bare median: `masked` decides which
numbers a status allows, `tidy` finds the status by laying posterior and prior side by side.
Tables that find their status otherwise, as that of a ratio from its two parts, use `masked`.

What comes from the data and what is the prior's (`identify`)
-------------------------------------------------------------
Each end of an interval is judged by itself: is it where it is because the likelihood falls off
beyond it, or only because the prior does? Beyond the posterior's 5 % quantile the prior's own
draws, cut there, are what a flat likelihood would leave. With F the prior's distribution function,

.. math:: u = F(\theta)/F(q_{.05}), \quad \theta < q_{.05},

is uniform, of mean 1/2, when the likelihood is flat there, and near 1 when it falls steeply. Where
both tails are exponential, of rates k and λ, the mean is (λ + k)/(2 λ + k): 2/3 if the likelihood
falls off as fast as the prior, 3/4 if twice as fast. The first is not enough: where only a
combination of two scales is known, integrating over the other's prior makes the likelihood of one
fall off about as fast as its own prior does. An end with less than 3/4 is called open; for a normal
posterior in the middle of a normal prior that is a standard deviation of half the prior's. The
upper end likewise.

An end is judged in the tail and not by the best likelihood anywhere: a narrow peak with a flat
stretch beside it, as two noise scales of which only the sum is known have, would pass for
identified although one end of its interval is the prior's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import log_ndtr, ndtri

from cbsbayes.inference.nuts import convergence
from cbsbayes.posterior.quantities import Quantity

__all__ = ["AVERAGE", "CBS_COLUMNS", "STATUSES", "TIDY_COLUMNS", "identify", "interval",
           "masked", "quantiles", "tidy"]

TIDY_COLUMNS = ["threshold", "quantity", "at", "unit", "median", "mean", "sd", "ci_lower",
                "ci_upper", "ci_prob", "ci_kind", "status", "r_hat", "ess_bulk", "ess_tail"]
CBS_COLUMNS = ["group", "law", *TIDY_COLUMNS]
"""Columns of ``cbs.csv``."""
AVERAGE = "average"
"""The law of rows that are averaged over laws."""
STATUSES = ("identified", "upper_bound", "lower_bound", "not_identified")

_MOST_UNREACHED = 0.05  # of draws without the target reached, beyond which nothing is stated
_HUGE = 1e30  # stands for infinite draws where they are compared
_TAIL = 0.05
_CLOSED = 0.75  # mean of u where the likelihood falls off twice as fast as the prior
_LEVELS = np.concatenate([[0.01, 0.03, 0.06], np.linspace(0.1, 0.9, 33), [0.94, 0.97, 0.99]])
_SCORES = ndtri(_LEVELS)
_OUTER = 3  # levels whose slope goes on beyond the first and the last


def tidy(
    draws: Sequence[Quantity], prior: Sequence[Quantity] | None, ci_prob: float, *,
    diagnostics: bool = True,
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
    diagnostics : bool
        Whether r_hat and effective draws are wanted; NaN where they are not.

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
        thresholds = (quantity.draws["threshold"].values.tolist()
                      if "threshold" in quantity.draws.dims else [np.nan])
        for threshold, of_chains, of_prior in zip(
                thresholds, _columns(quantity.draws), _columns(before.draws), strict=True):
            values, before_data = of_chains.ravel(), of_prior.ravel()
            if quantity.if_reached:
                values = _if_reached(values, _MOST_UNREACHED)
                before_data = _if_reached(before_data, 1.0)
            status = "identified" if prior is None else _status(
                values, before_data, ci_prob, log_scale=quantity.log_scale)
            moments = status == "identified" and bool(np.isfinite(values).all())
            rows.append({
                "threshold": threshold, "quantity": quantity.name, "at": quantity.at,
                "unit": quantity.unit, "ci_prob": ci_prob, "ci_kind": "eti", "status": status,
                **dict(zip(("median", "ci_lower", "ci_upper"), masked(values, status, ci_prob),
                           strict=True)),
                "mean": values.mean() if moments else np.nan,
                "sd": values.std(ddof=1) if moments else np.nan})
            columns.append(np.minimum(of_chains, _HUGE))
    table = pd.DataFrame(rows, columns=TIDY_COLUMNS)
    if columns and diagnostics:
        found = convergence(np.stack(columns, axis=-1))
        table = table.assign(**found._asdict())
    return table


def masked(draws: np.ndarray, status: str, ci_prob: float) -> tuple[float, float, float]:
    """Return median, lower and upper end of draws, NaN as far as the status does not allow them.

    Parameters
    ----------
    draws : numpy.ndarray
        Shape (draw,).
    status : str
        One of `STATUSES`; any other allows nothing.
    ci_prob : float
        Probability of the equal-tailed interval.
    """
    lower, median, upper = quantiles(draws, [(1 - ci_prob) / 2, 0.5, (1 + ci_prob) / 2])
    return (float(median) if status == "identified" else np.nan,
            float(lower) if status in ("identified", "lower_bound") else np.nan,
            float(upper) if status in ("identified", "upper_bound") else np.nan)


def interval(draws: np.ndarray, ci_prob: float) -> tuple[float, float]:
    """Return the equal-tailed interval of draws, shape (draw,); an end may be infinite."""
    return masked(draws, "identified", ci_prob)[1:]


def quantiles(draws: np.ndarray, levels: Sequence[float], axis: int = -1) -> np.ndarray:
    """Return quantiles along an axis, shape (level, …); a draw where some are infinite."""
    method = "inverted_cdf" if np.isinf(draws).any() else "linear"  # nothing between x and inf
    return np.quantile(draws, levels, axis=axis, method=method)  # type: ignore[call-overload,no-any-return]


def _columns(draws: xr.DataArray) -> np.ndarray:
    """Return draws as shape (threshold, chain, draw); one of a dimension that is not there."""
    values = (draws.transpose(..., "sample").values[..., None, :] if "sample" in draws.dims
              else draws.transpose(..., "chain", "draw").values)
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


def identify(posterior: np.ndarray, prior: np.ndarray, *, log_scale: bool = True) -> str:
    """Return the status of one quantity.

    Parameters
    ----------
    posterior, prior : numpy.ndarray
        Draws, shape (draw,) each; a thousand or more of the prior, whose distribution is taken
        as normal beyond its 1 % and 99 % quantiles.
    log_scale : bool
        Judge on the log scale (positive quantities).

    Returns
    -------
    str
        One of `STATUSES`: both ends closed, only the upper, only the lower, none.
    """
    if np.isnan(posterior).any() or np.isnan(prior).any():
        return "not_identified"
    if log_scale:
        posterior, prior = (np.log(np.maximum(values, np.finfo(float).tiny))
                            for values in (posterior, prior))
    scores = _normal_scores(posterior, np.quantile(prior, _LEVELS))
    lower, upper = (_closedness(tail) > _CLOSED for tail in (scores, -scores))
    if lower:
        return "identified" if upper else "lower_bound"
    return "upper_bound" if upper else "not_identified"


def _normal_scores(values: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return where values lie in the prior, as quantiles of a standard normal, shape (draw,)."""
    first, last = ((scores[-1] - scores[0]) / max(ends[-1] - ends[0], np.finfo(float).eps)
                   for ends, scores in ((knots[:_OUTER + 1], _SCORES[:_OUTER + 1]),
                                        (knots[-_OUTER - 1:], _SCORES[-_OUTER - 1:])))
    below, above = np.minimum(values - knots[0], 0.0), np.maximum(values - knots[-1], 0.0)
    return np.interp(values, knots, _SCORES) + below * first + above * last


def _closedness(z: np.ndarray) -> float:
    """Return the mean of F(θ)/F(q) over the lower tail of draws: 1/2 flat, towards 1 steep."""
    edge = np.quantile(z, _TAIL)
    return float(np.exp(log_ndtr(z[z <= edge]) - log_ndtr(edge)).mean())
