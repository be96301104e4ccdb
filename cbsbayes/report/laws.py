"""Which law predicts left-out runs best, in sentences written from the table of laws."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from cbsbayes.models.laws import LAWS
from cbsbayes.report import numbers

__all__ = ["law_sentences"]

_TOLD_APART = 2.0  # standard errors of the difference


def law_sentences(table: pd.DataFrame) -> list[str]:
    """Return the best law and how far each other one falls behind it.

    Parameters
    ----------
    table : DataFrame
        Laws ranked by left-out runs: ``law, elpd_diff, dse`` (nats, 0 for the best).

    Returns
    -------
    list of str
        Empty where there is nothing to compare.
    """
    if len(table) < 2:
        return []
    ranked = table.sort_values("elpd_diff", ascending=False)
    best = str(ranked["law"].iloc[0])
    return [f"Left-out runs are predicted best by {best}: {_form(best)}.",
            *_behind(ranked.iloc[1:])]


def _behind(rows: pd.DataFrame) -> Iterator[str]:
    for _, row in rows.iterrows():
        difference, error = float(row["elpd_diff"]), float(row["dse"])
        name = str(row["law"])
        if not (math.isfinite(difference) and math.isfinite(error)):
            yield f"{name} could not be compared."
            continue
        apart = abs(difference) > _TOLD_APART * error
        yield (f"{name} ({_form(name)}): {numbers.number(difference, 1)} ± "
               f"{numbers.number(error, 1)} in elpd, "
               f"{'predicts worse' if apart else 'not told apart'}.")


def _form(name: str) -> str:
    """Return what a law says of the batch, in words."""
    law = LAWS.get(name)
    if law is None:
        return "another form"
    exponent = {None: "exponent free", 1.0: "exponent 1", 0.5: "exponent ½"}[law.alpha]
    if not law.two_axis:
        return f"prompts and rollouts pooled as samples, {exponent}"
    return f"rollout noise in {'1/G' if law.plain else '1/(G − 1)'}, {exponent}"
