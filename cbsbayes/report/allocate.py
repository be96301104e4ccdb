"""Which batch to run: sentences, tables, and the page of ``allocate``; time and cost with them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.batches import NEW_RUN, POPULATION
from cbsbayes.decisions.decision import Decision
from cbsbayes.decisions.time_to_target import HOURS, MONEY, TimeAnswer
from cbsbayes.plots.gallery import all_figures
from cbsbayes.plots.style import time_unit
from cbsbayes.posterior.fit import Fit, versions
from cbsbayes.posterior.learning_rate import best_rates
from cbsbayes.posterior.tidy import interval
from cbsbayes.report.facts import Facts
from cbsbayes.report.page import Page, drawn, sections_of
from cbsbayes.report.tables import Table, laid_out, on_axes
from cbsbayes.report.text import (
    Estimate,
    batch_text,
    count,
    estimate,
    paragraph,
    parse_at,
    plain,
    probability,
    rate_number,
    rate_text,
    sentences,
)
from cbsbayes.report.text import spec as layout_of

__all__ = ["SETTINGS", "allocate_notes", "allocate_page", "allocate_sentences", "allocate_tables",
           "asked_tables", "time_notes", "time_sentences", "time_tables"]

SETTINGS = ("law", "metric", "thresholds", "ci_prob", "draws", "chains", "random_seed",
            "data_digest")
"""Settings of a fit that pages of commands repeat."""

_SHOWN, _BOUNDS = 12, 4  # batches of the table of times, and on GPU counts other than the runs' own
_WHO = {POPULATION: "the population of runs", NEW_RUN: "one new run"}


def allocate_sentences(facts: Facts, decision: Decision) -> list[str]:
    """Return the answer in sentences."""
    sizes = decision.at_threshold("group_size")
    alternatives = {law: facts.fact("best_n_rollouts", cbs)
                    for law, cbs in facts.fit.others.items()} if len(sizes) else {}
    best, other = _compared(decision.at_threshold("splits"), facts)
    check = decision.tables.get("iso_batch")
    return sentences(
        "allocate", facts=facts, decision=decision, infinity=np.inf, best=best, other=other,
        sizes=[{**row, "note": _size_note(row)} for row in sizes.to_dict("records")],
        alternatives={law: fact.estimate for law, fact in alternatives.items() if fact},
        rate="" if best is None else _best_rate(
            facts.fit, best["n_prompts"], best["n_rollouts"], decision.threshold),
        targets=_target_rows(decision), budgets=list(_best_of_budgets(decision).values()),
        rate_number=rate_number, ramp=decision.table("schedule").to_dict("records"),
        check=None if check is None else _check_facts(check))


def _best_rate(fit: Fit, n_prompts: float, n_rollouts: float, threshold: float) -> str:
    """Return the best learning rate at a batch; empty where the law knows none."""
    if not fit.law.learning_rate:
        return ""
    draws = best_rates(fit, n_prompts, n_rollouts, threshold)
    lower, upper = interval(draws, float(fit.settings["ci_prob"]))
    return rate_text({"status": "identified", "median": np.median(draws), "ci_lower": lower,
                      "ci_upper": upper})


def _compared(splits: pd.DataFrame, facts: Facts) -> tuple[dict[Hashable, Any] | None, ...]:
    """Return the split chosen, and the one at the usual group size, else the runner-up."""
    if not splits["chosen"].any():
        return None, None
    rows = splits.assign(p=splits["p_best_inside"].fillna(splits["p_best"]))
    chosen = rows["chosen"].astype(bool)
    rest = rows[~chosen & (rows["range"] != "extrapolated")].sort_values("regret")
    usual = rest[rest["n_rollouts"] == facts.batch.get("n_rollouts")]
    others = [*usual.to_dict("records"), *rest.to_dict("records"), None]
    return rows[chosen].to_dict("records")[0], others[0]


def _size_note(row: Mapping[Hashable, Any]) -> str:
    held = parse_at(row["at"])
    if "total_batch" in held:
        return f"of {count(float(held['total_batch']))} samples"
    ratio = held.get("prompt_over_rollout")
    return f"a prompt costing {ratio} rollouts" if ratio else ""


def _target_rows(decision: Decision) -> list[dict[Hashable, Any]]:
    """Return the batch that meets the target with the least (or most) samples, per kind of run."""
    rows: list[dict[Hashable, Any]] = []
    targets = decision.at_threshold("targets")
    for _, table in targets.groupby("applies_to", sort=False):
        end = "smallest" if table["target"].iloc[0] == "updates" else "largest"
        met = table[table["met"].astype(bool) & (table["end"] == end)]
        best = met.sort_values(["total_batch", "steps"], ascending=[end == "smallest", True])
        first = (table if met.empty else best).iloc[0]
        rows.append({**first.to_dict(), "p_most": table["p_most"].max(), "met": not met.empty})
    return rows


def _best_of_budgets(decision: Decision) -> dict[str, list[dict[Hashable, Any]]]:
    """Return the best batch of every multiple, by the unit of the budget.

    With ``groups``, the probability that the best batch has a group size.
    """
    found: dict[str, list[dict[Hashable, Any]]] = {}
    by = decision.table("budget").groupby(["budget_unit", "multiple"], sort=False)
    for (unit, _), part in by:
        groups = part.groupby("n_rollouts")["p_best"].sum()
        best = part.sort_values("p_best").iloc[-1].to_dict()
        found.setdefault(str(unit), []).append(
            {**best, "groups": groups.to_dict(), "group": groups.idxmax(), "p": groups.max()})
    return found


def _check_facts(table: pd.DataFrame) -> dict[str, Any]:
    """Return how many means agree with their prediction, and those that do not."""
    wrong = table[table["verdict"] != "agree"]
    known = table[table.groupby("threshold")["observed_least"].transform("any")]
    likeliest = known.loc[known.groupby("threshold")["p_least"].idxmax()]
    smallest = table[table["n_rollouts"] == table["n_rollouts"].min()]
    return {
        "seen": bool(table["runs_seen"].iloc[0]), "n": len(table), "agree": len(table) - len(wrong),
        "by_chance": len(table) * (1.0 - float(table["ci_prob"].iloc[0])),
        "ranked": len(likeliest), "first": int(likeliest["observed_least"].sum()),
        "due": float(likeliest["p_least"].sum()), "wrong": wrong.to_dict("records"),
        "saturated": bool(((smallest["verdict"] == "slower")
                           & (smallest["n_not_reached"] > 0)).any())}


def allocate_notes(facts: Facts, decision: Decision) -> list[str]:
    """Return what could not be answered, and what is answered with a reservation."""
    splits = decision.table("splits")
    levels = splits.groupby("status")["threshold"].unique()
    return sentences(
        "allocate_notes", decision=decision, law=facts.fit.law,
        statuses={status: [plain(t) for t in found] for status, found in levels.items()},
        extrapolated=len(splits) and bool((splits["range"] == "extrapolated").all()))


def allocate_tables(decision: Decision) -> dict[str, Table | None]:
    """Return the tables of a decision as text by the names of their files; None where absent."""
    rows = {name: decision.at_threshold(name) for name in ("splits", "targets", "front",
                                                            "iso_batch")}
    sizes = decision.table("group_size")
    parts = dict(iter(sizes.groupby("at", sort=False)))
    places = [{"place": _size_note(part.iloc[0].to_dict()) or "at a fixed batch"}
              for part in parts.values()]
    by_target = {plain(t): [estimate(part[part["threshold"] == t].iloc[0])
                            for part in parts.values()] for t in sizes["threshold"].unique()}
    asked = dict(rows["targets"].iloc[0]) if len(rows["targets"]) else {}
    context = {"target": decision.threshold, "total": decision.batch.total,
               "seen": bool(rows["iso_batch"]["runs_seen"].all()),
               "value": asked.get("value"), "unit": asked.get("target"),
               "probability": asked.get("probability"), "infinity": np.inf}
    rows["front"] = rows["front"].query("kind == 'tried'").sort_values(["total_batch", "steps"])
    return {"group_size": laid_out("group_size", places, by_target),
            **{name: laid_out(name, table, **context) for name, table in rows.items()}}


def asked_tables(decision: Decision) -> dict[str, Table | None]:
    """Return the schedule, what each budget reaches, and how the best batch moves with it."""
    tables = {"schedule": laid_out("schedule", decision.table("schedule"), rate=rate_number)}
    for unit, best in _best_of_budgets(decision).items():
        rows = decision.tables["budget"].query("budget_unit == @unit and multiple == 1")
        shown = rows.sort_values("p_best", ascending=False).head(_SHOWN)
        rate = rate_number if rows["learning_rate"].notna().any() else ""
        groups = {f"P({plain(g)} rollouts)": [Estimate(probability(row["groups"][g]))
                                              for row in best] for g in best[0]["groups"]}
        tables[f"budget_{unit}"] = laid_out("budget", shown, budget=rows["budget"].iloc[0],
                                            unit=unit, rate=rate)
        tables[f"budgets_{unit}"] = laid_out(
            "budgets", best, groups if len(groups) > 1 else None, unit=unit, rate=rate)
    return tables


def allocate_page(
    facts: Facts, decision: Decision, times: TimeAnswer | None, folder: Path,
    made: Mapping[str, object],
) -> Page:
    """Return what stands on the page of a decision.

    Parameters
    ----------
    facts : Facts
        Of the fit that it was read from, at the decision's threshold.
    decision : Decision
        Its tables.
    times : TimeAnswer, optional
        Times to the target, where they were asked for.
    folder : Path
        Where figures are drawn.
    made : mapping
        The command line and what was asked.
    """
    fit, layout = facts.fit, layout_of("pages")["allocate"]
    others = {f"{name}_at_{level:g}": table
              for level in sorted(decision.tables["front"]["threshold"].unique())
              if level != decision.threshold
              for name, table in allocate_tables(replace(decision, threshold=level)).items()}
    tables = {**allocate_tables(decision), **asked_tables(decision), **others}
    answer, notes = allocate_sentences(facts, decision), allocate_notes(facts, decision)
    if times is not None:
        tables |= time_tables(facts, times)
        answer, notes = [*answer, *time_sentences(facts, times)], [*notes, *time_notes(times)]
    wanted = {"split_choice", "front", *(("clock_map", "time_cost", "step_time") if times else ())}
    items = all_figures(fit, threshold=decision.threshold, total_batch=decision.batch.total)
    figures = [figure for figure in drawn((item for item in items if item.slug in wanted), folder)
               if figure.svg]  # those that there are data for
    passed = bool(fit.verdict["sampling"]["passed"])
    return Page(
        kicker=layout["kicker"], title=layout["title"], definitions=layout["definitions"],
        asked=paragraph("allocate_asked", facts=facts, decision=decision), answer=answer,
        level=fit.verdict["level"], verdict=fit.verdict["title"],
        cautions=[*([] if passed else fit.verdict["sentences"]), *notes],
        sections=sections_of("allocate", tables, figures),
        paper=paragraph("decision_paper", facts=facts, lines=[*answer, *notes]), laws=[fit.law],
        made={**made, "fit": {name: fit.settings.get(name, "") for name in SETTINGS},
              "versions": versions()},
        files=[*(f"{name}.csv" for name in decision.tables),
               *(f"{figure.slug}.svg" for figure in figures)])


def time_sentences(facts: Facts, answer: TimeAnswer) -> list[str]:
    """Return the step-time model in one sentence, and one for each limit and kind of run."""
    table, model = answer.tables["clock"], answer.step_times.model
    times, keys = answer.tables["times"], ["applies_to", "n_prompts", "n_rollouts"]
    here = times[np.isclose(times["threshold"], facts.threshold) & times["gpus_measured"]]
    choices = answer.tables["clock_choices"].merge(here[[*keys, "p_fastest"]], on=keys)
    return sentences(
        "times", target=facts.target, step_times=answer.step_times, infinity=np.inf,
        terms=table[table["quantity"].isin(model.names)].to_dict("records"),
        kappa=table[table["quantity"] == "kappa"].iloc[0],
        spread=float(np.expm1(model.draws["sigma_time"].median())),
        choices=[_choice(row, one_axis=answer.step_times.one_axis)
                 for row in choices.to_dict("records")])


def _choice(row: dict[Hashable, Any], *, one_axis: bool) -> dict[Hashable, Any]:
    """Return a choice with its batches and what counts as text, and its unit of time."""
    per, unit = time_unit(3600 * float(row["hours"]))
    batch, beyond = ({"n_prompts": row[f"{start}n_prompts"],
                      "total_batch": row[f"{start}n_prompts"],
                      "n_rollouts": np.nan if one_axis else row[f"{start}n_rollouts"]}
                     for start in ("", "beyond_"))
    return {**row, "who": _WHO[row["applies_to"]], "unit": unit, "factor": 3600 / per,
            "cost_name": {MONEY: "price", HOURS: ""}.get(row["cost_unit"], "GPU-hours"),
            "batch": batch_text(batch),
            "beyond": "" if np.isnan(beyond["n_prompts"]) else batch_text(beyond)}


def time_notes(answer: TimeAnswer) -> list[str]:
    """Return what a reader of times must know."""
    return sentences("times_notes", notes=answer.step_times.notes, machine=answer.times.budget)


def time_tables(facts: Facts, answer: TimeAnswer) -> dict[str, Table | None]:
    """Return the step-time coefficients, and times of the fastest batches, by file name."""
    clock, table, budget = answer.tables["clock"], answer.tables["times"], answer.times.budget
    here = table[np.isclose(table["threshold"], facts.threshold)]
    keys = ["n_prompts", "n_rollouts", *(["gpus"] if budget.gpus else [])]
    new = here[here["applies_to"] == NEW_RUN].rename(
        columns={f"hours{end}": f"new{end}" for end in ("", "_lower", "_upper")})
    wide = here[here["applies_to"] == POPULATION].merge(
        new[[*keys, "new", "new_lower", "new_upper"]], on=keys).sort_values("hours")
    measured = wide["gpus_measured"].astype(bool)
    rows = on_axes(pd.concat([wide[measured].head(_SHOWN), wide[~measured].head(_BOUNDS)]),
                   one_axis=answer.step_times.one_axis)
    per, unit = time_unit(3600 * float(rows["hours"].iloc[0]))
    return {"clock": laid_out("clock", clock, prob=float(clock["ci_prob"].iloc[0])),
            "times": laid_out("times", rows, target=facts.target, machine=budget, unit=unit,
                              factor=3600 / per, measured=int(measured.sum()),
                              shown=min(_SHOWN, int(measured.sum())))}
