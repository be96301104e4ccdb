"""Fits side by side: sentences, a table per pair and target, and the page of ``compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from cbsbayes.decisions.compare_fits import LAW_BOUND, shared_runs
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit import Fit, versions
from cbsbayes.report.facts import Facts
from cbsbayes.report.page import Page, PageFigure, sections_of
from cbsbayes.report.tables import Table, chosen, laid_out
from cbsbayes.report.text import paragraph, plain, row_label, sentences, spec

__all__ = ["compare_page", "compare_sentences", "how_text", "main_rows", "pair_tables", "remarks",
           "row_label"]

_MAIN = ("gain_prompts", "gain_rollouts", "gain_total", "batch_at_gain", "cbs_prompts",
         "cbs_samples", "cbs_rollouts", "best_n_rollouts", "alpha", "S_min", "steps",
         "generated_samples", "sample_passes")
_DERIVED = "cbs_samples"  # G times cbs_prompts: shown only where that is not
_LEVELS = ("failed", "limited", "good")  # the worst first


def main_rows(
    table: pd.DataFrame, usual: Mapping[str, float], threshold: float | None = None
) -> pd.DataFrame:
    """Return the main rows of every pair at one target: a batch per quantity.

    Parameters
    ----------
    table : DataFrame
        The table of ``compare.csv``.
    usual : mapping
        The batch that most runs had (`cbsbayes.report.tables.usual_batch`).
    threshold : float, optional
        One that all pairs have in common; by default the middle one of each pair.

    Raises
    ------
    CBSDataError
        If the threshold is not common to a pair.
    """
    kept = []
    for (first, second), rows in table.groupby(["first", "second"], sort=False):
        levels = np.sort(rows["threshold"].dropna().unique())
        if not len(levels):
            continue
        if threshold is not None and not np.isclose(levels, threshold).any():
            raise CBSDataError(f"threshold {threshold:g} is not common to {first} and {second}; "
                               f"common: {', '.join(f'{t:g}' for t in levels)}")
        level = float(levels[len(levels) // 2]) if threshold is None else threshold
        here = rows[np.isclose(rows["threshold"].astype(float), level) | rows["threshold"].isna()]
        present = dict.fromkeys(here["quantity"])
        names = dict.fromkeys([*(name for name in _MAIN if name in present), *present])
        kept += [chosen(here, name, usual, 1) for name in names
                 if name != _DERIVED or "cbs_prompts" not in names]
    return pd.concat(kept)


def compare_sentences(rows: pd.DataFrame) -> list[str]:
    """Return one sentence per row, each number with its law."""
    return sentences("compare", rows=rows.to_dict("records"), law_bound=LAW_BOUND)


def remarks(fits: Mapping[str, Fit]) -> list[str]:
    """Return what must be known to read the comparison, one sentence each."""
    differ = {"laws": {label: fit.law.name for label, fit in fits.items()},
              "metrics": {label: str(fit.settings.get("metric") or "not named")
                          for label, fit in fits.items()},
              "models": {label: str(fit.settings.get("model", "crossing"))
                         for label, fit in fits.items()}}
    shared = {(a, b): shared_runs(fits[a], fits[b]) for a, b in combinations(fits, 2)}
    return sentences("compare_remarks", fits=fits, shared=shared, differ={
        name: values for name, values in differ.items() if len(set(values.values())) > 1})


def how_text(table: pd.DataFrame) -> str:
    """Return what the numbers of a comparison mean."""
    return paragraph("compare_how", prob=float(table["ci_prob"].iloc[0]))


def pair_tables(rows: pd.DataFrame) -> dict[str, Table | None]:
    """Return the table of every pair by file name: both sides, ratio, P(first > second)."""
    pairs = rows.groupby(["first", "second"], sort=False)
    return {f"pair_{k}": _pair_table(part) for k, (_, part) in enumerate(pairs, start=1)}


def _pair_table(rows: pd.DataFrame) -> Table | None:
    head, levels = rows.iloc[-1], rows["threshold"].dropna()
    return laid_out(
        "pair", rows, first=plain(head["first"]), second=plain(head["second"]),
        laws=list(dict.fromkeys((head["first_law"], head["second_law"]))),
        target=float(levels.iloc[0]) if len(levels) else np.nan, prob=float(head["ci_prob"]))


def _every_row(table: pd.DataFrame) -> dict[str, Table | None]:
    """Return a table per pair and target; what all targets share stands first, by itself."""
    levels = table["threshold"].fillna(-np.inf)
    pairs = table.groupby(["first", "second"], sort=False).ngroup() + 1
    return {f"every_{pair}_{'shared' if level == -np.inf else f'{level:g}'}": _pair_table(rows)
            for (pair, level), rows in table.groupby([pairs, levels], sort=True)}


def compare_page(
    sides: Mapping[str, Facts], table: pd.DataFrame, shown: pd.DataFrame,
    figures: Sequence[PageFigure], command: str,
) -> Page:
    """Return what stands on the page of a comparison.

    Parameters
    ----------
    sides : mapping of str to Facts
        The fits by name.
    table, shown : DataFrame
        The table of ``compare.csv``, and its main rows (`main_rows`).
    figures : sequence of PageFigure
        The one called ``compare``.
    command : str
        The command line.
    """
    fits, layout = {label: facts.fit for label, facts in sides.items()}, spec("pages")["compare"]
    names = " and ".join(filter(None, [", ".join(list(fits)[:-1]), list(fits)[-1]]))
    levels = {fit.verdict["level"] for fit in fits.values()}
    worst = next(level for level in _LEVELS if level in levels)
    lines, notes = compare_sentences(shown), remarks(fits)
    made = {label: {"group": fit.group, "law": fit.law.name,
                    "metric": fit.settings.get("metric", ""), "thresholds": fit.thresholds.tolist(),
                    "data_digest": fit.settings.get("data_digest", "")}
            for label, fit in fits.items()}
    return Page(
        kicker=layout["kicker"], title=f"How do {names} differ, and how sure is it?",
        asked=f"{len(fits)} fits were compared: {names}. {how_text(table)}",
        level=worst, verdict=layout["verdicts"][worst], cautions=notes, answer=lines,
        sections=sections_of("compare", pair_tables(shown) | _every_row(table), figures),
        definitions=layout["definitions"],
        laws=list({fit.law.name: fit.law for fit in fits.values()}.values()),
        paper=paragraph("compare_paper", sides=sides, how=how_text(table),
                        lines=[*lines[:3], *notes]),
        made={"command": command, "ci_prob": float(table["ci_prob"].iloc[0]),
              "ci_kind": "equal-tailed", "fits": made, "versions": versions()},
        files=layout["files"])
