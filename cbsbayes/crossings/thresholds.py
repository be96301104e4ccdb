"""Targets: round numbers that at least three batch sizes are seen to cross, and who reached them.

Two batch sizes fit any law with two parameters exactly; three are the least that can disagree. A
threshold that no run reached, or that every run had passed by its first evaluation, leaves the
noise scales to their priors. It gives no numbers: it is left out with the reason, or refused where
no other is left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import xarray as xr

from cbsbayes.crossings.intervals import (
    INTERVAL,
    LEFT,
    RIGHT,
    UNUSABLE,
    Curves,
    curves_of,
    find_crossings,
)
from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.dataset import choose_metric

__all__ = ["MIN_BATCH_SIZES", "Reached", "batch_labels", "check_batches", "choose_thresholds",
           "keep_reached", "reached_by", "uninformative_runs"]

MIN_BATCH_SIZES = 3
_ROUND_STEPS = (0.1, 0.05, 0.02, 0.01)  # of the next power of ten above the range


def choose_thresholds(
    ds: xr.Dataset, *, metric: str | None = None, rule: str = "isotonic", max_thresholds: int = 6,
    least: int = MIN_BATCH_SIZES,
) -> np.ndarray:
    """Return targets on a round grid that at least three batch sizes are seen to cross.

    Only crossings with both ends known count. The coarsest round grid with enough such targets
    is taken and thinned evenly; the hardest always stays, and of the others each stretch keeps
    the target that most runs cross. Groups of one rollout do not count where there are larger
    ones: a group baseline sets them apart.

    Parameters
    ----------
    ds : xarray.Dataset
        A sweep of curves (the grid lies between the best start and the best accuracy), or of
        crossings (its own thresholds are the grid).
    metric : str, optional
        Validation set; the sweep's default unless given.
    rule : {"isotonic", "first", "consecutive"}
        What counts as a crossing.
    max_thresholds : int
        At most so many.
    least : int
        Batch sizes that have to cross a target; fewer than three only where something else
        than batches tells of the noise.

    Returns
    -------
    numpy.ndarray
        Sorted, shape (threshold,).

    Raises
    ------
    CBSDataError
        If there are fewer than `least` batch sizes, no run rises above the start, or no target is
        crossed by so many; the message says how far the sweep got.
    """
    if max_thresholds < 1:
        raise CBSDataError(f"max_thresholds is {max_thresholds}; valid: 1 and more")
    check_batches(ds, least)
    labels = batch_labels(ds)
    grids = ([np.sort(ds["threshold"].values)] if "steps_lower" in ds else
             _grids(_fitted_curves(ds, metric, rule)))
    best, counts, sizes = np.array([]), np.array([]), np.array([])
    for grid in (grid for grid in grids if grid.size):
        crossed = find_crossings(ds, grid, metric=metric, rule=rule)["status"].values == INTERVAL
        sizes = np.array([len(np.unique(labels[c & (labels >= 0)])) for c in crossed.T])
        if (sizes >= least).sum() > best.size:
            best, counts = grid[sizes >= least], crossed[:, sizes >= least].sum(axis=0)
        if best.size >= max_thresholds:
            break
    if best.size == 0:
        raise CBSDataError(_none_crossed(grids[-1], sizes, least))
    to_hardest = slice(None, None, -1 if ds.attrs["direction"] == "decreasing" else 1)
    return np.sort(_thin(best[to_hardest], counts[to_hardest], max_thresholds))


def batch_labels(ds: xr.Dataset) -> np.ndarray:
    """Return a number per distinct batch size, -1 for runs that count for none.

    Returns
    -------
    numpy.ndarray
        Int, shape (run,). A batch size is a cell (n_prompts, n_rollouts), or a total batch in
        one-axis data; unusable runs, and groups of one where larger ones exist, are -1.
    """
    rollouts, counted = ds["n_rollouts"].values, ds["usable"].values == 1
    if (rollouts[counted] >= 2).any():
        counted &= rollouts >= 2
    return np.where(counted, _cells(ds), -1)


def _cells(ds: xr.Dataset) -> np.ndarray:
    """Return a number per distinct batch size, shape (run,)."""
    axes = np.column_stack([ds[name].values for name in ("n_prompts", "n_rollouts", "total_batch")])
    return np.unique(axes, axis=0, return_inverse=True)[1].reshape(-1)


def check_batches(ds: xr.Dataset, least: int = MIN_BATCH_SIZES) -> None:
    """Refuse runs of fewer than three batch sizes, or of another least number.

    Raises
    ------
    CBSDataError
        With the count and the remedy.
    """
    labels = batch_labels(ds)
    sizes = len(np.unique(labels[labels >= 0]))
    if sizes < least:
        raise CBSDataError(f"the runs have too few batch sizes that may be fitted, {sizes}; a law "
                           f"needs at least {least}: add runs with other n_prompts or n_rollouts")


def _fitted_curves(ds: xr.Dataset, metric: str | None, rule: str) -> Curves:
    """Return the curves of runs that may be fitted; raise where there is none."""
    curves = curves_of(ds, metric=metric, rule=rule)
    kept = curves.usable
    if not kept.any():
        raise CBSDataError("no run that may be fitted has an evaluation of "
                           f"{choose_metric(ds, metric)}; choose another metric")
    return replace(curves, step=curves.step[kept], value=curves.value[kept], usable=kept[kept])


def _grids(curves: Curves) -> list[np.ndarray]:
    """Return round grids between the best start and the best value, coarse to fine."""
    value, started = curves.value, curves.step[:, 0] == 0
    start = value[started, 0].max() if started.any() else value[:, 0].min()
    best = np.nanmax(value)
    if best < start or np.isclose(best, start, rtol=1e-9, atol=0):
        raise CBSDataError(f"no run gets beyond its start: the best value before training is "
                           f"{curves.sign * start:.4g}, the best reached {curves.sign * best:.4g}; "
                           "train longer, or check metric and direction")
    low, high = sorted((curves.sign * start, curves.sign * best))
    decade = 10.0 ** np.ceil(np.log10(high - low))
    grids = []
    for step in _ROUND_STEPS:
        spacing = step * decade
        multiples = np.arange(np.ceil(low / spacing), np.floor(high / spacing) + 1)
        grids.append(np.unique(np.round(multiples * spacing, 12)))
    return grids


def _none_crossed(grid: np.ndarray, sizes: np.ndarray, least: int) -> str:
    remedy = "train longer, evaluate more often, add batch sizes, or give thresholds yourself"
    if sizes.max(initial=0) == 0:
        span = f" between {grid.min():g} and {grid.max():g}" if grid.size else ""
        return ("no run is seen to cross any threshold" + span + " between two evaluations after "
                f"the start; {remedy}")
    return (f"no threshold is crossed by {least} batch sizes; the most is "
            f"{sizes.max()}, at {grid[sizes.argmax()]:g}; {remedy}")


def _thin(targets: np.ndarray, counts: np.ndarray, most: int) -> np.ndarray:
    """Keep the last and, of as many even stretches as needed, the target most runs cross."""
    if targets.size <= most:
        return targets
    chosen = [targets[-1]]
    if most > 1:
        for stretch in np.array_split(np.arange(targets.size - 1), most - 1):
            from_top = stretch[::-1]
            chosen.append(targets[from_top[counts[from_top].argmax()]])
    return np.array(chosen)


class Reached(NamedTuple):
    """How many runs and batch sizes reached one threshold.

    Attributes
    ----------
    threshold : float
        The target.
    n_reached, n_runs : int
        Runs that reached it, of those that started below it.
    n_batches_reached, n_batches : int
        Their batch sizes likewise.
    """

    threshold: float
    n_reached: int
    n_runs: int
    n_batches_reached: int
    n_batches: int


def reached_by(crossings: xr.Dataset) -> list[Reached]:
    """Return a record per threshold, in order.

    Parameters
    ----------
    crossings : xarray.Dataset
        Of `cbsbayes.crossings.intervals.find_crossings`.
    """
    sizes = _cells(crossings)
    status = crossings["status"].transpose("threshold", "run").values
    found = []
    for threshold, row in zip(crossings["threshold"].values.tolist(), status, strict=True):
        reached, below = np.isin(row, (LEFT, INTERVAL)), row != UNUSABLE
        found.append(Reached(threshold, int(reached.sum()), int(below.sum()),
                             len(np.unique(sizes[reached])), len(np.unique(sizes[below]))))
    return found


def keep_reached(
    crossings: xr.Dataset, ds: xr.Dataset, metric: str | None = None,
) -> tuple[xr.Dataset, dict[float, str]]:
    """Return the crossings of thresholds that can be fitted, and why the others cannot.

    Parameters
    ----------
    crossings : xarray.Dataset
        Of `cbsbayes.crossings.intervals.find_crossings`.
    ds : xarray.Dataset
        The sweep they were found in.
    metric : str, optional
        Validation set; the sweep's default unless given.

    Returns
    -------
    crossings : xarray.Dataset
        Fewer thresholds, or the same.
    left_out : dict
        Threshold to reason.

    Raises
    ------
    CBSDataError
        If no threshold is left; the message says what was reached.
    """
    reached = crossings["status"].isin((LEFT, INTERVAL)).any("run").values
    below = crossings["status"].isin((INTERVAL, RIGHT)).any("run").values
    kept = reached & below
    if kept.all():
        return crossings, {}
    span = _span(crossings, ds, metric)
    why = np.select([reached, below], ["every run had passed it by its first evaluation",
                                       "no run reached it"],
                    "every run had passed it before training, or was not evaluated after")
    left_out = {t: f"{reason}{_meant(t, span)}" for t, reason in zip(
        crossings["threshold"].values[~kept].tolist(), why[~kept], strict=True)}
    if kept.any():
        return crossings.isel(threshold=np.flatnonzero(kept)), left_out
    parts = "; ".join(f"threshold {t:g}: {reason}" for t, reason in left_out.items())
    if span is None:
        held = ", ".join(f"{t:g}" for t in ds["threshold"].values)
        raise CBSDataError(f"{parts}. The table of crossings holds the thresholds {held}")
    raise CBSDataError(f"{parts}. The runs went from {span[0]:.4g} at the start to {span[1]:.4g} "
                       "at best; valid thresholds lie between the two")


def uninformative_runs(crossings: xr.Dataset) -> list[str]:
    """Return the runs of which no crossing is known, nor a bound on one."""
    none = (crossings["status"] == UNUSABLE).all("threshold").values
    return [str(run) for run in crossings["run"].values[none]]


def _span(
    crossings: xr.Dataset, ds: xr.Dataset, metric: str | None
) -> tuple[float, float] | None:
    """Return the first of the starts and the best value reached; None of a table of crossings."""
    if "accuracy" not in ds:
        return None
    curves = _fitted_curves(ds, metric, str(crossings.attrs["rule"]))
    return (curves.sign * float(curves.value[:, 0].min()),
            curves.sign * float(np.nanmax(curves.value)))


def _meant(threshold: float, span: tuple[float, float] | None) -> str:
    """Return a question where the threshold is in percent and the accuracies are not, or so."""
    if span is None:
        return ""
    low, high = sorted(span)
    other = threshold / 100 if threshold > 1 else threshold * 100
    odd = (high <= 1) == (threshold > 1) and low < other <= high
    return f" (did you mean {other:g}?)" if odd else ""
