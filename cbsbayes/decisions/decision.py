"""The whole answer to "which batch": every table, and what could not be answered and why.

Each part is answered where the fit allows it. What the user asked for by name and cannot have is
refused; what is only missing from a full answer is left out with a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cbsbayes.decisions.allocation import split_status, split_table
from cbsbayes.decisions.front import front_table
from cbsbayes.decisions.group_size import Costs, group_size_table
from cbsbayes.decisions.iso_batch import check_table, fit_without
from cbsbayes.decisions.splits import check_batch, default_batch
from cbsbayes.decisions.targets import Target, target_table
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.quantities import design_of

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["Decision", "decide", "fitted_threshold", "middle_threshold"]


@dataclass(frozen=True)
class Decision:
    """What a fit says about which batch to run.

    Attributes
    ----------
    total : int
        Samples of one update whose splits were looked at.
    reason : str
        Why that batch.
    threshold : float
        The target that sentences speak of.
    tables : dict
        Tables by the name of their file: ``splits, group_size, targets, front, iso_batch``;
        those that were not asked for or cannot be given are absent.
    notes : list of str
        What could not be answered, and what is answered with a reservation.
    """

    total: int
    reason: str
    threshold: float
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def fitted_threshold(fit: Fit, threshold: float) -> float:
    """Return the fitted threshold that was asked for.

    Raises
    ------
    CBSDataError
        If it was not fitted; the message lists those that were.
    """
    near = np.flatnonzero(np.isclose(fit.thresholds, threshold))
    if near.size == 0:
        raise CBSDataError(f"threshold {threshold:g} was not fitted; fitted: "
                           f"{', '.join(f'{t:g}' for t in fit.thresholds)}; fit it with "
                           "python -m cbsbayes.fit --thresholds")
    return float(fit.thresholds[near[0]])


def middle_threshold(fit: Fit) -> float:
    """Return the threshold that sentences and figures speak of: the middle, the upper of two."""
    ordered = sorted(fit.thresholds.tolist())
    return float(ordered[len(ordered) // 2])


def decide(
    fit: Fit, *, batch: int | None = None, threshold: float | None = None,
    target: Target | None = None, costs: Costs | None = None, left_out: bool = False,
) -> Decision:
    """Return everything a fit says about which batch to run.

    Parameters
    ----------
    fit : Fit
        The fit.
    batch : int, optional
        Samples of one update to be split; by default the sweep's own (`default_batch`).
    threshold : float, optional
        One fitted target; by default tables hold all, and sentences speak of the middle one.
    target : Target, optional
        Updates or samples to be met.
    costs : Costs, optional
        Of a prompt and of a rollout.
    left_out : bool
        Whether runs of that batch are predicted by a fit that left them out, which is sampled
        anew; otherwise this fit predicts them, and the table says that it had seen them.

    Raises
    ------
    CBSDataError
        If the batch, the threshold or what is to be left out is not possible.
    """
    main = middle_threshold(fit) if threshold is None else fitted_threshold(fit, threshold)
    levels = sorted(fit.thresholds.tolist()) if threshold is None else [main]
    choice = default_batch(fit.crossings)
    asked = batch is not None
    total, reason = (batch, f"{batch:,d} samples, as asked") if batch is not None else (
        choice.total, choice.reason)
    decision = Decision(total, reason, main)
    _add_splits(decision, fit, levels, asked=asked)
    _add_group_sizes(decision, fit, levels, costs)
    if target is not None:
        decision.tables["targets"] = target_table(fit, target, levels)
    decision.tables["front"] = front_table(fit, levels)
    _add_check(decision, fit, levels, left_out=left_out)
    return decision


def _add_splits(
    decision: Decision, fit: Fit, levels: Sequence[float], *, asked: bool
) -> None:
    try:
        check_batch(decision.total, fit.law)
    except CBSDataError as error:
        if asked:
            raise
        decision.notes.append(f"No splits: {error}.")
        return
    decision.tables["splits"] = split_table(fit, decision.total, levels)
    decision.notes.extend(_reservations(decision, fit, levels))


def _reservations(decision: Decision, fit: Fit, levels: Sequence[float]) -> list[str]:
    by_status: dict[str, list[str]] = {}
    for level in levels:
        by_status.setdefault(split_status(fit, level), []).append(f"{level:g}")
    notes = []
    if "not_identified" in by_status:
        notes.append("Which split is best is not told at threshold "
                     f"{', '.join(by_status.pop('not_identified'))}: these runs do not settle "
                     "B_rollout/B_prompt, and probabilities would be the prior's; S is given for "
                     "splits that were run. Runs that vary the other axis settle it.")
    for status, where in by_status.items():
        if status != "identified":
            notes.append(f"At threshold {', '.join(where)} the runs give only "
                         f"{'an upper' if status == 'upper_bound' else 'a lower'} bound on the "
                         "best group size: probabilities there lean on the prior.")
    table = decision.tables["splits"]
    if (table["range"] == "extrapolated").all():
        notes.append(f"All splits of {decision.total:,d} samples lie outside the batches tried; "
                     "everything said of them is extrapolated.")
    if fit.law.plain:
        notes.append(f"Under the law {fit.law.name} the smallest group is the best split of every "
                     "batch by the law's form, whatever the runs say.")
    if fit.law.needs_baseline_group:
        notes.append("n_rollouts = 1 is not among the splits: a group of one has no baseline and "
                     "is another estimator.")
    return notes


def _add_group_sizes(
    decision: Decision, fit: Fit, levels: Sequence[float], costs: Costs | None
) -> None:
    table = group_size_table(fit, costs)
    table = table[np.isclose(table["threshold"].to_numpy(dtype=float)[:, None], levels).any(axis=1)]
    if not table.empty:
        decision.tables["group_size"] = table.reset_index(drop=True)
    elif costs is not None:
        raise CBSDataError(f"costs were given, but the law {fit.law.name} has no group size to "
                           "choose; leave them out, or fit a two-axis law")


def _add_check(
    decision: Decision, fit: Fit, levels: Sequence[float], *, left_out: bool
) -> None:
    if left_out:
        predictor = fit_without(fit, decision.total)
        table = check_table(fit, decision.total, predictor)
        if not predictor.verdict["sampling"]["passed"]:
            decision.notes.append("Sampling checks not passed by the fit that left the iso-batch "
                                  "runs out: its predictions are provisional.")
    elif design_of(fit.crossings).one_axis:
        return
    else:
        try:
            table = check_table(fit, decision.total)
        except CBSDataError:
            return
    here = np.isclose(table["threshold"].to_numpy()[:, None], levels).any(axis=1)
    decision.tables["iso_batch"] = table[here].reset_index(drop=True)
