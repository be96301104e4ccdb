"""Tables of a validation in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.validation.families import FAMILIES
from cbsbayes.validation.study import LABELS
from cbsbayes.validation.tables import ALL

__all__ = ["coverage_markdown", "overview_markdown", "page_markdown", "rank_markdown",
           "study_markdown", "summary_sentence"]

_INTRO = """# Do the intervals hold the truth?

Written by `python -m cbsbayes.validate`; every table under the command that made it. The same by
threshold is in `coverage.csv`, `sbc.csv` and `seeds.csv`, settings and versions in `studies.json`.
"""
_COVERAGE = """## Coverage over simulated sweeps

Cells are *median log error / coverage ± Monte Carlo error / median log width*, all thresholds
pooled; the error is over sweeps, because the thresholds of one sweep go together. A percentage says
how often there was an interval at all. N(G) is the noise scale in prompts at G rollouts,
`cbs_prompts(G)` the n_prompts at which S is twice its value with endless prompts, gains are S after
doubling over S before. True S, gains and critical batches come from integrating the simulated
training, noise scales are averages over progress. Least squares takes the law's exponent, 1 where
it is free.
"""
_SBC = """## Simulation-based calibration

Parameters drawn from the prior, data from the parameters; if prior, data and sampler fit together,
the ranks of the parameters among posterior draws are uniform. p is ArviZ's test of that, the
smallest over thresholds times their number; 50 % and 90 % say how often these central intervals
hold the truth, over all thresholds.
"""
_SEEDS = """## Real seeds

One seed of every batch redrawn, all seeds' log fit as the truth; cells as above. The last columns
are the median width of the posterior's interval over that of the log fit on the same redraw. Where
the law leaves the exponent free, only what hardly leans on it is compared: the log fit takes 1.
"""
_SECTIONS = {"coverage": _COVERAGE, "sbc": _SBC, "seeds": _SEEDS}


def page_markdown(tables: Mapping[str, pd.DataFrame], studies: Mapping[str, Any]) -> str:
    """Return the whole page.

    Parameters
    ----------
    tables : mapping
        Kind to table, with its data column, law and model.
    studies : mapping
        Name to settings, command and summary of every study.
    """
    parts = [_INTRO]
    for kind, intro in _SECTIONS.items():
        if kind not in tables:
            continue
        of_kind = [study for study in studies.values() if study["kind"] == kind]
        parts.append(intro)
        for law, model in dict.fromkeys((s["law"], s["model"]) for s in of_kind):
            group = [s for s in of_kind if (s["law"], s["model"]) == (law, model)]
            parts.append(_group_markdown(kind, law, model, tables[kind],
                                         sorted(group, key=_place)))
    return "\n".join(parts)


def _place(study: Mapping[str, Any]) -> tuple[int, str]:
    """Return where a study stands: families in their order, others by name."""
    names = list(FAMILIES)
    return (names.index(study["data"]) if study["data"] in names else len(names), study["data"])


def _group_markdown(
    kind: str, law: str, model: str, table: pd.DataFrame, studies: list[dict[str, Any]]
) -> str:
    rows = table[(table["law"] == law) & (table["model"] == model)]
    parts = [f"### Law `{law}`, {model} model\n"]
    if kind == "coverage" and len(studies) > 1:
        order = [study["data"] for study in studies]
        parts.append(f"Coverage of the posterior, by family:\n\n{overview_markdown(rows, order)}\n")
        averaged = overview_markdown(rows, order, "averaged")
        if averaged:
            parts.append("The same averaged over the laws that a fit lays side by side, as in "
                         f"`averaged.csv`:\n\n{averaged}\n")
    figure = f"{kind}-{law}-{model}" if kind != "sbc" else f"sbc-{studies[0]['data']}-{law}-{model}"
    if len(rows):
        parts.append(f"![{kind}](figures/{figure}.png)\n")
    for study in studies:
        own = rows[rows[LABELS[kind]] == study["data"]]
        what = FAMILIES[study["data"]].what if study["data"] in FAMILIES else ""
        title = f"#### {study['data']}" + (f": {what}" if what else "")
        parts.append(f"{title}\n\n`{study['command']}`\n\n{study_markdown(kind, own, study)}\n")
    return "\n".join(parts)


def study_markdown(kind: str, table: pd.DataFrame, study: Mapping[str, Any]) -> str:
    """Return one study's table and the sentence on its sampling."""
    make = rank_markdown if kind == "sbc" else coverage_markdown
    text = make(table) if len(table) else "No sweep was fitted."
    if kind == "seeds" and len(table):
        text = coverage_markdown(table, ratios=True)
    return f"{text}\n\n{summary_sentence(study['summary'])}"


def coverage_markdown(table: pd.DataFrame, *, ratios: bool = False) -> str:
    """Return the pooled rows: log error / coverage ± error / log width, a column per method.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `cbsbayes.validation.tables.coverage_table`.
    ratios : bool
        Whether to add the posterior's width over those of the log fit.
    """
    pooled = table[table["threshold"] == ALL]
    cells = pooled.assign(text=[_cell(row) for row in pooled.itertuples()])
    wide = cells.pivot(index="quantity", columns="method", values="text")
    wide = wide.loc[pooled["quantity"].unique(), pooled["method"].unique()].fillna("")
    if ratios:
        own = pooled[pooled["method"] == "posterior"].set_index("quantity")
        for name, column in (("width / t", "width_over_t"), ("width / boot", "width_over_boot")):
            wide[name] = [f"{value:.2f}" for value in own[column].reindex(wide.index)]
    return _grid("", wide)


def _cell(row: Any) -> str:
    if row.given == 0:
        return "none"
    some = "" if row.given > 0.995 else f" ({row.given:.0%})"
    return f"{row.log_bias:+.2f} / {_coverage(row)} / {row.log_width:.2f}{some}"


def _coverage(row: Any) -> str:
    """Return coverage ± its error, which one sweep does not tell."""
    error = "" if math.isnan(row.coverage_se) else f" ± {row.coverage_se:.2f}"
    return f"{row.coverage:.2f}{error}"


def overview_markdown(table: pd.DataFrame, order: list[str], method: str = "posterior") -> str:
    """Return a method's coverage ± Monte Carlo error, a row per family; empty if it has none."""
    rows = table[(table["threshold"] == ALL) & (table["method"] == method)]
    if rows.empty:
        return ""
    order = [family for family in order if family in set(rows["family"])]
    cells = rows.assign(text=[_coverage(row) for row in rows.itertuples()])
    wide = cells.pivot(index="family", columns="quantity", values="text")
    return _grid("family", wide.reindex(order)[list(rows["quantity"].unique())].fillna(""))


def rank_markdown(table: pd.DataFrame) -> str:
    """Return the test of uniform ranks, a row per quantity."""
    rows = {}
    for quantity, part in table.groupby("quantity", sort=False):
        smallest = float(np.minimum(part["p_value"].min() * len(part), 1.0))
        rows[quantity] = {"n": f"{part['n'].max()}",
                          "p": "" if math.isnan(smallest) else f"{smallest:.3f}",
                          "50 %": _share(part, "cover_50"), "90 %": _share(part, "cover_90"),
                          "mean rank": f"{part['mean_pit'].mean():.3f}"}
    return _grid("quantity", pd.DataFrame.from_dict(rows, orient="index"))


def _share(part: pd.DataFrame, name: str) -> str:
    """Return the mean over thresholds, with the error of one: they go together."""
    return f"{part[name].mean():.2f} ± {part[f'{name}_se'].mean():.2f}"


def _grid(corner: str, wide: pd.DataFrame) -> str:
    head = f"| {corner} | {' | '.join(map(str, wide.columns))} |"
    lines = [f"| {name} | {' | '.join(map(str, row))} |"
             for name, row in zip(wide.index, wide.to_numpy(), strict=True)]
    return "\n".join([head, "|---" * (len(wide.columns) + 1) + "|", *lines])


def summary_sentence(summary: Mapping[str, Any]) -> str:
    """Return how many sweeps were fitted, how sampling went, and every failure by name."""
    n = summary["sweeps"]
    text = f"{n} sweep{'' if n == 1 else 's'} fitted"
    if "seconds_median" in summary:
        text += f", {summary['seconds_median']:.2g} s each (median)"
    if "divergences" in summary:
        text += f", {summary['divergences']:.0f} divergences"
    if "r_hat_worst" in summary:
        text += f", worst r_hat {summary['r_hat_worst']:.3f}"
    if "alarms" in summary:
        text += f", small groups said to saturate lower in {summary['alarms']}"
    if "structure_alarms" in summary:
        text += f", the law's form said to be in doubt in {summary['structure_alarms']}"
    failed = summary["failed"]
    if failed:
        named = "; ".join(f"seed {seed}: {why}" for seed, why in failed.items())
        return f"{text}. {len(failed)} failed and count for nothing: {named}."
    return f"{text}, none failed."
