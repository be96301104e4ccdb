"""What all studies share: how sweeps are fitted, and which quantities are compared.

A further model enters `posterior_tree` and, to be calibrated, `cbsbayes.validation.calibration`.
Posterior draws, bootstrap draws and varied estimates are all read by `cbsbayes.posterior.surface`,
so that no method has formulas of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from scipy.optimize import brentq

from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.loo import law_weights, leave_one_run_out
from cbsbayes.inference.sampling import SamplerSettings, sample_crossings
from cbsbayes.inference.trajectory import sample_curves
from cbsbayes.models.crossing_data import crossing_data
from cbsbayes.models.laws import Law, get_law
from cbsbayes.models.trajectory import TrajectoryParameters
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.posterior.ceilings import check_ceilings
from cbsbayes.posterior.law_fit import curves_tree, mixed_draws, with_log_likelihood
from cbsbayes.posterior.quantities import OF_ONE_LAW, design_of
from cbsbayes.posterior.selection import alternative_laws
from cbsbayes.posterior.surface import Surface, steps_ratio
from cbsbayes.posterior.verdict import sampler_checks
from cbsbayes.simulation.truth import Truth, best_rate, mean_noise, progress_at, true_steps
from cbsbayes.sweep.groups import choose_runs

__all__ = ["COVERAGE_ONLY", "MODELS", "THRESHOLDS", "Reading", "Settings", "averaged_logs",
           "fitted_runs", "posterior_tree", "reading_of", "true_logs", "worst_numbers"]

MODELS = ("crossing", "trajectory")
THRESHOLDS = (0.60, 0.625, 0.65, 0.675, 0.70, 0.72)
COVERAGE_ONLY = ("ceiling_by_group", "alarms", "average", "eval_every")
"""Settings for coverage; ledgers hold them only where they were asked for."""
_ENDLESS = 1e12
_LOG_PROMPTS = (np.log(1e-2), np.log(1e6))  # where the true critical batch is looked for


@dataclass(frozen=True)
class Settings:
    """How every sweep of a study is simulated and fitted.

    Attributes
    ----------
    model, law : str
        Names of the model (`MODELS`) and of the law.
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
        return {name: value for name, value in values.items() if value or name not in COVERAGE_ONLY}


def fitted_runs(ds: xr.Dataset, law: Law) -> xr.Dataset:
    """Return the runs that enter the fit."""
    reasons = choose_runs(ds, group_baseline=law.group_baseline)
    return ds.isel(run=[k for k, run in enumerate(ds["run"].values) if not reasons[str(run)]])


def posterior_tree(
    sweep: xr.Dataset, law: Law, settings: Settings, random_seed: int
) -> xr.DataTree:
    """Return the fit of a model at the settings' thresholds.

    Parameters
    ----------
    sweep : xarray.Dataset
        The runs to be fitted, curves or a table of crossings.
    law : Law
        The law of S(P, G).
    settings : Settings
        Model, thresholds and sampler; of laws without group sizes no group saturates lower.
    random_seed : int
        Of the sampler.

    Returns
    -------
    xarray.DataTree
        Groups ``posterior`` (dims chain, draw, threshold: ``S_min``, the law's scales, ``alpha``
        where it is free, and what else the model has), ``sample_stats``, and ``log_likelihood`` of
        whole runs.

    Raises
    ------
    CBSDataError
        If the sweep cannot be fitted.
    """
    sampler = settings.sampler(random_seed)
    if settings.model == "crossing":
        data = crossing_data(find_crossings(sweep, settings.thresholds), law)
        return with_log_likelihood(sample_crossings(data, law, sampler), data, law)
    parameters = TrajectoryParameters(trajectory_data(sweep, law, None), law,
                                      ceiling_by_group=settings.ceiling_by_group and law.two_axis)
    return curves_tree(sample_curves(parameters, sampler), np.array(settings.thresholds),
                       random_seed)


def worst_numbers(tree: xr.DataTree) -> dict[str, float]:
    """Return the sampler's worst numbers, rounded, of a fit."""
    return {name: round(value, 4) for name, value in sampler_checks(tree)[1].items()}


def averaged_logs(
    law: Law, own: xr.DataTree, fitted: xr.Dataset, fit: Callable[[Law], xr.DataTree],
    reading: Reading,
) -> tuple[dict[str, xr.DataArray], dict[str, float]]:
    """Return the logarithms of what a user's fit averages over laws, and the laws' weights.

    Parameters
    ----------
    law : Law
        The law of `own`.
    own : xarray.DataTree
        Its fit.
    fitted : xarray.Dataset
        The runs.
    fit : callable
        From another law to its fit of the same runs.
    reading : Reading
        The batch at which quantities are compared.

    Raises
    ------
    CBSDataError
        If no law has a weight.
    """
    trees = {law.name: own} | {name: fit(get_law(name)) for name in alternative_laws(law, fitted)}
    weights = law_weights({name: leave_one_run_out(tree) for name, tree in trees.items()})
    if not any(weights.values()):
        raise CBSDataError("for no law is it known how it predicts runs left out: the importance "
                           "weights overflow")
    logs = {name: reading.logs(get_law(name), tree["posterior"].to_dataset())
            for name, tree in trees.items()}
    shared = [name for name in logs[law.name] if name not in {*OF_ONE_LAW, reading.noise_name}]
    return {name: mixed_draws({law: found[name] for law, found in logs.items()}, weights)
            for name in shared}, weights


@dataclass(frozen=True)
class Reading:
    """The batch at which S, gains and critical batch sizes are compared.

    Attributes
    ----------
    n_prompts, n_rollouts : int
        Of two axes; the total batch and 1 where there is one.
    one_axis : bool
        Whether batches are total batches.
    learning_rate : float or None
        At which S and the critical batch are compared too, beside the best one.
    """

    n_prompts: int = 128
    n_rollouts: int = 8
    one_axis: bool = False
    learning_rate: float | None = None

    @property
    def noise_name(self) -> str:
        """Name of the noise scale in prompts at the group size."""
        return f"N({self.n_rollouts})"

    def logs(self, law: Law, posterior: xr.Dataset) -> dict[str, xr.DataArray]:
        """Return the logarithm of every quantity compared, by name.

        Parameters
        ----------
        law : Law
            The law of the draws.
        posterior : xarray.Dataset
            ``S_min``, the law's scales and, where free, ``alpha``; dims chain, draw, threshold.
        """
        p, g = self.n_prompts, self.n_rollouts
        surface = Surface(law, posterior)
        critical = partial(surface.solve, steps_ratio(2.0), "prompts", g)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # limits 0 and inf
            found: dict[str, Any] = {
                name: np.log(posterior[name]) for name in ("S_min", *law.scales)}
            if self.one_axis:
                found |= {f"S({p})": surface.log_steps(p, 1),
                          "gain_total": surface.log_steps(2 * p, 1) - surface.log_steps(p, 1)}
            else:
                here = surface.log_steps(p, g)
                found |= {self.noise_name: np.log(_noise(law, g, posterior)), f"S({p},{g})": here,
                          "gain_prompts": surface.log_steps(2 * p, g) - here,
                          "gain_rollouts": surface.log_steps(p, 2 * g) - here,
                          f"cbs_prompts({g})": np.log(critical())}
            if law.alpha is None:
                found["alpha"] = np.log(posterior["alpha"])
            if law.learning_rate and self.learning_rate:
                rate = self.learning_rate
                found |= {"best_rate": np.log(surface.best_rate(p, g)),
                          "S_at_rate": surface.log_steps(p, g, rate),
                          "cbs_at_rate": np.log(critical(learning_rate=rate))}
        return found


def reading_of(ds: xr.Dataset) -> Reading:
    """Return the reading at the middle of the batches of a dataset."""
    design = design_of(ds)
    if design.one_axis:
        return Reading(round(design.total[(len(design.total) - 1) // 2]), 1, one_axis=True)
    groups = design.groups or sorted({g for _, g in design.batches})
    group = groups[len(groups) // 2]
    prompts = sorted({p for p, g in design.batches if g == group})
    return Reading(prompts[(len(prompts) - 1) // 2], group)


def true_logs(truth: Truth, threshold: float, reading: Reading) -> dict[str, float]:
    """Return the logarithms of the true quantities at one threshold.

    S at batches, gains and the critical batch come from integrating the training, at any exponent
    and with ceilings; noise scales are averages over progress. A quantity that this truth does not
    have (B_prompt where only the total batch counts) is absent. Without a learning rate they hold
    at that which is best at every moment: S is then up to 2 % below that of the best one rate.

    Parameters
    ----------
    truth : Truth
        Of the simulated sweep.
    threshold : float
        Target, on the scale of the validation set where one is fixed.
    reading : Reading
        The batch of two axes at which quantities are stated.
    """
    p, g = reading.n_prompts, reading.n_rollouts
    law, means = get_law(truth.law), mean_noise(truth, threshold)
    here, more_prompts, more_rollouts = np.log(true_steps(
        truth, [p, 2 * p, p], [g, g, 2 * g], threshold)).tolist()
    values = {"S_min": float(np.log(progress_at(truth, threshold))), f"S({p},{g})": here,
              "gain_prompts": more_prompts - here, "gain_rollouts": more_rollouts - here,
              f"cbs_prompts({g})": _true_critical(truth, g, threshold, None),
              "alpha": float(np.log(truth.alpha))}
    if rate := reading.learning_rate:
        values |= {"best_rate": float(np.log(best_rate(truth, p, g, threshold)[0])),
                   "S_at_rate": float(np.log(true_steps(truth, p, g, threshold, rate))),
                   "cbs_at_rate": _true_critical(truth, g, threshold, rate)}
    means[reading.noise_name] = _noise(law, g, means)
    return values | {name: float(np.log(value)) for name, value in means.items()}


def _true_critical(
    truth: Truth, n_rollouts: int, threshold: float, learning_rate: float | None
) -> float:
    """Return the log of the true critical batch, NaN where there is none."""
    def log_steps(prompts: float) -> float:
        return float(np.log(true_steps(truth, prompts, n_rollouts, threshold, learning_rate)))

    endless = log_steps(_ENDLESS)

    def above_critical(log_prompts: float) -> float:
        return log_steps(np.exp(log_prompts)) - endless - float(np.log(2.0))

    found = all(above_critical(end) * sign > 0 for end, sign in zip(_LOG_PROMPTS, (1, -1),
                                                                    strict=True))
    return float(brentq(above_critical, *_LOG_PROMPTS)) if found else np.nan


def _noise(law: Law, n_rollouts: int, scales: Any) -> Any:
    """Return the noise scale in prompts at a group size."""
    if not law.two_axis:
        return scales["B_noise"] / n_rollouts
    return law.noise_in_prompts(n_rollouts, scales["B_prompt"], scales["B_rollout"])
