"""Updates against samples: which batches are on the Pareto front, and how sure that is.

A larger batch saves updates and spends samples. Of the batches tried, one is on the front unless
another takes no more updates and no more samples; the share of draws in which that holds is its
probability. The curve beside them is the front that a choice made now can reach: one group size,
the tried one of least expected log S at a fixed batch, over n_prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cbsbayes.decisions.batches import (
    POPULATION,
    interval_columns,
    log_steps_at,
    range_of,
    tried_batches,
)
from cbsbayes.decisions.splits import split_status
from cbsbayes.posterior.quantities import design_of

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["FRONT_COLUMNS", "best_tried_group", "front_table", "on_front"]

FRONT_COLUMNS = ["group", "law", "threshold", "kind", "n_prompts", "n_rollouts", "total_batch",
                 "range", "applies_to", "steps", "steps_lower", "steps_upper", "samples",
                 "samples_lower", "samples_upper", "ci_prob", "p_on_front"]
_BEYOND = 1.0  # doublings past the largest total tried to which the curve goes
_PER_DOUBLING = 4
_UNREACHED = 1e3  # log updates beyond any


def on_front(log_steps: np.ndarray, total_batch: np.ndarray) -> np.ndarray:
    """Return the probability of every batch to be on the front of all of them, shape (batch,).

    Parameters
    ----------
    log_steps : numpy.ndarray
        Draws of log S, shape (sample, batch); what never arrives is not on the front.
    total_batch : numpy.ndarray
        Samples of one update, shape (batch,).
    """
    beaten = np.isinf(log_steps)
    log_steps = np.where(beaten, _UNREACHED, log_steps)
    log_samples = log_steps + np.log(total_batch)
    for j in range(log_steps.shape[1]):
        steps, samples = log_steps[:, [j]] - log_steps, log_samples[:, [j]] - log_samples
        beaten |= (steps <= 0) & (samples <= 0) & ((steps < 0) | (samples < 0))
    return 1.0 - beaten.mean(axis=0)


def best_tried_group(fit: Fit, threshold: float) -> int:
    """Return the group size tried with least expected log S at the middle total batch tried."""
    design = design_of(fit.crossings)
    groups = np.unique([g for _, g in design.cells])
    middle = np.exp(np.log(design.total).mean())
    batches = np.column_stack([middle / groups, groups])
    return int(groups[log_steps_at(fit, batches, threshold).mean(axis=0).argmin()])


def front_table(fit: Fit, thresholds: Sequence[float]) -> pd.DataFrame:
    """Return the table of ``front.csv``.

    Parameters
    ----------
    fit : Fit
        The fit.
    thresholds : sequence of float
        Targets, each fitted.

    Returns
    -------
    pandas.DataFrame
        Columns `FRONT_COLUMNS`: rows of kind ``tried`` (every batch run, with its probability to
        be on the front of those) and ``curve`` (over n_prompts at the best tried group size; of
        the total batch where there is one axis). ``steps`` (updates) and ``samples`` are of the
        population, medians and intervals. Where the runs do not settle which group size is best,
        the curve is at the group size of most runs.
    """
    tried = tried_batches(fit.crossings)
    tables = []
    for threshold in thresholds:
        front = _table(fit, threshold, tried, tried)
        front["p_on_front"] = on_front(log_steps_at(fit, tried, threshold), tried.prod(axis=1))
        curve = _table(fit, threshold, _curve(fit, threshold, tried), tried)
        tables += [front.assign(kind="tried"), curve.assign(kind="curve", p_on_front=np.nan)]
    table = pd.concat(tables, ignore_index=True).assign(
        group=fit.group, law=fit.law.name, applies_to=POPULATION, ci_prob=fit.settings["ci_prob"])
    axes = ["n_prompts", "n_rollouts"]
    table[axes] = np.nan if design_of(fit.crossings).one_axis else table[axes].astype(int)
    return table[FRONT_COLUMNS]


def _table(fit: Fit, threshold: float, batches: np.ndarray, tried: np.ndarray) -> pd.DataFrame:
    steps = np.exp(log_steps_at(fit, batches, threshold))
    total, prob = batches.prod(axis=1), float(fit.settings["ci_prob"])
    return pd.DataFrame({
        "threshold": threshold, "n_prompts": batches[:, 0], "n_rollouts": batches[:, 1],
        "total_batch": total, "range": range_of(batches, tried),
        **interval_columns("steps", steps, prob), **interval_columns("samples", total * steps,
                                                                     prob)})


def _curve(fit: Fit, threshold: float, tried: np.ndarray) -> np.ndarray:
    """Return batches along n_prompts at one group size, shape (batch, 2)."""
    one_axis, group = design_of(fit.crossings).one_axis, 1
    if not one_axis:
        settled = fit.law.two_axis and split_status(fit, threshold) != "not_identified"
        usual = int(fit.crossings["n_rollouts"].to_series().mode().max())
        group = best_tried_group(fit, threshold) if settled else usual
    total = tried.prod(axis=1)
    first, last = np.log2(np.array([total.min(), total.max()]) / group)
    sizes = 2.0 ** np.arange(np.floor(first), last + _BEYOND + 1e-9, 1 / _PER_DOUBLING)
    sizes = sizes if one_axis else np.unique(np.round(sizes[sizes >= 1]))
    return np.column_stack([sizes, np.full(len(sizes), float(group))])
