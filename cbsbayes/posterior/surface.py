r"""S(P, G; t) of a posterior: from one noise scale per threshold, or from noise along progress.

The crossing model states one noise scale per threshold and S is the law's closed form. Under the
trajectory model the momentary noise changes on the way to a threshold, and

.. math:: S(P, G; t) = \int_0^{\tau_t} (1 + N(\tau; G)/P)^\alpha d\tau
          = S_{min} \sum_k w_k (1 + N_k(G)/P)^\alpha ,

with N at Gauss-Legendre nodes of progress. For α = 1 that is the closed form with the noise
averaged over progress; for other exponents the two differ, and every critical batch is solved from
S itself: the closed form is where Newton's method starts, two steps are enough.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr

from cbsbayes.models import laws_inverse as inverse
from cbsbayes.models.laws import Law, group_divisor

__all__ = ["NODE_WEIGHT", "Surface", "path_name"]

NODE_WEIGHT = "node_weight"
_NEWTON_STEPS = 2
_LARGEST_STEP = 1.0  # of the log batch


def path_name(scale: str) -> str:
    """Return the posterior's name of a noise scale along progress, dims (…, threshold, node)."""
    return f"{scale}_path"


class Surface:
    """S over batches for every draw and threshold of a posterior.

    Parameters
    ----------
    law : Law
        The law that was fitted.
    posterior : xarray.Dataset
        Draws of ``S_min``, the law's scales, ``alpha`` where free, and, where the noise changes
        along progress, the scales' paths with coordinate ``node_weight``.
    """

    def __init__(self, law: Law, posterior: xr.Dataset) -> None:
        self.law = law
        self.posterior = posterior
        self.alpha: Any = posterior["alpha"] if law.alpha is None else law.alpha
        self.bends = path_name(law.scales[0]) in posterior and law.alpha != 1.0
        self._ratios: dict[tuple[float, float], np.ndarray] = {}

    def log_steps(self, n_prompts: Any, n_rollouts: Any) -> xr.DataArray:
        """Return log S (updates) at batches; dims of the posterior and of the batches."""
        ratio = self.log_ratio(n_prompts, n_rollouts)
        if ratio.dims == self._log_s_min.dims:  # of one batch: no labels to line up
            return ratio.copy(data=self._log_s_min.values + ratio.values)
        return self._log_s_min + ratio

    def log_gain(
        self, before: tuple[float, float], after: tuple[float, float]
    ) -> xr.DataArray:
        """Return log S at one batch over S at another, n_prompts and n_rollouts each."""
        return self.log_ratio(*after) - self.log_ratio(*before)

    @cached_property
    def _log_s_min(self) -> xr.DataArray:
        s_min = self.posterior["S_min"]
        return s_min.copy(data=np.log(s_min.values))

    @cached_property
    def _plain(self) -> tuple[dict[str, np.ndarray], Any]:
        """Return the scales and the exponent as arrays with the dims of S_min."""
        s_min = self.posterior["S_min"]
        scales = {name: self.posterior[name].transpose(*s_min.dims).values
                  for name in self.law.scales}
        if self.law.alpha is not None:
            return scales, self.alpha
        return scales, self.alpha.broadcast_like(s_min).transpose(*s_min.dims).values

    def along_prompts(self, n_rollouts: float) -> Surface:
        """Return S over prompts at a group size, S_min being its limit there."""
        return self

    def log_ratio(self, n_prompts: Any, n_rollouts: Any) -> xr.DataArray:
        """Return log S/S_min at batches."""
        if self._is_one_batch(n_prompts, n_rollouts):
            return self._log_s_min.copy(data=self._ratio_at(n_prompts, n_rollouts))
        if not self.bends:
            scales = {name: self.posterior[name] for name in self.law.scales}
            return self.law.log_ratio(n_prompts, n_rollouts, scales, self.alpha)
        paths = {name: self.posterior[path_name(name)] for name in self.law.scales}
        along = self.law.log_ratio(n_prompts, n_rollouts, paths, self.alpha)
        total = (np.exp(along) * self.posterior[NODE_WEIGHT]).sum("node")
        return total.copy(data=np.log(total.values))

    def _is_one_batch(self, *batch: Any) -> bool:
        """Return whether plain arrays will do: labels cost more than the law itself."""
        dims = {frozenset(self.posterior[name].dims) for name in ("S_min", *self.law.scales)}
        return not self.bends and len(dims) == 1 and all(isinstance(n, Real) for n in batch)

    def _ratio_at(self, n_prompts: float, n_rollouts: float) -> np.ndarray:
        """Return log S/S_min at one batch, computed once: gains share their batches."""
        batch = (n_prompts, n_rollouts)
        if batch not in self._ratios:
            self._ratios[batch] = self.law.log_ratio(*batch, *self._plain)
        return self._ratios[batch]

    def cbs_total(self) -> xr.DataArray:
        """Return the total batch (samples) at which S = 2 S_min."""
        start = inverse.cbs_total(self.law, self.posterior["B_noise"], self.alpha)
        return self._solve(start, lambda b: self._with_slope(b, 1.0), np.log(2.0))

    def total_at_gain(self, gain: float) -> xr.DataArray:
        """Return the largest total batch (samples) at which doubling still saves a share."""
        start = inverse.total_at_gain(self.law, gain, self.posterior["B_noise"], self.alpha)
        return self._solve(start, self._doubling(lambda b: self._with_slope(b, 1.0)),
                           np.log1p(-gain))

    def cbs_prompts(self, n_rollouts: float) -> xr.DataArray:
        """Return the n_prompts at which S = 2 S_min, the group size held."""
        start = inverse.cbs_prompts(self.law, n_rollouts, *self._pair(), self.alpha)
        return self._solve(start, lambda p: self._with_slope(p, n_rollouts), np.log(2.0))

    def prompts_at_gain(self, gain: float, n_rollouts: float) -> xr.DataArray:
        """Return the largest n_prompts at which doubling them still saves a share."""
        start = inverse.prompts_at_gain(self.law, gain, n_rollouts, *self._pair(), self.alpha)
        return self._solve(start, self._doubling(lambda p: self._with_slope(p, n_rollouts)),
                           np.log1p(-gain))

    def cbs_rollouts(self, n_prompts: float) -> xr.DataArray:
        """Return the n_rollouts at which S is twice its value at G → ∞, the prompts held."""
        start = inverse.cbs_rollouts(self.law, n_prompts, *self._pair(), self.alpha)
        if not self.bends:
            return start
        limit = self._at_divisor(n_prompts, np.inf)[0]
        divisor = self._solve(self._divisor(start), lambda d: self._at_divisor(n_prompts, d),
                              limit + np.log(2.0))
        return self._rollouts(divisor)

    def rollouts_at_gain(self, gain: float, n_prompts: float) -> xr.DataArray:
        """Return the largest n_rollouts at which doubling them still saves a share."""
        start = inverse.rollouts_at_gain(self.law, gain, n_prompts, *self._pair(), self.alpha)
        extra = 0.0 if self.law.plain else 1.0  # G to 2G is G - 1 to 2 (G - 1) + 1

        def gained(divisor: Any) -> tuple[Any, Any]:
            after, after_slope = self._at_divisor(n_prompts, 2.0 * divisor + extra)
            before, before_slope = self._at_divisor(n_prompts, divisor)
            share = 2.0 * divisor / (2.0 * divisor + extra)
            return after - before, after_slope * share - before_slope

        if not self.bends:
            return start
        return self._rollouts(self._solve(self._divisor(start), gained, np.log1p(-gain)))

    def best_rollouts(self) -> xr.DataArray:
        """Return the group size that minimises S at a fixed total batch."""
        return inverse.best_rollouts(*self._pair())

    def _pair(self) -> tuple[xr.DataArray, xr.DataArray]:
        return self.posterior["B_prompt"], self.posterior["B_rollout"]

    def _divisor(self, n_rollouts: Any) -> Any:
        return group_divisor(n_rollouts, plain=self.law.plain)

    def _rollouts(self, divisor: Any) -> Any:
        return divisor if self.law.plain else divisor + 1.0

    def _with_slope(self, n_prompts: Any, n_rollouts: float) -> tuple[Any, Any]:
        """Return log S/S_min and its slope by the log of n_prompts (or of the total batch)."""
        if self.law.two_axis:
            noise = self._noise(1.0 / group_divisor(n_rollouts, plain=self.law.plain)) / n_prompts
        else:
            noise = self.posterior[path_name("B_noise")] / (n_prompts * n_rollouts)
        return self._averaged(noise, noise)

    def _at_divisor(self, n_prompts: float, divisor: Any) -> tuple[Any, Any]:
        """Return log S/S_min and its slope by the log of what B_rollout is divided by."""
        noise = self._noise(1.0 / divisor) / n_prompts
        part = self.posterior[path_name("B_rollout")] / divisor / n_prompts
        return self._averaged(noise, part)

    def _noise(self, share: Any) -> xr.DataArray:
        return (self.posterior[path_name("B_prompt")]
                + self.posterior[path_name("B_rollout")] * share)

    def _averaged(self, noise: Any, falling: Any) -> tuple[Any, Any]:
        """Return the log of the averaged law, and its slope when `falling` goes as 1/batch."""
        weight = self.posterior[NODE_WEIGHT]
        if self.law.name == "power":
            raised = noise**self.alpha
            factor, slope = 1.0 + raised, -self.alpha * raised
        else:
            factor = np.exp(self.alpha * np.log1p(noise))
            slope = -self.alpha * factor * falling / (1.0 + noise)
        total = (factor * weight).sum("node")
        return np.log(total), (slope * weight).sum("node") / total

    def _doubling(self, at: Callable[[Any], tuple[Any, Any]]) -> Callable[[Any], tuple[Any, Any]]:
        def gained(batch: Any) -> tuple[Any, Any]:
            after, after_slope = at(2.0 * batch)
            before, before_slope = at(batch)
            return after - before, after_slope - before_slope

        return gained

    def _solve(
        self, start: xr.DataArray, at: Callable[[Any], tuple[Any, Any]], target: Any
    ) -> xr.DataArray:
        """Return the batch at which `at` meets the target; 0 where the closed form says none."""
        if not self.bends:
            return start
        none = start <= 0
        batch = start.where(~none, 1.0)
        for _ in range(_NEWTON_STEPS):
            value, slope = at(batch)
            step = ((target - value) / slope).clip(-_LARGEST_STEP, _LARGEST_STEP)
            batch = batch * np.exp(step.where(np.isfinite(step), 0.0))
        return batch.where(~none, 0.0).transpose(*start.dims)
