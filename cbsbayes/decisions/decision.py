"""The whole answer to "which batch": every table, and what could not be answered and why.

Each part is answered where the fit allows it. What the user asked for by name and cannot have is
refused; what is only missing from a full answer is left out, with the reason.

Runs of the batch are predicted too, by a fit that left them out or by the fit that has seen them.
The prediction is of the mean log S of as many new runs as a split had: the law, their own effects
and what is left over. A split disagrees where even the bounds of its crossings, the last
evaluations before or the first ones after, lie outside the predictive interval; runs that never
arrived count from where they ended. That is slow to accuse, as a check beside a coarse grid of
evaluations has to be.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.intervals import INTERVAL, RIGHT, UNUSABLE
from cbsbayes.decisions.batches import (
    COLUMNS,
    as_fit,
    batches_run,
    interval_columns,
    one_threshold,
    share_least,
    table_of_fit,
)
from cbsbayes.decisions.budget import budget_table
from cbsbayes.decisions.front import Target, front_table, target_table
from cbsbayes.decisions.schedule import schedule_table
from cbsbayes.decisions.splits import BatchChoice, default_batch, group_size_table, split_table
from cbsbayes.decisions.time_to_target import Budget
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.nuts import SamplerSettings
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.posterior.tidy import CBS_COLUMNS

__all__ = ["VERDICTS", "Decision", "check_table", "decide", "fit_without",
           "iso_runs", "splits_run"]

VERDICTS = ("agree", "slower", "faster")


@dataclass(frozen=True)
class Decision:
    """What a fit says about which batch to run.

    Attributes
    ----------
    batch : BatchChoice
        The total batch whose splits were looked at, and why that one.
    threshold : float
        The target that sentences are about.
    tables : dict
        Tables by the name of their file: ``splits, group_size, targets, budget, schedule, front,
        iso_batch``;
        those that were not asked for or cannot be given are absent.
    no_splits : str
        Why there is no table of splits; empty where there is one.
    check_trusted : bool
        Whether the fit that left runs out, if there is one, passed its checks.
    """

    batch: BatchChoice
    threshold: float
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    no_splits: str = ""
    check_trusted: bool = True

    def table(self, name: str) -> pd.DataFrame:
        """Return a table, without rows where it is absent."""
        return self.tables.get(name, pd.DataFrame(columns=COLUMNS.get(name, CBS_COLUMNS)))

    def at_threshold(self, name: str) -> pd.DataFrame:
        """Return the rows of a table at the decision's threshold."""
        table = self.table(name)
        return table[np.isclose(table["threshold"].astype(float), self.threshold)]


def decide(
    fit: Fit | str | os.PathLike[str], *, batch: int | None = None,
    threshold: float | None = None, target: Target | None = None, budget: Budget | None = None,
    cost_ratio: float | None = None, left_out: bool = False, more_updates: float | None = None,
) -> Decision:
    """Return everything a fit says about which batch to run.

    Parameters
    ----------
    fit : Fit or path
        The fit, or the folder that holds it.
    batch : int, optional
        Samples of one update to be split; by default the sweep's own (`default_batch`).
    threshold : float, optional
        One fitted target; by default tables hold all, and sentences are about the middle one.
    target : Target, optional
        Updates or samples to be met.
    budget : Budget, optional
        Which batch, at which learning rate, reaches most with it.
    cost_ratio : float, optional
        Cost of a prompt (prefill) over that of a rollout (decoding).
    left_out : bool
        Whether runs of that batch are predicted by a fit that left them out, which is sampled
        anew; otherwise this fit predicts them, and the table says that it had seen them.
    more_updates : float, optional
        Share of the updates of the best split that a ramp of batch sizes may take more.

    Raises
    ------
    CBSDataError
        If this is no fit, or the batch, the threshold or what is to be left out is not possible.
    """
    fit = as_fit(fit)
    main = one_threshold(fit, threshold)
    levels = sorted(fit.thresholds.tolist()) if threshold is None else [main]
    choice = default_batch(fit.crossings)
    if batch is not None:
        choice = BatchChoice(batch, f"{batch:,d} samples, as asked")
    tables, no_splits, trusted = {}, "", True
    try:
        tables["splits"] = split_table(fit, choice.total, levels)
    except CBSDataError as error:
        if batch is not None:
            raise
        no_splits = str(error)
    group_sizes = group_size_table(fit, cost_ratio)
    if cost_ratio is not None and group_sizes.empty:
        raise CBSDataError(f"costs were given, but the law {fit.law.name} has no group size to "
                           "choose; leave them out, or fit a two-axis law")
    if not group_sizes.empty:
        tables["group_size"] = group_sizes[group_sizes["threshold"].isin(levels)]
    if target is not None:
        tables["targets"] = target_table(fit, target, levels)
    if budget is not None and budget.amounts:
        tables["budget"] = budget_table(fit, budget)
    if more_updates is not None:
        best = _best_split(fit, choice.total, tables.get("splits"), levels[-1])
        tables["schedule"] = schedule_table(fit, best, more_updates, threshold)
    tables["front"] = front_table(fit, levels)
    predictor = fit_without(fit, choice.total) if left_out else None
    if predictor is not None:
        trusted = bool(predictor.verdict["sampling"]["passed"])
    if left_out or splits_run(fit, choice.total) > 1:
        check = check_table(fit, choice.total, predictor)
        tables["iso_batch"] = check[check["threshold"].isin(levels)]
    return Decision(choice, main, tables, no_splits, trusted)


def _best_split(
    fit: Fit, total: int, splits: pd.DataFrame | None, threshold: float
) -> tuple[float, float]:
    """Return the split chosen at a threshold; where there is none, the batch run nearest to it."""
    if splits is not None:
        chosen = splits[splits["chosen"].astype(bool) & np.isclose(splits["threshold"], threshold)
                        & (splits["range"] != "extrapolated")]
        if len(chosen):
            return float(chosen["n_prompts"].iloc[0]), float(chosen["n_rollouts"].iloc[0])
    run = batches_run(fit.crossings)
    nearest = run[np.abs(np.log(run.prod(axis=1) / total)).argmin()]
    return float(nearest[0]), float(nearest[1])


def splits_run(fit: Fit, total: int) -> int:
    """Return of how many splits of a total batch there are runs; 0 where splits are not known."""
    rollouts = fit.crossings["n_rollouts"].values[fit.crossings["total_batch"].values == total]
    return 0 if (rollouts < 0).any() else len(np.unique(rollouts))


def iso_runs(fit: Fit, total: int) -> xr.Dataset:
    """Return the crossings of the fitted runs at a total batch.

    Raises
    ------
    CBSDataError
        If fewer than two splits of it were run.
    """
    if splits_run(fit, total) < 2:
        raise CBSDataError(f"no two splits of {total:,d} samples were run and fitted: there is "
                           "nothing to check predictions against")
    return fit.crossings.isel(run=np.flatnonzero(fit.crossings["total_batch"].values == total))


def fit_without(fit: Fit, total: int) -> Fit:
    """Return a fit of the same law and targets to the runs at other total batches.

    Raises
    ------
    CBSDataError
        If the other runs do not tell both axes apart, or cannot be fitted.
    """
    held, settings = iso_runs(fit, total)["run"].values, fit.settings
    others = fit.crossings.isel(run=~np.isin(fit.crossings["run"].values, held))
    for axis in ("n_prompts", "n_rollouts"):
        if len(np.unique(others[axis].values)) < 2:
            raise CBSDataError(f"without the runs of {total:,d} samples {axis} does not vary, so "
                               "that no other runs can predict their splits")
    return fit_sweep(
        fit.sweep.isel(run=~np.isin(fit.sweep["run"].values, held)), law=fit.law.name,
        model=settings.get("model", "crossing"), thresholds=fit.thresholds.tolist(),
        metric=settings["metric"] or None,
        rule="isotonic" if settings["rule"] == "table" else settings["rule"],
        ci_prob=settings["ci_prob"], alternatives=False,
        sampler=SamplerSettings(chains=2, random_seed=int(settings["random_seed"])),
        ceiling_by_group=settings.get("ceiling_by_group", False))


def check_table(fit: Fit, total: int, predictor: Fit | None = None) -> pd.DataFrame:
    """Return the table of ``iso_batch.csv``.

    Parameters
    ----------
    fit : Fit
        Holds the runs.
    total : int
        Their total batch.
    predictor : Fit, optional
        Of `fit_without`; without it the fit itself predicts, which has seen the runs.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS` of ``iso_batch``, a row per threshold and split. ``observed`` is the geometric
        mean over runs of S, between those of the bounds; ``predicted`` the median and interval for
        the mean of so many new runs at their learning rates; ``p_best`` the predicted probability
        that this split is the best of those run in the population, ``p_least`` that its mean over
        so many new runs is the least, and ``observed_least`` whether it was (never where a run did
        not arrive).

    Raises
    ------
    CBSDataError
        If fewer than two splits were run.
    """
    runs, by = iso_runs(fit, total), fit if predictor is None else predictor
    tables = [_beside_prediction(by, threshold, _observed(
        runs.sel(threshold=threshold, method="nearest"))) for threshold in by.thresholds.tolist()]
    return table_of_fit(fit, tables, "iso_batch", total_batch=total,
                        applies_to="mean of new runs", runs_seen=predictor is None)


def _observed(at: xr.Dataset) -> pd.DataFrame:
    """Return a row per split run: its runs and the mean log bounds of their crossings."""
    table = at.to_dataframe()
    table = table[table["status"] != UNUSABLE]
    with np.errstate(divide="ignore"):
        table[["lower", "upper"]] = np.log(table[["lower", "upper"]])
    table["middle"] = (0.5 * (table["lower"] + table["upper"])).where(table["status"] == INTERVAL)
    by = table.assign(not_reached=table["status"] == RIGHT).groupby(["n_rollouts", "n_prompts"])
    return by[["lower", "upper", "middle"]].mean(skipna=False).assign(
        n_runs=by.size(), n_not_reached=by["not_reached"].sum(),
        rates=by["learning_rate"].agg(list)).reset_index()


def _beside_prediction(by: Fit, threshold: float, observed: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of one threshold: what was observed, predicted, and the verdict."""
    prompts, rollouts, n_runs = (observed[name].to_numpy() for name in
                                 ("n_prompts", "n_rollouts", "n_runs"))
    rates = np.concatenate(observed["rates"].tolist()) if by.law.learning_rate else None
    runs = by.new_run(np.repeat(prompts, n_runs), np.repeat(rollouts, n_runs), threshold,
                      learning_rate=rates, random_seed=by.settings["random_seed"]).values
    mean = np.add.reduceat(runs, np.cumsum(n_runs) - n_runs, axis=1) / n_runs
    ends = interval_columns("predicted", mean, float(by.settings["ci_prob"]))
    reached = observed["middle"].notna().all()  # else the least of the means is not known
    slower = ends["predicted_upper"] < observed["lower"]
    faster = ends["predicted_lower"] > observed["upper"]
    columns = {"observed": observed["middle"], "observed_lower": observed["lower"],
               "observed_upper": observed["upper"], **ends}
    return pd.DataFrame({
        "threshold": threshold, "n_prompts": prompts, "n_rollouts": rollouts, "n_runs": n_runs,
        "n_not_reached": observed["n_not_reached"],
        **{name: np.exp(np.asarray(values)) for name, values in columns.items()},
        "p_best": share_least(by.log_steps(prompts, rollouts, threshold).values),
        "p_least": share_least(mean),
        "observed_least": reached & (observed["middle"] == observed["middle"].min()),
        "verdict": np.select([slower, faster], ["slower", "faster"], "agree")})
