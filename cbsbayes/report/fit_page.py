"""The page of a fit, and what the command prints of it: the answer first, then what it rests on."""

from __future__ import annotations

import shlex
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from cbsbayes.decisions.batches import find_row
from cbsbayes.decisions.decision import splits_run
from cbsbayes.noise.beside_fit import shown_rows
from cbsbayes.posterior.cautions import CROSS_CHECK
from cbsbayes.posterior.ceilings import OPTION
from cbsbayes.posterior.learning_rate import RULES
from cbsbayes.posterior.tidy import AVERAGE
from cbsbayes.report.allocate import (
    allocate_notes,
    allocate_sentences,
    allocate_tables,
    time_notes,
    time_sentences,
    time_tables,
)
from cbsbayes.report.facts import Facts
from cbsbayes.report.page import Page, PageFigure, Section, sections_of, standard_output
from cbsbayes.report.tables import (
    MAX_ROWS,
    Table,
    cell_text,
    chosen,
    key_values,
    laid_out,
    print_table,
    shown,
)
from cbsbayes.report.text import (
    RATES,
    Estimate,
    at_text,
    estimate,
    paragraph,
    parse_at,
    plain,
    quantities,
    rate_number,
    rate_text,
    sentences,
    spec,
)

__all__ = ["answer_table", "fit_page", "fit_tables", "next_lines", "print_fit"]

_DERIVED = ("cbs_samples", "E_min")  # follow from rows that are printed
_SCALES = ("cbs_prompts", "cbs_rollouts", "B_noise", "B_prompt", "B_rollout", "S_min", "alpha")
_JOINT = ("steps", "steps_new_run")  # of the joint table, beside the quantities
_ALONG = ("rate_slope", "cbs_tuned", "cbs_at_rate", "apparent_exponent")
_RULE_NAMES = dict(zip(RULES, ("constant", "square-root", "linear"), strict=True))
_COLOURS = {"good": "green", "limited": "yellow", "failed": "red"}
_GAP, _LABELS = 2, 24  # between columns of the terminal, and what labels need at least


def fit_page(
    facts: Facts, figures: Sequence[PageFigure], *, command: str = "",
    next_steps: Sequence[str] = (),
) -> Page:
    """Return what stands on the page of a fit.

    Parameters
    ----------
    facts : Facts
        The fit's.
    figures : sequence of PageFigure
        Drawn or skipped; those of no section are left to the folder. Maps at other targets are
        named ``map_at_<target>``.
    command : str
        The command line.
    next_steps : sequence of str
        Lines that go on from this fit (`next_lines`).
    """
    fit, layout, attrs = facts.fit, spec("pages")["fit"], facts.fit.sweep.attrs
    data = {f"sweep.{name}": plain(attrs[name])
            for name in ("title", "metric", "direction", "digest", "history")
            if plain(attrs.get(name, ""))}
    sections = sections_of("fit", fit_tables(facts), figures, _decisions(facts), facts=facts)
    if next_steps:
        sections.append(Section("next", "Going on from here", lines=next_steps, closed=True))
    return Page(
        kicker=f"{layout['kicker']} of {facts.group or 'these runs'}", title=layout["title"],
        level=fit.verdict["level"], verdict=fit.verdict["title"],
        checks=fit.verdict["sentences"][:3], cautions=fit.verdict["sentences"][3:],
        answer=_card(facts), note=paragraph("card_note", facts=facts),
        sections=sections, paper=paragraph("paper", facts=facts), laws=[fit.law],
        made={**({"command": command} if command else {}), "settings": fit.settings, **data},
        files=layout["files"], map=_map(facts, figures))


def _card(facts: Facts) -> list[str]:
    return [*sentences("card", facts=facts), *_rate_sentences(facts)[:1]]


def _map(facts: Facts, figures: Sequence[PageFigure]) -> PageFigure | None:
    """Return the map at the main target, with those at the other targets to choose from."""
    known = {figure.slug: figure for figure in figures}
    if "map" not in known:
        return None
    main = plain(facts.threshold)
    maps = {plain(t): known.get(f"map_at_{t:g}") for t in facts.thresholds} | {main: known["map"]}
    choices = {name: figure for name, figure in maps.items() if figure and figure.svg}
    return replace(known["map"], choices=choices if len(choices) > 1 else {}, chosen=main)


def _decisions(facts: Facts) -> dict[str, list[str]]:
    """Return what decisions add to their sections."""
    decision, times = facts.decision, facts.times
    splits = [] if isinstance(decision, str) else [
        *allocate_sentences(facts, decision), *allocate_notes(facts, decision)]
    clock = [] if isinstance(times, str) else [*time_sentences(facts, times), *time_notes(times)]
    return {"splits": splits, "times": clock, "learning-rate": _rate_sentences(facts)}


def fit_tables(facts: Facts) -> dict[str, Table | None]:
    """Return every table of the page by the name of its files; None where there is none."""
    fit, verdict = facts.fit, facts.fit.verdict
    decision, times, definitions = facts.decision, facts.times, facts.definitions
    context = {"target": facts.target, "interval": facts.interval}
    first = dict(definitions.iloc[0]) if len(definitions) else {}
    noise = (pd.DataFrame() if isinstance(facts.noise, str)
             else shown_rows(facts.noise, fit).query("average == 'up_to'"))
    joint = pd.DataFrame() if fit.noise_joint is None else fit.noise_joint
    if len(joint):
        near = np.isclose(joint["threshold"], facts.threshold) | joint["threshold"].isna()
        joint = joint[near & joint["quantity"].isin([*quantities(), *_JOINT])]
    worst = fit.cbs.groupby("quantity", as_index=False, sort=False).agg(
        r_hat=("r_hat", "max"), ess_bulk=("ess_bulk", "min"), ess_tail=("ess_tail", "min"))
    checks = {name.replace("_", " "): "passed" if passed else "failed or not made"
              for name, passed in sorted(verdict["checks_made"].items())}
    return {
        "answer": answer_table(facts), "spread": answer_table(facts, MAX_ROWS),
        **({} if isinstance(decision, str) else allocate_tables(decision)),
        "learning_rate": _rate_table(facts),
        "comparison": laid_out("comparison", facts.comparison),
        "truth": laid_out("truth", _truth(facts), **context),
        "left_out": laid_out("left_out", fit.runs[~fit.runs["used"].astype(bool)]),
        "overhead": laid_out("overhead", definitions, **context, at=first.get("at"),
                             unit=first.get("unit")),
        "law_comparison": laid_out("law_comparison",
                                   fit.law_table if len(fit.law_table) > 1 else []),
        "laws": _laws_table(facts),
        **({} if isinstance(times, str) else time_tables(facts, times)),
        "noise": laid_out("noise", noise, **context),
        "joint": laid_out("joint", joint, **context),
        "diagnostics": key_values({**checks, **verdict.get("diagnostics", {})},
                                  "Checks of the sampler."),
        "convergence": laid_out("convergence", worst)}


def answer_table(
    facts: Facts, limit: int = 1, thresholds: Sequence[float] | None = None
) -> Table:
    """Return every quantity against the targets, what leans least on the law first.

    Parameters
    ----------
    facts : Facts
        The fit's.
    limit : int
        Rows of one quantity: the usual batch alone, or those next to it as well.
    thresholds : sequence of float, optional
        The columns; all unless given.
    """
    names = [name for name in quantities() if name not in _DERIVED]
    levels = facts.thresholds if thresholds is None else thresholds
    table = _by_target("answer", facts, {facts.fit.law.name: facts.fit.cbs}, names, limit, levels)
    assert table is not None  # facts are of a fit that has quantities
    return table


def _by_target(
    layout: str, facts: Facts, tables: Mapping[str, pd.DataFrame], names: Iterable[str],
    limit: int, thresholds: Sequence[float],
) -> Table | None:
    """Return quantities of tables like ``cbs.csv`` by law against the targets."""
    parts = [part.assign(law=law) for name in names for law, table in tables.items()
             for _, part in chosen(table, name, facts.batch, limit).groupby("at", sort=False)]
    by_target = {plain(t): [estimate(find_row(part, part["quantity"].iloc[0], t))
                            for part in parts] for t in thresholds}
    return laid_out(layout, [part.iloc[0].to_dict() for part in parts], by_target,
                    interval=facts.interval, law=facts.fit.law.name)


def _laws_table(facts: Facts) -> Table | None:
    """Return the scales under every law fitted, None where there is only one."""
    fit = facts.fit
    if not fit.others:
        return None
    laws = {fit.law.name: fit.cbs, **fit.others, AVERAGE: fit.averaged}
    if fit.cross_check is not None:
        laws[f"{fit.law.name}, {CROSS_CHECK}"] = fit.cross_check
    return _by_target("laws", facts, laws, _SCALES, 1, facts.thresholds)


def _truth(facts: Facts) -> list[dict[str, object]]:
    """Return what a simulated sweep was made with at the main target, beside the fit."""
    sweep, found = facts.fit.sweep, []
    for name in quantities():
        truth = np.nan
        if f"true_{name}" in sweep and sweep[f"true_{name}"].dims == ("threshold",):
            known = np.log(sweep[f"true_{name}"].to_series().sort_index())
            truth = float(np.exp(np.interp(facts.threshold, known.index, known, np.nan, np.nan)))
        elif f"true_{name}" in sweep.attrs:
            truth = float(sweep.attrs[f"true_{name}"])
        fact = facts.fact(name)
        if np.isfinite(truth) and fact is not None:
            found.append({"quantity": name, "truth": truth, "estimate": fact.estimate})
    return found


def _rate_rows(facts: Facts) -> pd.DataFrame:
    """Return the rows at the main target, with ``place`` and ``value`` as text."""
    here = facts.rates[np.isclose(facts.rates["threshold"], facts.threshold)]
    records = here.to_dict("records")
    values: Any = [Estimate(rate_text(row)) if row["quantity"] in RATES else estimate(row)
                   for row in records]
    return here.assign(place=[at_text(row["at"]) for row in records], value=values)


def _rate_table(facts: Facts) -> Table | None:
    """Return the table of the page: the best rate at every batch, and what holds along it."""
    rows = _rate_rows(facts)
    kept = rows[rows["quantity"].isin(("best_rate", "steps_at_best", *_ALONG))]
    return laid_out("learning_rate", kept, target=facts.target, interval=facts.interval)


def _rate_sentences(facts: Facts) -> list[str]:
    """Return the answer in sentences; none where the law knows no learning rate."""
    if not facts.fit.law.learning_rate:
        return []
    rows = _rate_rows(facts)
    held = facts.at_usual if "n_rollouts" in facts.batch else ""
    line = rows[rows["at"].map(lambda at: held in at or not parse_at(at))]
    best = _best_rate_row(facts, rows, line)
    costs = [] if best is None else rows[
        (rows["quantity"] == "rate_cost")
        & rows["at"].str.startswith(f"{best['at']},")].to_dict("records")
    rules = line[line["quantity"] == "p_rule"].sort_values("median").to_dict("records")
    named = {quantity: line[line["quantity"] == quantity].to_dict("records")[:MAX_ROWS]
             for quantity in _ALONG}
    stable = line[line["quantity"] == "largest_stable_rate"].to_dict("records")
    return sentences(
        "learning_rate", facts=facts, best=best, costs=costs, named=named, stable=stable,
        rule=_RULE_NAMES[parse_at(rules[-1]["at"])["rule"]] if rules else "",
        p_rule=rules[-1]["median"] if rules else np.nan,
        rate=lambda row: rate_number(float(parse_at(row["at"])["learning_rate"])))


def _best_rate_row(
    facts: Facts, rows: pd.DataFrame, line: pd.DataFrame
) -> dict[Hashable, Any] | None:
    """Return the best rate at the batch advised, else at the middle one of the usual line."""
    axes = facts.advice.axes if facts.advice else None
    at = "" if axes is None else f"n_prompts={axes[0]:g},n_rollouts={axes[1]:g}"
    advised = rows[(rows["quantity"] == "best_rate") & (rows["at"] == at)]
    usual = line[line["quantity"] == "best_rate"]
    found = advised if len(advised) else usual.iloc[len(usual) // 2:][:1]
    return found.to_dict("records")[0] if len(found) else None


def next_lines(facts: Facts, folder: Path, source: Path | None = None) -> list[str]:
    """Return the command lines that go on from a fit, each with what it does as a comment.

    Parameters
    ----------
    facts : Facts
        The fit's.
    folder : Path
        Where it is written.
    source : Path, optional
        The file of the sweep.
    """
    fit, decision = facts.fit, facts.decision
    ceilings = any(OPTION in sentence for sentence in fit.verdict["sentences"])
    return sentences(
        "next", folder=shlex.quote(str(folder)), timed=not isinstance(facts.times, str),
        split=not isinstance(decision, str) and splits_run(fit, decision.batch.total) > 1,
        model=fit.settings.get("model", "crossing"), ceilings=ceilings and not facts.ceilings,
        folder_ceilings=shlex.quote(f"{folder}_ceilings"), target=facts.thresholds[-1],
        sweep="" if source is None else shlex.quote(str(source)))


def print_fit(facts: Facts, source: str, page: Path, console: Console | None = None) -> None:
    """Print the card of a fit, its verdict, and its answer in as many columns as fit.

    Parameters
    ----------
    facts : Facts
        The fit's.
    source : str
        Where it came from.
    page : Path
        Where the rest is.
    console : rich.console.Console, optional
        Standard output unless given.
    """
    console, fit = console or standard_output(), facts.fit
    console.print(f"[bold]{shown(fit.group)}[/bold]: {fit.crossings.sizes['run']} of "
                  f"{len(fit.runs)} runs from {shown(source)}")
    for sentence in [*_card(facts), paragraph("card_note", facts=facts)]:
        console.print(shown(sentence))
    console.print(f"[bold {_COLOURS[fit.verdict['level']]}]{shown(fit.verdict['title'])}[/]")
    for sentence in fit.verdict["sentences"]:
        console.print(f"  · {shown(sentence)}")
    console.print(shown(fit.settings["law_reason"]))
    print_table(_fitting(facts, console.width), console)
    console.print(f"Page, figures, tables and draws: {shown(str(page))}", soft_wrap=True)


def _fitting(facts: Facts, width: int) -> Table:
    """Return the answer with as many targets as the width holds, the main one first of all."""
    levels = facts.thresholds
    order = list(dict.fromkeys([facts.threshold, levels[-1], levels[0]]))
    for most in range(len(order), 0, -1):
        table = answer_table(facts, thresholds=sorted(order[:most]))
        numbers = sum(_GAP + max(len(cell_text(row[k])) for row in table.rows)
                      for k in range(1, most + 1))
        if numbers + _LABELS <= width:
            break
    return table
