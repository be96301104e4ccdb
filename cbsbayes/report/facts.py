"""What a report says of a fit, chosen once: one target, one batch, one set of numbers.

The terminal, the page, the paragraph for a paper, decisions and the README's numbers all read
`Facts`; none of them chooses a threshold or a batch of its own. Nothing here is prose: sentences
are templates over these attributes (`cbsbayes.report.text`).
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.batches import POPULATION, fitted_threshold, middle_threshold
from cbsbayes.decisions.decision import Decision, decide
from cbsbayes.decisions.time_to_target import TimeAnswer, answer_times
from cbsbayes.errors import CBSDataError
from cbsbayes.noise.beside_fit import FACTOR, noise_comparison, verdict_of
from cbsbayes.posterior.cautions import LARGE_OFFSET
from cbsbayes.posterior.definitions import overhead_table
from cbsbayes.report.numbers import Estimate, compared_estimate, count, estimate, estimate_of
from cbsbayes.report.text import QUANTITIES, at_text, formula, parse_at, plain

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["Advice", "Fact", "Facts", "batch_text", "chosen_ats", "doubled_text", "find",
           "known_quantities", "usual_batch"]

MAX_ROWS = 4  # rows of one quantity in the main table
_AXES = {"n_prompts": "prompts per update", "n_rollouts": "rollouts per prompt",
         "total_batch": "samples per update"}
_DOUBLED = {"gain_prompts": "n_prompts", "gain_rollouts": "n_rollouts", "gain_total": "total_batch"}
_ALONG_ROLLOUTS = ("gain_rollouts", "cbs_prompts", "cbs_samples")  # the others vary with prompts
_CRITICAL = ("cbs_prompts", "cbs_samples", "B_noise", "cbs_rollouts")  # the first a fit has
_UNITS = {"seconds": "s", "minutes": "min", "hours": "h"}
_EXPONENT_ONE = ("two_axis", "two_axis_plain", "total")


@dataclass(frozen=True)
class Fact:
    """One row of the quantity table at the main threshold.

    Attributes
    ----------
    quantity, at, unit : str
        As in ``cbs.csv``.
    estimate : Estimate
        Value, interval and status as text.
    saved : Estimate
        Of a gain, the percentage of updates saved; empty for others.
    """

    quantity: str
    at: str
    unit: str
    estimate: Estimate
    saved: Estimate

    @property
    def place(self) -> str:
        """What is held fixed, e.g. ``8 rollouts``."""
        return at_text(self.at)

    @property
    def doubled(self) -> str:
        """Of a gain, the step and what is held fixed: ``16 → 32 prompts at 8 rollouts``."""
        return doubled_text(self.quantity, self.at)


@dataclass(frozen=True)
class Advice:
    """The batch to run and the next best, the numbers of both as text.

    Attributes
    ----------
    batch, next_batch : str
        In words; `next_batch` is empty where there is no other.
    amount : str
        Time where step times are known, updates elsewhere, with its interval.
    samples : str
        Samples to the target.
    next_more : float
        What the next best takes more, as a share.
    probability : float
        That the batch is the best of those compared.
    compared : str
        Which were compared, and by what.
    axes : tuple of float, optional
        Prompts and rollouts of the batch; None on one axis.
    """

    batch: str
    amount: str
    samples: str
    next_batch: str
    next_more: float
    probability: float
    compared: str
    axes: tuple[float, float] | None = None


class Facts:
    """What a report says of a fit.

    Parameters
    ----------
    fit : Fit
        The fit; its tables are read, and decisions computed on first use.
    threshold : float, optional
        The fitted target to speak of: the middle one unless given, the upper of two.

    Raises
    ------
    CBSDataError
        If the threshold was not fitted, or the fit has no quantities.
    """

    def __init__(self, fit: Fit, threshold: float | None = None) -> None:
        if fit.cbs.empty:
            raise CBSDataError("the fit has no quantities to report (0 rows); fit it again")
        self.fit = fit
        self.threshold = (middle_threshold(fit) if threshold is None
                          else fitted_threshold(fit, threshold))

    # what is fitted

    @cached_property
    def thresholds(self) -> list[float]:
        """All fitted targets, sorted."""
        return sorted(float(t) for t in self.fit.thresholds)

    @cached_property
    def target(self) -> str:
        """The main threshold in words, e.g. ``accuracy 0.7 on gsm8k``."""
        attrs = self.fit.sweep.attrs
        metric = plain(attrs.get("metric", ""))
        word = "target" if attrs.get("direction") == "decreasing" else "accuracy"
        return f"{word} {plain(self.threshold)}" + (f" on {metric}" if metric else "")

    @cached_property
    def group(self) -> str:
        """The group's label, empty where the sweep is one group."""
        return "" if self.fit.group in ("", "all runs") else plain(self.fit.group)

    @cached_property
    def ci_prob(self) -> float:
        """Probability of the intervals."""
        return float(self.fit.cbs["ci_prob"].iloc[0])

    @cached_property
    def formula(self) -> str:
        """The law in one line."""
        return formula(self.fit.law)

    @cached_property
    def ceilings(self) -> bool:
        """Whether every group size has a ceiling of its own."""
        return bool(self.fit.settings.get("ceiling_by_group", False))

    @cached_property
    def used(self) -> pd.DataFrame:
        """The runs fitted."""
        return self.fit.runs.loc[self.fit.runs["used"].astype(bool)]

    @cached_property
    def spans(self) -> list[str]:
        """The range of each axis tried, e.g. ``4 to 64 prompts per update``."""
        found = {axis: self.used.loc[self.used[axis] > 0, axis] for axis in _AXES}
        told = [f"{_span(values)} {_AXES[axis]}" for axis, values in found.items() if len(values)]
        return told[:-1] if len(told) > 1 else told  # the total where there is no other axis

    @cached_property
    def n_seeds(self) -> int:
        """How many seeds were used."""
        runs = self.used
        return runs.loc[runs["seed"] >= 0, "seed"].nunique() if "seed" in runs else 0

    @cached_property
    def n_items(self) -> float:
        """Validation items of the metric, 0 where not known."""
        sweep, metric = self.fit.sweep, str(self.fit.settings.get("metric") or "")
        known = metric and "n_items" in sweep and "metric" in sweep["n_items"].dims
        return max(0.0, float(sweep["n_items"].sel(metric=metric))) if known else 0.0

    @cached_property
    def notes(self) -> list[str]:
        """What was noted while the logs were read."""
        return [plain(note) for note in json.loads(self.fit.sweep.attrs.get("notes") or "[]")]

    # one batch

    @cached_property
    def batch(self) -> dict[str, float]:
        """The usual batch: the value of each axis that most runs had (`usual_batch`)."""
        return usual_batch(self.fit.runs)

    def at_usual(self, table: pd.DataFrame) -> str:
        """Return the value of ``at`` that holds the usual group size, else the table's first."""
        ats = list(dict.fromkeys(table["at"].map(plain)))
        usual = f"n_rollouts={self.batch.get('n_rollouts', 0):g}"
        return usual if usual in ats else ats[0]

    # numbers at the main threshold

    def fact(self, quantity: str, table: pd.DataFrame | None = None) -> Fact | None:
        """Return a quantity at the main threshold and the usual batch, None where not there."""
        cbs = self.fit.cbs if table is None else table
        ats = chosen_ats(cbs, quantity, self.batch, limit=1)
        row = find(cbs, quantity, self.threshold, ats[0]) if ats else None
        if row is None:
            return None
        saved = Estimate("", "", "")
        if quantity in _DOUBLED:
            flipped = {"upper_bound": "lower_bound", "lower_bound": "upper_bound"}
            median, least, most = (100 * (1 - float(row[name]))
                                   for name in ("median", "ci_upper", "ci_lower"))
            saved = estimate_of(median, least, most,
                                flipped.get(str(row["status"]), str(row["status"])))
        return Fact(quantity, plain(row["at"]), plain(row["unit"]), estimate(row), saved)

    @cached_property
    def gains(self) -> list[Fact]:
        """What doubling buys, along every axis the fit has."""
        return [fact for fact in map(self.fact, _DOUBLED) if fact is not None]

    @cached_property
    def critical(self) -> Fact | None:
        """The critical batch size under S = 2 S_min, the first kind the fit has."""
        return next((fact for fact in map(self.fact, _CRITICAL) if fact is not None), None)

    @cached_property
    def alpha(self) -> Fact | None:
        """The exponent where it is estimated."""
        return self.fact("alpha") if self.fit.law.alpha is None else None

    @cached_property
    def exponent_one(self) -> Fact | None:
        """The critical batch under the law with exponent 1, where another law is the fit's."""
        if self.critical is None or self.fit.law.alpha == 1.0:
            return None
        tables = [self.fit.others[name] for name in _EXPONENT_ONE if name in self.fit.others]
        found = (self.fact(self.critical.quantity, table) for table in tables)
        return next((fact for fact in found if fact is not None), None)

    @cached_property
    def definitions(self) -> pd.DataFrame:
        """Other definitions of a critical batch, at the main threshold and usual group size."""
        table = overhead_table(self.fit)
        if table.empty:
            return table
        return table[(table["at"].map(plain) == self.at_usual(table))
                     & np.isclose(table["threshold"], self.threshold)]

    @cached_property
    def definition(self) -> dict[str, dict[Hashable, Any]]:
        """The same by name, each row with its ``estimate``."""
        return {str(row["definition"]): {**row, "estimate": estimate(row)}
                for row in self.definitions.to_dict("records")}

    @cached_property
    def compared(self) -> dict[str, Any] | None:
        """Each method's noise scale at the main target, on the prompt axis if it can be."""
        table = self.fit.comparison
        here = table[np.isclose(table["threshold"], self.threshold)]
        usual = ("prompts", f"n_rollouts={self.batch.get('n_rollouts', 0):g}")
        rows = {key: part.set_index("method") for key, part in
                here.assign(at=here["at"].map(plain)).groupby(["axis", "at"], sort=False)}
        known = [key for key, part in rows.items() if "posterior" in part.index]
        if not known:
            return None
        key = usual if usual in known else known[0]
        found = {str(method): {"scale": compared_estimate({**row, "method": method}),
                               "n_used": row["n_runs_used"], "n_dropped": row["n_runs_dropped"]}
                 for method, row in rows[key].to_dict("index").items()}
        return {"axis": key[0], "at": key[1], **found}

    @cached_property
    def noise(self) -> pd.DataFrame | str:
        """Measured gradient noise beside the fit, or the sentence why there is none."""
        try:
            return noise_comparison(self.fit)
        except CBSDataError as error:
            text = str(error)
            return f"{text[:1].upper()}{text[1:]}."

    @cached_property
    def joint(self) -> dict[str, Any] | None:
        """What measured noise did as data: its offset, and how many numbers agree without it."""
        table = self.fit.noise_joint
        if table is None or "noise_offset" not in set(table["quantity"]):
            return None
        offset = table[table["quantity"] == "noise_offset"].iloc[0]
        counts = table["verdict"].value_counts()
        return {"offset": offset, "factor": FACTOR, "largest": LARGE_OFFSET,
                "verdict": verdict_of(float(np.exp(offset["with_lower"])),
                                      float(np.exp(offset["with_upper"]))),
                "missing": str(self.fit.tree.attrs.get("noise_joint_missing", "")),
                "n_both": int(counts.drop("", errors="ignore").sum()),
                "n_agree": counts.get("agree", 0), "n_differ": counts.get("differ", 0)}

    # decisions

    @cached_property
    def decision(self) -> Decision | str:
        """Which split of the sweep's batch is best, or why that is not known."""
        try:
            return decide(self.fit, threshold=self.threshold)
        except CBSDataError as error:
            return str(error)

    @cached_property
    def times(self) -> TimeAnswer | str:
        """Times to the target, or why they are not known."""
        try:
            return answer_times(self.fit, threshold=self.threshold)
        except CBSDataError as error:
            return str(error)

    @cached_property
    def advice(self) -> Advice | None:
        """The batch to run: the fastest where steps are timed, else the best split."""
        if not isinstance(self.times, str):
            return _fastest(self.times)
        return None if isinstance(self.decision, str) else _best_split(self.decision)


def doubled_text(quantity: str, at: str) -> str:
    """Return the step of a gain and what is held fixed: ``16 → 32 prompts at 8 rollouts``."""
    fixed = parse_at(at)
    start = float(fixed.pop(_DOUBLED[quantity]))
    unit = {"gain_total": "samples"}.get(quantity, quantity.removeprefix("gain_"))
    held = at_text(",".join(f"{key}={value}" for key, value in fixed.items()))
    step = f"{count(start)} → {count(2 * start)} {unit}"
    return f"{step} at {held}" if held else step


def find(cbs: pd.DataFrame, quantity: str, threshold: float, at: str) -> pd.Series | None:
    """Return a row of the quantity table, None where it has no such row.

    A row without a threshold (the exponent) holds at every threshold.
    """
    rows = cbs[(cbs["quantity"] == quantity) & (cbs["at"].map(plain) == at)]
    level = rows["threshold"].astype(float)
    rows = rows[np.isclose(level, threshold) | level.isna()]
    return rows.iloc[0] if len(rows) else None


def usual_batch(runs: pd.DataFrame) -> dict[str, float]:
    """Return the value of each axis that most of the used runs had (the larger of equals)."""
    used = runs.loc[runs["used"].astype(bool)]
    known = {axis: used.loc[used[axis] > 0, axis] for axis in _AXES}
    return {axis: float(values.mode().max()) for axis, values in known.items() if len(values)}


def chosen_ats(
    cbs: pd.DataFrame, quantity: str, usual: Mapping[str, float], limit: int = MAX_ROWS,
) -> list[str]:
    """Return at most `limit` of the batches a quantity was read off at, the usual one included.

    Parameters
    ----------
    cbs : pandas.DataFrame
        The quantity table.
    quantity : str
        A name in its column ``quantity``.
    usual : mapping
        The usual batch (`usual_batch`).
    limit : int
        How many to return at most.

    Returns
    -------
    list of str
        Values of the column ``at`` in the table's order: of those on the axis a quantity
        varies along, evenly spread ones.
    """
    ats = list(dict.fromkeys(cbs.loc[cbs["quantity"] == quantity, "at"].map(plain)))
    held = "n_prompts" if quantity in _ALONG_ROLLOUTS else "n_rollouts"
    fixed = {at: _distance(at, {k: v for k, v in usual.items() if k == held}) for at in ats}
    line = [at for at in ats if fixed[at] == min(fixed.values())]
    if len(line) <= limit:
        return line
    nearest = min(line, key=lambda at: _distance(at, usual))
    spread = np.linspace(0, len(line) - 1, limit).round().astype(int).tolist() if limit > 1 else []
    if line.index(nearest) not in spread:  # it takes the place of the closest one
        spread = sorted(spread, key=lambda i: abs(i - line.index(nearest)))[1:]
    return [at for i, at in enumerate(line) if i in spread or at == nearest]


def _distance(at: str, usual: Mapping[str, float]) -> float:
    """Return how far a batch lies from the usual one, in doublings summed over the axes."""
    fixed = parse_at(at)
    return float(sum(abs(np.log2(float(fixed[axis]) / usual[axis])) for axis in usual
                     if axis in fixed))


def _span(values: pd.Series) -> str:
    low, high = count(float(values.min())), count(float(values.max()))
    return low if low == high else f"{low} to {high}"


def batch_text(row: pd.Series, *, one_axis: bool = False) -> str:
    """Return a batch in words: ``256 prompts × 4 rollouts``, or its samples on one axis."""
    if one_axis:
        return f"{count(row['total_batch'])} samples"
    return f"{count(row['n_prompts'])} prompts × {count(row['n_rollouts'])} rollouts"


def _amount(row: pd.Series, name: str, unit: str, factor: float = 1.0) -> str:
    median, lower, upper = (factor * float(row[f"{name}{end}"])
                            for end in ("", "_lower", "_upper"))
    found = estimate_of(median, lower, upper, "identified")
    return f"{found.value} {unit} ({found.interval})"


def _axes(row: pd.Series) -> tuple[float, float]:
    return float(row["n_prompts"]), float(row["n_rollouts"])


def _fastest(times: TimeAnswer) -> Advice:
    """Return the fastest of the batches inside the range tried, on the GPUs of the runs."""
    from cbsbayes.plots.scales import time_unit

    table = times.tables["times"]
    rows = table[np.isclose(table["threshold"], times.threshold)
                 & (table["applies_to"] == POPULATION) & table["gpus_measured"].astype(bool)
                 & (table["range"] != "extrapolated")].sort_values("hours")
    best = rows.iloc[0]
    per, unit = time_unit(3600 * float(best["hours"]))
    samples = estimate_of(best["samples"], best["samples_lower"], best["samples_upper"],
                          "identified")
    names = [batch_text(row, one_axis=times.step_times.one_axis) for _, row in rows.iterrows()]
    more = [float(hours / best["hours"] - 1) for hours in rows["hours"]]
    return Advice(
        names[0], _amount(best, "hours", _UNITS[unit], 3600 / per), samples.value,
        "".join(names[1:2]), sum(more[1:2]),
        float(best["p_fastest"]), "batches inside the range tried, by time",
        None if times.step_times.one_axis else _axes(best))


def _best_split(decision: Decision) -> Advice | None:
    table = decision.at_threshold("splits")
    rows = table if table.empty else table[table["range"] != "extrapolated"]
    if rows.empty or not rows["chosen"].any():
        return None
    best = rows[rows["chosen"]].iloc[0]
    rest = rows[~rows["chosen"] & np.isfinite(rows["regret"])].sort_values("regret")
    samples = float(best["steps"]) * decision.batch.total
    return Advice(
        batch_text(best), _amount(best, "steps", "updates"), count(float(f"{samples:.3g}")),
        batch_text(rest.iloc[0]) if len(rest) else "",
        float(rest.iloc[0]["steps"] / best["steps"] - 1) if len(rest) else 0.0,
        float(best["p_best_inside"]), f"splits of {decision.batch.total:,d} samples, by updates",
        _axes(best))


def known_quantities(cbs: pd.DataFrame) -> list[str]:
    """Return the quantities of a table in the order in which tables print them."""
    return [name for name in QUANTITIES if name in set(cbs["quantity"])]
