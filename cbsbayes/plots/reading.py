"""What figures read off a fit: thresholds, runs, rows of tables, and the text for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.decisions.batches import fitted_threshold, middle_threshold
from cbsbayes.errors import CBSDataError
from cbsbayes.plots.scales import plain_number

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["INTERVAL", "LEFT", "RIGHT", "batch_label", "batch_of", "cbs_row", "ci_prob",
           "crossing_table", "fixed_values", "metric_of", "named", "one_threshold",
           "pick_thresholds", "run_table", "steps_at", "steps_label", "sweep_of", "target_text",
           "threshold_label"]

LEFT, INTERVAL, RIGHT = 0, 1, 2
_RUN_COORDS = {"name": "", "phase": "", "seed": -1, "n_prompts": -1, "n_rollouts": -1,
               "total_batch": -1}


def sweep_of(fit_or_data: Fit | xr.Dataset) -> xr.Dataset:
    """Return the sweep of a fit, or the sweep itself."""
    return fit_or_data if isinstance(fit_or_data, xr.Dataset) else fit_or_data.sweep


def ci_prob(fit: Fit) -> float:
    """Return the probability of the intervals the fit was asked for."""
    return float(fit.settings.get("ci_prob", 0.9))


def steps_at(fit: Fit, n_prompts: Any, n_rollouts: Any, threshold: float) -> np.ndarray:
    """Return posterior draws of S at batches, shape (sample, batch), updates."""
    return np.exp(fit.log_steps(n_prompts, n_rollouts, threshold).values)


def one_threshold(fit: Fit, threshold: float | None) -> float:
    """Return the threshold asked for, or the middle one, of which texts speak too."""
    return middle_threshold(fit) if threshold is None else fitted_threshold(fit, threshold)


def pick_thresholds(
    fit: Fit, threshold: float | Sequence[float] | None, most: int = 6
) -> list[float]:
    """Return the thresholds to draw: those asked for, or all of the fit thinned to `most`."""
    if threshold is not None:
        return [fitted_threshold(fit, float(value)) for value in np.atleast_1d(threshold)]
    fitted = np.sort(np.asarray(fit.thresholds, dtype=float))
    keep = np.unique(np.linspace(0, len(fitted) - 1, min(most, len(fitted))).round())
    return fitted[keep.astype(int)].tolist()


def target_text(fit_or_data: Fit | xr.Dataset) -> str:
    """Return what a threshold is one of: "accuracy ≥", or "target ≤" for a loss."""
    sweep = sweep_of(fit_or_data)
    falling = sweep.attrs.get("direction", "increasing") == "decreasing"
    named = "target" if falling or "accuracy" not in sweep else "accuracy"
    return f"{named} {'≤' if falling else '≥'}"


def named(fit_or_data: Fit | xr.Dataset, threshold: float) -> str:
    """Return the name of a threshold's curve: "≥ 0.7"."""
    return f"{target_text(fit_or_data)[-1]} {threshold:g}"


def threshold_label(fit_or_data: Fit | xr.Dataset, threshold: float) -> str:
    """Return a threshold as text: "accuracy ≥ 0.7", or "target ≤ 3.2" for a loss."""
    return f"{target_text(fit_or_data)} {threshold:g}"


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
    for name, blank in _RUN_COORDS.items():
        absent = np.full(data.sizes["run"], blank)
        table[name] = data[name].values if name in data.coords else absent
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
    """Return a batch as text: "128 × 8", or the total where the axes are unknown."""
    if n_prompts > 0 and n_rollouts > 0:
        return f"{n_prompts:,.0f} × {n_rollouts:,.0f}"
    return plain_number(float(total_batch))


def batch_of(run: pd.Series) -> str:
    """Return a run's batch as text."""
    return batch_label(run["n_prompts"], run["n_rollouts"], run["total_batch"])


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
