r"""A ramp of batch sizes along training: fewer samples at hardly more updates than one batch.

S at successive targets says how many updates a batch b of B samples spends from each to the next.
If the accuracy reached is all that counts for what follows, and not which batch led to it, a ramp
spends on every stretch what its batch there would,

.. math:: U = \sum_k d_k(b_k), \quad E = \sum_k B_k d_k(b_k), \quad
          d_k(b) = S(b; t_k) - S(b; t_{k-1}), \quad S(b; t_0) = 0 .

Of all ramps whose batch never falls, the one of least expected samples is taken among those
expected to need at most a share more updates than one batch throughout. Updates and samples are
over those of that batch in the same draw. The ramp is one for all draws, as it is one for a user;
its updates and savings are read at every draw.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pandas as pd

from cbsbayes.decisions.batches import (
    POPULATION,
    batches_run,
    evenly,
    interval_columns,
    range_of,
    table_of_fit,
)
from cbsbayes.decisions.budget import batches_between
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit import Fit, fitted_threshold
from cbsbayes.posterior.learning_rate import best_rates
from cbsbayes.sweep.groups import varied_rates

__all__ = ["best_ramp", "schedule_table"]

_STRETCHES, _BATCHES = 8, 10  # at most: 24,310 ramps


def best_ramp(
    updates: np.ndarray, sizes: np.ndarray, reference: int, more: float
) -> tuple[np.ndarray, int]:
    """Return the ramp of least expected samples: which batch every stretch has, shape (stretch,).

    With it the one batch that takes the least expected samples under the same limit.

    Parameters
    ----------
    updates : numpy.ndarray
        Draws of the updates of every stretch at every batch, shape (sample, stretch, batch).
    sizes : numpy.ndarray
        Samples of an update, increasing, shape (batch,).
    reference : int
        Which batch is compared with.
    more : float
        Share of its updates that the ramp is expected to take more, at most.
    """
    of_reference = updates[:, :, reference].sum(axis=1)[:, None, None]
    expected = (updates / of_reference).mean(axis=0)
    stretches = np.arange(len(expected))
    ramps = np.array(list(combinations_with_replacement(range(len(sizes)), len(expected))))
    takes, samples = (values[stretches, ramps].sum(axis=1)
                      for values in (expected, expected * sizes))
    samples = np.where(takes <= 1.0 + more + 1e-9, samples, np.inf)
    constant = np.flatnonzero((ramps == ramps[:, :1]).all(axis=1))
    return ramps[samples.argmin()], int(ramps[constant[samples[constant].argmin()], 0])


def schedule_table(
    fit: Fit, reference: tuple[float, float], more: float, threshold: float | None = None
) -> pd.DataFrame:
    """Return the table of ``schedule.csv``.

    Parameters
    ----------
    fit : Fit
        The fit.
    reference : tuple of float
        n_prompts and n_rollouts of the batch to compare with; of one axis the total batch and 1.
        The ramp has its n_rollouts.
    more : float
        Share of its updates that the ramp may take more.
    threshold : float, optional
        The fitted target up to which training goes; the hardest unless given.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS` of ``schedule``, a row per batch of the ramp: from which accuracy (NaN at the
        start) to which it is used, at which learning rate (NaN where the law knows none), and its
        ``updates`` and ``samples`` there. Alike in all rows: ``more_updates`` and ``saved``, the
        shares by which the ramp takes more updates and fewer samples than ``constant_n_prompts``
        throughout, with ``expected_saved``, ``p_saves`` and ``p_within``, the probability that the
        limit is kept; and ``other_n_prompts``, the one batch that saves most under the limit,
        with ``other_saved``.

    Raises
    ------
    CBSDataError
        If the share is negative, fewer than two targets are fitted up to the threshold, or the
        batch to compare with may never reach them.
    """
    if not 0 <= more < np.inf:
        raise CBSDataError(f"--schedule is {100 * more:g}; valid: 0 and more, percent of updates")
    tried, prob = batches_run(fit.crossings), float(fit.settings["ci_prob"])
    last = fit.thresholds[-1] if threshold is None else fitted_threshold(fit, threshold)
    levels = fit.thresholds[:int(np.flatnonzero(fit.thresholds == last)[0]) + 1]
    if len(levels) < 2:
        raise CBSDataError("a schedule needs two fitted targets or more up to the one asked for; "
                           "give a harder --threshold, or fit more --thresholds")
    levels = evenly(levels, _STRETCHES)
    prompts = evenly(np.unique(batches_between(tried)[:, 0]), _BATCHES)
    batches = np.column_stack([prompts, np.full(len(prompts), reference[1])])
    inside = batches[range_of(batches, tried) != "extrapolated"]
    batches, rates, steps = _reaching(
        fit, np.unique(np.vstack([inside, reference]), axis=0), levels)
    found = np.flatnonzero((batches == reference).all(axis=1))
    if not found.size:
        raise CBSDataError(f"n_prompts {reference[0]:g}, n_rollouts {reference[1]:g} may never "
                           f"reach {last:g}, so that no schedule can be compared with it; give an "
                           "easier --threshold or another --batch")
    at, sizes = int(found[0]), batches.prod(axis=1)
    updates = np.diff(np.maximum.accumulate(steps, axis=1), axis=1, prepend=0.0)
    ramp, other = best_ramp(updates, sizes, at, more)
    whole = updates.sum(axis=1)  # of one batch throughout, (sample, batch)
    own = updates[:, np.arange(len(ramp)), ramp]  # of the ramp, (sample, stretch)
    samples, relative = (whole * sizes)[:, at], own.sum(axis=1) / whole[:, at]
    saved = 1.0 - own @ sizes[ramp] / samples
    rows = []
    for b in np.unique(ramp):
        here = np.flatnonzero(ramp == b)
        spent = own[:, here].sum(axis=1)
        rows.append({
            "n_prompts": batches[b, 0], "n_rollouts": batches[b, 1], "total_batch": sizes[b],
            "learning_rate": rates[b], "to_threshold": levels[here[-1]],
            "from_threshold": levels[here[0] - 1] if here[0] else np.nan,
            **interval_columns("updates", spent, prob),
            **interval_columns("samples", spent * sizes[b], prob)})
    return table_of_fit(
        fit, [pd.DataFrame(rows)], "schedule", applies_to=POPULATION, limit=more,
        constant_n_prompts=reference[0], constant_learning_rate=rates[at],
        **interval_columns("more_updates", relative - 1.0, prob),
        **interval_columns("saved", saved, prob), expected_saved=saved.mean(),
        p_saves=(saved > 0).mean(), p_within=(relative <= 1.0 + more).mean(),
        other_n_prompts=batches[other, 0],
        **interval_columns("other_saved", 1.0 - (whole * sizes)[:, other] / samples, prob))


def _reaching(
    fit: Fit, batches: np.ndarray, levels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the batches that reach all levels in every draw, their rates and S.

    A rate is the median best one, of those between the rates tried, NaN where the law knows none:
    one for all of a batch's updates, since S at several targets is that of one run. S has dims
    (sample, threshold, batch).
    """
    rates = np.full(len(batches), np.nan)
    if fit.law.learning_rate:
        tried = varied_rates(fit.crossings)
        best = [np.median(best_rates(fit, p, g, levels[-1])) for p, g in batches]
        rates = np.array([float(f"{rate:.2g}") for rate in np.clip(best, tried[0], tried[-1])])
    log_steps = fit.log_steps(*batches.T, learning_rate=rates if fit.law.learning_rate else None)
    steps = np.exp(log_steps.sel(threshold=levels).values)
    reach = np.isfinite(steps).all(axis=(0, 1))
    return batches[reach], rates[reach], steps[..., reach]
