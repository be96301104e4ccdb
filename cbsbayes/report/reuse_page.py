"""Reuse factors compared as a page: every family's table, sentences and figures; no law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cbsbayes.posterior.versions import versions
from cbsbayes.report import numbers
from cbsbayes.report.command_page import CommandPage, Part, page_figure
from cbsbayes.report.estimates import plain
from cbsbayes.report.reuse import diagonals_table, effects_table, reuse_table
from cbsbayes.report.tables import Table

if TYPE_CHECKING:
    from cbsbayes.reuse_runs import ReuseRuns

__all__ = ["ReuseResult", "reuse_figures", "reuse_page"]

_DEFINITIONS = {
    "reuse": "ppo_epochs: optimizer passes over every generated sample; a trainer step with reuse "
             "k makes k times as many updates.",
    "updates, samples": "Optimizer updates, and generated samples, until a typical run reaches the "
                        "target.",
    "updates ratio, samples ratio": "Over the least reuse run at the same batch.",
    "P(fewer samples)": "Share of posterior draws in which it takes fewer generated samples than "
                        "the least reuse.",
    "diagonal": "Cells of equal optimisation per trainer step: prompts times reuse is constant.",
    "sample passes": "Passes of a sample through the optimizer until the target.",
    "clip fraction, KL": "As the runs logged them, averaged; later passes over a batch are "
                         "off-policy.",
}


@dataclass(frozen=True)
class ReuseResult:
    """One family of runs compared.

    Attributes
    ----------
    runs : ReuseRuns
        The runs.
    threshold : float
        The target told of in words.
    tables : mapping of str to DataFrame
        ``reuse``, ``effects``, ``diagonals``.
    sentences : sequence of str
        What is said of it.
    trusted : bool
        Whether the chains agree.
    simulated : bool
        Whether the runs are simulated.
    """

    runs: ReuseRuns
    threshold: float
    tables: Mapping[str, pd.DataFrame]
    sentences: Sequence[str]
    trusted: bool
    simulated: bool


def reuse_figures(results: Sequence[ReuseResult]) -> list[tuple[int, int, str]]:
    """Return each figure's family (from 1), group size and name."""
    return [(k, int(rollouts), f"reuse_{k:02d}_nr{rollouts}")
            for k, result in enumerate(results, start=1)
            for rollouts in sorted(result.tables["reuse"]["n_rollouts"].unique())]


def reuse_page(
    results: Sequence[ReuseResult], refused: Sequence[str], folder: Path,
    made: Mapping[str, object],
) -> CommandPage:
    """Return what stands on the page of a comparison of reuse factors.

    Parameters
    ----------
    results : sequence of ReuseResult
        One per family that could be compared.
    refused : sequence of str
        Why others could not.
    folder : Path
        With the figures drawn.
    made : mapping
        The command line, settings and data.
    """
    trusted = all(result.trusted for result in results)
    cautions = [f"Not compared: {reason}" for reason in refused]
    cautions += [f"{result.runs.family} is simulated, not measured." for result in results
                 if result.simulated]
    return CommandPage(
        kicker="Several passes over a batch",
        question="What does reuse of samples do to updates and samples?", asked=_asked(results),
        trusted=trusted,
        verdict="The chains agree" if trusted else "The chains do not agree: sample longer",
        cautions=cautions, answer=_answer(results),
        parts=[_part(k, result, results, folder) for k, result in enumerate(results, start=1)],
        definitions=_DEFINITIONS, paper=_paper(results), made={**made, "versions": versions()},
        files=["reuse.csv", "effects.csv", "diagonals.csv", "reuse.txt",
               *(f"{name}.png" for _, _, name in reuse_figures(results))])


def _asked(results: Sequence[ReuseResult]) -> str:
    families = "; ".join(f"{result.runs.family} at reuse "
                         f"{', '.join(map(str, result.runs.factors))}" for result in results)
    return f"Runs that differ only in ppo_epochs were compared, without a law: {families}."


def _answer(results: Sequence[ReuseResult]) -> list[str]:
    """Return all sentences of one family, effects first; of several what they are and effects."""
    if len(results) == 1:
        return sorted(results[0].sentences, key=lambda line: not line.startswith("Reuse "))
    return [line for result in results for line in result.sentences
            if not line.startswith("Diagonal ")]


def _part(k: int, result: ReuseResult, results: Sequence[ReuseResult], folder: Path) -> Part:
    caption = ("Left updates, right generated samples to the target: typical runs with their "
               "intervals, arrows are bounds. Grey lines join cells of one diagonal.")
    figures = [page_figure(folder, name, f"{result.runs.family}, {rollouts} rollouts", caption)
               for family, rollouts, name in reuse_figures(results) if family == k]
    return Part(
        f"family-{k}", result.runs.family,
        sentences=result.sentences if len(results) > 1 else (),
        tables={f"reuse_{k:02d}": reuse_table(result.tables["reuse"], result.threshold),
                **_some(f"effects_{k:02d}", effects_table(result.tables["effects"])),
                **_some(f"diagonals_{k:02d}", diagonals_table(result.tables["diagonals"]))},
        folded={f"reuse_{k:02d}_at_{plain(float(t))}": reuse_table(result.tables["reuse"], t)
                for t in sorted(result.runs.thresholds) if t != result.threshold},
        figures=figures)


def _some(name: str, table: Table) -> dict[str, Table]:
    return {name: table} if table.rows else {}


def _paper(results: Sequence[ReuseResult]) -> str:
    prob = numbers.percent(float(results[0].tables["reuse"]["ci_prob"].iloc[0]))
    how = ("Runs that differ only in the number of optimizer passes over their samples "
           "(ppo_epochs) were compared by a Bayesian model of the intervals between evaluations in "
           "which each run crosses a target, with run effects and without a law of the batch; "
           f"numbers are posterior medians with equal-tailed {prob} credible intervals, for "
           "typical runs.")
    return " ".join([how, *(line for result in results for line in result.sentences),
                     f"cbsbayes {versions()['cbsbayes']}."])
