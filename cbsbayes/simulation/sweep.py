r"""Sweeps with known truth: designs, what disturbs runs, and the curves that a trainer would log.

The batches of a sweep, phase by phase, as the study this package grew from laid them out:

===== =========================================================================
p1    prompts varied: n_prompts 32 … 1024 at n_rollouts 8
p2b   rollouts varied: n_rollouts 1 … 64 at n_prompts 128
p2c   iso-batch: 2048 samples split (2048, 1) … (64, 32)
lr    for grids of learning rates: n_prompts 32 … 512 at n_rollouts 8
lr2   the same at n_rollouts 4 and 16
batch one axis: total batch 32 … 8192, no prompts and rollouts told apart
===== =========================================================================

Every run goes through `cbsbayes.simulation.truth` at its own batch and speed. Beyond a run effect
and binomial noise, real runs have (`Disturbances`)

=================  ===========================================================================
heavy tails        run effects from a Student t: a run in twenty is far off
correlated noise   accuracy drifts around the curve as an AR(1) process in updates
wander             a run's own speed changes along the way, a random walk in log step
offset             a run is better or worse by a constant accuracy once it has started
=================  ===========================================================================

A wandering run behaves after s updates as one that trained :math:`\int_0^s e^{-v(s')} ds'` without
wandering, v a Brownian motion in log s': always forwards, and the population is without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.integrate import cumulative_trapezoid

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.simulation.truth import (
    Truth,
    mean_noise,
    progress_at,
    refuse,
    steps_over_progress,
    truth_json,
)
from cbsbayes.sweep.dataset import digest, new_sweep, validate

__all__ = ["DESIGNS", "Disturbances", "SweepOptions", "cells", "design_table",
           "levels", "simulate_sweep"]

DESIGNS: dict[str, list[tuple[int, int]]] = {
    "p1": [(2**k, 8) for k in range(5, 11)],
    "p2b": [(128, 2**k) for k in range(7)],
    "p2c": [(2048 // 2**k, 2**k) for k in range(6)],
    "lr": [(2**k, 8) for k in range(5, 10)],
    "lr2": [(2**k, g) for g in (4, 16) for k in range(5, 10)],
    "batch": [(2**k, 1) for k in range(5, 14)],
}
"""Cells (n_prompts, n_rollouts) by phase; of ``batch`` only the product counts."""

_ALL = ("p1", "p2b", "p2c")
_TAU_NODES = 4001
_METRIC = "simulated/accuracy"
_SHARES = np.array([0.25, 0.4, 0.55, 0.7, 0.85])  # of the gain, at the thresholds of the truth
_FIRST = 1 / 50  # share of a run before which its speed does not wander yet
_KNOTS = 200  # of the walk, evenly in log step


@dataclass(frozen=True)
class Disturbances:
    """How runs are disturbed; the defaults disturb nothing.

    Attributes
    ----------
    run_freedom : float
        Degrees of freedom of the run effect's t distribution, its scale kept; inf is normal.
    drift_sd : float
        Sd of accuracy's drift around the curve, once it has forgotten that it was 0 at the start.
    drift_memory : float
        Updates over which the drift falls to 1/e.
    wander : float
        Sd of the log speed gained over one e-fold of updates.
    offset_sd : float
        Sd of a run's constant offset in accuracy; before training there is none.
    """

    run_freedom: float = np.inf
    drift_sd: float = 0.0
    drift_memory: float = 75.0
    wander: float = 0.0
    offset_sd: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that disturb nothing or everything."""
        refuse(self, "positive", run_freedom=self.run_freedom > 0,
               drift_memory=self.drift_memory > 0)
        refuse(self, "0 and more", drift_sd=0 <= self.drift_sd < np.inf,
               wander=0 <= self.wander < np.inf, offset_sd=0 <= self.offset_sd < np.inf)

    def run_effects(self, rng: np.random.Generator, sigma_run: float, n_runs: int) -> np.ndarray:
        """Return each run's effect on log S, shape (run,)."""
        if np.isinf(self.run_freedom):
            return rng.normal(0.0, sigma_run, n_runs)
        return sigma_run * rng.standard_t(self.run_freedom, n_runs)

    def drift(self, rng: np.random.Generator, n_runs: int, step: np.ndarray) -> np.ndarray:
        """Return what is added to accuracy at the evaluations, shape (run, step), 0 at first."""
        drift = np.zeros((n_runs, len(step)))
        if self.drift_sd > 0:
            kept = np.exp(-np.diff(step) / self.drift_memory)
            for k, rho in enumerate(kept, start=1):
                fresh = self.drift_sd * np.sqrt(1.0 - rho**2)
                drift[:, k] = rho * drift[:, k - 1] + rng.normal(0.0, fresh, n_runs)
        if self.offset_sd > 0:
            drift += rng.normal(0.0, self.offset_sd, (n_runs, 1)) * (step > 0)
        return drift

    def trained_steps(
        self, rng: np.random.Generator, n_runs: int, step: np.ndarray
    ) -> np.ndarray:
        """Return the updates each run is worth at the evaluations, shape (run, step)."""
        if self.wander == 0 or step[-1] == 0:
            return np.broadcast_to(step, (n_runs, len(step)))
        knots = np.geomspace(step[-1] * _FIRST, step[-1], _KNOTS)
        sd = self.wander * np.sqrt(np.log(knots[1] / knots[0]))
        log_slowness = np.cumsum(rng.normal(0.0, sd, (n_runs, _KNOTS - 1)), axis=1)
        speed = np.hstack([np.ones((n_runs, 2)), np.exp(-log_slowness)])
        at = np.concatenate([[0.0], knots])
        worth = cumulative_trapezoid(speed, at, axis=1, initial=0)
        return np.array([np.interp(step, at, row) for row in worth])


def cells(design: str) -> list[tuple[str, int, int]]:
    """Return (phase, n_prompts, n_rollouts) of a design such as ``"p1+p2b"`` or ``"all"``.

    Raises
    ------
    CBSDataError
        If a phase is unknown, or ``batch`` is mixed with phases of two axes.
    """
    phases = list(_ALL) if design == "all" else design.split("+")
    for phase in phases:
        if phase not in DESIGNS:
            raise CBSDataError(f"unknown design {phase!r}; valid: all, or one or more of "
                               f"{', '.join(DESIGNS)} joined by '+'")
    if "batch" in phases and len(phases) > 1:
        raise CBSDataError(f"design {design!r} mixes one axis with two; simulate 'batch' alone")
    return [(phase, *cell) for phase in dict.fromkeys(phases) for cell in DESIGNS[phase]]


def design_table(design: str, seeds: int) -> pd.DataFrame:
    """Return one row per run of a design, each cell repeated for every seed.

    Parameters
    ----------
    design : str
        As for `cells`.
    seeds : int
        Replicates per cell.

    Returns
    -------
    pandas.DataFrame
        Columns ``run, name, phase, seed, n_prompts, n_rollouts, total_batch``; n_prompts and
        n_rollouts are -1 for one axis. Names are those `cbsbayes.ingest` understands.
    """
    if seeds < 1:
        raise CBSDataError(f"seeds is {seeds}; valid: 1 and more")
    rows = []
    for phase, prompts, rollouts in cells(design):
        one_axis = phase == "batch"
        shape = f"batch_b{prompts}" if one_axis else f"cbs_{phase}_np{prompts}_nr{rollouts}"
        rows += [{
            "run": f"{shape}_s{seed}", "name": f"{shape}_s{seed}", "phase": phase, "seed": seed,
            "n_prompts": -1 if one_axis else prompts, "n_rollouts": -1 if one_axis else rollouts,
            "total_batch": float(prompts * rollouts),
        } for seed in range(seeds)]
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class SweepOptions:
    """What may be asked of a simulated sweep besides its design.

    Attributes
    ----------
    eval_every, max_updates : int
        Updates between evaluations (the first before training), and length of every run.
    n_items : int
        Validation items: binomial noise at every evaluation, or the size of the fixed set.
    sigma_run : float
        Sd of the run effect on log S.
    alpha : float, optional
        Exponent of the truth; by default the law's own, or 1 where it leaves it free.
    law : str
        A name of `cbsbayes.models.laws`: which noise scales there are and how rollouts divide.
    curve : mapping
        Other parameters of `Truth`: ``start, gain, scale, shape, noise, reference, form,
        ceiling, rate_max, gamma, steepness, slope_below``.
    item_set : bool
        One fixed validation set for all runs: it bends the accuracy scale of all alike, and
        thresholds are statements on that scale.
    checkpoint_noise : float
        Sd of the level of accuracy from checkpoint to checkpoint.
    disturbances : Disturbances
        What else disturbs runs: heavy tails, correlated evaluations, wander.
    rates : sequence of float
        Learning rates, at each of which every run is repeated; none: each batch has its best.
    rate_exponent : float
        k of rates that go with the total batch to the k; they are those of the middle batch.
    """

    eval_every: int = 25
    max_updates: int = 600
    n_items: int = 1319
    sigma_run: float = 0.08
    alpha: float | None = None
    law: str = "two_axis"
    curve: Mapping[str, Any] = field(default_factory=dict)
    item_set: bool = False
    checkpoint_noise: float = 0.0
    disturbances: Disturbances = Disturbances()
    rates: Sequence[float] = ()
    rate_exponent: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        refuse(self, "1 and more", eval_every=self.eval_every >= 1, n_items=self.n_items >= 1,
               max_updates=self.max_updates >= 1)
        refuse(self, "0 and more", sigma_run=0 <= self.sigma_run < np.inf,
               checkpoint_noise=0 <= self.checkpoint_noise < np.inf)


def simulate_sweep(
    design: str = "all", seeds: int = 1, *, random_seed: int = 0, **options: Any
) -> xr.Dataset:
    """Return a simulated sweep that carries its truth.

    Parameters
    ----------
    design : str
        ``p1``, ``p2b``, ``p2c`` joined by ``+``, ``all`` of them, or ``batch`` (one axis).
    seeds : int
        Replicates of every cell.
    random_seed : int
        Seed of all that is random.
    **options
        Of `SweepOptions`: eval_every, max_updates, n_items, sigma_run, alpha, law, curve,
        item_set, checkpoint_noise, disturbances, rates, rate_exponent.

    Returns
    -------
    xarray.Dataset
        A valid sweep marked as simulated (attribute ``simulated`` = 1), with
        ``true_S_min, true_level`` and ``true_<scale>`` (threshold), ``true_run_effect`` (run) and
        attribute ``true_alpha``; `cbsbayes.simulation.truth` reads the rest.

    Raises
    ------
    CBSDataError
        If an argument is not valid.
    """
    asked = SweepOptions(**options)
    if random_seed < 0:
        raise CBSDataError(f"the random seed is {random_seed}; valid: 0 and more")
    rng, disturbances = np.random.default_rng(random_seed), asked.disturbances
    alpha = get_law(asked.law).alpha or 1.0 if asked.alpha is None else asked.alpha
    truth = Truth(law=asked.law, alpha=alpha, **asked.curve)
    runs = design_table(design, seeds)
    if asked.rates:
        runs = _at_rates(runs, asked.rates, asked.rate_exponent)
    if get_law(truth.law).two_axis and (runs["n_prompts"] < 0).any():
        raise CBSDataError(f"law {truth.law!r} has two axes, design {design!r} one; use "
                           "--law total")
    effect = disturbances.run_effects(rng, asked.sigma_run, len(runs))
    step = np.arange(0, asked.max_updates + 1, asked.eval_every, dtype=float)
    trained = disturbances.trained_steps(rng, len(runs), step)
    level = levels(truth, runs, effect, trained)
    level[:, 1:] += rng.normal(0.0, asked.checkpoint_noise, level[:, 1:].shape)
    level += disturbances.drift(rng, len(runs), step)
    n_items = asked.n_items
    if asked.item_set:
        truth = replace(truth, items=tuple(np.sort(rng.random(n_items)).tolist()))
        accuracy = truth.observed(level)
    else:
        accuracy = rng.binomial(n_items, np.clip(level, 0.0, 1.0)) / n_items
    ds = new_sweep(
        runs.assign(**_settings(truth.law)), accuracy=accuracy[:, None], step=step,
        metric=[_METRIC], n_items=[n_items],
        threshold=np.round(truth.start + truth.gain * _SHARES, 4),
        title=f"simulated sweep, design {design}, law {truth.law}, alpha {truth.alpha:g}",
        notes=["Simulated data, not measured."])
    return _with_truth(ds, truth, effect)


def _settings(law: str) -> dict[str, str]:
    estimators = {True: "grpo", False: "reinforce_plus_plus"}
    two_axis = get_law(law).two_axis
    return {"model": "simulated", "source": "simulate", "state": "finished",
            "algorithm": estimators[get_law(law).needs_baseline_group] if two_axis else ""}


def _at_rates(runs: pd.DataFrame, rates: Sequence[float], exponent: float) -> pd.DataFrame:
    """Return the runs repeated at learning rates."""
    batch = runs["total_batch"]
    scaling = (batch / np.exp(np.log(batch).mean())) ** exponent
    parts = []
    for rate in rates:
        names = [f"{run}_lr{value:.3g}" for run, value in zip(runs["run"], rate * scaling,
                                                              strict=True)]
        parts.append(runs.assign(run=names, name=names, learning_rate=rate * scaling))
    return pd.concat(parts, ignore_index=True)


def levels(
    truth: Truth, runs: pd.DataFrame | xr.Dataset, effect: np.ndarray, trained: np.ndarray
) -> np.ndarray:
    """Return each run's level of accuracy after `trained` updates, both of shape (run, step)."""
    total_batch, n_rollouts = np.asarray(runs["total_batch"]), np.asarray(runs["n_rollouts"])
    rates = np.asarray(runs["learning_rate"]) if "learning_rate" in runs else None
    rollouts = np.where(n_rollouts > 0, n_rollouts, 1)
    # No batch is faster than an infinite one: progress never exceeds updates times e^-u.
    tau = np.linspace(0.0, trained.max() * np.exp(np.abs(effect).max()), _TAU_NODES)
    needed = steps_over_progress(truth, total_batch / rollouts, rollouts, tau, rates)
    progress = [np.interp(updates, np.exp(u) * row, tau)
                for updates, u, row in zip(trained, effect, needed, strict=True)]
    return truth.level(np.array(progress), rollouts[:, None])


def _with_truth(ds: xr.Dataset, truth: Truth, effect: np.ndarray) -> xr.Dataset:
    thresholds = ds["threshold"].values
    means = [mean_noise(truth, t) for t in thresholds.tolist()]
    columns = {"S_min": (progress_at(truth, thresholds), "updates with an infinite batch",
                         "updates"),
               "level": (truth.level_at(thresholds), "level of accuracy there", "1")}
    units = {"B_prompt": "prompts", "B_rollout": "prompts x rollouts", "B_noise": "samples"}
    columns |= {name: (np.array([mean[name] for mean in means]),
                       "noise scale averaged over progress", units[name]) for name in means[0]}
    for name, (values, what, unit) in columns.items():
        ds[f"true_{name}"] = ("threshold", values,
                              {"long_name": f"simulated truth: {what}", "units": unit})
    ds["true_run_effect"] = ("run", effect, {"long_name": "simulated truth: run effect on log S",
                                             "units": "1"})
    if truth.items:
        ds["true_item"] = ("item", np.array(truth.items),
                           {"long_name": "simulated truth: difficulty of each item", "units": "1"})
    ds.attrs |= {"simulated": 1, "true_alpha": float(truth.alpha), "truth": truth_json(truth)}
    return validate(ds.assign_attrs(digest=digest(ds)))
