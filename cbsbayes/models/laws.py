r"""Laws for S(P, G): how many optimizer updates a target takes, by batch.

Every law is :math:`\log S = \log S_{min} + f` with *f* a pure function of the batch, the
noise scales and the exponent, written once and usable on numpy arrays and PyTensor graphs
(the array module is an argument). With P = n_prompts, G = n_rollouts and B = P·G:

==================  =====================================================================
``total``           S_min · (1 + B_noise/B)            (McCandlish et al. 2018 [1]_)
``power``           S_min · (1 + (B_noise/B)^alpha)
``two_axis``        S_min · (1 + N/P),          N = B_prompt + B_rollout/(G - 1)
``two_axis_sqrt``   S_min · (1 + N/P)^(1/2)
``two_axis_free``   S_min · (1 + N/P)^alpha
``*_plain``         N = B_prompt + B_rollout/G, for estimators without a group baseline
``learning_rate*``  S_min · (1 + N/P)^alpha · f(x), x the learning rate over the best one
==================  =====================================================================

The form in 1/(G - 1) is that of a mean-baseline group estimator (GRPO, RLOO; G >= 2). The
exponent 1/2 is what a normalised update (Adam at one learning rate) gives, because progress
per update then goes with the cosine between the noisy and the true gradient.

Where the learning rate varies it is part of the law (`Tuning`): noise lowers the rate that is best,
η* = η_max (1 + N/P)^(-gamma), and a rate off it costs f(x) = (m x^-k + k x^m)/(m + k), x = η/η*:
1 at x = 1, as x^-k far below, as x^m beyond. S_min and every number without a rate hold at x = 1.

References
----------
.. [1] McCandlish, Kaplan, Amodei & the OpenAI Dota Team, "An Empirical Model of Large-Batch
   Training", arXiv:1812.06162.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.dataset import is_one_axis
from cbsbayes.sweep.groups import learning_rate_rule, varied_rates, without_baseline

__all__ = ["LAWS", "Law", "LawChoice", "Tuning", "batch_axes", "batch_scales", "batch_weights",
           "choose_law", "get_law", "middle_batch", "run_axes"]


@dataclass(frozen=True)
class Tuning:
    """A learning rate, and what decides the best one; arrays that broadcast with the batches.

    Attributes
    ----------
    log_rate : array_like
        Log of the learning rate.
    log_best : array_like
        Log of the best one at an endless batch, in the same unit.
    gamma : array_like
        Exponent by which noise lowers the best rate.
    steepness : array_like
        m, by which S rises beyond it.
    slope_below : array_like
        k, by which S falls towards it; in theory 1, half the rate then takes twice the updates.
    """

    log_rate: Any
    log_best: Any
    gamma: Any
    steepness: Any
    slope_below: Any

    def log_cost(self, log_noise: Any, xp: Any = np) -> Any:
        """Return log f(x), 0 at the best rate, from log(1 + N/P)."""
        away = self.log_rate - self.log_best + self.gamma * log_noise
        m, k = self.steepness, self.slope_below
        return xp.logaddexp(xp.log(m) - k * away, xp.log(k) + m * away) - xp.log(m + k)


@dataclass(frozen=True)
class Law:
    """One law: its name, its scales and its exponent.

    Attributes
    ----------
    name : str
        Name on the command line and in every table.
    scales : tuple of str
        Names of the noise scales: ``("B_noise",)`` in samples, or
        ``("B_prompt", "B_rollout")`` in prompts and prompts x (rollouts - 1).
    alpha : float or None
        The fixed exponent; None where it is estimated.
    group_baseline : bool
        True for 1/(G - 1), the law of estimators with a group baseline; False for 1/G.
    learning_rate : bool
        Whether the learning rate is part of it.
    """

    name: str
    scales: tuple[str, ...]
    alpha: float | None
    group_baseline: bool = True
    learning_rate: bool = False

    @property
    def formula(self) -> str:
        """The law in one line of plain text."""
        divisor = "(n_rollouts - 1)" if self.group_baseline else "n_rollouts"
        ratio = f"(B_prompt + B_rollout/{divisor})/n_prompts" if self.two_axis else "B_noise/B"
        if self.name == "power":
            return f"S = S_min (1 + ({ratio})^alpha)"
        power = {1.0: "", 0.5: "^(1/2)", None: "^alpha"}[self.alpha]
        rate = (f" f(x), x = learning rate/best, best = rate_max (1 + {ratio})^-gamma, "
                "f = (m x^-k + k x^m)/(m + k)") if self.learning_rate else ""
        return f"S = S_min (1 + {ratio}){power}{rate}"

    @property
    def two_axis(self) -> bool:
        """Whether prompts and rollouts enter apart from each other."""
        return self.scales == ("B_prompt", "B_rollout")

    @property
    def needs_baseline_group(self) -> bool:
        """Whether the law holds only for groups of two and more rollouts."""
        return self.two_axis and self.group_baseline

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of what S depends on, as the posterior has them."""
        return ("S_min", *self.scales, *(("alpha",) if self.alpha is None else ()), *(
            ("rate_max", "gamma", "steepness", "slope_below") if self.learning_rate else ()))

    def require(self, names: Container[Hashable], place: str) -> None:
        """Refuse a posterior that lacks one of `parameters`, as another version left it."""
        if missing := [name for name in self.parameters if name not in names]:
            raise CBSDataError(f"{place} has no {missing[0]}, which law {self.name!r} needs: "
                               "another version wrote it; fit the sweep again")

    def require_groups(self, n_rollouts: np.ndarray) -> None:
        """Refuse groups of one where the law has no value there."""
        if self.needs_baseline_group and (n_rollouts < 2).any():
            raise CBSDataError(f"law {self.name!r} has no value at n_rollouts = "
                               f"{n_rollouts.min():g}; it needs 2 and more, use its _plain form or "
                               "leave those runs out")

    def group_divisor(self, n_rollouts: Any) -> Any:
        """Return what B_rollout is divided by: G - 1 under a group baseline, else G."""
        return n_rollouts - 1 if self.group_baseline else n_rollouts

    def noise_in_prompts(self, n_rollouts: Any, b_prompt: Any, b_rollout: Any) -> Any:
        """Return the noise scale N(G) in prompts."""
        return b_prompt + b_rollout / self.group_divisor(n_rollouts)

    def divisors(self, n_prompts: Any, n_rollouts: Any) -> tuple[Any, ...]:
        """Return what a batch divides each noise scale by, in the order of `scales`."""
        if not self.two_axis:
            return (n_prompts * n_rollouts,)
        return n_prompts, n_prompts * self.group_divisor(n_rollouts)

    def log_ratio(
        self, n_prompts: Any, n_rollouts: Any, scales: Mapping[str, Any], alpha: Any = None,
        tuning: Tuning | None = None, *, xp: Any = np,
    ) -> Any:
        """Return log S/S_min at batches (n_prompts, n_rollouts): the formula of every law.

        Parameters
        ----------
        n_prompts, n_rollouts : array_like
            The batch of one update, 0 at an infinite one; one-axis data pass the total batch
            and 1.
        scales : mapping
            A value per name in `scales`, broadcastable with the batches.
        alpha : array_like, optional
            The exponent, needed where the law leaves it free.
        tuning : Tuning, optional
            The learning rate; the best one at every batch unless given.
        xp : module
            ``numpy`` or ``pytensor.tensor``.

        Returns
        -------
        array_like
            Broadcast shape of batches and scales.
        """
        exponent = self.alpha if self.alpha is not None else alpha
        if self.name == "power":
            return xp.log1p(self._noise(n_prompts, n_rollouts, scales) ** exponent)
        log_noise = self.log_noise(n_prompts, n_rollouts, scales, xp=xp)
        ratio = exponent * log_noise
        return ratio if tuning is None else ratio + tuning.log_cost(log_noise, xp)

    def log_noise(
        self, n_prompts: Any, n_rollouts: Any, scales: Mapping[str, Any], *, xp: Any = np
    ) -> Any:
        """Return log(1 + N/P) at batches; arguments as of `log_ratio`."""
        return xp.log1p(self._noise(n_prompts, n_rollouts, scales))

    def _noise(self, n_prompts: Any, n_rollouts: Any, scales: Mapping[str, Any]) -> Any:
        divisors = self.divisors(n_prompts, n_rollouts)
        return sum(scales[name] / divisor
                   for name, divisor in zip(self.scales, divisors, strict=True))


_TOTAL, _TWO_AXIS = ("B_noise",), ("B_prompt", "B_rollout")
LAWS: dict[str, Law] = {law.name: law for law in [
    Law("total", _TOTAL, 1.0),
    Law("power", _TOTAL, None),
    Law("two_axis", _TWO_AXIS, 1.0),
    Law("two_axis_sqrt", _TWO_AXIS, 0.5),
    Law("two_axis_free", _TWO_AXIS, None),
    Law("two_axis_plain", _TWO_AXIS, 1.0, group_baseline=False),
    Law("two_axis_sqrt_plain", _TWO_AXIS, 0.5, group_baseline=False),
    Law("two_axis_free_plain", _TWO_AXIS, None, group_baseline=False),
    Law("learning_rate", _TWO_AXIS, None, learning_rate=True),
    Law("learning_rate_plain", _TWO_AXIS, None, group_baseline=False, learning_rate=True),
    Law("learning_rate_total", _TOTAL, None, learning_rate=True),
]}
"""All laws by name."""


def get_law(name: str) -> Law:
    """Return the law called `name`.

    Raises
    ------
    CBSDataError
        If there is no such law; the message lists those there are.
    """
    if name not in LAWS:
        raise CBSDataError(f"unknown law {name!r}; valid laws: {', '.join(LAWS)} "
                           "(or 'auto' to let the varied axes decide)")
    return LAWS[name]


@dataclass(frozen=True)
class LawChoice:
    """A law and the sentence that says why it is fitted."""

    law: Law
    reason: str


def choose_law(ds: xr.Dataset, name: str = "auto") -> LawChoice:
    """Return the law to fit to the runs of a group.

    Where only prompts vary, the total-batch law is the two-axis law of exponent 1, its B_noise
    N·n_rollouts. Where only rollouts vary it is not: S falls with 1/(G - 1), and towards
    S_min (1 + B_prompt/P) instead of S_min. The two-axis law then tells what rollouts buy and the
    rollout CBS, though its two scales and S_min stay bounds at best.

    Where batches were run at several learning rates, each of these gives way to its form with a
    learning rate. Under a rule, one rate for each batch, it does not: what the rate costs cannot be
    told from what noise costs there, and S along the rule is what is known.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs that will be fitted.
    name : str
        A law's name, or ``auto``: the varied axes decide.

    Raises
    ------
    CBSDataError
        If the named law needs axes or learning rates that the data do not have, or leaves out
        learning rates that differ at one batch.
    """
    if name != "auto":
        law = get_law(name)
        if law.two_axis and is_one_axis(ds):
            raise CBSDataError(f"law {name!r} needs n_prompts and n_rollouts, the data give only "
                               "total_batch; valid: total, power")
        _check_rates(law, ds)
        return LawChoice(law, f"The {law.name} law was asked for.")
    choice, rates = _by_axes(ds), varied_rates(ds)
    if not len(rates) or learning_rate_rule(ds) is not None:
        return choice
    name = choice.law.name.replace("two_axis_free", "learning_rate")
    law = get_law("learning_rate_total" if name == "total" else name)
    return LawChoice(law, f"Batches were run at several learning rates, {rates[0]:g} to "
                     f"{rates[-1]:g}: the rate is part of the law, its exponent free. "
                     f"{choice.reason}")


def _check_rates(law: Law, ds: xr.Dataset) -> None:
    rates = varied_rates(ds)
    if law.learning_rate and not len(rates):
        raise CBSDataError(f"law {law.name!r} needs runs of two learning rates and more, all of "
                           "them known; use --law two_axis_free, or add runs at another rate")
    if len(rates) and not law.learning_rate and learning_rate_rule(ds) is None:
        raise CBSDataError(f"law {law.name!r} knows no learning rate, and runs of one batch have "
                           f"several, {rates[0]:g} to {rates[-1]:g}; use --law learning_rate, or "
                           "name the group of one rate with --group")


def _by_axes(ds: xr.Dataset) -> LawChoice:
    """Return the law that the varied axes of the batch decide."""
    if is_one_axis(ds):
        return LawChoice(get_law("total"), "The data give total batches only: the total-batch law.")
    if len(np.unique(ds["n_rollouts"].values)) == 1:
        return LawChoice(get_law("total"), "Only n_prompts varies: the total-batch law. B_prompt "
                         "and B_rollout cannot be told apart at one n_rollouts.")
    prompts_vary = len(np.unique(ds["n_prompts"].values)) > 1
    what = "Prompts and rollouts both vary" if prompts_vary else "Only n_rollouts varies"
    plain = without_baseline(ds)
    reason = (f"{what}: the two-axis law, its exponent free"
              f"{', in 1/G because the estimator has no group baseline' if plain else ''}.")
    if not prompts_vary:
        reason += (" B_prompt, B_rollout and S_min cannot be told apart at one n_prompts; what "
                   "rollouts buy can.")
    return LawChoice(get_law("two_axis_free_plain" if plain else "two_axis_free"), reason)


def batch_axes(ds: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return n_prompts and n_rollouts, or the total batch and 1 where there is one axis."""
    prompts = ds["n_prompts"].values.astype(float)
    rollouts = ds["n_rollouts"].values.astype(float)
    one_axis = (prompts < 0) | (rollouts < 0)
    return (np.where(one_axis, ds["total_batch"].values, prompts),
            np.where(one_axis, 1.0, rollouts))


def run_axes(law: Law, ds: xr.Dataset) -> tuple[np.ndarray, ...]:
    """Return `batch_axes`, and the learning rate of every run where the law knows it."""
    return (*batch_axes(ds), *([ds["learning_rate"].values] if law.learning_rate else []))


def batch_scales(law: Law, n_prompts: np.ndarray, n_rollouts: np.ndarray) -> dict[str, float]:
    """Return the log of the geometric middle of the batches tried, per noise scale."""
    divisors = law.divisors(n_prompts, n_rollouts)
    return {name: float(np.log(divisor).mean())
            for name, divisor in zip(law.scales, divisors, strict=True)}


def middle_batch(n_prompts: np.ndarray, n_rollouts: np.ndarray) -> tuple[float, float]:
    """Return the geometric means of n_prompts and n_rollouts, where the level of S is sampled."""
    return float(np.exp(np.log(n_prompts).mean())), float(np.exp(np.log(n_rollouts).mean()))


def batch_weights(
    law: Law, log_batch_scale: Mapping[str, float], n_prompts: np.ndarray, n_rollouts: np.ndarray
) -> np.ndarray:
    """Return what exp(level) of each noise scale is multiplied by, shape (scale, batch)."""
    divisors = law.divisors(n_prompts, n_rollouts)
    return np.array([np.exp(log_batch_scale[name]) / divisor
                     for name, divisor in zip(law.scales, divisors, strict=True)])
