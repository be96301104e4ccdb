"""What else to know before the numbers of a fit are used, a sentence each.

What in the data no law can follow; where the law, its exponent or one run decides the answer; what
measured noise, ceilings and the other model say of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.contradictions import copied_curves, rising_steps
from cbsbayes.inference.loo import GOOD_K
from cbsbayes.models.laws import Law, get_law
from cbsbayes.models.parameters import SATURATION
from cbsbayes.posterior import sentence
from cbsbayes.posterior.ceilings import OPTION
from cbsbayes.posterior.tidy import interval

__all__ = ["CROSS_CHECK", "LARGE_OFFSET", "OddRun", "cautions", "ceiling_sentences",
           "contradictions", "disagreements", "noise_cautions", "odd_run", "odd_run_sentence",
           "structure_caution"]

CROSS_CHECK = "crossing model"
LARGE_OFFSET = 1.0  # log of measured over fitted noise; beyond it curves and gradients disagree
_MAX_SIGMA_RUN = 0.15
_MAX_CBS_RATIO = 2.0
_MAX_OTHER_STRUCTURE = 0.3  # weight; how often it is more was counted (`validate --average`)
_TIE = 4.0  # elpd differences below this are not told apart (Sivula et al. 2020)
_KEYS = ["quantity", "at", "threshold"]
_COMPARED = ("gain_total", "gain_prompts", "gain_rollouts", "batch_at_gain", "cbs_prompts",
             "cbs_rollouts", "cbs_samples", "steps")
_APART = 0.1  # share of the numbers compared that may be apart without a word
_FACTOR = 3.0  # in S; runs of one batch seldom differ by more than a factor of 1.3
_SPREADS = 5.0  # robust standard deviations of the other runs
_NORMAL = 1.4826  # standard deviation over median absolute deviation of a normal distribution
_MAIN = ("cbs_prompts", "cbs_samples", "cbs_rollouts", "S_min")


def contradictions(
    crossings: xr.Dataset, sweep: xr.Dataset, metric: str | None
) -> list[str]:
    """Return what in the data no law can follow.

    Parameters
    ----------
    crossings : xarray.Dataset
        Of the runs fitted.
    sweep : xarray.Dataset
        Those runs.
    metric : str or None
        Validation set.
    """
    found = [rising_steps(crossings) or ""]
    if copies := copied_curves(sweep, metric):
        some = ", ".join(" = ".join(runs) for runs in copies[:3])
        some += f" and {len(copies) - 3} more" if len(copies) > 3 else ""
        found.append(sentence("copied_curves", n=sum(map(len, copies)), some=some))
    return list(filter(None, found))


def cautions(
    law: Law, posterior: xr.Dataset, crossings: xr.Dataset, law_table: pd.DataFrame,
    others: Mapping[str, pd.DataFrame], cbs: pd.DataFrame,
    alpha_prior: tuple[float, float, float, float],
) -> list[str]:
    """Return what limits the numbers of a fit whose sampler worked.

    Parameters
    ----------
    law : Law
        The law fitted.
    posterior, crossings : xarray.Dataset
        Its draws, and what they were fitted to.
    law_table : pandas.DataFrame
        Of `cbsbayes.inference.loo.compare_laws`.
    others : mapping
        Tables like ``cbs.csv`` of the alternative laws, by law name.
    cbs : pandas.DataFrame
        The law's own.
    alpha_prior : tuple
        Mean, standard deviation and ends of the exponent's prior.
    """
    weights = dict(zip(law_table["law"], law_table["weight"], strict=True))
    return [*_about_exponent(law, posterior, alpha_prior), *_about_one_axis(law, crossings),
            *_about_laws(law_table, {**others, law.name: cbs}), *structure_caution(law, weights),
            *_about_runs(law, posterior, law_table), *_about_identification(cbs)]


def _about_exponent(
    law: Law, posterior: xr.Dataset, alpha_prior: tuple[float, float, float, float]
) -> Iterator[str]:
    if law.alpha is not None:
        return
    _, sd, lower, upper = alpha_prior
    draws = posterior["alpha"].values
    if draws.std() > 0.6 * sd:
        yield sentence("exponent_from_prior", sd=draws.std(), prior=sd)
    if np.mean((draws < lower + 0.1) | (draws > upper - 0.1)) > 0.2:
        yield sentence("exponent_at_end")


def _about_one_axis(law: Law, crossings: xr.Dataset) -> Iterator[str]:
    """Warn that along one axis the exponent is taken, not estimated."""
    if law.name == "total" and any(len(np.unique(crossings[axis].values)) < 2
                                   for axis in ("n_prompts", "n_rollouts")):
        yield sentence("exponent_taken")


def _about_laws(law_table: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    """Warn where alpha = 1 and alpha = 1/2 predict alike but disagree on the CBS."""
    scores = law_table.set_index("law")["elpd"]
    ending = "_plain" if "two_axis_plain" in tables else ""
    pair = [name + ending for name in ("two_axis", "two_axis_sqrt")]
    known = all(name in tables and name in scores for name in pair)
    if not known or abs(scores[pair[0]] - scores[pair[1]]) > _TIE:
        return
    wanted = "quantity in ('cbs_prompts', 'cbs_rollouts') and status == 'identified'"
    one, half = (tables[name].query(wanted).set_index(_KEYS)["median"] for name in pair)
    ratio = np.exp(np.nanmax(np.abs(np.log((half / one).to_numpy())), initial=0.0))
    if ratio >= _MAX_CBS_RATIO:
        yield sentence("exponents_alike", ratio=ratio)


def structure_caution(law: Law, weights: Mapping[str, float]) -> list[str]:
    """Return a sentence where laws that count batches otherwise hold some of the weight.

    Parameters
    ----------
    law : Law
        The law fitted.
    weights : mapping
        Of all laws fitted to the runs (`cbsbayes.inference.loo.law_weights`).

    Returns
    -------
    list of str
        Empty where none do: one law's intervals then hold what all would say, nearly.
    """
    other = sum(weight for name, weight in weights.items()
                if get_law(name).two_axis != law.two_axis)
    if other <= _MAX_OTHER_STRUCTURE:
        return []
    return [sentence("total_may_do" if law.two_axis else "axes_may_count", weight=other,
                     law=law.name)]


def _about_runs(law: Law, posterior: xr.Dataset, law_table: pd.DataFrame) -> Iterator[str]:
    sigma = float(posterior["sigma_run"].median())
    if sigma > _MAX_SIGMA_RUN:
        yield sentence("runs_differ", sigma=sigma, usual=_MAX_SIGMA_RUN)
    if n_bad := int(law_table.loc[law_table["law"] == law.name, "n_bad_k"].sum()):
        yield sentence("heavy_runs", n=n_bad, k=GOOD_K)


def _about_identification(cbs: pd.DataFrame) -> Iterator[str]:
    scales = cbs[cbs["quantity"].isin(["B_noise", "B_prompt", "B_rollout"])]
    loose = scales[scales["status"] != "identified"]
    if len(loose):
        yield sentence("scales_loose", names=", ".join(sorted(loose["quantity"].unique())),
                       n=len(loose), total=len(scales))


def noise_cautions(posterior: xr.Dataset, constants: xr.Dataset, n_batches: int) -> list[str]:
    """Return what to know of a fit that took measured noise as data; nothing of others.

    Parameters
    ----------
    posterior : xarray.Dataset
        With ``noise_offset``, the log of measured over fitted noise, where there was noise.
    constants : xarray.Dataset
        What the model was given besides crossings: how many probes, and whether they are resolved.
    n_batches : int
        Batches fitted.
    """
    if "noise_offset" not in posterior:
        return []
    draws = posterior["noise_offset"].values.ravel()
    (low, high), delta = interval(draws, 0.9), float(np.median(draws))
    out = [sentence("noise_disagrees" if abs(delta) > LARGE_OFFSET else "noise_offset",
                    delta=delta, low=low, high=high, limit=LARGE_OFFSET)]
    resolved = constants["noise_resolved"].values[constants["noise_probes"].values > 0] == 1
    if not resolved.all():
        out.append(sentence("noise_unresolved", n=np.sum(~resolved), total=len(resolved)))
    if n_batches < 3:
        out.append(sentence("noise_few_batches", n=n_batches))
    return out


def ceiling_sentences(cbs: pd.DataFrame) -> list[str]:
    """Return what a fit with a ceiling for every group size says of them.

    Parameters
    ----------
    cbs : pandas.DataFrame
        Its table of quantities: rows ``ceiling_loss``, ``reach`` and ``ceiling``.
    """
    texts = {(row["quantity"], row["at"]): _estimate(row, digits=".2f")
             for row in cbs.to_dict("records")}
    groups = [sentence("ceiling_of_group", share=text, n=at.partition("=")[2],
                       accuracy=texts["ceiling", at])
              for (name, at), text in texts.items() if name == "reach"]
    notes = [sentence("ceilings", option=OPTION, loss=texts[SATURATION, ""],
                      groups="; ".join(groups)), sentence("ceilings_read")]
    unreached = cbs.loc[(cbs["quantity"] == "steps") & cbs["ci_upper"].isna(), "threshold"]
    if len(unreached):
        notes.append(sentence("ceilings_unreached", levels=", ".join(
            f"{t:g}" for t in sorted(set(unreached)))))
    return notes


def disagreements(cbs: pd.DataFrame, check: pd.DataFrame) -> list[str]:
    """Return a sentence where the crossing model's intervals lie apart from the fit's too often.

    The two models share the law and nothing else of importance, neither curve nor noise.

    Parameters
    ----------
    cbs, check : pandas.DataFrame
        Tables like ``cbs.csv`` of the same law on the same runs, `check` by the crossing model.
    """
    both = cbs.merge(check, on=_KEYS, suffixes=("", "_check"))
    both = both[both["quantity"].isin(_COMPARED)].dropna(
        subset=["ci_lower", "ci_upper", "ci_lower_check", "ci_upper_check"])
    apart = ((both["ci_lower"] > both["ci_upper_check"])
             | (both["ci_upper"] < both["ci_lower_check"]))
    if apart.sum() <= _APART * len(both):
        return []
    names = ", ".join(dict.fromkeys(both.loc[apart, "quantity"]))
    return [sentence("models_disagree", n=int(apart.sum()), total=len(both), names=names)]


class OddRun(NamedTuple):
    """A run, and its S over that of the law fitted to all.

    Attributes
    ----------
    run : str
        Its name.
    factor : float
        Posterior median.
    replicates : int
        Other runs at its batch.
    """

    run: str
    factor: float
    replicates: int


def odd_run(predictive: xr.DataArray, crossings: xr.Dataset) -> OddRun | None:
    """Return the run farthest off, where it is off by so much that a mistake is likely.

    Parameters
    ----------
    predictive : xarray.DataArray
        Replicated S of every run, updates, dims (chain, draw, run, threshold).
    crossings : xarray.Dataset
        Of the runs fitted.
    """
    off = _off(predictive.median(("chain", "draw")), crossings)
    values = off - np.median(off)
    batch = np.column_stack([crossings[name].values
                             for name in ("n_prompts", "n_rollouts", "total_batch")])
    alike = (batch[:, None] == batch).all(axis=2) & ~np.eye(len(batch), dtype=bool)
    away = np.array([value - (np.median(values[others]) if others.any() else 0.0)
                     for value, others in zip(values, alike, strict=True)])
    # of two runs at one batch, the one nearer the law is not the odd one
    size = np.minimum(np.abs(away), np.abs(values))
    worst = int(size.argmax())
    spread = _NORMAL * float(np.median(np.abs(np.delete(values, worst))))
    if size[worst] < max(np.log(_FACTOR), _SPREADS * spread):
        return None
    return OddRun(str(crossings["run"].values[worst]), float(np.exp(values[worst])),
                  int(alike[worst].sum()))


def _off(steps: xr.DataArray, crossings: xr.Dataset) -> np.ndarray:
    """Return how far each run's intervals lie from the law, log updates, over its thresholds."""
    expected = np.log(steps.sel(run=crossings["run"], threshold=crossings["threshold"]))
    with np.errstate(divide="ignore"):
        lower, upper = np.log(crossings["lower"]), np.log(crossings["upper"])
    off = (lower - expected).clip(min=0.0) + (upper - expected).clip(max=0.0)
    return off.median("threshold").fillna(0.0).transpose("run").values


def odd_run_sentence(odd: OddRun, before: pd.DataFrame, after: pd.DataFrame | str) -> str:
    """Return what is odd and what leaving the run out changes.

    Parameters
    ----------
    odd : OddRun
        The run.
    before, after : pandas.DataFrame
        Tables like ``cbs.csv`` with and without it; a text where no fit is left without it.
    """
    others = f" while the others at its batch ({odd.replicates}) did not" if odd.replicates else ""
    factor = f"{odd.factor:.1f} times" if odd.factor > 1 else f"1/{1 / odd.factor:.1f} of"
    change = (sentence("odd_run_no_fit", why=after) if isinstance(after, str)
              else _change(before, after))
    return sentence("odd_run", run=odd.run, factor=factor, others=others, change=change)


def _change(before: pd.DataFrame, after: pd.DataFrame) -> str:
    both = before.merge(after, on=_KEYS, suffixes=("", "_after"))
    first = next(name for name in _MAIN if (both["quantity"] == name).any())
    rows = both[both["quantity"] == first].sort_values("threshold", kind="stable")
    row = rows.to_dict("records")[len(rows) // 2]
    return sentence("odd_run_change", quantity=first, at=f" at {row['at']}" if row["at"] else "",
                    threshold=row["threshold"], before=_estimate(row),
                    after=_estimate(row, "_after"), unit=row["unit"])


def _estimate(row: Mapping[Any, Any], ending: str = "", digits: str = ".3g") -> str:
    """Return a row's number and its interval, or the bound that the runs settle."""
    median, lower, upper = (format(row[f"{name}{ending}"], digits)
                            for name in ("median", "ci_lower", "ci_upper"))
    return {"identified": f"{median} ({lower} to {upper})", "upper_bound": f"below {upper}",
            "lower_bound": f"above {lower}"}.get(row[f"status{ending}"], "not identified")
