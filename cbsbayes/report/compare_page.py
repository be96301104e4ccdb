"""Fits side by side as a page: ratios in words, every quantity at every common threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cbsbayes.posterior.versions import versions
from cbsbayes.report.contrast import contrast_table
from cbsbayes.report.facts import Facts
from cbsbayes.report.page import Page, Section, page_figure
from cbsbayes.report.tables import Table
from cbsbayes.report.text import paragraph

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["Comparison", "compare_page"]

_VERDICTS = {
    "good": "Sampling checks passed by all of these fits",
    "limited": "Sampling checks passed by all of these fits, but some have limits of their own: "
               "see their pages",
    "failed": "Sampling checks not passed by all of these fits",
}
_DEFINITIONS = {
    "ratio": "First over second, for typical runs. Draws of two fits are independent given the "
             "model, so they are paired at random.",
    "P(first > second)": "Share of all pairs of draws in which the first is larger.",
    "laws differ": "A noise scale, a critical batch size, an exponent or S_min is a number only "
                   "together with its law; under different laws none is put in relation.",
    "generated samples": "Samples that the runs generate until the target: S times the batch of an "
                         "update over the passes (ppo_epochs) that each sample is used for.",
    "sample passes": "The same counted once for every pass over a sample.",
    "passes per step": "Sample passes of a trainer step: batches of one diagonal make as many.",
}


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes
    ----------
    fits : mapping of str to Fit
        The fits by name.
    table : DataFrame
        Of ``compare.csv``.
    shown : sequence of (float, DataFrame)
        The rows told in words of every pair, with their threshold.
    told : sequence of str
        Remarks, what must be known to read the rest.
    lines : sequence of str
        All sentences, the remarks first.
    """

    fits: Mapping[str, Fit]
    table: pd.DataFrame
    shown: Sequence[tuple[float, pd.DataFrame]]
    told: Sequence[str]
    lines: Sequence[str]


def compare_page(found: Comparison, folder: Path, command: str) -> Page:
    """Return what stands on the page of a comparison.

    Parameters
    ----------
    found : Comparison
        Tables and sentences.
    folder : Path
        With the figure, ``compare.svg``, drawn.
    command : str
        The command line.
    """
    labels = list(found.fits)
    levels = [fit.verdict["level"] for fit in found.fits.values()]
    worst = next(level for level in ("failed", "limited", "good") if level in levels)
    how, *answer = found.lines[len(found.told):]
    return Page(
        kicker="Fits side by side",
        title=f"How do {_listed(labels)} differ, and how sure is it?",
        asked=f"{len(labels)} fits were compared: {_listed(labels)}. {how}",
        level=worst,
        verdict=_VERDICTS[worst],
        cautions=found.told, answer=answer, sections=list(_parts(found, folder)),
        definitions=_DEFINITIONS, paper=_paper(found, how, answer), made=_made(found, command),
        laws=[fit.law for fit in found.fits.values()],
        files=["compare.csv", "compare.txt", "compare.svg", "compare.pdf"])


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _parts(found: Comparison, folder: Path) -> list[Section]:
    figure = page_figure(
        folder, "compare", "Values and ratios with their intervals",
        "Left: every fit at every common threshold. Right: ratios to the first fit, where the data "
        "settle one; left of 1 the first is the smaller. An arrow is a bound.")
    main = {f"pair_{k}": contrast_table(rows, level)
            for k, (level, rows) in enumerate(found.shown, start=1)}
    return [Section("pairs", "Side by side", tables=main, figures=[figure]),
            Section("everything", "Every quantity at every common threshold",
                    folded=_every_row(found.table))]


def _every_row(table: pd.DataFrame) -> dict[str, Table]:
    """Return a table per pair and threshold; what all thresholds share stands first, by itself."""
    levels = table["threshold"].fillna(float("-inf"))
    named = {}
    pairs = table.groupby(["first", "second"], sort=False).ngroup() + 1
    for (pair, level), rows in table.groupby([pairs, levels], sort=True):
        place = "shared" if level == float("-inf") else f"at_{level:g}"
        named[f"pair_{pair}_{place}"] = contrast_table(rows, float(rows["threshold"].iloc[0]))
    return named


def _paper(found: Comparison, how: str, answer: Sequence[str]) -> str:
    parts = [f"{label}: {paragraph(name, facts=Facts(fit))}"
             for label, fit in found.fits.items() for name in ("data", "law")]
    software = paragraph("software", facts=Facts(next(iter(found.fits.values()))))
    return " ".join([*parts, how, *answer[:3], *found.told, software])


def _made(found: Comparison, command: str) -> dict[str, object]:
    fits = {label: {"group": fit.group, "law": fit.law.name,
                    "metric": fit.settings.get("metric", ""), "thresholds": fit.thresholds.tolist(),
                    "data_digest": fit.settings.get("data_digest", "")}
            for label, fit in found.fits.items()}
    return {"command": command, "ci_prob": float(found.table["ci_prob"].iloc[0]),
            "ci_kind": "equal-tailed", "fits": fits, "versions": versions()}
