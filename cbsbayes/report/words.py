"""The sentences of the page: question, answer, verdicts; written from the tables alone.

The answer is one paragraph that can be pasted into a paper. It gives first what leans least
on the law (what doubling the batch buys), then the critical batch size with its law named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cbsbayes.report import numbers
from cbsbayes.report.estimates import (
    Estimate,
    at_words,
    compared_estimate,
    parse_at,
    plain,
)
from cbsbayes.report.headline import chosen_ats, find, usual_batch

if TYPE_CHECKING:
    from cbsbayes.models.laws import Law
    from cbsbayes.posterior.fit import Fit

__all__ = ["answer", "comparison_sentences", "credible", "formula", "headline", "left_out_sentence",
           "main_threshold", "mccandlish_sentence", "question", "verdict_title"]

_MAIN_SCALES = ("cbs_prompts", "cbs_samples", "B_noise")  # the first one the table has
_MCCANDLISH = ("two_axis", "two_axis_plain", "total")  # the laws with exponent 1


def question(fit: Fit) -> str:
    """Return the question the page answers."""
    whom = "these runs" if fit.group in ("", "all runs") else plain(fit.group)
    return f"How large a batch still pays for {whom}, and how sure are we?"


def verdict_title(fit: Fit) -> str:
    """Return the verdict in one line."""
    if fit.verdict["trusted"]:
        return "This fit can be trusted as far as its checks go"
    return "This fit is not to be trusted yet"


def credible(fit: Fit) -> str:
    """Return what the intervals are, e.g. ``90 % credible interval, equal-tailed``."""
    kinds = {"eti": "equal-tailed", "hdi": "highest density"}
    first = fit.cbs.iloc[0]
    kind = kinds.get(plain(first["ci_kind"]), plain(first["ci_kind"]))
    return f"{numbers.percent(float(first['ci_prob']))} credible interval, {kind}"


def main_threshold(fit: Fit) -> float:
    """Return the threshold the answer is given for: the middle one, the upper of two."""
    ordered = sorted(float(t) for t in fit.thresholds)
    return ordered[len(ordered) // 2]


def _target(fit: Fit, threshold: float) -> str:
    metric = plain(fit.sweep.attrs.get("metric", ""))
    word = "a target" if fit.sweep.attrs.get("direction") == "decreasing" else "a target accuracy"
    return f"{word} of {plain(threshold)}" + (f" on {metric}" if metric else "")


def answer(fit: Fit) -> str:
    """Return the answer as one paragraph: gains first, then the CBS, its law, the data."""
    threshold = main_threshold(fit)
    scales = _scale_sentences(fit, threshold)
    parts = [*_gain_sentences(fit, threshold), *scales[:1], mccandlish_sentence(fit),
             *scales[1:], _data_sentence(fit)]
    if not fit.verdict["trusted"]:
        parts.insert(0, "The fit did not pass its checks, so what follows is provisional.")
    return " ".join(part for part in parts if part)


def headline(fit: Fit) -> str:
    """Return the shortest answer: the critical batch size at the main threshold."""
    sentences = _scale_sentences(fit, main_threshold(fit))
    return sentences[0] if sentences else "No noise scale was estimated."


def _gain_sentences(fit: Fit, threshold: float) -> list[str]:
    usual = usual_batch(fit.runs)
    told: list[str] = []
    for quantity in ("gain_prompts", "gain_rollouts"):
        for at in chosen_ats(fit.cbs, quantity, usual, limit=1):
            gain = find(fit.cbs, quantity, threshold, at)
            if gain is not None:
                told.append(_gain_sentence(fit, quantity, threshold, at, gain, first=not told))
    return told


def _gain_sentence(
    fit: Fit, quantity: str, threshold: float, at: str, gain: Estimate, *, first: bool,
) -> str:
    what = f"doubling the {_axis_doubled(quantity, at)}"
    start = f"At {_target(fit, threshold)}, {what}" if first else what.capitalize()
    if not gain.identified:
        limit = "" if gain.status == "not_identified" else f" (only a bound: {gain.value})"
        return f"{start} changes the optimizer updates needed by a factor not identified{limit}."
    level = f"{credible(fit)}: " if first else ""
    return (f"{start} multiplies the optimizer updates needed by {gain.value} "
            f"({level}{gain.interval}).")


def _axis_doubled(quantity: str, at: str) -> str:
    """Return e.g. ``prompts per update from 128 to 256 at 8 rollouts per prompt``."""
    fixed = parse_at(at)
    if "total_batch" in fixed:
        return f"batch {_doubled(fixed['total_batch'])}"
    axis, other = ("n_prompts", "n_rollouts")
    names = {"n_prompts": "prompts per update", "n_rollouts": "rollouts per prompt"}
    if quantity == "gain_rollouts":
        axis, other = other, axis
    start = f" {_doubled(fixed[axis])}" if axis in fixed else ""
    held = f" at {fixed[other]} {names[other]}" if other in fixed else ""
    return f"{names[axis]}{start}{held}"


def _doubled(start: str) -> str:
    try:
        return f"from {numbers.count(float(start))} to {numbers.count(2 * float(start))}"
    except ValueError:
        return f"from {start}"


def _scale_sentences(fit: Fit, threshold: float) -> list[str]:
    names = set(fit.cbs["quantity"])
    main = [name for name in _MAIN_SCALES if name in names][:1]
    wanted = [*main, *({"cbs_rollouts"} & names)]
    usual = usual_batch(fit.runs)
    told = [(name, at, find(fit.cbs, name, threshold, at)) for name in wanted
            for at in chosen_ats(fit.cbs, name, usual, limit=1)]
    return [_scale_sentence(fit, name, at, threshold, scale)
            for name, at, scale in told if scale is not None]


_SCALE_WORDS = {
    "cbs_prompts": ("The critical batch size (the batch that needs twice the least possible "
                    "number of updates, S = 2 S_min)", "prompts"),
    "cbs_samples": ("The critical batch size (S = 2 S_min)", "samples"),
    "B_noise": ("The critical batch size (S = 2 S_min)", "samples"),
    "cbs_rollouts": ("The rollout count at which S is twice what unlimited rollouts would need",
                     "rollouts per prompt"),
}


def _scale_sentence(fit: Fit, name: str, at: str, threshold: float, scale: Estimate) -> str:
    subject, unit = _SCALE_WORDS[name]
    if fit.settings.get("ceiling_by_group", False):
        subject = subject.replace("the least possible number of updates, S = 2 S_min",
                                  "the least number of updates possible at its group size")
    place = f" at {at_words(at)}" if at else ""
    law = "" if name == "cbs_rollouts" else f" under the law {fit.law.name}{_exponent(fit)}"
    if scale.status == "not_identified":
        return (f"{subject}{place} is not identified{law}: the batches tried do not say how "
                f"large it is at {_target(fit, threshold)}.")
    if not scale.identified:
        side = "at most" if scale.status == "upper_bound" else "at least"
        size = scale.value.split(numbers.NO_BREAK)[-1]
        return f"{subject}{place} is {side} {size} {unit}{law}; the batches tried give no more."
    return f"{subject}{place} is {scale.value} {unit} ({scale.interval}){law}."


def formula(law: Law) -> str:
    """Return the law in one line, with the signs of print."""
    return law.formula.replace("alpha", "α").replace(" - ", f" {numbers.MINUS} ")


def _exponent(fit: Fit) -> str:
    """Return the law's formula, with the exponent where it is estimated."""
    alpha = find(fit.cbs, "alpha", main_threshold(fit))
    if alpha is None or fit.law.alpha is not None:
        return f", {formula(fit.law)}"
    sign = "= " if alpha.identified else ""
    estimated = f"α {sign}{alpha}" if alpha.status != "not_identified" else "α not identified"
    return f", {formula(fit.law)} with {estimated}"


def mccandlish_sentence(fit: Fit) -> str:
    """Return what the law with exponent 1 says beside the default law; may be empty."""
    if fit.law.name in _MCCANDLISH:
        return "This law has exponent α = 1, the form of McCandlish et al. (2018)."
    told = [(name, quantity) for name in _MCCANDLISH if name in fit.others
            for quantity in _MAIN_SCALES if quantity in set(fit.others[name]["quantity"])]
    if not told:
        return ""
    name, quantity = told[0]
    at = chosen_ats(fit.others[name], quantity, usual_batch(fit.runs), limit=1)[0]
    scale = find(fit.others[name], quantity, main_threshold(fit), at)
    if scale is None:
        return ""
    size = scale.value if scale.status == "not_identified" else (
        f"{scale.value} {_SCALE_WORDS[quantity][1]}")
    between = f" ({scale.interval})" if scale.interval else ""
    return (f"With the exponent fixed at α = 1, the form of McCandlish et al. (2018), the "
            f"critical batch size is {size}{between}.")


def _data_sentence(fit: Fit) -> str:
    runs = fit.runs
    used = runs.loc[runs["used"].astype(bool)]
    spans = [_span(used, "n_prompts", "prompts per update"),
             _span(used, "n_rollouts", "rollouts per prompt")]
    if not any(spans):
        spans = [_span(used, "total_batch", "samples per update")]
    known = " and ".join(span for span in spans if span)
    tried = f" with {known}" if known else ""
    return (f"The fit used {len(used)} of {len(runs)} runs{tried} and "
            f"{_thresholds(fit)} jointly.")


def _span(runs: pd.DataFrame, axis: str, unit: str) -> str:
    known = runs.loc[runs[axis] > 0, axis]
    if not len(known):
        return ""
    low, high = numbers.count(float(known.min())), numbers.count(float(known.max()))
    return f"{low} {unit}" if low == high else f"{low}{numbers.EN_DASH}{high} {unit}"


def _thresholds(fit: Fit) -> str:
    ordered = [plain(float(t)) for t in sorted(fit.thresholds)]
    if len(ordered) == 1:
        return f"the threshold {ordered[0]}"
    return f"the thresholds {', '.join(ordered[:-1])} and {ordered[-1]}"


def left_out_sentence(fit: Fit) -> str:
    """Return how many runs were left out."""
    left = int((~fit.runs["used"].astype(bool)).sum())
    if not left:
        return "No run was left out."
    verb = "was" if left == 1 else "were"
    return f"{left} of {len(fit.runs)} runs {verb} left out; the reasons are below."


def comparison_sentences(fit: Fit) -> list[str]:
    """Return one verdict per threshold: this fit against plain least squares.

    Each is told on the prompt axis at the usual number of rollouts, or where that was not
    fitted by both on the first axis that was.
    """
    usual = f"n_rollouts={usual_batch(fit.runs).get('n_rollouts', 0):g}"
    table = fit.comparison.assign(at=fit.comparison["at"].map(plain))
    told = []
    for threshold, level in table.groupby("threshold"):
        pairs = [({row["method"]: row for _, row in rows.iterrows()}, axis, at)
                 for (axis, at), rows in level.groupby(["axis", "at"], sort=False)]
        pairs = [pair for pair in pairs if {"least_squares", "posterior"} <= pair[0].keys()]
        pairs.sort(key=lambda pair: pair[1:] != ("prompts", usual))
        for by_method, axis, at in pairs[:1]:
            place = f"{axis} axis" + (f" at {at_words(at)}" if at else "")
            told.append(f"Threshold {plain(threshold)}, {place}: " + _against(
                by_method["least_squares"], by_method["posterior"],
                by_method.get("log_least_squares")))
    return told


def _against(theirs: pd.Series, ours: pd.Series, fair: pd.Series | None) -> str:
    mine, other = compared_estimate(ours), compared_estimate(theirs)
    dropped = int(theirs["n_runs_dropped"])
    runs = f"{int(theirs['n_runs_used'])} runs" + (f" ({dropped} dropped)" if dropped else "")
    left = "could not be fitted" if other is None else f"gives {other.value} from {runs}"
    said = f"least squares {left}; this fit gives {mine} from {int(ours['n_runs_used'])} runs"
    if mine is None or other is None:
        return f"{said}."
    if not mine.identified:
        return f"{said}: the batches tried do not settle the scale, whatever least squares says."
    inside = ours["ci_lower"] <= theirs["B_noise"] <= ours["ci_upper"]
    place = "inside" if inside else "outside"
    return (f"{said}. The least-squares value, which comes without an interval, lies {place} the "
            f"credible interval.{_widths(fair, ours)}")


def _widths(fair: pd.Series | None, ours: pd.Series) -> str:
    """Say how the fair log fit's bootstrap interval compares in width, on the log scale."""
    told = None if fair is None else compared_estimate(fair)
    if fair is None or told is None or not fair["ci_lower"] > 0 or np.isinf(fair["ci_upper"]):
        return ""
    ratio = np.log(fair["ci_upper"] / fair["ci_lower"]) / np.log(ours["ci_upper"]
                                                                / ours["ci_lower"])
    return (f" The fair log-space fit gives {told}; on the log scale its interval is "
            f"{numbers.number(float(ratio), digits=2)} times as wide as the credible one.")
