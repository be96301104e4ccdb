"""The whole answer to "which batch": every table, and what could not be answered and why.

Each part is answered where the fit allows it. What the user asked for by name and cannot have is
refused; what is only missing from a full answer is left out, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cbsbayes.decisions.batches import fitted_threshold, middle_threshold
from cbsbayes.decisions.front import front_table
from cbsbayes.decisions.group_size import Costs, group_size_table
from cbsbayes.decisions.iso_batch import check_table, fit_without
from cbsbayes.decisions.splits import BatchChoice, check_batch, default_batch, split_table
from cbsbayes.decisions.targets import Target, target_table
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.quantities import design_of

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["Decision", "decide"]


@dataclass(frozen=True)
class Decision:
    """What a fit says about which batch to run.

    Attributes
    ----------
    batch : BatchChoice
        The total batch whose splits were looked at, and why that one.
    threshold : float
        The target that sentences are about.
    tables : dict
        Tables by the name of their file: ``splits, group_size, targets, front, iso_batch``;
        those that were not asked for or cannot be given are absent.
    no_splits : str
        Why there is no table of splits; empty where there is one.
    check_trusted : bool
        Whether the fit that left runs out, if there is one, passed its checks.
    """

    batch: BatchChoice
    threshold: float
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    no_splits: str = ""
    check_trusted: bool = True

    def at_threshold(self, name: str) -> pd.DataFrame:
        """Return the rows of a table at the decision's threshold; none where it is absent."""
        table = self.tables.get(name, pd.DataFrame({"threshold": []}))
        return table[np.isclose(table["threshold"].astype(float), self.threshold)]


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
        One fitted target; by default tables hold all, and sentences are about the middle one.
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
    if batch is not None:
        choice = BatchChoice(batch, f"{batch:,d} samples, as asked")
    tables, no_splits, trusted = {}, "", True
    try:
        check_batch(choice.total, fit.law)
        tables["splits"] = split_table(fit, choice.total, levels)
    except CBSDataError as error:
        if batch is not None:
            raise
        no_splits = str(error)
    group_sizes = group_size_table(fit, costs)
    if costs is not None and group_sizes.empty:
        raise CBSDataError(f"costs were given, but the law {fit.law.name} has no group size to "
                           "choose; leave them out, or fit a two-axis law")
    if not group_sizes.empty:
        tables["group_size"] = _at(group_sizes, levels)
    if target is not None:
        tables["targets"] = target_table(fit, target, levels)
    tables["front"] = front_table(fit, levels)
    if left_out:
        predictor = fit_without(fit, choice.total)
        trusted = bool(predictor.verdict["sampling"]["passed"])
        tables["iso_batch"] = _at(check_table(fit, choice.total, predictor), levels)
    elif choice.total in _iso_batches(fit):
        tables["iso_batch"] = _at(check_table(fit, choice.total), levels)
    return Decision(choice, main, tables, no_splits, trusted)


def _iso_batches(fit: Fit) -> list[float]:
    """Return the total batches of which two splits and more were run."""
    cells = design_of(fit.crossings).cells
    totals = [p * g for p, g in cells]
    return [total for total in set(totals) if totals.count(total) > 1]


def _at(table: pd.DataFrame, levels: list[float]) -> pd.DataFrame:
    near = np.isclose(table["threshold"].to_numpy(dtype=float)[:, None], levels).any(axis=1)
    return table[near].reset_index(drop=True)
