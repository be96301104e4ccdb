"""Families of simulated truth, by name: what a method meets, and how it is simulated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law
from cbsbayes.models.parameters import PRIORS
from cbsbayes.simulation.sweep import Disturbances, simulate_sweep
from cbsbayes.simulation.truth import Truth

__all__ = ["FAMILIES", "Family", "family_sweep", "get_family", "prior_exponent"]


@dataclass(frozen=True)
class Family:
    """One family of truth.

    Attributes
    ----------
    name, what : str
        Its name, and in one phrase what is special.
    design, seeds : str, int
        As in `cbsbayes.simulation.sweep.simulate_sweep`.
    alpha : float or None
        The true exponent; None: drawn for every sweep from the prior of a free one.
    total : bool
        Whether the truth knows only the total batch.
    noise_growth : tuple of float or None
        By how much the log noise scales grow while accuracy comes all its way, drawn for every
        sweep between these ends; None: the simulator's own growth.
    arguments : mapping
        Everything else that `simulate_sweep` takes.
    """

    name: str
    what: str
    design: str = "all"
    seeds: int = 1
    alpha: float | None = 1.0
    total: bool = False
    noise_growth: tuple[float, float] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


def _families() -> list[Family]:
    wander, drift = Disturbances(wander=0.1), Disturbances(drift_sd=0.01, drift_memory=75.0)
    offset = Disturbances(offset_sd=0.004)
    return [
        Family("base", "exponent 1, one seed of all phases"),
        Family("sqrt", "exponent 1/2", alpha=0.5),
        Family("prior", "exponent drawn from its prior", alpha=None),
        Family("p1", "prompts varied alone", design="p1"),
        Family("p2b", "rollouts varied alone", design="p2b"),
        Family("p2c", "one total batch, split in six ways", design="p2c"),
        Family("p1+p2b", "prompts and rollouts varied apart", design="p1+p2b"),
        Family("seeds_2", "two seeds of every batch", seeds=2),
        Family("seeds_3", "three seeds of every batch", seeds=3),
        Family("p1+p2b_seeds_3", "prompts and rollouts varied apart, three seeds of every batch",
               design="p1+p2b", seeds=3),
        Family("sparse", "evaluated every 50 updates", arguments={"eval_every": 50}),
        Family("dense", "evaluated every 5 updates", arguments={"eval_every": 5}),
        Family("heavy", "run effects from a t distribution, 3 degrees of freedom, same scale",
               arguments={"disturbances": Disturbances(run_freedom=3.0)}),
        Family("correlated", "accuracy drifts as AR(1): sd .01, memory 75 updates",
               arguments={"disturbances": drift}),
        Family("hill", "Hill curves of exponent 1.4",
               arguments={"curve": {"form": "hill", "shape": 1.4, "scale": 70.0}}),
        Family("ceiling", "small groups saturate lower: gain times 1 - .4/n_rollouts",
               arguments={"curve": {"ceiling": 0.4}}),
        Family("total", "only the total batch counts", total=True),
        Family("item_set", "one fixed validation set, checkpoint noise .004",
               arguments={"item_set": True, "checkpoint_noise": 0.004}),
        Family("rising_noise", "noise scales rise by e^.3 to e^1.5; one fixed validation set, "
               "checkpoint noise .004, run offsets .004", noise_growth=(0.3, 1.5),
               arguments={"item_set": True, "checkpoint_noise": 0.004, "disturbances": offset}),
        Family("rates", "four learning rates at each of five prompt batches", design="lr",
               arguments={"rates": (1e-7, 3e-7, 1e-6, 2e-6), "max_updates": 1500}),
        Family("rate_rule", "learning rate with the square root of the batch",
               arguments={"rates": (7e-7,), "rate_exponent": 0.5, "max_updates": 1500}),
        Family("wander", "a run's speed wanders: sd .1 in log per e-fold of updates",
               arguments={"disturbances": wander}),
    ]


FAMILIES: dict[str, Family] = {family.name: family for family in _families()}
"""All families by name."""


def get_family(name: str) -> Family:
    """Return the family called `name`.

    Raises
    ------
    CBSDataError
        If there is none; the message lists those there are.
    """
    if name not in FAMILIES:
        raise CBSDataError(f"unknown family {name!r}; valid: all, {', '.join(FAMILIES)}")
    return FAMILIES[name]


def prior_exponent(random_seed: int) -> float:
    """Return an exponent drawn from its prior."""
    mean, sd, lower, upper = PRIORS.alpha
    ends = (lower - mean) / sd, (upper - mean) / sd
    return float(stats.truncnorm.rvs(*ends, loc=mean, scale=sd, random_state=random_seed))


def family_sweep(family: Family, law: Law, random_seed: int) -> xr.Dataset:
    """Return one simulated sweep of a family, rollouts dividing as the fitted law has it."""
    alpha = prior_exponent(random_seed) if family.alpha is None else family.alpha
    truth = "total" if family.total else "two_axis" if law.group_baseline else "two_axis_plain"
    arguments = dict(family.arguments)
    if family.noise_growth is not None:
        growth = np.random.default_rng([random_seed, 1]).uniform(*family.noise_growth)
        arguments["curve"] = {**arguments.get("curve", {}), "noise": _growing_noise(growth)}
    return simulate_sweep(family.design, family.seeds, law=truth, alpha=alpha,
                          random_seed=random_seed, **arguments)


def _growing_noise(growth: float) -> dict[str, tuple[float, float]]:
    """Return the simulator's noise scales, their logs growing by `growth` along training."""
    plain = Truth()
    return {name: (value, growth / plain.gain) for name, (value, _) in plain.noise.items()}
