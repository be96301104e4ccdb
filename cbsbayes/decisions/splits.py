"""The splits of a batch: which there are, and which of them lie inside the range tried."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law
from cbsbayes.posterior.quantities import Design

__all__ = ["BatchChoice", "Split", "candidate_splits", "check_batch", "default_batch", "place"]

_LINE = 3  # ways in which a total batch must be split to be an iso-batch line
_ODD = (1, 3, 5)  # group sizes people use: these times a power of two
_LARGEST = 2**31


@dataclass(frozen=True)
class Split:
    """One way to split a batch.

    Attributes
    ----------
    n_prompts, n_rollouts : int
        Of one update.
    range : {"tried", "inside", "extrapolated"}
        Was run; lies between batches tried on both axes; or beyond them.
    """

    n_prompts: int
    n_rollouts: int
    range: str


@dataclass(frozen=True)
class BatchChoice:
    """A total batch (samples) and the sentence that says why it is looked at."""

    total: int
    reason: str


def place(n_prompts: float, n_rollouts: float, tried: Design) -> str:
    """Return where a batch lies: ``tried``, ``inside`` the range tried, or ``extrapolated``.

    Inside means between the least and the largest value tried on each axis by itself (of one-axis
    data: of the total batch, then pass 1 as `n_rollouts`).
    """
    if tried.one_axis:
        total = n_prompts * n_rollouts
        known = total in tried.total
        inside = tried.total[0] <= total <= tried.total[-1]
    else:
        known = (n_prompts, n_rollouts) in tried.cells
        axes = zip(*tried.cells, strict=True)
        inside = all(min(axis) <= value <= max(axis)
                     for value, axis in zip((n_prompts, n_rollouts), axes, strict=True))
    return "tried" if known else "inside" if inside else "extrapolated"


def default_batch(runs: xr.Dataset) -> BatchChoice:
    """Return the batch whose splits are looked at unless another is asked for.

    Parameters
    ----------
    runs : xarray.Dataset
        The runs fitted.

    Returns
    -------
    BatchChoice
        The total batch split in most ways if any was in three and more, else the one of most
        runs; the larger of equals.
    """
    table = pd.DataFrame({name: runs[name].values for name in ("total_batch", "n_rollouts")})
    ways = table.groupby("total_batch")["n_rollouts"].nunique()
    if (table["n_rollouts"] > 0).all() and ways.max() >= _LINE:
        total = round(ways.index[ways == ways.max()][-1])
        return BatchChoice(total, f"{total:,d} samples, the batch that was split in most ways "
                                  f"({ways.max()})")
    counts = table["total_batch"].value_counts()
    most = float(counts.index[counts == counts.max()].max())
    return BatchChoice(round(most), f"{most:,.12g} samples, the total batch of most runs "
                              f"({counts.max()} of {len(table)}); no batch was split in "
                              f"{_LINE} ways")


def check_batch(total: int, law: Law) -> None:
    """Refuse a batch that leaves nothing to choose.

    Raises
    ------
    CBSDataError
        If the law knows no splits, or the batch has fewer than two under it.
    """
    if not law.two_axis:
        raise CBSDataError(f"the law {law.name} depends on the total batch alone: all splits are "
                           "equal under it; runs that vary n_prompts and n_rollouts, fitted with "
                           "a two-axis law, can tell them apart")
    if not 1 <= total <= _LARGEST:
        raise CBSDataError(f"--batch is {total}; valid: from 2 to {_LARGEST:,d} samples")
    if len(_group_sizes(total, law)) < 2:
        least = " with n_rollouts of 2 and more" if law.needs_baseline_group else ""
        raise CBSDataError(f"--batch {total} cannot be split in two ways{least} (n_prompts × "
                           "n_rollouts, both whole); valid: a number with divisors, such as "
                           f"{2 ** max(3, total.bit_length())}")


def _group_sizes(total: int, law: Law) -> list[int]:
    least = 2 if law.needs_baseline_group else 1
    small = [d for d in range(1, math.isqrt(total) + 1) if total % d == 0]
    return [g for g in sorted({*small, *(total // d for d in small)}) if g >= least]


def candidate_splits(total: int, tried: Design, law: Law) -> list[Split]:
    """Return the splits of a batch that people would run, the smallest group first.

    Group sizes are those divisors of the batch that are 1, 3 or 5 times a power of two, and every
    split that was run; all divisors where that leaves fewer than two.

    Parameters
    ----------
    total : int
        Samples of one update.
    tried : Design
        The batches run.
    law : Law
        The law fitted; a group law has no value at n_rollouts = 1.

    Raises
    ------
    CBSDataError
        As `check_batch`.
    """
    check_batch(total, law)
    sizes = _group_sizes(total, law)
    usual = [g for g in sizes if g // (g & -g) in _ODD or (total // g, g) in tried.cells]
    chosen = usual if len(usual) > 1 else sizes
    return [Split(total // g, g, place(total // g, g, tried)) for g in chosen]
