r"""Measured gradient noise at an accuracy: averages over accuracy ranges, as draws.

The thresholds of a fit cut training into accuracy ranges; one worth fewer than `MIN_EFFECTIVE`
equal probes is joined to the next (a joined range leans to its part with the stronger gradient).
All probes of a range are pooled, whatever run they come from, because noise is taken to depend on
accuracy alone. A probe counts with the square of the samples behind it, because below the noise
scale the scatter of the unbiased |G|² falls as their inverse. Numerator and denominator are
averaged separately; their sampling error is carried by draws from the Student distribution of the
two averages, and a draw whose |G|² is not positive is a noise scale without an upper end. What is
measured stands for, in the symbols of the laws:

=============  ==================================  =========================================
``N``          tr Σ / (R |G|²), prompts            N(G) at G = R, without any further step
``B_prompt``   tr Σ_between / |G|², prompts        B_prompt
``B_rollout``  tr Σ_within (R − 1)/R / |G|²        B_rollout of the laws in 1/(G − 1); without
                                                   the factor that of the laws in 1/G
``B_noise``    tr Σ / |G|², samples                B_noise of the total-batch laws
=============  ==================================  =========================================

The two parts come from groups of at least `MIN_ROLLOUTS`: both halves of a group share its
baseline, which biases its prompt part by a relative order of 1/(R − 1)².
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.rules import curves_of
from cbsbayes.models.laws import Law
from cbsbayes.noise.ratio import MIN_PROBES
from cbsbayes.noise.scale import probes_of, rollout_scale

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["MIN_EFFECTIVE", "MIN_ROLLOUTS", "Measured", "Part", "measured_in_ranges", "part_sums",
           "parts_of", "probes_at_accuracy", "probes_of_fit"]

MIN_ROLLOUTS = 4
MIN_EFFECTIVE = 8.0  # fewer, and Student's tails leave the denominator unresolved


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


class Measured(NamedTuple):
    """What the probes of one accuracy range say about one scale.

    Attributes
    ----------
    first, last : int
        Thresholds at whose ranges it begins and ends: from threshold first - 1 (the start of
        training for 0) to threshold last.
    draws : numpy.ndarray
        Shape (draw,): of the noise scale, in its unit; infinite where |G|² is not positive.
        Empty from fewer than `MIN_PROBES` probes.
    n_probes, n_runs : int
        Probes averaged, and the runs they come from.
    accuracy : float
        Mean accuracy of the probes, NaN without any.
    """

    first: int
    last: int
    draws: np.ndarray
    n_probes: int
    n_runs: int
    accuracy: float


def parts_of(law: Law, groups: list[int]) -> list[Part]:
    """Return the noise scales of a law: whole at every group size probed, then its parts."""
    if not law.two_axis:
        return [Part("B_noise", "", "samples")]
    rollouts = "prompts × rollouts" if law.plain else "prompts × (rollouts − 1)"
    whole = [Part("N", f"n_rollouts={g}", "prompts", g) for g in groups]
    return [*whole, Part("B_prompt", "", "prompts"), Part("B_rollout", "", rollouts)]


def probes_of_fit(fit: Fit) -> pd.DataFrame:
    """Return every probe of the runs fitted, with the accuracy it was made at.

    A probe looks at the parameters before the trainer step it is logged with; accuracy is read
    off the run's monotone curve, linearly between evaluations.

    Returns
    -------
    DataFrame
        Columns of `cbsbayes.noise.scale.probes_of`, and ``accuracy`` and ``level`` (accuracy, or
        its negative where a target is reached from above), in the metric's unit.

    Raises
    ------
    CBSDataError
        If these runs logged no numerators and denominators of gradient noise.
    """
    return probes_at_accuracy(fit.sweep.sel(run=fit.crossings["run"].values),
                              fit.settings.get("metric") or None)


def probes_at_accuracy(sweep: xr.Dataset, metric: str | None) -> pd.DataFrame:
    """Return every probe of a sweep's runs with the accuracy it was made at.

    As `probes_of_fit`, before there is a fit.
    """
    probes = probes_of(sweep)
    curves = curves_of(sweep, metric=metric)
    position = pd.Index(sweep["run"].values).get_indexer(probes["run"])
    before = probes["update"] - sweep["updates_per_step"].values[position]
    level = np.array([_at(curves.step[i], curves.value[i], update)
                      for i, update in zip(position, before, strict=True)])
    return probes.assign(level=level, accuracy=curves.sign * level)


def _at(step: np.ndarray, value: np.ndarray, update: float) -> float:
    known = ~np.isnan(value)
    return float(np.interp(update, step[known], value[known])) if known.any() else np.nan


def measured_in_ranges(
    probes: pd.DataFrame, part: Part, edges: np.ndarray, *, plain: bool, n_draws: int,
    rng: np.random.Generator,
) -> list[Measured]:
    """Return a momentary noise scale in every accuracy range.

    Parameters
    ----------
    probes : DataFrame
        From `probes_of_fit`.
    part : Part
        The scale.
    edges : numpy.ndarray
        Upper ends of the ranges, as levels, shape (threshold,); probes beyond the last are not
        used.
    plain : bool
        Whether ``B_rollout`` is that of a law in 1/G.
    n_draws : int
        Draws that carry the sampling error.
    rng : numpy.random.Generator
        Where they come from.

    Returns
    -------
    list of Measured
        In order; the last one without draws where too few probes are left for the last range.
    """
    table = part_sums(probes, part, plain).dropna()
    of_range = np.searchsorted(edges, table["level"].to_numpy())
    out, first = [], 0
    for last in range(len(edges)):
        inside = table[(of_range >= first) & (of_range <= last)]
        if _effective(inside["weight"].to_numpy()) >= MIN_EFFECTIVE or last == len(edges) - 1:
            out.append(_measured(inside, first, last, n_draws, rng))
            first = last + 1
    return out


def _measured(
    table: pd.DataFrame, first: int, last: int, n_draws: int, rng: np.random.Generator
) -> Measured:
    size, runs, accuracy = len(table), table["run"].nunique(), float(table["accuracy"].mean())
    if size < MIN_PROBES:
        return Measured(first, last, np.empty(0), size, runs, accuracy)
    pairs = table[["above", "below"]].to_numpy().T
    mean, covariance, freedom = _weighted(pairs, table["weight"].to_numpy())
    scatter = rng.multivariate_normal(np.zeros(2), covariance, size=n_draws, method="eigh")
    spread = np.sqrt(freedom / rng.chisquare(freedom, n_draws))
    above, below = (mean + scatter * spread[:, None]).T
    ratio = np.divide(above, below, out=np.full(n_draws, np.inf), where=below > 0)
    return Measured(first, last, np.maximum(ratio, 0.0), size, runs, accuracy)


def part_sums(probes: pd.DataFrame, part: Part, plain: bool) -> pd.DataFrame:
    """Return numerator, denominator and weight of every probe that has this scale."""
    if part.quantity == "N":
        probes = probes[probes["n_rollouts"] == part.n_rollouts]
        above = probes["tr_sigma"] / part.n_rollouts
    elif part.quantity == "B_noise":
        above = probes["tr_sigma"]
    else:
        probes = probes[probes["n_rollouts"] >= MIN_ROLLOUTS]
        within = probes["tr_within"]
        above = (probes["tr_between"] if part.quantity == "B_prompt"
                 else within if plain else rollout_scale(within, probes["n_rollouts"]))
    weight = probes["n_samples"].fillna(probes["total_batch"]) ** 2
    return pd.DataFrame({"run": probes["run"], "level": probes["level"],
                         "accuracy": probes["accuracy"], "above": above, "below": probes["g_sq"],
                         "weight": weight})


def _effective(weights: np.ndarray) -> float:
    """Return how many equal probes are worth as much."""
    return float(weights.sum() ** 2 / np.square(weights).sum()) if weights.size else 0.0


def _weighted(pairs: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the weighted means of two rows, their covariance and its degrees of freedom.

    The covariance is that of the scatter between probes, so it holds whatever the weights.
    """
    share = weights / weights.sum()
    mean = pairs @ share
    freedom = _effective(weights) - 1
    away = (pairs - mean[:, None]) * share
    return mean, away @ away.T * (1 + 1 / freedom), freedom
