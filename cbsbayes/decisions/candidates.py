"""Runs that could be next: batch, length in updates, seed, price; and where the fit is stretched.

By default the batches are all pairs of the n_prompts and n_rollouts tried whose total batch is
inside the range tried, and a run lasts until nine of ten new runs are past the target, or past the
middle threshold, whichever the fit says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from cbsbayes.decisions.costs import Cost
from cbsbayes.decisions.simulated_runs import ModelDraws, new_log_steps
from cbsbayes.errors import CBSDataError

__all__ = ["Candidate", "TriedRuns", "candidates", "cells", "lengths", "tried_runs"]

_OWN = 2**16  # of a seed: not those of the simulated data
_MOST_TIMES = 10.0  # the longest run tried: a fit says little of S far beyond


@dataclass(frozen=True)
class TriedRuns:
    """What was run already.

    Attributes
    ----------
    cells : tuple
        (n_prompts, n_rollouts) of every run; of one axis (total batch, 1).
    seeds : tuple of int
        Of every run.
    one_axis : bool
        Whether runs state a total batch only.
    every : float
        Updates between evaluations, the middle one.
    longest : float
        Updates of the longest run.
    """

    cells: tuple[tuple[float, float], ...]
    seeds: tuple[int, ...]
    one_axis: bool
    every: float
    longest: float

    def count(self, n_prompts: float, n_rollouts: float) -> int:
        """Return how many runs a batch has."""
        return sum(cell == (n_prompts, n_rollouts) for cell in self.cells)

    def next_seed(self, n_prompts: float, n_rollouts: float) -> int:
        """Return the lowest seed of the sweep that a batch has not been run with, or a new one."""
        used = {seed for cell, seed in zip(self.cells, self.seeds, strict=True)
                if cell == (n_prompts, n_rollouts)}
        known = sorted({seed for seed in self.seeds if seed >= 0})
        return next((seed for seed in known if seed not in used), max([0, *known]) + 1)

    def outside(self, n_prompts: float, n_rollouts: float) -> bool:
        """Return whether a batch lies outside the ranges tried: prompts, rollouts or samples."""
        tried = np.array(self.cells)
        batch = np.array([n_prompts, n_rollouts, n_prompts * n_rollouts])
        all_tried = np.column_stack([tried, tried.prod(axis=1)])
        return bool((batch < all_tried.min(axis=0)).any() or (batch > all_tried.max(axis=0)).any())


@dataclass(frozen=True)
class Candidate:
    """One run that could be next.

    Attributes
    ----------
    n_prompts, n_rollouts : float
        The batch; of one axis the total batch and 1.
    updates : float
        How long it lasts.
    seed : int
        A seed that the batch has not been run with.
    cost : float
        In the unit of the plan.
    tried : int
        Runs of this batch so far.
    extrapolated : bool
        Whether the batch is outside the ranges tried.
    reach : float
        Probability that one new run passes the target's threshold by then.
    """

    n_prompts: float
    n_rollouts: float
    updates: float
    seed: int
    cost: float
    tried: int
    extrapolated: bool
    reach: float


def tried_runs(sweep: xr.Dataset, fitted: xr.Dataset) -> TriedRuns:
    """Return what the runs of a sweep that were fitted are.

    Parameters
    ----------
    sweep : xarray.Dataset
        The sweep, curves or crossings.
    fitted : xarray.Dataset
        The runs that entered the fit, with their coordinates.
    """
    one_axis = bool((fitted["n_prompts"].values < 0).any())
    prompts = fitted["total_batch" if one_axis else "n_prompts"].values.astype(float)
    rollouts = np.ones(len(prompts)) if one_axis else fitted["n_rollouts"].values.astype(float)
    pairs = tuple(zip(prompts.tolist(), rollouts.tolist(), strict=True))
    seeds = (fitted["seed"].values if "seed" in fitted.coords else np.full(len(pairs), -1))
    ends = [fitted["lower"].values.ravel(), fitted["upper"].values.ravel()]
    ends += [sweep["last_step"].values] if "last_step" in sweep else []
    updates = np.concatenate(ends)
    return TriedRuns(pairs, tuple(int(seed) for seed in seeds), one_axis, _every(sweep, fitted),
                     float(updates[np.isfinite(updates)].max()))


def _every(sweep: xr.Dataset, fitted: xr.Dataset) -> float:
    """Return the middle distance of evaluations, of a table of crossings of their bounds."""
    if "accuracy" in sweep:
        step = sweep["step"].values
        there = ~np.isnan(sweep["accuracy"].transpose("run", "metric", "step").values).all(axis=1)
        gaps = np.concatenate([np.diff(step[row]) for row in there] or [np.array([])])
    else:
        gaps = (fitted["upper"] - fitted["lower"]).values.ravel()
    gaps = gaps[np.isfinite(gaps) & (gaps > 0)]
    return float(np.median(gaps)) if gaps.size else 1.0


def cells(
    tried: TriedRuns, prompts: Sequence[float] | None, rollouts: Sequence[float] | None
) -> list[tuple[float, float]]:
    """Return the batches to choose from.

    Parameters
    ----------
    tried : TriedRuns
        What was run.
    prompts, rollouts : sequence of float, optional
        Values asked for, all pairs of which are taken, inside the range tried or not; of one axis
        `prompts` are total batches.
    """
    given = prompts is not None or rollouts is not None
    one = sorted({p for p, _ in tried.cells}) if prompts is None else sorted(set(prompts))
    other = sorted({g for _, g in tried.cells}) if rollouts is None else sorted(set(rollouts))
    if tried.one_axis and rollouts is not None:
        raise CBSDataError("n_rollouts cannot be chosen: the data give total batches only; give "
                           "--n-prompts the total batches to choose from")
    return [(float(p), float(g)) for p in one for g in other
            if given or not tried.outside(p, g)]


def lengths(log_steps: np.ndarray, tried: TriedRuns, reach: float) -> list[float]:
    """Return run lengths in updates: where a share `reach` of new runs is past each threshold.

    In whole evaluations, at least one, and at most ten times the longest run tried.

    Parameters
    ----------
    log_steps : numpy.ndarray
        log S of new runs, shape (run, threshold).
    tried : TriedRuns
        What was run.
    reach : float
        The share.
    """
    found = np.exp(np.minimum(np.quantile(log_steps, reach, axis=0), 700.0))
    most = np.ceil(_MOST_TIMES * tried.longest / tried.every)
    counts = np.clip(np.ceil(found / tried.every), 1, most)
    return sorted(set((counts * tried.every).tolist()))


def candidates(
    draws: ModelDraws, batches: Sequence[tuple[float, float]], tried: TriedRuns, cost: Cost,
    place: int, *, updates: Sequence[float] | None = None, reach: float = 0.9, seed: int = 0,
) -> list[Candidate]:
    """Return all runs to choose from.

    Parameters
    ----------
    draws : ModelDraws
        From which new runs are simulated, one each.
    batches : sequence
        Of `cells`.
    tried : TriedRuns
        What was run.
    cost : Cost
        Of a run.
    place : int
        Index of the target's threshold.
    updates : sequence of float, optional
        Lengths asked for; by default of `lengths`, at the target's threshold and at the middle
        one.
    reach : float
        Share of new runs that are to be past a threshold by the end.
    seed : int
        Of the new runs.

    Raises
    ------
    CBSDataError
        If the law has no value at a batch, or a price is not positive.
    """
    least = 2.0 if draws.law.needs_baseline_group else 1.0
    places = sorted({place, len(draws.threshold) // 2})
    out = []
    for cell in batches:
        _check(cell, least, draws.law.name)
        new = new_log_steps(draws, *cell, np.random.default_rng([seed, _OWN]))
        for length in updates or lengths(new[:, places], tried, reach):
            price = float(cost.price(*cell, length))
            if not (np.isfinite(price) and price > 0):
                raise CBSDataError(f"the price of n_prompts {cell[0]:g}, n_rollouts {cell[1]:g}, "
                                   f"{length:g} updates is {price:g} {cost.unit}; valid: above 0")
            out.append(Candidate(*cell, length, tried.next_seed(*cell), price, tried.count(*cell),
                                 tried.outside(*cell), _reach(new[:, place], length)))
    return out


def _reach(log_steps: np.ndarray, updates: float) -> float:
    return float((log_steps <= np.log(updates)).mean()) if updates > 0 else 0.0


def _check(cell: tuple[float, float], least: float, law: str) -> None:
    prompts, rollouts = cell
    if not (prompts >= 1 and rollouts >= least):
        raise CBSDataError(f"the candidate n_prompts {prompts:g}, n_rollouts {rollouts:g} is "
                           f"outside the law {law}; valid: n_prompts from 1, n_rollouts from "
                           f"{least:g}"
                           + (" (a group of one has no baseline)" if least > 1 else ""))

