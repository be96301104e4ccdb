r"""The step times of a sweep: how long a step takes at any batch, and what a run costs by it.

A run's time is its typical trainer step (`cbsbayes.sweep.metrics` says what that leaves
out), so a slow step counts for little and a run is one observation. A trainer step handles
``train_batch_prompts`` prompts and may be several optimizer updates; S counts updates, so

.. math:: \text{seconds per update} = t(P u / e,\; G) / u

with u updates per trainer step and e passes over each training batch. Other batches are predicted
with the u and e of most runs. t is the model of `cbsbayes.models.step_time`.

A cost is any function of n_prompts, n_rollouts and updates: samples, GPU-hours from a rate, or
GPU-hours from these step times, the same that ``allocate --clock`` answers with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.decisions.batches import batches_run, positive, range_of
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.nuts import MAX_R_HAT, SamplerSettings, sample_density
from cbsbayes.models.laws import batch_axes
from cbsbayes.models.step_time import (
    log_density,
    log_step_time,
    parameters,
    prior_parameters,
    prior_scale,
    step_time_data,
)
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.quantities import Quantity
from cbsbayes.posterior.tidy import tidy

__all__ = ["Cost", "StepTimes", "SweepStepTimes", "fit_step_times",
           "hours_cost", "step_time_cost", "step_times_of", "step_times_of_sweep"]

_MEANING = {
    "t_0": ("seconds", "floor of a trainer step"),
    "c_p": ("seconds / prompt", "per prompt of a trainer step"),
    "c_r": ("seconds / sample", "per rollout of a trainer step"),
    "c_b": ("seconds / sample", "per sample of a trainer step"),
    "kappa": ("1", "1: floor and work add up; near 0: the larger of them"),
    "sigma_time": ("1", "spread of the log step time over runs"),
}
_SECONDS = 3600.0  # of an hour
_PRIOR_DRAWS = 4000
_FARTHEST = 50.0  # log deviation of a new run: beyond, exp overflows
_LEAST_ESS = 200.0
_MISFIT_SDS = 4.0  # of the middle of a batch's runs, from which the form is said to miss it


@dataclass(frozen=True, eq=False)
class StepTimes:
    """The posterior of a step-time model.

    Attributes
    ----------
    names : tuple of str
        Of the coefficients: the floor, then the work.
    draws, prior : xarray.Dataset
        The coefficients by name (seconds per unit of their term), ``kappa``, ``sigma_time``,
        ``nu``; dims (chain, draw).
    """

    names: tuple[str, ...]
    draws: xr.Dataset
    prior: xr.Dataset

    def population(self, terms: np.ndarray) -> np.ndarray:
        """Return the median step time at rows of terms, seconds, shape (sample, row)."""
        coefficients = np.stack([self._flat(name) for name in self.names], axis=-1)
        return np.exp(log_step_time(coefficients, self._flat("kappa"), terms))

    def deviation(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return log deviations of new runs from the population, shape (sample, n)."""
        nu, sigma = self._flat("nu")[:, None], self._flat("sigma_time")[:, None]
        return np.clip(rng.standard_t(nu, (len(nu), n)) * sigma, -_FARTHEST, _FARTHEST)

    def _flat(self, name: str) -> np.ndarray:
        return self.draws[name].values.reshape(-1)

    def table(self, ci_prob: float) -> pd.DataFrame:
        """Return the coefficients, κ and the spread of runs; see `cbsbayes.posterior.tidy.tidy`.

        A coefficient that may be 0 has an upper bound only.
        """
        names = (*self.names, "kappa", "sigma_time")
        found, before = ([Quantity(name, "", _MEANING[name][0], draws[name],
                                   log_scale=name != "kappa") for name in names]
                         for draws in (self.draws, self.prior))
        return tidy(found, before, ci_prob).assign(meaning=[_MEANING[name][1] for name in names])


def fit_step_times(
    seconds: np.ndarray, terms: np.ndarray, names: tuple[str, ...], *, random_seed: int = 0
) -> StepTimes:
    """Fit the step-time model to rows.

    Parameters
    ----------
    seconds : numpy.ndarray
        Observed step times, shape (row,); of runs (their typical step) or of single steps.
    terms : numpy.ndarray
        What each coefficient is multiplied by, shape (row, term), positive; ones for the floor.
    names : tuple of str
        Of the coefficients.
    random_seed : int
        Same seed and version: same draws.

    Raises
    ------
    CBSDataError
        If rows are not positive and finite, or fewer than 3.
    """
    data = step_time_data(seconds, terms)
    center, sd = prior_scale(data)

    settings = SamplerSettings(draws=1000, tune=300, random_seed=random_seed)
    found = sample_density(lambda position: log_density(position, data), center, sd, settings)
    rng = np.random.default_rng(random_seed)
    prior = prior_parameters(data, (1, _PRIOR_DRAWS), rng)
    return StepTimes(names, *(
        xr.Dataset({name: (("chain", "draw"), values) for name, values in zip(
            (*names, "kappa", "sigma_time", "nu"),
            (*np.moveaxis(p.coefficients, -1, 0), p.kappa, p.sigma, p.nu), strict=True)})
        for p in (parameters(found.position, data), prior)))


@dataclass(frozen=True, eq=False)
class SweepStepTimes:
    """Step times of a sweep.

    Attributes
    ----------
    model : StepTimes
        The posterior, in seconds per trainer step.
    runs : pandas.DataFrame
        The timed runs: ``run, n_prompts, n_rollouts`` of one update (one-axis data: the total
        batch and 1), ``step_prompts`` of one trainer step, ``updates_per_step, seconds``.
    batches : numpy.ndarray
        The batches timed, shape (batch, 2).
    updates_per_step, epochs : int
        Of most runs, used for other batches.
    notes : list of str
        What a reader must know.
    """

    model: StepTimes
    runs: pd.DataFrame
    batches: np.ndarray
    updates_per_step: int
    epochs: int
    notes: list[str]

    @property
    def one_axis(self) -> bool:
        """Whether only total batches are known."""
        return "c_b" in self.model.names

    def seconds_per_update(self, batches: np.ndarray, speed_up: float = 1.0) -> np.ndarray:
        """Return draws of the population's seconds per update, shape (sample, batch).

        Parameters
        ----------
        batches : numpy.ndarray
            n_prompts and n_rollouts of one update, shape (batch, 2).
        speed_up : float
            What the part of a step that grows with the batch is divided by: GPUs over GPUs
            measured on, if work divides perfectly. t_0 stays.
        """
        prompts, rollouts = np.asarray(batches, dtype=float).T
        step_prompts = prompts * self.updates_per_step / self.epochs
        terms = _terms(step_prompts, rollouts, self.model.names)
        terms[:, 1:] /= speed_up
        return self.model.population(terms) / self.updates_per_step


def _terms(step_prompts: np.ndarray, rollouts: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    samples = step_prompts * rollouts
    of = {"t_0": np.ones(len(samples)), "c_p": step_prompts, "c_r": samples, "c_b": samples}
    return np.stack([of[name] for name in names], axis=1)


@lru_cache(maxsize=4)
def step_times_of(fit: Fit) -> SweepStepTimes:
    """Return the step times of the runs of a fit, fitted once.

    Raises
    ------
    CBSDataError
        If fewer than three of its runs have a step time.
    """
    return step_times_of_sweep(fit.sweep, random_seed=fit.settings["random_seed"])


def step_times_of_sweep(sweep: xr.Dataset, *, random_seed: int = 0) -> SweepStepTimes:
    """Fit the step-time model to the runs of a sweep.

    Runs that are not fitted for their accuracy (one rollout per prompt, say) count here as well:
    their steps take what they take.

    Parameters
    ----------
    sweep : xarray.Dataset
        A sweep with ``step_time(run)``.
    random_seed : int
        Seed of the sampler.

    Raises
    ------
    CBSDataError
        If fewer than three runs have a step time.
    """
    names = ("t_0", "c_b") if (sweep["n_prompts"].values < 0).any() else ("t_0", "c_p", "c_r")
    runs, left_out = _of_one_machine(_timed_runs(sweep))
    prompts, rollouts = (runs[name].to_numpy(float) for name in ("step_prompts", "n_rollouts"))
    terms = _terms(prompts, rollouts, names)
    model = fit_step_times(runs["seconds"].to_numpy(), terms, names, random_seed=random_seed)
    updates, epochs = (int(runs[name].mode().iloc[0]) for name in ("updates_per_step", "epochs"))
    timed = batches_run(sweep.sel(run=runs["run"].to_numpy()))
    notes = [*left_out, *_notes(runs, model, terms)]
    return SweepStepTimes(model, runs, timed, updates, epochs, notes)


def _timed_runs(sweep: xr.Dataset) -> pd.DataFrame:
    prompts, rollouts = batch_axes(sweep)
    table = pd.DataFrame({
        "run": sweep["run"].values.astype(str), "n_prompts": prompts, "n_rollouts": rollouts,
        "updates_per_step": sweep["updates_per_step"].values,
        "epochs": sweep["ppo_epochs"].values, "seconds": sweep["step_time"].values,
        "gpus": sweep["n_gpus"].values if "n_gpus" in sweep.coords else -1})
    stated = sweep["train_batch_prompts"].values
    derived = table["n_prompts"] * table["updates_per_step"] / table["epochs"]
    table["step_prompts"] = np.where(stated > 0, stated, derived)
    timed = table[np.isfinite(table["seconds"]) & (table["seconds"] > 0)]
    if len(timed) < 3:
        many = "no run has" if timed.empty else f"only {len(timed)} of {len(table)} runs have"
        raise CBSDataError(f"{many} a step time, so wall clock and cost are not answered; three "
                           "are needed: log perf/time_per_step or timing_s/step (in a table: a "
                           "column seconds_per_step) and ingest again")
    return timed.reset_index(drop=True)


def _of_one_machine(timed: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the runs on the usual number of GPUs: times of several are never pooled."""
    usual = timed["gpus"].mode().iloc[0]
    others = timed["gpus"] != usual
    if not others.any():
        return timed, []
    kept = timed[~others].reset_index(drop=True)
    counts = ", ".join(str(n) if n > 0 else "unknown" for n in timed["gpus"].unique())
    if len(kept) < 3:
        raise CBSDataError(f"the {len(timed)} runs with a step time used different numbers of "
                           f"GPUs ({counts}); three on the same are needed for wall clock and cost")
    return kept, [f"Runs used different numbers of GPUs ({counts}); step times are those of the "
                  f"{len(kept)} runs on {usual if usual > 0 else 'an unknown number'}."]


def _notes(runs: pd.DataFrame, model: StepTimes, terms: np.ndarray) -> Iterator[str]:
    """Yield what a reader must know of the fitted step times."""
    if "c_p" in model.names and np.linalg.matrix_rank(terms / terms.max(axis=0)) < terms.shape[1]:
        yield ("The batches timed do not tell the cost of a prompt from that of a rollout or of a "
               "step (one axis was varied): along that axis step times are known, elsewhere they "
               "are as uncertain as the split is.")
    if runs["updates_per_step"].nunique() > 1:
        yield (f"Runs differ in updates per trainer step; other batches are predicted with "
               f"{runs['updates_per_step'].mode().iloc[0]}, as most runs have.")
    table = model.table(0.9)
    if table["r_hat"].max() > MAX_R_HAT or table["ess_bulk"].min() < _LEAST_ESS:
        yield (f"The step-time fit has not converged (r_hat up to {table['r_hat'].max():.3f}, "
               f"{table['ess_bulk'].min():.0f} effective draws): read times with care.")
    yield from _misfits(runs, model, terms)


def _misfits(runs: pd.DataFrame, model: StepTimes, terms: np.ndarray) -> Iterator[str]:
    """Yield the batch that the form misses by most, if by more than its runs' spread allows."""
    off = np.log(runs["seconds"].to_numpy()) - np.median(np.log(model.population(terms)), axis=0)
    table = runs.assign(off=off).groupby(["n_prompts", "n_rollouts"])["off"].agg(
        ["median", "size"]).query("size > 1").reset_index()
    error = 1.25 * float(model.draws["sigma_time"].median()) / np.sqrt(table["size"])
    sds = table["median"].abs() / error
    if table.empty or sds.max() < _MISFIT_SDS:
        return
    worst = table.loc[sds.idxmax()]
    yield (f"At {worst['n_prompts']:g} prompts × {worst['n_rollouts']:g} rollouts the "
           f"{worst['size']:.0f} runs took {np.exp(worst['median']):.2f} times the predicted "
           "step time: the linear form misses it.")


@dataclass(frozen=True)
class Cost:
    """A price and its unit; samples unless told otherwise.

    Attributes
    ----------
    unit : str
        ``samples`` or ``GPU-hours``.
    how : str
        Where it is from, in one sentence.
    rate : float
        Of a sample; where it is from step times, GPUs.
    step_times : SweepStepTimes or None
        Which batches were timed, where the price is from step times.
    """

    unit: str = "samples"
    how: str = "Cost in samples: n_prompts × n_rollouts × updates."
    rate: float = 1.0
    step_times: SweepStepTimes | None = None

    def draws(self, n_prompts: float, n_rollouts: float) -> np.ndarray:
        """Return draws of the price of one update, shape (draw,); one where it is certain.

        Parameters
        ----------
        n_prompts, n_rollouts : float
            The batch; of one axis the total batch and 1.
        """
        if self.step_times is None:
            return np.array([self.rate * n_prompts * n_rollouts])
        seconds = self.step_times.seconds_per_update(np.array([[n_prompts, n_rollouts]]))
        return seconds[:, 0] * self.rate / _SECONDS

    def range(self, n_prompts: float, n_rollouts: float) -> str:
        """Return where a batch lies among those timed (`range_of`); empty where none were."""
        if self.step_times is None:
            return ""
        return str(range_of([(n_prompts, n_rollouts)], self.step_times.batches)[0])


def hours_cost(seconds_per_sample: float, gpus: float = 1.0) -> Cost:
    """Return the cost in GPU-hours at so many seconds a sample on all GPUs together.

    Raises
    ------
    CBSDataError
        If either is not positive.
    """
    positive("--seconds-per-sample", seconds_per_sample)
    positive("--gpus", gpus)
    return Cost("GPU-hours", f"Cost in GPU-hours: {seconds_per_sample:g} s a sample on {gpus:g} "
                "GPU(s), as given.", seconds_per_sample * gpus / _SECONDS)


def step_time_cost(fit: Fit, gpus: float = 1.0) -> Cost:
    """Return the cost in GPU-hours from the step times that the fit's runs logged.

    The price is that of the population's seconds per update.

    Raises
    ------
    CBSDataError
        If fewer than three runs have a step time, or the number of GPUs is not positive.
    """
    positive("--gpus", gpus)
    try:
        times = step_times_of(fit)
    except CBSDataError as error:
        raise CBSDataError(f"{error}; or give --seconds-per-sample, or leave --cost at "
                           "samples") from error
    spread = np.expm1(float(times.model.draws["sigma_time"].median()))
    how = (f"Cost in GPU-hours: {gpus:g} GPU(s), posterior mean of seconds per update in the "
           f"population, from the step times of {len(times.runs)} runs at {len(times.batches)} "
           f"batches (runs of one batch differ by about {100 * spread:.0f} %); start, validation "
           "and checkpoints are not in it.")
    return Cost("GPU-hours", how, gpus, times)
