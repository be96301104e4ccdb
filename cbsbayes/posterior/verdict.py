"""What to know before the numbers of a fit are used.

Three lines are judged apart: whether sampling passed (exit status 3 if not), how many runs and
batch sizes reached the thresholds, and how many quantities the data identify. What contradicts
every law, and cautions, are in `cbsbayes.posterior.cautions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.thresholds import MIN_BATCH_SIZES, Reached, reached_by
from cbsbayes.inference.nuts import MAX_R_HAT, MIN_ESS, convergence
from cbsbayes.models.parameters import PROGRESS
from cbsbayes.posterior import sentence

__all__ = ["identified_line", "reached_line", "sampler_checks", "sampling_line", "verdict"]

_CRITICAL = ("cbs_prompts", "cbs_samples", "cbs_rollouts", "B_noise")


def sampler_checks(tree: xr.DataTree) -> tuple[dict[str, bool], dict[str, float]]:
    """Return which checks of the sampler passed, and the worst numbers behind them.

    Parameters
    ----------
    tree : xarray.DataTree
        Groups ``posterior`` and ``sample_stats``. Noise and curves along progress are left out:
        they follow from what is checked.
    """
    columns = [variable.transpose("chain", "draw", ...).values.reshape(
        variable.sizes["chain"], variable.sizes["draw"], -1)
        for variable in tree["posterior"].data_vars.values()
        if not {"node", PROGRESS} & set(variable.dims)]
    found = convergence(np.concatenate(columns, axis=2))
    divergences = int(tree["sample_stats"]["diverging"].sum())
    worst = {"r_hat_max": float(found.r_hat.max()),
             "ess_bulk_min": float(found.ess_bulk.min()),
             "ess_tail_min": float(found.ess_tail.min()), "divergences": float(divergences)}
    checks = {"r_hat_below_1_01": worst["r_hat_max"] <= MAX_R_HAT,
              "ess_bulk_above_400": worst["ess_bulk_min"] >= MIN_ESS,
              "no_divergences": divergences == 0}
    return checks, worst


def verdict(
    checks: Mapping[str, bool], worst: Mapping[str, float], reached: Mapping[str, Any],
    identified: Mapping[str, Any], contradictions: Sequence[str] = (), notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the verdict: three lines that are judged apart, contradictions, and notes.

    Parameters
    ----------
    checks, worst : mapping
        Of `sampler_checks`.
    reached, identified : mapping
        Lines of `reached_line` and `identified_line`.
    contradictions : sequence of str
        What in the data no law can follow.
    notes : sequence of str
        What else limits the numbers.

    Returns
    -------
    dict
        ``level`` (``good`` where all three lines are and nothing contradicts the law, ``limited``,
        ``failed`` where sampling is: exit status 3), ``title``, ``sampling``, ``reached``,
        ``identified`` (each ``passed``, ``sentence`` and what it counted), ``contradictions``,
        ``sentences`` (all of them in order), ``checks_made`` and ``diagnostics``.
    """
    sampling = sampling_line(checks, worst)
    limits = [text for text, met in (
        ("the data contradict the law", bool(contradictions)),
        ("not every threshold was reached by enough runs", not reached["passed"]),
        ("bounds are all there is at some thresholds", not identified["passed"])) if met]
    level = "failed" if not sampling["passed"] else "limited" if limits else "good"
    title = "Sampling checks passed" if sampling["passed"] else "Sampling checks not passed"
    title += f", but {' and '.join(limits)}" if level == "limited" else ""
    sentences = [sampling["sentence"], reached["sentence"], identified["sentence"],
                 *contradictions, *notes]
    return {"level": level, "title": title, "sampling": sampling,
            "reached": dict(reached), "identified": dict(identified),
            "contradictions": list(contradictions), "sentences": sentences,
            "checks_made": dict(checks), "diagnostics": dict(worst)}


def sampling_line(checks: Mapping[str, bool], worst: Mapping[str, float]) -> dict[str, Any]:
    """Return whether the sampler's checks passed, ``passed`` and ``sentence``."""
    if all(checks.values()):
        return {"passed": True, "sentence": sentence("sampling_passed", **worst)}
    found = [text for text, passed in (
        (f"the chains do not agree: r_hat reaches {worst['r_hat_max']:.3f}, above {MAX_R_HAT}",
         checks["r_hat_below_1_01"]),
        (f"too few effective draws: {worst['ess_bulk_min']:.0f}, below {MIN_ESS}",
         checks["ess_bulk_above_400"]),
        (f"{worst['divergences']:.0f} draws diverged: parts of the posterior may be missing",
         checks["no_divergences"])) if not passed]
    return {"passed": False, "sentence": sentence("sampling_failed", found="; ".join(found))}


def reached_line(crossings: xr.Dataset, left_out: Mapping[float, str]) -> dict[str, Any]:
    """Return how many runs and batch sizes reached the thresholds.

    Parameters
    ----------
    crossings : xarray.Dataset
        Of the runs and thresholds fitted.
    left_out : mapping
        Thresholds asked for that say nothing, and why (`cbsbayes.crossings.thresholds`).

    Returns
    -------
    dict
        ``passed`` (three batch sizes and more reached every threshold asked for), ``sentence``,
        ``thresholds`` (a mapping each, `Reached`) and ``left_out`` (threshold to reason).
    """
    found = reached_by(crossings)
    alike = groupby(found, key=lambda one: one[1:])
    text = f"Reached: {'; '.join(_counts(list(same)) for _, same in alike)}."
    for threshold, why in left_out.items():
        text += f" Threshold {threshold:g} is left out: {why}."
    few = [f"{one.threshold:g}" for one in found if one.n_batches_reached < MIN_BATCH_SIZES]
    if few:
        text += sentence("reached_by_few", least=MIN_BATCH_SIZES, names=", ".join(few))
    return {"passed": not few and not left_out, "sentence": text,
            "thresholds": [one._asdict() for one in found],
            "left_out": {f"{threshold:g}": why for threshold, why in left_out.items()}}


def _counts(alike: Sequence[Reached]) -> str:
    """Return who reached thresholds that as many did."""
    names, one = ", ".join(f"{each.threshold:g}" for each in alike), alike[0]
    every = (one.n_reached, one.n_batches_reached) == (one.n_runs, one.n_batches)
    return sentence("reached_all" if every else "reached_some", names=names, **one._asdict())


def identified_line(cbs: pd.DataFrame) -> dict[str, Any]:
    """Return how many quantities the data identify.

    Parameters
    ----------
    cbs : pandas.DataFrame
        The table of ``cbs.csv``.

    Returns
    -------
    dict
        ``passed`` (every threshold has a critical batch size with two ends), ``sentence``,
        ``n_identified``, ``n_bounds`` and ``n_quantities`` (rows of the table).
    """
    status = cbs["status"]
    known, total = int((status == "identified").sum()), len(cbs)
    bounds = int(status.isin(("upper_bound", "lower_bound")).sum())
    text = sentence("identified" if known < total else "identified_all", known=known, total=total,
                    bounds=bounds, none=total - known - bounds)
    sizes = cbs[cbs["quantity"].isin(_CRITICAL)]
    certain = set(sizes[sizes["status"] == "identified"]["threshold"])
    without = sorted(set(sizes["threshold"]) - certain)
    if without:
        text += sentence("bounds_only", names=", ".join(f"{t:g}" for t in without))
    return {"passed": bool(certain) and not without, "sentence": text, "n_identified": known,
            "n_bounds": bounds, "n_quantities": total}
