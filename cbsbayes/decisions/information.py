r"""The quantity a plan is about, and expected information on it, by weighting posterior draws.

Data y simulated from one posterior draw turn the others into the posterior given y as well: draw m
gets the weight :math:`w_m \propto p(y \mid \theta_m)`. With z the quantity's normal scores,
standard normal over the draws, the information in nats is

.. math:: I = \tfrac12 E_y \log \frac{Var(z)}{Var(z \mid y)},

exact where z given y is normal and a lower bound on the mutual information otherwise, because of
all distributions of one variance the normal has the largest entropy. Normal scores make it the
same for a quantity, its logarithm and any other unit of it. It is about the quantity alone: what
the data say of everything else, run effects included, counts for nothing.

Two errors of the simulation are added: that over simulated data (their number), from its spread,
and that over the draws which are weighted, from a jackknife over blocks of them, taken in the
sampler's order so that its autocorrelation is in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri
from scipy.stats import rankdata

from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit import Fit, fitted_threshold
from cbsbayes.posterior.learning_rate import rate_quantities, rate_table
from cbsbayes.posterior.quantities import GAIN, Design, Quantity, design_of, quantities
from cbsbayes.posterior.tidy import STATUSES

__all__ = ["Information", "Moments", "PlannedQuantity", "expected_information", "normal_scores",
           "planned_quantity", "posterior_moments"]

_BLOCKS = 10  # of the draws, for the jackknife


@dataclass(frozen=True)
class PlannedQuantity:
    """One quantity at one threshold.

    Attributes
    ----------
    name, at, unit : str
        As in ``cbs.csv`` or ``learning_rate.csv``.
    threshold : float
        NaN for a quantity that all thresholds share.
    values : numpy.ndarray
        Draws in its own unit, chain after chain, shape (draw,).
    status : str
        What the fit knows of it now, one of `cbsbayes.posterior.tidy.STATUSES`, or
        ``""`` where the fit's table has no such row.
    """

    name: str
    at: str
    unit: str
    threshold: float
    values: np.ndarray
    status: str


def planned_quantity(
    fit: Fit, asked: str | None = None, threshold: float | None = None
) -> PlannedQuantity:
    """Return the quantity that runs are planned for.

    Parameters
    ----------
    fit : Fit
        The fit.
    asked : str, optional
        ``NAME`` or ``NAME@key=value[,key=value]``; by default the prompt CBS at the n_rollouts of
        most runs, of one-axis data the CBS in samples.
    threshold : float, optional
        A fitted one; by default the highest at which the quantity is identified, and where it is
        at none, the highest at which it is known best.

    Raises
    ------
    CBSDataError
        If there is no such quantity or threshold, or it is 0 in some draws.
    """
    design = design_of(fit.crossings)
    usual = int(fit.crossings["n_rollouts"].to_series().mode().max())
    default = "cbs_samples" if design.one_axis else f"cbs_prompts@n_rollouts={usual}"
    name, at = _parsed(asked or default)
    found = _find(name, at, [*quantities(fit.law, fit.posterior, _extended(design, at)),
                             *rate_quantities(fit)])
    known = pd.concat([fit.cbs, rate_table(fit)]) if fit.law.learning_rate else fit.cbs
    rows = known[(known["quantity"] == found.name) & (known["at"] == found.at)]
    status = dict(zip(rows["threshold"].astype(float), rows["status"].astype(str), strict=True))
    level, chosen = float("nan"), found.draws
    if "threshold" in found.draws.dims:
        level = _best_known(fit, status) if threshold is None else fitted_threshold(fit, threshold)
        chosen = found.draws.sel(threshold=level)
    values = chosen.transpose("chain", "draw").values.reshape(-1)
    if found.log_scale and not (values > 0).all():
        raise CBSDataError(f"{found.name}@{found.at} is 0 in {np.mean(values <= 0):.0%} of the "
                           "draws: doubling never saves that much; plan for another quantity, "
                           "such as cbs_prompts or a gain")
    state = next(iter(status.values()), "") if np.isnan(level) else status.get(level, "")
    return PlannedQuantity(found.name, found.at, found.unit, level, values, state)


def _parsed(text: str) -> tuple[str, dict[str, float]]:
    name, _, rest = text.strip().partition("@")
    at: dict[str, float] = {}
    for part in filter(None, map(str.strip, rest.split(","))):
        found = re.fullmatch(r"(\w+) *= *((\d+\.?\d*|\.\d+)(e-?\d+)?)", part)
        if found is None or float(found[2]) == 0.0:
            raise CBSDataError(f"quantity {text!r}: {part!r} is not of the form n_rollouts=8; "
                               "valid: NAME or NAME@key=value, keys n_prompts, n_rollouts, "
                               "total_batch, learning_rate, gain")
        at[found[1]] = float(found[2])
    return name.strip(), at


def _extended(design: Design, at: Mapping[str, float]) -> Design:
    """Let quantities be stated at the batch asked for, whether it was tried or not."""
    if design.one_axis:
        return design
    prompts, rollouts = (tuple(sorted(set(axis))) for axis in zip(*design.batches, strict=True))
    groups, held = at.get("n_rollouts", 0.5), at.get("n_prompts", 0.5)
    return replace(
        design,
        prompts_at=design.prompts_at | ({int(groups): prompts} if groups.is_integer() else {}),
        rollouts_at=design.rollouts_at | ({int(held): rollouts} if held.is_integer() else {}))


def _find(name: str, at: Mapping[str, float], there: Sequence[Quantity]) -> Quantity:
    same = [q for q in there if q.name == name]
    if not same:
        raise CBSDataError(f"unknown quantity {name!r}; this fit has "
                           f"{', '.join(dict.fromkeys(q.name for q in there))}")
    wanted = dict(at) | ({"gain": GAIN} if name == "batch_at_gain" and "gain" not in at else {})
    for quantity in same:
        parts = (part.partition("=") for part in quantity.at.split(",") if part)
        if {key: float(value) for key, _, value in parts} == wanted:
            return quantity
    if not at and len(same) == 1:
        return same[0]
    stated = "; ".join(f"{name}@{q.at}" if q.at else name for q in same)
    given = ",".join(f"{key}={value:g}" for key, value in at.items())
    raise CBSDataError(f"{name} is not stated at {given or 'no batch'}; valid: {stated}")


def _best_known(fit: Fit, status: Mapping[float, str]) -> float:
    """Return the hardest threshold with the best status of any."""
    return min(reversed(fit.thresholds.tolist()), key=lambda t: STATUSES.index(
        status.get(t, STATUSES[-1])))


class Moments(NamedTuple):
    """Variance of a quantity given every simulated data set.

    Attributes
    ----------
    variance : numpy.ndarray
        Shape (data,).
    without : numpy.ndarray
        The same with one block of the draws left out, shape (block, data).
    effective : numpy.ndarray
        Effective number of draws behind it, shape (data,).
    """

    variance: np.ndarray
    without: np.ndarray
    effective: np.ndarray


class Information(NamedTuple):
    """Expected information in nats, its Monte Carlo error, and the draws behind it.

    Attributes
    ----------
    nats, error : float
        Expectation and standard error of its estimate.
    effective : float
        Effective number of draws of the middle data set; below some 30 the estimate is rough.
    """

    nats: float
    error: float
    effective: float


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Return standard normal quantiles by rank, shape (draw,); ties share one."""
    return ndtri((rankdata(values) - 0.5) / len(values))


def posterior_moments(log_weights: np.ndarray, values: np.ndarray) -> Moments:
    """Return the variance of values under each row of weights.

    Parameters
    ----------
    log_weights : numpy.ndarray
        Unnormalised, shape (data, draw).
    values : numpy.ndarray
        Shape (draw,).
    """
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    centred = values - values.mean()  # sums of squares lose no digits
    edges = np.linspace(0, len(values), _BLOCKS + 1).astype(int)[:-1]
    terms = (weights, weights * centred, weights * centred**2, weights**2)
    sums = np.stack([np.add.reduceat(term, edges, axis=1) for term in terms])
    whole = sums.sum(axis=2)
    return Moments(_variance(whole), _variance(whole[:, :, None] - sums).T,
                   whole[0] ** 2 / whole[3])


def _variance(sums: np.ndarray) -> np.ndarray:
    """Return the variance from sums of w, w v, w v² and w², freed of the bias of few draws."""
    total, first, second, squares = sums
    total = np.maximum(total, 1e-100)  # a block may have held all the weight
    spread = np.maximum(second / total - (first / total) ** 2, 0.0)
    few = np.clip(1.0 - squares / total**2, 1e-3, 1.0)
    return np.maximum(spread / few, 1e-12)


def expected_information(before: Moments, after: Moments) -> Information:
    """Return what further data are expected to tell, given what is known before.

    Parameters
    ----------
    before, after : Moments
        Of the normal scores, under the same simulated data without and with the further ones.
    """
    gained = 0.5 * np.log(before.variance / after.variance)
    without = 0.5 * np.log(before.without / after.without).mean(axis=1)
    outer = gained.var(ddof=1) / len(gained)
    inner = (len(without) - 1) * without.var()
    return Information(float(gained.mean()), float(np.sqrt(outer + inner)),
                       float(np.median(after.effective)))
