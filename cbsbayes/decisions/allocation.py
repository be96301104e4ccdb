r"""Which split of a fixed batch: S of every split, the chance that each is best, and its regret.

A batch of B samples is n_prompts × n_rollouts in several ways. For every posterior draw the best
split is the one with least S for a typical run, and the regret of split i is the share of updates
lost by choosing it,

.. math:: r_i = S_i / \min_j S_j - 1 .

P(best) is the share of draws in which a split is the best, the expected regret the mean of
:math:`r_i`; the split to choose is the one of least expected regret among those inside the range
tried. All of it hangs on B_rollout/B_prompt: where the runs do not settle that ratio, no
probability is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.splits import Split, candidate_splits
from cbsbayes.posterior.quantities import design_of
from cbsbayes.posterior.tidy import interval

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["CLOSE", "SPLIT_COLUMNS", "TYPICAL", "SplitVerdict", "judge", "log_steps_at",
           "split_status", "split_table"]

CLOSE = 0.05  # a split is close to the best while it loses at most this share of updates
TYPICAL = "typical run"
SPLIT_COLUMNS = ["group", "law", "threshold", "total_batch", "n_prompts", "n_rollouts", "range",
                 "applies_to", "steps", "steps_lower", "steps_upper", "ci_prob", "p_best",
                 "p_best_inside", "regret", "regret_lower", "regret_upper", "p_close", "p_worse",
                 "chosen", "status"]
_DRAWS = 4000  # the error of a probability by chance stays below .01


@dataclass(frozen=True)
class SplitVerdict:
    """What draws of S say about splits; arrays of shape (split,).

    Attributes
    ----------
    p_best, p_best_inside : numpy.ndarray
        Probability to be the best of all, and of those inside the range tried (NaN elsewhere).
    regret, regret_lower, regret_upper : numpy.ndarray
        Mean and interval of the share of updates lost against the best of all; infinite where a
        split may never arrive.
    p_close : numpy.ndarray
        Probability to lose at most `CLOSE`.
    p_worse : numpy.ndarray
        Probability to take more updates than the one chosen; NaN for that one.
    chosen : numpy.ndarray
        Bool: of least expected regret among those inside (of all where none is).
    """

    p_best: np.ndarray
    p_best_inside: np.ndarray
    regret: np.ndarray
    regret_lower: np.ndarray
    regret_upper: np.ndarray
    p_close: np.ndarray
    p_worse: np.ndarray
    chosen: np.ndarray


def log_steps_at(
    fit: Fit, n_prompts: Any, n_rollouts: Any, threshold: float, most: int = _DRAWS
) -> np.ndarray:
    """Return draws of log S (updates) of a typical run at batches, shape (sample, batch).

    Parameters
    ----------
    fit : Fit
        The fit.
    n_prompts, n_rollouts : array_like
        Batches, broadcast against each other to shape (batch,).
    threshold : float
        One that was fitted.
    most : int
        Draws to use, about.
    """
    log_steps = fit.log_steps(n_prompts, n_rollouts, threshold, draws=most)
    return np.asarray(log_steps.transpose("sample", "batch").values)


def judge(log_steps: np.ndarray, inside: np.ndarray, ci_prob: float) -> SplitVerdict:
    """Return what draws of log S say about splits.

    Parameters
    ----------
    log_steps : numpy.ndarray
        Of a typical run, shape (sample, split); infinite where it never arrives.
    inside : numpy.ndarray
        Bool, shape (split,): inside the range tried.
    ci_prob : float
        Probability of the equal-tailed interval of the regret.
    """
    least = log_steps.min(axis=1, keepdims=True)
    some = np.isfinite(least)  # where no split arrives, none is the worse for it
    regret = np.where(some, np.expm1(log_steps - np.where(some, least, 0.0)), 0.0)
    lower, upper = np.transpose([interval(column, ci_prob) for column in regret.T])
    mean = regret.mean(axis=0)
    allowed = inside if inside.any() else np.full(len(inside), True)
    chosen = np.zeros(len(inside), dtype=bool)
    chosen[np.flatnonzero(allowed)[_least_regret(regret[:, allowed])]] = True
    p_inside = _share_best(np.where(inside, log_steps, np.inf))
    p_worse = (log_steps > log_steps[:, chosen]).mean(axis=0)
    p_close = ((regret <= CLOSE) & some).mean(axis=0)
    return SplitVerdict(_share_best(log_steps), np.where(inside, p_inside, np.nan), mean, lower,
                        upper, p_close, np.where(chosen, np.nan, p_worse), chosen)


def _least_regret(regret: np.ndarray) -> int:
    """Return the column of least mean; where all may fail to arrive, of least share lost."""
    mean = regret.mean(axis=0)
    if np.isfinite(mean).any():
        return int(mean.argmin())
    return int((1.0 - 1.0 / (1.0 + regret)).mean(axis=0).argmin())


def _share_best(values: np.ndarray) -> np.ndarray:
    """Return how often every column is the least; none is where all are infinite."""
    best = values.argmin(axis=1)[np.isfinite(values.min(axis=1))]
    return np.bincount(best, minlength=values.shape[1]) / len(values)


def split_status(fit: Fit, threshold: float) -> str:
    """Return whether the runs settle which split is best, as ``cbs.csv`` says of the group size.

    Under a plain law the smallest group is the best by the law's form: ``identified``.
    """
    if fit.law.plain:
        return "identified"
    table = fit.cbs
    rows = table[(table["quantity"] == "best_n_rollouts")
                 & np.isclose(table["threshold"].astype(float), threshold)]
    return str(rows["status"].iloc[0]) if len(rows) else "not_identified"


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
        Columns `SPLIT_COLUMNS`, a row per threshold and split: ``range`` says where it lies
        (`Split`); ``steps, steps_lower, steps_upper`` are median and interval of S (updates) for
        a typical run; ``p_best, p_best_inside, regret, regret_lower, regret_upper, p_close,
        p_worse, chosen`` those of `SplitVerdict` (regret as a share); ``status`` that of the best
        group size in ``cbs.csv``. Where it is not identified all probabilities and regrets are
        NaN, and so is S at splits that were not run.

    Raises
    ------
    CBSDataError
        If the batch or the law leaves nothing to choose.
    """
    splits = candidate_splits(total, design_of(fit.crossings), fit.law)
    rows = [row for t in thresholds for row in _rows(fit, total, splits, t)]
    return pd.DataFrame(rows, columns=SPLIT_COLUMNS)


def _rows(
    fit: Fit, total: int, splits: Sequence[Split], threshold: float
) -> list[dict[str, Any]]:
    prob = float(fit.settings["ci_prob"])
    log_steps = log_steps_at(fit, [s.n_prompts for s in splits], [s.n_rollouts for s in splits],
                             threshold)
    verdict = judge(log_steps, np.array([s.range != "extrapolated" for s in splits]), prob)
    status = split_status(fit, threshold)
    known = status != "not_identified"
    rows = []
    for k, split in enumerate(splits):
        row: dict[str, Any] = {
            "group": fit.group, "law": fit.law.name, "threshold": threshold, "total_batch": total,
            "n_prompts": split.n_prompts, "n_rollouts": split.n_rollouts, "range": split.range,
            "applies_to": TYPICAL, "ci_prob": prob, "status": status, "chosen": False}
        if known or split.range == "tried":
            lower, upper = interval(np.exp(log_steps[:, k]), prob)
            row |= {"steps": float(np.exp(np.median(log_steps[:, k]))), "steps_lower": lower,
                    "steps_upper": upper}
        rows.append(row | ({name: value[k].item() for name, value in vars(verdict).items()}
                           if known else {}))
    return rows
