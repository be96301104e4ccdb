"""The folder of a validation: tables that grow study by study, figures, and a page in Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from cbsbayes.plots.files import figure_bytes
from cbsbayes.plots.style import detached
from cbsbayes.posterior.versions import versions
from cbsbayes.sweep.files import write_whole
from cbsbayes.validation.figures import plot_coverage, plot_ranks
from cbsbayes.validation.markdown import page_markdown
from cbsbayes.validation.study import LABELS, Outcome

__all__ = ["read_tables", "write_outcome", "write_page"]

_STUDIES = "studies.json"


def write_outcome(outcome: Outcome, folder: Path, command: str) -> None:
    """Put a study's table in the place of its older one, and write figures and facts.

    Parameters
    ----------
    outcome : Outcome
        The study that was run.
    folder : Path
        The output folder; tables of other studies in it are kept.
    command : str
        The command line, for the page.
    """
    study, label = outcome.study, LABELS[outcome.study.kind]
    keys = {label: study.data, "law": study.settings.law, "model": study.model}
    kept = read_tables(folder).get(study.kind, pd.DataFrame(columns=list(keys)))
    same = pd.concat([kept[name].astype(str) == value for name, value in keys.items()], axis=1)
    new = outcome.table.assign(**keys)[[*keys, *outcome.table.columns]]
    parts = [part for part in (kept[~same.all(axis=1)], new) if len(part)]
    merged = pd.concat(parts, ignore_index=True) if parts else new
    write_whole(folder / f"{study.kind}.csv", merged.to_csv(index=False, float_format="%.4g"))
    studies = _studies(folder) | {study.name: {
        **study.all_settings(), "command": command, "summary": outcome.summary,
        "versions": versions()}}
    write_whole(folder / _STUDIES, json.dumps(studies, indent=1) + "\n")
    _draw(outcome, merged, folder / "figures")


def _draw(outcome: Outcome, merged: pd.DataFrame, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    study = outcome.study
    if outcome.table.empty:
        return
    with detached():
        if study.kind == "sbc":
            figure, name = plot_ranks(outcome.rows), study.name
        else:
            law, model = study.settings.law, study.model
            part = merged[(merged["law"] == law) & (merged["model"] == model)]
            figure = plot_coverage(part, LABELS[study.kind], study.settings.ci_prob)
            name = f"{study.kind}-{law}-{model}"
        write_whole(folder / f"{name}.png", figure_bytes(figure))


def write_page(folder: Path) -> Path:
    """Write ``README.md`` from the tables and facts in a folder and return its path."""
    text = page_markdown(read_tables(folder), _studies(folder))
    return write_whole(folder / "README.md", text)


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the tables in a folder by kind; labels and thresholds are text."""
    files = {kind: folder / f"{kind}.csv" for kind in LABELS}
    return {kind: pd.read_csv(file, dtype={"threshold": str, LABELS[kind]: str},
                              keep_default_na=True).fillna({"threshold": ""})
            for kind, file in files.items() if file.exists()}


def _studies(folder: Path) -> dict[str, Any]:
    file = folder / _STUDIES
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
