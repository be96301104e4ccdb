"""Families of simulated truth, by name: what a method meets, and how it is simulated."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
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
    alpha : float or "prior"
        The true exponent; or it is drawn for every sweep from the prior of a free one.
    total : bool
        Whether the truth knows only the total batch.
    noise_growth : tuple of float or None
        By how much the log noise scales grow while accuracy comes all its way, drawn for every
        sweep between these ends; None: the simulator's own growth.
    law : str
        Fitted to it unless another one is asked for; empty: the usual one.
    arguments : mapping
        Everything else that `simulate_sweep` takes, `Disturbances` by their attributes.
    """

    name: str
    what: str
    design: str = "all"
    seeds: int = 1
    alpha: float | str = 1.0
    total: bool = False
    noise_growth: tuple[float, float] | None = None
    law: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


FAMILIES: dict[str, Family] = {name: Family(name, **family) for name, family in tomllib.loads(
    Path(__file__).with_name("families.toml").read_text("utf-8")).items()}
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
    alpha = prior_exponent(random_seed) if family.alpha == "prior" else family.alpha
    truth = "total" if family.total else "two_axis" if law.group_baseline else "two_axis_plain"
    arguments = dict(family.arguments)
    arguments["disturbances"] = Disturbances(**arguments.get("disturbances", {}))
    if family.noise_growth is not None:
        growth = np.random.default_rng([random_seed, 1]).uniform(*family.noise_growth)
        arguments["curve"] = {**arguments.get("curve", {}), "noise": _growing_noise(growth)}
    return simulate_sweep(family.design, family.seeds, law=truth, alpha=alpha,
                          random_seed=random_seed, **arguments)


def _growing_noise(growth: float) -> dict[str, tuple[float, float]]:
    """Return the simulator's noise scales, their logs growing by `growth` along training."""
    plain = Truth()
    return {name: (value, growth / plain.gain) for name, (value, _) in plain.noise.items()}
