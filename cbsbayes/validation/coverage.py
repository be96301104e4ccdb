"""One simulated sweep: every method's intervals beside the truth; many: how often they hold it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.models.laws import Law, get_law
from cbsbayes.posterior.cautions import structure_caution
from cbsbayes.posterior.ceilings import check_ceilings, small_group_caution
from cbsbayes.simulation.truth import progress_at, truth_of
from cbsbayes.sweep.groups import choose_runs
from cbsbayes.validation.families import family_sweep, get_family
from cbsbayes.validation.least_squares_intervals import Intervals, least_squares_intervals
from cbsbayes.validation.models import MODELS, averaged_logs, posterior_tree, with_checks
from cbsbayes.validation.reading import Reading, true_logs

__all__ = ["ALL", "COLUMNS", "THRESHOLDS", "Settings", "coverage_table", "fitted_runs",
           "interval_rows", "numbers", "simulated_sweep"]

ALL = "all"
"""Label of the rows that pool all thresholds."""
THRESHOLDS = (0.60, 0.625, 0.65, 0.675, 0.70, 0.72)
COLUMNS = ("method", "threshold", "quantity", "truth", "estimate", "lower", "upper")
"""Of a finished sweep's rows; the last four are logarithms."""
_LATER = ("ceiling_by_group", "alarms", "average", "eval_every")  # older ledgers do not have them


@dataclass(frozen=True)
class Settings:
    """How every sweep of a study is simulated and fitted.

    Attributes
    ----------
    model, law : str
        Names of the model (`cbsbayes.validation.models.MODELS`) and of the law.
    thresholds : tuple of float
        Targets.
    chains, draws, tune : int
        Of the sampler.
    ci_prob : float
        Nominal probability of all intervals.
    n_bootstrap : int
        Resamples of the least-squares bootstrap.
    least_squares : bool
        Whether least squares is fitted as well.
    ceiling_by_group : bool
        Whether small groups may saturate lower (trajectory model).
    alarms : bool
        Whether it is counted how often a fit would warn that small groups saturate lower.
    average : bool
        Whether the laws that a fit compares are fitted too, and what is averaged over all of
        them is held to the truth.
    eval_every : int or None
        Updates between evaluations of simulated runs; None: as the family has it.

    Raises
    ------
    CBSDataError
        If there is no such model or law, or the sampler cannot work with its settings.
    """

    model: str = "crossing"
    law: str = "two_axis_free"
    thresholds: tuple[float, ...] = THRESHOLDS
    chains: int = 2
    draws: int = 500
    tune: int = 500
    ci_prob: float = 0.9
    n_bootstrap: int = 200
    least_squares: bool = True
    ceiling_by_group: bool = False
    alarms: bool = False
    average: bool = False
    eval_every: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be fitted, before anything is."""
        if self.model not in MODELS:
            raise CBSDataError(f"unknown model {self.model!r}; valid: {', '.join(MODELS)}")
        if self.ceiling_by_group:
            check_ceilings(self.model, get_law(self.law))
        get_law(self.law)
        self.sampler(0)

    def sampler(self, random_seed: int) -> SamplerSettings:
        """Return the sampler's settings for one sweep, which has one core."""
        return SamplerSettings(draws=self.draws, tune=self.tune, chains=self.chains, cores=1,
                               random_seed=random_seed)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON gives them back."""
        values = asdict(self) | {"thresholds": list(self.thresholds)}
        return {name: value for name, value in values.items() if value or name not in _LATER}


def fitted_runs(ds: xr.Dataset, law: Law) -> xr.Dataset:
    """Return the runs that enter the fit."""
    reasons = choose_runs(ds, group_baseline=law.group_baseline)
    return ds.isel(run=[k for k, run in enumerate(ds["run"].values) if not reasons[str(run)]])


def simulated_sweep(family: str, settings: Settings, random_seed: int) -> dict[str, Any]:
    """Simulate a sweep of a family, fit it by every method and return the record to keep.

    Parameters
    ----------
    family : str
        One of `cbsbayes.validation.families.FAMILIES`.
    settings : Settings
        How it is fitted.
    random_seed : int
        Of simulation, sampler and bootstrap.

    Returns
    -------
    dict
        ``rows`` (columns `COLUMNS`) and ``sampling``, the sampler's worst numbers and seconds.
    """
    law, reading, of_family = get_law(settings.law), Reading(), get_family(family)
    if settings.eval_every:
        of_family = replace(of_family, arguments={**of_family.arguments,
                                                  "eval_every": settings.eval_every})
    ds = family_sweep(of_family, law, random_seed)
    truth = truth_of(ds)
    true = {t: true_logs(truth, t, reading) for t in settings.thresholds
            if progress_at(truth, t) > 0}  # an item set may show more than this before training
    return interval_rows(fitted_runs(ds, law), law, reading, settings, true, random_seed)


def interval_rows(
    fitted: xr.Dataset, law: Law, reading: Reading, settings: Settings,
    true: Mapping[float, Mapping[str, float]], random_seed: int,
) -> dict[str, Any]:
    """Return the record of one sweep from the runs to be fitted and the true values."""
    fit = partial(_fit, fitted, settings, random_seed)
    start = time.perf_counter()
    own = fit(law)
    sampling: dict[str, Any] = {"seconds": round(time.perf_counter() - start, 3)}
    posterior = with_checks(own)
    sampling |= numbers(posterior.attrs)
    methods = {"posterior": _intervals(reading.logs(law, posterior), settings)}
    if settings.average:
        logs, weights = averaged_logs(law, own, fitted, fit, reading)
        methods["averaged"] = _intervals(logs, settings)
        sampling["structure_alarm"] = bool(structure_caution(law, weights))
    if settings.alarms:
        sampling["alarm"] = bool(small_group_caution(fitted, law, None))
    if settings.least_squares:
        first, isotonic = (find_crossings(fitted, settings.thresholds, rule=rule)
                           for rule in ("first", "isotonic"))
        methods |= least_squares_intervals(
            first, isotonic, law, reading, ci_prob=settings.ci_prob,
            n_bootstrap=settings.n_bootstrap, random_seed=random_seed)
    rows = [[method, threshold, name, *(float(f"{value:.6g}") for value in (
                values[name], *ends[:, settings.thresholds.index(threshold)]))]
            for threshold, values in true.items() for method, intervals in methods.items()
            for name, ends in intervals.items() if name in values]
    return {"rows": rows, "sampling": sampling}


def _fit(fitted: xr.Dataset, settings: Settings, random_seed: int, law: Law) -> xr.DataTree:
    return posterior_tree(fitted, law, settings.thresholds, settings.model,
                          settings.sampler(random_seed), settings.ceiling_by_group)


def _intervals(logs: Mapping[str, xr.DataArray], settings: Settings) -> Intervals:
    """Return median and ends of the equal-tailed interval, shape (3, threshold) each."""
    tail = (1 - settings.ci_prob) / 2
    found = xr.Dataset(dict(logs)).quantile([0.5, tail, 1 - tail], ("chain", "draw"))
    found = found.sel(threshold=list(settings.thresholds), method="nearest")
    return {str(name): ends.broadcast_like(found["threshold"]).transpose("quantile", ...).values
            for name, ends in found.data_vars.items()}


def numbers(attrs: Mapping[Any, Any]) -> dict[str, float]:
    """Return those attributes that are numbers."""
    return {str(name): round(float(value), 4) for name, value in attrs.items()
            if isinstance(value, float | int | np.number)}


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
    case, keys = ["sweep", "threshold", "quantity"], ["method", "quantity", "threshold"]
    rows = intervals.assign(
        given=intervals[["lower", "upper"]].notna().all(axis=1),
        inside=intervals["truth"].between(intervals["lower"], intervals["upper"]),
        error=intervals["estimate"] - intervals["truth"],
        width=intervals["upper"] - intervals["lower"])
    for other in ("t", "boot"):
        widths = rows.loc[rows["method"] == f"log_fit_{other}", [*case, "width"]]
        matched = rows[case].merge(widths, how="left", on=case)["width"].to_numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            rows[f"over_{other}"] = rows["width"].to_numpy() / matched
    rows["threshold"] = [f"{t:g}" for t in rows["threshold"]]
    both = pd.concat([rows.assign(threshold=ALL), rows])
    return pd.DataFrame([dict(zip(keys, key, strict=True)) | _statistics(part)
                         for key, part in both.groupby(keys, sort=False)])


def _statistics(part: pd.DataFrame) -> dict[str, float]:
    given = part[part["given"]]
    by_sweep = given.groupby("sweep")["inside"].mean()
    return {"n": len(part), "given": part["given"].mean(), "log_bias": part["error"].median(),
            "coverage": given["inside"].mean(),
            "coverage_se": by_sweep.std() / np.sqrt(max(len(by_sweep), 1)),
            "log_width": given["width"].median(),
            "width_over_t": part["over_t"].median(), "width_over_boot": part["over_boot"].median()}
