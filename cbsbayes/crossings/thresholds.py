"""Choose targets: round numbers that at least three batch sizes are seen to cross.

Two batch sizes fit any law with two parameters exactly; three are the least that can disagree.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from cbsbayes.crossings.rules import INTERVAL, Curves, bounds, curves_of
from cbsbayes.errors import CBSDataError

__all__ = ["MIN_BATCH_SIZES", "batch_labels", "check_batches", "choose_thresholds"]

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
    if "steps_lower" in ds:
        grids, crossed_at = [ds["threshold"].values], _table_crosser(ds)
    else:
        curves = curves_of(ds, metric=metric, rule=rule)
        grids, crossed_at = _grids(ds, curves), _curve_crosser(curves)
    best = _enough_crossed(grids, crossed_at, labels, max_thresholds, least)
    counts = np.array([crossed_at(target).sum() for target in best])
    hardest_first = best[::-1] if ds.attrs["direction"] == "decreasing" else best
    counts = counts[::-1] if ds.attrs["direction"] == "decreasing" else counts
    return np.sort(_thin(hardest_first, counts, max_thresholds))


def batch_labels(ds: xr.Dataset) -> np.ndarray:
    """Return a number per distinct batch size, -1 for runs that count for none.

    Returns
    -------
    numpy.ndarray
        Int, shape (run,). A batch size is a cell (n_prompts, n_rollouts), or a total batch in
        one-axis data; unusable runs, and groups of one where larger ones exist, are -1.
    """
    rollouts = ds["n_rollouts"].values
    cells = np.column_stack([ds["n_prompts"].values, rollouts, ds["total_batch"].values])
    labels = np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1)
    counted = ds["usable"].values == 1
    if (rollouts[counted] >= 2).any():
        counted &= rollouts >= 2
    return np.where(counted, labels, -1)


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
        raise CBSDataError(f"the runs have {sizes} batch size(s) that may be fitted; a law needs "
                           f"at least {least}: add runs with other n_prompts or n_rollouts")


def _curve_crosser(curves: Curves) -> Callable[[float], np.ndarray]:
    return lambda target: bounds(curves, float(target))[2] == INTERVAL


def _table_crosser(ds: xr.Dataset) -> Callable[[float], np.ndarray]:
    lower, upper = (ds[name].transpose("run", "threshold").values
                    for name in ("steps_lower", "steps_upper"))
    seen = (lower > 0) & np.isfinite(upper) & (ds["usable"].values == 1)[:, None]
    known = ds["threshold"].values
    return lambda target: seen[:, int(np.abs(known - target).argmin())]


def _grids(ds: xr.Dataset, curves: Curves) -> list[np.ndarray]:
    """Return round grids between the best start and the best value, coarse to fine."""
    value = curves.value[curves.usable]
    started = curves.step[curves.usable][:, 0] == 0
    start = value[started, 0].max() if started.any() else value[:, 0].min()
    best = np.nanmax(value)
    if best <= start:
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


def _enough_crossed(
    grids: list[np.ndarray], crossed_at: Callable[[float], np.ndarray], labels: np.ndarray,
    wanted: int, least: int,
) -> np.ndarray:
    sizes_at: dict[float, int] = {}
    best = np.array([])
    for grid in grids:
        for target in grid.tolist():
            if target not in sizes_at:
                crossing = labels[crossed_at(target)]
                sizes_at[target] = len(np.unique(crossing[crossing >= 0]))
        kept = np.array([t for t in grid.tolist() if sizes_at[t] >= least])
        if kept.size > best.size:
            best = kept
        if best.size >= wanted:
            break
    if best.size == 0:
        raise CBSDataError(_none_crossed(sizes_at, least))
    return best


def _none_crossed(sizes_at: dict[float, int], least: int) -> str:
    remedy = "train longer, evaluate more often, add batch sizes, or give thresholds yourself"
    if not sizes_at or max(sizes_at.values()) == 0:
        span = f" between {min(sizes_at):g} and {max(sizes_at):g}" if sizes_at else ""
        return ("no run is seen to cross any threshold" + span + " between two evaluations after "
                f"the start; {remedy}")
    most = max(sizes_at, key=lambda target: sizes_at[target])
    return (f"no threshold is crossed by {least} batch sizes; the most is "
            f"{sizes_at[most]}, at {most:g}; {remedy}")


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
