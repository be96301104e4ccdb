"""Quantities of several fits pooled in part: the table of ``pooled.csv``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cbsbayes.decisions.compare_fits import LAW_BOUND, Side
from cbsbayes.decisions.pooling import FEW, Mixture, Pooled, between_sd, pool, without_prior

__all__ = ["ANOTHER", "MEAN", "POOLED_COLUMNS", "few_groups", "pooled_table"]

MEAN, ANOTHER = "mean of groups", "another group"
POOLED_COLUMNS = [
    "quantity", "at", "threshold", "unit", "law", "member", "alone", "alone_lower", "alone_upper",
    "pooled", "pooled_lower", "pooled_upper", "between_sd", "between_sd_lower", "between_sd_upper",
    "between_sd_prior", "n_groups", "ci_prob"]


class _Member(NamedTuple):
    """One fit's part in one quantity: its side, the threshold's place, its likelihood."""

    side: Side
    place: int
    mean: float
    sd: float


def pooled_table(
    sides: Sequence[Side], *, names: Sequence[str] | None = None, ci_prob: float = 0.9,
) -> pd.DataFrame:
    """Return every quantity that two fits and more identify, pooled in part.

    Parameters
    ----------
    sides : sequence of Side
        The fits.
    names : sequence of str, optional
        Quantities to keep; all unless given.
    ci_prob : float
        Probability of the equal-tailed intervals.

    Returns
    -------
    DataFrame
        Columns `POOLED_COLUMNS`: a row per fit (``alone`` as fitted, ``pooled`` drawn towards the
        others), then the mean of groups and another group of the same kind. ``between_sd`` is the
        spread between groups on the log scale.
    """
    keys = dict.fromkeys(key for side in sides for key in side.quantities
                         if names is None or key[0] in names)
    rows = [row for key in keys for members in _sets(sides, key)
            for row in _rows(key, members, ci_prob)]
    return pd.DataFrame(rows, columns=POOLED_COLUMNS)


def _sets(sides: Sequence[Side], key: tuple[str, str]) -> Iterator[list[_Member]]:
    """Yield the members of every set that may be pooled: one threshold, one law where it counts."""
    held = [side for side in sides if key in side.quantities]
    laws = dict.fromkeys(side.fit.law.name for side in held)
    for law in laws if key[0] in LAW_BOUND else [None]:
        same = [side for side in held if law in (None, side.fit.law.name)]
        for threshold in _thresholds(same, key):
            members = [m for side in same for m in _member(side, key, threshold)]
            if len(members) >= 2:
                yield members


def _thresholds(sides: Sequence[Side], key: tuple[str, str]) -> list[float]:
    if not all(side.per_threshold(key) for side in sides):
        return [float("nan")]
    every = np.concatenate([side.fit.thresholds for side in sides])
    return np.unique(every.round(12)).tolist()


def _member(side: Side, key: tuple[str, str], threshold: float) -> Iterator[_Member]:
    places = [0] if np.isnan(threshold) else np.flatnonzero(
        np.isclose(side.fit.thresholds, threshold)).tolist()
    for k in places:
        if side.status(key, k) == "identified":
            posterior, prior = (np.log(side.draws(key, k, prior=prior)) for prior in (False, True))
            yield _Member(side, k, *without_prior(posterior, prior))


def _rows(
    key: tuple[str, str], members: Sequence[_Member], ci_prob: float
) -> Iterator[dict[str, Any]]:
    scale = between_sd(key[0])
    pooled = pool(np.array([m.mean for m in members]), np.array([m.sd for m in members]), scale)
    first = members[0]
    threshold = (float(first.side.fit.thresholds[first.place])
                 if first.side.per_threshold(key) else float("nan"))
    laws = dict.fromkeys(m.side.fit.law.name for m in members)
    common = {"quantity": key[0], "at": key[1], "threshold": threshold,
              "unit": first.side.quantities[key].unit, "law": ", ".join(laws),
              "between_sd_prior": scale, "n_groups": len(members), "ci_prob": ci_prob,
              **_spread(pooled, ci_prob)}
    for member, after in zip(members, pooled.groups, strict=True):
        alone = np.quantile(member.side.draws(key, member.place), _levels(ci_prob))
        row = dict(zip(("alone_lower", "alone", "alone_upper"), alone.tolist(), strict=True))
        yield common | {"member": member.side.label} | row | _pooled(after, ci_prob)
    for name, mixture in ((MEAN, pooled.mean), (ANOTHER, pooled.another)):
        yield common | {"member": name} | _pooled(mixture, ci_prob)


def _levels(ci_prob: float) -> list[float]:
    return [(1 - ci_prob) / 2, 0.5, (1 + ci_prob) / 2]


def _pooled(mixture: Mixture, ci_prob: float) -> dict[str, float]:
    lower, middle, upper = (float(np.exp(mixture.quantile(q))) for q in _levels(ci_prob))
    return {"pooled_lower": lower, "pooled": middle, "pooled_upper": upper}


def _spread(pooled: Pooled, ci_prob: float) -> dict[str, float]:
    lower, middle, upper = (pooled.tau_quantile(q) for q in _levels(ci_prob))
    return {"between_sd_lower": lower, "between_sd": middle, "between_sd_upper": upper}


def few_groups(table: pd.DataFrame) -> str:
    """Return the warning where groups are too few to tell the spread between them; may be empty."""
    if table.empty:
        return ("Nothing could be pooled: no quantity is identified by two fits at a common "
                "threshold under one law.")
    most = int(table["n_groups"].max())
    if most >= FEW:
        return ""
    count = "Two groups" if most == 2 else f"{most} groups"
    return (f"{count} say little about the spread between groups, so that how far they are drawn "
            "together is mostly the prior's choice (half-normal, on the log scale); read the fits "
            "alone as well.")
