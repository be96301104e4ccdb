"""Write a fit's folder: draws, tables, figures and the page (contract in the README).

Every file is written whole or not at all. Nothing is computed here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbsbayes.errors import CBSDataError
from cbsbayes.report.page import PageFigure, page_figure, remove_tables
from cbsbayes.sweep.files import write_whole

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.facts import Facts

__all__ = ["FIGURES", "TABLES", "check_folder", "clear_fit", "draw_figures", "finite",
           "fit_summary", "table_of", "write_answer", "write_fit", "write_stacked", "writing"]

TABLES = ("cbs", "averaged", "overhead", "comparison", "runs")
FIGURES = {"page": "those of the page", "all": "every one", "none": "none",
           "pdf": "every one, as PDF too"}
_DRAWN = (".svg", ".pdf")


def write_fit(
    fit: Fit, folder: Path, *, command: str = "", stage: Callable[[str], None] = lambda text: None,
    figures: str = "page", sweep: xr.Dataset | None = None, source: Path | None = None,
) -> Facts:
    """Write everything about a fit into a folder.

    Parameters
    ----------
    fit : Fit
        The fit.
    folder : Path
        Made where it does not exist; files of an earlier fit are replaced.
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

    Raises
    ------
    CBSDataError
        If the folder cannot be written; files not yet replaced are as they were.
    """
    from cbsbayes.baselines.table import with_comparison
    from cbsbayes.report.facts import Facts
    from cbsbayes.report.fit_page import fit_page, next_lines
    from cbsbayes.report.page import write_page

    fit = with_comparison(fit)
    facts = Facts(fit)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stage("writing fit.nc")
        fit.save(folder / "fit.nc")
        stage("writing tables")
        summary = json.dumps(fit_summary(facts), indent=2, allow_nan=False)
        write_whole(folder / "fit.json", summary + "\n")
        for name in TABLES:
            write_whole(folder / f"{name}.csv", table_of(fit, name).to_csv(index=False))
        noise, joint = facts.noise, fit.noise_joint
        write_stacked([] if isinstance(noise, str) else [noise], folder / "noise.csv")
        write_stacked([] if joint is None else [joint], folder / "noise_joint.csv")
        stage("drawing figures")
        advice = facts.advice.axes if facts.advice else None
        drawn = draw_figures(fit, folder / "figures", figures, threshold=facts.threshold,
                             advice=advice)
        stage("writing the page")
        write_page(fit_page(facts, drawn, command=command,
                            next_steps=next_lines(facts, folder, sweep, source)), folder)
    return facts


def table_of(fit: Fit, name: str) -> pd.DataFrame:
    """Return one of `TABLES`."""
    from cbsbayes.posterior.definitions import overhead_table

    return overhead_table(fit) if name == "overhead" else getattr(fit, name)


def write_stacked(tables: Sequence[pd.DataFrame], path: Path) -> None:
    """Write tables one below the other; without one, remove the file of an earlier fit."""
    import pandas as pd

    if tables:
        write_whole(path, pd.concat(tables).to_csv(index=False))
    else:
        path.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a disk that refuses into one line that names the folder and the remedy."""
    try:
        yield
    except OSError as error:
        raise CBSDataError(f"cannot write into {folder}: {error.strerror or error}; free space "
                           "there or give another folder") from error


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be made, before a fit is waited for.

    Raises
    ------
    CBSDataError
        If the path or a part of it is a file.
    """
    for part in (folder, *folder.parents):
        if part.exists() and not part.is_dir():
            raise CBSDataError(f"cannot write into {folder}: {part} is a file; give a folder")


def clear_fit(folder: Path) -> None:
    """Remove what an earlier fit of one group left in a folder of several."""
    for name in ("fit.nc", "paper.txt", "paper.tex"):
        (folder / name).unlink(missing_ok=True)
    remove_tables(folder / "tables")
    figures = folder / "figures"
    if figures.is_dir():
        _remove_figures(figures)
        if not any(figures.iterdir()):
            figures.rmdir()


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
    """Draw figures of a fit into a folder; those it has no data for keep the reason.

    Parameters
    ----------
    fit : Fit
        The fit.
    folder : Path
        Made where it does not exist; figures of an earlier fit go.
    which : str
        A key of `FIGURES`.
    **options
        Target and advice, as `cbsbayes.plots.page_figures` takes them.
    """
    from cbsbayes.plots.files import write_figure
    from cbsbayes.plots.gallery import all_figures, page_figures

    folder.mkdir(exist_ok=True)
    _remove_figures(folder)
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


def _remove_figures(folder: Path) -> None:
    for old in folder.iterdir():
        if old.suffix in _DRAWN:
            old.unlink()


def write_answer(
    folder: Path, tables: Mapping[str, pd.DataFrame], figures: Mapping[str, Callable[[], Any]],
    known: Collection[str] = (),
) -> None:
    """Write the tables and figures of a command that goes on from fits.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    tables : mapping of str to DataFrame
        By the name of their CSV file.
    figures : mapping of str to callable
        What draws each, returning its axes or figure.
    known : collection of str
        Names that an earlier answer may have left; those that this one lacks are removed.
    """
    from cbsbayes.plots.files import draw_figure, write_figure

    folder.mkdir(parents=True, exist_ok=True)
    for name in known:
        for kind in (".csv", *_DRAWN):
            (folder / f"{name}{kind}").unlink(missing_ok=True)
    for name, table in tables.items():
        write_whole(folder / f"{name}.csv", table.to_csv(index=False))
    for name, draw in figures.items():
        write_figure(draw_figure(draw), folder / name)
