"""Fits side by side: sentences, a table per pair and threshold, and the page of ``compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cbsbayes.decisions.compare_fits import LAW_BOUND, remarks
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit import versions
from cbsbayes.report import numbers
from cbsbayes.report.facts import Facts, chosen_ats
from cbsbayes.report.numbers import Estimate, estimate_of
from cbsbayes.report.page import Page, Section, page_figure
from cbsbayes.report.tables import Cell, Table, from_columns
from cbsbayes.report.text import at_text, paragraph, plain, quantity_label, sentences

__all__ = ["compare_page", "compare_sentences", "compare_table", "how_text",
           "main_rows", "pair_tables", "row_label"]

_MAIN = ("gain_prompts", "gain_rollouts", "gain_total", "batch_at_gain", "cbs_prompts",
         "cbs_samples", "cbs_rollouts", "best_n_rollouts", "alpha", "S_min", "steps",
         "generated_samples", "sample_passes")
_DERIVED = "cbs_samples"  # G times cbs_prompts: shown only where that is not
_VERDICTS = {
    "failed": "Sampling checks not passed by all of these fits",
    "limited": "Sampling checks passed by all of these fits, but some have limits of their own: "
               "see their pages",
    "good": "Sampling checks passed by all of these fits",
}
"""The verdict by the worst level of any fit, the worst first."""

_DEFINITIONS = {
    "ratio": "First over second, in the population of runs. Draws of two fits are independent "
             "given the model, so they are paired at random.",
    "P(first > second)": "Share of all pairs of draws in which the first is larger.",
    "laws differ": "A noise scale, a critical batch size, an exponent or S_min is a number only "
                   "together with its law; under different laws none is put in relation.",
    "generated samples": "Samples that the runs generate until the target: S times the batch of an "
                         "update over the passes (ppo_epochs) that each sample is used for.",
    "sample passes": "The same counted once for every pass over a sample.",
    "passes per step": "Sample passes of a trainer step: batches of one diagonal make as many.",
}


def main_rows(
    table: pd.DataFrame, usual: Mapping[str, float], threshold: float | None = None
) -> pd.DataFrame:
    """Return the rows to tell of every pair at one threshold: a batch per quantity.

    Parameters
    ----------
    table : DataFrame
        The table of ``compare.csv``.
    usual : mapping
        The batch that most runs had (`cbsbayes.report.facts.usual_batch`).
    threshold : float, optional
        One that all pairs have in common; by default the middle one of each pair.

    Raises
    ------
    CBSDataError
        If the threshold is not common to a pair.
    """
    kept = []
    for _, rows in table.groupby(["first", "second"], sort=False):
        levels = np.sort(rows["threshold"].dropna().unique())
        if not len(levels):
            continue
        if threshold is not None and not np.isclose(levels, threshold).any():
            raise CBSDataError(f"threshold {threshold:g} is not common to "
                               f"{rows['first'].iloc[0]} and {rows['second'].iloc[0]}; common: "
                               f"{', '.join(f'{t:g}' for t in levels)}")
        level = float(levels[len(levels) // 2]) if threshold is None else threshold
        here = rows[np.isclose(rows["threshold"].astype(float), level) | rows["threshold"].isna()]
        present = list(dict.fromkeys(here["quantity"]))
        names = dict.fromkeys(name for name in (*_MAIN, *present) if name in present)
        kept += [here[(here["quantity"] == name) & (here["at"].map(plain) == at)]
                 for name in names if name != _DERIVED or "cbs_prompts" not in names
                 for at in chosen_ats(here, name, usual, 1)]
    return pd.concat(kept)


def _estimate(row: pd.Series, name: str, median: str, status: str) -> Estimate | None:
    if row[status] == "not_comparable":
        return None
    return estimate_of(row[median], row[f"{name}_lower"], row[f"{name}_upper"], str(row[status]))


def _side(row: pd.Series, side: str) -> Estimate | None:
    return _estimate(row, side, f"{side}_median", f"{side}_status")


def compare_sentences(rows: pd.DataFrame) -> list[str]:
    """Return one sentence per row, each number with its law."""
    found = []
    for _, row in rows.iterrows():
        unit = "" if row["unit"] == "1" else f" {row['unit']}"
        texts = {f"{side}_text": f"{_side(row, side)}{unit}" + (
            f" under {row[f'{side}_law']}" if row["quantity"] in LAW_BOUND else "")
            for side in ("first", "second")}
        place = f" at {at_text(row['at'])}" if row["at"] else ""
        found.append({**row, **texts, "name": quantity_label(row["quantity"]) + place,
                      "ratio": _estimate(row, "ratio", "ratio", "status")})
    return sentences("compare", rows=found)


def compare_table(rows: pd.DataFrame) -> Table:
    """Return one pair's rows as a table: both sides, ratio, P(first > second)."""
    head = rows.iloc[-1]
    first, second = str(head["first"]), str(head["second"])
    laws = dict.fromkeys((str(head["first_law"]), str(head["second_law"])))
    levels = rows["threshold"].dropna()
    target = f"at target {plain(float(levels.iloc[0]))}" if len(levels) else "at every target"
    each = [row for _, row in rows.iterrows()]
    ratios = [_estimate(row, "ratio", "ratio", "status") for row in each]
    return from_columns(
        f"{first} against {second} {target}: median and equal-tailed "
        f"{numbers.percent(float(head['ci_prob']))} interval, in the population of runs; law "
        f"{' and '.join(laws)}.",
        {"quantity": [Cell(row_label(row)) for row in each],
         first: [_side(row, "first") for row in each],
         second: [_side(row, "second") for row in each],
         "ratio": [Cell("laws differ", mark="missing") if ratio is None else ratio
                   for ratio in ratios],
         "P(first > second)": [Cell(numbers.probability(float(row["p_first_larger"])))
                               for row in each]})


def row_label(row: pd.Series) -> str:
    """Return quantity, batch and unit of a row in words."""
    at = f" at {at_text(row['at'])}" if row["at"] else ""
    unit = "" if row["unit"] == "1" else f", {row['unit']}"
    return f"{quantity_label(row['quantity'])}{at}{unit}"


def compare_page(
    sides: Mapping[str, Facts], table: pd.DataFrame, shown: pd.DataFrame, folder: Path, command: str
) -> Page:
    """Return what stands on the page of a comparison.

    Parameters
    ----------
    sides : mapping of str to Facts
        The fits by name.
    table, shown : DataFrame
        The table of ``compare.csv``, and the rows told in words (`main_rows`).
    folder : Path
        With the figure, ``compare.svg``, drawn.
    command : str
        The command line.
    """
    fits = {label: facts.fit for label, facts in sides.items()}
    names = " and ".join(filter(None, [", ".join(list(fits)[:-1]), list(fits)[-1]]))
    levels = {fit.verdict["level"] for fit in fits.values()}
    worst = next(level for level in _VERDICTS if level in levels)
    how, lines, notes = how_text(table), compare_sentences(shown), remarks(fits)
    figure = page_figure(
        folder, "compare", "Values and ratios with their intervals",
        "Left: every fit at every common threshold. Right: ratios to the first fit, where the data "
        "settle one; left of 1 the first is the smaller. An arrow is a bound.")
    made = {label: {"group": fit.group, "law": fit.law.name,
                    "metric": fit.settings.get("metric", ""), "thresholds": fit.thresholds.tolist(),
                    "data_digest": fit.settings.get("data_digest", "")}
            for label, fit in fits.items()}
    return Page(
        kicker="Fits side by side", title=f"How do {names} differ, and how sure is it?",
        asked=f"{len(fits)} fits were compared: {names}. {how}",
        level=worst, verdict=_VERDICTS[worst],
        cautions=notes, answer=lines,
        sections=[Section("pairs", "Side by side", figures=[figure], tables=pair_tables(shown)),
                  Section("everything", "Every quantity at every common threshold",
                          folded=_every_row(table))],
        definitions=_DEFINITIONS, laws=list({fit.law.name: fit.law for fit in fits.values()}
                                            .values()),
        paper=paragraph("compare_paper", sides=sides, how=how, lines=[*lines[:3], *notes]),
        made={"command": command, "ci_prob": float(table["ci_prob"].iloc[0]),
              "ci_kind": "equal-tailed", "fits": made, "versions": versions()},
        files=["compare.csv", "compare.txt", "compare.svg"])


def how_text(table: pd.DataFrame) -> str:
    """Return what the numbers of a comparison mean."""
    return (f"Numbers are posterior medians for the population of runs with equal-tailed "
            f"{numbers.percent(float(table['ci_prob'].iloc[0]))} intervals; the fits are "
            "independent, ratios are first over second.")


def pair_tables(shown: pd.DataFrame) -> dict[str, Table]:
    """Return the table of every pair by file name."""
    pairs: Sequence[pd.DataFrame] = [rows for _, rows in
                                     shown.groupby(["first", "second"], sort=False)]
    return {f"pair_{k}": compare_table(rows) for k, rows in enumerate(pairs, start=1)}


def _every_row(table: pd.DataFrame) -> dict[str, Table]:
    """Return a table per pair and threshold; what all thresholds share stands first, by itself."""
    levels = table["threshold"].fillna(-np.inf)
    pairs = table.groupby(["first", "second"], sort=False).ngroup() + 1
    return {f"pair_{pair}_{'shared' if level == -np.inf else f'at_{level:g}'}": compare_table(rows)
            for (pair, level), rows in table.groupby([pairs, levels], sort=True)}
