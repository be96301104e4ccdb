"""The joint fit beside the fit without measured noise: one row per threshold and quantity.

Rows are those of ``cbs.csv``, the offset δ and the scatter of the measurement, and S predicted at
batches around those tried, for a typical run and for one new run. Batches that were not tried say
so: what stands there is extrapolated along the law.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.models.crossing_data import LOGISTIC_SCALE
from cbsbayes.models.laws import Law
from cbsbayes.posterior.fit import stacked
from cbsbayes.posterior.surface import Surface
from cbsbayes.posterior.tidy import interval

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["JOINT_COLUMNS", "joint_table", "new_run_log_steps"]

JOINT_COLUMNS = ["group", "law", "threshold", "quantity", "at", "unit", "tried", "with_median",
                 "with_lower", "with_upper", "with_status", "without_median", "without_lower",
                 "without_upper", "without_status", "ci_prob", "verdict"]
_KEY = ["threshold", "quantity", "at"]
_SIDE = {"median": "median", "ci_lower": "lower", "ci_upper": "upper", "status": "status"}
_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def joint_table(joint: Fit, plain: Fit | None) -> pd.DataFrame:
    """Return quantities of both fits side by side.

    Parameters
    ----------
    joint : Fit
        With measured noise as data.
    plain : Fit, optional
        The same runs under the same law without it; None where that cannot be fitted.

    Returns
    -------
    DataFrame
        Columns `JOINT_COLUMNS`. ``tried`` is 1 where the row speaks of batches between those that
        were run, 0 where it extrapolates; ``steps`` is S of a typical run, ``steps_new_run`` S of
        one new run. ``verdict`` is ``agree`` (either median lies in the other's interval),
        ``differ`` (the intervals do not touch), ``not_resolved`` otherwise; empty with one side.
    """
    sides = [("with", joint)] + ([("without", plain)] if plain is not None else [])
    tables = [_rows_of(fit).rename(columns={k: f"{side}_{v}" for k, v in _SIDE.items()})
              for side, fit in sides]
    table = tables[0] if plain is None else tables[0].merge(
        tables[1].drop(columns=["unit", "tried", "order"]), on=_KEY, how="left", sort=False)
    table = table.sort_values("order", kind="stable").drop(columns="order")
    table = table.assign(group=joint.group, law=joint.law.name,
                         ci_prob=float(joint.settings["ci_prob"]))
    for name in ("median", "lower", "upper"):
        if f"without_{name}" not in table:
            table[f"without_{name}"] = np.nan
    if "without_status" not in table:
        table["without_status"] = ""
    table["without_status"] = table["without_status"].fillna("")
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    return table[JOINT_COLUMNS].reset_index(drop=True)


def _rows_of(fit: Fit) -> pd.DataFrame:
    """Return one fit's rows, numbered in the order to print them."""
    held = fit.cbs[[*_KEY, "unit", *_SIDE]].assign(tried=1)
    rows = [*_noise_rows(fit), *_predicted_rows(fit)]
    table = pd.concat([held, pd.DataFrame(rows)], ignore_index=True) if rows else held
    return table.assign(order=np.arange(len(table)))


def _noise_rows(fit: Fit) -> Iterator[dict[str, object]]:
    for name in ("noise_offset", "noise_scatter"):
        if name in fit.posterior:
            draws = fit.posterior[name].values.reshape(-1)
            yield _row(fit, draws, name, "", "log", np.nan, tried=1)


def _predicted_rows(fit: Fit) -> Iterator[dict[str, object]]:
    if not fit.law.two_axis:
        return
    cells = _cells(fit.crossings)
    around = _around(cells, fit.law)
    new = new_run_log_steps(fit, *np.array(around).T, random_seed=0)
    typical = _log_steps(fit.law, stacked(fit.posterior), np.array(around))
    for b, cell in enumerate(around):
        at = f"n_prompts={cell[0]:g},n_rollouts={cell[1]:g}"
        inside = int(_inside(cell, cells))
        for k, threshold in enumerate(fit.thresholds.tolist()):
            if cell not in cells:
                yield _row(fit, np.exp(typical[:, b, k]), "steps", at, "updates", threshold,
                           tried=inside)
            yield _row(fit, np.exp(new[:, b, k]), "steps_new_run", at, "updates", threshold,
                       tried=inside)


def _row(fit: Fit, draws: np.ndarray, quantity: str, at: str, unit: str, threshold: float, *,
         tried: int) -> dict[str, object]:
    low, high = interval(draws, float(fit.settings["ci_prob"]))
    return {"threshold": threshold, "quantity": quantity, "at": at, "unit": unit, "tried": tried,
            "median": float(np.median(draws)), "ci_lower": low, "ci_upper": high,
            "status": "identified"}


def _cells(crossings: xr.Dataset) -> list[tuple[float, float]]:
    """Return the batches of the runs fitted, sorted."""
    return sorted(set(zip(crossings["n_prompts"].values.astype(float).tolist(),
                          crossings["n_rollouts"].values.astype(float).tolist(), strict=True)))


def _around(cells: list[tuple[float, float]], law: Law) -> list[tuple[float, float]]:
    """Return batches a quarter to four times one that was tried, along either axis.

    That one is where most batches tried lie on its two lines, the middle one of several.
    """
    least = 1.0 if law.needs_baseline_group else 0.0
    on_lines = [sum(p == c[0] or g == c[1] for c in cells) for p, g in cells]
    best = [cell for cell, n in zip(cells, on_lines, strict=True) if n == max(on_lines)]
    prompts, rollouts = best[len(best) // 2]
    found = {(float(round(f * prompts)), rollouts) for f in _FACTORS}
    found |= {(prompts, float(round(f * rollouts))) for f in _FACTORS}
    return sorted((p, g) for p, g in found if p >= 1 and g > least)


def _inside(cell: tuple[float, float], cells: list[tuple[float, float]]) -> bool:
    """Return whether a batch lies on a line between two batches tried."""
    if cell in cells:
        return True
    for axis in (0, 1):
        line = [c[axis] for c in cells if c[1 - axis] == cell[1 - axis]]
        if line and min(line) <= cell[axis] <= max(line):
            return True
    return False


def _log_steps(law: Law, draws: xr.Dataset, batches: np.ndarray) -> np.ndarray:
    """Return log S of a typical run, dims (sample, batch, threshold)."""
    prompts, rollouts = (xr.DataArray(axis, dims="batch") for axis in batches.T)
    return (Surface(law, draws).log_steps(prompts, rollouts)
            .transpose("sample", "batch", "threshold").values)


def new_run_log_steps(
    fit: Fit, n_prompts: np.ndarray, n_rollouts: np.ndarray, *, random_seed: int = 0
) -> np.ndarray:
    """Return log S (updates) of one new run at batches, shape (draw, batch, threshold).

    The law, an effect of the run, and a residual; thresholds are drawn apart from each other.

    Parameters
    ----------
    fit : Fit
        Of the crossing model.
    n_prompts, n_rollouts : array_like
        Batches, shape (batch,).
    random_seed : int
        Seed of what is drawn.
    """
    draws, rng = stacked(fit.posterior), np.random.default_rng(random_seed)
    log_s = _log_steps(fit.law, draws, np.column_stack([n_prompts, n_rollouts]).astype(float))
    sd = draws["sigma_residual"].values[:, None]
    if "residual_trend" in draws:
        threshold_logit = fit.tree["constant_data"]["threshold_logit"].values
        sd = sd * np.exp(draws["residual_trend"].values[:, None] * threshold_logit)
    effect = rng.normal(size=log_s.shape[:2]) * draws["sigma_run"].values[:, None]
    residual = rng.logistic(scale=LOGISTIC_SCALE, size=log_s.shape) * sd[:, None, :]
    return log_s + effect[:, :, None] + residual


def _verdict(row: Mapping[Hashable, Any]) -> str:
    ends = [row[f"{side}_{end}"] for side in ("with", "without") for end in ("lower", "upper")]
    if not np.isfinite(ends).all():
        return ""
    if ends[0] > ends[3] or ends[2] > ends[1]:
        return "differ"
    either = (ends[2] <= row["with_median"] <= ends[3], ends[0] <= row["without_median"] <= ends[1])
    return "agree" if all(either) else "not_resolved"
