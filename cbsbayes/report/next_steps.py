"""Which commands go on from a fit, with the lines to type for this one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cbsbayes.decisions.iso_batch import iso_runs
from cbsbayes.decisions.splits import default_batch
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.ceiling_option import OPTION

if TYPE_CHECKING:
    import xarray as xr

    from cbsbayes.posterior.fit import Fit

__all__ = ["NextStep", "next_steps"]

_TIMED = 3  # runs that the clock needs


class NextStep(NamedTuple):
    """A command line and what it does."""

    line: str
    does: str


def next_steps(
    fit: Fit, folder: Path, *, sweep: xr.Dataset | None = None, source: Path | None = None
) -> list[NextStep]:
    """Return the commands that go on from a fit.

    Parameters
    ----------
    fit : Fit
        The fit.
    folder : Path
        Where it is written.
    sweep : xarray.Dataset, optional
        All runs that were read, this group's and others'; those of the fit unless given.
    source : Path, optional
        The file of that sweep.
    """
    place, timed = shlex.quote(str(folder)), _timed(fit)
    steps = [_allocate(fit, place)]
    if timed:
        steps.append(NextStep(f"python -m cbsbayes.allocate {place} --clock",
                              "the fastest and the cheapest batch, from the step times logged"))
    if fit.settings.get("model", "crossing") == "crossing":
        cost = " --cost gpu-hours" if timed else ""
        steps.append(NextStep(f"python -m cbsbayes.plan {place} --runs 2{cost}",
                              "which runs next, by what each tells for its price"))
    steps += _ceilings(fit, folder, source)
    steps.append(NextStep(f"python -m cbsbayes.compare {place} OTHER_FIT",
                          "this fit beside that of another model, data set, estimator or learning "
                          "rate, with ratios as posteriors"))
    if _reused(fit.sweep if sweep is None else sweep):
        steps.append(NextStep(f"python -m cbsbayes.compare {shlex.quote(str(folder.parent))}",
                              "the groups of this sweep side by side: what several passes over a "
                              "batch (ppo_epochs) do to updates and samples"))
    return steps


def _allocate(fit: Fit, place: str) -> NextStep:
    """Return the line that decides, with the check by runs left out where there are such runs."""
    line = f"python -m cbsbayes.allocate {place}"
    try:
        iso_runs(fit, default_batch(fit.crossings).total)
    except CBSDataError:
        return NextStep(line, "which batch to run, with its probability")
    return NextStep(f"{line} --check", "which split of a batch is best, with its probability; the "
                    "runs of that batch predicted by a fit that left them out, where this page's "
                    "fit has seen them")


def _ceilings(fit: Fit, folder: Path, source: Path | None) -> list[NextStep]:
    """Return the line that fits a ceiling for every group size, where the curves ask for it."""
    said = any(OPTION in sentence for sentence in fit.verdict["sentences"])
    if not said or fit.settings.get("ceiling_by_group", False):
        return []
    sweep = [] if source is None else [shlex.quote(str(source))]
    line = " ".join(["python -m cbsbayes.fit", *sweep, "-o", shlex.quote(f"{folder}_ceilings"),
                     "--model trajectory", OPTION])
    return [NextStep(line, "the same with a ceiling for every group size, because small groups "
                     "seem to saturate lower")]


def _timed(fit: Fit) -> bool:
    if "step_time" not in fit.sweep:
        return False
    seconds = fit.sweep["step_time"].values
    return int((np.isfinite(seconds) & (seconds > 0)).sum()) >= _TIMED


def _reused(sweep: xr.Dataset) -> bool:
    return "ppo_epochs" in sweep.coords and len(np.unique(sweep["ppo_epochs"].values)) > 1
