"""The page of a fit: the answer first, what it rests on next, everything else folded."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.iso_batch import iso_runs
from cbsbayes.errors import CBSDataError
from cbsbayes.noise.beside_fit import FACTOR, verdict_of
from cbsbayes.posterior.ceiling_option import OPTION
from cbsbayes.posterior.gradient_noise import LARGE_OFFSET
from cbsbayes.report import tables
from cbsbayes.report.allocation import allocation
from cbsbayes.report.clock import choice_sentences, clock_sentence, clock_tables
from cbsbayes.report.facts import Facts
from cbsbayes.report.numbers import compared_estimate
from cbsbayes.report.page import Page, PageFigure, Section
from cbsbayes.report.text import paragraph, plain, sentences

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["MAP", "PAGE_FIGURES", "fit_page", "next_lines", "page_slugs"]

MAP = "clock_map"
PAGE_FIGURES: dict[str, tuple[str, ...]] = {
    "quantities": ("gains_prompts", "gains_rollouts", "gains_total"),
    "curves": ("steps_prompts", "steps_rollouts", "steps_total"),
    "splits": ("split_choice",),
    "training": ("training",),
    "predictive": ("crossing_check",),
    "comparison": ("comparison_prompts", "comparison_total"),
    "thresholds": ("cbs_prompts", "cbs_total"),
}
"""Sections of the page and the slugs of their figures, which may carry a suffix after "_"."""

_TIMED = 3  # runs that a step-time model needs


def fit_page(
    facts: Facts, figures: Sequence[PageFigure], *, command: str = "",
    next_steps: Sequence[str] = (), noise: pd.DataFrame | str = "",
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
    noise : DataFrame or str
        Measured gradient noise beside the fit, or why there is none.
    """
    fit = facts.fit
    shown = page_slugs([figure.slug for figure in figures])
    placed = {section: [figure for figure in _of(figures, slugs) if figure.slug in shown]
              for section, slugs in PAGE_FIGURES.items()}
    sections = [
        _answer(facts, placed["quantities"]),
        Section("curves", "Updates against the batch", figures=placed["curves"]),
        _splits(facts, placed["splits"]),
        Section("training", "Training curves", figures=placed["training"]),
        Section("predictive", "Does the model reproduce the crossings?",
                figures=placed["predictive"]),
        _comparison(facts, placed["comparison"]),
        _left_out(facts),
        _thresholds(facts, placed["thresholds"]),
        _laws(facts), _times(facts), _noise(facts, noise), _diagnostics(facts)]
    if next_steps:
        sections.append(Section("next", "Going on from here", lines=next_steps, closed=True))
    return Page(
        kicker=f"Critical batch size of {facts.group or 'these runs'}",
        title="How large a batch still pays, and how sure are we?",
        asked="", level=fit.verdict["level"], verdict=fit.verdict["title"],
        checks=fit.verdict["sentences"][:3], cautions=fit.verdict["sentences"][3:],
        answer=sentences("card", facts=facts), note=paragraph("card_note", facts=facts),
        sections=[section for section in sections if section is not None], definitions={},
        paper=paragraph("paper", facts=facts), laws=[fit.law], made=_made(facts, command),
        files=["cbs.csv", "averaged.csv", "overhead.csv", "comparison.csv", "runs.csv", "fit.nc"],
        map=next(iter(_of(figures, (MAP,))), None))


def page_slugs(slugs: Sequence[str]) -> set[str]:
    """Return which figures of the gallery stand on the page; totals only of one-axis data."""
    known = (MAP, *(slug for names in PAGE_FIGURES.values() for slug in names))
    two_axes = any(slug.endswith("_prompts") for slug in slugs)
    return {slug for slug in slugs
            if _is_one(slug, known) and not (two_axes and slug.endswith("_total"))}


def _is_one(slug: str, slugs: Sequence[str]) -> bool:
    return any(slug == known or slug.startswith(f"{known}_") for known in slugs)


def _of(figures: Sequence[PageFigure], slugs: Sequence[str]) -> list[PageFigure]:
    return [figure for figure in figures if _is_one(figure.slug, slugs)]


def _answer(facts: Facts, figures: Sequence[PageFigure]) -> Section:
    return Section(
        "quantities", "Quantities by target",
        intro="What doubling the batch does to the number of updates leans least on the form of "
              "the law and comes first. Critical batch sizes and noise scales hold only together "
              f"with their law, {facts.formula}.",
        sentences=sentences("critical", facts=facts), tables={"main": tables.answer_table(facts)},
        folded={"spread": tables.answer_table(facts, tables.MAX_ROWS)}, figures=figures)


def _splits(facts: Facts, figures: Sequence[PageFigure]) -> Section:
    title = "Splitting a fixed batch into prompts and rollouts"
    if isinstance(facts.decision, str):
        return Section("splits", title, sentences=[f"Not answered: {facts.decision}."])
    told = allocation(facts.decision, facts.fit)
    named = {f"allocation_{k}": table for k, table in enumerate(told.tables, start=1)}
    return Section("splits", title, sentences=[*told.sentences, *told.notes],
                   tables=dict(list(named.items())[:1]), folded=dict(list(named.items())[1:]),
                   figures=figures)


def _comparison(facts: Facts, figures: Sequence[PageFigure]) -> Section:
    return Section(
        "comparison", "Against least squares",
        intro="The usual practice takes the first evaluation at or above the target as S, drops "
              "runs that never reach it, and fits the hyperbola target by target.",
        sentences=sentences("comparison", facts=facts, row=_compared(facts)),
        folded={"comparison": tables.comparison_table(facts)}, figures=figures)


def _compared(facts: Facts) -> dict[str, Any] | None:
    """Return each method's scale at the main target, on the prompt axis if it can be."""
    table = facts.fit.comparison
    here = table[np.isclose(table["threshold"], facts.threshold)]
    usual = ("prompts", f"n_rollouts={facts.batch.get('n_rollouts', 0):g}")
    rows = {key: part.set_index("method") for key, part in
            here.assign(at=here["at"].map(plain)).groupby(["axis", "at"], sort=False)}
    known = [key for key, part in rows.items() if "posterior" in part.index]
    if not known:
        return None
    key = usual if usual in known else known[0]
    found = {str(method): {"scale": compared_estimate({**row, "method": method}),
                           "n_used": row["n_runs_used"], "n_dropped": row["n_runs_dropped"]}
             for method, row in rows[key].to_dict("index").items()}
    return {"axis": key[0], "at": key[1], **found}


def _left_out(facts: Facts) -> Section:
    table = tables.left_out_table(facts.fit)
    notes = json.loads(facts.fit.sweep.attrs.get("notes") or "[]")
    return Section("left-out", "What was left out, and why",
                   sentences=[*sentences("left_out", facts=facts), *map(plain, notes)],
                   tables={"left_out": table} if table.rows else {})


def _thresholds(facts: Facts, figures: Sequence[PageFigure]) -> Section:
    table = tables.definitions_table(facts)
    return Section(
        "thresholds", "Critical batch size: targets and definitions", closed=True, figures=figures,
        intro="“Critical” is a convention: the batch at which S is twice its least, at which "
              "updates lie 20 % above linear scaling, or from which doubling saves less than 10 %. "
              "All are read off one posterior; overhead.csv has every target and group size.",
        sentences=sentences("definitions", facts=facts),
        tables={} if table is None else {"overhead": table})


def _laws(facts: Facts) -> Section:
    table = tables.laws_table(facts)
    shown = {"law_comparison": tables.law_comparison_table(facts)} if len(
        facts.fit.law_table) > 1 else {}
    return Section(
        "laws", "Other laws", closed=True,
        intro="The exponent decides how large a noise scale looks: 1 is the form of McCandlish et "
              "al. (2018), ½ what a normalised update such as Adam's gives at one learning rate. "
              "Laws are compared by leaving out one run at a time.",
        sentences=sentences("laws", facts=facts) or ["No other law was fitted to compare with."],
        tables=shown, folded={} if table is None else {"laws": table})


def _times(facts: Facts) -> Section:
    title = "Time to the target"
    if isinstance(facts.times, str):
        text = facts.times
        return Section("times", title, sentences=[f"{text[:1].upper()}{text[1:]}."], closed=True)
    named = zip(("step_time", "times"), clock_tables(facts.times), strict=True)
    return Section("times", title, closed=True, kind="wide-text", tables=dict(named),
                   sentences=[clock_sentence(facts.times), *choice_sentences(facts.times),
                              *facts.times.notes])


def _noise(facts: Facts, noise: pd.DataFrame | str) -> Section | None:
    joint = tables.joint_table(facts)
    if isinstance(noise, str):
        if not noise and joint is None:
            return None
        return Section("noise", "Measured gradient noise", sentences=[noise, *_joint(facts)],
                       tables={} if joint is None else {"joint": joint}, closed=True)
    shown = {"noise": tables.noise_table(facts, noise)} | ({"joint": joint} if joint else {})
    return Section(
        "noise", "Measured gradient noise beside the fit", closed=True, kind="wide-text",
        intro="Gradients measured at unchanged parameters give noise scales that no fit was needed "
              "for, averaged over the same progress as the fitted ones. They equal the batch that "
              "stops paying in order of magnitude only; noise.csv has every accuracy range.",
        sentences=_joint(facts), tables=shown)


def _joint(facts: Facts) -> list[str]:
    table = facts.fit.noise_joint
    if table is None or "noise_offset" not in set(table["quantity"]):
        return []
    offset = table[table["quantity"] == "noise_offset"].iloc[0]
    verdicts = table["verdict"].value_counts()
    ends = (float(np.exp(offset[name])) for name in ("with_lower", "with_upper"))
    return sentences(
        "joint", offset=offset, verdict=verdict_of(*ends), factor=FACTOR, largest=LARGE_OFFSET,
        missing=str(facts.fit.tree.attrs.get("noise_joint_missing", "")),
        n_both=int(verdicts.drop("", errors="ignore").sum()), n_agree=verdicts.get("agree", 0),
        n_differ=verdicts.get("differ", 0))


def _diagnostics(facts: Facts) -> Section:
    verdict = facts.fit.verdict
    checks = {name.replace("_", " "): "passed" if passed else "failed or not made"
              for name, passed in sorted(verdict["checks_made"].items())}
    found = {"diagnostics": tables.key_values({**checks, **verdict.get("diagnostics", {})},
                                              "Checks of the sampler.")}
    return Section("diagnostics", "Diagnostics", closed=True,
                   tables={**found, "convergence": tables.worst_table(facts)})


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
        iso_runs(fit, 0 if isinstance(facts.decision, str) else facts.decision.total)
        split = True
    except CBSDataError:
        split = False
    seconds = fit.sweep["step_time"].values if "step_time" in fit.sweep else np.array([])
    ceilings = any(OPTION in sentence for sentence in fit.verdict["sentences"])
    found = sentences(
        "next", folder=shlex.quote(str(folder)), split=split,
        timed=int((np.isfinite(seconds) & (seconds > 0)).sum()) >= _TIMED,
        model=fit.settings.get("model", "crossing"), ceilings=ceilings and not facts.ceilings,
        folder_ceilings=shlex.quote(f"{folder}_ceilings"),
        reused="ppo_epochs" in everyone and np.unique(everyone["ppo_epochs"]).size > 1,
        parent=shlex.quote(str(folder.parent)),
        sweep="" if source is None else shlex.quote(str(source)))
    return [line.replace("\t", "  # ") for line in found]
