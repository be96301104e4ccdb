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

References
----------
.. [1] McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, Table 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.noise.ratio import bootstrap_interval, ratio_of_means

__all__ = ["COLUMNS", "QUANTITIES", "noise_scales", "probes_of", "rollout_scale"]

QUANTITIES = {  # name: numerator, denominator, unit
    "B_simple": ("tr_sigma", "g_sq", "samples"),
    "B_between": ("tr_between", "g_sq", "prompts"),
    "B_within": ("tr_within", "g_sq", "rollouts"),
    "B_naive": ("tr_sigma", "gbar_sq", "samples"),
}
COLUMNS = ("window", "update_from", "update_to", "quantity", "unit", "estimate", "ci_lower",
           "ci_upper", "ci_prob", "status", "bootstrap_lower", "bootstrap_upper", "numerator",
           "denominator", "n_probes", "n_samples")
_SUMS = ("gbar_sq", "g_sq", "tr_sigma", "tr_between", "tr_within", "n_samples")
_RUN_COORDS = ("phase", "model", "dataset", "algorithm", "n_prompts", "n_rollouts",
               "total_batch", "learning_rate", "seed")


class _Window(NamedTuple):
    number: int
    probes: pd.DataFrame


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
    unknown = [name for name in by if name not in ("run", *_RUN_COORDS)]
    if unknown or not by:
        raise CBSDataError(f"cannot group by {unknown or 'nothing'}; valid: run, "
                           f"{', '.join(_RUN_COORDS)}")
    rows = []
    for key, group in probes.groupby(list(by), sort=True):
        for window in _windows(group, n_windows):
            for quantity in QUANTITIES:
                row = _row(window, quantity, ci_prob, random_seed)
                if row is not None:
                    rows.append({**dict(zip(by, key, strict=True)), **row})
    return pd.DataFrame(rows, columns=[*by, *COLUMNS])


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


def _windows(probes: pd.DataFrame, n_windows: int) -> Iterator[_Window]:
    """Cut the probed updates into windows of about equal numbers of updates."""
    updates = np.unique(probes["update"])
    for number, part in enumerate(np.array_split(updates, min(n_windows, updates.size)), 1):
        yield _Window(number, probes[probes["update"].between(part[0], part[-1])])


def _row(window: _Window, quantity: str, ci_prob: float, random_seed: int) -> dict[str, Any] | None:
    """Return a row of the table; None where the window has nothing of this quantity."""
    numerator, denominator, unit = QUANTITIES[quantity]
    held = window.probes.dropna(subset=[numerator, denominator])
    if held.empty:
        return None
    above, below = held[numerator].to_numpy(), held[denominator].to_numpy()
    ratio = ratio_of_means(above, below, ci_prob)
    check = bootstrap_interval(above, below, ci_prob, random_seed=random_seed)
    values = (window.number, window.probes["update"].min(), window.probes["update"].max(),
              quantity, unit, ratio.estimate, ratio.lower, ratio.upper, ci_prob, ratio.status,
              *check, above.mean(), below.mean(), len(held), held["n_samples"].mean())
    return dict(zip(COLUMNS, values, strict=True))


def rollout_scale(b_within: Any, n_rollouts: Any) -> Any:
    """Return B_within in the convention of the laws in 1/(G − 1), to lay beside ``B_rollout``.

    A group that normalises its own advantages has noise Σ_within/(G − 1) where independent
    rollouts would have Σ_within/G; measured at R rollouts, the two agree after a factor (R − 1)/R.

    Parameters
    ----------
    b_within : array_like
        Measured tr Σ_within / |G|², rollouts; or its numerator alone.
    n_rollouts : array_like
        Rollouts per prompt where it was measured.

    Returns
    -------
    array_like
        In the unit of `b_within`.
    """
    return b_within * (n_rollouts - 1) / n_rollouts
