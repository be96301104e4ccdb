"""Write a fit's folder: draws, tables, figures and the page (contract in the README).

Every file is written whole or not at all. Nothing is computed here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.files import write_whole

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.page import PageFigure

__all__ = ["TABLES", "check_folder", "clear_fit", "fit_summary", "noise_table", "write_fit",
           "write_joint", "write_noise", "write_paper", "writing"]

TABLES = ("cbs", "averaged", "overhead", "comparison", "runs")
_DRAWN = {".png", ".pdf"}


def write_fit(
    fit: Fit, folder: Path, *, command: str = "", stage: Callable[[str], None] = lambda text: None,
    sweep: xr.Dataset | None = None, source: Path | None = None,
) -> None:
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
    sweep : xarray.Dataset, optional
        All runs that were read, where they are more than this fit's group.
    source : Path, optional
        Their file.

    Raises
    ------
    CBSDataError
        If the folder cannot be written; files not yet replaced are as they were.
    """
    from cbsbayes.report.allocation import page_allocation
    from cbsbayes.report.clock import clock_section
    from cbsbayes.report.next_steps import next_steps
    from cbsbayes.report.page import render_page
    from cbsbayes.report.words import main_threshold

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stage("writing fit.nc")
        fit.save(folder / "fit.nc")
        stage("drawing figures")
        figures = _figures(fit, folder / "figures")
        stage("writing tables and the page")
        summary = json.dumps(fit_summary(fit), indent=2, allow_nan=False)
        write_whole(folder / "fit.json", summary + "\n")
        for name in TABLES:
            write_whole(folder / f"{name}.csv", getattr(fit, name).to_csv(index=False))
        noise = noise_table(fit)
        write_noise([] if isinstance(noise, str) else [noise], folder)
        write_joint([] if fit.noise_joint is None else [fit.noise_joint], folder)
        extra = {"diagnostics": fit.verdict["diagnostics"]}
        extra |= {"command": command} if command else {}
        render_page(fit, figures, path=folder / "index.html", extra=extra, noise=noise,
                    overhead=fit.overhead, tables_to=folder / "tables",
                    clock=clock_section(fit, main_threshold(fit)),
                    allocation=page_allocation(fit),
                    next_steps=next_steps(fit, folder, sweep=sweep, source=source))
        write_paper(fit, folder)


def write_paper(fit: Fit, folder: Path) -> None:
    """Write the paragraph for a paper, as text and as LaTeX."""
    from cbsbayes.report.paper import paper_latex, paper_paragraph

    write_whole(folder / "paper.txt", paper_paragraph(fit, fit.overhead) + "\n")
    write_whole(folder / "paper.tex", paper_latex(fit, fit.overhead))


def noise_table(fit: Fit) -> pd.DataFrame | str:
    """Return measured gradient noise beside the fit, or the sentence why there is none."""
    try:
        return fit.noise
    except CBSDataError as error:
        text = str(error)
        return f"{text[0].upper()}{text[1:]}."


def write_noise(tables: Sequence[pd.DataFrame], folder: Path) -> None:
    """Write ``noise.csv``; without a table, remove that of an earlier fit."""
    _write_stacked(tables, folder / "noise.csv")


def write_joint(tables: Sequence[pd.DataFrame], folder: Path) -> None:
    """Write ``noise_joint.csv``; without a table, remove that of an earlier fit."""
    _write_stacked(tables, folder / "noise_joint.csv")


def _write_stacked(tables: Sequence[pd.DataFrame], path: Path) -> None:
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
    from cbsbayes.report.table_files import remove_tables

    for name in ("fit.nc", "paper.txt", "paper.tex"):
        (folder / name).unlink(missing_ok=True)
    remove_tables(folder / "tables")
    figures = folder / "figures"
    if figures.is_dir():
        _remove_figures(figures, keep=set())
        if not any(figures.iterdir()):
            figures.rmdir()


def fit_summary(fit: Fit) -> dict[str, Any]:
    """Return what ``fit.json`` holds: settings, versions, data digest, diagnostics, checks.

    Numbers that are not finite are None: JSON has no NaN.
    """
    summary = {"group": fit.group, **fit.settings, **fit.verdict,
               "n_runs": int(fit.crossings.sizes["run"]),
               "n_runs_left_out": int((~fit.runs["used"].astype(bool)).sum()),
               "laws": fit.law_table.to_dict(orient="records")}
    return _finite(summary)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _figures(fit: Fit, folder: Path) -> list[PageFigure]:
    """Draw every figure and return them for the page; one a fit has no data for has a reason."""
    from cbsbayes.plots.gallery import write_figures
    from cbsbayes.report.page import PageFigure

    pages = [PageFigure(item.slug, item.title, item.caption, None if reason else
                        (folder / f"{item.slug}.png").read_bytes(), reason)
             for item, reason in write_figures(fit, folder)]
    _remove_figures(folder, keep={page.slug for page in pages if page.png_bytes})
    return pages


def _remove_figures(folder: Path, keep: set[str]) -> None:
    """Remove figures that are not to be kept: those of an earlier fit in the same folder."""
    for old in folder.iterdir():
        if old.suffix in _DRAWN and old.stem not in keep:
            old.unlink()
