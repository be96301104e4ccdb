"""Runs that differ only in reuse: which may be compared, and what a sample costs in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.intervals import choose_thresholds, find_crossings
from cbsbayes.crossings.rules import UNUSABLE
from cbsbayes.errors import CBSDataError
from cbsbayes.models.reuse import ReuseData
from cbsbayes.sweep.dataset import choose_metric, is_one_axis
from cbsbayes.sweep.groups import choose_runs
from cbsbayes.sweep.off_policy import OFF_POLICY_KEYS

__all__ = ["ReuseRuns", "family_of", "reuse_families", "reuse_runs"]


@dataclass(frozen=True)
class ReuseRuns:
    """The runs of one family, ready to be compared.

    Attributes
    ----------
    family : str
        Model, data set, estimator, learning rate and mini-batches, which all runs share.
    data : ReuseData
        Their crossings.
    batches : list of (n_prompts, n_rollouts)
        By place in ``data.batch``.
    factors : list of int
        ``ppo_epochs`` by place in ``data.reuse``; the first is the reference.
    thresholds : numpy.ndarray
        Targets.
    runs : pandas.DataFrame
        A row per run: names, batch, reuse, and what was logged of `OFF_POLICY_KEYS`.
    reasons : dict
        Why runs of the family were left out.
    minibatches : int
        Mini-batches of a trainer step: updates are this many times the reuse.
    """

    family: str
    data: ReuseData
    batches: list[tuple[int, int]]
    factors: list[int]
    thresholds: np.ndarray
    runs: pd.DataFrame
    reasons: dict[str, str]
    minibatches: int

    def samples_per_update(self, batch: int, reuse: int) -> float:
        """Return the samples generated for one update: P·G over the reuse factor."""
        prompts, rollouts = self.batches[batch]
        return prompts * rollouts / self.factors[reuse]


def family_of(ds: xr.Dataset) -> np.ndarray:
    """Return each run's family: all that makes a group but the reuse, shape (run,)."""
    rate = np.where(np.isfinite(ds["learning_rate"].values), ds["learning_rate"].values, np.nan)
    parts = zip(ds["model"].values, ds["dataset"].values, ds["algorithm"].values, rate,
                _minibatches(ds), strict=True)
    labels = [" · ".join(str(part) for part in (
        model, data, algorithm, f"lr {lr:g}" if np.isfinite(lr) else "",
        f"{m} mini-batches" if m > 1 else "") if str(part)) or "all runs"
        for model, data, algorithm, lr, m in parts]
    return np.array(labels, dtype=np.str_)


def _minibatches(ds: xr.Dataset) -> np.ndarray:
    return ds["updates_per_step"].values // np.maximum(ds["ppo_epochs"].values, 1)


def reuse_families(ds: xr.Dataset) -> list[str]:
    """Return the families in which some batch was run at two reuse factors and more.

    Raises
    ------
    CBSDataError
        If there is none; the message says what the sweep holds.
    """
    if is_one_axis(ds):
        raise CBSDataError("the data give total batches only; reuse is compared at n_prompts and "
                           "n_rollouts: ingest runs with both")
    family = family_of(ds)
    found = [name for name in sorted(set(family)) if _shared_batches(ds, family == name)]
    if not found:
        epochs = ", ".join(f"{k}" for k in np.unique(ds["ppo_epochs"].values).tolist())
        raise CBSDataError(f"no batch was run at two reuse factors (ppo_epochs in the sweep: "
                           f"{epochs}) by runs that differ in nothing else; add runs like those "
                           "of training/phases/p3.toml beside the same batches at ppo_epochs 1")
    return found


def _shared_batches(ds: xr.Dataset, mask: np.ndarray) -> bool:
    cells = set(zip(ds["n_prompts"].values[mask].tolist(), ds["n_rollouts"].values[mask].tolist(),
                    ds["ppo_epochs"].values[mask].tolist(), strict=True))
    batches = [cell[:2] for cell in cells]
    return len(set(batches)) < len(batches)


def reuse_runs(
    ds: xr.Dataset, family: str, *, thresholds: list[float] | None = None,
    metric: str | None = None, rule: str = "isotonic",
) -> ReuseRuns:
    """Return the runs of one family with their crossings.

    Parameters
    ----------
    ds : xarray.Dataset
        A sweep.
    family : str
        One of `reuse_families`.
    thresholds : list of float, optional
        Targets; chosen on a round grid unless given.
    metric : str, optional
        Validation set; the sweep's default unless given.
    rule : {"isotonic", "first", "consecutive"}
        What counts as a crossing.

    Raises
    ------
    CBSDataError
        If no run of the family says anything about a threshold.
    """
    own = ds.isel(run=np.flatnonzero(family_of(ds) == family))
    reasons = choose_runs(own)
    own = own.isel(run=np.flatnonzero([reasons[str(run)] == "" for run in own["run"].values]))
    if "accuracy" in own:
        metric = choose_metric(own, metric)
    targets = (choose_thresholds(own, metric=metric, rule=rule) if thresholds is None
               else np.asarray(thresholds, dtype=float))
    crossings = find_crossings(own, targets, metric=metric, rule=rule)
    spoken = (crossings["status"] != UNUSABLE).any("threshold").values
    reasons |= {str(run): "says nothing about any threshold"
                for run in crossings["run"].values[~spoken]}
    crossings = crossings.isel(run=np.flatnonzero(spoken))
    if crossings.sizes["run"] == 0 or not _shared_batches(crossings, np.ones(spoken.sum(), bool)):
        raise CBSDataError(f"{family}: after leaving out runs that say nothing about the "
                           "thresholds, no batch is left at two reuse factors; give lower "
                           "--thresholds or train longer")
    return _assembled(own.sel(run=crossings["run"].values), crossings, family,
                      {run: why for run, why in reasons.items() if why})


def _assembled(
    own: xr.Dataset, crossings: xr.Dataset, family: str, reasons: dict[str, str]
) -> ReuseRuns:
    pairs = list(zip(own["n_prompts"].values.tolist(), own["n_rollouts"].values.tolist(),
                     strict=True))
    batches, factors = sorted(set(pairs)), sorted(set(own["ppo_epochs"].values.tolist()))
    lower, upper = (crossings[name].transpose("threshold", "run").values
                    for name in ("lower", "upper"))
    known = np.isfinite(lower)
    with np.errstate(divide="ignore"):
        low = np.log(np.where(known, lower, 0.0))
        high = np.log(np.where(known, upper, np.inf))
    data = ReuseData(low, high, np.array([batches.index(pair) for pair in pairs]),
                     np.array([factors.index(k) for k in own["ppo_epochs"].values.tolist()]))
    table = pd.DataFrame({"run": own["run"].values.astype(str), **{
        name: own[name].values for name in ("n_prompts", "n_rollouts", "ppo_epochs", "seed")}})
    for name in OFF_POLICY_KEYS:
        table[name] = own[name].values if name in own else np.nan
    return ReuseRuns(family, data, batches, factors, crossings["threshold"].values, table, reasons,
                     int(_minibatches(own)[0]))
