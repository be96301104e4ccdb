r"""Noise scales from the gradient norms that every trainer logs, without a probe.

At one accuracy and one group size the squared norm of a batch gradient is, on average over batches
of P prompts,

    E|g|² = |G|² + tr Σ(G) / P,

so that a straight line in 1/P through the squared norms of runs of several batch sizes has the
slope tr Σ and the intercept |G|², and the noise scale N(G) is their ratio. Every group size is
regressed apart (`cbsbayes.models.measured_noise.norm_line`): with advantages normalised within the
group |G|² itself depends on it.

What it takes for granted is that runs at one accuracy share |G|², which late in training they need
not: on the shipped sweeps N is within a factor of two of the probes' (docs/model.md). Norms after
clipping, and norms averaged over the several mini-batches of a trainer step, say nothing of a
batch.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.intervals import curves_of
from cbsbayes.errors import CBSDataError
from cbsbayes.models.measured_noise import MIN_BATCHES, norm_line
from cbsbayes.noise.probes import Measured

__all__ = ["norms_at_accuracy", "norms_in_ranges"]

_CLIPPED = 0.1  # share of norms at their maximum from which they were clipped


def norms_at_accuracy(sweep: xr.Dataset, metric: str | None) -> pd.DataFrame:
    """Return the squared gradient norms of a sweep's usable runs with the accuracy they had.

    Returns
    -------
    DataFrame
        One row per run and evaluation: ``run, n_prompts, n_rollouts, total_batch``, ``updates``
        since the evaluation before, ``norm_sq`` their mean, ``level`` and ``accuracy`` in the
        middle (as in `cbsbayes.noise.probes.probes_at_accuracy`).

    Raises
    ------
    CBSDataError
        If no run logged norms, or none of them is of one batch before clipping.
    """
    if "grad_norm_sq" not in sweep:
        raise CBSDataError("no run logged gradient norms (actor/grad_norm and the like)")
    curves = curves_of(sweep, metric=metric)
    kept = np.flatnonzero((sweep["usable"].values == 1) & (sweep["updates_per_step"].values == 1))
    if not kept.size:
        raise CBSDataError("gradient norms are not usable: every trainer step makes several "
                           "updates, and its norm is their average")
    squared = sweep["grad_norm_sq"].transpose("run", "step")
    parts = []
    for i in kept:
        known = ~np.isnan(curves.step[i])
        step, value = curves.step[i][known], curves.value[i][known]
        parts.append(pd.DataFrame({
            **{name: sweep[name].values[i]
               for name in ("run", "n_prompts", "n_rollouts", "total_batch")},
            "updates": np.diff(step), "norm_sq": squared[i].sel(step=step[1:]).values,
            "level": (value[1:] + value[:-1]) / 2}))
    norms = pd.concat(parts).dropna(subset=["norm_sq"])
    if norms.empty:
        raise CBSDataError("no run logged gradient norms (actor/grad_norm and the like)")
    top = norms["norm_sq"].max()
    if (norms["norm_sq"] > 0.999 * top).mean() > _CLIPPED:
        raise CBSDataError(f"gradient norms are not usable: many are {np.sqrt(top):.3g}, as norms "
                           "after clipping are")
    return norms.assign(accuracy=curves.sign * norms["level"])


def norms_in_ranges(
    norms: pd.DataFrame, edges: np.ndarray, *, size: str, n_draws: int, rng: np.random.Generator
) -> list[Measured]:
    """Return a momentary noise scale in every accuracy range.

    Parameters
    ----------
    norms : DataFrame
        From `norms_at_accuracy`, of one group size.
    edges : numpy.ndarray
        Upper ends of the ranges, as levels, shape (threshold,).
    size : {"n_prompts", "total_batch"}
        What the scale is counted in.
    n_draws : int
        Draws that carry the sampling error.
    rng : numpy.random.Generator
        Where they come from.

    Returns
    -------
    list of Measured
        In order; ranges with fewer than `MIN_BATCHES` sizes are joined to the next, and the last
        one is without draws where it still has fewer.
    """
    of_range = np.searchsorted(edges, norms["level"].to_numpy())
    out, first = [], 0
    for last in range(len(edges)):
        inside = norms[(of_range >= first) & (of_range <= last)]
        if inside[size].nunique() >= MIN_BATCHES or last == len(edges) - 1:
            out.append(_measured(inside, first, last, size, n_draws, rng))
            first = last + 1
    return out


def _measured(
    norms: pd.DataFrame, first: int, last: int, size: str, n_draws: int, rng: np.random.Generator
) -> Measured:
    weighted = norms.assign(**{name: norms[name] * norms["updates"]
                               for name in ("norm_sq", "level", "accuracy")})
    runs = weighted.groupby(["run", size])[["updates", "norm_sq", "accuracy"]].sum().reset_index()
    count, updates = len(runs), runs["updates"].to_numpy()
    accuracy = float(runs["accuracy"].sum() / updates.sum()) if count else np.nan
    draws = np.empty(0)
    if runs[size].nunique() >= MIN_BATCHES:
        line, drawn = norm_line(runs[size].to_numpy(), runs["norm_sq"].to_numpy() / updates,
                                updates, n_draws, rng)
        student = np.sqrt((count - 2) / rng.chisquare(count - 2, n_draws))
        slope, intercept = line[:, None] + (drawn - line[:, None]) * student
        draws = np.maximum(np.divide(slope, intercept, out=np.full(n_draws, np.inf),
                                     where=intercept > 0), 0.0)
    return Measured(first, last, draws, int(updates.sum()), count, accuracy)
