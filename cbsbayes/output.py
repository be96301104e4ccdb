"""Write a fit's folder: draws, tables, figures and the page (contract in the README).

Every file is written whole or not at all. Nothing is computed here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbsbayes.errors import CBSDataError
from cbsbayes.store import write_whole

if TYPE_CHECKING:
    from cbsbayes.report.page import PageFigure
    from cbsbayes.result import Fit

__all__ = ["fit_summary", "write_fit"]

TABLES = ("cbs", "comparison", "runs")


def write_fit(
    fit: Fit, folder: Path, *, command: str = "", stage: Callable[[str], None] = lambda text: None
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
    """
    from cbsbayes.report.page import render_page

    folder.mkdir(parents=True, exist_ok=True)
    stage("writing fit.nc and tables")
    fit.save(folder / "fit.nc")
    write_whole(folder / "fit.json", json.dumps(fit_summary(fit), indent=2) + "\n")
    for name in TABLES:
        write_whole(folder / f"{name}.csv", getattr(fit, name).to_csv(index=False))
    stage("drawing figures")
    figures = write_figures(fit, folder / "figures")
    stage("writing the page")
    extra = {"diagnostics": fit.verdict["diagnostics"], **({"command": command} if command else {})}
    render_page(fit, figures, path=folder / "index.html", extra=extra)


def fit_summary(fit: Fit) -> dict[str, Any]:
    """Return what ``fit.json`` holds: settings, versions, data digest, diagnostics, checks."""
    return {"group": fit.group, **fit.settings, **fit.verdict,
            "n_runs": int(fit.crossings.sizes["run"]),
            "n_runs_left_out": int((~fit.runs["used"].astype(bool)).sum()),
            "laws": json.loads(fit.law_table.to_json(orient="records"))}


def write_figures(fit: Fit, folder: Path) -> list[PageFigure]:
    """Write every figure as PNG and PDF; those a fit has no data for keep the reason.

    Returns
    -------
    list of PageFigure
        In the page's order.
    """
    from cbsbayes.plots.gallery import all_figures
    from cbsbayes.plots.style import figure_bytes
    from cbsbayes.report.page import PageFigure

    folder.mkdir(exist_ok=True)
    pages = []
    for item in all_figures(fit):
        try:
            figure = item.draw()
        except CBSDataError as error:
            pages.append(PageFigure(item.slug, item.title, item.caption, None, str(error)))
            continue
        png = figure_bytes(figure, "png")
        write_whole(folder / f"{item.slug}.png", png)
        write_whole(folder / f"{item.slug}.pdf", figure_bytes(figure, "pdf"))
        pages.append(PageFigure(item.slug, item.title, item.caption, png))
    drawn = {page.slug for page in pages if page.png_bytes is not None}
    for old in folder.iterdir():  # of an earlier fit in the same folder
        if old.suffix in {".png", ".pdf"} and old.stem not in drawn:
            old.unlink()
    return pages
