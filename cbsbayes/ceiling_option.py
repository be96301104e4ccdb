"""The option of a ceiling for every group size: its name, who may have it, what it told."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.laws import Law

__all__ = ["OPTION", "ceiling_sentences", "check_ceilings"]

OPTION = "--ceiling-by-group"


def check_ceilings(model: str, law: Law, n_rollouts: np.ndarray | None = None) -> None:
    """Refuse what cannot have a ceiling for every group size.

    Parameters
    ----------
    model : str
        Name of the model.
    law : Law
        The law to be fitted.
    n_rollouts : numpy.ndarray, optional
        Group sizes of the runs to be fitted, where they are known already.

    Raises
    ------
    CBSDataError
        If the model has no curves, the law no group size, or all runs one group size.
    """
    if model != "trajectory":
        raise CBSDataError(f"{OPTION} was given with --model {model}, which knows no curves and so "
                           "no ceilings; use --model trajectory, or leave it out")
    if not law.two_axis:
        raise CBSDataError(f"{OPTION} was given with the law {law.name}, which has no group size; "
                           "use a two-axis law, such as --law two_axis_free, or leave it out")
    if n_rollouts is not None and len(np.unique(n_rollouts)) < 2:
        raise CBSDataError(f"{OPTION} was given, but all runs fitted have n_rollouts = "
                           f"{n_rollouts[0]:g}: one group size cannot be told from another; add "
                           "runs with other n_rollouts, or leave it out")


def ceiling_sentences(cbs: pd.DataFrame) -> list[str]:
    """Return what a fit with ceilings says of them, from its table of quantities.

    Parameters
    ----------
    cbs : pandas.DataFrame
        Of a fit with `OPTION`: rows ``ceiling_loss``, ``reach`` and ``ceiling``.
    """
    loss = _told(cbs[cbs["quantity"] == "ceiling_loss"].iloc[0])
    groups = [f"{_told(row)} of it with groups of {str(row['at']).partition('=')[2]}"
              + _ceiling(cbs, str(row["at"]))
              for _, row in cbs[cbs["quantity"] == "reach"].iterrows()]
    said = [f"Every group size has a ceiling of its own in this fit ({OPTION}): exp(−λ/n_rollouts) "
            f"of the gain of endless groups is within reach, λ {loss}; that is "
            f"{', '.join(groups)}.",
            "With ceilings S_min is that of endless groups, and a critical batch at a group size "
            "is where S is twice the least that this group size needs."]
    never = cbs[(cbs["quantity"] == "steps") & cbs["ci_upper"].isna()]
    if len(never):
        levels = ", ".join(f"{t:g}" for t in sorted(set(never["threshold"])))
        said.append(f"Some batches tried may never reach {levels}: their S has no upper end.")
    return said


def _ceiling(cbs: pd.DataFrame, at: str) -> str:
    row = cbs[(cbs["quantity"] == "ceiling") & (cbs["at"] == at)].iloc[0]
    return "" if row["status"] == "not_identified" else f" (an accuracy of {_told(row)})"


def _told(row: pd.Series) -> str:
    """Return a row's number with its interval in words, a bound, or that it is not known."""
    ends = f"{row['ci_lower']:.3g} to {row['ci_upper']:.3g}"
    return {"identified": f"{row['median']:.3g}, {ends}",
            "upper_bound": f"at most {row['ci_upper']:.3g}",
            "lower_bound": f"at least {row['ci_lower']:.3g}"}.get(
                str(row["status"]), "not identified")
