"""One paragraph for a paper: what was fitted to what, and the numbers with their definitions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cbsbayes.report import numbers
from cbsbayes.report.estimates import Estimate, at_words, estimate, parse_at, plain
from cbsbayes.report.headline import chosen_ats, find, usual_batch
from cbsbayes.report.latex import latex_formula, latex_text
from cbsbayes.report.overhead import usual_at
from cbsbayes.report.words import formula, main_threshold

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["data_sentence", "law_sentence", "paper_latex", "paper_paragraph", "software_sentence"]

_MODELS = {
    "crossing": "the intervals between evaluations in which each run's accuracy crosses the "
                "thresholds, runs that end before a threshold counting as not yet there",
    "trajectory": "the whole validation curves, thresholds being read off afterwards",
}
_TWICE = "the critical batch size, at which S is twice its limit S_min for large batches,"
_CRITICAL = {"cbs_prompts": (_TWICE, "prompts"), "cbs_samples": (_TWICE, "samples"),
             "cbs_rollouts": ("the group size at which S is twice what unlimited rollouts would "
                              "need", "rollouts")}  # the first that a fit has
_REFERENCES = (
    "McCandlish et al. (2018): An Empirical Model of Large-Batch Training, arXiv:1812.06162",
    "Zhang et al. (2024): How Does Critical Batch Size Scale in Pre-training?, arXiv:2410.21676")


def paper_paragraph(fit: Fit, overhead: pd.DataFrame | None = None) -> str:
    """Return the paragraph as plain text.

    Parameters
    ----------
    fit : Fit
        Its tables, settings and sweep are told of.
    overhead : DataFrame, optional
        Other definitions of a critical batch (``overhead.csv``).
    """
    parts = [data_sentence(fit), law_sentence(fit), *_results(fit), *_others(fit, overhead),
             software_sentence(fit)]
    if not fit.verdict["trusted"]:
        parts.insert(0, "The fit did not pass its checks; the numbers are provisional.")
    return " ".join(part for part in parts if part)


def paper_latex(fit: Fit, overhead: pd.DataFrame | None = None) -> str:
    """Return the paragraph as LaTeX, with the works it cites as comments below."""
    cited = "".join(f"% {latex_text(line)}\n" for line in _REFERENCES)
    told = paper_paragraph(fit, overhead).split(formula(fit.law))
    text = latex_formula(fit.law).join(latex_text(part) for part in told)
    return f"{text}\n\n% works cited:\n{cited}"


def data_sentence(fit: Fit) -> str:
    """Return which runs were fitted."""
    used = fit.runs.loc[fit.runs["used"].astype(bool)]
    kind = "simulated runs" if fit.sweep.attrs.get("simulated") else "runs"
    whom = "" if fit.group in ("", "all runs") else f" ({plain(fit.group)})"
    axes = [_range(used, axis, unit) for axis, unit in (
        ("n_prompts", "prompts per update"), ("n_rollouts", "rollouts per prompt"))]
    spans = [span for span in axes if span] or [_range(used, "total_batch", "samples per update")]
    seeds = used.loc[used["seed"] >= 0, "seed"].nunique() if "seed" in used else 0
    replicas = f" and {seeds} seeds" if seeds > 1 else ""
    return (f"We estimated how the number of optimizer updates S to a target depends on the batch "
            f"of one update from {len(used)} of {len(fit.runs)} {kind}{whom} with "
            f"{', '.join(spans)}{replicas}.")


def _range(runs: pd.DataFrame, axis: str, unit: str) -> str:
    known = runs.loc[runs[axis] > 0, axis]
    if not len(known):
        return ""
    low, high = numbers.count(float(known.min())), numbers.count(float(known.max()))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def law_sentence(fit: Fit) -> str:
    """Return which model and law were fitted to what."""
    alpha = "" if fit.law.alpha is not None else ", the exponent α estimated with the rest"
    model = _MODELS.get(str(fit.settings.get("model", "crossing")), _MODELS["crossing"])
    levels = [plain(float(t)) for t in sorted(fit.thresholds)]
    listed = levels[0] if len(levels) == 1 else f"{', '.join(levels[:-1])} and {levels[-1]}"
    many = "threshold" if len(levels) == 1 else "thresholds"
    return (f"A hierarchical Bayesian model with run effects was fitted to {model}, under the law "
            f"{formula(fit.law)}{alpha}{_ceilings(fit)}, jointly at the {many} "
            f"{listed}{_validation(fit)}.")


def _ceilings(fit: Fit) -> str:
    """Return how the group size decides how high training gets, where that was fitted."""
    if not fit.settings.get("ceiling_by_group", False):
        return ""
    return (", groups of G gaining at most exp(−λ/G) of what groups without end gain, which S_min "
            f"is for (λ {find(fit.cbs, 'ceiling_loss', main_threshold(fit))})")


def _validation(fit: Fit) -> str:
    metric = str(fit.settings.get("metric") or "")
    items = ""
    if metric and "n_items" in fit.sweep and "metric" in fit.sweep["n_items"].dims:
        held = fit.sweep["n_items"].sel(metric=metric).item()
        items = f", {numbers.count(float(held))} validation items" if held > 0 else ""
    return f" of {plain(metric)}{items}" if metric else ""


def _results(fit: Fit) -> Iterator[str]:
    """Yield what doubling buys, then the critical batch size with its definition."""
    threshold, usual = main_threshold(fit), usual_batch(fit.runs)
    percent = numbers.percent(float(fit.settings["ci_prob"]))
    lead = (f"At the threshold {plain(threshold)} (posterior medians with equal-tailed "
            f"{percent} credible intervals, for a typical run), ")
    for name in ("gain_prompts", "gain_rollouts", "gain_total"):
        for at in chosen_ats(fit.cbs, name, usual, limit=1):
            told = _gain(name, at, find(fit.cbs, name, threshold, at))
            if told:
                yield f"{lead}{told}" if lead else f"{told[0].upper()}{told[1:]}"
                lead = ""
    main = [name for name in _CRITICAL if name in set(fit.cbs["quantity"])]
    for name in main[:1]:
        words, unit = _CRITICAL[name]
        if fit.settings.get("ceiling_by_group", False):
            words = words.replace("its limit S_min for large batches", "its limit for many prompts")
        for at in chosen_ats(fit.cbs, name, usual, limit=1):
            size = _size(find(fit.cbs, name, threshold, at), unit)
            told = f"{words} is {size}{_place(at)}."
            yield f"{lead}{told}" if lead else f"{told[0].upper()}{told[1:]}"
            lead = ""
    alpha = find(fit.cbs, "alpha", threshold)
    if alpha is not None and fit.law.alpha is None:
        yield f"The exponent α is {alpha}."


def _gain(name: str, at: str, gain: Estimate | None) -> str:
    if gain is None or not gain.identified:
        return ""
    fixed = parse_at(at)
    axis = {"gain_prompts": "n_prompts", "gain_rollouts": "n_rollouts"}.get(name, "total_batch")
    what = {"n_prompts": "prompts per update", "n_rollouts": "rollouts per prompt",
            "total_batch": "samples per update"}[axis]
    start = float(fixed.pop(axis))
    held = ",".join(f"{key}={value}" for key, value in fixed.items())
    return (f"going from {numbers.count(start)} to {numbers.count(2 * start)} {what}"
            f"{_place(held)} multiplies S by {gain}.")


def _place(at: str) -> str:
    return f" at {at_words(at)}" if at else ""


def _size(told: Estimate | None, unit: str) -> str:
    if told is None or told.status == "not_identified":
        return "not identified by these batches"
    return f"{told.value} {unit} ({told.interval})" if told.identified else f"{told.value} {unit}"


def _others(fit: Fit, overhead: pd.DataFrame | None) -> Iterator[str]:
    """Yield the same posterior under two other definitions, and under McCandlish's exponent."""
    yield _exponent_one(fit)
    if overhead is None or overhead.empty:
        return
    at, threshold = usual_at(overhead, fit), main_threshold(fit)
    rows = overhead[(overhead["at"].map(plain) == at)
                    & np.isclose(overhead["threshold"], threshold)].set_index("definition")
    for name, words in (
            ("linear_20", "The batch whose updates lie 20 % above linear scaling from the "
             "smallest batch tried, {anchor} {unit} (Zhang et al. 2024), is "),
            ("doubling_10", "Doubling the batch still saves 10 % of the updates up to ")):
        if name in rows.index:
            row = rows.loc[name]
            told = estimate({"median": row["median"], "ci_lower": row["ci_lower"],
                             "ci_upper": row["ci_upper"], "status": row["status"]})
            start = words.format(anchor=plain(row["anchor"]), unit=row["unit"])
            size = f"{_size(told, str(row['unit']))}{_place(at)}"
            yield f"{start}{size}{_beyond(str(row['tried']))}."


def _beyond(tried: str) -> str:
    return "" if tried in ("inside", "") else ", beyond the batches tried"


def _exponent_one(fit: Fit) -> str:
    if fit.law.alpha == 1.0:
        return "This is the form of McCandlish et al. (2018)."
    for name in ("two_axis", "two_axis_plain", "total"):
        table = fit.others.get(name)
        if table is None:
            continue
        for at in chosen_ats(table, "cbs_prompts", usual_batch(fit.runs), limit=1):
            told = find(table, "cbs_prompts", main_threshold(fit), at)
            return (f"With α fixed at 1, the form of McCandlish et al. (2018), this critical "
                    f"batch size is {_size(told, 'prompts')}{_place(at)}.")
    return ""


def software_sentence(fit: Fit) -> str:
    """Return the software, the sampler's checks and the data's digest."""
    settings, found = fit.settings, fit.verdict.get("diagnostics", {})
    versions = settings.get("versions", {})
    named = [f"cbsbayes {versions['cbsbayes']}"] if "cbsbayes" in versions else ["cbsbayes"]
    named += [f"PyMC {versions['pymc']}"] if "pymc" in versions else []
    checks = ""
    if {"r_hat_max", "ess_bulk_min"} <= found.keys():
        checks = (f", largest r_hat {numbers.number(float(found['r_hat_max']), 3)}, smallest "
                  f"effective sample size {numbers.number(float(found['ess_bulk_min']), 0)}")
    digest = str(settings.get("data_digest", ""))
    data = f" Data digest {digest[:12]}." if digest else ""
    return (f"{' with '.join(named)}; {settings['chains']} chains of "
            f"{numbers.count(int(settings['draws']))} draws{checks}.{data}")
