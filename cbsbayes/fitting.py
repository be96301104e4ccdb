"""From a sweep to a fit: the whole argument in one readable sequence.

runs → crossings → posterior of each law → prior and predictive → leave-one-run-out → tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.comparison import comparison_table
from cbsbayes.crossing import choose_thresholds, find_crossings
from cbsbayes.errors import CBSDataError
from cbsbayes.grouping import (
    LawChoice,
    check_batches,
    choose_law,
    choose_runs,
    group_names,
    of_group,
    silent_runs,
)
from cbsbayes.laws import Law, get_law
from cbsbayes.loo import compare_laws, leave_one_run_out
from cbsbayes.models.crossing_data import CrossingData, crossing_data
from cbsbayes.models.priors import PRIORS
from cbsbayes.quantities import quantities, tried_batches
from cbsbayes.replicates import parameters, replicate_log_steps, run_log_likelihood
from cbsbayes.result import Fit, stacked, table_to_json, thinned
from cbsbayes.runs_table import runs_table
from cbsbayes.sampling import SamplerSettings, sample_crossings, sample_prior
from cbsbayes.summary import cbs_table
from cbsbayes.sweep import choose_metric, digest, is_one_axis
from cbsbayes.verdict import cautions, sampler_checks, verdict
from cbsbayes.versions import versions

__all__ = ["LawFit", "fit_sweep", "laws_beside"]

Stage = Callable[[str], None]
_LONGER = 4  # one axis varied leaves a ridge that the default draws explore too slowly
_PRIOR_DRAWS = 2000  # 1,000 leave a status near its line to chance


@dataclass(frozen=True)
class LawFit:
    """One law's draws on the same crossings as the others.

    Attributes
    ----------
    law : Law
        The law.
    data : CrossingData
        The crossings as the model saw them.
    tree : xarray.DataTree
        Groups ``posterior, sample_stats, log_likelihood``.
    prior : xarray.Dataset
        Prior draws, dims (chain, draw, run, threshold).
    cbs : pandas.DataFrame
        Its table of quantities.
    """

    law: Law
    data: CrossingData
    tree: xr.DataTree
    prior: xr.Dataset
    cbs: pd.DataFrame


def fit_sweep(
    sweep: xr.Dataset,
    *,
    group: str | None = None,
    law: str = "auto",
    thresholds: Sequence[float] | None = None,
    metric: str | None = None,
    rule: str = "isotonic",
    ci_prob: float = 0.9,
    sampler: SamplerSettings | None = None,
    stage: Stage = lambda text: None,
) -> Fit:
    """Fit the crossing model to one group of runs.

    Parameters
    ----------
    sweep : xarray.Dataset
        A sweep (`cbsbayes.sweep`).
    group : str, optional
        Which group of runs, needed where the sweep holds several.
    law : str
        A law's name, or ``auto``: the varied axes decide.
    thresholds : sequence of float, optional
        Targets; chosen on a round grid unless given.
    metric : str, optional
        Validation set; the sweep's default unless given.
    rule : {"isotonic", "first", "consecutive"}
        What counts as a crossing.
    ci_prob : float
        Probability of the equal-tailed intervals.
    sampler : SamplerSettings, optional
        How to sample.
    stage : callable
        Told what is being done, for a progress display.

    Returns
    -------
    Fit
        Draws, tables, verdict.

    Raises
    ------
    CBSDataError
        If the sweep holds several groups and none is named, or its runs cannot be fitted.
    """
    if not 0.5 <= ci_prob < 1:
        raise CBSDataError(f"ci_prob is {ci_prob}; valid: from 0.5 to below 1, usually 0.9")
    sampler = sampler or SamplerSettings()
    ds, label = _one_group(sweep, group)
    metric = _metric(ds, metric)
    fitted, reasons, choice = _choose(ds, law, metric)
    targets = (choose_thresholds(fitted, metric=metric, rule=rule) if thresholds is None
               else np.asarray(thresholds, dtype=float))
    crossings = find_crossings(fitted, targets, metric=metric, rule=rule)
    crossings, reasons = _without_silent(crossings, reasons)

    fits = {}
    for name in [choice.law.name, *laws_beside(choice.law, crossings)]:
        stage(f"sampling {name}")
        fits[name] = _fit_law(get_law(name), crossings, sampler, label, ci_prob)
    main = fits[choice.law.name]
    checks, worst = sampler_checks(main.tree)
    if not (checks["r_hat_below_1_01"] and checks["ess_bulk_above_400"]):
        stage(f"sampling {choice.law.name} again, {_LONGER} times as long")
        sampler = replace(sampler, draws=_LONGER * sampler.draws, tune=2 * sampler.tune)
        main = fits[choice.law.name] = _fit_law(choice.law, crossings, sampler, label, ci_prob)
        checks, worst = sampler_checks(main.tree)
    stage("comparing laws, predictive checks, tables")
    law_table = compare_laws({n: leave_one_run_out(f.tree) for n, f in fits.items()},
                             {n: f.tree["posterior"].to_dataset() for n, f in fits.items()})
    others = {n: f.cbs for n, f in fits.items() if n != choice.law.name}
    said = cautions(choice.law, main.tree["posterior"].to_dataset(), crossings, law_table, others,
                    main.cbs, PRIORS)
    tables = {"cbs": main.cbs, "laws": law_table, "runs": runs_table(ds, crossings, reasons)}
    tables |= {f"other_{n}": table for n, table in others.items()}
    settings = _settings(ds, choice, crossings, metric, ci_prob, sampler)
    tree = _assemble(main, ds, crossings, sampler.random_seed)
    tree.attrs |= {"group": label, "law": choice.law.name, "settings": json.dumps(settings),
                   "verdict": json.dumps(verdict(checks, worst, said))}
    tree.attrs |= {f"table_{n}": table_to_json(table) for n, table in tables.items()}
    total = fits["total"].cbs if "total" in fits else None
    comparison = comparison_table(Fit(tree).baselines, main.cbs, total, label,
                                  n_runs=crossings.sizes["run"])
    tree.attrs["table_comparison"] = table_to_json(comparison)
    return Fit(tree)


def laws_beside(law: Law, ds: xr.Dataset) -> list[str]:
    """Return the laws fitted beside the chosen one, McCandlish's (exponent 1) always among them.

    Parameters
    ----------
    law : Law
        The law chosen.
    ds : xarray.Dataset
        The runs fitted, and only those: an axis that only runs left out vary decides nothing.
    """
    both = not is_one_axis(ds) and all(
        len(np.unique(ds[name].values)) > 1 for name in ("n_prompts", "n_rollouts"))
    if not (both or law.two_axis):
        names = ["total", "power"]
    else:
        own, other = ("_plain", "") if law.plain else ("", "_plain")
        names = [f"two_axis{own}", f"two_axis_sqrt{own}", f"two_axis_free{own}",
                 f"two_axis_free{other}", "total"]
        if other == "" and (ds["n_rollouts"].values < 2).any():
            names.remove("two_axis_free")  # 1/(G - 1) has no value at G = 1
    return [name for name in names if name != law.name]


def _one_group(sweep: xr.Dataset, group: str | None) -> tuple[xr.Dataset, str]:
    names = group_names(sweep)
    if group is None and len(names) > 1:
        raise CBSDataError(f"the sweep holds {len(names)} groups, which are never pooled; choose "
                           f"one with group=: {'; '.join(names)}")
    label = names[0] if group is None else group
    return of_group(sweep, label), label


def _metric(ds: xr.Dataset, metric: str | None) -> str | None:
    if "accuracy" in ds:
        return choose_metric(ds, metric)
    if metric is not None:
        raise CBSDataError(f"metric {metric!r} was asked for, but the sweep is a table of "
                           "crossings, which has no metrics; leave it out")
    return None


def _choose(
    ds: xr.Dataset, law: str, metric: str | None
) -> tuple[xr.Dataset, dict[str, str], LawChoice]:
    reasons = choose_runs(ds, None if law == "auto" else get_law(law))
    kept = np.array([reasons[str(run)] == "" for run in ds["run"].values])
    if not kept.any():
        raise CBSDataError(f"none of the {len(kept)} runs can be fitted; the first reason: "
                           f"{next(iter(reasons.values()))}")
    fitted = ds.isel(run=np.flatnonzero(kept))
    choice = choose_law(fitted, law)
    if choice.law.needs_baseline_group and (fitted["n_rollouts"].values < 2).any():
        raise CBSDataError(f"law {choice.law.name!r} has no value at n_rollouts = 1; use its "
                           "_plain form or add runs with larger groups")
    check_batches(fitted)
    return fitted, reasons, choice


def _without_silent(
    crossings: xr.Dataset, reasons: Mapping[str, str]
) -> tuple[xr.Dataset, dict[str, str]]:
    silent = silent_runs(crossings)
    why = "beyond every threshold before training, or not measured: says nothing about any"
    spoken = ~np.isin(crossings["run"].values.astype(str), silent)
    if not spoken.any():
        raise CBSDataError("no run says anything about any threshold given; valid thresholds lie "
                           "between the accuracy before training and the best accuracy reached")
    return crossings.isel(run=np.flatnonzero(spoken)), {**reasons, **dict.fromkeys(silent, why)}


def _fit_law(
    law: Law, crossings: xr.Dataset, sampler: SamplerSettings, group: str, ci_prob: float
) -> LawFit:
    data = crossing_data(crossings, law)
    tree = sample_crossings(data, law, sampler)
    posterior = tree["posterior"].to_dataset()
    log_p = run_log_likelihood(parameters(stacked(posterior), data, law), data)
    shape = (posterior.sizes["chain"], posterior.sizes["draw"], len(data.run))
    tree["log_likelihood"] = xr.DataTree(xr.Dataset(
        {"run_log_likelihood": (("chain", "draw", "run"), log_p.reshape(shape))},
        coords={"run": data.run, "chain": posterior["chain"], "draw": posterior["draw"]}))
    prior = sample_prior(data, law, draws=_PRIOR_DRAWS, random_seed=sampler.random_seed)
    tried = tried_batches(crossings)
    table = cbs_table(quantities(law, posterior, tried), quantities(law, prior, tried), law=law,
                      group=group, ci_prob=ci_prob)
    return LawFit(law, data, tree, prior, table)


def _assemble(main: LawFit, ds: xr.Dataset, crossings: xr.Dataset, seed: int) -> xr.DataTree:
    # the samplers' own attributes (when, which library) are in the settings where they matter
    posterior, stats, log_likelihood = (main.tree[name].to_dataset().drop_attrs(deep=False)
                                        for name in ("posterior", "sample_stats", "log_likelihood"))
    groups = {
        "posterior": posterior, "sample_stats": stats, "log_likelihood": log_likelihood,
        "prior": main.prior.drop_attrs(deep=False),
        "posterior_predictive": _replicates(posterior, main, seed),
        "prior_predictive": _replicates(main.prior, main, seed),
        "observed_data": crossings, "constant_data": _constants(main.data), "sweep": ds,
    }
    return xr.DataTree.from_dict(groups)


def _replicates(draws: xr.Dataset, main: LawFit, seed: int) -> xr.Dataset:
    """Return replicated S in updates, dims (chain, draw, run, threshold)."""
    some = thinned(draws)
    data = main.data
    log_steps = replicate_log_steps(parameters(stacked(some), data, main.law), data,
                                    np.random.default_rng(seed))
    shape = (some.sizes["chain"], some.sizes["draw"], *log_steps.shape[1:])
    steps = np.exp(np.minimum(log_steps + data.log_steps_scale, 700.0)).reshape(shape)
    return xr.Dataset({"steps": (("chain", "draw", "run", "threshold"), steps,
                                 {"long_name": "replicated S of another run", "units": "updates"})},
                      coords={"run": data.run, "threshold": data.threshold,
                              "chain": some["chain"], "draw": some["draw"]})


def _constants(data: CrossingData) -> xr.Dataset:
    return xr.Dataset(
        {"n_prompts": ("run", data.n_prompts), "n_rollouts": ("run", data.n_rollouts),
         "hardness": ("threshold", data.hardness), "log_steps_scale": ((), data.log_steps_scale),
         **{f"log_scale_{name}": ((), value) for name, value in data.log_batch_scale.items()}},
        coords={"run": data.run, "threshold": data.threshold})


def _settings(
    ds: xr.Dataset, choice: LawChoice, crossings: xr.Dataset, metric: str | None, ci_prob: float,
    sampler: SamplerSettings,
) -> dict[str, Any]:
    return {
        "model": "crossing", "law": choice.law.name, "law_reason": choice.reason,
        "formula": choice.law.formula, "metric": metric or "",
        "rule": crossings.attrs["rule"],
        "thresholds": crossings["threshold"].values.tolist(), "ci_prob": ci_prob,
        "ci_kind": "eti", **asdict(sampler), "priors": PRIORS.as_dict(), "data_digest": digest(ds),
        "versions": versions(),
    }
