r"""From probes, gradient norms or a table of snapshots to the model's noise data.

A law has noise scales of three units; what was measured of each is an average of numerators over
one of |G|²:

=============  ==================================  =========================================
``N``          tr Σ / (R |G|²), prompts            N(G) at G = R, without any further step
``B_prompt``   tr Σ_between / |G|², prompts        B_prompt
``B_rollout``  tr Σ_within (R − 1)/R / |G|²        B_rollout of the laws in 1/(G − 1); without
                                                   the factor that of the laws in 1/G
``B_noise``    tr Σ / |G|², samples                B_noise of the total-batch laws
=============  ==================================  =========================================

The two parts come from groups of at least `MIN_ROLLOUTS`: both halves of a group share its
baseline, which biases its prompt part by a relative order of 1/(R − 1)². A probe counts with the
square of the samples behind it, because below the noise scale the scatter of the unbiased |G|²
falls as their inverse.

An accuracy range of a sweep of one batch holds a handful of probes, too few for their own scatter.
So the scatter of a range is moderated by that of all ranges, as `PRIOR_FREEDOM` probes' worth
(Smyth 2004 [1]_): one probe then has an error too. A range without any stays in the model without
data. Of gradient norms numerator and denominator are slope and intercept of a line in 1/P
(`cbsbayes.models.norm_lines`), whose scatter is that of runs drawn anew.

References
----------
.. [1] Smyth, "Linear models and empirical Bayes methods for assessing differential expression",
   Stat. Appl. Genet. Mol. Biol. 3 (2004), on moderated variances.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law
from cbsbayes.models.noise_data import NoiseData
from cbsbayes.models.norm_lines import MIN_BATCHES, norm_line

__all__ = ["MIN_DEVIATIONS", "MIN_ROLLOUTS", "PRIOR_FREEDOM", "SNAPSHOT_COLUMNS", "Part",
           "noise_data", "part_sums", "parts_of"]

MIN_ROLLOUTS = 4
PRIOR_FREEDOM = 4.0
MIN_DEVIATIONS = 3  # probes beyond one per range: fewer do not show their scatter
SNAPSHOT_COLUMNS = ("level", "n_rollouts", "g_sq", "g_sq_se", "tr_between", "tr_between_se",
                    "tr_within", "tr_within_se")
_EXACT = 1e-4  # relative error below which none is believed: a covariance must have an inverse
_NORM_DRAWS = 1000
_LARGE = 200.0  # degrees of freedom of stated standard errors
_SUMS = ("tr_between", "tr_within", "g_sq")


class Part(NamedTuple):
    """One noise scale of a law.

    Attributes
    ----------
    quantity : str
        ``N``, ``B_prompt``, ``B_rollout`` or ``B_noise``.
    at, unit : str
        What is held fixed (``n_rollouts=8``), and the unit.
    n_rollouts : int
        The group size of ``N``; 0 for the others.
    """

    quantity: str
    at: str
    unit: str
    n_rollouts: int = 0


def parts_of(law: Law, groups: list[int]) -> list[Part]:
    """Return the noise scales of a law: whole at every group size probed, then its parts."""
    if not law.two_axis:
        return [Part("B_noise", "", "samples")]
    rollouts = "prompts × (rollouts − 1)" if law.group_baseline else "prompts × rollouts"
    whole = [Part("N", f"n_rollouts={g}", "prompts", g) for g in groups]
    return [*whole, Part("B_prompt", "", "prompts"), Part("B_rollout", "", rollouts)]


def part_sums(probes: pd.DataFrame, part: Part, law: Law) -> pd.DataFrame:
    """Return numerator, denominator and weight of every probe that has this scale."""
    if part.quantity == "N":
        probes = probes[probes["n_rollouts"] == part.n_rollouts]
        above = probes["tr_sigma"] / part.n_rollouts
    elif part.quantity == "B_noise":
        above = probes["tr_sigma"]
    else:
        probes = probes[probes["n_rollouts"] >= MIN_ROLLOUTS]
        above = (probes["tr_between"] if part.quantity == "B_prompt" else
                 probes["tr_within"] * _within_factor(law, probes["n_rollouts"]))
    weight = probes["n_samples"].fillna(probes["total_batch"]) ** 2
    return pd.DataFrame({"run": probes["run"], "level": probes["level"],
                         "accuracy": probes["accuracy"], "above": above, "below": probes["g_sq"],
                         "weight": weight})


def _within_factor(law: Law, n_rollouts: Any) -> Any:
    """Return what tr Σ_within of groups of R is multiplied by to lay it beside ``B_rollout``.

    A group that normalises its own advantages has noise Σ_within/(G − 1) where independent
    rollouts would have Σ_within/G; measured at R rollouts, the two agree after a factor (R − 1)/R.
    """
    return law.group_divisor(n_rollouts) / n_rollouts


def noise_data(table: pd.DataFrame, law: Law, edges: np.ndarray) -> NoiseData:
    """Return the noise data of a law.

    Parameters
    ----------
    table : DataFrame
        Probes of `cbsbayes.noise.probes.probes_at_accuracy`, norms of
        `cbsbayes.noise.norms.norms_at_accuracy`, or snapshots with standard errors: columns
        `SNAPSHOT_COLUMNS`, ``level`` the accuracy they were taken at.
    law : Law
        Says which parts it can use: B_prompt and B_rollout where both were measured, else N at
        the group size with most probes or norms, or B_noise.
    edges : numpy.ndarray
        Thresholds as levels, increasing, shape (threshold,).

    Raises
    ------
    CBSDataError
        If too few probes, or norms of too few batch sizes, lie below the hardest threshold.
    """
    if "g_sq_se" in table.columns:
        return _of_snapshots(table, law, edges)
    if "norm_sq" in table.columns:
        return _of_norms(table, law, edges)
    parts, sums = _choose_parts(table, law)
    sums = sums.assign(range=np.searchsorted(edges, sums["level"].to_numpy()))
    sums = sums[sums["range"] < len(edges)]
    d = len(parts)
    values = sums[[f"x{q}" for q in range(d)] + ["below"]].to_numpy()
    weight, where = sums["weight"].to_numpy(), sums["range"].to_numpy()
    scatter, freedom = _pooled(values, weight, where)
    if freedom < MIN_DEVIATIONS:
        raise CBSDataError(
            f"{len(sums)} probes of gradient noise lie below the hardest threshold, in "
            f"{len(np.unique(where))} accuracy ranges: too few to tell their scatter; probe more "
            "often during training, add runs with logged noise, or leave --use-gradient-noise out")
    n_ranges = int(where.max()) + 1
    estimate = np.full((n_ranges, d + 1), np.nan)
    covariance = np.full((n_ranges, d + 1, d + 1), np.nan)
    degrees, counts = np.zeros(n_ranges), np.bincount(where, minlength=n_ranges)
    for k in np.unique(where):
        inside = where == k
        estimate[k], covariance[k], degrees[k] = _moderated(
            values[inside], weight[inside], scatter, min(PRIOR_FREEDOM, freedom))
    groups = sums["n_rollouts"].to_numpy(float)
    return NoiseData(*_shape(parts, law, groups), estimate, covariance, degrees, counts,
                     n_rollouts=parts[0].n_rollouts, n_runs=int(sums["run"].nunique()))


def _choose_parts(table: pd.DataFrame, law: Law) -> tuple[list[Part], pd.DataFrame]:
    """Return the parts a law uses, and their sums with numerators ``x0, x1``."""
    groups = [int(g) for g in table["n_rollouts"].value_counts().index]
    all_parts = parts_of(law, groups)
    candidates = [all_parts] if not law.two_axis else [all_parts[-2:], all_parts[:1]]
    for parts in candidates:
        sums = [part_sums(table, part, law) for part in parts]
        together = sums[0].rename(columns={"above": "x0"})
        for q, other in enumerate(sums[1:], start=1):
            together[f"x{q}"] = other["above"]
        together = together.assign(n_rollouts=table["n_rollouts"]).dropna()
        if len(together):
            return list(parts), together
    raise CBSDataError("no probe of gradient noise has numerators of this law's scales; log "
                       "grad_noise/tr_sigma, or leave --use-gradient-noise out")


def _shape(
    parts: list[Part], law: Law, groups: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Return names, the mix of the law's scales, and what each part counts in the sum."""
    names = tuple(part.quantity for part in parts)
    if names == law.scales:
        divisor = float(law.group_divisor(np.median(groups)))
        return names, np.eye(len(names)), np.array([1.0, 1.0 / divisor])[: len(names)]
    divisor = float(law.group_divisor(parts[0].n_rollouts))
    return names, np.array([[1.0, 1.0 / divisor]]), np.ones(1)


def _pooled(
    values: np.ndarray, weight: np.ndarray, where: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return the covariance of a probe of weight 1 around its range's mean, and its freedom."""
    total, freedom = np.zeros((values.shape[1], values.shape[1])), 0.0
    for k in np.unique(where):
        v, w = values[where == k], weight[where == k]
        away = v - w @ v / w.sum()
        total += (away * w[:, None]).T @ away
        freedom += len(v) - 1
    return total / max(freedom, 1.0), freedom


def _moderated(
    values: np.ndarray, weight: np.ndarray, scatter: np.ndarray, prior: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return a range's weighted mean, its covariance and degrees of freedom.

    The range's own covariance is that of the scatter it shows, so it holds whatever the weights.
    """
    share = weight / weight.sum()
    mean = share @ values
    pooled = scatter * float(np.sum(share**2 / weight)) + np.diag(np.square(_EXACT * mean))
    own = 1.0 / float(np.sum(share**2)) - 1.0
    if own < 1e-9:
        return mean, pooled, prior
    away = (values - mean) * share[:, None]
    shown = away.T @ away * (1 + 1 / own)
    return mean, (prior * pooled + own * shown) / (prior + own), prior + own


def _of_norms(table: pd.DataFrame, law: Law, edges: np.ndarray) -> NoiseData:
    """Return the same from squared gradient norms: lines in one over the batch size."""
    size = "n_prompts" if law.two_axis else "total_batch"
    if law.two_axis:  # at one group size, since |G|² depends on it
        own = table[table["n_rollouts"] > 1] if law.group_baseline else table
        group = own.groupby("n_rollouts")["n_prompts"].nunique().sort_values(kind="stable").index
        table = own[own["n_rollouts"] == group[-1]] if len(group) else own
    part = parts_of(law, [int(n) for n in table["n_rollouts"][:1]])[0]
    where = np.searchsorted(edges, table["level"].to_numpy())
    sums = table.assign(range=where, norm_sq=table["norm_sq"] * table["updates"])
    runs = sums.groupby(["range", "run", size])[["updates", "norm_sq"]].sum().reset_index()
    ranges = {k: own for k in range(len(edges))
              if (own := runs[runs["range"] == k])[size].nunique() >= MIN_BATCHES}
    if not ranges:
        raise CBSDataError(f"no accuracy range below the hardest threshold has gradient norms of "
                           f"{MIN_BATCHES} batch sizes at one group size; add such runs, probe "
                           "gradient noise, or leave --use-gradient-noise out")
    n, rng = max(ranges) + 1, np.random.default_rng(0)
    estimate, covariance = np.full((n, 2), np.nan), np.full((n, 2, 2), np.nan)
    freedom, counts = np.zeros(n), np.zeros(n, dtype=int)
    for k, own in ranges.items():
        updates = own["updates"].to_numpy()
        estimate[k], draws = norm_line(own[size].to_numpy(), own["norm_sq"].to_numpy() / updates,
                                       updates, _NORM_DRAWS, rng)
        covariance[k] = np.cov(draws) + np.diag(np.square(_EXACT * estimate[k]))
        freedom[k], counts[k] = len(own) - 2, len(own)
    return NoiseData(*_shape([part], law, table["n_rollouts"].to_numpy(float)), estimate,
                     covariance, freedom, counts, n_rollouts=part.n_rollouts,
                     n_runs=int(runs["run"].nunique()))


def _of_snapshots(table: pd.DataFrame, law: Law, edges: np.ndarray) -> NoiseData:
    """Return the same from snapshots with standard errors, taken as independent."""
    missing = [name for name in SNAPSHOT_COLUMNS if name not in table.columns]
    if missing:
        raise CBSDataError(f"the table of measured noise has no column {missing[0]!r}; needed: "
                           f"{', '.join(SNAPSHOT_COLUMNS)}")
    if not law.two_axis:
        raise CBSDataError(f"snapshots of measured noise have a prompt and a rollout part; law "
                           f"{law.name!r} has neither, use a two_axis law")
    where = np.searchsorted(edges, table["level"].to_numpy())
    used, where = table[where < len(edges)], where[where < len(edges)]
    if not len(used):
        raise CBSDataError("no snapshot of measured noise lies below the hardest threshold")
    n_ranges = int(where.max()) + 1
    estimate, covariance = np.full((n_ranges, 3), np.nan), np.full((n_ranges, 3, 3), np.nan)
    for k, mean, error in _ranges(used, where, law):
        estimate[k], covariance[k] = mean, np.diag(error**2)
    counts = np.bincount(where, minlength=n_ranges)
    groups = used["n_rollouts"].to_numpy(float)
    parts = parts_of(law, [])
    return NoiseData(*_shape(parts, law, groups), estimate, covariance,
                     np.where(counts > 0, _LARGE, 0.0), counts)


def _ranges(
    used: pd.DataFrame, where: np.ndarray, law: Law
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    rollouts = used["n_rollouts"].to_numpy(float)
    factor = _within_factor(law, rollouts)
    scale = np.column_stack([np.ones_like(factor), factor, np.ones_like(factor)])
    values = used[list(_SUMS)].to_numpy(float) * scale
    errors = used[[f"{name}_se" for name in _SUMS]].to_numpy(float) * scale
    for k in np.unique(where):
        inside = where == k
        yield (int(k), values[inside].mean(axis=0),
               np.sqrt(np.square(errors[inside]).sum(axis=0)) / inside.sum())
