"""Which thresholds a sweep says something about, and how many runs reached each.

A threshold that no run reached, or that every run had passed by its first evaluation, leaves the
noise scales to their priors. It gives no numbers: it is left out with the reason, or refused where
no other is left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from cbsbayes.crossings.rules import INTERVAL, LEFT, RIGHT, UNUSABLE, curves_of
from cbsbayes.errors import CBSDataError

__all__ = ["Reached", "keep_reached", "reached_by", "uninformative_runs"]


class Reached(NamedTuple):
    """How many runs and batch sizes reached one threshold.

    Attributes
    ----------
    threshold : float
        The target.
    n_reached, n_runs : int
        Runs that reached it, of those that started below it.
    n_batches_reached, n_batches : int
        Their batch sizes likewise.
    """

    threshold: float
    n_reached: int
    n_runs: int
    n_batches_reached: int
    n_batches: int


def reached_by(crossings: xr.Dataset) -> list[Reached]:
    """Return a record per threshold, in order.

    Parameters
    ----------
    crossings : xarray.Dataset
        Of `cbsbayes.crossings.intervals.find_crossings`.
    """
    batches = list(zip(*(crossings[name].values.tolist()
                         for name in ("n_prompts", "n_rollouts", "total_batch")), strict=True))
    found = []
    for threshold in crossings["threshold"].values.tolist():
        status = crossings["status"].sel(threshold=threshold).values
        below, reached = status != UNUSABLE, np.isin(status, (LEFT, INTERVAL))
        found.append(Reached(threshold, int(reached.sum()), int(below.sum()),
                             *(len({batches[k] for k in np.flatnonzero(which)})
                               for which in (reached, below))))
    return found


def keep_reached(
    crossings: xr.Dataset, ds: xr.Dataset, metric: str | None = None,
) -> tuple[xr.Dataset, dict[float, str]]:
    """Return the crossings of thresholds that can be fitted, and why the others cannot.

    Parameters
    ----------
    crossings : xarray.Dataset
        Of `cbsbayes.crossings.intervals.find_crossings`.
    ds : xarray.Dataset
        The sweep they were found in.
    metric : str, optional
        Validation set; the sweep's default unless given.

    Returns
    -------
    crossings : xarray.Dataset
        Fewer thresholds, or the same.
    left_out : dict
        Threshold to reason.

    Raises
    ------
    CBSDataError
        If no threshold is left; the message says what was reached.
    """
    reached = np.isin(crossings["status"], (LEFT, INTERVAL)).any(axis=_run_axis(crossings))
    below = np.isin(crossings["status"], (INTERVAL, RIGHT)).any(axis=_run_axis(crossings))
    if (reached & below).all():
        return crossings, {}
    span = _span(crossings, ds, metric)
    left_out = {float(t): _reason(float(t), bool(up), bool(down), span)
                for t, up, down in zip(crossings["threshold"].values, reached, below, strict=True)
                if not (up and down)}
    if not (reached & below).any():
        raise CBSDataError(_refusal(left_out, span, ds))
    return crossings.isel(threshold=np.flatnonzero(reached & below)), left_out


def uninformative_runs(crossings: xr.Dataset) -> list[str]:
    """Return the runs of which no crossing is known, nor a bound on one."""
    none = (crossings["status"] == UNUSABLE).all("threshold").values
    return [str(run) for run in crossings["run"].values[none]]


def _run_axis(crossings: xr.Dataset) -> int:
    return crossings["status"].dims.index("run")


def _span(
    crossings: xr.Dataset, ds: xr.Dataset, metric: str | None
) -> tuple[float, float] | None:
    """Return the first of the starts and the best value reached; None of a table of crossings."""
    if "accuracy" not in ds:
        return None
    curves = curves_of(ds, metric=metric, rule=str(crossings.attrs["rule"]))
    values = curves.value[curves.usable]
    if not np.isfinite(values).any():
        return None
    return (curves.sign * float(np.nanmin(values[:, 0])), curves.sign * float(np.nanmax(values)))


def _reason(
    threshold: float, reached: bool, below: bool, span: tuple[float, float] | None
) -> str:
    if reached:
        why = "every run had passed it by its first evaluation"
    elif below:
        why = "no run reached it"
    else:
        why = "every run had passed it before training, or was not evaluated after"
    return why + _meant(threshold, span)


def _meant(threshold: float, span: tuple[float, float] | None) -> str:
    """Return a question where the threshold is in percent and the accuracies are not, or so."""
    if span is None:
        return ""
    low, high = sorted(span)
    if high <= 1 < threshold:
        other = threshold / 100
    elif threshold <= 1 < high:
        other = threshold * 100
    else:
        return ""
    return f" (did you mean {other:g}?)" if low < other <= high else ""


def _refusal(left_out: dict[float, str], span: tuple[float, float] | None, ds: xr.Dataset) -> str:
    parts = "; ".join(f"threshold {t:g}: {why}" for t, why in left_out.items())
    if span is None:
        held = ", ".join(f"{t:g}" for t in ds["threshold"].values)
        return f"{parts}. The table of crossings holds the thresholds {held}"
    return (f"{parts}. The runs went from {span[0]:.4g} at the start to {span[1]:.4g} at best; "
            "valid thresholds lie between the two")
