"""Sweeps with known truth, for tests and for planning.

Every run goes through `cbsbayes.simulation.truth` at its own batch and speed; what is kept is what
a trainer would log: validation accuracy every few updates, until the run ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.simulation.designs import design_table
from cbsbayes.simulation.disturbances import Disturbances
from cbsbayes.simulation.truth import (
    Truth,
    mean_noise,
    progress_at,
    steps_over_progress,
    truth_json,
)
from cbsbayes.sweep.dataset import digest, new_sweep, validate
from cbsbayes.sweep.schema import AXES

__all__ = ["levels", "simulate_sweep"]

_TAU_NODES = 4001
_METRIC = "simulated/accuracy"


def simulate_sweep(
    design: str = "all",
    seeds: int = 1,
    *,
    eval_every: int = 25,
    n_items: int = 1319,
    max_updates: int = 600,
    sigma_run: float = 0.08,
    alpha: float | None = None,
    law: str = "two_axis",
    curve: Mapping[str, Any] | None = None,
    item_set: bool = False,
    checkpoint_noise: float = 0.0,
    disturbances: Disturbances = Disturbances(),  # noqa: B008 - frozen
    random_seed: int = 0,
) -> xr.Dataset:
    """Return a simulated sweep that carries its truth.

    Parameters
    ----------
    design : str
        ``p1``, ``p2b``, ``p2c`` joined by ``+``, ``all`` of them, or ``batch`` (one axis).
    seeds : int
        Replicates of every cell.
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
    curve : mapping, optional
        Other parameters of `Truth`: ``start, gain, scale, shape, noise, reference, form,
        ceiling``.
    item_set : bool
        One fixed validation set for all runs: it bends the accuracy scale of all alike, and
        thresholds are statements on that scale.
    checkpoint_noise : float
        Sd of the level of accuracy from checkpoint to checkpoint.
    disturbances : Disturbances
        What else disturbs runs: heavy tails, correlated evaluations, wander.
    random_seed : int
        Seed of all that is random.

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
    _check(eval_every, n_items, max_updates, sigma_run, checkpoint_noise)
    if random_seed < 0:
        raise CBSDataError(f"the random seed is {random_seed}; valid: 0 and more")
    exponent = alpha if alpha is not None else get_law(law).alpha or 1.0
    rng = np.random.default_rng(random_seed)
    truth = replace(Truth(law=law, alpha=exponent), **(curve or {}))
    runs = design_table(design, seeds)
    if get_law(law).two_axis and (runs["n_prompts"] < 0).any():
        raise CBSDataError(f"law {law!r} has two axes, design {design!r} one; use --law total")
    effect = disturbances.run_effects(rng, sigma_run, len(runs))
    step = np.arange(0, max_updates + 1, eval_every, dtype=float)
    trained = disturbances.trained_steps(rng, len(runs), step)
    level = levels(truth, runs["total_batch"].to_numpy(), runs["n_rollouts"].to_numpy(), effect,
                    trained)
    level[:, 1:] += rng.normal(0.0, checkpoint_noise, level[:, 1:].shape)
    level += disturbances.drift(rng, len(runs), step)
    if item_set:
        truth = replace(truth, items=tuple(np.sort(rng.random(n_items)).tolist()))
        accuracy = truth.observed(level)
    else:
        accuracy = rng.binomial(n_items, np.clip(level, 0.0, 1.0)) / n_items
    ds = new_sweep(
        runs.assign(**_settings(law)), accuracy=accuracy[:, None], step=step, metric=[_METRIC],
        n_items=[n_items], title=f"simulated sweep, design {design}, law {law}, "
        f"alpha {exponent:g}", notes=["Simulated data, not measured."])
    return _with_truth(ds, truth, effect)


def _check(
    eval_every: int, n_items: int, max_updates: int, sigma_run: float, checkpoint_noise: float
) -> None:
    for name, value in {"eval_every": eval_every, "n_items": n_items,
                        "max_updates": max_updates}.items():
        if value < 1:
            raise CBSDataError(f"{name} is {value}; valid: 1 and more")
    for name, sd in {"sigma_run": sigma_run, "checkpoint_noise": checkpoint_noise}.items():
        if not 0 <= sd < np.inf:
            raise CBSDataError(f"{name} is {sd}; valid: 0 and more")


def _settings(law: str) -> dict[str, str]:
    estimators = {True: "grpo", False: "reinforce_plus_plus"}
    two_axis = get_law(law).two_axis
    return {"model": "simulated", "source": "simulate", "state": "finished",
            "algorithm": estimators[get_law(law).needs_baseline_group] if two_axis else ""}


def levels(
    truth: Truth, total_batch: np.ndarray, n_rollouts: np.ndarray, effect: np.ndarray,
    trained: np.ndarray,
) -> np.ndarray:
    """Return each run's level of accuracy after `trained` updates, both of shape (run, step)."""
    rollouts = np.where(n_rollouts > 0, n_rollouts, 1)
    # No batch is faster than an infinite one: progress never exceeds updates times e^-u.
    tau = np.linspace(0.0, trained.max() * np.exp(np.abs(effect).max()), _TAU_NODES)
    needed = steps_over_progress(truth, total_batch / rollouts, rollouts, tau)
    progress = [np.interp(updates, np.exp(u) * row, tau)
                for updates, u, row in zip(trained, effect, needed, strict=True)]
    return truth.level(np.array(progress), rollouts[:, None])


def _with_truth(ds: xr.Dataset, truth: Truth, effect: np.ndarray) -> xr.Dataset:
    thresholds = np.round(truth.start + truth.gain * np.array([0.25, 0.4, 0.55, 0.7, 0.85]), 4)
    field = AXES["threshold"]
    ds = ds.assign_coords(threshold=(field.dims, thresholds, {"long_name": field.long_name,
                                                              "units": field.units}))
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
