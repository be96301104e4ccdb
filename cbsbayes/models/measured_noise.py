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
(`norm_line`), whose scatter is that of runs drawn anew.

References
----------
.. [1] Smyth, "Linear models and empirical Bayes methods for assessing differential expression",
   Stat. Appl. Genet. Mol. Biol. 3 (2004), on moderated variances.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law
from cbsbayes.models.noise_data import NoiseData

__all__ = ["MIN_BATCHES", "MIN_DEVIATIONS", "MIN_ROLLOUTS", "PRIOR_FREEDOM", "SNAPSHOT_COLUMNS",
           "Part", "noise_data", "norm_line", "part_sums", "parts_of"]

MIN_ROLLOUTS = 4
PRIOR_FREEDOM = 4.0
MIN_DEVIATIONS = 3  # probes beyond one per range: fewer do not show their scatter
SNAPSHOT_COLUMNS = ("level", "n_rollouts", "g_sq", "g_sq_se", "tr_between", "tr_between_se",
                    "tr_within", "tr_within_se")
MIN_BATCHES = 3  # sizes of a range; through two a line of norms fits whatever they are
_EXACT = 1e-4  # relative error below which none is believed: a covariance must have an inverse
_NORM_DRAWS = 1000
_ITERATIONS = 30  # of a line's weights
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
        Probes of `cbsbayes.noise.logged.probes_at_accuracy`, norms of
        `cbsbayes.noise.logged.norms_at_accuracy`, or snapshots with standard errors: columns
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
    read = (_of_snapshots if "g_sq_se" in table.columns else
            _of_norms if "norm_sq" in table.columns else _of_probes)
    found = read(table, law, edges)
    n, d = max(found.ranges) + 1, len(found.parts) + 1
    estimate, covariance = np.full((n, d), np.nan), np.full((n, d, d), np.nan)
    freedom, counts = np.zeros(n), np.zeros(n, dtype=int)
    for k, of_range in found.ranges.items():
        estimate[k], covariance[k], freedom[k], counts[k] = of_range
    return NoiseData(*_shape(found.parts, law, found.groups), estimate, covariance, freedom, counts,
                     n_rollouts=found.parts[0].n_rollouts, n_runs=found.n_runs)


_Ranges = dict[Any, tuple[np.ndarray, np.ndarray, float, int]]


class _Measured(NamedTuple):
    """What was measured, from whatever it was read.

    `ranges` has of every accuracy range with data the averages, their covariance and its degrees
    of freedom, and how many were averaged; `groups` the group sizes measured at.
    """

    parts: list[Part]
    ranges: _Ranges
    groups: pd.Series
    n_runs: int = 0


def _by_range(table: pd.DataFrame, edges: np.ndarray) -> pd.DataFrame:
    """Return the rows below the hardest threshold, with the ``range`` they lie in."""
    table = table.assign(range=np.searchsorted(edges, table["level"].to_numpy()))
    return table[table["range"] < len(edges)]


def _of_probes(table: pd.DataFrame, law: Law, edges: np.ndarray) -> _Measured:
    parts, sums = _choose_parts(table, law)
    sums = _by_range(sums, edges)
    values = sums[[*(f"x{q}" for q in range(len(parts))), "below"]].to_numpy()
    weight, where = sums["weight"].to_numpy(), sums["range"].to_numpy()
    scatter, freedom = _pooled(values, weight, where)
    if freedom < MIN_DEVIATIONS:
        raise CBSDataError(
            f"{len(sums)} probes of gradient noise lie below the hardest threshold, in "
            f"{len(np.unique(where))} accuracy ranges: too few to tell their scatter; probe more "
            "often during training, add runs with logged noise, or leave --use-gradient-noise out")
    prior = min(PRIOR_FREEDOM, freedom)
    ranges = {k: _moderated(values[where == k], weight[where == k], scatter, prior)
              for k in np.unique(where)}
    return _Measured(parts, ranges, sums["n_rollouts"], sums["run"].nunique())


def _choose_parts(table: pd.DataFrame, law: Law) -> tuple[list[Part], pd.DataFrame]:
    """Return the parts a law uses, and their sums with numerators ``x0, x1``."""
    groups = [int(g) for g in table["n_rollouts"].value_counts().index]
    all_parts = parts_of(law, groups)
    candidates = [all_parts] if not law.two_axis else [all_parts[-2:], all_parts[:1]]
    for parts in candidates:
        sums = [part_sums(table, part, law) for part in parts]
        together = sums[0].assign(n_rollouts=table["n_rollouts"], **{
            f"x{q}": each["above"] for q, each in enumerate(sums)}).dropna()
        if len(together):
            return list(parts), together
    raise CBSDataError("no probe of gradient noise has numerators of this law's scales; log "
                       "grad_noise/tr_sigma, or leave --use-gradient-noise out")


def _shape(
    parts: list[Part], law: Law, groups: pd.Series
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
) -> tuple[np.ndarray, np.ndarray, float, int]:
    """Return a range's weighted mean, its covariance and degrees of freedom, and its size.

    The range's own covariance is that of the scatter it shows, so it holds whatever the weights.
    """
    share = weight / weight.sum()
    mean = share @ values
    pooled = scatter * float(np.sum(share**2 / weight)) + np.diag(np.square(_EXACT * mean))
    own = 1.0 / float(np.sum(share**2)) - 1.0
    if own < 1e-9:
        return mean, pooled, prior, len(values)
    away = (values - mean) * share[:, None]
    shown = away.T @ away * (1 + 1 / own)
    return mean, (prior * pooled + own * shown) / (prior + own), prior + own, len(values)


def _of_norms(table: pd.DataFrame, law: Law, edges: np.ndarray) -> _Measured:
    """Return what squared gradient norms say: lines in one over the batch size."""
    size = "n_prompts" if law.two_axis else "total_batch"
    if law.two_axis:  # at one group size, since |G|² depends on it
        own = table[table["n_rollouts"] > 1] if law.group_baseline else table
        group = own.groupby("n_rollouts")["n_prompts"].nunique().sort_values(kind="stable").index
        table = own[own["n_rollouts"] == group[-1]] if len(group) else own
    sums = _by_range(table.assign(norm_sq=table["norm_sq"] * table["updates"]), edges)
    runs = sums.groupby(["range", "run", size])[["updates", "norm_sq"]].sum().reset_index()
    ranges: _Ranges = {}
    rng = np.random.default_rng(0)
    for k, own in runs.groupby("range"):
        if own[size].nunique() < MIN_BATCHES:
            continue
        updates = own["updates"].to_numpy()
        line, draws = norm_line(own[size].to_numpy(), own["norm_sq"].to_numpy() / updates,
                                updates, _NORM_DRAWS, rng)
        covariance = np.cov(draws) + np.diag(np.square(_EXACT * line))
        ranges[k] = line, covariance, len(own) - 2, len(own)
    if not ranges:
        raise CBSDataError(f"no accuracy range below the hardest threshold has gradient norms of "
                           f"{MIN_BATCHES} batch sizes at one group size; add such runs, probe "
                           "gradient noise, or leave --use-gradient-noise out")
    part = parts_of(law, [int(n) for n in table["n_rollouts"][:1]])[0]
    return _Measured([part], ranges, table["n_rollouts"], table["run"].nunique())


def _of_snapshots(table: pd.DataFrame, law: Law, edges: np.ndarray) -> _Measured:
    """Return what snapshots with standard errors say, taken as independent."""
    missing = [name for name in SNAPSHOT_COLUMNS if name not in table.columns]
    if missing:
        raise CBSDataError(f"the table of measured noise has no column {missing[0]!r}; needed: "
                           f"{', '.join(SNAPSHOT_COLUMNS)}")
    if not law.two_axis:
        raise CBSDataError(f"snapshots of measured noise have a prompt and a rollout part; law "
                           f"{law.name!r} has neither, use a two_axis law")
    used = _by_range(table, edges)
    if used.empty:
        raise CBSDataError("no snapshot of measured noise lies below the hardest threshold")
    used = used.assign(**{name: used[name] * _within_factor(law, used["n_rollouts"])
                          for name in ("tr_within", "tr_within_se")})
    ranges: _Ranges = {}
    for k, own in used.groupby("range"):
        errors = own[[f"{name}_se" for name in _SUMS]].to_numpy(float)
        error = np.sqrt(np.square(errors).sum(axis=0)) / len(own)
        mean = own[list(_SUMS)].to_numpy(float).mean(axis=0)
        ranges[k] = mean, np.diag(error**2), _LARGE, len(own)
    return _Measured(parts_of(law, []), ranges, used["n_rollouts"])


def norm_line(
    batch: np.ndarray, norm_sq: np.ndarray, updates: np.ndarray, n_draws: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return slope and intercept of squared norms over 1/P, shape (2,), and draws, (2, draw).

    The error of a mean square goes with its size, so the weights are one over the square of the
    line's own value. Runs drawn anew scatter too little, by the two degrees of freedom that the
    line takes; draws are widened for that. How little so few runs tell of their scatter is
    Student's factor, which is not in them.

    Parameters
    ----------
    batch, norm_sq, updates : numpy.ndarray
        Shape (run,), three and more: batch size, mean squared norm, and the updates behind it.
    n_draws : int
        Of whole runs.
    rng : numpy.random.Generator
        Where they come from.
    """
    count = len(batch)
    picked = rng.multinomial(count, np.full(count, 1 / count), size=n_draws)
    lines = _lines(1 / np.asarray(batch, dtype=float), norm_sq,
                   np.vstack([np.ones(count, dtype=int), picked]) * updates)
    own, drawn = lines[:, :1], lines[:, 1:]
    return own[:, 0], own + (drawn - own) * np.sqrt(count / (count - 2))


def _lines(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return slope and intercept of weighted lines, shape (2, draw); weights (draw, run)."""
    line = np.broadcast_to(y, weight.shape)
    slope = intercept = np.empty(0)
    for _ in range(_ITERATIONS):
        w = weight / line**2
        w = w / w.sum(axis=1, keepdims=True)
        x_mean, y_mean = w @ x, w @ y
        across = x - x_mean[:, None]
        spread = (w * across**2).sum(axis=1)
        slope = np.divide((w * across * y).sum(axis=1), spread, out=np.zeros(len(w)),
                          where=spread > 1e-12 * x_mean**2)
        intercept = y_mean - slope * x_mean
        line = np.maximum(intercept[:, None] + slope[:, None] * x, 0.05 * y_mean[:, None])
    return np.stack([slope, intercept])
