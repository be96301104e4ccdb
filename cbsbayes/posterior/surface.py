r"""S(P, G; t) of a posterior at any batch, and the batch at which a condition on it is met.

The crossing model states one noise scale per threshold and S is the law's formula. Under the
trajectory model the momentary noise changes on the way to a threshold, and

.. math:: S(P, G; t) = \int_0^{\tau_t} (1 + N(\tau; G)/P)^\alpha d\tau
          = S_{min} \sum_k w_k (1 + N_k(G)/P)^\alpha ,

with N at Gauss-Legendre nodes of progress. Where the group size decides how high training gets,
progress at the threshold depends on it (`cbsbayes.posterior.ceilings`), and S is infinite where
a group never gets there.

Where the learning rate is part of the law, S is that at the best rate of each batch
(`Surface.best_rate`) unless rates are given.

An infinite batch is a batch: ``log_steps(np.inf, 8)`` is log S_min under most laws, and
``log_steps(64, np.inf)`` what endless groups need.

Every critical batch is a root of a condition on log S, found by bracketing in the log of the batch,
for every draw and threshold at once. Along a line through the batches, with b the batch that moves:

=================  ==============================  =============================================
`steps_ratio`      S(b) = r S(∞)                   r = 2 is McCandlish's critical batch [1]_
`doubling_saves`   S(2b) = (1 - γ) S(b)            doubling still saves a share γ of the updates
`excess_samples`   b S(b) = (1 + ε) b_0 S(b_0)     Zhang et al.: samples a share ε above those
                                                   of linear scaling from b_0 [2]_
`least_steps`      dS/db = 0                       S is least
=================  ==============================  =============================================

References
----------
.. [1] McCandlish et al., "An Empirical Model of Large-Batch Training", arXiv:1812.06162.
.. [2] Zhang et al., "How Does Critical Batch Size Scale in Pre-training?", arXiv:2410.21676.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law, Tuning
from cbsbayes.models.parameters import NODE_WEIGHT, SATURATION, path_name
from cbsbayes.posterior.ceilings import Ceilings, Level

__all__ = ["LINES", "Condition", "LogSteps", "Surface", "doubling_saves", "excess_samples",
           "least_steps", "steps_ratio"]

LogSteps = Callable[[Any], np.ndarray]
"""From batches along a line, one for all draws or one for each, to log S (updates)."""

Condition = Callable[[LogSteps, np.ndarray], np.ndarray]
"""From log S along a line and a batch to a number: above 0 before the batch looked for, below 0
beyond it."""

LINES = {
    "prompts": lambda batch, at: (batch, at),
    "rollouts": lambda batch, at: (at, batch),
    "total": lambda batch, at: (batch / at, at),
    "split": lambda batch, at: (at / batch, batch),
}
"""Lines through the batches: (n_prompts, n_rollouts) of the batch that moves and what is held,
the n_rollouts (``prompts``, ``total``), the n_prompts (``rollouts``), or the total batch of which
the group size moves (``split``)."""

_LEAST, _MOST = 1e-12, 1e18  # of the batches looked at
_HALVINGS, _SECANTS = 9, 5  # together exact to 1e-9 of the batch
_FAR = 1e3  # stands for infinite values of a condition
_STEP = 1.001  # of a batch, across which S falls or rises


def steps_ratio(ratio: float) -> Condition:
    """Return the condition that S is above `ratio` times its limit along the line."""
    return lambda log_steps, batch: log_steps(batch) - log_steps(np.inf) - np.log(ratio)


def doubling_saves(share: float) -> Condition:
    """Return the condition that doubling the batch saves more than a share of the updates."""
    return lambda log_steps, batch: (log_steps(batch) - log_steps(2.0 * batch)
                                     + np.log1p(-share))


def excess_samples(share: float, anchor: float) -> Condition:
    """Return the condition that samples exceed those at the batch `anchor` by less than a share.

    Samples fall again towards small batches where the exponent is above 1: look beyond `anchor`.
    """
    return lambda log_steps, batch: (np.log1p(share) + np.log(anchor) + log_steps(anchor)
                                     - np.log(batch) - log_steps(batch))


def least_steps(log_steps: LogSteps, batch: np.ndarray) -> np.ndarray:
    """Return the condition that S still falls: it is met where S is least."""
    return log_steps(batch / _STEP) - log_steps(batch * _STEP)


class Surface:
    """S over batches for every draw and threshold of a posterior.

    Parameters
    ----------
    law : Law
        The law that was fitted.
    posterior : xarray.Dataset
        Draws of ``S_min``, the law's scales, ``alpha`` where free, and, where the noise changes
        along progress, the scales' paths with coordinate ``node_weight``; with ceilings by group
        size, what `cbsbayes.posterior.ceilings.Ceilings` reads.
    """

    def __init__(self, law: Law, posterior: xr.Dataset) -> None:
        self.law = law
        self.posterior = posterior
        s_min = posterior["S_min"]
        self._like = s_min.transpose(..., "threshold") if "threshold" in s_min.dims else s_min
        along = path_name(law.scales[0]) in posterior and law.alpha != 1.0
        names = [path_name(name) if along else name for name in law.scales]
        self._weight = np.asarray(posterior[NODE_WEIGHT].values) if along else np.ones(1)
        self._alpha: Any = law.alpha if law.alpha is not None else self._rows("alpha")[:, None]
        with np.errstate(divide="ignore"):  # a least-squares fit may put it at 0
            log_s_min = np.log(self._rows("S_min"))
        self._level = Level(log_s_min,
                            [self._rows(name).reshape(-1, len(self._weight)) for name in names])
        self._tuning = (Tuning(0.0, np.log(self._rows("rate_max"))[:, None],
                               *(self._rows(name)[:, None]
                                 for name in ("gamma", "steepness", "slope_below")))
                        if "rate_max" in posterior else None)
        self.ceilings = (Ceilings(law, posterior, self._like, self._weight, along=along)
                         if SATURATION in posterior else None)

    def log_steps(
        self, n_prompts: Any, n_rollouts: Any, learning_rate: Any = None
    ) -> xr.DataArray:
        """Return log S (updates) at batches; infinite where the group never gets there.

        Parameters
        ----------
        n_prompts, n_rollouts : float or xarray.DataArray
            One batch; batches along one dimension; or one batch for every draw and threshold,
            with dims of ``S_min``.
        learning_rate : float or xarray.DataArray, optional
            Likewise, of a law that knows it; the best one of each batch unless given.

        Returns
        -------
        xarray.DataArray
            Dims of ``S_min``, and that of the batches where they have one.
        """
        given = (n_prompts, n_rollouts, *(() if learning_rate is None else (learning_rate,)))
        axes = [axis if isinstance(axis, xr.DataArray) else xr.DataArray(float(axis))
                for axis in given]
        new = {dim for axis in axes for dim in axis.dims} - set(self._like.dims)
        if not new:
            return self._labelled(self._log_steps(*(self._each(axis) for axis in axes)))
        batches = zip(*(axis.values.tolist() for axis in xr.broadcast(*axes)), strict=True)
        rows = np.stack([self._log_steps(*batch) for batch in batches], axis=-1)
        return self._labelled(rows, *new)

    def solve(
        self, condition: Condition, along: str, at: float = 1.0, *, beyond: float = 0.0,
        learning_rate: float | None = None,
    ) -> xr.DataArray:
        """Return the batch where a condition on log S is met, for every draw and threshold.

        Parameters
        ----------
        condition : Condition
            Above 0 before the batch looked for, below 0 beyond it.
        along : {"prompts", "rollouts", "total", "split"}
            Which of `LINES` the batch moves along.
        at : float
            What is held there.
        beyond : float
            Look beyond this batch only.
        learning_rate : float, optional
            That of all batches; the best one of each unless given.

        Returns
        -------
        xarray.DataArray
            Dims of ``S_min``: prompts, rollouts or samples. Infinite where the condition holds at
            every batch, 0 where it holds at none, NaN where the target is never reached.
        """
        if along not in LINES:
            raise CBSDataError(f"unknown line {along!r}; valid: {', '.join(LINES)}")
        line = LINES[along]
        least = 1.0 if along in ("rollouts", "split") and self.law.needs_baseline_group else 0.0
        start = np.log(max(beyond - least, _LEAST))
        known: dict[float, np.ndarray] = {}  # of batches that are the same for all draws

        def log_steps(batch: Any) -> np.ndarray:
            if isinstance(batch, np.ndarray):
                return self._log_steps(*line(batch, at), learning_rate)
            if batch not in known:
                known[batch] = self._log_steps(*line(batch, at), learning_rate)
            return known[batch]

        def value(log_batch: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore"):  # where a group never arrives, before nor beyond
                found = condition(log_steps, least + np.exp(log_batch))
            return np.clip(np.where(np.isnan(found), _FAR, found), -_FAR, _FAR)

        unreached = np.isposinf(self._level_at(line(_MOST, at)[1]).log_s_min)
        unknown = unreached | np.isnan(log_steps(_MOST))
        root, first, last = _fall(value, np.full(self._like.size, start),
                                  np.full(self._like.size, np.log(_MOST)))
        batch = np.where(first <= 0, 0.0, np.where(last >= 0, np.inf, least + np.exp(root)))
        return self._labelled(np.where(unknown, np.nan, batch))

    def best_rate(self, n_prompts: float, n_rollouts: float) -> xr.DataArray:
        """Return the best learning rate at a batch, dims of ``S_min``."""
        if self._tuning is None:
            raise CBSDataError(f"law {self.law.name!r} knows no learning rate; valid: laws whose "
                               "name begins with learning_rate")
        log_noise = self._log_noise(n_prompts, n_rollouts)
        log_best = self._tuning.log_best - self._tuning.gamma * log_noise
        return self._labelled(np.exp(log_best)[:, 0])

    def log_noise(self, n_prompts: float, n_rollouts: float) -> xr.DataArray:
        """Return log(1 + N/P) at a batch, dims of ``S_min``."""
        return self._labelled(self._log_noise(n_prompts, n_rollouts)[:, 0])

    def _log_noise(self, n_prompts: float, n_rollouts: float) -> np.ndarray:
        scales = dict(zip(self.law.scales, self._level.scales, strict=True))
        found: np.ndarray = self.law.log_noise(n_prompts, n_rollouts, scales)
        return found

    def _log_steps(
        self, n_prompts: Any, n_rollouts: Any, learning_rate: Any = None
    ) -> np.ndarray:
        """Return log S of all draws, shape (row,), at one batch or one for each."""
        level = self._level_at(n_rollouts)
        prompts, rollouts = (axis[:, None] if isinstance(axis, np.ndarray) else axis
                             for axis in (n_prompts, n_rollouts))
        tuning = None
        if learning_rate is not None and self._tuning is not None:
            log_rate = np.log(learning_rate)
            tuning = replace(self._tuning, log_rate=log_rate[:, None] if isinstance(
                log_rate, np.ndarray) else log_rate)
        scales = dict(zip(self.law.scales, level.scales, strict=True))
        with np.errstate(divide="ignore", invalid="ignore"):  # no batch at all, endless noise
            ratio = self.law.log_ratio(prompts, rollouts, scales, self._alpha, tuning)
        mean = ratio[:, 0] if ratio.shape[1] == 1 else np.log(np.exp(ratio) @ self._weight)
        return level.log_s_min + mean

    def _level_at(self, n_rollouts: Any) -> Level:
        return self._level if self.ceilings is None else self.ceilings.level(n_rollouts)

    def _rows(self, name: str) -> np.ndarray:
        """Return a variable's draws, broadcast to S_min, shape (row, …)."""
        variable = self.posterior[name]
        extra = [dim for dim in variable.dims if dim not in self._like.dims]
        wide = variable.broadcast_like(self._like).transpose(*self._like.dims, *extra)
        return wide.values.reshape(self._like.size, *(variable.sizes[dim] for dim in extra))

    def _each(self, axis: xr.DataArray) -> Any:
        if axis.ndim == 0:
            return float(axis)
        return axis.broadcast_like(self._like).transpose(*self._like.dims).values.ravel()

    def _labelled(self, rows: np.ndarray, *batch_dim: Hashable) -> xr.DataArray:
        """Return rows, shape (row, [batch]), with the dims of S_min and that of the batches."""
        like = self._like.expand_dims(dict(zip(batch_dim, rows.shape[1:], strict=True)), axis=-1) \
            if batch_dim else self._like
        return like.copy(data=rows.reshape(like.shape)).transpose(
            *self.posterior["S_min"].dims, *batch_dim)


def _fall(
    function: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where functions fall through 0 between two ends, and their values at the ends.

    Bisection until a function is nearly straight, then regula falsi (Illinois).
    """
    first, last = at_low, at_high = function(low), function(high)
    before = middle = low
    for k in range(_HALVINGS + _SECANTS):
        with np.errstate(divide="ignore", invalid="ignore"):  # where no root is between
            share = 0.5 if k < _HALVINGS else np.nan_to_num(at_low / (at_low - at_high))
        middle = low + np.clip(share, 0.0, 1.0) * (high - low)
        here = function(middle)
        above = here > 0
        weight = np.where(above == before, 0.5, 1.0) if k > _HALVINGS else 1.0
        at_low, at_high = np.where(above, here, weight * at_low), np.where(above, weight * at_high,
                                                                           here)
        low, high, before = np.where(above, middle, low), np.where(above, high, middle), above
    return middle, first, last
