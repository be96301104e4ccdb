r"""The cheapest group size at a fixed batch, and at fixed costs, as posteriors.

At a fixed number of samples P·G the updates to a target are fewest at

.. math:: G_{opt} = 1 + \sqrt{B_r / B_p},

for every exponent. Where an update costs :math:`P (c_p + c_r G)`, a prompt its prefill and a
rollout its decoding, what is fixed is that cost, and

.. math:: G_{opt} = 1 + \sqrt{(B_r / B_p) (1 + c_p / c_r)} .

Without a group baseline (1/G in place of 1/(G - 1)) a fixed batch is best spent on prompts, G = 1,
and costs give :math:`\max(1, \sqrt{(B_r/B_p)\, c_p/c_r})`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.variables import SATURATION
from cbsbayes.posterior.ceiling_option import OPTION
from cbsbayes.posterior.quantities import Quantity
from cbsbayes.posterior.tidy import cbs_table

if TYPE_CHECKING:
    from cbsbayes.models.laws import Law
    from cbsbayes.posterior.fit import Fit

__all__ = ["Costs", "check_costs", "group_size_table"]


@dataclass(frozen=True)
class Costs:
    """What a prompt (prefill) and a rollout (decoding) cost, both in the same unit."""

    prompt: float
    rollout: float

    @property
    def ratio(self) -> float:
        """Cost of a prompt over that of a rollout."""
        return self.prompt / self.rollout


def check_costs(prompt: float | None, rollout: float | None) -> Costs | None:
    """Return the costs; None where neither is given.

    Raises
    ------
    CBSDataError
        If one is missing, or one is not positive and finite.
    """
    if prompt is None and rollout is None:
        return None
    for name, value, other in (("--prompt-cost", prompt, "--rollout-cost"),
                               ("--rollout-cost", rollout, "--prompt-cost")):
        if value is None:
            raise CBSDataError(f"{other} was given without {name}; valid: both, in the same unit "
                               "(only their ratio counts)")
        if not (np.isfinite(value) and value > 0):
            raise CBSDataError(f"{name} is {value:g}; valid: positive and finite")
    assert prompt is not None
    assert rollout is not None
    return Costs(prompt, rollout)


def group_size_table(fit: Fit, costs: Costs | None = None) -> pd.DataFrame:
    """Return the cheapest group sizes, a row per threshold, in the columns of ``cbs.csv``.

    Parameters
    ----------
    fit : Fit
        The fit.
    costs : Costs, optional
        Adds rows ``best_n_rollouts_at_cost``, whose ``at`` holds the ratio of the costs.

    Returns
    -------
    pandas.DataFrame
        Columns `cbsbayes.posterior.tidy.CBS_COLUMNS`; empty where the law knows no splits. A
        bound is printed as one, and a size that the runs do not settle as ``not_identified``.
    """
    if SATURATION in fit.posterior:
        return _with_ceilings(fit, costs)
    both = [_quantities(fit.law, draws, costs) if fit.law.two_axis else []
            for draws in (fit.posterior, fit.prior)]
    table = cbs_table(*both, law=fit.law, group=fit.group, ci_prob=fit.settings["ci_prob"])
    unsettled = _only_one_axis(fit)
    if unsettled:  # as cbs.csv, which then leaves the group size out
        table["status"] = "not_identified"
        table[["median", "mean", "sd", "ci_lower", "ci_upper"]] = np.nan
    return table


def _with_ceilings(fit: Fit, costs: Costs | None) -> pd.DataFrame:
    """Return what ``cbs.csv`` says: with ceilings the best group size depends on the batch."""
    if costs is not None:
        raise CBSDataError("costs were given, but the fit has a ceiling for every group size, with "
                           "which no group size is the cheapest at every budget; leave the costs "
                           f"out, or fit without {OPTION}")
    rows = fit.cbs["quantity"] == "best_n_rollouts"
    return fit.cbs[rows].reset_index(drop=True)


def _only_one_axis(fit: Fit) -> bool:
    axes = (fit.crossings["n_prompts"].values, fit.crossings["n_rollouts"].values)
    return any(len(np.unique(axis)) < 2 for axis in axes)


def _quantities(law: Law, draws: xr.Dataset, costs: Costs | None) -> list[Quantity]:
    ratio = draws["B_rollout"] / draws["B_prompt"]

    def root(factor: float) -> xr.DataArray:
        return ratio.copy(data=np.sqrt(factor * ratio.values))

    found = []
    if not law.plain:
        found.append(Quantity("best_n_rollouts", "", "rollouts", 1.0 + root(1.0)))
    if costs is not None:
        size = root(costs.ratio).clip(min=1.0) if law.plain else 1.0 + root(1.0 + costs.ratio)
        found.append(Quantity("best_n_rollouts_at_cost", f"prompt_over_rollout={costs.ratio:.6g}",
                              "rollouts", size))
    return found
