r"""Which batch meets a target number of updates or of samples, with a stated probability.

Along prompts at every group size tried, and along rollouts at every n_prompts tried:

updates
    S falls with the batch. Looked for is the smallest batch with :math:`P(S \le U) \ge p`, or that
    none has: S never falls below its limit along the axis.
samples
    E = B·S rises with the batch, or falls and then rises. Looked for are the smallest and the
    largest batch with :math:`P(E \le E_0) \ge p`; between the two the target is met, and the
    largest takes the fewest updates.

Both for the population of runs, and for one new run, which has its own effect and residual.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.batches import (
    NEW_RUN,
    POPULATION,
    interval_columns,
    log_steps_at,
    range_of,
    tried_batches,
)
from cbsbayes.decisions.splits import split_status
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.quantities import design_of

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["TARGET_COLUMNS", "Target", "check_target", "target_table"]

TARGET_COLUMNS = ["group", "law", "threshold", "target", "value", "probability", "applies_to",
                  "along", "at", "met", "end", "n_prompts", "n_rollouts", "total_batch", "range",
                  "p_met", "p_most", "steps", "steps_lower", "steps_upper", "ci_prob"]
_GRID = np.unique(np.round(2.0 ** np.arange(0.0, 24.5, 0.5)).astype(int))


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
    """

    kind: str
    value: float
    probability: float = 0.9


def check_target(
    updates: float | None, samples: float | None, probability: float
) -> Target | None:
    """Return the target; None where there is none.

    Raises
    ------
    CBSDataError
        If there are two, or a number is not valid.
    """
    if not 0.5 <= probability < 1:
        raise CBSDataError(f"--probability is {probability:g}; valid: from 0.5 to below 1, usually "
                           "0.9")
    if updates is not None and samples is not None:
        raise CBSDataError("--target-updates and --target-samples were both given; valid: one")
    for kind, value in (("updates", updates), ("samples", samples)):
        if value is not None:
            if not (np.isfinite(value) and value > 0):
                raise CBSDataError(f"--target-{kind} is {value:g}; valid: positive and finite")
            return Target(kind, value, probability)
    return None


@dataclass(frozen=True)
class _Line:
    """Batches along one axis, the other held; along the total batch nothing is."""

    along: str
    held: int
    least: int = 1

    @property
    def at(self) -> str:
        """What is held, as in ``cbs.csv``."""
        other = {"n_prompts": "n_rollouts", "n_rollouts": "n_prompts"}.get(self.along)
        return f"{other}={self.held}" if other else ""

    def batches(self, sizes: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return n_prompts and n_rollouts at sizes along the line, shape (batch, 2)."""
        moved = np.asarray(sizes, dtype=float)
        pair = [moved, np.full_like(moved, self.held)]
        return np.column_stack(pair[::-1] if self.along == "n_rollouts" else pair)


def _lines(fit: Fit, threshold: float) -> list[_Line]:
    """Return the lines to look along; unless both scales are known, those that were run."""
    design = design_of(fit.crossings)
    if design.one_axis:
        return [_Line("total_batch", 1)]
    settled = fit.law.two_axis and split_status(fit, threshold) != "not_identified"
    groups = {cell[1] for cell in design.cells} if settled else set(design.prompts_at)
    prompts = {cell[0] for cell in design.cells} if settled else set(design.rollouts_at)
    # a group of one is another estimator
    least = 2 if fit.law.group_baseline and 1 not in groups else 1
    return [*(_Line("n_prompts", g) for g in sorted(groups)),
            *(_Line("n_rollouts", n, least) for n in sorted(prompts))]


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
        Columns `TARGET_COLUMNS`, a row per threshold, line, ``applies_to`` and end. ``target,
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
    table = pd.DataFrame(rows, columns=TARGET_COLUMNS)
    return table.assign(group=fit.group, law=fit.law.name, target=target.kind, value=target.value,
                        probability=target.probability, ci_prob=fit.settings["ci_prob"])


def p_met(
    fit: Fit, target: Target, threshold: float, batches: np.ndarray, applies_to: str
) -> np.ndarray:
    """Return the probability that batches, shape (batch, 2), meet the target, shape (batch,)."""
    limit = np.full(len(batches), np.log(target.value))
    if target.kind == "samples":
        limit -= np.log(batches.prod(axis=1))
    if applies_to == POPULATION:
        return (log_steps_at(fit, batches, threshold) <= limit).mean(axis=0)
    n = fit.crossings.sizes["run"]  # so often, and every replicate is taken once
    prompts, rollouts = np.repeat(batches, n, axis=0).T
    log_steps = fit.new_run(prompts, rollouts, threshold).values
    met = log_steps <= np.repeat(limit, n)
    return met.reshape(len(met), -1, n).mean(axis=(0, 2))


def _ends(
    fit: Fit, target: Target, threshold: float, line: _Line, applies_to: str
) -> Iterator[dict[str, Any]]:
    """Yield the ends of the batches along a line that meet the target."""
    def chance(sizes: Sequence[float] | np.ndarray) -> np.ndarray:
        return p_met(fit, target, threshold, line.batches(sizes), applies_to)

    grid = _GRID[line.least <= _GRID]
    limit = [np.inf] if target.kind == "updates" else []  # S falls towards it
    on_grid = chance([*grid, *limit])
    good = np.flatnonzero(on_grid[:len(grid)] >= target.probability)
    shared = {"threshold": threshold, "along": line.along, "at": line.at, "applies_to": applies_to,
              "met": bool(good.size), "p_most": float(on_grid.max()), "end": "smallest"}
    if not good.size:
        yield shared
        return
    ends = {"smallest": (good[0], -1)} | (
        {"largest": (good[-1], 1)} if target.kind == "samples" else {})
    for end, (k, step) in ends.items():
        size, beyond = int(grid[k]), k + step
        if 0 <= beyond < len(grid):
            bad = int(grid[beyond])
            while abs(size - bad) > 1:
                middle = (size + bad) // 2
                enough = chance([middle])[0] >= target.probability
                size, bad = (middle, bad) if enough else (size, middle)
        yield shared | {"end": end, "p_met": float(chance([size])[0]),
                        **_batch(fit, threshold, line.batches([size]))}


def _batch(fit: Fit, threshold: float, batch: np.ndarray) -> dict[str, Any]:
    """Return the columns of one batch, shape (1, 2)."""
    steps = np.exp(log_steps_at(fit, batch, threshold)[:, 0])
    tried, (prompts, rollouts) = tried_batches(fit.crossings), batch[0].astype(int).tolist()
    axes = {} if (tried[:, 1] == 1).all() else {"n_prompts": prompts, "n_rollouts": rollouts}
    return axes | {"total_batch": prompts * rollouts, "range": str(range_of(batch, tried)[0]),
                   **interval_columns("steps", steps, fit.settings["ci_prob"])}
