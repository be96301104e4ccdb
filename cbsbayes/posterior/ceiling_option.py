"""The option of a ceiling for every group size: its name, who may have it, what it found."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law
from cbsbayes.models.variables import SATURATION

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
    rows = cbs.to_dict("records")
    ceilings = {row["at"]: row for row in rows if row["quantity"] == "ceiling"}
    groups = [f"{_text(row)} of it with groups of {str(row['at']).partition('=')[2]}"
              + (f", an accuracy of {_text(ceilings[row['at']])}"
                 if ceilings[row["at"]]["status"] != "not_identified" else "")
              for row in rows if row["quantity"] == "reach"]
    (loss,) = [_text(row) for row in rows if row["quantity"] == SATURATION]
    notes = [f"Every group size has a ceiling of its own in this fit ({OPTION}): "
             f"exp(−λ/n_rollouts) of the gain of endless groups is within reach, λ {loss}. That is "
             f"{'; '.join(groups)}.",
             "With ceilings S_min is that of endless groups, and a critical batch at a group size "
             "is where S is twice the least that this group size needs."]
    unreached = cbs[(cbs["quantity"] == "steps") & cbs["ci_upper"].isna()]
    if len(unreached):
        levels = ", ".join(f"{t:g}" for t in sorted(set(unreached["threshold"])))
        notes.append(f"Some batches tried may never reach {levels}: their S has no upper end, and "
                     "lines and bands of figures end there.")
    return notes


def _text(row: Mapping[Hashable, Any]) -> str:
    """Return a row's number and its interval, or the bound that the runs settle."""
    median, lower, upper = (row[name] for name in ("median", "ci_lower", "ci_upper"))
    return {"identified": f"{median:.2f} ({lower:.2f}–{upper:.2f})",
            "upper_bound": f"at most {upper:.2f}", "lower_bound": f"at least {lower:.2f}",
            }.get(row["status"], "not settled by these runs")
