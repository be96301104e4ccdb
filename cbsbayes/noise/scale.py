"""Gradient-noise scales from what runs logged, by window along training.

A probe at unchanged parameters logs sums (``grad_noise/…``, from verl's actor
``actor/grad_noise/…``): |ḡ|² as ``gbar_sq``, the unbiased |G|² as ``g_sq``, tr Σ of one sample as
``tr_sigma``, its parts between prompts (``tr_between``, of a prompt's expected gradient) and
within them (``tr_within``, of one rollout), and ``n_samples``. With P prompts and R rollouts per
prompt the covariance trace of the batch gradient is

    (tr Σ_between + tr Σ_within / R) / P = tr Σ / (P R),

so that the noise scales below have three different units:

==============  =============================  ==========
``B_simple``    tr Σ / |G|²                    samples
``B_between``   tr Σ_between / |G|²            prompts
``B_within``    tr Σ_within / |G|²             rollouts
``B_naive``     tr Σ / |ḡ|², biased            samples
==============  =============================  ==========

B_simple = R · B_between + B_within. They are momentary, and equal to a critical batch size in
order of magnitude only [1]_; nothing here is put in the place of a fitted noise scale.

A noise scale is tr Σ / |G|², both measured with error at every probe. The ratio of one probe means
little: its denominator is often negative once the batch is far below the noise scale.
So numerator and denominator are averaged separately, and the ratio of the averages gets Fieller's
interval [2]_: all θ with

    (X − θY)² ≤ t² (V_XX − 2θ V_XY + θ² V_YY),

V the covariance of the averages. Where Y itself is not told from zero, that set has no upper end.

The usual formula divides by |ḡ|², the squared norm of the batch's mean gradient, whose
expectation is |G|² + tr Σ / n for n samples: it tends to B / (1 + B/n), which never exceeds n.

References
----------
.. [1] McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, Table 1.
.. [2] Fieller, "Some Problems in Interval Estimation", J. R. Stat. Soc. B 16 (1954).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from cbsbayes.errors import CBSDataError
from cbsbayes.noise.probes import MIN_PROBES, RUN_COORDS, probes_of

__all__ = ["COLUMNS", "QUANTITIES", "Ratio", "bootstrap_interval", "fieller", "naive_corrected",
           "naive_expectation", "noise_scales", "ratio_of_means"]

QUANTITIES = {  # name: numerator, denominator, unit
    "B_simple": ("tr_sigma", "g_sq", "samples"),
    "B_between": ("tr_between", "g_sq", "prompts"),
    "B_within": ("tr_within", "g_sq", "rollouts"),
    "B_naive": ("tr_sigma", "gbar_sq", "samples"),
}
COLUMNS = ("window", "update_from", "update_to", "quantity", "unit", "estimate", "ci_lower",
           "ci_upper", "ci_prob", "status", "bootstrap_lower", "bootstrap_upper", "numerator",
           "denominator", "n_probes", "n_samples")


def noise_scales(
    sweep: xr.Dataset,
    *,
    by: Sequence[str] = ("run",),
    n_windows: int = 4,
    ci_prob: float = 0.9,
    random_seed: int = 0,
) -> pd.DataFrame:
    """Return measured noise scales by window along training.

    Numerators and denominators are averaged over a window's probes separately; a ratio whose
    denominator is not told from zero is reported as not resolved, with its lower bound.

    Parameters
    ----------
    sweep : Dataset
        A sweep whose runs logged gradient noise.
    by : sequence of str
        What makes one row: ``run``, or run coordinates whose runs (say, seeds) are pooled, e.g.
        ``("n_prompts", "n_rollouts")``.
    n_windows : int
        Windows, each with about the same number of probed updates; fewer where there are fewer.
    ci_prob : float
        Probability of the intervals.
    random_seed : int
        Seed of the bootstrap.

    Returns
    -------
    DataFrame
        One row per group, window and quantity: `by`, then `COLUMNS`. ``update_from`` and
        ``update_to`` in optimizer updates; estimate and intervals in ``unit``; ``numerator`` and
        ``denominator`` in squared gradient units; ``n_samples`` behind ḡ, mean over the probes.

    Raises
    ------
    CBSDataError
        If no sums were logged, or an argument is out of range.
    """
    if n_windows < 1:
        raise CBSDataError(f"n_windows is {n_windows}; at least 1 is needed")
    if not 0 < ci_prob < 1:
        raise CBSDataError(f"ci_prob is {ci_prob:g}; valid: between 0 and 1, e.g. 0.9")
    probes = probes_of(sweep)
    unknown = [name for name in by if name not in ("run", *RUN_COORDS)]
    if unknown or not by:
        raise CBSDataError(f"cannot group by {unknown or 'nothing'}; valid: run, "
                           f"{', '.join(RUN_COORDS)}")
    rows = []
    for key, group in probes.groupby(list(by), sort=True):
        updates = np.unique(group["update"])
        for number, part in enumerate(np.array_split(updates, min(n_windows, updates.size)), 1):
            window = group[group["update"].between(part[0], part[-1])]
            rows += [{**dict(zip(by, key, strict=True)), "window": number, **row}
                     for row in _rows(window, ci_prob, random_seed)]
    return pd.DataFrame(rows, columns=[*by, *COLUMNS])


def _rows(window: pd.DataFrame, ci_prob: float, random_seed: int) -> Iterator[dict[str, Any]]:
    """Yield a row of the table for every quantity that the window has."""
    for quantity, (numerator, denominator, unit) in QUANTITIES.items():
        held = window.dropna(subset=[numerator, denominator])
        if held.empty:
            continue
        above, below = held[numerator].to_numpy(), held[denominator].to_numpy()
        ratio = ratio_of_means(above, below, ci_prob)
        check = bootstrap_interval(above, below, ci_prob, random_seed=random_seed)
        yield {"update_from": window["update"].min(), "update_to": window["update"].max(),
               "quantity": quantity, "unit": unit, "estimate": ratio.estimate,
               "ci_lower": ratio.lower, "ci_upper": ratio.upper, "ci_prob": ci_prob,
               "status": ratio.status, "bootstrap_lower": check[0], "bootstrap_upper": check[1],
               "numerator": above.mean(), "denominator": below.mean(), "n_probes": len(held),
               "n_samples": held["n_samples"].mean()}


class Ratio(NamedTuple):
    """A ratio of two averages.

    Attributes
    ----------
    estimate : float
        NaN where it is not resolved.
    lower, upper : float
        Fieller's interval; from a lower bound to infinity where the ratio is not resolved.
    status : str
        ``resolved``; ``not_resolved`` where the denominator's own interval covers zero;
        ``too_few`` below `MIN_PROBES`.
    """

    estimate: float
    lower: float
    upper: float
    status: str


def ratio_of_means(numerator: ArrayLike, denominator: ArrayLike, ci_prob: float = 0.9) -> Ratio:
    """Return mean(numerator) / mean(denominator) with Fieller's interval.

    Parameters
    ----------
    numerator, denominator : array_like
        Dims (probe,): unbiased estimates of one probe each, any units; probes are independent,
        the two values of a probe are not.
    ci_prob : float
        Probability of the interval.

    Returns
    -------
    Ratio
        In units of numerator over denominator.
    """
    pairs = np.stack([np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)])
    n = pairs.shape[1]
    if n < MIN_PROBES:
        return Ratio(math.nan, -math.inf, math.inf, "too_few")
    quantile = float(stdtrit(n - 1, (1 + ci_prob) / 2))
    x, y = pairs.mean(axis=1)
    lower, upper = fieller(x, y, np.cov(pairs) / n, quantile)
    if math.isinf(upper):
        return Ratio(math.nan, lower, upper, "not_resolved")
    return Ratio(float(x / y), lower, upper, "resolved")


def fieller(x: float, y: float, covariance: np.ndarray, quantile: float) -> tuple[float, float]:
    """Return Fieller's interval of x / y for a quantity that cannot be negative.

    Parameters
    ----------
    x, y : float
        Two averages; the truth behind `y` is not negative.
    covariance : ndarray
        Dims (2, 2): their covariance.
    quantile : float
        Of Student's t (or the normal) distribution.

    Returns
    -------
    tuple of float
        Lower and upper end. The upper end is infinite where `y` is not told from zero; the lower
        end then still bounds the ratio from below, or is 0 where `x` is not told from zero either.
    """
    a = y * y - quantile**2 * covariance[1, 1]
    b = x * y - quantile**2 * covariance[0, 1]
    c = x * x - quantile**2 * covariance[0, 0]
    if y > 0 and a > 0:
        root = math.sqrt(max(b * b - a * c, 0.0))
        return float((b - root) / a), float((b + root) / a)
    if a <= 0 < c and x > 0:
        return float(c / (b + math.sqrt(b * b - a * c))), math.inf
    return 0.0, math.inf


def bootstrap_interval(
    numerator: ArrayLike, denominator: ArrayLike, ci_prob: float = 0.9, *, n_draws: int = 2000,
    random_seed: int = 0
) -> tuple[float, float]:
    """Return a percentile interval from drawing probes with replacement, a check on Fieller's.

    A check only: asked for 90 %, it held a simulated truth 78 to 83 % of the time from 5 probes
    and 86 to 91 % from 20, where Fieller's held it 90 to 91 %.

    Parameters
    ----------
    numerator, denominator : array_like
        As for `ratio_of_means`.
    ci_prob : float
        Probability of the interval.
    n_draws : int
        Resampled sets of probes.
    random_seed : int
        Seed of the draws.

    Returns
    -------
    tuple of float
        Lower and upper end; infinite where that share of draws has no positive denominator.
        NaN from fewer than `MIN_PROBES`.
    """
    x, y = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    if x.size < MIN_PROBES:
        return math.nan, math.nan
    drawn = np.random.default_rng(random_seed).integers(x.size, size=(n_draws, x.size))
    top, bottom = x[drawn].mean(axis=1), y[drawn].mean(axis=1)
    ratios = np.divide(top, bottom, out=np.full(n_draws, np.inf), where=bottom > 0)
    tail = (1 - ci_prob) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def naive_expectation(b_simple: ArrayLike, n_samples: ArrayLike) -> np.ndarray:
    """Return what average tr Σ over average |ḡ|² tends to for a true noise scale.

    Parameters
    ----------
    b_simple : array_like
        True noise scale in samples.
    n_samples : array_like
        Samples behind ḡ: micro-batches × samples in each.

    Returns
    -------
    ndarray
        B / (1 + B/n), in samples.

    Examples
    --------
    >>> float(naive_expectation(4096, 256).round(1))
    240.9
    """
    b_simple = np.asarray(b_simple, np.float64)
    return b_simple / (1 + b_simple / np.asarray(n_samples, np.float64))


def naive_corrected(naive: ArrayLike, n_samples: ArrayLike) -> np.ndarray:
    """Return the noise scale behind a naive ratio of *averages*; the inverse of the above.

    A ratio of averages at or above `n_samples` has no finite noise scale behind it: infinity.
    """
    naive, n_samples = np.broadcast_arrays(np.asarray(naive, np.float64),
                                           np.asarray(n_samples, np.float64))
    below = naive < n_samples
    return np.divide(naive, 1 - naive / n_samples, out=np.full(naive.shape, np.inf), where=below)
