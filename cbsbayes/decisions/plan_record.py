"""A plan as plain values: what ``plan.json`` holds."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.planner import Plan
from cbsbayes.posterior.fit import Fit
from cbsbayes.report.plan_words import law_cautions, sentences

__all__ = ["plan_record"]


def plan_record(
    plan: Plan, fit: Fit, said: list[str], command: str, lines: list[str], head: str
) -> dict[str, Any]:
    """Return the plan with what it was made from; numbers that are not finite are None.

    Parameters
    ----------
    plan : Plan
        The plan.
    fit : Fit
        What it is based on.
    said : list of str
        What must be said about the fit.
    command : str
        The command line.
    lines : list of str
        Those that start the planned runs.
    head : str
        Where the planned runs' other settings are from.
    """
    target = plan.target
    low, middle, high = target.interval(plan.ci_prob)
    return {
        "command": command, "group": fit.group, "law": fit.law.name,
        "data_digest": fit.settings["data_digest"],
        "sampling_passed": bool(fit.verdict["sampling"]["passed"]),
        "quantity": {"name": target.name, "at": target.at, "threshold": _finite(target.threshold),
                     "unit": target.unit, "status": target.status, "median": middle,
                     "ci_lower": low, "ci_upper": high, "ci_prob": plan.ci_prob},
        "cost_unit": plan.cost.unit, "evaluated_every": plan.tried.every,
        "request": {name: _finite(value) for name, value in asdict(plan.request).items()},
        "sentences": [*said, *sentences(plan), *law_cautions(fit)],
        "runs": _records(plan.runs),
        "candidates": _records(plan.table), "lines": lines, "lines_from": head,
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return list(json.loads(table.to_json(orient="records", double_precision=12)))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
