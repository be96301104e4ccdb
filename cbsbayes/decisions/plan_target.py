"""The quantity that a plan is to pin down: ``NAME`` or ``NAME@n_rollouts=8``, at one threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law
from cbsbayes.posterior.identification import STATUSES
from cbsbayes.posterior.quantities import GAIN, Design, Quantity, quantities

__all__ = ["Target", "choose_target", "usual_rollouts"]


@dataclass(frozen=True)
class Target:
    """One quantity at one threshold.

    Attributes
    ----------
    name, at, unit : str
        As in ``cbs.csv``.
    threshold : float
        NaN for a quantity that all thresholds share.
    values : numpy.ndarray
        Draws, on the log scale where it has one, shape (draw,).
    log_scale : bool
        Whether it has.
    status : str
        What the fit knows of it now, one of `cbsbayes.posterior.identification.STATUSES`, or
        ``""`` where the fit's table has no such row.
    """

    name: str
    at: str
    unit: str
    threshold: float
    values: np.ndarray
    log_scale: bool
    status: str

    def interval(self, ci_prob: float) -> tuple[float, float, float]:
        """Return lower end, median and upper end in the quantity's own unit."""
        tail = (1 - ci_prob) / 2
        ends = np.quantile(self.values, [tail, 0.5, 1 - tail])
        low, middle, high = np.exp(ends) if self.log_scale else ends
        return float(low), float(middle), float(high)


def usual_rollouts(runs: xr.Dataset) -> int:
    """Return the n_rollouts of most runs, the largest of several such; -1 for one axis."""
    values, counts = np.unique(runs["n_rollouts"].values, return_counts=True)
    return int(values[counts == counts.max()][-1])


def choose_target(
    law: Law, draws: xr.Dataset, tried: Design, table: pd.DataFrame, *,
    asked: str | None = None, threshold: float | None = None, rollouts: int = -1,
) -> Target:
    """Return the quantity asked for.

    Parameters
    ----------
    law : Law
        The law fitted.
    draws : xarray.Dataset
        Dims (sample, threshold).
    tried : Design
        The batches tried, which say where quantities are stated.
    table : pandas.DataFrame
        ``cbs.csv`` of the fit: the status of every quantity.
    asked : str, optional
        ``NAME`` or ``NAME@key=value[,key=value]``; by default the prompt CBS at `rollouts`, of
        one-axis data the CBS in samples.
    threshold : float, optional
        A fitted one; by default the highest at which the quantity is identified, and where it is
        at none, the highest at which it is known best.
    rollouts : int
        Where the default is stated.

    Raises
    ------
    CBSDataError
        If there is no such quantity or threshold, or its draws have no logarithm.
    """
    name, at = _parsed(asked or _default(tried, rollouts))
    found = _find(name, at, quantities(law, draws, _extended(tried, at)))
    status = _statuses(table, found)
    level = _threshold(found, status, threshold)
    chosen = found.draws.sel(threshold=level) if np.isfinite(level) else found.draws
    values = chosen.values.reshape(-1)
    if found.log_scale:
        if not (values > 0).all():
            raise CBSDataError(f"{found.name}@{found.at} is 0 in {np.mean(values <= 0):.0%} of the "
                               "draws: doubling never saves that much; plan for another quantity, "
                               "such as cbs_prompts or a gain")
        values = np.log(values)
    return Target(found.name, found.at, found.unit, level, values, found.log_scale,
                  status.get(level, ""))


def _default(tried: Design, rollouts: int) -> str:
    return "cbs_samples" if tried.one_axis else f"cbs_prompts@n_rollouts={rollouts}"


def _parsed(text: str) -> tuple[str, dict[str, float]]:
    name, _, rest = text.strip().partition("@")
    at: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = np.nan
        if not equals or not number > 0 or not np.isfinite(number):
            raise CBSDataError(f"quantity {text!r}: {part!r} is not of the form n_rollouts=8; "
                               "valid: NAME or NAME@key=value, keys n_prompts, n_rollouts, "
                               "total_batch, gain")
        at[key.strip()] = number
    return name.strip(), at


def _extended(tried: Design, at: Mapping[str, float]) -> Design:
    """Let quantities be stated at the batch asked for, whether it was tried or not."""
    if tried.one_axis:
        return tried
    prompts = tuple(sorted({p for p, _ in tried.cells}))
    rollouts = tuple(sorted({g for _, g in tried.cells}))
    more = tried
    if "n_rollouts" in at and at["n_rollouts"].is_integer():
        more = replace(more, prompts_at={**more.prompts_at, int(at["n_rollouts"]): prompts})
    if "n_prompts" in at and at["n_prompts"].is_integer():
        more = replace(more, rollouts_at={**more.rollouts_at, int(at["n_prompts"]): rollouts})
    return more


def _find(name: str, at: Mapping[str, float], there: Sequence[Quantity]) -> Quantity:
    same = [q for q in there if q.name == name]
    if not same:
        raise CBSDataError(f"unknown quantity {name!r}; this fit has "
                           f"{', '.join(dict.fromkeys(q.name for q in there))}")
    wanted = dict(at) | ({"gain": GAIN} if name == "batch_at_gain" and "gain" not in at else {})
    for quantity in same:
        if _numbers(quantity.at) == wanted:
            return quantity
    if not at and len(same) == 1:
        return same[0]
    stated = "; ".join(f"{name}@{q.at}" if q.at else name for q in same)
    given = ",".join(f"{key}={value:g}" for key, value in at.items())
    raise CBSDataError(f"{name} is not stated at {given or 'no batch'}; valid: {stated}")


def _numbers(at: str) -> dict[str, float]:
    return {key: float(value) for key, _, value in (p.partition("=") for p in at.split(",") if p)}


def _statuses(table: pd.DataFrame, found: Quantity) -> dict[float, str]:
    rows = table[(table["quantity"] == found.name) & (table["at"].fillna("") == found.at)]
    return dict(zip(rows["threshold"].astype(float), rows["status"].astype(str), strict=True))


def _threshold(found: Quantity, status: Mapping[float, str], asked: float | None) -> float:
    if "threshold" not in found.draws.dims:
        return float("nan")
    fitted = found.draws["threshold"].values.astype(float)
    if asked is not None:
        near = fitted[np.isclose(fitted, asked)]
        if not near.size:
            raise CBSDataError(f"threshold {asked:g} was not fitted; fitted: "
                               f"{', '.join(f'{t:g}' for t in fitted)}")
        return float(near[0])
    for word in STATUSES:
        levels = [t for t in fitted if status.get(t, "") == word]
        if levels:
            return float(levels[-1])
    return float(fitted[-1])
