"""The page of a fit: the answer first, what it rests on next, everything else folded."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cbsbayes.decisions.decision import iso_runs
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.ceilings import OPTION
from cbsbayes.report import tables
from cbsbayes.report.allocate import allocate_notes, allocate_sentences, allocate_tables
from cbsbayes.report.facts import Facts
from cbsbayes.report.page import Page, PageFigure, Section
from cbsbayes.report.tables import Table
from cbsbayes.report.text import paragraph, plain, section_text, sentences
from cbsbayes.report.times import time_notes, time_sentences, time_tables

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["MAP", "PAGE_FIGURES", "fit_page", "next_lines"]

MAP = "map"
PAGE_FIGURES: dict[str, tuple[str, ...]] = {
    "quantities": ("gains",),
    "curves": ("steps_prompts", "steps_rollouts", "steps_total"),
    "splits": ("split_choice", "front"),
    "training": ("training",),
    "predictive": ("crossing_check",),
    "comparison": ("comparison",),
    "thresholds": ("cbs",),
    "times": ("clock_map",),
    "noise": ("noise_against_fit",),
}
"""Sections of the page and the slugs of their figures."""

_SECTIONS = ("quantities", "curves", "splits", "training", "predictive", "comparison", "left-out",
             "thresholds", "laws", "times", "noise", "diagnostics")
_CLOSED = _SECTIONS[7:]
_TIMED = 3  # runs that a step-time model needs


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
        Drawn or skipped; those of no section are left to the folder.
    command : str
        The command line.
    next_steps : sequence of str
        Lines that go on from this fit (`next_lines`).
    """
    fit = facts.fit
    going_on = Section("next", "Going on from here", lines=next_steps, closed=True)
    return Page(
        kicker=f"Critical batch size of {facts.group or 'these runs'}",
        title="How large a batch still pays, and how sure are we?",
        asked="", level=fit.verdict["level"], verdict=fit.verdict["title"],
        checks=fit.verdict["sentences"][:3], cautions=fit.verdict["sentences"][3:],
        answer=sentences("card", facts=facts), note=paragraph("card_note", facts=facts),
        sections=[*(_section(slug, facts, figures) for slug in _SECTIONS),
                  *([going_on] if next_steps else [])],
        definitions={}, paper=paragraph("paper", facts=facts), laws=[fit.law],
        made=_made(facts, command),
        files=["cbs.csv", "averaged.csv", "overhead.csv", "comparison.csv", "runs.csv", "fit.nc"],
        map=next((figure for figure in figures if figure.slug == MAP), None))


def _section(slug: str, facts: Facts, figures: Sequence[PageFigure]) -> Section:
    """Return a section: text from its template, tables from `_tables`, figures by their slugs."""
    title, intro, said = section_text(slug, facts=facts)
    shown, folded, more = _tables(slug, facts)
    return Section(
        slug, title, intro, [*said, *more],
        {name: table for name, table in shown.items() if table is not None},
        {name: table for name, table in folded.items() if table is not None},
        [figure for figure in figures if figure.slug in PAGE_FIGURES.get(slug, ())],
        kind="wide-text" if slug in ("times", "noise") else "", closed=slug in _CLOSED)


type _Tables = Mapping[str, Table | None]


def _tables(slug: str, facts: Facts) -> tuple[_Tables, _Tables, Sequence[str]]:
    """Return what a section shows, what it folds, and what decisions say in it."""
    nothing: _Tables = {}
    match slug:
        case "quantities":
            return ({"main": tables.answer_table(facts)},
                    {"spread": tables.answer_table(facts, tables.MAX_ROWS)}, [])
        case "splits" if not isinstance(facts.decision, str):
            named = list(allocate_tables(facts.decision).items())
            return dict(named[:1]), dict(named[1:]), [
                *allocate_sentences(facts, facts.decision), *allocate_notes(facts, facts.decision)]
        case "splits":
            return nothing, nothing, [f"Not answered: {facts.decision}."]
        case "comparison":
            return nothing, {"comparison": tables.comparison_table(facts)}, []
        case "left-out":
            return {"left_out": tables.left_out_table(facts.fit)}, nothing, []
        case "thresholds":
            return {"overhead": tables.definitions_table(facts)}, nothing, []
        case "laws":
            return ({"law_comparison": tables.law_comparison_table(facts)},
                    {"laws": tables.laws_table(facts)}, [])
        case "times" if not isinstance(facts.times, str):
            return time_tables(facts, facts.times), nothing, [
                *time_sentences(facts, facts.times), *time_notes(facts.times)]
        case "noise":
            return {"noise": tables.noise_table(facts), "joint": tables.joint_table(facts)}, \
                nothing, []
        case "diagnostics":
            return ({"diagnostics": tables.checks_table(facts),
                     "convergence": tables.worst_table(facts)}, nothing, [])
    return nothing, nothing, []


def _made(facts: Facts, command: str) -> Mapping[str, object]:
    attrs = facts.fit.sweep.attrs
    data = {f"sweep.{name}": plain(attrs[name])
            for name in ("title", "metric", "direction", "digest", "history")
            if plain(attrs.get(name, ""))}
    return {**({"command": command} if command else {}), "settings": facts.fit.settings, **data}


def next_lines(
    facts: Facts, folder: Path, sweep: xr.Dataset | None = None, source: Path | None = None
) -> list[str]:
    """Return the command lines that go on from a fit, each with what it does as a comment.

    Parameters
    ----------
    facts : Facts
        The fit's.
    folder : Path
        Where it is written.
    sweep : xarray.Dataset, optional
        All runs that were read, this group's and others'; those of the fit unless given.
    source : Path, optional
        The file of that sweep.
    """
    fit = facts.fit
    everyone = fit.sweep if sweep is None else sweep
    try:
        iso_runs(fit, 0 if isinstance(facts.decision, str) else facts.decision.batch.total)
        split = True
    except CBSDataError:
        split = False
    seconds = fit.sweep["step_time"].values if "step_time" in fit.sweep else np.array([])
    ceilings = any(OPTION in sentence for sentence in fit.verdict["sentences"])
    return sentences(
        "next", folder=shlex.quote(str(folder)), split=split,
        timed=int((np.isfinite(seconds) & (seconds > 0)).sum()) >= _TIMED,
        model=fit.settings.get("model", "crossing"), ceilings=ceilings and not facts.ceilings,
        folder_ceilings=shlex.quote(f"{folder}_ceilings"),
        reused="ppo_epochs" in everyone and np.unique(everyone["ppo_epochs"]).size > 1,
        parent=shlex.quote(str(folder.parent)),
        sweep="" if source is None else shlex.quote(str(source)))
