"""From finished sweeps to coverage, bias and width."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["ALL", "coverage_table", "rows_of", "sampling_summary"]

ALL = "all"
"""Label of the rows that pool all thresholds."""


def rows_of(records: Iterable[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    """Return the rows of finished sweeps as one table with a column ``sweep``."""
    parts = [pd.DataFrame(record["rows"], columns=list(columns)).assign(sweep=record["seed"])
             for record in records if record.get("rows")]
    empty = pd.DataFrame(columns=[*columns, "sweep"])
    return pd.concat(parts, ignore_index=True) if parts else empty


def coverage_table(intervals: pd.DataFrame) -> pd.DataFrame:
    """Return bias, coverage and width by method, quantity and threshold.

    Parameters
    ----------
    intervals : pandas.DataFrame
        Columns ``method, quantity, threshold, sweep`` and the logarithms ``truth, estimate,
        lower, upper``.

    Returns
    -------
    pandas.DataFrame
        Columns ``method, quantity, threshold, n, given, log_bias, coverage, coverage_se,
        log_width, width_over_t, width_over_boot``; threshold "all" pools them. `given` is the
        share of cases with an interval, `coverage` counts those only; `coverage_se` is the Monte
        Carlo error over sweeps, whose thresholds are not independent; `log_bias` and `log_width`
        are medians, the last two medians of the width over that of the log fit's t-interval and
        bootstrap on the same sweep.
    """
    rows = intervals.assign(
        given=intervals[["lower", "upper"]].notna().all(axis=1),
        inside=(intervals["lower"] <= intervals["truth"])
        & (intervals["truth"] <= intervals["upper"]),
        error=intervals["estimate"] - intervals["truth"],
        width=intervals["upper"] - intervals["lower"])
    rows = rows.assign(over_t=_over(rows, "log_fit_t"), over_boot=_over(rows, "log_fit_boot"),
                       threshold=[f"{t:g}" for t in rows["threshold"]])
    keys = ["method", "quantity", "threshold"]
    groups = [*rows.assign(threshold=ALL).groupby(keys, sort=False),
              *rows.groupby(keys, sort=False)]
    return pd.DataFrame([_statistics(key, part) for key, part in groups])


def _over(rows: pd.DataFrame, method: str) -> pd.Series:
    """Return each width over that of another method in the same case."""
    case = ["sweep", "threshold", "quantity"]
    other = rows[rows["method"] == method].set_index(case)["width"]
    matched = other.reindex(pd.MultiIndex.from_frame(rows[case])).to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return pd.Series(rows["width"].to_numpy(float) / matched, index=rows.index)


def _statistics(key: tuple[str, str, str], part: pd.DataFrame) -> dict[str, object]:
    given = part[part["given"]]
    by_sweep = given.groupby("sweep")["inside"].mean()
    return {**dict(zip(("method", "quantity", "threshold"), key, strict=True)), "n": len(part),
            "given": part["given"].mean(), "log_bias": part["error"].median(),
            "coverage": given["inside"].mean(),
            "coverage_se": by_sweep.std() / np.sqrt(max(len(by_sweep), 1)),
            "log_width": given["width"].median(),
            "width_over_t": part["over_t"].median(), "width_over_boot": part["over_boot"].median()}


def sampling_summary(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return how the sampling of all sweeps went, and which sweeps failed and why."""
    records = list(records)
    done = [record["sampling"] for record in records if "sampling" in record]
    out: dict[str, Any] = {"sweeps": len(done), "failed": {
        str(record["seed"]): record["error"] for record in records if "error" in record}}
    if done:
        table = pd.DataFrame(done).reindex(
            columns=["seconds", "divergences", "r_hat_max", "ess_bulk_min"])
        worst = {"seconds_median": table["seconds"].median(), "seconds_max": table["seconds"].max(),
                 "divergences": table["divergences"].sum(), "r_hat_worst": table["r_hat_max"].max(),
                 "ess_bulk_worst": table["ess_bulk_min"].min()}
        out |= {name: round(float(value), 3) for name, value in worst.items() if value == value}
        for count, name in (("alarms", "alarm"), ("structure_alarms", "structure_alarm")):
            said = [record[name] for record in done if name in record]
            out |= {count: sum(said)} if said else {}
    return out
