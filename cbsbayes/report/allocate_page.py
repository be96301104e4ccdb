"""A decision as a page: which batch to run, how sure that is, and what it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cbsbayes.plots.gallery import all_figures
from cbsbayes.posterior.versions import versions
from cbsbayes.report.allocation import allocation_tables
from cbsbayes.report.clock import clock_tables
from cbsbayes.report.facts import Facts
from cbsbayes.report.page import Page, Section, page_figure
from cbsbayes.report.tables import Table
from cbsbayes.report.text import paragraph

if TYPE_CHECKING:
    from cbsbayes.decisions.decision import Decision
    from cbsbayes.decisions.time_answer import ClockAnswer
    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.allocation import Allocation
    from cbsbayes.report.page import PageFigure

__all__ = ["allocate_page"]

_SECTIONS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "splits": ("Splits of the batch", ("splits", "group_size"), ("split_choice",)),
    "targets": ("Batches that meet the target", ("targets",), ()),
    "front": ("Updates against samples", ("front",), ("front",)),
    "check": ("Checked against runs of the batch", ("iso_batch",), ()),
    "clock": ("Wall clock and cost", ("clock", "times"),
              ("clock_map", "time_cost", "step_time")),
}
"""Sections by slug: title, tables and figures."""

_PER_TARGET = {"splits", "targets", "front", "iso_batch"}  # the others hold all targets

_DEFINITIONS = {
    "P(best)": "Share of posterior draws in which a split takes the fewest updates on a typical "
               "run, among all splits, and among those inside the range tried. It holds as far as "
               "the law does: where small groups saturate at a lower accuracy it is too sure of "
               "small groups.",
    "regret": "Share of updates that a split takes more than the best one.",
    "range": "tried: was run; inside: between batches tried; extrapolated: beyond them.",
    "typical run, one new run": "A typical run has no run effect and no slow machine; one new run "
                                "has both drawn anew.",
    "P(met)": "Probability that a run with the batch meets the target; the largest P is the most "
              "that any batch along that line can do.",
    "front": "Batches than which no other takes fewer updates and no more samples.",
    "bound": "Of a number of GPUs that was not measured: as if work divided perfectly.",
}


def allocate_page(
    fit: Fit, decision: Decision, told: Allocation, clock: ClockAnswer | str | None, folder: Path,
    command: str, settings: Mapping[str, object],
) -> Page:
    """Return what stands on the page of a decision.

    Parameters
    ----------
    fit : Fit
        The fit it was read from.
    decision : Decision
        Its tables.
    told : Allocation
        The same in words.
    clock : ClockAnswer, str or None
        The clock's answer, or why there is none; None where it was not asked for.
    folder : Path
        With the figures drawn.
    command : str
        The command line.
    settings : mapping
        What was asked.
    """
    tables = allocation_tables(decision)
    if clock is not None and not isinstance(clock, str):
        tables |= dict(zip(("clock", "times"), clock_tables(clock), strict=True))
    sampled, figures = bool(fit.verdict["sampling"]["passed"]), _figures(fit, folder)
    return Page(
        kicker="Which batch to run", title="Which batch is best, and how sure is that?",
        asked=f"Read off the fit of {fit.crossings.sizes['run']} runs of {fit.group}, law "
              f"{fit.law.name}; batch: {decision.reason}; threshold {decision.threshold:g}.",
        level=fit.verdict["level"], verdict=fit.verdict["title"],
        cautions=[*([] if sampled else fit.verdict["sentences"]), *told.notes],
        answer=told.sentences,
        sections=_parts(tables, _other_targets(decision), figures), definitions=_DEFINITIONS,
        paper=_paper(fit, told), laws=[fit.law], made=_made(fit, command, settings),
        files=[*(f"{name}.csv" for name in decision.tables), *(f"{slug}.svg" for slug in figures)])


def _figures(fit: Fit, folder: Path) -> dict[str, PageFigure]:
    """Return the figures that were drawn, with the titles and captions of the fit's page."""
    known = {item.slug: item for item in all_figures(fit)}
    wanted = [slug for _, _, slugs in _SECTIONS.values() for slug in slugs]
    return {slug: page_figure(folder, slug, known[slug].title, known[slug].caption)
            for slug in wanted if (folder / f"{slug}.svg").exists()}


def _other_targets(decision: Decision) -> dict[str, dict[str, Table]]:
    """Return the tables at the targets that sentences do not speak of, by name and file name."""
    table = decision.tables["front"]
    levels = [float(t) for t in sorted(table["threshold"].unique()) if t != decision.threshold]
    found: dict[str, dict[str, Table]] = {}
    for level in levels:
        at = allocation_tables(replace(decision, threshold=level))
        for name in _PER_TARGET & at.keys():
            found.setdefault(name, {})[f"{name}_at_{level:g}"] = at[name]
    return found


def _parts(
    tables: Mapping[str, Table], others: Mapping[str, Mapping[str, Table]],
    figures: Mapping[str, PageFigure],
) -> Sequence[Section]:
    parts = [Section(slug, title, tables={name: tables[name] for name in names if name in tables},
                  folded={key: table for name in names for key, table in
                          others.get(name, {}).items()},
                  figures=[figures[name] for name in drawn if name in figures])
             for slug, (title, names, drawn) in _SECTIONS.items()]
    return [part for part in parts if part.tables or part.figures]


def _paper(fit: Fit, told: Allocation) -> str:
    provisional = ("" if fit.verdict["sampling"]["passed"] else
                   "The fit did not pass its checks; what follows is provisional.")
    facts = Facts(fit)
    parts = [provisional, paragraph("data", facts=facts), paragraph("law", facts=facts),
             *told.sentences, *told.notes, paragraph("software", facts=facts)]
    return " ".join(part for part in parts if part)


def _made(fit: Fit, command: str, settings: Mapping[str, object]) -> dict[str, object]:
    kept = {name: fit.settings.get(name, "") for name in (
        "law", "metric", "thresholds", "ci_prob", "draws", "chains", "random_seed", "data_digest")}
    return {"command": command, "asked": dict(settings), "fit": kept, "versions": versions()}
