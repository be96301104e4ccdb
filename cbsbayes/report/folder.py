"""Write a fit's folder: draws, tables, figures and the page (contract in the README).

Nothing is computed here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbsbayes.errors import CBSDataError
from cbsbayes.report.page import PageFigure, page_figure
from cbsbayes.sweep.files import write_csv, write_whole
from cbsbayes.sweep.output_folder import output_folder

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.facts import Facts

__all__ = ["FIGURES", "TABLES", "draw_figures", "finite", "fit_summary", "table_of",
           "write_answer", "write_files", "write_fit", "write_stacked"]

TABLES = ("cbs", "averaged", "overhead", "comparison", "runs")
FIGURES = {"page": "those of the page", "all": "every one", "none": "none",
           "pdf": "every one, as PDF too"}


def write_fit(fit: Fit, folder: Path, **options: Any) -> Facts:
    """Write everything about a fit into a folder, whole or not at all.

    Parameters
    ----------
    fit : Fit
        The fit.
    folder : Path
        Made where it does not exist; an earlier fit in it is replaced.
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
    with output_folder(folder, "cbsbayes.fit") as new:
        return write_files(fit, new, shown=folder, **options)


def write_files(
    fit: Fit, folder: Path, *, shown: Path, command: str = "",
    stage: Callable[[str], None] = lambda text: None, figures: str = "page",
    sweep: xr.Dataset | None = None, source: Path | None = None,
) -> Facts:
    """Write everything about a fit into a new folder.

    Parameters
    ----------
    fit : Fit
        The fit.
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
    sweep : xarray.Dataset, optional
        All runs that were read, where they are more than this fit's group.
    source : Path, optional
        Their file.

    Returns
    -------
    Facts
        What was reported of the fit.
    """
    from cbsbayes.baselines.table import with_comparison
    from cbsbayes.report.facts import Facts
    from cbsbayes.report.fit_page import fit_page, next_lines
    from cbsbayes.report.page import write_page

    fit = with_comparison(fit)
    facts = Facts(fit)
    folder.mkdir(exist_ok=True)
    stage("writing fit.nc")
    fit.save(folder / "fit.nc")
    stage("writing tables")
    summary = json.dumps(fit_summary(facts), indent=2, allow_nan=False)
    write_whole(folder / "fit.json", summary + "\n")
    for name in TABLES:
        write_csv(folder / f"{name}.csv", table_of(fit, name))
    noise, joint = facts.noise, fit.noise_joint
    write_stacked([] if isinstance(noise, str) else [noise], folder / "noise.csv")
    write_stacked([] if joint is None else [joint], folder / "noise_joint.csv")
    stage("drawing figures")
    advice = facts.advice.axes if facts.advice else None
    drawn = draw_figures(fit, folder / "figures", figures, threshold=facts.threshold,
                         advice=advice)
    stage("writing the page")
    write_page(fit_page(facts, drawn, command=command,
                        next_steps=next_lines(facts, shown, sweep, source)), folder)
    return facts


def table_of(fit: Fit, name: str) -> pd.DataFrame:
    """Return one of `TABLES`."""
    from cbsbayes.posterior.definitions import overhead_table

    return overhead_table(fit) if name == "overhead" else getattr(fit, name)


def write_stacked(tables: Sequence[pd.DataFrame], path: Path) -> None:
    """Write tables one below the other; without one, no file."""
    import pandas as pd

    if tables:
        write_csv(path, pd.concat(tables))


def fit_summary(facts: Facts) -> dict[str, Any]:
    """Return what ``fit.json`` holds: the answer, settings, versions, data digest, the verdict.

    Numbers that are not finite are None: JSON has no NaN.
    """
    from cbsbayes.report.text import sentences

    fit = facts.fit
    summary = {"group": fit.group, "answer": sentences("card", facts=facts), **fit.settings,
               **fit.verdict,
               "n_runs": int(fit.crossings.sizes["run"]),
               "n_runs_left_out": int((~fit.runs["used"].astype(bool)).sum()),
               "laws": fit.law_table.to_dict(orient="records")}
    return finite(summary)


def finite(value: Any) -> Any:
    """Return nested values with None for numbers that are not finite: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
    from cbsbayes.plots.files import write_figure
    from cbsbayes.plots.gallery import all_figures, page_figures

    folder.mkdir()
    formats = ("svg", "pdf") if which == "pdf" else ("svg",)
    gallery = all_figures if which in ("all", "pdf") else page_figures
    items = gallery(fit, **options)
    found = []
    for item in items if which != "none" else []:
        try:
            write_figure(item.draw(), folder / item.slug, formats)
        except CBSDataError as error:
            found.append(PageFigure(item.slug, item.title, item.caption, None, str(error)))
            continue
        found.append(page_figure(folder, item.slug, item.title, item.caption))
    return found


def write_answer(
    folder: Path, tables: Mapping[str, pd.DataFrame], figures: Mapping[str, Callable[[], Any]],
) -> None:
    """Write the tables and figures of a command that goes on from fits.

    Parameters
    ----------
    folder : Path
        Where.
    tables : mapping of str to DataFrame
        By the name of their CSV file.
    figures : mapping of str to callable
        What draws each, returning its axes or figure.
    """
    from cbsbayes.plots.files import draw_figure, write_figure

    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    for name, draw in figures.items():
        write_figure(draw_figure(draw), folder / name)
