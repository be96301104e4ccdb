"""One simulated sweep: every method's intervals beside the truth."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.models.laws import Law, get_law
from cbsbayes.posterior.small_groups import small_group_caution
from cbsbayes.posterior.verdict import structure_caution
from cbsbayes.simulate import truth_of
from cbsbayes.simulation.truth import progress_at
from cbsbayes.sweep.groups import choose_runs
from cbsbayes.validation.average import averaged_logs, fitted_beside
from cbsbayes.validation.families import family_sweep, get_family
from cbsbayes.validation.least_squares import Intervals, least_squares_intervals
from cbsbayes.validation.posterior import by_threshold, interval, posterior_tree, with_checks
from cbsbayes.validation.reading import Reading
from cbsbayes.validation.truths import true_values

__all__ = ["COLUMNS", "THRESHOLDS", "Settings", "fitted_runs", "interval_rows", "numbers",
           "simulated_sweep"]

THRESHOLDS = (0.60, 0.625, 0.65, 0.675, 0.70, 0.72)
COLUMNS = ("method", "threshold", "quantity", "truth", "estimate", "lower", "upper")
"""Of a finished sweep's rows; the last four are logarithms."""


@dataclass(frozen=True)
class Settings:
    """How every sweep of a study is fitted.

    Attributes
    ----------
    model, law : str
        Names of the model and of the law.
    thresholds : tuple of float
        Targets.
    chains, draws, tune : int
        Of the sampler.
    ci_prob : float
        Nominal probability of all intervals.
    n_bootstrap : int
        Resamples of the least-squares bootstrap.
    least_squares : bool
        Whether least squares is fitted beside; it takes longer than a fast sampler.
    ceiling_by_group : bool
        Whether small groups may saturate lower (trajectory model).
    alarms : bool
        Whether it is counted how often a fit would say that small groups saturate lower.
    average : bool
        Whether the laws that a fit lays beside are fitted too, and what is averaged over all of
        them is held to the truth.
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

    def sampler(self, random_seed: int) -> SamplerSettings:
        """Return the sampler's settings for one sweep, which has one core."""
        return SamplerSettings(draws=self.draws, tune=self.tune, chains=self.chains, cores=1,
                               random_seed=random_seed)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON gives them back."""
        values = asdict(self) | {"thresholds": list(self.thresholds)}
        later = ("ceiling_by_group", "alarms", "average")  # older ledgers do not have them
        return {name: value for name, value in values.items() if value or name not in later}


def fitted_runs(ds: xr.Dataset, law: Law) -> xr.Dataset:
    """Return the runs that enter the fit."""
    reasons = choose_runs(ds, law)
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
    law, reading = get_law(settings.law), Reading()
    ds = family_sweep(get_family(family), law, random_seed)
    truth = truth_of(ds)
    true = {t: true_values(truth, t, reading) for t in settings.thresholds
            if progress_at(truth, t) > 0}  # an item set may show more than this before training
    return interval_rows(fitted_runs(ds, law), law, reading, settings, true, random_seed)


def interval_rows(
    fitted: xr.Dataset, law: Law, reading: Reading, settings: Settings,
    true: Mapping[float, Mapping[str, float]], random_seed: int,
) -> dict[str, Any]:
    """Return the record of one sweep from the runs to be fitted and the true values."""
    start = time.perf_counter()
    fit = partial(_fit, fitted, settings, random_seed)
    own = fit(law)
    seconds = time.perf_counter() - start
    posterior = with_checks(own)
    methods = {"posterior": _intervals(reading.logs(law, posterior), settings)}
    said: dict[str, bool] = {}
    if settings.average:
        logs, weights = averaged_logs(fitted_beside(law, own, fitted, fit), reading)
        methods["averaged"] = _intervals(logs, settings)
        said["structure_alarm"] = bool(structure_caution(law, weights))
    if settings.alarms:
        said["alarm"] = bool(small_group_caution(fitted, law, None))
    methods |= _beside(fitted, law, reading, settings, random_seed)
    rows = [[method, threshold, name, values[name],
             *ends[:, settings.thresholds.index(threshold)].tolist()]
            for threshold, values in true.items() for method, intervals in methods.items()
            for name, ends in intervals.items() if name in values]
    return {"rows": [_rounded(row) for row in rows],
            "sampling": {"seconds": round(seconds, 3), **numbers(posterior.attrs), **said}}


def _fit(fitted: xr.Dataset, settings: Settings, random_seed: int, law: Law) -> xr.DataTree:
    return posterior_tree(fitted, law, settings.thresholds, settings.model,
                          settings.sampler(random_seed), settings.ceiling_by_group)


def _intervals(logs: Mapping[str, xr.DataArray], settings: Settings) -> Intervals:
    """Return middle and ends at every threshold, shape (3, threshold) each."""
    return {name: np.stack([by_threshold(part, settings.thresholds)
                            for part in interval(draws, settings.ci_prob)])
            for name, draws in logs.items()}


def _beside(
    fitted: xr.Dataset, law: Law, reading: Reading, settings: Settings, random_seed: int
) -> dict[str, Intervals]:
    if not settings.least_squares:
        return {}
    first, isotonic = (find_crossings(fitted, settings.thresholds, rule=rule)
                       for rule in ("first", "isotonic"))
    return least_squares_intervals(first, isotonic, law, reading, ci_prob=settings.ci_prob,
                                   n_bootstrap=settings.n_bootstrap, random_seed=random_seed)


def _rounded(row: list[Any]) -> list[Any]:
    return [*row[:3], *(float(f"{value:.6g}") for value in row[3:])]


def numbers(attrs: Mapping[Any, Any]) -> dict[str, float]:
    """Return those attributes that are numbers."""
    return {str(name): round(float(value), 4) for name, value in attrs.items()
            if isinstance(value, float | int | np.number)}
