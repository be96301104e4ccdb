"""A fit as a run of its own in a wandb project, so that its numbers stand beside the runs'."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from cbsbayes.errors import CBSDataError, one_line
from cbsbayes.logs.wandb_offline import import_wandb
from cbsbayes.plots.gallery import page_figures
from cbsbayes.report.facts import Facts
from cbsbayes.report.folder import TABLES, fit_summary, table_of

__all__ = ["log_fit", "parse_project"]

_PROJECT = re.compile(r"wandb:([\w.-]+)/([\w.-]+)")


def parse_project(text: str) -> tuple[str, str]:
    """Return entity and project of ``wandb:ENTITY/PROJECT``, where the client is installed.

    Raises
    ------
    CBSDataError
        If the text is of another form, or the wandb extra is missing.
    """
    found = _PROJECT.fullmatch(text)
    if found is None:
        raise CBSDataError(f"--log-to is {text!r}; valid: wandb:ENTITY/PROJECT")
    import_wandb()
    return found[1], found[2]


def log_fit(facts: Facts, folder: Path, project: tuple[str, str]) -> None:
    """Log a fit's answer, verdict, tables, figures and page as one run.

    The client decides where to: ``WANDB_MODE=offline`` keeps the run on this machine.

    Parameters
    ----------
    facts : Facts
        Of the fit.
    folder : Path
        Where the fit is written, for its page.
    project : tuple of str
        Entity and project.

    Raises
    ------
    CBSDataError
        If wandb refuses the run; the folder is complete all the same.
    """
    wandb: Any = import_wandb()
    known = fit_summary(facts)
    settings = {name: known.pop(name) for name in facts.fit.settings}
    try:
        with wandb.init(entity=project[0], project=project[1], job_type="cbsbayes",
                        name=f"cbsbayes {facts.fit.group}", config=settings,
                        settings=wandb.Settings(silent=True)) as run:
            run.summary.update(known)
            run.log({f"tables/{name}": wandb.Table(dataframe=table_of(facts.fit, name))
                     for name in TABLES})
            run.log(_images(wandb, facts))
            run.log({"page": wandb.Html((folder / "index.html").read_text("utf-8"))})
    except wandb.errors.Error as error:
        raise CBSDataError(f"the fit is written to {folder}, but wandb refused its run: "
                           f"{one_line(str(error))}") from None


def _images(wandb: Any, facts: Facts) -> dict[str, Any]:
    images = {}
    for item in page_figures(facts.fit, threshold=facts.threshold,
                             advice=facts.advice.axes if facts.advice else None):
        with suppress(CBSDataError):  # the page says why this fit has no such figure
            images[f"figures/{item.slug}"] = wandb.Image(item.draw(), caption=item.title)
    return images
