"""What the plots read off a fit: thresholds, runs, table rows, and the words for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.plots.scales import plain_number

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["INTERVAL", "LEFT", "RIGHT", "batch_label", "cbs_row", "ci_prob", "crossing_table",
           "default_threshold", "fixed_values", "mean_of_all", "metric_of", "one_threshold",
           "pick_thresholds", "run_table", "steps_label", "sweep_of", "threshold_label"]

LEFT, INTERVAL, RIGHT = 0, 1, 2
_RUN_COORDS = ("name", "phase", "seed", "n_prompts", "n_rollouts", "total_batch")


def sweep_of(fit_or_data: Fit | xr.Dataset) -> xr.Dataset:
    """Return the sweep of a fit, or the sweep itself."""
    return fit_or_data if isinstance(fit_or_data, xr.Dataset) else fit_or_data.sweep


def ci_prob(fit: Fit) -> float:
    """Return the probability of the intervals the fit was asked for."""
    return float(fit.settings.get("ci_prob", 0.9))


def pick_thresholds(
    fit: Fit, threshold: float | Sequence[float] | None, most: int = 6
) -> list[float]:
    """Return the thresholds to draw: those asked for, or all of the fit thinned to `most`.

    Raises
    ------
    CBSDataError
        If a threshold was not fitted; the message lists those that were.
    """
    fitted = np.sort(np.asarray(fit.thresholds, dtype=float))
    if threshold is None:
        keep = np.unique(np.linspace(0, len(fitted) - 1, min(most, len(fitted))).round())
        return [float(fitted[int(i)]) for i in keep]
    wanted = np.atleast_1d(np.asarray(threshold, dtype=float))
    return [_nearest(fitted, value) for value in wanted]


def _nearest(fitted: np.ndarray, value: float) -> float:
    near = np.flatnonzero(np.isclose(fitted, value, rtol=1e-9, atol=1e-12))
    if not near.size:
        listed = ", ".join(f"{t:g}" for t in fitted)
        raise CBSDataError(f"threshold {value:g} was not fitted; fitted thresholds: {listed}")
    return float(fitted[near[0]])


def default_threshold(fit: Fit) -> float:
    """Return the threshold with most interval-censored crossings, the highest among equals."""
    counts = (fit.crossings["status"] == INTERVAL).sum("run")
    best = counts.where(counts == counts.max(), drop=True)
    return float(best["threshold"].max())


def one_threshold(fit: Fit, threshold: float | None) -> float:
    """Return the one threshold asked for, or the default one."""
    return default_threshold(fit) if threshold is None else pick_thresholds(fit, threshold)[0]


def threshold_label(fit_or_data: Fit | xr.Dataset, threshold: float) -> str:
    """Return a threshold in words: "accuracy ≥ 0.7", or "target ≤ 3.2" for a loss."""
    sweep = sweep_of(fit_or_data)
    falling = sweep.attrs.get("direction", "increasing") == "decreasing"
    word = "target" if falling or "accuracy" not in sweep else "accuracy"
    return f"{word} {'≤' if falling else '≥'} {threshold:g}"


def steps_label(fit: Fit) -> str:
    """Return the unit of S: "updates", or what a table of crossings says it is."""
    unit = str(fit.crossings["lower"].attrs.get("units", "")) or "updates"
    return "updates" if unit in {"1", "update"} else unit


def metric_of(sweep: xr.Dataset, metric: str | None = None) -> str:
    """Return the validation metric to draw.

    Raises
    ------
    CBSDataError
        If the sweep holds no accuracy curves, or none of that metric.
    """
    if "accuracy" not in sweep:
        raise CBSDataError("no training curves: the sweep is a table of crossings; "
                           "ingest curves (run, step, accuracy) to draw them")
    metrics = [str(m) for m in sweep["metric"].values]
    chosen = metric or str(sweep.attrs.get("metric", "")) or metrics[0]
    if chosen not in metrics:
        raise CBSDataError(f"metric {chosen!r} is not in the sweep; metrics: {', '.join(metrics)}")
    return chosen


def run_table(data: xr.Dataset) -> pd.DataFrame:
    """Return one row per run with its coordinates; absent ones are '' or -1."""
    table: dict[str, Any] = {"run": data["run"].values.astype(str)}
    for name in _RUN_COORDS:
        blank = "" if name in {"name", "phase"} else -1
        values = data[name].values if name in data.coords else np.full(data.sizes["run"], blank)
        table[name] = values
    return pd.DataFrame(table)


def crossing_table(fit: Fit, threshold: float) -> pd.DataFrame:
    """Return the fitted runs' crossings of one threshold, without unusable ones.

    Returns
    -------
    DataFrame
        The columns of `run_table` with `lower` and `upper` (updates) and `status`.
    """
    at = fit.crossings.sel(threshold=threshold, method="nearest")
    table = run_table(fit.crossings)
    for name in ("lower", "upper", "status"):
        table[name] = at[name].values
    return table[table["status"] >= LEFT].reset_index(drop=True)


def batch_label(n_prompts: float, n_rollouts: float, total_batch: float) -> str:
    """Return a batch in words: "128 × 8", or the total where the axes are unknown."""
    if n_prompts > 0 and n_rollouts > 0:
        return f"{n_prompts:,.0f} × {n_rollouts:,.0f}"
    return plain_number(float(total_batch))


def fixed_values(at: object) -> dict[str, float]:
    """Return what a table's `at` holds fixed: "n_prompts=128,n_rollouts=8" as a dict."""
    pairs = (part.partition("=") for part in str(at).split(",") if "=" in part)
    return {name.strip(): float(value) for name, _, value in pairs}


def cbs_row(
    table: pd.DataFrame, quantity: str, threshold: float, fixed: Mapping[str, float]
) -> pd.Series | None:
    """Return the row of a CBS table for a quantity held at `fixed`, or None."""
    near = np.isclose(table["threshold"].to_numpy(dtype=float), threshold)
    rows = np.flatnonzero((table["quantity"] == quantity).to_numpy(dtype=bool) & near)
    matching = [row for row in rows if fixed_values(table["at"].array[row]) == dict(fixed)]
    return table.iloc[matching[0]] if matching else None


def mean_of_all(values: np.ndarray) -> np.ndarray:
    """Return the mean over axis 0 where every entry is there, NaN elsewhere.

    A mean over the seeds still running would jump where one stops.
    """
    whole = np.isfinite(values).all(axis=0)
    return np.where(whole, np.where(np.isfinite(values), values, 0.0).mean(axis=0), np.nan)
