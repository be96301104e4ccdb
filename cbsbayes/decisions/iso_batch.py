"""Runs of one total batch, predicted by a fit that left them out, beside what was observed.

The prediction is of the mean log S of as many new runs as a split had: the law, their own effects
and what is left over. A split disagrees where even the bounds of its crossings, the last
evaluations before or the first ones after, lie outside the predictive interval; runs that never
arrived count from where they ended. That is slow to accuse, as a check beside a coarse grid of
evaluations has to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.rules import INTERVAL, RIGHT, UNUSABLE
from cbsbayes.decisions.batches import interval_columns, share_least
from cbsbayes.errors import CBSDataError

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["CHECK_COLUMNS", "VERDICTS", "check_table", "fit_without", "iso_runs"]

CHECK_COLUMNS = ["group", "law", "threshold", "total_batch", "n_prompts", "n_rollouts", "n_runs",
                 "n_not_reached", "observed", "observed_lower", "observed_upper", "predicted",
                 "predicted_lower", "predicted_upper", "ci_prob", "applies_to", "p_best",
                 "p_least", "observed_least", "verdict", "runs_seen"]
VERDICTS = ("agree", "slower", "faster")


def iso_runs(fit: Fit, total: int) -> xr.Dataset:
    """Return the crossings of the fitted runs at a total batch.

    Raises
    ------
    CBSDataError
        If fewer than two splits of it were run.
    """
    here = fit.crossings["total_batch"].values == total
    rollouts = np.unique(fit.crossings["n_rollouts"].values[here])
    if len(rollouts) < 2 or (rollouts < 0).any():
        raise CBSDataError(f"no two splits of {total:,d} samples were run and fitted: there is "
                           "nothing to check predictions against")
    return fit.crossings.isel(run=np.flatnonzero(here))


def fit_without(fit: Fit, total: int) -> Fit:
    """Return a fit of the same law and targets to the runs at other total batches.

    Raises
    ------
    CBSDataError
        If the other runs do not tell both axes apart, or cannot be fitted.
    """
    from cbsbayes.inference.sampling import SamplerSettings
    from cbsbayes.posterior.fit_sweep import fit_sweep

    held = iso_runs(fit, total)["run"].values
    others = fit.crossings.isel(run=~np.isin(fit.crossings["run"].values, held))
    for axis in ("n_prompts", "n_rollouts"):
        if len(np.unique(others[axis].values)) < 2:
            raise CBSDataError(f"without the runs of {total:,d} samples {axis} does not vary, so "
                               "that no other runs can predict their splits")
    kept = fit.sweep.isel(run=~np.isin(fit.sweep["run"].values, held))
    rule = fit.settings["rule"]
    settings = SamplerSettings(chains=2, random_seed=int(fit.settings["random_seed"]))
    return fit_sweep(
        kept, law=fit.law.name, model=fit.settings.get("model", "crossing"),
        thresholds=fit.thresholds.tolist(), metric=fit.settings["metric"] or None,
        rule="isotonic" if rule == "table" else rule, ci_prob=fit.settings["ci_prob"],
        sampler=settings, alternatives=False,
        ceiling_by_group=bool(fit.settings.get("ceiling_by_group", False)))


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
        Columns `CHECK_COLUMNS`, a row per threshold and split. ``observed`` is the geometric mean
        over runs of S, between those of the bounds; ``predicted`` the median and interval for the
        mean of so many new runs; ``p_best`` the predicted probability that this split is the best
        of those run in the population, ``p_least`` that its mean over so many new runs is the
        least, and ``observed_least`` whether it was (never where a run did not arrive).

    Raises
    ------
    CBSDataError
        If fewer than two splits were run.
    """
    runs = iso_runs(fit, total)
    by = fit if predictor is None else predictor
    tables = []
    for threshold in by.thresholds.tolist():
        observed = _observed(runs.sel(threshold=threshold, method="nearest"))
        tables.append(_beside_prediction(by, threshold, observed, fit.settings))
    return pd.concat(tables, ignore_index=True).assign(
        group=fit.group, law=fit.law.name, total_batch=total, ci_prob=fit.settings["ci_prob"],
        applies_to="mean of new runs", runs_seen=predictor is None)[CHECK_COLUMNS]


def _observed(at: xr.Dataset) -> pd.DataFrame:
    """Return a row per split run: its runs and the mean log bounds of their crossings."""
    known = at.isel(run=np.flatnonzero(at["status"].values != UNUSABLE))
    status = known["status"].values
    with np.errstate(divide="ignore"):
        lower, upper = np.log(known["lower"].values), np.log(known["upper"].values)
    middle = np.where(status == INTERVAL, 0.5 * (lower + upper), np.nan)
    table = pd.DataFrame({"n_prompts": known["n_prompts"].values,
                          "n_rollouts": known["n_rollouts"].values, "lower": lower,
                          "upper": upper, "middle": middle, "not_reached": status == RIGHT})
    by = table.groupby(["n_rollouts", "n_prompts"])
    means = by[["lower", "upper"]].mean()
    means["middle"] = by["middle"].agg(lambda values: values.mean(skipna=False))
    return means.assign(n_runs=by.size(), n_not_reached=by["not_reached"].sum()).reset_index()


def _beside_prediction(
    by: Fit, threshold: float, observed: pd.DataFrame, settings: dict[str, Any]
) -> pd.DataFrame:
    """Return the columns of one threshold: what was observed, predicted, and the verdict."""
    prompts, rollouts, n_runs = (observed[name].to_numpy() for name in
                                 ("n_prompts", "n_rollouts", "n_runs"))
    runs = by.new_run(np.repeat(prompts, n_runs), np.repeat(rollouts, n_runs), threshold,
                      random_seed=int(settings.get("random_seed", 0))).values
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
