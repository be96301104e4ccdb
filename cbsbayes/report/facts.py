"""What a report says of a fit, chosen once: one target, one batch, one set of numbers.

The terminal, the page, the paragraph for a paper, decisions and the README's numbers all read
`Facts`; none of them chooses a target or a batch of its own. Nothing here is prose: sentences
are templates over these attributes (`cbsbayes.report.text`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.batches import POPULATION, find_row, one_threshold
from cbsbayes.decisions.decision import Decision, decide
from cbsbayes.decisions.time_to_target import TimeAnswer, answer_times
from cbsbayes.errors import CBSDataError
from cbsbayes.noise.beside_fit import FACTOR, noise_comparison, verdict_of
from cbsbayes.plots.style import time_unit
from cbsbayes.posterior.cautions import LARGE_OFFSET
from cbsbayes.posterior.definitions import overhead_table
from cbsbayes.posterior.learning_rate import rate_table
from cbsbayes.report.tables import AXES, chosen, on_axes, usual_batch
from cbsbayes.report.text import (
    Estimate,
    at_text,
    batch_text,
    count,
    doubled_text,
    estimate,
    formula,
    percent,
    plain,
)

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["Advice", "Fact", "Facts"]

_GAINS = ("gain_prompts", "gain_rollouts", "gain_total")
_CRITICAL = ("cbs_prompts", "cbs_samples", "B_noise", "cbs_rollouts")  # the first a fit has
_EXPONENT_ONE = ("two_axis", "two_axis_plain", "total")
_UNITS = {"seconds": "s", "minutes": "min", "hours": "h"}


@dataclass(frozen=True)
class Fact:
    """One row of the quantity table at the main target.

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
        As text; `next_batch` is empty where there is no other.
    amount : str
        Time where step times are known, updates elsewhere, with its interval.
    samples : str
        Samples to the target.
    next_more : float
        What the next best takes more, as a share.
    probability : float
        That the batch is the best of those compared; NaN where that was not asked.
    axes : tuple of float, optional
        Prompts and rollouts of the batch; None on one axis.
    """

    batch: str
    amount: str
    samples: str
    next_batch: str
    next_more: float
    probability: float
    axes: tuple[float, float] | None = None


def _or_reason[T](answer: Callable[[], T]) -> T | str:
    """Return an answer, or why there is none."""
    try:
        return answer()
    except CBSDataError as error:
        return str(error)


class Facts:
    """What a report says of a fit.

    Parameters
    ----------
    fit : Fit
        The fit; its tables are read, and decisions computed on first use.
    threshold : float, optional
        The fitted target to speak of: the middle one unless given, the upper of two.
    budget : float, optional
        Samples that the run advised may take to the target at most.

    Raises
    ------
    CBSDataError
        If the threshold was not fitted, the budget is not positive, or the fit has no quantities.
    """

    def __init__(
        self, fit: Fit, threshold: float | None = None, budget: float | None = None
    ) -> None:
        if fit.cbs.empty:
            raise CBSDataError("the fit has no quantities to report (0 rows); fit it again")
        if budget is not None and not budget > 0:
            raise CBSDataError(f"the budget is {budget:g} samples; valid: a positive number")
        self.fit, self.budget, self.chosen = fit, budget, threshold is not None
        self.threshold = one_threshold(fit, threshold)

    # what is fitted

    @cached_property
    def thresholds(self) -> list[float]:
        """All fitted targets, sorted."""
        return sorted(float(t) for t in self.fit.thresholds)

    @cached_property
    def target(self) -> str:
        """The main target as text, e.g. ``accuracy 0.7 on gsm8k``."""
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
    def interval(self) -> str:
        """What the intervals are, for captions."""
        return f"equal-tailed {percent(self.ci_prob)} interval"

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
        found = []
        for axis, unit in AXES.items():
            known = self.used.loc[self.used[axis] > 0, axis]
            if len(known):
                ends = dict.fromkeys((count(known.min()), count(known.max())))
                found.append(f"{' to '.join(ends)} {unit}")
        return found[:-1] if len(found) > 1 else found  # the total where there is no other axis

    @cached_property
    def n_seeds(self) -> int:
        """How many seeds were used."""
        return self.used.loc[self.used["seed"] >= 0, "seed"].nunique()

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

    @cached_property
    def batch(self) -> dict[str, float]:
        """The usual batch: the value of each axis that most runs had (`usual_batch`)."""
        return usual_batch(self.fit.runs)

    @cached_property
    def at_usual(self) -> str:
        """The usual group size, as in the column ``at`` of tables."""
        return f"n_rollouts={self.batch.get('n_rollouts', 0):g}"

    # numbers at the main target

    def fact(self, quantity: str, table: pd.DataFrame | None = None) -> Fact | None:
        """Return a quantity at the main target and the usual batch, None where not there."""
        rows = chosen(self.fit.cbs if table is None else table, quantity, self.batch, limit=1)
        row = find_row(rows, quantity, self.threshold)
        found = estimate(row)
        if row is None or found is None:
            return None
        saved = None
        if quantity in _GAINS:
            flipped = {"upper_bound": "lower_bound", "lower_bound": "upper_bound"}
            ends = {"median": "median", "ci_lower": "ci_upper", "ci_upper": "ci_lower"}
            saved = estimate({name: 100 * (1 - float(row[end])) for name, end in ends.items()}
                             | {"status": flipped.get(str(row["status"]), row["status"])})
        return Fact(quantity, plain(row["at"]), plain(row["unit"]), found, saved or Estimate(""))

    @cached_property
    def gains(self) -> list[Fact]:
        """What doubling buys, along every axis the fit has."""
        return [fact for fact in map(self.fact, _GAINS) if fact is not None]

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
        """Other definitions of a critical batch, at the main target and usual group size."""
        table = overhead_table(self.fit)
        if table.empty:
            return table
        ats = table["at"].map(plain)
        at = self.at_usual if self.at_usual in ats.values else ats.iloc[0]
        return table[(ats == at) & np.isclose(table["threshold"], self.threshold)]

    @cached_property
    def definition(self) -> dict[Hashable, dict[Hashable, Any]]:
        """The same by name."""
        return {row["definition"]: row for row in self.definitions.to_dict("records")}

    @cached_property
    def comparison(self) -> list[dict[str, Any]]:
        """Noise scales by method, a row per axis and target; ``runs`` counts those of each."""
        table = self.fit.comparison.assign(at=self.fit.comparison["at"].map(plain)).rename(
            columns={"ci_lower": "B_noise_lower", "ci_upper": "B_noise_upper"})
        found = []
        for (axis, at, threshold), part in table.groupby(["axis", "at", "threshold"], sort=False):
            rows = part.set_index("method").to_dict("index")
            scales = {str(method): estimate(row, "B_noise") for method, row in rows.items()}
            if scales.get("posterior", ...) is None:
                scales["posterior"] = Estimate("not identified", "", "not_identified")
            runs = {method: (row["n_runs_used"], row["n_runs_dropped"])
                    for method, row in rows.items()}
            found.append({"axis": axis, "at": at, "threshold": threshold, "runs": runs,
                          **dict.fromkeys(("least_squares", "log_least_squares", "posterior")),
                          **scales})
        return found

    @cached_property
    def compared(self) -> dict[str, Any] | None:
        """Each method's noise scale at the main target, on the prompt axis if it can be."""
        here = [row for row in self.comparison if np.isclose(row["threshold"], self.threshold)
                and row["posterior"] is not None]
        usual = [row for row in here if (row["axis"], row["at"]) == ("prompts", self.at_usual)]
        return next(iter([*usual, *here]), None)

    @cached_property
    def noise(self) -> pd.DataFrame | str:
        """Measured gradient noise beside the fit, or why there is none."""
        return _or_reason(lambda: noise_comparison(self.fit))

    @cached_property
    def rates(self) -> pd.DataFrame:
        """What the learning rate does; empty where the law knows none."""
        return rate_table(self.fit)

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
        return _or_reason(lambda: decide(self.fit, threshold=self.threshold))

    @cached_property
    def times(self) -> TimeAnswer | str:
        """Times to the target, or why they are not known."""
        return _or_reason(lambda: answer_times(self.fit, threshold=self.threshold))

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """Batches to choose among, the best first: by time, else splits, else those tried.

        ``p`` is the probability to be the best. Splits of the sweep's batch are compared unless
        steps are timed or there is a budget.
        """
        if not isinstance(self.times, str):
            rows, by = self.times.tables["times"], "hours"
            rows = rows[np.isclose(rows["threshold"], self.threshold)
                        & (rows["applies_to"] == POPULATION) & rows["gpus_measured"].astype(bool)]
            rows = on_axes(rows.assign(p=rows["p_fastest"]),
                           one_axis=self.times.step_times.one_axis)
        elif isinstance(self.decision, str):
            return pd.DataFrame()
        elif self.budget is None:
            rows, by = self.decision.at_threshold("splits"), "regret"
            if rows.empty:
                return rows
            rows = rows[np.isfinite(rows["regret"])]
            rows = rows.assign(p=rows["p_best_inside"], samples=rows["steps"] * rows["total_batch"])
        else:
            rows, by = self.decision.at_threshold("front"), "steps"
            rows = rows[rows["kind"] == "tried"].assign(p=np.nan)
        return rows[rows["range"] != "extrapolated"].sort_values(by)

    @cached_property
    def advice(self) -> Advice | None:
        """The batch to run, with the least time or updates of those within the budget."""
        rows, column, unit, factor = self.candidates, "steps", "updates", 1.0
        if self.budget is not None and len(rows):
            rows = rows[rows["samples"] <= self.budget]
        if rows.empty:
            return None
        best = rows.iloc[0]
        if not isinstance(self.times, str):
            per, name = time_unit(3600 * float(best["hours"]))
            column, unit, factor = "hours", _UNITS[name], 3600 / per
        amount = estimate(best, column, factor)
        if amount is None or not amount.identified:
            return None
        more = float(rows[column].iloc[1] / best[column] - 1) if len(rows) > 1 else 0.0
        axes = float(best["n_prompts"]), float(best["n_rollouts"])
        return Advice(batch_text(best), f"{amount.value} {unit} ({amount.interval})",
                      count(float(f"{best['samples']:.3g}")),
                      batch_text(rows.iloc[1]) if len(rows) > 1 else "", more, float(best["p"]),
                      axes if axes[1] > 0 else None)
