r"""Which batch meets a target number of updates or of samples, with a stated probability.

Along prompts at every group size tried, and along rollouts at every n_prompts tried:

updates
    S falls with the batch. Told is the smallest batch with :math:`P(S \le U) \ge p`, or that none
    has: S never falls below its limit along the axis.
samples
    E = B·S rises with the batch, or falls and then rises. Told are the smallest and the largest
    batch with :math:`P(E \le E_0) \ge p`; between the two the target is met, and the largest
    takes the fewest updates.

Both for a typical run, and for one new run, which has its own effect and what is left over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cbsbayes.decisions.allocation import TYPICAL, split_status
from cbsbayes.decisions.splits import place
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.quantities import Design, design_of
from cbsbayes.posterior.tidy import interval

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["NEW_RUN", "TARGET_COLUMNS", "Target", "check_target", "target_table"]

NEW_RUN = "one new run"
TARGET_COLUMNS = ["group", "law", "threshold", "target", "value", "probability", "applies_to",
                  "along", "at", "met", "end", "n_prompts", "n_rollouts", "total_batch", "range",
                  "p_met", "p_most", "steps", "steps_lower", "steps_upper", "ci_prob"]
_GRID = np.unique(np.round(2.0 ** np.arange(0.0, 24.5, 0.5)).astype(int))
_ENDLESS = 1e15


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

    def batches(self, sizes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return n_prompts and n_rollouts at sizes along the line."""
        moved = np.asarray(sizes, dtype=float)
        held = np.full_like(moved, self.held)
        return (held, moved) if self.along == "n_rollouts" else (moved, held)


def _lines(fit: Fit, tried: Design, threshold: float) -> list[_Line]:
    """Return the lines to look along; unless both scales are known, those that were run."""
    if tried.one_axis:
        return [_Line("total_batch", 1)]
    settled = fit.law.two_axis and split_status(fit, threshold) != "not_identified"
    groups = {cell[1] for cell in tried.cells} if settled else set(tried.prompts_at)
    prompts = {cell[0] for cell in tried.cells} if settled else set(tried.rollouts_at)
    least = 1 if fit.law.plain or 1 in groups else 2  # a group of one is another estimator
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
        Columns `TARGET_COLUMNS`, a row per threshold, line, kind of run and end. ``target, value,
        probability`` are what was asked; ``applies_to`` a typical run or one new run; ``along``
        the axis that moves and ``at`` what is held; ``end`` the smallest or the largest batch;
        ``n_prompts, n_rollouts, total_batch, range`` the batch. ``p_met`` is the probability at
        the batch told, ``p_most`` the largest that any batch along the line has; where the target
        cannot be met with the probability asked for, ``met`` is False and the batch is NaN.
        ``steps, steps_lower, steps_upper`` are median and interval of S for a typical run there.
    """
    tried = design_of(fit.crossings)
    rows = []
    for threshold in thresholds:
        meets = _Meets(fit, target, threshold)
        for line in _lines(fit, tried, threshold):
            for who in (TYPICAL, NEW_RUN):
                rows += [_row(fit, target, threshold, line, who, found, tried, meets)
                         for found in _ends(meets, line, who, target)]
    return pd.DataFrame(rows, columns=TARGET_COLUMNS)


class _Meets:
    """Probability that a batch meets the target at one threshold."""

    def __init__(self, fit: Fit, target: Target, threshold: float) -> None:
        self.fit, self.target, self.threshold = fit, target, threshold

    def probability(self, batches: tuple[np.ndarray, np.ndarray], who: str) -> np.ndarray:
        """Return P(met) at batches, shape (batch,)."""
        limit = np.full(len(batches[0]), np.log(self.target.value))
        if self.target.kind == "samples":
            limit = limit - np.log(batches[0] * batches[1])
        if who == TYPICAL:
            return (self.log_steps(batches) <= limit).mean(axis=0)
        n = self.fit.crossings.sizes["run"]  # so often, and every replicate is taken once
        prompts, rollouts = (np.repeat(axis, n) for axis in batches)
        runs = self.fit.new_run(prompts, rollouts, self.threshold)
        met = runs.values <= np.repeat(limit, n)
        return met.reshape(len(met), -1, n).mean(axis=(0, 2))

    def log_steps(self, batches: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Return log S of a typical run, shape (sample, batch)."""
        return np.asarray(self.fit.log_steps(*batches, self.threshold).values)


@dataclass(frozen=True)
class _Found:
    """An end of the batches that meet the target: which, its size, and the most probable."""

    end: str
    size: int | None
    p_most: float


def _ends(meets: _Meets, line: _Line, who: str, target: Target) -> list[_Found]:
    grid = _GRID[line.least <= _GRID]
    at = meets.probability(line.batches(grid), who)
    good = np.flatnonzero(at >= target.probability)
    if target.kind == "updates":
        limit = meets.probability(line.batches([_ENDLESS]), who)
        most = float(max(at.max(), limit[0]))
    else:
        most = float(at.max())
    if not good.size:
        return [_Found("smallest", None, most)]

    def enough(size: int) -> bool:
        one = line.batches([size])
        return bool(meets.probability(one, who)[0] >= target.probability)

    first, last = good[0], good[-1]
    smallest = int(grid[first]) if first == 0 else _edge(grid[first], grid[first - 1], enough)
    ends = [_Found("smallest", smallest, most)]
    if target.kind == "samples":
        largest = int(grid[last]) if last + 1 == len(grid) else _edge(grid[last], grid[last + 1],
                                                                       enough)
        ends.append(_Found("largest", largest, most))
    return ends


def _edge(good: int, bad: int, enough: Callable[[int], bool]) -> int:
    """Return the whole number nearest to `bad` that is still good, by bisection."""
    good, bad = int(good), int(bad)
    while abs(good - bad) > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if enough(middle) else (good, middle)
    return good


def _row(
    fit: Fit, target: Target, threshold: float, line: _Line, who: str, found: _Found,
    tried: Design, meets: _Meets,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "group": fit.group, "law": fit.law.name, "threshold": threshold, "target": target.kind,
        "value": target.value, "probability": target.probability, "applies_to": who,
        "along": line.along, "at": line.at, "met": found.size is not None, "end": found.end,
        "p_most": found.p_most, "ci_prob": fit.settings["ci_prob"]}
    if found.size is None:
        return row
    batches = line.batches([found.size])
    prompts, rollouts = (int(axis[0]) for axis in batches)
    steps = np.exp(meets.log_steps(batches)[:, 0])
    lower, upper = interval(steps, fit.settings["ci_prob"])
    axes = {} if tried.one_axis else {"n_prompts": prompts, "n_rollouts": rollouts}
    return row | axes | {
        "total_batch": prompts * rollouts, "range": place(prompts, rollouts, tried),
        "p_met": float(meets.probability(batches, who)[0]), "steps": float(np.median(steps)),
        "steps_lower": lower, "steps_upper": upper}
