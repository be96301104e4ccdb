"""What to know before the numbers of a fit are used.

Three lines are judged apart: whether sampling passed (exit status 3 if not), how many runs and
batch sizes reached the thresholds, and how many quantities the data identify. Then what in the
data contradicts every law, and cautions about data and law.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.contradictions import copied_curves, rising_steps
from cbsbayes.crossings.reached import Reached, reached_by
from cbsbayes.crossings.thresholds import MIN_BATCH_SIZES
from cbsbayes.inference.diagnostics import convergence
from cbsbayes.inference.loo import GOOD_K
from cbsbayes.models.laws import Law, get_law
from cbsbayes.models.variables import PROGRESS

__all__ = ["MIN_ESS", "MAX_R_HAT", "cautions", "contradictions", "identified_line", "reached_line",
           "sampler_checks", "sampling_line", "structure_caution", "verdict"]

MAX_R_HAT = 1.01  # Vehtari et al. 2021
MIN_ESS = 400
_MAX_SIGMA_RUN = 0.15
_MAX_CBS_RATIO = 2.0
_MAX_OTHER_STRUCTURE = 0.3  # weight; how often it is more was counted (`validate --average`)
_CRITICAL = ("cbs_prompts", "cbs_samples", "cbs_rollouts", "B_noise")
_TIE = 4.0  # elpd differences below this are not told apart (Sivula et al. 2020)


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
        return {"passed": True, "sentence": (
            f"Sampling passed: the chains agree (r_hat at most {worst['r_hat_max']:.3f}), carry at "
            f"least {worst['ess_bulk_min']:.0f} effective draws, and none diverged.")}
    found = []
    if not checks["r_hat_below_1_01"]:
        found.append(f"the chains do not agree: r_hat reaches {worst['r_hat_max']:.3f}, above "
                     f"{MAX_R_HAT}")
    if not checks["ess_bulk_above_400"]:
        found.append(f"too few effective draws: {worst['ess_bulk_min']:.0f}, below {MIN_ESS}")
    if not checks["no_divergences"]:
        found.append(f"{worst['divergences']:.0f} draws diverged: parts of the posterior may "
                     "be missing")
    return {"passed": False, "sentence": f"Sampling not passed: {'; '.join(found)}. Sample longer "
                                         "(--draws) or add runs."}


def reached_line(crossings: xr.Dataset, left_out: Mapping[float, str]) -> dict[str, Any]:
    """Return how many runs and batch sizes reached the thresholds.

    Parameters
    ----------
    crossings : xarray.Dataset
        Of the runs and thresholds fitted.
    left_out : mapping
        Thresholds asked for that say nothing, and why (`cbsbayes.crossings.reached`).

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
        text += (f" Fewer than {MIN_BATCH_SIZES} batch sizes reached {', '.join(few)}: any law "
                 "fits them.")
    return {"passed": not few and not left_out, "sentence": text,
            "thresholds": [one._asdict() for one in found],
            "left_out": {f"{threshold:g}": why for threshold, why in left_out.items()}}


def _counts(alike: Sequence[Reached]) -> str:
    """Return who reached thresholds that as many did."""
    names, one = ", ".join(f"{each.threshold:g}" for each in alike), alike[0]
    if (one.n_reached, one.n_batches_reached) == (one.n_runs, one.n_batches):
        return f"{names} by all {one.n_runs} runs ({one.n_batches} batch sizes)"
    return (f"{names} by {one.n_reached} of {one.n_runs} runs ({one.n_batches_reached} of "
            f"{one.n_batches} batch sizes)")


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
    text = f"Identified: {known} of {total} quantities"
    text += f" ({bounds} bounds, {total - known - bounds} not at all)." if known < total else "."
    sizes = cbs[cbs["quantity"].isin(_CRITICAL)]
    certain = set(sizes[sizes["status"] == "identified"]["threshold"])
    without = sorted(set(sizes["threshold"]) - certain)
    if without:
        text += (" No critical batch size is identified at "
                 f"{', '.join(f'{t:g}' for t in without)}: bounds are all there is.")
    return {"passed": bool(certain) and not without, "sentence": text, "n_identified": known,
            "n_bounds": bounds, "n_quantities": total}


def contradictions(
    crossings: xr.Dataset, sweep: xr.Dataset, metric: str | None
) -> list[str]:
    """Return what in the data no law can follow, a sentence each.

    Parameters
    ----------
    crossings : xarray.Dataset
        Of the runs fitted.
    sweep : xarray.Dataset
        Those runs.
    metric : str or None
        Validation set.
    """
    rising = rising_steps(crossings)
    copies = copied_curves(sweep, metric)
    found = [] if rising is None else [rising]
    if copies:
        some = ", ".join(" = ".join(runs) for runs in copies[:3])
        more = f" and {len(copies) - 3} more" if len(copies) > 3 else ""
        found.append(f"{sum(len(runs) for runs in copies)} runs share their whole curve with "
                    f"another run ({some}{more}): copies are no replicates, and the intervals "
                    "are too narrow. Leave the copies out, or give each seed its own log.")
    return found


def cautions(
    law: Law, posterior: xr.Dataset, crossings: xr.Dataset, law_table: pd.DataFrame,
    others: Mapping[str, pd.DataFrame], cbs: pd.DataFrame,
    alpha_prior: tuple[float, float, float, float],
) -> list[str]:
    """Return what limits the numbers of a fit whose sampler worked, a sentence each."""
    return [*_about_exponent(law, posterior, alpha_prior), *_about_one_axis(law, crossings),
            *_about_laws(law_table, {**others, law.name: cbs}),
            *structure_caution(law, dict(zip(law_table["law"], law_table["weight"], strict=True))),
            *_about_runs(posterior),
            *_about_identification(cbs), *_about_k_hat(law, law_table)]


def _about_exponent(
    law: Law, posterior: xr.Dataset, alpha_prior: tuple[float, float, float, float]
) -> list[str]:
    if law.alpha is not None:
        return []
    _, sd, lower, upper = alpha_prior
    draws = posterior["alpha"].values.reshape(-1)
    out = []
    if draws.std() > 0.6 * sd:
        out.append(f"The exponent is hardly identified (posterior sd {draws.std():.2f}, prior "
                   f"{sd:.2f}): the size of the CBS and of S_min leans on its prior, what "
                   "doubling buys much less.")
    if np.mean((draws < lower + 0.1) | (draws > upper - 0.1)) > 0.2:
        out.append("The exponent sits at an end of its range: the law's form is in doubt.")
    return out


def _about_one_axis(law: Law, crossings: xr.Dataset) -> list[str]:
    """Warn that along one axis the exponent is taken, not estimated."""
    if law.name != "total" or all(len(np.unique(crossings[axis].values)) > 1
                                  for axis in ("n_prompts", "n_rollouts")):
        return []
    return ["One axis cannot tell noise scale from exponent: this law takes exponent 1. With a "
            "normalised update at one learning rate (exponent near 1/2) its intervals for what "
            "doubling buys are too narrow; the power law stands beside it."]


def _about_laws(law_table: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Warn where alpha = 1 and alpha = 1/2 predict alike but disagree on the CBS."""
    scores = law_table.set_index("law")["elpd"] if len(law_table) else pd.Series(dtype=float)
    ending = "_plain" if "two_axis_plain" in tables else ""
    pair = [name + ending for name in ("two_axis", "two_axis_sqrt")]
    known = all(name in tables and name in scores for name in pair)
    if not known or abs(scores[pair[0]] - scores[pair[1]]) > _TIE:
        return []
    wanted = "quantity in ('cbs_prompts', 'cbs_rollouts') and status == 'identified'"
    one, half = (tables[name].query(wanted).set_index(["quantity", "threshold", "at"])["median"]
                 for name in pair)
    ratio = (half / one).dropna()
    largest = max(ratio.max(), 1 / ratio.min()) if len(ratio) else 1.0
    if largest < _MAX_CBS_RATIO:
        return []
    return ["The laws with exponent 1 and 1/2 predict left-out runs alike, yet their critical "
            f"batch sizes differ by up to {largest:.1f} times: quote the CBS only together with "
            "its law."]


def structure_caution(law: Law, weights: Mapping[str, float]) -> list[str]:
    """Return a sentence where laws that count batches otherwise hold some of the weight.

    Parameters
    ----------
    law : Law
        The law fitted.
    weights : mapping
        Of all laws fitted to the runs (`cbsbayes.posterior.averaging.law_weights`).

    Returns
    -------
    list of str
        Empty where none do: one law's intervals then hold what all would say, nearly.
    """
    other = sum(weight for name, weight in weights.items()
                if get_law(name).two_axis != law.two_axis)
    if other <= _MAX_OTHER_STRUCTURE:
        return []
    claim = ("Only the total batch may count: the law that knows nothing else holds" if law.two_axis
             else "Prompts and rollouts may count apart: laws of two axes hold")
    return [f"{claim} {other:.2f} of the weight by how left-out runs are predicted. S_min, noise "
            f"scales and exponent of {law.name} can then be off by more than their intervals say; "
            "averaged.csv holds that doubt."]


def _about_runs(posterior: xr.Dataset) -> list[str]:
    sigma = float(posterior["sigma_run"].median())
    if sigma <= _MAX_SIGMA_RUN:
        return []
    return [f"Runs differ by {sigma:.2f} in log S at one batch, more than seeds usually do "
            f"({_MAX_SIGMA_RUN}): a setting that differs between runs, or a wrong law."]


def _about_identification(cbs: pd.DataFrame) -> list[str]:
    scales = cbs[cbs["quantity"].isin(["B_noise", "B_prompt", "B_rollout"])]
    loose = scales[scales["status"] != "identified"]
    if loose.empty:
        return []
    names = ", ".join(sorted(loose["quantity"].unique()))
    return [f"{names} not identified at {len(loose)} of {len(scales)} entries: the batches tried "
            "leave only a bound, or nothing; the table says which."]


def _about_k_hat(law: Law, law_table: pd.DataFrame) -> list[str]:
    row = law_table[law_table["law"] == law.name]
    if row.empty or int(row["n_bad_k"].iloc[0]) == 0:
        return []
    return [f"{int(row['n_bad_k'].iloc[0])} run(s) carry so much weight that leaving them out by "
            f"reweighting is not reliable (Pareto k above {GOOD_K}); the law comparison is "
            "approximate."]
