"""One run an order of magnitude off the others: which, and what leaving it out changes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

__all__ = ["OddRun", "odd_run", "odd_run_sentence"]

_FACTOR = 3.0  # in S; runs of one batch seldom differ by more than a factor of 1.3
_SPREADS = 5.0  # robust standard deviations of the other runs
_NORMAL = 1.4826  # standard deviation over median absolute deviation of a normal distribution
_MAIN = ("cbs_prompts", "cbs_samples", "cbs_rollouts", "S_min")


class OddRun(NamedTuple):
    """A run, and its S over that of the law fitted to all.

    Attributes
    ----------
    run : str
        Its name.
    factor : float
        Posterior median.
    replicates : int
        Other runs at its batch.
    """

    run: str
    factor: float
    replicates: int


def odd_run(predictive: xr.DataArray, crossings: xr.Dataset) -> OddRun | None:
    """Return the run farthest off, where it is off by so much that a mistake is likely.

    Parameters
    ----------
    predictive : xarray.DataArray
        Replicated S of every run, updates, dims (chain, draw, run, threshold).
    crossings : xarray.Dataset
        Of the runs fitted.
    """
    off = _off(predictive.median(("chain", "draw")), crossings)
    values = off - np.median(off)
    batch = np.column_stack([crossings[name].values
                             for name in ("n_prompts", "n_rollouts", "total_batch")])
    alike = (batch[:, None] == batch).all(axis=2)
    np.fill_diagonal(alike, False)
    away = np.array([value - (np.median(values[others]) if others.any() else 0.0)
                     for value, others in zip(values, alike, strict=True)])
    # of two runs at one batch, the one nearer the law is not the odd one
    size = np.minimum(np.abs(away), np.abs(values))
    worst = int(size.argmax())
    spread = _NORMAL * float(np.median(np.abs(np.delete(values, worst))))
    if size[worst] < max(np.log(_FACTOR), _SPREADS * spread):
        return None
    return OddRun(str(crossings["run"].values[worst]), float(np.exp(values[worst])),
                  int(alike[worst].sum()))


def _off(steps: xr.DataArray, crossings: xr.Dataset) -> np.ndarray:
    """Return how far each run's intervals lie from the law, log updates, over its thresholds."""
    of_runs = steps.sel(run=crossings["run"], threshold=crossings["threshold"])
    expected = np.log(of_runs.transpose("run", "threshold").values)
    ordered = crossings.transpose("run", "threshold")
    with np.errstate(divide="ignore"):
        lower, upper = np.log(ordered["lower"].values), np.log(ordered["upper"].values)
    off = np.fmax(lower - expected, 0.0) + np.fmin(upper - expected, 0.0)
    known = ~np.isnan(ordered["lower"].values)
    return np.array([np.median(row[seen]) if seen.any() else 0.0
                     for row, seen in zip(off, known, strict=True)])


def odd_run_sentence(odd: OddRun, before: pd.DataFrame, after: pd.DataFrame | str) -> str:
    """Return what is odd and what leaving the run out changes.

    Parameters
    ----------
    odd : OddRun
        The run.
    before, after : pandas.DataFrame
        Tables like ``cbs.csv`` with and without it; a text where no fit is left without it.
    """
    many = (f" while {odd.replicates} other(s) at its batch did not" if odd.replicates else "")
    factor = (f"{odd.factor:.1f} times" if odd.factor > 1 else
              f"1/{1 / odd.factor:.1f} of")
    said = f"Run {odd.run} needed {factor} the updates that the law gives for its batch{many}: "
    said += "look at its settings, its unit and its target. "
    if isinstance(after, str):
        return said + f"Without it there is no fit: {after}."
    return said + _change(before, after)


def _change(before: pd.DataFrame, after: pd.DataFrame) -> str:
    keys = ["quantity", "threshold", "at"]
    both = before.merge(after, on=keys, suffixes=("", "_after"))
    both = both[both["quantity"].isin(_MAIN)]
    both = both.assign(rank=both["quantity"].map(_MAIN.index)).sort_values(["rank", "threshold"])
    if both.empty:
        return "Leaving it out changes which batches and thresholds can be fitted."
    first = both[both["rank"] == both["rank"].iloc[0]]
    row = first.iloc[len(first) // 2]
    at = f" at {row['at']}" if row["at"] else ""
    return (f"Leaving it out changes {row['quantity']}{at} (threshold {row['threshold']:g}) from "
            f"{_estimate(row, '')} to {_estimate(row, '_after')} {row['unit']}.")


def _estimate(row: pd.Series, ending: str) -> str:
    status = row[f"status{ending}"]
    lower, upper = row[f"ci_lower{ending}"], row[f"ci_upper{ending}"]
    if status == "identified":
        return f"{row[f'median{ending}']:.3g} ({lower:.3g} to {upper:.3g})"
    return {"upper_bound": f"below {upper:.3g}", "lower_bound": f"above {lower:.3g}"}.get(
        status, "not identified")
