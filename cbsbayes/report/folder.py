"""Write a fit's folder: draws, tables, figures and the page (contract in the README).

Nothing is computed here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from cbsbayes.baselines.table import with_comparison
from cbsbayes.plots import gallery
from cbsbayes.posterior.definitions import overhead_table
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.selection import runs_table
from cbsbayes.report.facts import Facts
from cbsbayes.report.fit_page import fit_page, next_lines
from cbsbayes.report.page import PageFigure, drawn, render_index, write_page
from cbsbayes.report.text import paragraph, sentences
from cbsbayes.sweep.files import write_csv, write_whole
from cbsbayes.sweep.groups import of_group
from cbsbayes.sweep.output_folder import output_folder

__all__ = ["FIGURES", "TABLES", "draw_figures", "finite", "fit_summary", "table_of",
           "write_files", "write_fit", "write_groups"]

TABLES = ("cbs", "averaged", "overhead", "comparison", "runs")
FIGURES = {"page": "those of the page", "all": "every one", "none": "none",
           "pdf": "every one, as PDF too"}


def write_fit(
    fit: Fit, folder: Path, *, target: float | None = None, budget: float | None = None,
    **options: Any,
) -> Facts:
    """Write everything about a fit into a folder, whole or not at all.

    Parameters
    ----------
    fit : Fit
        The fit.
    folder : Path
        Made where it does not exist; an earlier fit in it is replaced.
    target : float, optional
        The fitted target that card, page and figures are about; the middle one unless given.
    budget : float, optional
        Samples that the run advised may take at most.
    **options
        As of `write_files`.

    Returns
    -------
    Facts
        What was reported of the fit.

    Raises
    ------
    CBSDataError
        If the folder cannot be written or holds what is no earlier fit; it is as it was.
    """
    facts = Facts(with_comparison(fit), target, budget)
    with output_folder(folder, "cbsbayes.fit") as new:
        write_files(facts, new, shown=folder, **options)
    return facts


def write_files(
    facts: Facts, folder: Path, *, shown: Path, command: str = "",
    stage: Callable[[str], None] = lambda text: None, figures: str = "page",
    source: Path | None = None,
) -> None:
    """Write everything about a fit into a new folder.

    Parameters
    ----------
    facts : Facts
        The fit's, compared with least squares.
    folder : Path
        Made where it does not exist.
    shown : Path
        Its name when all is written, for the page.
    command : str
        The command line, shown on the page.
    stage : callable
        Told what is being done.
    figures : {"page", "all", "none", "pdf"}
        Which figures to draw (`FIGURES`).
    source : Path, optional
        The file of the sweep.
    """
    fit, noise = facts.fit, facts.noise
    folder.mkdir(exist_ok=True)
    stage("writing fit.nc")
    fit.save(folder / "fit.nc")
    stage("writing tables")
    summary = json.dumps(fit_summary(facts), indent=2, allow_nan=False)
    write_whole(folder / "fit.json", summary + "\n")
    for name in TABLES:
        write_csv(folder / f"{name}.csv", table_of(fit, name))
    if fit.law.learning_rate:
        write_csv(folder / "learning_rate.csv", facts.rates)
    _write_stacked([] if isinstance(noise, str) else [noise], folder / "noise.csv")
    _write_stacked([] if fit.noise_joint is None else [fit.noise_joint], folder / "noise_joint.csv")
    stage("drawing figures")
    found = draw_figures(fit, folder / "figures", figures, threshold=facts.threshold,
                         advice=facts.advice.axes if facts.advice else None)
    stage("writing the page")
    write_page(fit_page(facts, found, command=command,
                        next_steps=next_lines(facts, shown, source)), folder)


def table_of(fit: Fit, name: str) -> pd.DataFrame:
    """Return one of `TABLES`."""
    return overhead_table(fit) if name == "overhead" else getattr(fit, name)


def _write_stacked(tables: Sequence[pd.DataFrame], path: Path) -> None:
    """Write tables one below the other; without one, no file."""
    if tables:
        write_csv(path, pd.concat(tables))


def write_groups(
    done: Mapping[Path, Facts], refused: Mapping[str, str], sweep: xr.Dataset, folder: Path
) -> None:
    """Write the tables of all groups of a sweep stacked, and a page that lists them.

    Parameters
    ----------
    done : mapping of Path to Facts
        The groups fitted by their folders.
    refused : mapping of str to str
        Why others are not fitted.
    sweep : xarray.Dataset
        All runs.
    folder : Path
        Of all groups.
    """
    fits = [facts.fit for facts in done.values()]
    tables = {name: [table_of(fit, name).assign(group=fit.group) for fit in fits]
              for name in TABLES}
    for group, reason in refused.items():
        runs = of_group(sweep, group)
        why = dict.fromkeys(runs["run"].values.astype(str), f"its group is not fitted: {reason}")
        tables["runs"].append(runs_table(runs, why).assign(group=group))
    tables["noise"] = [facts.noise for facts in done.values() if not isinstance(facts.noise, str)]
    tables["noise_joint"] = [fit.noise_joint for fit in fits if fit.noise_joint is not None]
    for name, parts in tables.items():
        _write_stacked(parts, folder / f"{name}.csv")
    groups = [*map(fit_summary, done.values()),
              *({"group": group, "not_fitted": reason} for group, reason in refused.items())]
    write_whole(folder / "fit.json",
                json.dumps({"groups": groups}, indent=2, allow_nan=False) + "\n")
    entries = [{"group": facts.fit.group, "href": f"{place.name}/index.html",
                "headline": paragraph("critical", facts=facts),
                "level": facts.fit.verdict["level"]} for place, facts in done.items()]
    entries += [{"group": group, "headline": reason} for group, reason in refused.items()]
    write_whole(folder / "index.html", render_index(entries))


def fit_summary(facts: Facts) -> dict[str, Any]:
    """Return what ``fit.json`` holds: the answer, settings, versions, data digest, the verdict.

    Numbers that are not finite are None: JSON has no NaN.
    """
    fit = facts.fit
    summary = {"group": fit.group, "answer": sentences("card", facts=facts), **fit.settings,
               **fit.verdict,
               "n_runs": int(fit.crossings.sizes["run"]),
               "n_runs_left_out": int((~fit.runs["used"].astype(bool)).sum()),
               "laws": fit.law_table.to_dict(orient="records")}
    return finite(summary)


def finite(value: Any) -> Any:
    """Return nested values with None for numbers that are not finite: JSON has no NaN."""
    return json.loads(json.dumps(value), parse_constant=lambda name: None)


def draw_figures(fit: Fit, folder: Path, which: str, **options: Any) -> list[PageFigure]:
    """Draw figures of a fit into a new folder; those it has no data for keep the reason.

    Parameters
    ----------
    fit : Fit
        The fit.
    folder : Path
        Made.
    which : str
        A key of `FIGURES`.
    **options
        Target and advice, as `cbsbayes.plots.page_figures` takes them.
    """
    folder.mkdir()
    figures = gallery.all_figures if which in ("all", "pdf") else gallery.page_figures
    items = figures(fit, **options) if which != "none" else ()
    return drawn(items, folder, ("svg", "pdf") if which == "pdf" else ("svg",))
