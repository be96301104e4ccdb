"""The crossing model as a check of the trajectory model: where the two disagree on the runs.

They share the law and nothing else of importance, neither curve nor noise. Where their intervals do
not even touch, the answer hangs on how curves were modelled.
"""

from __future__ import annotations

import pandas as pd

__all__ = ["CROSS_CHECK", "disagreements"]

CROSS_CHECK = "crossing model"
_KEYS = ["quantity", "at", "threshold"]
_ASKED = ("gain_total", "gain_prompts", "gain_rollouts", "batch_at_gain", "cbs_prompts",
          "cbs_rollouts", "cbs_samples", "steps")
_SHARE = 0.1  # of the numbers compared that may be apart without a word


def disagreements(cbs: pd.DataFrame, check: pd.DataFrame) -> list[str]:
    """Return one sentence where the two models' intervals lie apart too often, else none.

    Parameters
    ----------
    cbs, check : pandas.DataFrame
        Tables like ``cbs.csv`` of the same law on the same runs.
    """
    both = cbs.merge(check, on=_KEYS, suffixes=("", "_check"))
    both = both[both["quantity"].isin(_ASKED)].dropna(
        subset=["ci_lower", "ci_upper", "ci_lower_check", "ci_upper_check"])
    apart = ((both["ci_lower"] > both["ci_upper_check"])
             | (both["ci_upper"] < both["ci_lower_check"]))
    if apart.sum() <= _SHARE * len(both):
        return []
    names = ", ".join(dict.fromkeys(both.loc[apart, "quantity"]))
    return [f"The crossing model, fitted to the same runs as a check, gives intervals that do not "
            f"touch these for {int(apart.sum())} of {len(both)} numbers ({names}): the answer "
            "hangs on how the curves are modelled."]
