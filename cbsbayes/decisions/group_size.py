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
from cbsbayes.posterior.quantities import Quantity, best_rollouts
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
    if prompt is None or rollout is None:
        given, other = (("--rollout-cost", "--prompt-cost") if prompt is None else
                        ("--prompt-cost", "--rollout-cost"))
        raise CBSDataError(f"{given} was given without {other}; valid: both, in the same unit "
                           "(only their ratio counts)")
    for name, value in (("--prompt-cost", prompt), ("--rollout-cost", rollout)):
        if not (np.isfinite(value) and value > 0):
            raise CBSDataError(f"{name} is {value:g}; valid: positive and finite")
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

    Raises
    ------
    CBSDataError
        If costs are given for a fit with a ceiling for every group size.
    """
    if SATURATION in fit.posterior:
        if costs is not None:
            raise CBSDataError("costs were given, but the fit has a ceiling for every group size, "
                               "with which no group size is the cheapest at every budget; leave "
                               f"the costs out, or fit without {OPTION}")
        return fit.cbs[fit.cbs["quantity"] == "best_n_rollouts"].reset_index(drop=True)
    found, before = ([_quantities(fit.law, fit.posterior, costs), _quantities(fit.law, fit.prior,
                                                                              costs)]
                     if fit.law.two_axis else ([], []))
    table = cbs_table(found, before, law=fit.law, group=fit.group, ci_prob=fit.settings["ci_prob"])
    axes = (fit.crossings["n_prompts"].values, fit.crossings["n_rollouts"].values)
    if any(len(np.unique(axis)) < 2 for axis in axes):  # then cbs.csv leaves the group size out
        table["status"] = "not_identified"
        table[["median", "mean", "sd", "ci_lower", "ci_upper"]] = np.nan
    return table


def _quantities(law: Law, draws: xr.Dataset, costs: Costs | None) -> list[Quantity]:
    found = []
    if law.group_baseline:
        found.append(Quantity("best_n_rollouts", "", "rollouts", best_rollouts(draws)))
    if costs is not None:
        size = (((draws["B_rollout"] / draws["B_prompt"]) * costs.ratio) ** 0.5).clip(min=1.0)
        if law.group_baseline:
            size = best_rollouts(draws, costs.ratio)
        found.append(Quantity("best_n_rollouts_at_cost", f"prompt_over_rollout={costs.ratio:.6g}",
                              "rollouts", size))
    return found
