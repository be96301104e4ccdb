"""The folder of a validation: tables that grow study by study, figures, a page in Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from cbsbayes.plots.gallery import figure_bytes
from cbsbayes.plots.style import GREY, detached, legend_outside, new_grid, styled
from cbsbayes.posterior.fit import versions
from cbsbayes.sweep.files import write_csv, write_whole
from cbsbayes.validation.coverage import ALL
from cbsbayes.validation.engine import LABELS, Study
from cbsbayes.validation.families import FAMILIES

__all__ = ["coverage_markdown", "page_markdown", "plot_ranks", "read_studies", "read_tables",
           "study_markdown", "summary_sentence", "write_outcome", "write_page"]

_STUDIES = "studies.json"
_ENVELOPE, _SIMULATIONS = 0.95, 1000  # of ranks: probability, and sets in which its level is found
_LEAST_RANKS = 2
_CAPTIONS = {
    "posterior": "Coverage of the posterior, by family:",
    "averaged": "The same averaged over the laws that a fit compares, as in `averaged.csv`:"}
_COUNTS = {"divergences": "{:.0f} divergences", "r_hat_worst": "worst r_hat {:.3f}",
           "alarms": "small groups reported to saturate lower in {:.0f}",
           "structure_alarms": "the law's form reported to be in doubt in {:.0f}"}


def write_outcome(
    study: Study, table: pd.DataFrame, rows: pd.DataFrame, summary: Mapping[str, Any],
    folder: Path, command: str,
) -> None:
    """Put a study's table in the place of its older one, and write figures and facts.

    Parameters
    ----------
    study : Study
        The study that was run.
    table, rows, summary
        Of `cbsbayes.validation.engine.run_study`.
    folder : Path
        The output folder; tables of other studies in it are kept.
    command : str
        The command line, for the page.
    """
    keys = {LABELS[study.kind]: study.data, "law": study.settings.law, "model": study.model}
    kept = read_tables(folder).get(study.kind, pd.DataFrame(columns=list(keys)))
    same = (kept[list(keys)].astype(str) == pd.Series(keys)).all(axis=1)
    new = table.assign(**keys)[[*keys, *table.columns]]
    parts = [part for part in (kept[~same], new) if len(part)]
    merged = pd.concat(parts, ignore_index=True) if parts else new
    write_csv(folder / f"{study.kind}.csv", merged, float_format="%.4g")
    studies = read_studies(folder) | {study.name: {
        **study.all_settings(), "command": command, "summary": summary,
        "versions": versions()}}
    write_whole(folder / _STUDIES, json.dumps(studies, indent=1) + "\n")
    if study.kind == "sbc" and len(table):
        (folder / "figures").mkdir(exist_ok=True)
        with detached():
            drawn = figure_bytes(plot_ranks(rows))
        write_whole(folder / "figures" / _figure(studies[study.name]), drawn)


def _figure(study: Mapping[str, Any]) -> str:
    return f"sbc-{study['data']}-{study['law']}-{study['model']}.svg"


def write_page(folder: Path) -> Path:
    """Write ``README.md`` from the tables and facts in a folder and return its path."""
    text = page_markdown(read_tables(folder), read_studies(folder))
    return write_whole(folder / "README.md", text)


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the tables in a folder by kind; labels and thresholds are text."""
    files = {kind: folder / f"{kind}.csv" for kind in LABELS}
    return {kind: pd.read_csv(file, dtype={"threshold": str, LABELS[kind]: str}
                              ).fillna({"threshold": ""})
            for kind, file in files.items() if file.exists()}


def read_studies(folder: Path) -> dict[str, Any]:
    """Return settings, command and summary of every study in a folder, by name."""
    file = folder / _STUDIES
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def page_markdown(tables: Mapping[str, pd.DataFrame], studies: Mapping[str, Any]) -> str:
    """Return the whole page.

    Parameters
    ----------
    tables : mapping
        Kind to table, with its data column, law and model.
    studies : mapping
        Name to settings, command and summary of every study.
    """
    environment = Environment(loader=PackageLoader("cbsbayes.validation", "."),
                              undefined=StrictUndefined)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for study in sorted(studies.values(), key=_position):
        groups.setdefault((study["kind"], study["law"], study["model"]), []).append(study)
    kinds = {kind: [_group(kind, table, group) for key, group in groups.items() if key[0] == kind]
             for kind, table in tables.items()}
    return environment.get_template("page.md.j2").render(kinds=kinds).rstrip() + "\n"


def _position(study: Mapping[str, Any]) -> tuple[int, str]:
    """Return where a study stands: families in their order, others by name."""
    names, family = list(FAMILIES), study.get("family", study["data"])
    return (names.index(family) if family in names else len(names), study["data"])


def _group(kind: str, table: pd.DataFrame, studies: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the page says of one law and model."""
    law, model = studies[0]["law"], studies[0]["model"]
    rows = table[(table["law"] == law) & (table["model"] == model)]
    overviews = {}
    if kind == "coverage" and len(studies) > 1:
        overviews = {caption: _overview(rows, [study["data"] for study in studies], method)
                     for method, caption in _CAPTIONS.items() if method in set(rows["method"])}
    return {"law": law, "model": model, "overviews": overviews,
            "figure": _figure(studies[0]) if kind == "sbc" and len(rows) else "",
            "studies": [study | {"title": _title(study), "text": study_markdown(
                kind, rows[rows[LABELS[kind]] == study["data"]], study["summary"])}
                for study in studies]}


def _title(study: Mapping[str, Any]) -> str:
    family = FAMILIES.get(study.get("family", study["data"]))
    every = f"; evaluated every {study['eval_every']} updates" if "eval_every" in study else ""
    return study["data"] + (f": {family.what}" if family else "") + every


def study_markdown(kind: str, table: pd.DataFrame, summary: Mapping[str, Any]) -> str:
    """Return one study's table and the sentence on its sampling."""
    if table.empty:
        text = "No sweep was fitted."
    else:
        text = _rank_markdown(table) if kind == "sbc" else coverage_markdown(table)
    return f"{text}\n\n{summary_sentence(summary)}"


def coverage_markdown(table: pd.DataFrame) -> str:
    """Return the pooled rows: log error / coverage ± error / log width, a column per method.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `cbsbayes.validation.coverage.coverage_table`.
    """
    pooled = table[table["threshold"] == ALL]
    cells = pooled.assign(text=[_cell(row) for row in pooled.itertuples()])
    wide = cells.pivot(index="quantity", columns="method", values="text")
    wide = wide.loc[pooled["quantity"].unique(), pooled["method"].unique()].fillna("")
    return _grid("", wide)


def _cell(row: Any) -> str:
    if row.given == 0:
        return "none"
    some = "" if row.given > 0.995 else f" ({row.given:.0%})"
    return f"{row.log_bias:+.2f} / {_coverage(row)} / {row.log_width:.2f}{some}"


def _coverage(row: Any) -> str:
    """Return coverage ± its error, which one sweep does not have."""
    error = "" if math.isnan(row.coverage_se) else f" ± {row.coverage_se:.2f}"
    return f"{row.coverage:.2f}{error}"


def _overview(table: pd.DataFrame, order: list[str], method: str) -> str:
    """Return a method's coverage ± Monte Carlo error, a row per family."""
    rows = table[(table["threshold"] == ALL) & (table["method"] == method)]
    cells = rows.assign(text=[_coverage(row) for row in rows.itertuples()])
    wide = cells.pivot(index="family", columns="quantity", values="text")
    order = [family for family in order if family in wide.index]
    return _grid("family", wide.loc[order, rows["quantity"].unique()].fillna(""))


def _rank_markdown(table: pd.DataFrame) -> str:
    """Return the test of uniform ranks, a row per quantity."""
    rows = {}
    for quantity, part in table.groupby("quantity", sort=False):
        smallest = min(part["p_value"].min() * len(part), 1.0)
        mean = part.mean(numeric_only=True)  # over thresholds, with the error of one
        rows[quantity] = {"n": f"{part['n'].max()}",
                          "p": "" if math.isnan(smallest) else f"{smallest:.3f}",
                          "50 %": f"{mean['cover_50']:.2f} ± {mean['cover_50_se']:.2f}",
                          "90 %": f"{mean['cover_90']:.2f} ± {mean['cover_90_se']:.2f}",
                          "mean rank": f"{mean['mean_pit']:.3f}"}
    return _grid("quantity", pd.DataFrame.from_dict(rows, orient="index"))


def _grid(corner: str, wide: pd.DataFrame) -> str:
    lines = [[corner, *wide.columns], *([name, *row] for name, row in zip(
        wide.index, wide.to_numpy(), strict=True))]
    head, *rows = (f"| {' | '.join(map(str, line))} |" for line in lines)
    return "\n".join([head, "|---" * (len(wide.columns) + 1) + "|", *rows])


def summary_sentence(summary: Mapping[str, Any]) -> str:
    """Return how many sweeps were fitted, how sampling went, and every failure by name."""
    n = summary["sweeps"]
    parts = [f"{n} sweep{'' if n == 1 else 's'} fitted"]
    if "seconds_median" in summary:
        parts.append(f"{summary['seconds_median']:.2g} s each (median)")
    parts += [text.format(summary[name]) for name, text in _COUNTS.items() if name in summary]
    text, failed = ", ".join(parts), summary["failed"]
    if failed:
        named = "; ".join(f"seed {seed}: {why}" for seed, why in failed.items())
        return f"{text}. {len(failed)} failed and count for nothing: {named}."
    return f"{text}, none failed."


@styled
def plot_ranks(rows: pd.DataFrame) -> Figure:
    """Plot how far the ranks' distribution is from uniform, a panel per quantity.

    The band holds the whole curve of 95 % of samples that are uniform (Säilynoja et al. 2022,
    https://doi.org/10.1007/s11222-022-10090-6), so that one look covers all ranks; every threshold
    has a curve.

    Parameters
    ----------
    rows : pandas.DataFrame
        Columns ``quantity, threshold, pit`` of all sweeps.
    """
    from arviz_stats.ecdf_utils import compute_ecdf, ecdf_pit

    quantities = list(dict.fromkeys(rows["quantity"]))
    figure, axes = new_grid(len(quantities), 3, panel=(3.2, 2.2), sharex=True, sharey=True)
    n = rows["sweep"].nunique()
    at = np.array([0.0, 1.0])
    if n >= _LEAST_RANKS:
        at, _, lower, upper = ecdf_pit((np.arange(n) + 0.5) / n, _ENVELOPE, _SIMULATIONS)
    for ax, quantity in zip(axes, quantities, strict=True):
        if n >= _LEAST_RANKS:
            ax.fill_between(at, lower - at, upper - at, color=GREY, alpha=0.2, lw=0)
        for threshold, part in rows[rows["quantity"] == quantity].groupby("threshold", sort=False):
            ax.plot(at, compute_ecdf(part["pit"].to_numpy(float), at) - at, lw=1,
                    label=str(threshold))
        ax.axhline(0.0, color=GREY, lw=0.8)
        ax.set_title(quantity)
    for ax in axes[-3:]:
        ax.set_xlabel("rank of the truth")
    axes[0].set_ylabel("share of ranks below − uniform")
    legend_outside(axes[min(2, len(axes) - 1)], title="threshold")
    return figure
