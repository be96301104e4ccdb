"""Words and table of the measured gradient noise beside the fitted noise scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cbsbayes.noise.beside_fit import FACTOR, shown_rows
from cbsbayes.report import numbers
from cbsbayes.report.estimates import Estimate, at_words, estimate, plain
from cbsbayes.report.tables import Cell, Column, Table, estimate_cell

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["noise_sentences", "noise_table", "rest_table"]

_VERDICTS = {"agree": f"agree within a factor of {FACTOR:g}", "differ": "differ",
             "not_resolved": "not resolved"}
_COLUMNS = tuple(Column(label, label not in ("scale", "verdict")) for label in (
    "scale", "accuracy", "measured", "fitted", "measured / fitted", "probes", "verdict"))


def noise_sentences(noise: pd.DataFrame, fit: Fit, threshold: float) -> list[str]:
    """Return a sentence per noise scale: measured, fitted, ratio and verdict at one threshold.

    Parameters
    ----------
    noise : DataFrame
        The table of ``noise.csv``.
    fit : Fit
        The fit it belongs to.
    threshold : float
        The threshold to tell of; where the measured ranges do not end there, the next one.
    """
    table = shown_rows(noise, fit)
    table = table[table["average"] == "up_to"]
    told = []
    for _, rows in table.groupby(["quantity", "at"], sort=False):
        main = rows[rows["law"] == fit.law.name]
        reached = [t for t in main["threshold"] if t >= threshold] or [main["threshold"].iloc[-1]]
        here = rows[rows["threshold"] == reached[0]]
        others = [_other(row) for _, row in here[here["law"] != fit.law.name].iterrows()]
        told.append(_sentence(here[here["law"] == fit.law.name].iloc[0]) + "".join(others))
    return told


def _sentence(row: pd.Series) -> str:
    if row["measured_status"] == "too_few":
        return (f"{_name(row)} up to {plain(row['threshold'])}: only {row['n_probes']} probes, "
                "too few to average.")
    return (f"{_name(row)} up to {plain(row['threshold'])}: {_measured_words(row)}, "
            f"fitted {_fitted(row)} under {row['law']}; {_ratio_words(row)}.")


def _measured_words(row: pd.Series) -> str:
    told = _measured(row)
    if told.identified:
        return f"measured {told} {row['unit']}"
    bound = f", {told.interval} {row['unit']}" if told.interval else ""
    return f"the measured scale is not resolved{bound}"


def _other(row: pd.Series) -> str:
    if row["measured_status"] == "too_few":
        return ""
    return f" Under {row['law']}, fitted {_fitted(row)}: {_ratio_words(row)}."


def _ratio_words(row: pd.Series) -> str:
    verdict = _VERDICTS[row["verdict"]]
    ratio = _ratio(row)
    return verdict if ratio is None else f"ratio {ratio}, {verdict}"


def _name(row: pd.Series) -> str:
    at = at_words(row["at"])
    return f"{row['quantity']} at {at}" if at else str(row["quantity"])


def _measured(row: pd.Series) -> Estimate:
    if row["measured_status"] == "resolved":
        return _estimate(row, "measured", "identified")
    bound = numbers.bound(float(row["measured_lower"]), upper=False)
    known = np.isfinite(row["measured_lower"]) and row["measured_lower"] > 0
    return Estimate("not resolved", bound if known else "", "lower_bound")


def _fitted(row: pd.Series) -> Estimate:
    return _estimate(row, "fitted", row["fitted_status"])


def _ratio(row: pd.Series) -> Estimate | None:
    """Return measured over fitted; None where nothing is known of it."""
    if np.isfinite(row["ratio"]):
        return _estimate(row, "ratio", "identified")
    if np.isfinite(row["ratio_lower"]) and row["ratio_lower"] > 0:
        return _estimate(row, "ratio", "lower_bound")
    return None


def _estimate(row: pd.Series, side: str, status: str) -> Estimate:
    return estimate({"median": row[side], "ci_lower": row[f"{side}_lower"],
                     "ci_upper": row[f"{side}_upper"], "status": status})


def noise_table(noise: pd.DataFrame, fit: Fit) -> Table:
    """Return the main law's comparison, averaged from the start up to each threshold."""
    rows = shown_rows(noise, fit)
    rows = rows[(rows["law"] == fit.law.name) & (rows["average"] == "up_to")]
    return Table(f"Gradient noise measured and fitted under {fit.law.name}, both averaged over "
                 "progress from the start up to the accuracy; equal-tailed "
                 f"{numbers.percent(float(fit.settings['ci_prob']))} intervals below.",
                 _COLUMNS, [_cells(row) for _, row in rows.iterrows()])


def rest_table(noise: pd.DataFrame, fit: Fit) -> Table:
    """Return what `noise_table` leaves out: other laws, single ranges, other group sizes."""
    main = shown_rows(noise, fit)
    main = main[(main["law"] == fit.law.name) & (main["average"] == "up_to")]
    rest = noise.drop(index=main.index)
    rows: list[tuple[Cell, ...]] = []
    for (law, average), part in rest.groupby(["law", "average"], sort=False):
        way = "from the start up to the accuracy" if average == "up_to" else "in single ranges"
        rows += [(Cell(f"{law}, {way}"),), *(_cells(row) for _, row in part.iterrows())]
    return Table("The same under the other laws, in single accuracy ranges, and at every group "
                 "size probed.", _COLUMNS, rows)


def _cells(row: pd.Series) -> tuple[Cell, ...]:
    few = row["measured_status"] == "too_few"
    span = plain(row["accuracy_to"])
    if row["average"] == "range":
        span = f"{plain(row['accuracy_from']) or 'start'}{numbers.EN_DASH}{span}"
    return (Cell(_name(row), row["unit"]), Cell(span),
            Cell("too few probes", mark="missing") if few else estimate_cell(_measured(row)),
            estimate_cell(_fitted(row)), estimate_cell(None if few else _ratio(row)),
            Cell(numbers.count(row["n_probes"])), Cell(_VERDICTS[row["verdict"]]))
