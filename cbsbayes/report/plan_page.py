"""A plan as a page: which run next, what every candidate tells for its price, how to start it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cbsbayes.decisions.planner import Plan
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.versions import versions
from cbsbayes.report.facts import Facts
from cbsbayes.report.numbers import count
from cbsbayes.report.page import Page, Section, page_figure
from cbsbayes.report.plan_tables import candidates_table, runs_table
from cbsbayes.report.plan_words import batch_words, cautions, cost_words, law_cautions, target_label
from cbsbayes.report.text import paragraph

__all__ = ["plan_page"]

_SHOWN = 12  # candidates that need no click
_DEFINITIONS = {
    "information": "Expected gain about the quantity in nats: by how much the log of its standard "
                   "deviation, on the scale of its normal scores, is expected to fall.",
    "interval": "Expected (geometric mean) width of the quantity's interval after the run, over "
                "its width now.",
    "reach": "Probability that one new run of that length passes the target's threshold.",
    "runs": "Runs of that batch made so far.",
    "added, together": "What a planned run tells beyond those before it, and all up to it.",
    "outside": "The batch lies outside the ranges of prompts, rollouts or samples tried.",
    "extrapolated": "Of a cost: the batch lies outside those whose steps were timed.",
    "below": "Less than twice its Monte Carlo error: not told from nothing.",
}


def plan_page(plan: Plan, fit: Fit, record: dict[str, Any], folder: Path) -> Page:
    """Return what stands on the page of a plan.

    Parameters
    ----------
    plan : Plan
        The plan.
    fit : Fit
        What it is based on.
    record : dict
        Of `cbsbayes.decisions.plan_record.plan_record`.
    folder : Path
        With the figure, ``plan.svg``, drawn.
    """
    careful = [*cautions(plan), *law_cautions(fit)]
    sampled = bool(fit.verdict["sampling"]["passed"])
    return Page(
        kicker="Which run next", title=f"Which run tells most about: {target_label(plan)}?",
        asked=_asked(plan, fit), level=fit.verdict["level"], verdict=fit.verdict["title"],
        cautions=[*([] if sampled else fit.verdict["sentences"]), *careful],
        answer=_answer(record["sentences"], careful), sections=_parts(plan, record, folder),
        definitions=_DEFINITIONS, paper=_paper(plan, fit), laws=[fit.law],
        made=_made(plan, fit, record),
        files=["plan.csv", "runs.csv", "plan.json", "plan.svg", "plan.pdf"])


def _asked(plan: Plan, fit: Fit) -> str:
    request = plan.request
    budget = (f" within {cost_words(request.budget, plan.cost.unit)} together"
              if np.isfinite(request.budget) else "")
    runs = "The next run was" if request.runs == 1 else f"Up to {request.runs} runs were"
    return (f"{runs} asked for{budget}, of {len(plan.table)} candidates, from the fit of "
            f"{fit.crossings.sizes['run']} runs of {fit.group}, law {fit.law.name}.")


def _answer(sentences: list[str], careful: list[str]) -> list[str]:
    """Return the sentences with what comes next first, and without those told as cautions."""
    told = [sentence for sentence in sentences if sentence not in careful]
    return sorted(told, key=lambda sentence: not sentence.startswith("Next: "))


def _parts(plan: Plan, record: dict[str, Any], folder: Path) -> list[Section]:
    more = len(plan.table) > _SHOWN
    figure = page_figure(
        folder, "plan", "Information per price",
        "What a run of every batch is expected to tell for its price, at its best length. A dot "
        "stands for every run made so far, an orange frame for a planned run with its place in "
        "the order, hatching for a batch outside the ranges tried, grey for information below "
        "twice its Monte Carlo error.")
    return [
        Section("runs", "The planned runs", tables={"runs": runs_table(plan)}, kind="narrow"),
        Section("start", "How to start them", intro=record["lines_from"], lines=record["lines"]),
        Section("candidates", "All candidates, best per price first",
             tables={"candidates": candidates_table(plan, _SHOWN)}, figures=[figure],
             folded={"all_candidates": candidates_table(plan)} if more else {},
             kind="narrow"),
    ]


def _paper(plan: Plan, fit: Fit) -> str:
    request, first = plan.request, plan.runs.iloc[0]
    provisional = ("" if fit.verdict["sampling"]["passed"] else
                   "The fit did not pass its checks; the plan is provisional.")
    chosen = (f"The next runs were chosen among {len(plan.table)} candidate batches and lengths by "
              f"the expected information about one quantity ({target_label(plan)}): for each "
              f"candidate, {request.data_sets} data sets were simulated from the posterior and "
              f"each used to reweight up to {count(request.draws)} posterior draws.")
    best = (f"The first is {batch_words(first, plan.tried.one_axis)} for {first['updates']:g} "
            f"updates, expected to tell {first['added']:.3g} nats (Monte Carlo standard error "
            f"{first['added_error']:.1g}) for {cost_words(first['cost'], plan.cost.unit)}.")
    facts = Facts(fit)
    parts = [provisional, paragraph("data", facts=facts), paragraph("law", facts=facts), chosen,
             best, plan.cost.how, *law_cautions(fit), paragraph("software", facts=facts)]
    return " ".join(part for part in parts if part)


def _made(plan: Plan, fit: Fit, record: dict[str, Any]) -> dict[str, object]:
    request = {name: "" if value is None else value for name, value in record["request"].items()}
    return {"command": record["command"], "request": request,
            "evaluated_every": plan.tried.every, "cost": plan.cost.how,
            "fit": {name: fit.settings.get(name, "") for name in (
                "law", "metric", "thresholds", "ci_prob", "draws", "chains", "random_seed",
                "data_digest")},
            "versions": versions()}
