"""Updates against samples: which batches are on the Pareto front, and how sure that is.

A larger batch saves updates and spends samples. Of the batches tried, one is on the front unless
another takes no more updates and no more samples; the share of draws in which that holds is its
probability. The curve beside them is the front that a choice made now can reach: one group size,
the tried one of least expected log S at a fixed batch, over n_prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.allocation import TYPICAL, log_steps_at, split_status
from cbsbayes.decisions.splits import place
from cbsbayes.posterior.quantities import Design, design_of
from cbsbayes.posterior.tidy import interval

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["FRONT_COLUMNS", "best_tried_group", "front_table", "on_front"]

FRONT_COLUMNS = ["group", "law", "threshold", "kind", "n_prompts", "n_rollouts", "total_batch",
                 "range", "applies_to", "steps", "steps_lower", "steps_upper", "samples",
                 "samples_lower", "samples_upper", "ci_prob", "p_on_front"]
_BEYOND = 1.0  # doublings past the largest total tried to which the curve goes
_PER_DOUBLING = 4
_NEVER = 1e3  # log updates beyond any


def on_front(log_steps: np.ndarray, total_batch: np.ndarray) -> np.ndarray:
    """Return the probability of every batch to be on the front of all of them.

    Parameters
    ----------
    log_steps : numpy.ndarray
        Draws of log S, shape (sample, batch); what never arrives is not on the front.
    total_batch : numpy.ndarray
        Samples of one update, shape (batch,).

    Returns
    -------
    numpy.ndarray
        Shape (batch,).
    """
    beaten = np.isinf(log_steps)
    log_steps = np.where(beaten, _NEVER, log_steps)
    log_samples = log_steps + np.log(total_batch)
    for j in range(log_steps.shape[1]):
        steps, samples = log_steps[:, [j]] - log_steps, log_samples[:, [j]] - log_samples
        beaten |= (steps <= 0) & (samples <= 0) & ((steps < 0) | (samples < 0))
    return 1.0 - beaten.mean(axis=0)


def best_tried_group(fit: Fit, threshold: float) -> int:
    """Return the group size tried with least expected log S at the middle total batch tried."""
    tried = design_of(fit.crossings)
    groups = sorted({g for _, g in tried.cells})
    middle = float(np.exp(np.mean(np.log(tried.total))))
    expected = log_steps_at(fit, middle / np.array(groups), groups, threshold).mean(axis=0)
    return groups[int(expected.argmin())]


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
        the total batch where there is one axis). ``steps`` (updates) and ``samples`` are of a
        typical run, medians and intervals. Where the runs do not settle which group size is best,
        the curve is at the group size of most runs.
    """
    tried = design_of(fit.crossings)
    rows = []
    for threshold in thresholds:
        cells = ([(b, 1) for b in tried.total] if tried.one_axis else list(tried.cells))
        rows += _rows(fit, threshold, "tried", cells, tried)
        rows += _rows(fit, threshold, "curve", _curve(fit, threshold, tried), tried)
    return pd.DataFrame(rows, columns=FRONT_COLUMNS)


def _curve(fit: Fit, threshold: float, tried: Design) -> list[tuple[float, int]]:
    group = 1
    if not tried.one_axis:
        settled = fit.law.two_axis and split_status(fit, threshold) != "not_identified"
        usual = int(fit.crossings["n_rollouts"].to_series().mode().max())
        group = best_tried_group(fit, threshold) if settled else usual
    first, last = np.log2(np.array([tried.total[0], tried.total[-1]]) / group)
    grid = 2.0 ** np.arange(np.floor(first), last + _BEYOND + 1e-9, 1 / _PER_DOUBLING)
    sizes = grid if tried.one_axis else np.unique(np.round(grid[grid >= 1]))
    return [(float(size), group) for size in sizes]


def _rows(
    fit: Fit, threshold: float, kind: str, cells: Sequence[tuple[float, int]],
    tried: Design,
) -> list[dict[str, Any]]:
    prompts, rollouts = (np.array(axis, dtype=float) for axis in zip(*cells, strict=True))
    log_steps, total = log_steps_at(fit, prompts, rollouts, threshold), prompts * rollouts
    known = kind == "tried"
    p_front = on_front(log_steps, total) if known else np.full(len(total), np.nan)
    prob = float(fit.settings["ci_prob"])
    rows = []
    for k, (p, g) in enumerate(cells):
        steps = np.exp(log_steps[:, k])
        lower, upper = interval(steps, prob)
        middle = float(np.median(steps))
        axes = {} if tried.one_axis else {"n_prompts": int(p), "n_rollouts": g}
        rows.append({
            "group": fit.group, "law": fit.law.name, "threshold": threshold, "kind": kind,
            **axes, "total_batch": total[k], "range": place(p, g, tried), "applies_to": TYPICAL,
            "steps": middle, "steps_lower": lower, "steps_upper": upper,
            "samples": total[k] * middle, "samples_lower": total[k] * lower,
            "samples_upper": total[k] * upper, "ci_prob": prob, "p_on_front": p_front[k]})
    return rows
