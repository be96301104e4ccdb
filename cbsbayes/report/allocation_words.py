"""Which batch to run, in sentences written from the tables of a decision.

They answer the question of the iso-batch phase: which split of one batch is best, how sure that
is, what another costs, and whether the runs that were made agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cbsbayes.report import numbers
from cbsbayes.report.facts import find
from cbsbayes.report.numbers import estimate, probability
from cbsbayes.report.text import plain

if TYPE_CHECKING:
    from cbsbayes.decisions.decision import Decision
    from cbsbayes.posterior.fit import Fit

__all__ = ["at_threshold", "check_sentences", "group_size_sentences", "named", "probability",
           "split_sentences", "target_sentences"]

def at_threshold(decision: Decision, name: str) -> pd.DataFrame | None:
    """Return a table at the decision's threshold, None where there is none."""
    table = decision.tables.get(name)
    if table is None:
        return None
    return table[np.isclose(table["threshold"].astype(float), decision.threshold)]


def named(row: pd.Series) -> str:
    """Return a batch of two axes in words."""
    return f"{int(row['n_prompts']):,d} prompts × {int(row['n_rollouts']):,d} rollouts"


def _target(decision: Decision, fit: Fit) -> str:
    falling = fit.sweep.attrs.get("direction") == "decreasing"
    return f"{'a target' if falling else 'an accuracy'} of {plain(decision.threshold)}"


def split_sentences(decision: Decision, fit: Fit) -> list[str]:
    """Return the answer about the splits of the batch at the decision's threshold."""
    table = at_threshold(decision, "splits")
    if table is None or not table["chosen"].any():
        return []
    best = table[table["chosen"]].iloc[0]
    other = _other(table, fit)
    among = ("of all splits inside the range tried" if np.isfinite(best["p_best_inside"])
             else "of its splits, all outside the range tried")
    p = best["p_best_inside"] if np.isfinite(best["p_best_inside"]) else best["p_best"]
    first = (f"At {decision.total:,d} samples an update, {named(best)} takes the fewest updates "
             f"to {_target(decision, fit)}, {among}, with probability {probability(p)}.")
    if other is None:
        return [first]
    if not np.isfinite(other["regret"]):
        return [f"{first} It beats {named(other)} with probability "
                f"{probability(other['p_worse'])}; the latter may never get there, the ceiling of "
                "its group size being too low. A typical run is meant."]
    lost, least, most = (numbers.percent(other[name]) for name in (
        "regret", "regret_lower", "regret_upper"))
    return [f"{first} It beats {named(other)} with probability {probability(other['p_worse'])}; "
            f"the latter is expected to take {lost} more updates ({least} to {most}) than the "
            "best. A typical run is meant."]


def _other(table: pd.DataFrame, fit: Fit) -> pd.Series | None:
    """Return the split to compare with: at the group size of most runs, else the runner-up."""
    rest = table[~table["chosen"] & (table["range"] != "extrapolated")]
    if rest.empty:
        return None
    used = fit.runs.loc[fit.runs["used"].astype(bool), "n_rollouts"]
    usual = rest[rest["n_rollouts"] == used.mode().max()]
    return usual.iloc[0] if len(usual) else rest.sort_values("regret").iloc[0]


def group_size_sentences(decision: Decision, fit: Fit) -> list[str]:
    """Return the cheapest group size at the decision's threshold, under the other laws too."""
    table = at_threshold(decision, "group_size")
    if table is None:
        return []
    words = {"best_n_rollouts": "at a fixed number of samples",
             "best_n_rollouts_at_cost": "at a fixed cost"}
    said = [f"The cheapest group size {words[str(row['quantity'])]} is {_size(row)}."
            for _, row in table.iterrows()]
    others = {law: find(cbs, "best_n_rollouts", decision.threshold, "")
              for law, cbs in fit.others.items()}
    beside = [f"{estimate(row)} under {law}" for law, row in others.items() if row is not None]
    return said + ([f"At a fixed number of samples it is {', '.join(beside)}."] if beside else [])


def _size(row: pd.Series) -> str:
    told = estimate(row)
    if told.status == "not_identified":
        return "not settled by these runs"
    held, _, value = str(row["at"]).partition("=")
    if held == "total_batch":
        return f"{told} rollouts (of {int(value):,d} samples)"
    return f"{told} rollouts" + (f", a prompt costing {value} rollouts" if value else "")


def target_sentences(decision: Decision, fit: Fit) -> list[str]:
    """Return which batch meets the target, typical run and new run, at the smallest total."""
    table = at_threshold(decision, "targets")
    if table is None:
        return []
    end = "smallest" if table["target"].iloc[0] == "updates" else "largest"
    return [_target_words(rows[(rows["end"] == end) | ~rows["met"].astype(bool)], str(who), end,
                          decision, fit)
            for who, rows in table.groupby("applies_to", sort=False)]


def _target_words(
    rows: pd.DataFrame, who: str, end: str, decision: Decision, fit: Fit
) -> str:
    first = rows.iloc[0]
    asked = (f"{numbers.count(first['value'])} {first['target']} to {_target(decision, fit)} "
             f"with probability {first['probability']:.12g}, {who}")
    met = rows[rows["met"].astype(bool)]
    if met.empty:
        return (f"At most {asked}: cannot be met along any line of the batches tried; the largest "
                f"probability is {probability(rows['p_most'].max())}.")
    best = met.sort_values(["total_batch", "steps"],
                           ascending=[end == "smallest", True]).iloc[0]
    where = "" if best["range"] != "extrapolated" else ", extrapolated"
    name = named(best) if np.isfinite(best["n_prompts"]) else "the batch"
    return (f"At most {asked}: the {end} batch that meets it is {name} = "
            f"{numbers.count(best['total_batch'])} samples{where}.")


def check_sentences(decision: Decision) -> list[str]:
    """Return whether the runs of that batch agree with what is predicted for them."""
    table = decision.tables.get("iso_batch")
    if table is None or table.empty:
        return []
    seen = bool(table["runs_seen"].iloc[0])
    how = ("this fit, which has seen them" if seen else "a fit that left them out")
    wrong = table[table["verdict"] != "agree"]
    first = (f"The runs of {decision.total:,d} samples as predicted by {how}: "
             f"{len(table) - len(wrong)} of {len(table)} means of a split at a threshold agree "
             f"({len(table) * (1.0 - float(table['ci_prob'].iloc[0])):.0f} at most are due to "
             "disagree by chance).")
    return [first, *_ranking(table), *(_disagreement(row) for _, row in wrong.iterrows()),
            *_saturation(table)]


def _ranking(table: pd.DataFrame) -> Iterator[str]:
    """Yield how often the split of least observed S was the one predicted, and how often due."""
    known = table[table.groupby("threshold")["observed_least"].transform("any")]
    if known.empty:
        return
    likeliest = known.loc[known.groupby("threshold")["p_least"].idxmax()]
    yield (f"The split of least observed S was the likeliest one at "
           f"{likeliest['observed_least'].sum()} of {len(likeliest)} thresholds at which all runs "
           f"arrived; {likeliest['p_least'].sum():.1f} were due, as few runs differ by chance.")


def _disagreement(row: pd.Series) -> str:
    observed = (f"more than {numbers.short(row['observed_lower'])}"
                if np.isinf(row["observed_upper"]) else
                numbers.interval(row["observed_lower"], row["observed_upper"]))
    return (f"Warning: {named(row)} was {row['verdict']} than predicted at {row['threshold']:g}: "
            f"{observed} updates observed, "
            f"{numbers.interval(row['predicted_lower'], row['predicted_upper'])} predicted.")


def _saturation(table: pd.DataFrame) -> Iterator[str]:
    """Yield the reading that fits when the smallest groups never arrive: a lower ceiling."""
    smallest = table[table["n_rollouts"] == table["n_rollouts"].min()]
    if ((smallest["verdict"] == "slower") & (smallest["n_not_reached"] > 0)).any():
        yield ("Small groups that never arrive may saturate at a lower ceiling, which the law "
               "does not know: their S is then not a matter of the batch.")
