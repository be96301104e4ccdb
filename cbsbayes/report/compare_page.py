"""Fits side by side as a page: ratios in words, every quantity at every common threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cbsbayes.posterior.versions import versions
from cbsbayes.report.command_page import CommandPage, Part, law_formulas, page_figure
from cbsbayes.report.contrast import contrast_table, pooled_part
from cbsbayes.report.paper import data_sentence, law_sentence, software_sentence
from cbsbayes.report.tables import Table

if TYPE_CHECKING:
    from cbsbayes.decisions.compare_fits import Side

__all__ = ["Comparison", "compare_page"]

_DEFINITIONS = {
    "ratio": "First over second, for typical runs. Draws of two fits are independent given the "
             "model, so they are paired at random.",
    "P(first > second)": "Share of all pairs of draws in which the first is larger.",
    "laws differ": "A noise scale, a critical batch size, an exponent or S_min is a number only "
                   "together with its law; under different laws none is put in relation.",
    "alone": "As fitted from the group's own runs.",
    "pooled": "Drawn towards the other groups, as far as their spread between groups allows.",
    "mean of groups, another group": "The groups' mean, and one more group of the same kind.",
}


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes
    ----------
    sides : sequence of Side
        The fits.
    table : DataFrame
        Of ``compare.csv``.
    pooled : DataFrame or None
        Of ``pooled.csv``.
    shown : sequence of (float, DataFrame)
        The rows told in words of every pair, with their threshold.
    told : sequence of str
        Remarks, what must be known to read the rest.
    lines : sequence of str
        All sentences, the remarks first.
    """

    sides: Sequence[Side]
    table: pd.DataFrame
    pooled: pd.DataFrame | None
    shown: Sequence[tuple[float, pd.DataFrame]]
    told: Sequence[str]
    lines: Sequence[str]


def compare_page(found: Comparison, folder: Path, command: str) -> CommandPage:
    """Return what stands on the page of a comparison.

    Parameters
    ----------
    found : Comparison
        Tables and sentences.
    folder : Path
        With the figure, ``compare.png``, drawn.
    command : str
        The command line.
    """
    labels = [side.label for side in found.sides]
    trusted = all(side.fit.verdict["trusted"] for side in found.sides)
    how, answer, _ = _sentences(found)
    return CommandPage(
        kicker="Fits side by side",
        question=f"How do {_listed(labels)} differ, and how sure is it?",
        asked=f"{len(labels)} fits were compared: {_listed(labels)}. {how}", trusted=trusted,
        verdict="All of these fits can be trusted as far as their checks go" if trusted else
                "Not all of these fits are to be trusted yet",
        cautions=found.told, answer=answer, parts=list(_parts(found, folder)),
        definitions=_DEFINITIONS, paper=_paper(found, how, answer), made=_made(found, command),
        laws=law_formulas([side.fit.law for side in found.sides]),
        files=["compare.csv", *(["pooled.csv"] if found.pooled is not None else []),
               "compare.txt", "compare.png", "compare.pdf"])


def _sentences(found: Comparison) -> tuple[str, list[str], list[str]]:
    """Return how numbers are meant, what is said of pairs, and what of groups pooled."""
    how, *rest = found.lines[len(found.told):]
    pairs = sum(len(rows) for _, rows in found.shown)
    return how, rest[:pairs], rest[pairs:]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _parts(found: Comparison, folder: Path) -> list[Part]:
    figure = page_figure(
        folder, "compare", "Values and ratios with their intervals",
        "Left: every fit at every common threshold. Right: ratios to the first fit, where the data "
        "settle one; left of 1 the first is the smaller. An arrow is a bound.")
    main = {f"pair_{k}": contrast_table(rows, level)
            for k, (level, rows) in enumerate(found.shown, start=1)}
    parts = [Part("pairs", "Side by side", tables=main, figures=[figure]),
             Part("everything", "Every quantity at every common threshold",
                  folded=_every_row(found.table))]
    if found.pooled is not None and not found.pooled.empty:
        parts.append(Part(
            "pooled", "Pooled in part", intro="Groups of one kind say something of each other: "
            "each is drawn towards the others by what the data tell of the spread between them.",
            sentences=_sentences(found)[2],
            folded={"pooled": pooled_part(found.pooled)}))
    return parts


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
    parts = [f"{side.label}: {data_sentence(side.fit)} {law_sentence(side.fit)}"
             for side in found.sides]
    first = found.sides[0].fit
    return " ".join([*parts, how, *answer[:3], *found.told, software_sentence(first)])


def _made(found: Comparison, command: str) -> dict[str, object]:
    fits = {side.label: {"group": side.fit.group, "law": side.fit.law.name,
                         "metric": side.fit.settings.get("metric", ""),
                         "thresholds": side.fit.thresholds.tolist(),
                         "data_digest": side.fit.settings.get("data_digest", "")}
            for side in found.sides}
    return {"command": command, "ci_prob": float(found.table["ci_prob"].iloc[0]),
            "ci_kind": "equal-tailed", "fits": fits, "versions": versions()}
