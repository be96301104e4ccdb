r"""Which split of a fixed batch: S of every split, the chance that each is best, and its regret.

A batch of B samples is n_prompts × n_rollouts in several ways. For every posterior draw the best
split is the one with least S in the population of runs, and the regret of split i is the share of
updates lost by choosing it,

.. math:: r_i = S_i / \min_j S_j - 1 .

P(best) is the share of draws in which a split is the best, the expected regret the mean of
:math:`r_i`; the split to choose is the one of least expected regret among those inside the range
tried. All of it hangs on B_rollout/B_prompt: where the runs do not settle that ratio, no
probability is given.

At a fixed number of samples P·G the updates to a target are fewest at the group size

.. math:: G_{opt} = 1 + \sqrt{B_r / B_p},

for every exponent. Where an update costs :math:`P (c_p + c_r G)`, a prompt its prefill and a
rollout its decoding, what is fixed is that cost, and

.. math:: G_{opt} = 1 + \sqrt{(B_r / B_p) (1 + c_p / c_r)} .

Without a group baseline (1/G in place of 1/(G - 1)) a fixed batch is best spent on prompts, G = 1,
and costs give :math:`\max(1, \sqrt{(B_r/B_p)\, c_p/c_r})`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.decisions.batches import (
    POPULATION,
    batches_run,
    find_row,
    interval_columns,
    range_of,
    share_least,
    table_of_fit,
)
from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law
from cbsbayes.models.parameters import SATURATION
from cbsbayes.posterior.ceilings import OPTION
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.quantities import Quantity, best_rollouts
from cbsbayes.posterior.tidy import CBS_COLUMNS, tidy

__all__ = ["CLOSE", "BatchChoice", "candidate_splits", "default_batch", "group_size_table",
           "judge", "split_status", "split_table"]

CLOSE = 0.05  # a split is close to the best while it loses at most this share of updates
_DRAWS = 4000  # the error of a probability by chance stays below .01
_LINE = 3  # ways in which a total batch must be split to be an iso-batch line
_ODD = (1, 3, 5)  # group sizes people use: these times a power of two
_LARGEST = 2**31


@dataclass(frozen=True)
class BatchChoice:
    """A total batch (samples) and the phrase that says why it is looked at."""

    total: int
    reason: str


def default_batch(runs: xr.Dataset) -> BatchChoice:
    """Return the batch whose splits are looked at unless another is asked for.

    The total batch split in most ways if any was in three and more, else the one of most runs; the
    larger of equals.
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


def candidate_splits(total: int, tried: np.ndarray, law: Law) -> np.ndarray:
    """Return the splits of a batch that people would run, the smallest group first, (split, 2).

    Group sizes are those divisors of the batch that are 1, 3 or 5 times a power of two, and every
    split that was run; all divisors where that leaves fewer than two.

    Parameters
    ----------
    total : int
        Samples of one update.
    tried : numpy.ndarray
        Of `batches_run`.
    law : Law
        The law fitted; a group law has no value at n_rollouts = 1.

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
    small = [d for d in range(1, math.isqrt(total) + 1) if total % d == 0]
    least = 2 if law.needs_baseline_group else 1
    sizes = [g for g in sorted({*small, *(total // d for d in small)}) if g >= least]
    if len(sizes) < 2:
        group = " with n_rollouts of 2 and more" if least > 1 else ""
        raise CBSDataError(f"--batch {total} cannot be split in two ways{group} (n_prompts × "
                           "n_rollouts, both whole); valid: a number with divisors, such as "
                           f"{2 ** max(3, total.bit_length())}")
    run = {(int(p), int(g)) for p, g in tried}
    usual = [g for g in sizes if g // (g & -g) in _ODD or (total // g, g) in run]
    chosen = np.array(usual if len(usual) > 1 else sizes)
    return np.column_stack([total // chosen, chosen])


def judge(log_steps: np.ndarray, inside: np.ndarray, ci_prob: float) -> pd.DataFrame:
    """Return what draws of log S say about splits, a row per split.

    Parameters
    ----------
    log_steps : numpy.ndarray
        Of the population, shape (sample, split); infinite where it never arrives.
    inside : numpy.ndarray
        Bool, shape (split,): inside the range tried.
    ci_prob : float
        Probability of the equal-tailed interval of the regret.

    Returns
    -------
    pandas.DataFrame
        ``p_best, p_best_inside``: probability to be the best of all, and of those inside (NaN
        elsewhere); ``regret, regret_lower, regret_upper``: mean and interval of the share of
        updates lost against the best, infinite where a split may never arrive; ``p_close``: to
        lose at most `CLOSE`; ``chosen``: of least expected regret among those inside (of all where
        none is); ``p_worse``: to take more updates than that one, NaN for itself.
    """
    least = log_steps.min(axis=1, keepdims=True)
    some = np.isfinite(least)  # where no split arrives, none is the worse for it
    regret = np.where(some, np.expm1(log_steps - np.where(some, least, 0.0)), 0.0)
    allowed = np.flatnonzero(inside if inside.any() else np.full(len(inside), True))
    first = allowed[_least_regret(regret[:, allowed])]
    chosen = np.arange(len(inside)) == first
    p_inside = share_least(np.where(inside, log_steps, np.inf))
    p_worse = (log_steps > log_steps[:, [first]]).mean(axis=0)
    return pd.DataFrame({
        "p_best": share_least(log_steps), "p_best_inside": np.where(inside, p_inside, np.nan),
        **interval_columns("regret", regret, ci_prob), "regret": regret.mean(axis=0),
        "p_close": ((regret <= CLOSE) & some).mean(axis=0),
        "p_worse": np.where(chosen, np.nan, p_worse), "chosen": chosen})


def _least_regret(regret: np.ndarray) -> int:
    """Return the column of least mean; where all may fail to arrive, of least share lost."""
    mean = regret.mean(axis=0)
    if np.isfinite(mean).any():
        return int(mean.argmin())
    return int((1.0 - 1.0 / (1.0 + regret)).mean(axis=0).argmin())


def split_status(fit: Fit, threshold: float) -> str:
    """Return whether the runs settle which split is best, as ``cbs.csv`` says of the group size.

    Without a group baseline the smallest group is the best by the law's form: ``identified``.
    """
    if not fit.law.group_baseline:
        return "identified"
    row = find_row(fit.cbs, "best_n_rollouts", threshold)
    return "not_identified" if row is None else str(row["status"])


def split_table(fit: Fit, total: int, thresholds: Sequence[float]) -> pd.DataFrame:
    """Return the table of ``splits.csv``.

    Parameters
    ----------
    fit : Fit
        The fit.
    total : int
        Samples of one update.
    thresholds : sequence of float
        Targets, each fitted.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS` of ``splits``, a row per threshold and split: ``range`` is that of `range_of`,
        ``steps, steps_lower, steps_upper`` are median and interval of S (updates) in the
        population, the others those of `judge`; ``status`` is that of the best group size in
        ``cbs.csv``. Where it is not identified all probabilities and regrets are NaN, and so is S
        at splits that were not run.

    Raises
    ------
    CBSDataError
        If the batch or the law leaves nothing to choose.
    """
    tried, prob = batches_run(fit.crossings), float(fit.settings["ci_prob"])
    splits = candidate_splits(total, tried, fit.law)
    where = range_of(splits, tried)
    tables = []
    for threshold in thresholds:
        log_steps = fit.log_steps(splits[:, 0], splits[:, 1], threshold, draws=_DRAWS).values
        steps = pd.DataFrame(interval_columns("steps", np.exp(log_steps), prob))
        judged = judge(log_steps, where != "extrapolated", prob)
        status = split_status(fit, threshold)
        if status == "not_identified":
            steps[where != "tried"] = np.nan
            judged = pd.DataFrame({"chosen": np.full(len(splits), False)})
        tables.append(pd.DataFrame({
            "threshold": threshold, "n_prompts": splits[:, 0], "n_rollouts": splits[:, 1],
            "range": where, "status": status}).join([steps, judged]))
    return table_of_fit(fit, tables, "splits", total_batch=total, applies_to=POPULATION)


def group_size_table(fit: Fit, cost_ratio: float | None = None) -> pd.DataFrame:
    """Return the cheapest group sizes, a row per threshold, in the columns of ``cbs.csv``.

    Parameters
    ----------
    fit : Fit
        The fit.
    cost_ratio : float, optional
        Cost of a prompt (prefill) over that of a rollout (decoding): adds rows
        ``best_n_rollouts_at_cost``, whose ``at`` holds it.

    Returns
    -------
    pandas.DataFrame
        Columns `cbsbayes.posterior.tidy.CBS_COLUMNS`; empty where the law knows no splits. A
        bound is printed as one, and a size that the runs do not settle as ``not_identified``.

    Raises
    ------
    CBSDataError
        If costs are given for a fit with a ceiling for every group size.
    """
    if SATURATION in fit.posterior:
        if cost_ratio is not None:
            raise CBSDataError("costs were given, but the fit has a ceiling for every group size, "
                               "with which no group size is the cheapest at every budget; leave "
                               f"the costs out, or fit without {OPTION}")
        return fit.cbs[fit.cbs["quantity"] == "best_n_rollouts"].reset_index(drop=True)
    found, before = (_group_sizes(fit.law, draws, cost_ratio)
                     for draws in (fit.posterior, fit.prior))
    table = tidy(found, before, fit.settings["ci_prob"]).assign(
        group=fit.group, law=fit.law.name)[CBS_COLUMNS]
    if (np.ptp(batches_run(fit.crossings), axis=0) == 0).any():
        table["status"] = "not_identified"  # one axis was varied: cbs.csv leaves the size out
        table[["median", "mean", "sd", "ci_lower", "ci_upper"]] = np.nan
    return table


def _group_sizes(law: Law, draws: xr.Dataset, cost_ratio: float | None) -> list[Quantity]:
    found = []
    if law.needs_baseline_group:
        found.append(Quantity("best_n_rollouts", "", "rollouts", best_rollouts(draws)))
    if law.two_axis and cost_ratio is not None:
        size = (best_rollouts(draws, cost_ratio) if law.group_baseline else
                (draws["B_rollout"] / draws["B_prompt"] * cost_ratio).clip(min=1.0) ** 0.5)
        found.append(Quantity("best_n_rollouts_at_cost", f"prompt_over_rollout={cost_ratio:.6g}",
                              "rollouts", size))
    return found
