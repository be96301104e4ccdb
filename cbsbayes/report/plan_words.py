"""A plan in words: what it is about, what comes next, and how far the answer holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from cbsbayes.decisions.planner import Plan
from cbsbayes.report.text import at_text, quantity_label

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["batch_words", "cautions", "cost_words", "law_cautions", "per_cost_unit", "sentences",
           "target_label", "target_words"]

_ROUGH = 30.0  # effective draws
_WEIGHT = 0.05  # of another law, from which it is told
_OPEN = {"upper_bound": "only its upper end is known", "lower_bound": "only its lower end is known",
         "not_identified": "it is not identified"}


def target_label(plan: Plan) -> str:
    """Return the quantity in words, e.g. ``Prompt CBS at 8 rollouts, threshold 0.9``."""
    target = plan.target
    at = f" at {at_text(target.at)}" if target.at else ""
    where = f", threshold {target.threshold:g}" if math.isfinite(target.threshold) else ""
    return f"{quantity_label(target.name)}{at}{where}"


def target_words(plan: Plan) -> str:
    """Return the quantity and what is known of it now."""
    target = plan.target
    low, middle, high = target.interval(plan.ci_prob)
    unit = "" if target.unit == "1" else f" {target.unit}"
    if target.status in _OPEN:
        return (f"{target_label(plan)}: {_OPEN[target.status]}. Its draws, which hold the prior's "
                f"share, spread from {low:.3g} to {high:.3g}{unit}; what runs are worth is "
                "relative to that.")
    return (f"{target_label(plan)}: {middle:.3g} ({low:.3g} to {high:.3g}){unit}, median and "
            f"{100 * plan.ci_prob:g} % interval for a typical run.")


def sentences(plan: Plan) -> list[str]:
    """Return what a reader must know, what is planned first."""
    said = [target_words(plan), _next_words(plan)]
    if len(plan.runs) > 1:
        said.append(_set_words(plan))
    elif plan.request.runs > 1:
        said.append(f"The budget has room for one run, not for {plan.request.runs}.")
    said += [_close_words(plan), plan.cost.how, *cautions(plan)]
    return [sentence for sentence in said if sentence]


def batch_words(row: pd.Series | dict, one_axis: bool) -> str:
    """Return a batch in words."""
    if one_axis:
        return f"total batch {row['total_batch']:g}"
    return f"n_prompts {row['n_prompts']:g}, n_rollouts {row['n_rollouts']:g}"


def cost_words(cost: float, unit: str) -> str:
    """Return a price in words."""
    return f"{cost:,.0f} {unit}" if unit == "samples" else f"{cost:,.3g} {unit}"


def per_cost_unit(plan: Plan) -> tuple[float, str]:
    """Return a factor and a unit in which information per price is a number to read."""
    best = float(plan.table["per_cost"].max())
    power = 0 if best <= 0 else -3 * math.floor(math.log10(best) / 3)
    scale = "" if power == 0 else f"10^{power} "
    return 10.0**power, f"nats per {scale}{plan.cost.unit}"


def _next_words(plan: Plan) -> str:
    row = plan.runs.iloc[0]
    return (f"Next: {batch_words(row, plan.tried.one_axis)}, {row['updates']:g} updates, seed "
            f"{row['seed']:g} ({cost_words(row['cost'], plan.cost.unit)}): "
            f"{row['added']:.3g} ± {row['added_error']:.1g} nats, which narrows the interval by "
            f"{_percent(math.exp(-row['added']))} on average; one new run there passes the target "
            f"with probability {row['reach']:.2f}.")


def _set_words(plan: Plan) -> str:
    last, best = plan.runs.iloc[-1], plan.table.iloc[0]
    dear = any(plan.runs.iloc[0][key] != best[key]
               for key in ("n_prompts", "n_rollouts", "updates"))
    why = (" Within this budget and number of runs, taking the most informative first tells more "
           "than taking the best per price first.") if dear else ""
    return (f"Together the {len(plan.runs)} runs cost "
            f"{cost_words(last['cost_so_far'], plan.cost.unit)} and tell {last['together']:.3g} ± "
            f"{last['together_error']:.1g} nats: the interval is expected to be "
            f"{_percent(last['width_ratio'])} narrower.{why}")


def _percent(ratio: float) -> str:
    return f"{100 * (1 - ratio):.2g} %"


def _close_words(plan: Plan) -> str:
    table = plan.table[plan.table["resolved"]]
    if len(table) < 2:
        return ""
    best = table.iloc[0]
    near = (table["per_cost"] + 2 * table["per_cost_error"]
            >= best["per_cost"] - 2 * best["per_cost_error"]).sum()
    return (f"{near} of {len(plan.table)} candidates are within two Monte Carlo errors of the best "
            "per price.")


def law_cautions(fit: Fit) -> list[str]:
    """Return a sentence where other laws than the one planned under have a share of the weight."""
    table = fit.law_table
    if "weight" not in table:
        return []
    others = table[(table["law"] != fit.law.name) & (table["weight"] >= _WEIGHT)]
    if others.empty:
        return []
    own = table.loc[table["law"] == fit.law.name, "weight"].sum()
    listed = ", ".join(f"{law} {weight:.2g}"
                       for law, weight in zip(others["law"], others["weight"], strict=True))
    return [f"What a run tells is computed under the law {fit.law.name} alone, whose weight by "
            f"left-out runs is {own:.2g}; others have some as well ({listed}), under which another "
            "run may be the best, and what tells laws apart is not counted."]


def cautions(plan: Plan) -> list[str]:
    """Return what stands between a plan and taking it at its word."""
    said = []
    table, runs = plan.table, plan.runs
    if not table["resolved"].any():
        said.append("No candidate tells anything that is above twice its Monte Carlo error: more "
                    "runs like these hardly help with this quantity, or give more --data-sets.")
    elif not table["resolved"].all():
        lost = int((~table["resolved"]).sum())
        said.append(f"Candidates that tell less than twice their Monte Carlo error stand last: "
                    f"{lost}.")
    if runs["extrapolated"].any():
        said.append("A planned batch lies outside the ranges tried: there the fitted law is "
                    "stretched, and so are price and information.")
    if (runs["cost_range"] == "extrapolated").any():
        said.append("The step time of a planned batch is extrapolated: it lies outside the batches "
                    "that were timed.")
    said += plan.cost.notes
    if float(runs["effective_draws"].min()) < _ROUGH:
        said.append(f"Rough: the set leaves {runs['effective_draws'].min():.0f} effective draws; "
                    "plan fewer runs at a time, or fit with more draws.")
    return said
