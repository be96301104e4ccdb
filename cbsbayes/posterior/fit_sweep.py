"""From a sweep to a fit: the whole argument in one readable sequence.

runs → crossings or curves → posterior of each law → prior and predictive → leave-one-run-out
→ tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.intervals import choose_thresholds, find_crossings
from cbsbayes.crossings.reached import keep_reached
from cbsbayes.crossings.thresholds import MIN_BATCH_SIZES
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.loo import compare_laws, leave_one_run_out
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.models.laws import Law, get_law
from cbsbayes.models.priors import NOISE_PRIORS, PRIORS, Priors
from cbsbayes.models.trajectory_parameters import TRAJECTORY_PRIORS, TrajectoryPriors
from cbsbayes.posterior.averaging import averaged_table
from cbsbayes.posterior.ceiling_option import ceiling_sentences, check_ceilings
from cbsbayes.posterior.cross_check import disagreements
from cbsbayes.posterior.fit import Fit, stacked, table_to_json, thinned
from cbsbayes.posterior.gradient_noise import (
    LEAST_BATCHES,
    joint_laws,
    noise_cautions,
    noise_of_runs,
    with_parts,
)
from cbsbayes.posterior.law_fit import LawFit, fit_crossings
from cbsbayes.posterior.odd_runs import odd_run, odd_run_sentence
from cbsbayes.posterior.runs_table import runs_table
from cbsbayes.posterior.small_groups import small_group_caution
from cbsbayes.posterior.verdict import (
    cautions,
    contradictions,
    identified_line,
    reached_line,
    sampler_checks,
    verdict,
)
from cbsbayes.posterior.versions import versions
from cbsbayes.sweep.dataset import choose_metric, digest, is_one_axis
from cbsbayes.sweep.groups import (
    LawChoice,
    check_batches,
    choose_law,
    choose_runs,
    group_names,
    of_group,
    silent_runs,
)
from cbsbayes.sweep.learning_rate import learning_rate_rule

__all__ = ["MODELS", "fit_sweep", "laws_beside"]

Stage = Callable[[str], None]
MODELS = ("crossing", "trajectory")


def fit_sweep(
    sweep: xr.Dataset,
    *,
    group: str | None = None,
    law: str = "auto",
    model: str = "crossing",
    thresholds: Sequence[float] | None = None,
    metric: str | None = None,
    rule: str = "isotonic",
    ci_prob: float = 0.9,
    sampler: SamplerSettings | None = None,
    beside: bool = True,
    noise: pd.DataFrame | None = None,
    ceiling_by_group: bool = False,
    stage: Stage = lambda text: None,
) -> Fit:
    """Fit one group of runs.

    Parameters
    ----------
    sweep : xarray.Dataset
        A sweep (`cbsbayes.sweep.dataset`).
    group : str, optional
        Which group of runs, needed where the sweep holds several.
    law : str
        A law's name, or ``auto``: the varied axes decide.
    model : {"crossing", "trajectory"}
        What is fitted: crossings of thresholds, or whole curves, read off at thresholds.
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
    beside : bool
        Whether other laws are fitted beside the chosen one and compared with it, and whether the
        curves are asked if small groups saturate lower.
    noise : DataFrame, optional
        Measured gradient noise that is data too (crossing model only): probes with the accuracy
        they were made at, or snapshots (`cbsbayes.models.measured_noise.noise_data`).
    ceiling_by_group : bool
        Whether small groups may saturate lower (trajectory model only): a ceiling for every
        group size.
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
    if model not in MODELS:
        raise CBSDataError(f"unknown model {model!r}; valid: {', '.join(MODELS)}")
    joint = noise is not None
    if joint and model != "crossing":
        raise CBSDataError(f"the {model} model does not take measured gradient noise as data; use "
                           "--model crossing, or leave --use-gradient-noise out")
    least = LEAST_BATCHES if joint else MIN_BATCH_SIZES
    sampler = sampler or SamplerSettings()
    ds, label = _one_group(sweep, group)
    metric = _metric(ds, metric)
    fitted, reasons, choice = _choose(ds, law, metric, least)
    if ceiling_by_group:
        check_ceilings(model, choice.law, fitted["n_rollouts"].values)
    if noise is not None:
        noise = noise_of_runs(noise, fitted)
        choice = with_parts(choice, law, fitted, noise)
    targets = (choose_thresholds(fitted, metric=metric, rule=rule, least=least)
               if thresholds is None else np.asarray(thresholds, dtype=float))
    crossings = find_crossings(fitted, targets, metric=metric, rule=rule)
    crossings, left_out = keep_reached(crossings, fitted, metric)
    crossings, reasons = _without_silent(crossings, reasons)

    def fit_law(
        law: Law, sampler: SamplerSettings, crossings: xr.Dataset = crossings,
    ) -> LawFit:
        if model == "crossing":
            return fit_crossings(law, crossings, sampler, label, ci_prob, noise)
        from cbsbayes.posterior.law_fit_curves import fit_curves

        return fit_curves(law, fitted.sel(run=crossings["run"].values),
                          crossings["threshold"].values, metric, sampler, label, ci_prob,
                          ceiling_by_group)

    stage(f"sampling {choice.law.name}")
    main = fit_law(choice.law, sampler)
    checks, worst = sampler_checks(main.tree)
    note = main.tree["sample_stats"].attrs.get("note", "")
    settings = _settings(ds, choice, crossings, metric, ci_prob, sampler)
    learning_rate = learning_rate_rule(ds)
    settings |= {"model": model, "priors": _priors(model).as_dict(),
                 "learning_rate_rule": None if learning_rate is None else learning_rate._asdict(),
                 "ceiling_by_group": ceiling_by_group}
    if joint:
        few = _n_batches(crossings) < MIN_BATCH_SIZES
        settings |= {"noise_priors": NOISE_PRIORS.as_dict(),
                     "priors": (PRIORS.few_batches() if few else PRIORS).as_dict()}
    tree = _assemble(main, ds, crossings, sampler.random_seed)
    tree.attrs |= {"group": label, "law": choice.law.name, "settings": json.dumps(settings)}
    tables = {"cbs": main.cbs, "runs": runs_table(ds, crossings, reasons)}
    fits = {choice.law.name: main}
    others = laws_beside(choice.law, crossings) if beside else []
    others = joint_laws(choice.law, others) if joint else others
    for name in others:
        stage(f"sampling {name}")
        fits[name] = fit_law(get_law(name), sampler)
    stage("comparing laws, predictive checks, tables")
    posteriors = {n: f.tree["posterior"].to_dataset() for n, f in fits.items()}
    law_table = compare_laws({n: leave_one_run_out(f.tree) for n, f in fits.items()}, posteriors)
    weights = dict(zip(law_table["law"], law_table["weight"], strict=True))
    averaged = averaged_table(
        {n: (f.law, f.quantities, f.prior_quantities) for n, f in fits.items()}, weights,
        group=label, ci_prob=ci_prob, random_seed=sampler.random_seed,
    ) if len(fits) > 1 else main.cbs[:0]
    other_tables = {n: f.cbs for n, f in fits.items() if n != choice.law.name}
    said = cautions(choice.law, posteriors[choice.law.name], crossings, law_table, other_tables,
                    main.cbs, PRIORS.alpha)
    said += noise_cautions(posteriors[choice.law.name], main.constants, _n_batches(crossings))
    if ceiling_by_group:
        said += ceiling_sentences(main.cbs)
    elif beside:
        said += small_group_caution(fitted.sel(run=crossings["run"].values), choice.law, metric,
                                    crossings)
    said += [f"The posterior was {note}."] if note else []
    tables |= {"averaged": averaged, "laws": law_table}
    if model != "crossing" and beside:
        stage("sampling crossings as a check")
        check = fit_crossings(choice.law, crossings, sampler, label, ci_prob).cbs
        tables["cross_check"], said = check, [*said, *disagreements(main.cbs, check)]
    tables |= {f"other_{n}": table for n, table in other_tables.items()}
    predictive = tree["posterior_predictive"].to_dataset()["steps"]
    against = contradictions(crossings, fitted.sel(run=crossings["run"].values), metric)
    odd = odd_run(predictive, crossings) if beside else None
    if odd is not None:
        stage(f"sampling {choice.law.name} without {odd.run}")
        against.append(odd_run_sentence(odd, main.cbs, _without(
            odd.run, crossings, lambda kept: fit_law(choice.law, sampler, kept).cbs)))
    said += [] if learning_rate is None else [learning_rate.sentence]
    tree.attrs["verdict"] = json.dumps(verdict(
        checks, worst, reached_line(crossings, left_out), identified_line(main.cbs), against, said))
    return Fit(_with_tables(tree, tables))


def _without(
    run: str, crossings: xr.Dataset, table: Callable[[xr.Dataset], pd.DataFrame]
) -> pd.DataFrame | str:
    """Return the table of a fit without one run, or why there is none."""
    kept = crossings.isel(run=np.flatnonzero(crossings["run"].values != run))
    if _n_batches(kept) < MIN_BATCH_SIZES:
        return f"fewer than {MIN_BATCH_SIZES} batch sizes are left"
    try:
        return table(kept)
    except CBSDataError as error:
        return str(error)


def _priors(model: str) -> Priors | TrajectoryPriors:
    return PRIORS if model == "crossing" else TRAJECTORY_PRIORS


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
    ds: xr.Dataset, law: str, metric: str | None, least: int = MIN_BATCH_SIZES
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
    check_batches(fitted, least)
    return fitted, reasons, choice


def _n_batches(ds: xr.Dataset) -> int:
    return len({*zip(ds["n_prompts"].values.tolist(), ds["n_rollouts"].values.tolist(),
                     ds["total_batch"].values.tolist(), strict=True)})


def _without_silent(
    crossings: xr.Dataset, reasons: Mapping[str, str]
) -> tuple[xr.Dataset, dict[str, str]]:
    silent = silent_runs(crossings)
    why = "beyond every threshold before training, or not measured: says nothing about any"
    spoken = ~np.isin(crossings["run"].values.astype(str), silent)
    return crossings.isel(run=np.flatnonzero(spoken)), {**reasons, **dict.fromkeys(silent, why)}


def _assemble(main: LawFit, ds: xr.Dataset, crossings: xr.Dataset, seed: int) -> xr.DataTree:
    # the samplers' own attributes (when, which library) are in the settings where they matter
    posterior, stats, log_likelihood = (main.tree[name].to_dataset().drop_attrs(deep=False)
                                        for name in ("posterior", "sample_stats", "log_likelihood"))
    groups = {
        "posterior": posterior, "sample_stats": stats, "log_likelihood": log_likelihood,
        "prior": main.prior.drop_attrs(deep=False),
        "posterior_predictive": _replicates(posterior, main, seed),
        "prior_predictive": _replicates(main.prior, main, seed),
        "observed_data": crossings, "constant_data": main.constants, "sweep": ds,
    }
    return xr.DataTree.from_dict(groups)


def _with_tables(tree: xr.DataTree, tables: Mapping[str, pd.DataFrame]) -> xr.DataTree:
    tree.attrs |= {f"table_{name}": table_to_json(table) for name, table in tables.items()}
    return tree


def _replicates(draws: xr.Dataset, main: LawFit, seed: int) -> xr.Dataset:
    """Return replicated S in updates, dims (chain, draw, run, threshold)."""
    some = thinned(draws)
    log_steps = main.replicate(stacked(some), np.random.default_rng(seed))
    shape = (some.sizes["chain"], some.sizes["draw"], *log_steps.shape[1:])
    steps = np.exp(np.minimum(log_steps, 700.0)).reshape(shape)
    return xr.Dataset({"steps": (("chain", "draw", "run", "threshold"), steps,
                                 {"long_name": "replicated S of another run", "units": "updates"})},
                      coords={"run": main.constants["run"], "threshold": draws["threshold"],
                              "chain": some["chain"], "draw": some["draw"]})


def _settings(
    ds: xr.Dataset, choice: LawChoice, crossings: xr.Dataset, metric: str | None, ci_prob: float,
    sampler: SamplerSettings,
) -> dict[str, Any]:
    return {
        "law": choice.law.name, "law_reason": choice.reason,
        "formula": choice.law.formula, "metric": metric or "",
        "rule": crossings.attrs["rule"],
        "thresholds": crossings["threshold"].values.tolist(), "ci_prob": ci_prob,
        "ci_kind": "eti", **asdict(sampler), "data_digest": digest(ds),
        "versions": versions(),
    }
