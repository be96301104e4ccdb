"""From a sweep to a fit: the argument on one page.

Runs are selected, and where their curves cross targets. Every law is fitted to them, and laws are
compared by how well they predict runs left out. What is known of each quantity becomes a table,
what limits the numbers a verdict.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.thresholds import MIN_BATCH_SIZES
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.loo import compare_laws, leave_one_run_out
from cbsbayes.models.laws import get_law
from cbsbayes.models.parameters import NOISE_PRIORS, PRIORS
from cbsbayes.models.trajectory import TRAJECTORY_PRIORS
from cbsbayes.posterior import sentence
from cbsbayes.posterior.cautions import (
    cautions,
    ceiling_sentences,
    contradictions,
    disagreements,
    noise_cautions,
    odd_run,
    odd_run_sentence,
)
from cbsbayes.posterior.ceilings import small_group_caution
from cbsbayes.posterior.fit import Fit, table_to_json, versions
from cbsbayes.posterior.law_fit import LawFit, averaged_table, fit_law
from cbsbayes.posterior.selection import FitOptions, Selection, runs_table, select
from cbsbayes.posterior.verdict import identified_line, reached_line, sampler_checks, verdict
from cbsbayes.sweep.dataset import digest
from cbsbayes.sweep.files import read_sweep
from cbsbayes.sweep.groups import learning_rate_rule

__all__ = ["OTHER_RATE", "fit_sweep"]

OTHER_RATE = 3  # times the rate used: far enough to tell, near enough to be stable
Stage = Callable[[str], None]


def fit_sweep(
    sweep: xr.Dataset | str | os.PathLike[str], *, stage: Stage = lambda text: None, **options: Any
) -> Fit:
    """Fit one group of runs.

    Parameters
    ----------
    sweep : xarray.Dataset or path
        A sweep (`cbsbayes.sweep.dataset`), or the file that holds one.
    stage : callable
        Told what is being done, for a progress display.
    **options
        Of `cbsbayes.posterior.selection.FitOptions`: group, law, model, thresholds, metric, rule,
        ci_prob, sampler, alternatives, noise, ceiling_by_group.

    Returns
    -------
    Fit
        Draws, tables, verdict.

    Raises
    ------
    CBSDataError
        If this is no sweep, it holds several groups and none is named, or its runs cannot be
        fitted.
    """
    if isinstance(sweep, str | os.PathLike):
        sweep = read_sweep(sweep)
    if not isinstance(sweep, xr.Dataset):
        raise CBSDataError(f"{type(sweep).__name__} is no sweep; give the xarray.Dataset of "
                           "cbsbayes.read_sweep(…) or cbsbayes.read_logs([…]), or a sweep's file")
    selected = select(sweep, FitOptions(**options))
    law = selected.law
    fits: dict[str, LawFit] = {}
    names = (law.name, *selected.alternatives)
    for k, name in enumerate(names, start=1):
        stage(f"sampling {name}, law {k} of {len(names)}")
        fits[name] = fit_law(get_law(name), selected)
    main = fits[law.name]
    stage("comparing laws, predictive checks, tables")
    tree, cbs = _tree(main, selected), main.table(selected)
    law_table = compare_laws({name: leave_one_run_out(fit.tree) for name, fit in fits.items()},
                             {name: fit.posterior for name, fit in fits.items()})
    weights = dict(zip(law_table["law"], law_table["weight"], strict=True))
    others = {name: fit.table(selected, diagnostics=False)
              for name, fit in fits.items() if fit is not main}
    tables = {"cbs": cbs, "laws": law_table, "averaged": averaged_table(fits, weights, selected),
              "runs": runs_table(selected.runs, selected.reasons, selected.crossings),
              **{f"other_{name}": table for name, table in others.items()}}
    notes = cautions(law, main.posterior, selected.crossings, law_table, others, cbs,
                     PRIORS.exponent(tuned=law.learning_rate))
    notes += _notes(main, cbs, selected)
    against = contradictions(selected.crossings, selected.fitted, selected.metric)
    if selected.options.alternatives:
        against += _odd_run(main, cbs, tree, selected, stage)
        if selected.options.model != "crossing":
            stage("sampling crossings as a check")
            tables["cross_check"] = fit_law(law, selected, "crossing").table(selected)
            notes += disagreements(cbs, tables["cross_check"])
    reached = reached_line(selected.crossings, selected.left_out)
    judged = verdict(*sampler_checks(main.tree), reached, identified_line(cbs), against, notes)
    tree.attrs = {
        "group": selected.group, "law": law.name, "settings": json.dumps(_settings(main, selected)),
        "verdict": json.dumps(judged),
        **{f"table_{name}": table_to_json(table) for name, table in tables.items()}}
    return Fit(tree)


def _notes(main: LawFit, cbs: pd.DataFrame, selected: Selection) -> list[str]:
    """Return what to know of options, small groups, sampling and learning rates."""
    notes = noise_cautions(main.posterior, main.constants, selected.n_batches)
    if selected.options.ceiling_by_group:
        notes += ceiling_sentences(cbs)
    elif selected.options.alternatives and not selected.law.learning_rate:
        notes += small_group_caution(selected.fitted, selected.law, selected.metric,
                                     selected.crossings)
    if sampled := main.tree["sample_stats"].attrs.get("note", ""):
        notes.append(f"The posterior was {sampled}.")
    return [*notes, *_rate_notes(selected)]


def _rate_notes(selected: Selection) -> list[str]:
    """Return at which learning rates the numbers hold, or what a second one would tell."""
    rates, rule = selected.fitted["learning_rate"].values, learning_rate_rule(selected.runs)
    notes = [rule.sentence] if rule else []
    if selected.law.learning_rate:
        return [*notes, sentence("at_best_rates")]
    if rule:
        return [*notes, sentence("at_rates_used", n=3, more=OTHER_RATE)]
    if selected.options.alternatives and np.isfinite(rates).all():
        return [*notes, sentence("one_rate", rate=rates[0], n=3, more=OTHER_RATE)]
    return notes


def _odd_run(
    main: LawFit, cbs: pd.DataFrame, tree: xr.DataTree, selected: Selection, stage: Stage
) -> list[str]:
    """Return one sentence about a run that is far off, and what leaving it out changes."""
    predictive = tree["posterior_predictive"].to_dataset()["steps"]
    odd = odd_run(predictive, selected.crossings)
    if odd is None:
        return []
    stage(f"sampling {main.law.name} without {odd.run}")
    try:
        left = selected.without(odd.run)
        without: pd.DataFrame | str = fit_law(main.law, left).table(left, diagnostics=False)
    except CBSDataError as error:
        without = str(error)
    return [odd_run_sentence(odd, cbs, without)]


def _tree(main: LawFit, selected: Selection) -> xr.DataTree:
    # the samplers' own attributes (when, which library) are in the settings where they matter
    groups = {name: main.tree[name].to_dataset().drop_attrs(deep=False)
              for name in ("posterior", "sample_stats", "log_likelihood")}
    prior, seed = main.prior.drop_attrs(deep=False), selected.options.sampler.random_seed
    return xr.DataTree.from_dict({
        **groups, "prior": prior, "constant_data": main.constants,
        "posterior_predictive": main.replicates(groups["posterior"], seed),
        "prior_predictive": main.replicates(prior, seed),
        "observed_data": selected.crossings, "sweep": selected.runs})


def _settings(main: LawFit, selected: Selection) -> dict[str, Any]:
    options, crossings = selected.options, selected.crossings
    priors = PRIORS if options.model == "crossing" else TRAJECTORY_PRIORS
    if options.joint and selected.n_batches < MIN_BATCH_SIZES:
        priors = PRIORS.few_batches()
    rate = learning_rate_rule(selected.runs)
    return {
        "law": selected.law.name, "law_reason": selected.choice.reason,
        "formula": selected.law.formula, "metric": selected.metric or "",
        "rule": crossings.attrs["rule"], "thresholds": crossings["threshold"].values.tolist(),
        "ci_prob": options.ci_prob, "ci_kind": "eti", **asdict(options.sampler),
        "draws": main.posterior.sizes["draw"],  # twice as many where they were taken again
        "data_digest": digest(selected.runs), "versions": versions(), "model": options.model,
        "priors": asdict(priors), "ceiling_by_group": options.ceiling_by_group,
        "learning_rate_rule": None if rate is None else rate._asdict(),
        **({"noise_priors": asdict(NOISE_PRIORS)} if options.joint else {})}
