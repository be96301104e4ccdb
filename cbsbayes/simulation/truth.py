r"""A training run with known noise scales: the truth behind simulated sweeps.

Accuracy follows progress, :math:`A(\tau) = a_0 + g (1 - e^{-(\tau/T)^\kappa})` or a Hill curve
:math:`a_0 + g (\tau/T)^\kappa / (1 + (\tau/T)^\kappa)`, where progress :math:`\tau` counts the
updates an infinite batch would have needed. A finite batch is slower,

.. math:: d\tau/ds = e^{-u} (1 + N(A)/P)^{-\alpha},  \quad N = B_p(A) + B_r(A)/(G-1),

with momentary noise scales log-linear in accuracy. For alpha = 1 McCandlish's law then holds
exactly at every threshold, with S_min(t) = τ_t and the *progress-averaged* noise scales
:math:`B(t) = \tau_t^{-1} \int_0^{\tau_t} B\,d\tau`; for other exponents the same averages
describe the noise and S itself is the integral. Where small groups saturate lower, g is
:math:`g (1 - c/G)`. Where a run's learning rate is known, dτ/ds is divided by what a rate off the
best one of the moment costs (`cbsbayes.models.laws.Tuning`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy.integrate import cumulative_trapezoid
from scipy.optimize import minimize_scalar

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law, Tuning, get_law

__all__ = ["Truth", "best_rate", "mean_noise", "progress_at", "refuse", "steps_over_progress",
           "true_steps", "truth_of"]

_NODES = 801  # trapezoid error below 1e-6 of S on the default curve
_RATES = 1e3  # best rates are looked for up to so many times more and less than at no noise
_FORMS = ("exponential", "hill")
_NOISE = MappingProxyType({"B_prompt": (90.0, 6.0), "B_rollout": (500.0, 9.0),
                           "B_noise": (1200.0, 8.0)})


def refuse(of: object, valid: str, **holds: bool) -> None:
    """Refuse the first attribute of an object that is not what is valid, named with its value."""
    for name, fine in holds.items():
        if not fine:
            raise CBSDataError(f"{name} is {getattr(of, name)!r}; valid: {valid}")


@dataclass(frozen=True)
class Truth:
    """The parameters of simulated training.

    Attributes
    ----------
    law : str
        A name of `cbsbayes.models.laws`; says which noise scales there are and how G divides.
    alpha : float
        The exponent, whatever exponent the law's name fixes.
    start, gain : float
        Accuracy before training, and how much training can add.
    scale, shape : float
        T (updates) and κ of the curve.
    noise : mapping
        Momentary noise scales: name to (value at accuracy `reference`, slope of its log).
        B_noise in samples, B_prompt in prompts, B_rollout in prompts x (rollouts - 1).
    reference : float
        Accuracy at which `noise` is stated.
    form : {"exponential", "hill"}
        Of the curve.
    ceiling : float
        c, from 0 to below 1: training at group size G adds gain times 1 - c/G at most.
    rate_max, gamma, steepness, slope_below : float
        Best learning rate at an endless batch, exponent by which noise lowers it, m and k.
    items : tuple of float
        Difficulties of one fixed validation set, sorted: an item is solved where the model's
        level of accuracy exceeds its difficulty. Empty: accuracy is the level itself.
    """

    law: str = "two_axis"
    alpha: float = 1.0
    start: float = 0.55
    gain: float = 0.20
    scale: float = 120.0
    shape: float = 1.0
    noise: Mapping[str, tuple[float, float]] = field(default_factory=lambda: dict(_NOISE))
    reference: float = 0.65
    form: str = "exponential"
    ceiling: float = 0.0
    rate_max: float = 1e-6
    gamma: float = 0.5
    steepness: float = 1.0
    slope_below: float = 1.0
    items: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that describe no training run."""
        missing = [name for name in get_law(self.law).scales if name not in self.noise]
        if missing:
            raise CBSDataError(f"noise has no {missing[0]!r}; law {self.law!r} needs "
                               f"{', '.join(get_law(self.law).scales)}")
        refuse(self, ", ".join(_FORMS), form=self.form in _FORMS)
        refuse(self, "from 0 to below 1", ceiling=0 <= self.ceiling < 1)
        refuse(self, "positive, with start and start + gain inside (0, 1]", alpha=self.alpha > 0,
               rate_max=self.rate_max > 0, steepness=self.steepness > 0,
               slope_below=self.slope_below > 0, scale=self.scale > 0, shape=self.shape > 0,
               start=0 < self.start < 1, gain=0 < self.gain <= 1 - self.start)

    def level(self, tau: ArrayLike, n_rollouts: ArrayLike = np.inf) -> np.ndarray:
        """Return the level of accuracy after progress `tau` (updates of an infinite batch)."""
        power = (np.asarray(tau, dtype=float) / self.scale) ** self.shape
        share = power / (1.0 + power) if self.form == "hill" else -np.expm1(-power)
        return self.start + self.reach(n_rollouts) * share

    def reach(self, n_rollouts: ArrayLike = np.inf) -> np.ndarray:
        """Return how much training can add to accuracy at a group size."""
        return self.gain * (1.0 - self.ceiling / np.asarray(n_rollouts, dtype=float))

    def power_at(self, share: np.ndarray) -> np.ndarray:
        """Return (τ/T)^κ where the curve has come a share of its way, inside [0, 1)."""
        return share / (1.0 - share) if self.form == "hill" else -np.log1p(-share)

    def level_at(self, threshold: ArrayLike) -> np.ndarray:
        """Return the level at which the validation set first shows the accuracy `threshold`."""
        target = np.asarray(threshold, dtype=float)
        if not self.items:
            return target
        rank = np.ceil(target * len(self.items) - 1e-9).astype(int) - 1
        return np.asarray(self.items)[np.clip(rank, 0, len(self.items) - 1)]

    def observed(self, level: ArrayLike) -> np.ndarray:
        """Return the accuracy that the fixed items show at a level."""
        return np.searchsorted(np.asarray(self.items), level, side="right") / len(self.items)

    def scales(self, level: ArrayLike) -> dict[str, np.ndarray]:
        """Return the momentary noise scales of the law at a level of accuracy."""
        away = np.asarray(level, dtype=float) - self.reference
        return {name: self.noise[name][0] * np.exp(self.noise[name][1] * away)
                for name in get_law(self.law).scales}


def progress_at(
    truth: Truth, threshold: ArrayLike, n_rollouts: ArrayLike = np.inf
) -> np.ndarray:
    """Return τ_t in updates: progress at which accuracy reaches a threshold.

    It is S_min(t), which with ceilings by group size means groups without end, unless a group
    size is given. NaN where accuracy never gets there; 0 where it is there from the start.
    """
    share = (truth.level_at(threshold) - truth.start) / truth.reach(n_rollouts)
    # The ceiling itself takes for ever; rounding must not make it finite.
    inside = np.where((share >= 0) & (share < 1 - 1e-12), share, np.nan)
    return np.where(share < 0, 0.0, truth.scale * truth.power_at(inside) ** (1 / truth.shape))


def mean_noise(truth: Truth, threshold: float) -> dict[str, float]:
    """Return the noise scales averaged over progress up to a threshold, B(t) of each scale."""
    end = float(progress_at(truth, threshold))
    scales = truth.scales(truth.level(np.linspace(0.0, end, _NODES)))
    return {name: float(np.trapezoid(value, dx=1 / (_NODES - 1)))
            for name, value in scales.items()}


def steps_over_progress(
    truth: Truth, n_prompts: ArrayLike, n_rollouts: ArrayLike, tau: np.ndarray,
    learning_rate: ArrayLike | None = None,
) -> np.ndarray:
    """Return the updates each batch needs to get through a grid of progress.

    Parameters
    ----------
    truth : Truth
        The parameters.
    n_prompts, n_rollouts : array_like
        Batches, shape (batch,).
    tau : numpy.ndarray
        Progress, shape (batch, node) or (node,), starting at 0.
    learning_rate : array_like, optional
        Of each batch, shape (batch,); the best one of every moment unless given.

    Returns
    -------
    numpy.ndarray
        Updates, shape (batch, node), without a run effect.
    """
    prompts, rollouts = (np.asarray(x, dtype=float)[:, None] for x in (n_prompts, n_rollouts))
    law, scales = get_law(truth.law), truth.scales(truth.level(tau, rollouts))
    if not law.two_axis:
        slowness = 1.0 + (scales["B_noise"] / (prompts * rollouts)) ** truth.alpha
    else:
        noise = _noise(law, rollouts, scales) / prompts
        slowness = (1.0 + noise) ** truth.alpha
        if learning_rate is not None:
            tuning = Tuning(np.log(np.asarray(learning_rate, dtype=float))[:, None],
                            np.log(truth.rate_max), truth.gamma, truth.steepness,
                            truth.slope_below)
            with np.errstate(invalid="ignore"):  # NaN: not known
                slowness *= np.exp(np.nan_to_num(tuning.log_cost(np.log1p(noise)), nan=0.0))
    return cumulative_trapezoid(slowness, np.broadcast_to(tau, slowness.shape), axis=1, initial=0)


def true_steps(
    truth: Truth | xr.Dataset, n_prompts: ArrayLike, n_rollouts: ArrayLike, threshold: ArrayLike,
    learning_rate: ArrayLike | None = None,
) -> np.ndarray:
    """Return the true S: updates the population (run effect 0) needs to reach a threshold.

    Parameters
    ----------
    truth : Truth or xarray.Dataset
        The parameters, or a simulated sweep that carries them.
    n_prompts, n_rollouts : array_like
        Batches; of one-axis data the total batch and 1.
    threshold : array_like
        Target accuracies.
    learning_rate : array_like, optional
        The best one of every moment unless given.

    Returns
    -------
    numpy.ndarray
        Updates, broadcast shape of the arguments; NaN where the accuracy is never reached.
    """
    truth = truth_of(truth) if isinstance(truth, xr.Dataset) else truth
    rates = np.nan if learning_rate is None else learning_rate
    prompts, rollouts, target, rates = np.broadcast_arrays(n_prompts, n_rollouts, threshold, rates)
    end = progress_at(truth, target.ravel(), rollouts.ravel())
    tau = end[:, None] * np.linspace(0.0, 1.0, _NODES)
    steps = steps_over_progress(truth, prompts.ravel(), rollouts.ravel(), tau, rates.ravel())[:, -1]
    return steps.reshape(prompts.shape)


def best_rate(
    truth: Truth, n_prompts: float, n_rollouts: float, threshold: float
) -> tuple[float, float]:
    """Return the one learning rate that needs the fewest updates to a threshold, and these."""
    def log_steps(log_rate: float) -> float:
        return float(np.log(true_steps(truth, n_prompts, n_rollouts, threshold, np.exp(log_rate))))

    away, top = np.log(_RATES), np.log(truth.rate_max)
    found = minimize_scalar(log_steps, bounds=(top - away, top + away), method="bounded")
    return float(np.exp(found.x)), float(np.exp(found.fun))


def truth_of(ds: xr.Dataset) -> Truth:
    """Return the truth that a simulated sweep carries.

    Raises
    ------
    CBSDataError
        If the sweep was not simulated.
    """
    if "truth" not in ds.attrs:
        raise CBSDataError(f"the sweep {ds.attrs.get('title', '')!r} carries no truth; only sweeps "
                           "made by cbsbayes.simulate do")
    stored = json.loads(ds.attrs["truth"])
    stored["noise"] = {name: tuple(value) for name, value in stored["noise"].items()}
    items = tuple(ds["true_item"].values.tolist()) if "true_item" in ds else ()
    return replace(Truth(**stored), items=items)


def truth_json(truth: Truth) -> str:
    """Return the parameters, without the items, as JSON text."""
    return json.dumps({name: value for name, value in vars(truth).items() if name != "items"})


def _noise(law: Law, rollouts: np.ndarray, scales: dict[str, np.ndarray]) -> np.ndarray:
    """Return N(G) in prompts.

    One rollout has no group to compare with; it is simulated as the law in 1/G has it, which is
    off the group law, as single rollouts are in real sweeps.
    """
    groups = np.where(rollouts > 1, rollouts, 2) if law.needs_baseline_group else rollouts
    return law.noise_in_prompts(groups, scales["B_prompt"], scales["B_rollout"])
