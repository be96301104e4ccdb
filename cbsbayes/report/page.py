"""The page of a fit: one HTML file with everything in it (`cbsbayes.report.rendering`)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.averaging import AVERAGE
from cbsbayes.posterior.cross_check import CROSS_CHECK
from cbsbayes.report import headline, tables, words
from cbsbayes.report import noise as noise_words
from cbsbayes.report import overhead as overhead_words
from cbsbayes.report.clock import NO_CLOCK
from cbsbayes.report.estimates import plain
from cbsbayes.report.laws import law_sentences
from cbsbayes.report.noise_joint import joint_context
from cbsbayes.report.paper import paper_paragraph
from cbsbayes.report.rendering import PageFigure, render_template
from cbsbayes.report.table_files import write_tables
from cbsbayes.sweep.files import write_whole

if TYPE_CHECKING:
    import pandas as pd

    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.allocation import Allocation
    from cbsbayes.report.next_steps import NextStep

__all__ = ["SECTIONS", "IndexEntry", "PageFigure", "render_index", "render_page", "section_of"]

SECTIONS: dict[str, tuple[str, ...]] = {
    "quantities": ("gains",),
    "curves": ("steps", "samples"),
    "predictive": ("crossing_check", "run_effects"),
    "thresholds": ("cbs",),
    "splits": ("iso_batch", "split_choice", "front"),
    "training": ("training",),
    "noise": ("noise_against_fit", "gradient_noise"),
    "clock": ("wall_clock", "clock_map", "time_cost", "step_time"),
    "comparison": ("comparison",),
    "laws": ("laws",),
    "diagnostics": ("prior_posterior", "convergence", "ranks", "trace", "energy"),
}
"""Sections of the page and the slugs of their figures; a slug may carry a suffix after "_"."""

_COMPARED_LABELS = {
    "law": "law", "rank": "rank", "elpd": "elpd", "elpd_loo": "elpd", "elpd_diff": "behind best",
    "p": "effective parameters", "se": "its se", "dse": "se of difference", "weight": "weight",
    "warning": "warning", "pareto_k_max": "largest Pareto k", "n_runs": "runs",
}


@dataclass(frozen=True)
class IndexEntry:
    """One group's report in the list of reports.

    Attributes
    ----------
    group : str
        The group's label.
    href : str
        Path of its page relative to the index, with forward slashes; empty where it could not
        be fitted.
    headline : str
        Its answer in one sentence (`words.headline`), or why it could not be fitted.
    trusted : bool
        Its verdict.
    """

    group: str
    href: str
    headline: str
    trusted: bool


def render_page(
    fit: Fit,
    figures: Sequence[PageFigure] | Callable[[], Sequence[PageFigure]],
    *,
    path: str | os.PathLike[str] | None = None,
    extra: Mapping[str, object] | None = None,
    noise: pd.DataFrame | str = "No gradient noise was logged.",
    allocation: Allocation | None = None,
    clock: Mapping[str, Any] | None = None,
    overhead: pd.DataFrame | None = None,
    tables_to: Path | None = None,
    next_steps: Sequence[NextStep] = (),
) -> str:
    """Return the report of one fit as one self-contained HTML page.

    Parameters
    ----------
    fit : Fit
        Its tables, verdict, settings and sweep are shown; nothing is computed from draws.
    figures : sequence of PageFigure, or callable that returns it
        In the order to show them within their sections; those of no section come last. Called
        when all else is done, so that figures can be drawn meanwhile.
    path : path-like, optional
        Where to write the page as well, whole or not at all.
    extra : mapping, optional
        More facts, name to value (a nested mapping gives dotted names). ``diagnostics`` is
        shown with the diagnostics, the rest (``command``, ``versions`` …) where the page says
        how it was made.
    noise : DataFrame or str
        Measured gradient noise beside the fit (``noise.csv``), or the sentence that says why
        there is none.
    allocation : Allocation, optional
        Which split of the sweep's batch is best, and the front of updates and samples.
    clock : mapping, optional
        What `cbsbayes.report.clock.clock_section` returns: words and tables of step times.
    overhead : DataFrame, optional
        Other definitions of a critical batch (``overhead.csv``).
    tables_to : Path, optional
        Folder to write every table of the page into, as CSV and LaTeX.
    next_steps : sequence of NextStep
        Command lines that go on from this fit.

    Returns
    -------
    str
        The page.

    Raises
    ------
    CBSDataError
        If the fit has no quantities, or a status that there is not.
    OSError
        If the page cannot be written.
    """
    if fit.cbs.empty:
        raise CBSDataError("the fit has no quantities to report (0 rows); fit it again")
    context = _context(fit, extra or {}) | {
        "noise": _noise(fit, noise), "paper": paper_paragraph(fit, overhead),
        "overhead": overhead_words.overhead_section(overhead, fit, words.main_threshold(fit)),
        "allocation": allocation, "clock": clock or NO_CLOCK,
        "next_steps": list(next_steps), "joint": joint_context(fit, words.main_threshold(fit))}
    if tables_to is not None:
        decided = {} if allocation is None else {"allocation": {"tables": allocation.tables}}
        write_tables({**context, **decided}, tables_to)
    drawn = figures() if callable(figures) else figures
    page = render_template("page.html.j2", **context, figures=_placed(drawn))
    if path is not None:
        write_whole(path, page)
    return page


def render_index(
    entries: Iterable[IndexEntry], path: str | os.PathLike[str] | None = None,
) -> str:
    """Return a short page that lists the reports of several groups.

    Parameters
    ----------
    entries : iterable of IndexEntry
        One per group.
    path : path-like, optional
        Where to write it as well, whole or not at all.
    """
    listed = list(entries)
    links = [f"./{quote(entry.href)}" for entry in listed]  # "./": never a scheme
    page = render_template("index.html.j2", entries=list(zip(listed, links, strict=True)))
    if path is not None:
        write_whole(path, page)
    return page


def _context(fit: Fit, extra: Mapping[str, object]) -> dict[str, Any]:
    notes = json.loads(fit.sweep.attrs.get("notes") or "[]")
    return {
        "question": words.question(fit), "verdict_title": words.verdict_title(fit),
        "trusted": bool(fit.verdict["trusted"]), "sentences": fit.verdict["sentences"],
        "checks": fit.verdict["checks_made"], "answer": words.answer(fit),
        "law": fit.law, "formula": words.formula(fit.law),
        "ceilings": bool(fit.settings.get("ceiling_by_group", False)),
        "comparison_sentences": words.comparison_sentences(fit),
        "law_sentences": law_sentences(fit.law_table),
        "left_out_sentence": words.left_out_sentence(fit),
        "notes": [plain(note) for note in notes],
        "tables": _tables(fit, extra),
    }


def _noise(fit: Fit, noise: pd.DataFrame | str) -> dict[str, Any]:
    if isinstance(noise, str):
        return {"missing": noise}
    return {"missing": "", "table": noise_words.noise_table(noise, fit),
            "rest": noise_words.rest_table(noise, fit),
            "sentences": noise_words.noise_sentences(noise, fit, words.main_threshold(fit))}


def _tables(fit: Fit, extra: Mapping[str, object]) -> dict[str, tables.Table | None]:
    interval = words.credible(fit)
    beside = {**fit.others, AVERAGE: fit.averaged}
    if fit.cross_check is not None:
        beside[f"{fit.law.name}, {CROSS_CHECK}"] = fit.cross_check
    laws = headline.laws_table(
        fit.law.name, fit.cbs, beside, fit.thresholds.tolist(), fit.runs, "The same data under "
        f"other laws, and averaged over all by their weights: median and {interval}."
    ) if fit.others else None
    return {
        "main": headline.headline_table(
            fit.cbs, fit.thresholds.tolist(), fit.runs,
            f"Median and {interval}, per threshold, under the law {fit.law.name}."),
        "full": tables.full_table(fit.cbs, "Every quantity at every batch it was read off at."),
        "laws": laws,
        "comparison": tables.comparison_table(
            fit.comparison, "Noise scale by method and threshold, with the interval "
            "of each method below it."),
        "law_comparison": tables.from_frame(
            fit.law_table, "Laws compared by leaving out one run at a time.", _COMPARED_LABELS,
            dict.fromkeys(("elpd", "elpd_loo", "elpd_diff", "se", "dse", "p"), 1)),
        "diagnostics": _diagnostics(fit, extra),
        "convergence": tables.from_frame(
            tables.worst_rows(fit.cbs), "The worst value of each diagnostic, by quantity.",
            decimals={"r_hat": 3, "ess_bulk": 0, "ess_tail": 0}),
        "left_out": tables.runs_table(fit.runs, "Runs left out of the fit.", used=False),
        "used": tables.runs_table(
            fit.runs, "Runs used, with the updates between which each crossed.", used=True),
        "made": tables.key_values(_made(fit, extra), "Settings, versions and data."),
    }


def _diagnostics(fit: Fit, extra: Mapping[str, object]) -> tables.Table | None:
    given = extra.get("diagnostics")
    return tables.key_values(given, "Diagnostics of the sampler.") if isinstance(
        given, Mapping) else None


def _made(fit: Fit, extra: Mapping[str, object]) -> dict[str, object]:
    data = {f"sweep.{name}": plain(fit.sweep.attrs[name])
            for name in ("title", "metric", "direction", "digest", "history")
            if plain(fit.sweep.attrs.get(name, ""))}
    rest = {name: value for name, value in extra.items() if name != "diagnostics"}
    return {**rest, "settings": fit.settings, **data}


def _placed(figures: Sequence[PageFigure]) -> dict[str, list[PageFigure]]:
    """Return the figures by section; those that belong to none are under ``others``."""
    placed: dict[str, list[PageFigure]] = {name: [] for name in (*SECTIONS, "others")}
    for figure in figures:
        placed[section_of(figure.slug)].append(figure)
    return placed


def section_of(slug: str) -> str:
    """Return the section of the page a figure stands in, ``others`` for one of none."""
    for section, slugs in SECTIONS.items():
        if any(slug == known or slug.startswith(f"{known}_") for known in slugs):
            return section
    return "others"
