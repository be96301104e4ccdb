r"""Updates against samples: batches on the Pareto front, and batches that meet a target number.

A larger batch saves updates and spends samples. Of the batches tried, one is on the front unless
another takes no more updates and no more samples; the share of draws in which that holds is its
probability. The curve beside them is the front that a choice made now can reach: one group size,
the tried one of least expected log S at a fixed batch, over n_prompts.

Targets are looked for along prompts at every group size tried, and along rollouts at every
n_prompts tried, for the population of runs and for one new run:

updates
    S falls with the batch. Looked for is the smallest batch with :math:`P(S \le U) \ge p`, or that
    none has: S never falls below its limit along the axis.
samples
    E = B·S rises with the batch, or falls and then rises. Looked for are the smallest and the
    largest batch with :math:`P(E \le E_0) \ge p`; between the two the target is met, and the
    largest takes the fewest updates.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.batches import (
    NEW_RUN,
    POPULATION,
    Line,
    batches_run,
    interval_columns,
    positive,
    range_of,
    table_of_fit,
)
from cbsbayes.decisions.splits import split_status
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.quantities import design_of

__all__ = ["Target", "best_tried_group", "front_table",
           "on_front", "target_table"]

_BEYOND = 1.0  # doublings past the largest total tried to which the curve goes
_PER_DOUBLING = 4
_UNREACHED = 1e3  # log updates beyond any
_GRID = np.unique(np.round(2.0 ** np.arange(0.0, 24.5, 0.5)).astype(int))


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
    groups = np.unique([g for _, g in design.batches])
    middle = np.exp(np.log(design.total).mean())
    log_steps = fit.log_steps(middle / groups, groups, threshold)
    return int(groups[int(log_steps.mean("sample").argmin("batch"))])


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
        `COLUMNS` of ``front``: rows of kind ``tried`` (every batch run, with its probability to
        be on the front of those) and ``curve`` (over n_prompts at the best tried group size; of
        the total batch where there is one axis). ``steps`` (updates) and ``samples`` are of the
        population, medians and intervals. Where the runs do not settle which group size is best,
        the curve is at the group size of most runs.
    """
    tried, prob = batches_run(fit.crossings), float(fit.settings["ci_prob"])
    tables = []
    for threshold in thresholds:
        for kind, batches in (("tried", tried), ("curve", _curve(fit, threshold, tried))):
            log_steps = fit.log_steps(batches[:, 0], batches[:, 1], threshold).values
            total = batches.prod(axis=1)
            steps = np.exp(log_steps)
            tables.append(pd.DataFrame({
                "threshold": threshold, "kind": kind, "n_prompts": batches[:, 0],
                "n_rollouts": batches[:, 1], "total_batch": total,
                "range": range_of(batches, tried), **interval_columns("steps", steps, prob),
                **interval_columns("samples", total * steps, prob),
                "p_on_front": on_front(log_steps, total) if kind == "tried" else np.nan}))
    table = table_of_fit(fit, tables, "front", applies_to=POPULATION)
    axes = ["n_prompts", "n_rollouts"]
    table[axes] = np.nan if design_of(fit.crossings).one_axis else table[axes].astype(int)
    return table


def _settled(fit: Fit, threshold: float) -> bool:
    """Return whether both noise scales are known, so that any line may be looked along."""
    return fit.law.two_axis and split_status(fit, threshold) != "not_identified"


def _curve(fit: Fit, threshold: float, tried: np.ndarray) -> np.ndarray:
    """Return batches along n_prompts at one group size, shape (batch, 2)."""
    one_axis, group = design_of(fit.crossings).one_axis, 1
    if not one_axis:
        usual = int(fit.crossings["n_rollouts"].to_series().mode().max())
        group = best_tried_group(fit, threshold) if _settled(fit, threshold) else usual
    total = tried.prod(axis=1)
    first, last = np.log2(np.array([total.min(), total.max()]) / group)
    sizes = 2.0 ** np.arange(np.floor(first), last + _BEYOND + 1e-9, 1 / _PER_DOUBLING)
    sizes = sizes if one_axis else np.unique(np.round(sizes[sizes >= 1]))
    return np.column_stack([sizes, np.full(len(sizes), float(group))])


@dataclass(frozen=True)
class Target:
    """What is to be met.

    Attributes
    ----------
    kind : {"updates", "samples"}
        What is counted.
    value : float
        At most so many until the threshold is reached.
    probability : float
        With which it is to be met.

    Raises
    ------
    CBSDataError
        If a number is not valid.
    """

    kind: str
    value: float
    probability: float = 0.9

    def __post_init__(self) -> None:
        """Refuse what cannot be met."""
        positive(f"--target-{self.kind}", self.value)
        if not 0.5 <= self.probability < 1:
            raise CBSDataError(f"--probability is {self.probability:g}; valid: from 0.5 to below "
                               "1, usually 0.9")


def _lines(fit: Fit, threshold: float) -> list[Line]:
    """Return the lines to look along; unless both scales are known, those that were run."""
    design = design_of(fit.crossings)
    if design.one_axis:
        return [Line("total", least=1)]
    groups, prompts = set(design.prompts_at), set(design.rollouts_at)
    if _settled(fit, threshold):
        prompts, groups = (set(axis) for axis in zip(*design.batches, strict=True))
    # a group of one is another estimator
    least = 2 if fit.law.group_baseline and 1 not in groups else 1
    return [*(Line("prompts", g, 1) for g in sorted(groups)),
            *(Line("rollouts", n, least) for n in sorted(prompts))]


def target_table(fit: Fit, target: Target, thresholds: Sequence[float]) -> pd.DataFrame:
    """Return the table of ``targets.csv``.

    Parameters
    ----------
    fit : Fit
        The fit.
    target : Target
        What is to be met.
    thresholds : sequence of float
        Target accuracies, each fitted.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS` of ``targets``, a row per threshold, line, ``applies_to`` and end. ``target,
        value, probability`` are what was asked; ``along`` is the axis that moves and ``at`` what is
        held; ``end`` the smallest or the largest batch; ``n_prompts, n_rollouts, total_batch,
        range`` the batch. ``p_met`` is the probability there, ``p_most`` the largest that any batch
        along the line has; where the target cannot be met with the probability asked for, ``met``
        is False and the batch is NaN. ``steps, steps_lower, steps_upper`` are median and interval
        of S in the population.
    """
    rows = [row for threshold in thresholds for line in _lines(fit, threshold)
            for applies_to in (POPULATION, NEW_RUN)
            for row in _ends(fit, target, threshold, line, applies_to)]
    return table_of_fit(fit, [pd.DataFrame(rows)], "targets", target=target.kind,
                        value=target.value, probability=target.probability)


def _p_met(
    fit: Fit, target: Target, threshold: float, batches: np.ndarray, applies_to: str
) -> np.ndarray:
    """Return the probability that batches, shape (batch, 2), meet the target, shape (batch,)."""
    limit = np.full(len(batches), np.log(target.value))
    if target.kind == "samples":
        limit -= np.log(batches.prod(axis=1))
    if applies_to == POPULATION:
        return (fit.log_steps(batches[:, 0], batches[:, 1], threshold).values <= limit).mean(axis=0)
    n = fit.crossings.sizes["run"]  # so often, and every replicate is taken once
    prompts, rollouts = np.repeat(batches, n, axis=0).T
    log_steps = fit.new_run(prompts, rollouts, threshold).values
    met = log_steps <= np.repeat(limit, n)
    return met.reshape(len(met), -1, n).mean(axis=(0, 2))


def _ends(
    fit: Fit, target: Target, threshold: float, line: Line, applies_to: str
) -> Iterator[dict[str, Any]]:
    """Yield the ends of the batches along a line that meet the target."""
    def chance(sizes: Sequence[float] | np.ndarray) -> np.ndarray:
        return _p_met(fit, target, threshold, line.batches(sizes), applies_to)

    grid = _GRID[line.least <= _GRID]
    limit = [np.inf] if target.kind == "updates" else []  # S falls towards it
    on_grid = chance([*grid, *limit])
    good = np.flatnonzero(on_grid[:len(grid)] >= target.probability)
    shared = {"threshold": threshold, "along": line.column, "at": line.at, "applies_to": applies_to,
              "met": bool(good.size), "p_most": float(on_grid.max()), "end": "smallest"}
    if not good.size:
        yield shared
        return
    ends = {"smallest": (good[0], -1)}
    if target.kind == "samples":
        ends["largest"] = (good[-1], 1)
    for end, (k, step) in ends.items():
        size = int(grid[k])
        bad = int(grid[k + step]) if 0 <= k + step < len(grid) else size + step
        sizes = range(bad - step, size - step, -step)  # up to one that meets it
        size = sizes[bisect_left(sizes, target.probability, hi=len(sizes) - 1,
                                 key=lambda size: chance([size])[0])]
        yield shared | {"end": end, "p_met": float(chance([size])[0]),
                        **_batch(fit, threshold, line.batches([size]))}


def _batch(fit: Fit, threshold: float, batch: np.ndarray) -> dict[str, Any]:
    """Return the columns of one batch, shape (1, 2)."""
    steps = np.exp(fit.log_steps(batch[0, 0], batch[0, 1], threshold).values[:, 0])
    tried, (prompts, rollouts) = batches_run(fit.crossings), batch[0].astype(int).tolist()
    axes = {} if (tried[:, 1] == 1).all() else {"n_prompts": prompts, "n_rollouts": rollouts}
    return axes | {"total_batch": prompts * rollouts, "range": str(range_of(batch, tried)[0]),
                   **interval_columns("steps", steps, fit.settings["ci_prob"])}
