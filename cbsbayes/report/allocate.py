"""Which batch to run: sentences, tables of text, and the page of ``allocate``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.decision import Decision
from cbsbayes.decisions.time_to_target import TimeAnswer
from cbsbayes.plots.gallery import all_figures
from cbsbayes.posterior.fit import versions
from cbsbayes.report import numbers
from cbsbayes.report.facts import Facts, batch_text
from cbsbayes.report.numbers import Estimate, estimate, estimate_of
from cbsbayes.report.page import Page, PageFigure, Section, page_figure
from cbsbayes.report.tables import Cell, Table, from_columns
from cbsbayes.report.text import paragraph, parse_at, plain, sentences
from cbsbayes.report.times import time_notes, time_sentences, time_tables

__all__ = ["SETTINGS", "allocate_notes", "allocate_page", "allocate_sentences", "allocate_tables",
           "estimates"]

SETTINGS = ("law", "metric", "thresholds", "ci_prob", "draws", "chains", "random_seed",
            "data_digest")
"""Settings of a fit that pages of commands repeat."""

_SECTIONS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "splits": ("Splits of the batch", ("splits", "group_size"), ("split_choice",)),
    "targets": ("Batches that meet the target", ("targets",), ()),
    "front": ("Updates against samples", ("front",), ("front",)),
    "check": ("Checked against runs of the batch", ("iso_batch",), ()),
    "times": ("Time and cost", ("clock", "times"), ("clock_map", "time_cost", "step_time")),
}
"""Sections by slug: title, tables and figures."""

_DEFINITIONS = {
    "P(best)": "Share of posterior draws in which a split takes the fewest updates in the "
               "population of runs, among all splits, and among those inside the range tried. It "
               "holds as far as the law does: where small groups saturate at a lower accuracy it "
               "is too sure of small groups.",
    "regret": "Share of updates that a split takes more than the best one.",
    "range": "tried: was run; inside: between batches tried; extrapolated: beyond them.",
    "population, new run": "The population has no run effect and no slow machine; one new run has "
                           "both drawn anew.",
    "P(met)": "Probability that a run with the batch meets the target; the largest P is the most "
              "that any batch along that line can do.",
    "front": "Batches than which no other takes fewer updates and no more samples.",
    "bound": "Of a number of GPUs that was not measured: as if work divided perfectly.",
}


def estimates(table: pd.DataFrame, name: str) -> list[Estimate | None]:
    """Return columns ``name, name_lower, name_upper`` as text; None where there is no number."""
    ends = table[[name, f"{name}_lower", f"{name}_upper"]].to_numpy(dtype=float)
    return [None if np.isnan(median) else estimate_of(  # a batch may never arrive
        median, lower, upper, "identified" if np.isfinite(median) else "lower_bound")
        for median, lower, upper in ends.tolist()]


def allocate_sentences(facts: Facts, decision: Decision) -> list[str]:
    """Return the answer in words."""
    splits, check = decision.at_threshold("splits"), decision.tables.get("iso_batch")
    best, other = (None, None) if splits.empty else _compared(splits, facts)
    sizes = decision.at_threshold("group_size")
    beside = {law: facts.fact("best_n_rollouts", cbs) for law, cbs in facts.fit.others.items()}
    return sentences(
        "allocate", facts=facts, decision=decision, infinity=np.inf, best=best, other=other,
        sizes=[{"quantity": row["quantity"], "estimate": estimate(row), "note": _size_note(row)}
               for _, row in sizes.iterrows()],
        beside=[f"{fact.estimate} under {law}" for law, fact in beside.items() if fact]
        if len(sizes) else [],
        targets=_target_rows(decision), check=None if check is None else _check_facts(check))


def _compared(
    splits: pd.DataFrame, facts: Facts
) -> tuple[dict[Hashable, Any] | None, dict[Hashable, Any] | None]:
    """Return the split chosen, and the one at the usual group size, else the runner-up."""
    rows = splits.assign(batch=[batch_text(row) for _, row in splits.iterrows()],
                         p=splits["p_best_inside"].fillna(splits["p_best"]))
    chosen = rows[rows["chosen"].astype(bool)].to_dict("records")
    rest = rows[~rows["chosen"].astype(bool) & (rows["range"] != "extrapolated")]
    usual = rest[rest["n_rollouts"] == facts.batch.get("n_rollouts")]
    others = (usual if len(usual) else rest.sort_values("regret")).to_dict("records")
    if not chosen:
        return None, None
    return chosen[0], others[0] if others else None


def _size_note(row: pd.Series) -> str:
    held = parse_at(row["at"])
    if "total_batch" in held:
        return f" (of {numbers.count(float(held['total_batch']))} samples)"
    ratio = held.get("prompt_over_rollout")
    return f", a prompt costing {ratio} rollouts" if ratio else ""


def _target_rows(decision: Decision) -> list[dict[Hashable, Any]]:
    """Return the batch that meets the target with the least (or most) samples, per kind of run."""
    rows: list[dict[Hashable, Any]] = []
    targets = decision.at_threshold("targets")
    for _, table in targets.groupby("applies_to", sort=False) if len(targets) else ():
        end = "smallest" if table["target"].iloc[0] == "updates" else "largest"
        met = table[table["met"].astype(bool) & (table["end"] == end)]
        best = met.sort_values(["total_batch", "steps"], ascending=[end == "smallest", True])
        first = table.iloc[0] if met.empty else best.iloc[0]
        one_axis = first["along"] == "total_batch"
        rows.append({**first.to_dict(), "p_most": table["p_most"].max(), "met": not met.empty,
                     "batch": "" if met.empty else batch_text(first, one_axis=one_axis)})
    return rows


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
        "due": float(likeliest["p_least"].sum()),
        "wrong": [{**row, "batch": batch_text(row), "observed_text": _observed(row),
                   "predicted_text": numbers.interval(row["predicted_lower"],
                                                      row["predicted_upper"])}
                  for _, row in wrong.iterrows()],
        "saturated": bool(((smallest["verdict"] == "slower")
                           & (smallest["n_not_reached"] > 0)).any())}


def _observed(row: pd.Series) -> str:
    if np.isinf(row["observed_upper"]):
        return f"> {numbers.short(row['observed_lower'])}"
    return numbers.interval(row["observed_lower"], row["observed_upper"])


def allocate_notes(facts: Facts, decision: Decision) -> list[str]:
    """Return what could not be answered, and what is answered with a reservation."""
    splits = decision.tables.get("splits", pd.DataFrame({"status": [], "threshold": []}))
    levels = splits.groupby("status")["threshold"].unique()
    return sentences(
        "allocate_notes", decision=decision, law=facts.fit.law,
        statuses={status: [plain(t) for t in found] for status, found in levels.items()},
        extrapolated=len(splits) and bool((splits["range"] == "extrapolated").all()))


def allocate_tables(decision: Decision) -> dict[str, Table]:
    """Return the tables of a decision as text by the names of their files; absent ones are not."""
    made = {"splits": _splits, "group_size": _group_sizes, "targets": _targets, "front": _front,
            "iso_batch": _check}
    return {name: make(decision) for name, make in made.items()
            if len(decision.at_threshold(name))}


def _splits(decision: Decision) -> Table:
    table = decision.at_threshold("splits")
    regret = [Cell(numbers.MISSING) if np.isnan(row["regret"]) else Cell(
        numbers.percent(row["regret"]), f"{numbers.percent(row['regret_lower'])} to "
                                        f"{numbers.percent(row['regret_upper'])}")
              for _, row in table.iterrows()]
    return from_columns(
        f"Splits of {decision.batch.total:,d} samples at threshold {plain(decision.threshold)}, in "
        "the population of runs. Regret: share of updates lost against the best split, with its "
        "interval below.",
        {"prompts × rollouts": [Cell(_short(row), mark="ours" if row["chosen"] else "")
                                for _, row in table.iterrows()],
         "range": table["range"], "S, updates": estimates(table, "steps"),
         "P(best)": _chances(table["p_best"]), "P(best) inside": _chances(table["p_best_inside"]),
         "expected regret": regret, "P(within 5 %)": _chances(table["p_close"])})


def _short(row: pd.Series) -> str:
    if not row.get("n_rollouts", np.nan) > 0:
        return numbers.count(row["total_batch"])
    return f"{numbers.count(row['n_prompts'])} × {numbers.count(row['n_rollouts'])}"


def _chances(values: pd.Series) -> list[Cell]:
    return [Cell(numbers.probability(float(p))) for p in values]


def _group_sizes(decision: Decision) -> Table:
    table = decision.tables["group_size"]
    thresholds = list(dict.fromkeys(table["threshold"]))
    parts = dict(iter(table.groupby("at", sort=False)))
    heads = [(_size_note(part.iloc[0]).strip(" ,()") or "at a fixed batch")
             for part in parts.values()]
    columns = {plain(t): [estimate(part[part["threshold"] == t].iloc[0]) for part in parts.values()]
               for t in thresholds}
    return from_columns("Cheapest group size in rollouts, by threshold.",
                        {"group size": heads, **columns})


def _targets(decision: Decision) -> Table:
    table = decision.at_threshold("targets")
    first, met = table.iloc[0], table["met"].astype(bool)
    along = table["along"] + table["at"].map(lambda at: f" at {at}" if at else "")
    return from_columns(
        f"At most {numbers.count(first['value'])} {first['target']} to threshold "
        f"{plain(decision.threshold)} with probability {first['probability']:.12g}.",
        {"along": along, "for": table["applies_to"], "end": table["end"].where(met, ""),
         "batch": [_short(row) if row["met"] else "cannot be met" for _, row in table.iterrows()],
         "samples": [Cell(plain(value)) for value in table["total_batch"]],
         "range": table["range"].fillna(""), "P(met)": _chances(table["p_met"]),
         "largest P": _chances(table["p_most"])})


def _front(decision: Decision) -> Table:
    table = decision.at_threshold("front")
    tried = table[table["kind"] == "tried"].sort_values(["total_batch", "steps"])
    return from_columns(
        f"Updates against samples at threshold {plain(decision.threshold)}, in the population of "
        "runs: P(on the front) is the probability that no other batch tried takes no more of both.",
        {"batch tried": [_short(row) for _, row in tried.iterrows()],
         "S, updates": estimates(tried, "steps"), "E, samples": estimates(tried, "samples"),
         "P(on the front)": _chances(tried["p_on_front"])})


def _check(decision: Decision) -> Table:
    table = decision.at_threshold("iso_batch")
    seen = "which has seen them" if table["runs_seen"].iloc[0] else "which left them out"
    return from_columns(
        f"Runs of {decision.batch.total:,d} samples at threshold {plain(decision.threshold)} "
        f"beside a fit {seen}: geometric means over runs, and the prediction for the mean of so "
        "many new runs.",
        {"prompts × rollouts": [_short(row) for _, row in table.iterrows()],
         "runs": [Cell(str(row["n_runs"]), f"{row['n_not_reached']} never"
                       if row["n_not_reached"] else "") for _, row in table.iterrows()],
         "observed, updates": [Cell(_observed(row)) for _, row in table.iterrows()],
         "predicted": estimates(table, "predicted"),
         "P(best) of those run": _chances(table["p_best"]), "verdict": table["verdict"]})


def allocate_page(
    facts: Facts, decision: Decision, times: TimeAnswer | str, folder: Path,
    made: Mapping[str, object],
) -> Page:
    """Return what stands on the page of a decision.

    Parameters
    ----------
    facts : Facts
        Of the fit that it was read from, at the decision's threshold.
    decision : Decision
        Its tables.
    times : TimeAnswer or str
        Times to the target, or why there are none; empty where they were not asked for.
    folder : Path
        With the figures drawn.
    made : mapping
        The command line and what was asked.
    """
    fit, timed = facts.fit, None if isinstance(times, str) else times
    tables = allocate_tables(decision) | (time_tables(facts, timed) if timed else {})
    lines = [*allocate_sentences(facts, decision), *(time_sentences(facts, timed) if timed else [])]
    notes = [*allocate_notes(facts, decision),
             *(time_notes(timed) if timed else [times] if times else [])]
    figures = _figures(facts, folder)
    passed = bool(fit.verdict["sampling"]["passed"])
    return Page(
        kicker="Which batch to run", title="Which batch is best, and how sure is that?",
        asked=f"Read off the fit of {fit.crossings.sizes['run']} runs of {fit.group}, law "
              f"{fit.law.name}; batch: {decision.batch.reason}; threshold {decision.threshold:g}.",
        level=fit.verdict["level"], verdict=fit.verdict["title"],
        cautions=[*([] if passed else fit.verdict["sentences"]), *notes], answer=lines,
        sections=_sections(decision, tables, figures), definitions=_DEFINITIONS,
        paper=paragraph("decision_paper", facts=facts, lines=[*lines, *notes]), laws=[fit.law],
        made={**made, "fit": {name: fit.settings.get(name, "") for name in SETTINGS},
              "versions": versions()},
        files=[*(f"{name}.csv" for name in decision.tables), *(f"{slug}.svg" for slug in figures)])


def _figures(facts: Facts, folder: Path) -> dict[str, PageFigure]:
    """Return the figures that were drawn, with the titles and captions of the fit's page."""
    wanted = {slug for _, _, slugs in _SECTIONS.values() for slug in slugs}
    return {item.slug: page_figure(folder, item.slug, item.title, item.caption)
            for item in all_figures(facts.fit)
            if item.slug in wanted and (folder / f"{item.slug}.svg").exists()}


def _sections(
    decision: Decision, tables: Mapping[str, Table], figures: Mapping[str, PageFigure]
) -> list[Section]:
    """Return the sections; tables at other targets are folded."""
    levels = sorted(decision.tables["front"]["threshold"].unique())
    others = {f"{name}_at_{level:g}": table for level in levels if level != decision.threshold
              for name, table in allocate_tables(replace(decision, threshold=level)).items()
              if name != "group_size"}  # holds all targets
    sections = [Section(
        slug, title, tables={name: tables[name] for name in names if name in tables},
        folded={key: table for key, table in others.items() if key.split("_at_")[0] in names},
        figures=[figures[name] for name in drawn if name in figures])
        for slug, (title, names, drawn) in _SECTIONS.items()]
    return [section for section in sections if section.tables or section.figures]
