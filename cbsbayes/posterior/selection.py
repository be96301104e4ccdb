"""What is fitted: options, the runs of one group, the law they allow, targets and crossings.

Measured gradient noise may be data too (`cbsbayes.noise.joint`): it lets fewer batches do, tells
prompts from rollouts where it was measured in both parts, and leaves as alternatives the laws of
the same scales.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.crossings.thresholds import (
    MIN_BATCH_SIZES,
    check_batches,
    choose_thresholds,
    keep_reached,
    uninformative_runs,
)
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.nuts import SamplerSettings
from cbsbayes.models.laws import Law, LawChoice, choose_law, get_law
from cbsbayes.models.measured_noise import MIN_ROLLOUTS
from cbsbayes.posterior.ceilings import check_ceilings
from cbsbayes.sweep.dataset import choose_metric, is_one_axis
from cbsbayes.sweep.groups import (
    choose_runs,
    group_names,
    learning_rate_rule,
    of_group,
    without_baseline,
)

__all__ = ["MODELS", "FitOptions", "Selection", "alternative_laws", "runs_table", "select",
           "with_parts"]

MODELS = ("crossing", "trajectory")
_LEAST_BATCHES_JOINT = 1  # one batch and measured noise already say something of the others
_COORDS = ["name", "phase", "n_prompts", "n_rollouts", "total_batch", "seed", "state"]


@dataclass(frozen=True)
class FitOptions:
    """What may be asked of a fit.

    Attributes
    ----------
    group : str, optional
        Which group of runs, needed where the sweep holds several.
    law : str
        A law's name, or ``auto``: the varied axes decide.
    model : {"crossing", "trajectory"}
        What is fitted: crossings of thresholds, or whole curves, read off at thresholds.
    thresholds : sequence of float, optional
        Targets; chosen on a round grid unless given. They are fitted together, so the answer at one
        leans a little on which others are asked for (docs/model.md, section 6).
    metric : str, optional
        Validation set; the sweep's default unless given.
    rule : {"isotonic", "first", "consecutive"}
        What counts as a crossing.
    ci_prob : float
        Probability of the equal-tailed intervals.
    sampler : SamplerSettings
        How to sample.
    alternatives : bool
        Whether other laws are fitted and compared with the chosen one, and whether the curves are
        asked if small groups saturate lower.
    noise : DataFrame, optional
        Measured gradient noise that is data too (crossing model only): probes with the accuracy
        they were made at, or snapshots (`cbsbayes.models.measured_noise.noise_data`).
    ceiling_by_group : bool
        Whether small groups may saturate lower (trajectory model only): a ceiling for every
        group size.
    """

    group: str | None = None
    law: str = "auto"
    model: str = "crossing"
    thresholds: Sequence[float] | None = None
    metric: str | None = None
    rule: str = "isotonic"
    ci_prob: float = 0.9
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    alternatives: bool = True
    noise: pd.DataFrame | None = None
    ceiling_by_group: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be fitted."""
        if not 0.5 <= self.ci_prob < 1:
            raise CBSDataError(f"ci_prob is {self.ci_prob}; valid: from 0.5 to below 1, usually "
                               "0.9")
        if self.model not in MODELS:
            raise CBSDataError(f"unknown model {self.model!r}; valid: {', '.join(MODELS)}")
        if self.joint and self.model != "crossing":
            raise CBSDataError(f"the {self.model} model does not take measured gradient noise as "
                               "data; use --model crossing, or leave --use-gradient-noise out")

    @property
    def joint(self) -> bool:
        """Whether measured gradient noise is data."""
        return self.noise is not None


@dataclass(frozen=True)
class Selection:
    """The runs of one group as they are fitted.

    Attributes
    ----------
    options : FitOptions
        What was asked.
    group : str
        Label of the runs.
    metric : str or None
        Validation set; None in a table of crossings.
    runs : xarray.Dataset
        All runs of the group.
    fitted : xarray.Dataset
        Those that are fitted.
    reasons : dict
        Why a run was left out; ``""`` where it is fitted.
    choice : LawChoice
        The law, and why.
    crossings : xarray.Dataset
        Of the runs fitted, dims (run, threshold).
    left_out : dict
        Thresholds asked for that say nothing, and why.
    noise : DataFrame or None
        Measured gradient noise that is data, of the runs fitted.
    """

    options: FitOptions
    group: str
    metric: str | None
    runs: xr.Dataset
    fitted: xr.Dataset
    reasons: dict[str, str]
    choice: LawChoice
    crossings: xr.Dataset
    left_out: dict[float, str]
    noise: pd.DataFrame | None

    @property
    def law(self) -> Law:
        """The law chosen."""
        return self.choice.law

    @cached_property
    def n_batches(self) -> int:
        """Batches fitted."""
        axes = ("n_prompts", "n_rollouts", "total_batch")
        return len(np.unique([self.fitted[axis].values for axis in axes], axis=1).T)

    @property
    def alternatives(self) -> list[str]:
        """Other laws to fit; measured noise serves those of the same scales."""
        names = alternative_laws(self.law, self.crossings) if self.options.alternatives else []
        return [name for name in names if not self.options.joint or (
            get_law(name).scales, get_law(name).group_baseline)
            == (self.law.scales, self.law.group_baseline)]

    def without(self, run: str) -> Selection:
        """Return the same without one run.

        Raises
        ------
        CBSDataError
            If too few batch sizes are left.
        """
        kept = np.flatnonzero(self.crossings["run"].values != run)
        left = replace(self, fitted=self.fitted.isel(run=kept),
                       crossings=self.crossings.isel(run=kept))
        if left.n_batches < MIN_BATCH_SIZES:
            raise CBSDataError(f"fewer than {MIN_BATCH_SIZES} batch sizes are left")
        return left


def select(sweep: xr.Dataset, options: FitOptions) -> Selection:
    """Return what is fitted of a sweep.

    Raises
    ------
    CBSDataError
        If the sweep holds several groups and none is named, or its runs cannot be fitted.
    """
    names = group_names(sweep)
    if options.group is None and len(names) > 1:
        raise CBSDataError(f"the sweep holds {len(names)} groups, which are never pooled; choose "
                           f"one with group=: {'; '.join(names)}")
    group = names[0] if options.group is None else options.group
    runs = of_group(sweep, group)
    metric = _metric(runs, options.metric)
    least = _LEAST_BATCHES_JOINT if options.joint else MIN_BATCH_SIZES
    fitted, reasons, choice = _choose(runs, options.law, least)
    if options.ceiling_by_group:
        check_ceilings(options.model, choice.law, fitted["n_rollouts"].values)
    noise = None if options.noise is None else _noise_of_runs(options.noise, fitted)
    if noise is not None and options.law == "auto":
        choice = with_parts(choice, fitted, noise)
    targets = (choose_thresholds(fitted, metric=metric, rule=options.rule, least=least)
               if options.thresholds is None else np.asarray(options.thresholds, dtype=float))
    crossings = find_crossings(fitted, targets, metric=metric, rule=options.rule)
    crossings, left_out = keep_reached(crossings, fitted, metric)
    uninformative = uninformative_runs(crossings)
    kept = np.flatnonzero(~np.isin(crossings["run"].values.astype(str), uninformative))
    reasons |= dict.fromkeys(uninformative, "beyond every threshold before training, or not "
                             "measured: says nothing about any")
    return Selection(options, group, metric, runs, fitted.isel(run=kept), reasons, choice,
                     crossings.isel(run=kept), left_out, noise)


def alternative_laws(law: Law, ds: xr.Dataset) -> list[str]:
    """Return the laws that the chosen one is compared with, McCandlish's always among them.

    Parameters
    ----------
    law : Law
        The law chosen.
    ds : xarray.Dataset
        The runs fitted, and only those: an axis that only runs left out vary decides nothing.
    """
    both = not is_one_axis(ds) and all(
        len(np.unique(ds[name].values)) > 1 for name in ("n_prompts", "n_rollouts"))
    if law.learning_rate:
        names = _with_rates(law, ds, both=both)
    elif not (both or law.two_axis):
        names = ["total", "power"]
    else:
        own, other = ("", "_plain") if law.group_baseline else ("_plain", "")
        names = [f"two_axis{own}", f"two_axis_sqrt{own}", f"two_axis_free{own}",
                 f"two_axis_free{other}", "total"]
        if other == "" and (ds["n_rollouts"].values < 2).any():
            names.remove("two_axis_free")  # 1/(G - 1) has no value at G = 1
    return [name for name in names if name != law.name]


def _with_rates(law: Law, ds: xr.Dataset, *, both: bool) -> list[str]:
    """Return the laws of learning rates, and what says as much of runs under one rule."""
    ruled = learning_rate_rule(ds) is not None
    if not both:
        return ["learning_rate_total", *(["total", "power"] if ruled else [])]
    own = "_plain" if not law.group_baseline else ""
    return ["learning_rate_total", *([f"two_axis_free{own}"] if ruled else [])]


def _metric(ds: xr.Dataset, metric: str | None) -> str | None:
    if "accuracy" in ds:
        return choose_metric(ds, metric)
    if metric is not None:
        raise CBSDataError(f"metric {metric!r} was asked for, but the sweep is a table of "
                           "crossings, which has no metrics; leave it out")
    return None


def _choose(
    ds: xr.Dataset, law: str, least: int
) -> tuple[xr.Dataset, dict[str, str], LawChoice]:
    reasons = choose_runs(ds, group_baseline=law == "auto" or get_law(law).group_baseline)
    kept = np.array([reasons[str(run)] == "" for run in ds["run"].values])
    if not kept.any():
        raise CBSDataError(f"none of the {len(kept)} runs can be fitted; the first reason: "
                           f"{next(iter(reasons.values()))}")
    fitted = ds.isel(run=np.flatnonzero(kept))
    choice = choose_law(fitted, law)
    if choice.law.needs_baseline_group and (fitted["n_rollouts"].values < 2).any():
        raise CBSDataError(f"law {choice.law.name!r} has no value at n_rollouts = 1; use its "
                           "_plain form or add runs with larger groups")
    check_batches(fitted, least)
    return fitted, reasons, choice


def _noise_of_runs(noise: pd.DataFrame, ds: xr.Dataset) -> pd.DataFrame:
    """Return the probes of the runs to be fitted; of snapshots, which name no runs, all."""
    kept = noise if "run" not in noise else noise[noise["run"].isin(ds["run"].values)]
    if kept.empty:
        raise CBSDataError("no gradient noise was logged by the runs fitted; switch the probe on "
                           "during training, or leave --use-gradient-noise out")
    return kept


def with_parts(choice: LawChoice, ds: xr.Dataset, noise: pd.DataFrame) -> LawChoice:
    """Return the two-axis law where noise measured in two parts allows it at one group size.

    Parameters
    ----------
    choice : LawChoice
        What the axes varied allow.
    ds : xarray.Dataset
        The runs to be fitted.
    noise : DataFrame
        Probes of these runs.
    """
    groups = noise["n_rollouts"] >= MIN_ROLLOUTS
    parts = noise.loc[groups].reindex(columns=["tr_between", "tr_within"]).notna().all(axis=1).any()
    if choice.law.two_axis or is_one_axis(ds) or not parts:
        return choice
    ending = "_plain" if without_baseline(ds) else ""
    name = "learning_rate" if choice.law.learning_rate else "two_axis_free"
    return LawChoice(get_law(name + ending), "Gradient noise was measured between and within "
                     "prompts: the two-axis law, its exponent free.")


def runs_table(
    ds: xr.Dataset, reasons: Mapping[str, str], crossings: xr.Dataset | None = None
) -> pd.DataFrame:
    """Return the table of ``runs.csv``, a row per run: used how, or left out why.

    Parameters
    ----------
    ds : xarray.Dataset
        All runs of a group.
    reasons : mapping
        Why a run was left out; ``""`` where it was fitted.
    crossings : xarray.Dataset, optional
        Of the runs that were fitted, if any were.
    """
    why = [reasons[str(run)] for run in ds["run"].values]
    table = pd.DataFrame({"run": ds["run"].values.astype(str),
                          **{name: ds[name].values for name in _COORDS},
                          "used": [reason == "" for reason in why], "reason": why})
    for name in ("first_step", "last_step"):
        table[name] = ds[name].values if name in ds else np.nan
    table["attempts"], table["remark"] = ds["attempts"].values, ds["remark"].values
    if crossings is not None:
        fitted = crossings.reindex(run=ds["run"].values)
        for threshold in crossings["threshold"].values:
            for bound in ("lower", "upper"):
                table[f"{bound}_{threshold:.12g}"] = fitted[bound].sel(threshold=threshold).values
    return table
