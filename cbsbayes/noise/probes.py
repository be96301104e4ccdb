r"""Probes of gradient noise that runs logged, and the noise scales of accuracy ranges.

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

References
----------
.. [1] McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, Table 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.intervals import curves_of
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law
from cbsbayes.models.measured_noise import Part, part_sums
from cbsbayes.posterior.fit import Fit

__all__ = ["MIN_EFFECTIVE", "MIN_PROBES", "Measured", "measured_in_ranges", "probes_at_accuracy",
           "probes_of", "probes_of_fit"]

MIN_PROBES = 4  # fewer say nothing about their own scatter
MIN_EFFECTIVE = 8.0  # fewer, and Student's tails leave the denominator unresolved
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


def probes_of_fit(fit: Fit) -> pd.DataFrame:
    """Return `probes_at_accuracy` of the runs fitted."""
    return probes_at_accuracy(fit.sweep.sel(run=fit.crossings["run"].values),
                              fit.settings.get("metric") or None)


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


def measured_in_ranges(
    probes: pd.DataFrame, part: Part, edges: np.ndarray, *, law: Law, n_draws: int,
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
