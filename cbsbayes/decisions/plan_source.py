"""What a plan starts from: a fit as it is, or a sweep, which is fitted first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py

from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit import Fit
from cbsbayes.sweep.files import read_sweep

__all__ = ["FitChoices", "planning_fit"]

Stage = Callable[[str], None]


@dataclass(frozen=True)
class FitChoices:
    """How a sweep is fitted; of no use where a fit is given.

    Attributes
    ----------
    law : str
        As of `cbsbayes.posterior.fit_sweep.fit_sweep`, like all others here.
    thresholds : sequence of float or None
    metric, group : str or None
    seed : int
    """

    law: str = "auto"
    thresholds: Sequence[float] | None = None
    metric: str | None = None
    group: str | None = None
    seed: int = 0

    def given(self) -> list[str]:
        """Return the names of those that are not as by default."""
        default = FitChoices(seed=self.seed)
        return [name for name in ("law", "thresholds", "metric", "group")
                if getattr(self, name) != getattr(default, name)]


def planning_fit(
    path: Path, choices: FitChoices, stage: Stage = lambda text: None
) -> tuple[Fit, list[str]]:
    """Return a fit of the crossing model, and what must be said about it.

    Parameters
    ----------
    path : Path
        The folder or file of a fit, or a sweep, which is fitted without other laws beside. A fit of
        whole curves is made again by the crossing model, which says how a new run would scatter.
    choices : FitChoices
        How a sweep is fitted.
    stage : callable
        Told what is being done.

    Raises
    ------
    CBSDataError
        If the path is neither, choices are made for a fit, or the sweep cannot be fitted.
    """
    if not _is_fit(path):
        from cbsbayes.inference.sampling import SamplerSettings
        from cbsbayes.posterior.fit_sweep import fit_sweep

        fit = fit_sweep(read_sweep(path), group=choices.group, law=choices.law,
                        thresholds=choices.thresholds, metric=choices.metric, alternatives=False,
                        sampler=SamplerSettings(random_seed=choices.seed), stage=stage)
        return fit, [f"The sweep was fitted with the law {fit.law.name}; other laws were not "
                     "fitted beside it."]
    given = choices.given()
    if given:
        raise CBSDataError(f"--{given[0]} says how a sweep is fitted, but {path} is a fit already; "
                           "leave it out, or give the sweep")
    fit = Fit.load(path)
    if fit.settings.get("model", "crossing") == "crossing":
        return fit, []
    return _again(fit, choices.seed, stage)


def _again(fit: Fit, seed: int, stage: Stage) -> tuple[Fit, list[str]]:
    from cbsbayes.inference.sampling import SamplerSettings
    from cbsbayes.posterior.fit_sweep import fit_sweep

    again = fit_sweep(fit.sweep, group=fit.group, law=fit.law.name,
                      thresholds=fit.thresholds.tolist(), metric=fit.settings["metric"] or None,
                      ci_prob=fit.settings["ci_prob"], sampler=SamplerSettings(random_seed=seed),
                      alternatives=False, stage=stage)
    notes = [f"The fit given is of the {fit.settings['model']} model; its sweep was fitted "
             "again by the crossing model, which says how new runs would scatter."]
    if fit.settings.get("ceiling_by_group"):
        notes.append("The fit given has a ceiling for every group size, which the crossing model "
                     "does not know: what it expects of small groups at high targets is too good.")
    return again, notes


def _is_fit(path: Path) -> bool:
    """Tell a fit from a sweep by what the file holds; a folder can only be a fit's."""
    if path.is_dir():
        return True
    try:
        with h5py.File(path, "r") as file:
            return "posterior" in file
    except OSError:
        return False  # read_sweep says what is wrong with it
