r"""The step-time model of a sweep: what the clock counts, and the batches it was measured at.

A run's time is its typical trainer step (`cbsbayes.sweep.training_metrics` says what that leaves
out), so a slow step counts for little and a run is one observation. A trainer step handles
``train_batch_prompts`` prompts and may be several optimizer updates; S counts updates, so

.. math:: \text{seconds per update} = t(P u / e,\; G) / u

with u updates per trainer step and e passes over each training batch. Other batches are predicted
with the u and e of most runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.step_time import KAPPA, Clock, fit_times
from cbsbayes.posterior.identification import identify
from cbsbayes.posterior.tidy import interval

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["CLOCK_COLUMNS", "SweepClock", "clock_of", "clock_of_sweep", "clock_table"]

CLOCK_COLUMNS = ["group", "quantity", "unit", "meaning", "median", "ci_lower", "ci_upper",
                 "ci_prob", "status", "r_hat", "ess_bulk", "ess_tail", "n_runs", "n_batches"]
_TERMS = {
    "t_0": ("seconds", "floor of a trainer step"),
    "c_p": ("seconds / prompt", "per prompt of a trainer step"),
    "c_r": ("seconds / sample", "per rollout of a trainer step"),
    "c_b": ("seconds / sample", "per sample of a trainer step"),
}
_MISFIT_SDS = 4.0  # of the middle of a batch's runs, from which the form is said to miss it


@dataclass(frozen=True, eq=False)
class SweepClock:
    """A sweep's clock.

    Attributes
    ----------
    clock : Clock
        The posterior, in seconds per trainer step.
    runs : pandas.DataFrame
        The timed runs: ``run, n_prompts, n_rollouts`` of one update (one-axis data: the total
        batch and 1), ``step_prompts`` of one trainer step, ``updates_per_step, seconds``.
    updates_per_step, epochs : int
        Of most runs, used for other batches.
    notes : list of str
        What a reader must know.
    """

    clock: Clock
    runs: pd.DataFrame
    updates_per_step: int
    epochs: int
    notes: list[str]

    @property
    def one_axis(self) -> bool:
        """Whether only total batches are known."""
        return "c_b" in self.clock.names

    @property
    def batches(self) -> np.ndarray:
        """The batches timed, shape (batch, 2)."""
        return np.unique(self.runs[["n_prompts", "n_rollouts"]].to_numpy(dtype=float), axis=0)

    def terms(self, batches: np.ndarray) -> np.ndarray:
        """Return the model's terms of a trainer step at batches of one update, (batch, term)."""
        prompts, rollouts = np.asarray(batches, dtype=float).T
        return _terms(prompts * self.updates_per_step / self.epochs, rollouts, self.one_axis)

    def seconds_per_update(self, batches: np.ndarray, speed_up: float = 1.0) -> np.ndarray:
        """Return draws of a typical run's seconds per update, shape (draw, batch).

        Parameters
        ----------
        batches : numpy.ndarray
            n_prompts and n_rollouts of one update, shape (batch, 2).
        speed_up : float
            What the part of a step that grows with the batch is divided by: GPUs over GPUs
            measured on, if work divides perfectly. t_0 stays.
        """
        terms = self.terms(batches)
        terms[:, 1:] /= speed_up
        return self.clock.typical(terms) / self.updates_per_step


def _terms(step_prompts: np.ndarray, rollouts: np.ndarray, one_axis: bool) -> np.ndarray:
    samples = step_prompts * rollouts
    columns = [np.ones(len(samples)), *([] if one_axis else [step_prompts]), samples]
    return np.stack(columns, axis=1)


def clock_of(fit: Fit) -> SweepClock:
    """Return the clock of the runs of a fit, fitted once.

    Raises
    ------
    CBSDataError
        If fewer than three of its runs have a step time.
    """
    return _once(_Same(fit.sweep), int(fit.settings.get("random_seed", 0)))


@dataclass(frozen=True, eq=False)
class _Same:
    """A dataset that is equal to itself alone; datasets cannot be keys of a cache."""

    sweep: xr.Dataset

    def __hash__(self) -> int:
        return id(self.sweep)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.sweep is self.sweep


@lru_cache(maxsize=4)
def _once(same: _Same, random_seed: int) -> SweepClock:
    return clock_of_sweep(same.sweep, random_seed=random_seed)


def clock_of_sweep(sweep: xr.Dataset, *, random_seed: int = 0) -> SweepClock:
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
    runs = _timed_runs(sweep)
    one_axis = bool((sweep["n_prompts"].values < 0).any())
    names = ("t_0", "c_b") if one_axis else ("t_0", "c_p", "c_r")
    terms = _terms(runs["step_prompts"].to_numpy(dtype=float),
                   runs["n_rollouts"].to_numpy(dtype=float), one_axis)
    clock = fit_times(runs["seconds"].to_numpy(), terms, names, random_seed=random_seed)
    updates, epochs = (int(runs[name].mode().iloc[0]) for name in ("updates_per_step", "epochs"))
    return SweepClock(clock, runs, updates, epochs, _notes(runs, clock, terms, updates))


def _timed_runs(sweep: xr.Dataset) -> pd.DataFrame:
    one_axis = sweep["n_prompts"].values < 0
    table = pd.DataFrame({
        "run": sweep["run"].values.astype(str),
        "n_prompts": np.where(one_axis, sweep["total_batch"].values, sweep["n_prompts"].values),
        "n_rollouts": np.where(one_axis, 1, sweep["n_rollouts"].values),
        "updates_per_step": _whole(sweep, "updates_per_step"),
        "epochs": _whole(sweep, "ppo_epochs"),
        "seconds": sweep["step_time"].values if "step_time" in sweep else np.nan})
    stated = _whole(sweep, "train_batch_prompts", -1)
    derived = table["n_prompts"] * table["updates_per_step"] / table["epochs"]
    table["step_prompts"] = np.where(stated > 0, stated, derived)
    timed = table[np.isfinite(table["seconds"]) & (table["seconds"] > 0)]
    if len(timed) < 3:
        many = "no run has" if timed.empty else f"only {len(timed)} of {len(table)} runs have"
        raise CBSDataError(f"{many} a step time, so wall clock and cost are not answered; three "
                           "are needed: log perf/time_per_step or timing_s/step (in a table: a "
                           "column seconds_per_step) and ingest again")
    return timed.reset_index(drop=True)


def _whole(sweep: xr.Dataset, name: str, default: int = 1) -> np.ndarray:
    return sweep[name].values if name in sweep.coords else np.full(sweep.sizes["run"], default)


def _notes(runs: pd.DataFrame, clock: Clock, terms: np.ndarray, updates: int) -> list[str]:
    notes = []
    if "c_p" in clock.names and not _separable(terms):
        notes.append("The batches timed do not tell the cost of a prompt from that of a rollout "
                     "or of a step (one axis was varied): along that axis step times are known, "
                     "elsewhere they are as uncertain as the split is.")
    if runs["updates_per_step"].nunique() > 1:
        notes.append(f"Runs differ in updates per trainer step; other batches are predicted with "
                     f"{updates}, as most runs have.")
    if not clock.trusted:
        notes.append(f"The step-time fit has not converged (r_hat up to "
                     f"{clock.checks.r_hat.max():.3f}, {clock.checks.ess_bulk.min():.0f} effective "
                     "draws): read times with care.")
    return notes + _misfits(runs, clock, terms)


def _separable(terms: np.ndarray) -> bool:
    return bool(np.linalg.matrix_rank(terms / terms.max(axis=0)) == terms.shape[1])


def _misfits(runs: pd.DataFrame, clock: Clock, terms: np.ndarray) -> list[str]:
    """Name the batch that the form misses by most, if by more than its runs' spread allows."""
    off = np.log(runs["seconds"].to_numpy()) - np.median(np.log(clock.typical(terms)), axis=0)
    cells = runs.assign(off=off).groupby(["n_prompts", "n_rollouts"])["off"]
    table = cells.agg(["median", "size"]).reset_index()
    table = table[table["size"] > 1]
    if table.empty:
        return []
    sds = table["median"].abs() / (1.25 * np.median(clock.sigma) / np.sqrt(table["size"]))
    worst = table.loc[sds.idxmax()]
    if sds.max() < _MISFIT_SDS:
        return []
    return [f"At {worst['n_prompts']:g} prompts × {worst['n_rollouts']:g} rollouts the "
            f"{worst['size']:.0f} runs took {np.exp(worst['median']):.2f} times the predicted "
            "step time: the linear form misses it."]


def clock_table(sweep_clock: SweepClock, group: str, ci_prob: float) -> pd.DataFrame:
    """Return the table of ``clock.csv``: coefficients, how they add up, and the spread of runs.

    Columns `CLOCK_COLUMNS`. A coefficient that may be 0 has an upper bound only.
    """
    clock, n = sweep_clock.clock, len(sweep_clock.clock.names)
    rows = [_row(name, *_TERMS[name], clock.coefficients[:, k], clock.prior[:, k], ci_prob, clock,
                 k) for k, name in enumerate(clock.names)]
    rows.append(_row("kappa", "1", "1: floor and work add up; near 0: the larger of them",
                     clock.kappa, np.linspace(*KAPPA, len(clock.prior)), ci_prob, clock, n + 2))
    rows.append(_row("sigma_time", "1", "spread of the log step time over runs", clock.sigma,
                     None, ci_prob, clock, n))
    shared = {"group": group, "ci_prob": ci_prob, "n_runs": len(sweep_clock.runs),
              "n_batches": len(sweep_clock.batches)}
    return pd.DataFrame([shared | row for row in rows], columns=CLOCK_COLUMNS)


def _row(
    name: str, unit: str, meaning: str, draws: np.ndarray, prior: np.ndarray | None,
    ci_prob: float, clock: Clock, check: int,
) -> dict[str, Any]:
    judged = _above_one(draws) if name == "kappa" else draws
    status = "identified" if prior is None else identify(judged, prior, log_scale=name != "kappa")
    lower, upper = interval(draws, ci_prob)
    known = status == "identified"
    return {"quantity": name, "unit": unit, "meaning": meaning, "status": status,
            "median": float(np.median(draws)) if known else np.nan,
            "ci_lower": lower if known or status == "lower_bound" else np.nan,
            "ci_upper": upper if known or status == "upper_bound" else np.nan,
            **{key: float(values[check]) for key, values in clock.checks._asdict().items()}}


def _above_one(kappa: np.ndarray) -> np.ndarray:
    """Return kappa with draws of the sum spread over what stands for it in the prior."""
    out, whole = kappa.copy(), kappa >= 1.0
    out[whole] = np.linspace(1.0, KAPPA[1], whole.sum())
    return out
