"""What one row of the quantity table says: a value with its interval, a bound, or nothing.

An unidentified scale is never printed as a bare median: `Estimate` knows the row's status and
writes "≥ 512", "≤ 40" or "not identified" instead.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes._command import one_line
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.identification import STATUSES
from cbsbayes.report import numbers

__all__ = ["QUANTITIES", "Estimate", "at_words", "compared_estimate", "estimate", "parse_at",
           "plain", "quantity_label"]

QUANTITIES: dict[str, tuple[str, str]] = {
    "gain_prompts": ("Doubling the prompts", "updates after, as a share of before"),
    "gain_rollouts": ("Doubling the rollouts", "updates after, as a share of before"),
    "gain_total": ("Doubling the batch", "updates after, as a share of before"),
    "batch_at_gain": ("Largest batch at which doubling still pays", ""),
    "cbs_prompts": ("Prompt CBS", "prompts at which S = 2 S_min"),
    "cbs_samples": ("Prompt CBS in samples", "samples at which S = 2 S_min"),
    "cbs_rollouts": ("Rollout CBS", "rollouts at which S is twice its limit"),
    "best_n_rollouts": ("Best group size", "rollouts, at a fixed batch"),
    "B_noise": ("B_noise", "samples"),
    "B_prompt": ("B_prompt", "prompts"),
    "B_rollout": ("B_rollout", "prompts × (rollouts − 1)"),
    "alpha": ("Exponent α", ""),
    "S_min": ("S_min", "updates"),
    "E_min": ("E_min", "samples"),
    "ceiling_loss": ("Loss of ceiling λ", "groups reach exp(−λ/rollouts) of the gain"),
    "reach": ("Gain within a group's reach", "as a share of endless groups'"),
    "ceiling": ("Ceiling", "accuracy"),
    "steps": ("S at a batch tried", "updates"),
}
"""Label and remark of every quantity, in the order in which tables print them."""

_AT_WORDS = {
    "n_prompts": "{} prompts",
    "n_rollouts": "{} rollouts",
    "total_batch": "batch {}",
    "axis": "along {}",
}


@dataclass(frozen=True)
class Estimate:
    """One estimate as text.

    Attributes
    ----------
    value : str
        The median, a bound with its sign, or "not identified".
    interval : str
        The credible interval; empty for anything but an identified value.
    status : str
        ``identified``, ``upper_bound``, ``lower_bound`` or ``not_identified``.
    """

    value: str
    interval: str
    status: str

    @property
    def identified(self) -> bool:
        """Whether the data alone say how large the quantity is."""
        return self.status == "identified"

    def __str__(self) -> str:
        """Return value and interval in one piece of running text."""
        return f"{self.value} ({self.interval})" if self.interval else self.value


def estimate(row: pd.Series | Mapping[Hashable, Any]) -> Estimate:
    """Return the estimate a row of the quantity table stands for.

    Parameters
    ----------
    row : pandas.Series or mapping
        Needs ``median, ci_lower, ci_upper, status``.

    Raises
    ------
    CBSDataError
        If the status is none of the four.
    """
    status = str(row["status"])
    lower, upper = float(row["ci_lower"]), float(row["ci_upper"])
    if status == "identified":
        value, between = numbers.value_with_interval(float(row["median"]), lower, upper)
        return Estimate(value, between, status)
    if status not in STATUSES:
        raise CBSDataError(f"unknown status {status!r} of an estimate; valid: identified, "
                           "upper_bound, lower_bound, not_identified; write the table again")
    limit = {"upper_bound": upper, "lower_bound": lower}.get(status, np.nan)
    if status == "lower_bound" and limit == np.inf:
        return Estimate("never", "", status)  # S of a group whose ceiling is too low
    if not np.isfinite(limit):
        return Estimate("not identified", "", "not_identified")
    return Estimate(numbers.bound(limit, upper=status == "upper_bound"), "", status)


def compared_estimate(row: pd.Series) -> Estimate | None:
    """Return the noise scale of a row of the comparison; None where least squares gave none.

    The posterior's row leaves empty what the data do not settle: the open side of a bound, or
    everything.

    Parameters
    ----------
    row : pandas.Series
        A row of the comparison: ``method, B_noise, ci_lower, ci_upper``.
    """
    if row["method"] == "posterior":
        return estimate({"median": row["B_noise"], "ci_lower": row["ci_lower"],
                         "ci_upper": row["ci_upper"], "status": _status_of(row)})
    if pd.isna(row["B_noise"]):
        return None
    told = estimate({"median": row["B_noise"], "ci_lower": row["ci_lower"],
                     "ci_upper": row["ci_upper"], "status": "identified"})
    finite = np.isfinite(row["ci_lower"]) and np.isfinite(row["ci_upper"])
    return told if finite else Estimate(told.value, "no interval", "identified")


def _status_of(row: pd.Series) -> str:
    if not pd.isna(row["B_noise"]):
        return "identified"
    if pd.isna(row["ci_lower"]) == pd.isna(row["ci_upper"]):
        return "not_identified"
    return "upper_bound" if pd.isna(row["ci_lower"]) else "lower_bound"


def plain(value: object) -> str:
    """Return any cell's value as text of one line.

    Missing values are empty and numbers short; line breaks and other control characters of
    a name are made visible.
    """
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return numbers.count(int(value))
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else numbers.count(float(value))
    return one_line(value)


def parse_at(at: object) -> dict[str, str]:
    """Return ``n_prompts=128,n_rollouts=8`` as a dict; empty text and NaN give an empty one."""
    parts = [part.partition("=") for part in plain(at).split(",") if part.strip()]
    return {key.strip(): value.strip() for key, _, value in parts}


def at_words(at: object) -> str:
    """Return what is held fixed in words, e.g. ``128 prompts × 8 rollouts``."""
    fixed = parse_at(at)
    gain = fixed.pop("gain", "")
    words = [" × ".join(_fixed_words(key, value) for key, value in fixed.items())]
    return ", ".join(filter(None, [*words, f"saving {_percent(gain)}" if gain else ""]))


def _percent(text: str) -> str:
    try:
        return f"{100 * float(text):g} %"
    except ValueError:
        return text


def _fixed_words(key: str, value: str) -> str:
    if key in _AT_WORDS:
        return _AT_WORDS[key].format(value)
    return f"{key} = {value}" if value else key


def quantity_label(quantity: str) -> str:
    """Return the label of a quantity; an unknown one keeps its own name."""
    return QUANTITIES.get(quantity, (quantity, ""))[0]
