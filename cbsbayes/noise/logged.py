r"""Noise scales of accuracy ranges, from probes or gradient norms that runs logged.

A probe at unchanged parameters logs sums (``grad_noise/…``, from verl's actor
``actor/grad_noise/…``): |ḡ|² as ``gbar_sq``, the unbiased |G|² as ``g_sq``, tr Σ of one sample as
``tr_sigma``, its parts between prompts (``tr_between``, of a prompt's expected gradient) and
within them (``tr_within``, of one rollout), and ``n_samples``. With P prompts and R rollouts per
prompt the covariance trace of the batch gradient is

    (tr Σ_between + tr Σ_within / R) / P = tr Σ / (P R),

so that tr Σ / |G|² counts samples, tr Σ_between / |G|² prompts and tr Σ_within / |G|² rollouts.
They are momentary, and equal to a critical batch size in order of magnitude only [1]_; nothing here
is put in the place of a fitted noise scale.

The ratio of one probe means little: its denominator is often negative once the batch is far below
the noise scale. So numerator and denominator are averaged separately. The usual formula divides by
|ḡ|², whose expectation is |G|² + tr Σ / n for n samples: it tends to B / (1 + B/n), which never
exceeds n.

The thresholds of a fit cut training into accuracy ranges; one worth fewer than `MIN_EFFECTIVE`
equal probes is joined to the next (a joined range leans to its part with the stronger gradient).
All probes of a range are pooled, whatever run they come from, because noise is taken to depend on
accuracy alone. The sampling error of the two averages is carried by draws from their Student
distribution, and a draw whose |G|² is not positive is a noise scale without an upper end.

Without a probe, trainers still log the norm of the gradient at every step. At one accuracy and one
group size the squared norm of a batch gradient is, on average over batches of P prompts,

    E|g|² = |G|² + tr Σ(G) / P,

so that a straight line in 1/P through the squared norms of runs of several batch sizes has the
slope tr Σ and the intercept |G|², and the noise scale N(G) is their ratio. Every group size is
regressed apart (`cbsbayes.models.measured_noise.norm_line`): with advantages normalised within the
group |G|² itself depends on it. What it takes for granted is that runs at one accuracy share |G|²,
which late in training they need not: on the shipped sweeps N is within a factor of two of the
probes' (docs/model.md). Norms after clipping, and norms averaged over the several mini-batches of a
trainer step, say nothing of a batch.

References
----------
.. [1] McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, Table 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.intervals import curves_of
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law
from cbsbayes.models.measured_noise import MIN_BATCHES, Part, norm_line, part_sums

__all__ = ["MIN_EFFECTIVE", "MIN_PROBES", "Measured", "measured_in_ranges", "norms_at_accuracy",
           "norms_in_ranges", "probes_at_accuracy", "probes_of"]

MIN_PROBES = 4  # fewer say nothing about their own scatter
MIN_EFFECTIVE = 8.0  # fewer, and Student's tails leave the denominator unresolved
_CLIPPED = 0.1  # share of norms at their maximum from which they were clipped
_RUN_COORDS = ("phase", "model", "dataset", "algorithm", "n_prompts", "n_rollouts",
               "total_batch", "learning_rate", "seed")
_SUMS = ("gbar_sq", "g_sq", "tr_sigma", "tr_between", "tr_within", "n_samples")


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


def probes_of(sweep: xr.Dataset) -> pd.DataFrame:
    """Return every probe of every usable run as one row.

    Parameters
    ----------
    sweep : Dataset
        A sweep.

    Returns
    -------
    DataFrame
        ``run``, run coordinates, ``update``, and the logged sums; sums not logged are NaN. An
        unbiased |G|² that was not logged is |ḡ|² − tr Σ / n.

    Raises
    ------
    CBSDataError
        If the sweep holds no numerators and denominators.
    """
    logged = [str(name) for name in sweep.data_vars if str(name).startswith("noise_")]
    if not logged:
        raise CBSDataError("no gradient noise was logged: no run has grad_noise/ metrics; switch "
                           "the probe on during training")
    kept = sweep.isel(run=np.flatnonzero(sweep["usable"].values == 1))
    shape = (kept.sizes["run"], kept.sizes["train_step"])
    sums = {name: kept[f"noise_{name}"].transpose("run", "train_step").values
            if f"noise_{name}" in kept else np.full(shape, np.nan) for name in _SUMS}
    derived = sums["gbar_sq"] - sums["tr_sigma"] / sums["n_samples"]
    sums["g_sq"] = np.where(np.isnan(sums["g_sq"]), derived, sums["g_sq"])
    complete = np.isfinite(sums["tr_sigma"]) & np.isfinite(sums["g_sq"])
    if not complete.any():
        raise CBSDataError(
            f"the sweep has {', '.join(logged)} but no probe with tr_sigma and g_sq (or gbar_sq "
            "and n_samples): ratios of single probes cannot be averaged into a noise scale; log "
            "numerators and denominators (grad_noise/tr_sigma, grad_noise/g_sq)")
    run, step = np.nonzero(complete)
    columns: dict[str, Any] = {name: kept[name].values[run] for name in ("run", *_RUN_COORDS)}
    columns["update"] = kept["train_step"].values[step]
    return pd.DataFrame(columns | {name: values[run, step] for name, values in sums.items()})


def probes_at_accuracy(sweep: xr.Dataset, metric: str | None) -> pd.DataFrame:
    """Return every probe of a sweep's runs with the accuracy it was made at.

    A probe looks at the parameters before the trainer step it is logged with; accuracy is read
    off the run's monotone curve, linearly between evaluations.

    Returns
    -------
    DataFrame
        Columns of `probes_of`, and ``accuracy`` and ``level`` (accuracy, or its negative where a
        target is reached from above), in the metric's unit.

    Raises
    ------
    CBSDataError
        If these runs logged no numerators and denominators of gradient noise.
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


def norms_at_accuracy(sweep: xr.Dataset, metric: str | None) -> pd.DataFrame:
    """Return the squared gradient norms of a sweep's usable runs with the accuracy they had.

    Returns
    -------
    DataFrame
        One row per run and evaluation: ``run, n_prompts, n_rollouts, total_batch``, ``updates``
        since the evaluation before, ``norm_sq`` their mean, ``level`` and ``accuracy`` in the
        middle (as in `probes_at_accuracy`).

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


def measured_in_ranges(
    probes: pd.DataFrame, part: Part, edges: np.ndarray, *, law: Law, n_draws: int,
    rng: np.random.Generator,
) -> list[Measured]:
    """Return a momentary noise scale in every accuracy range.

    Parameters
    ----------
    probes : DataFrame
        From `probes_at_accuracy`.
    part : Part
        The scale.
    edges : numpy.ndarray
        Upper ends of the ranges, as levels, shape (threshold,); probes beyond the last are not
        used.
    law : Law
        Says what the part stands for.
    n_draws : int
        Draws that carry the sampling error.
    rng : numpy.random.Generator
        Where they come from.

    Returns
    -------
    list of Measured
        In order; the last one without draws where too few probes are left for the last range.
    """
    table = part_sums(probes, part, law).dropna()
    ranges = _joined(table, edges, lambda inside: _effective(
        inside["weight"].to_numpy()) >= MIN_EFFECTIVE)
    return [Measured(first, last, *_probed(inside, n_draws, rng)) for first, last, inside in ranges]


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
    ranges = _joined(norms, edges, lambda inside: inside[size].nunique() >= MIN_BATCHES)
    return [Measured(first, last, *_regressed(inside, size, n_draws, rng))
            for first, last, inside in ranges]


def _joined(
    table: pd.DataFrame, edges: np.ndarray, enough: Callable[[pd.DataFrame], bool]
) -> Iterator[tuple[int, int, pd.DataFrame]]:
    """Yield the first and the last accuracy range and the rows in them.

    A range without enough rows is joined to the next; the last one may have too few.
    """
    of_range = np.searchsorted(edges, table["level"].to_numpy())
    first = 0
    for last in range(len(edges)):
        inside = table[(of_range >= first) & (of_range <= last)]
        if enough(inside) or last == len(edges) - 1:
            yield first, last, inside
            first = last + 1


def _probed(
    table: pd.DataFrame, n_draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, int, int, float]:
    """Return draws of the scale, probes, runs and accuracy, as in `Measured`."""
    size, runs, accuracy = len(table), table["run"].nunique(), float(table["accuracy"].mean())
    if size < MIN_PROBES:
        return np.empty(0), size, runs, accuracy
    pairs = table[["above", "below"]].to_numpy().T
    mean, covariance, freedom = _weighted(pairs, table["weight"].to_numpy())
    scatter = rng.multivariate_normal(np.zeros(2), covariance, size=n_draws, method="eigh")
    spread = np.sqrt(freedom / rng.chisquare(freedom, n_draws))
    above, below = (mean + scatter * spread[:, None]).T
    return _ratio(above, below), size, runs, accuracy


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    ratio = np.divide(above, below, out=np.full(len(below), np.inf), where=below > 0)
    return np.maximum(ratio, 0.0)


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


def _regressed(
    norms: pd.DataFrame, size: str, n_draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, int, int, float]:
    """Return draws of the scale, updates, runs and accuracy, as in `Measured`."""
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
        draws = _ratio(slope, intercept)
    return draws, int(updates.sum()), count, accuracy
