r"""S(P, G; t) where the group size decides how high training gets.

A run of group size G shows :math:`h_0 + f(G) (h - h_0)` where endless groups show h, with
:math:`f(G) = e^{-\lambda/G}` (`cbsbayes.models.trajectory_flat`). It shows the threshold t where
endless groups show

.. math:: t'(G) = h_0 + (t - h_0)/f(G),

so that S(P, G; t) is the integral of `cbsbayes.posterior.surface` up to progress τ(t'(G)), and
infinite where the curve never gets to t'. Along prompts the group is held and everything is as
without ceilings, only read at t'. Along rollouts t' moves, and no closed form is left: batches are
found on a grid of group sizes.

Ratios of S stay finite: a threshold that is never reached is taken there at the end of the curve,
some hundred times beyond the last evaluation.
"""

from __future__ import annotations

from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr

from cbsbayes.models.laws import Law
from cbsbayes.posterior.surface import NODE_WEIGHT, Surface, path_name

__all__ = ["CURVE", "FOOT", "LOSS", "PROGRESS", "CeilingSurface", "ceiling_names", "now_name",
           "surface_of"]

LOSS, CURVE, FOOT, PROGRESS = "ceiling_loss", "curve", "curve_start", "progress"
"""In the posterior: λ, every draw's h over log progress, h before training; and the dimension."""

_PER_DOUBLING, _DOUBLINGS = 2, 17  # of the grid of group sizes
_ENDLESS = 1e12


def now_name(scale: str) -> str:
    """Return the posterior's name of a momentary noise scale, dims (…, progress)."""
    return f"{scale}_now"


def ceiling_names(law: Law) -> list[str]:
    """Return the posterior's variables that `CeilingSurface` needs beside those of `Surface`."""
    return [LOSS, CURVE, FOOT, *map(now_name, law.scales)]


def surface_of(law: Law, posterior: xr.Dataset) -> Surface:
    """Return S over batches for every draw, with ceilings by group size where they were fitted."""
    return CeilingSurface(law, posterior) if LOSS in posterior else Surface(law, posterior)


class CeilingSurface(Surface):
    """S over batches for every draw and threshold, a ceiling for every group size.

    Parameters
    ----------
    law : Law
        The law that was fitted, of two axes.
    posterior : xarray.Dataset
        As for `Surface`, and `ceiling_names`.
    """

    def __init__(self, law: Law, posterior: xr.Dataset) -> None:
        super().__init__(law, posterior)
        self._groups: dict[float, tuple[Surface, xr.DataArray]] = {}

    def along_prompts(self, n_rollouts: float) -> Surface:
        """Return S over prompts at a group size.

        Its S_min is that of the group, its noise the average up to where the group shows the
        threshold.
        """
        return self._at(n_rollouts)[0]

    def never(self, n_rollouts: float) -> xr.DataArray:
        """Return whether a group size never gets to the threshold, dims of S_min."""
        return self._at(n_rollouts)[1]

    def reach(self, n_rollouts: float) -> xr.DataArray:
        """Return f(G): the share of endless groups' gain that a group size can reach."""
        loss = self.posterior[LOSS]
        return loss.copy(data=np.exp(-loss.values / n_rollouts))

    def ceiling(self, n_rollouts: float) -> xr.DataArray:
        """Return the accuracy that a group size can reach."""
        top = self.posterior[CURVE].isel({PROGRESS: -1}, drop=True)
        foot = self.posterior[FOOT]
        return foot + (top - foot) * self.reach(n_rollouts)

    def log_steps(self, n_prompts: Any, n_rollouts: Any) -> xr.DataArray:
        """Return log S (updates) at batches; infinite where the group never gets there."""
        if isinstance(n_rollouts, Real):
            surface, never = self._at(float(n_rollouts))
            return surface.log_steps(n_prompts, n_rollouts).where(~never, np.inf)
        return self._by_group(self.log_steps, n_prompts, n_rollouts)

    def log_ratio(self, n_prompts: Any, n_rollouts: Any) -> xr.DataArray:
        """Return log S/S_min at batches, S_min that of endless groups; finite (see above)."""
        if isinstance(n_rollouts, Real):
            steps = self._at(float(n_rollouts))[0].log_steps(n_prompts, n_rollouts)
            return steps - self._log_s_min
        return self._by_group(self.log_ratio, n_prompts, n_rollouts)

    def log_gain(
        self, before: tuple[float, float], after: tuple[float, float]
    ) -> xr.DataArray:
        """Return log S at one batch over S at another; ±∞ where one never arrives, NaN if both."""
        with np.errstate(invalid="ignore"):
            return self.log_steps(*after) - self.log_steps(*before)

    def _by_group(self, one_group: Any, n_prompts: Any, n_rollouts: xr.DataArray) -> xr.DataArray:
        """Return what a function says of batches along one dimension, group by group."""
        (dim,) = n_rollouts.dims
        prompts = n_prompts if isinstance(n_prompts, xr.DataArray) else xr.full_like(
            n_rollouts, n_prompts, dtype=float)
        sizes, place = np.unique(n_rollouts.values, return_inverse=True)
        found = [one_group(prompts.isel({dim: place == k}), float(size))
                 for k, size in enumerate(sizes)]
        order = np.argsort(np.argsort(place, kind="stable"), kind="stable")
        return xr.concat(found, dim).isel({dim: order})

    def cbs_prompts(self, n_rollouts: float) -> xr.DataArray:
        """Return the n_prompts at which S is twice its limit, the group size held; NaN if never."""
        found = self.along_prompts(n_rollouts).cbs_prompts(n_rollouts)
        return found.where(~self.never(n_rollouts))

    def prompts_at_gain(self, gain: float, n_rollouts: float) -> xr.DataArray:
        """Return the largest n_prompts at which doubling still saves a share; NaN if never."""
        found = self.along_prompts(n_rollouts).prompts_at_gain(gain, n_rollouts)
        return found.where(~self.never(n_rollouts))

    def cbs_rollouts(self, n_prompts: float) -> xr.DataArray:
        """Return the n_rollouts at which S is twice its value at G → ∞; 0 where none is so slow."""
        over = self._over_groups(n_prompts)
        limit = self.log_ratio(n_prompts, _ENDLESS).values
        return self._last(over - limit - np.log(2.0))

    def rollouts_at_gain(self, gain: float, n_prompts: float) -> xr.DataArray:
        """Return the largest n_rollouts at which doubling them still saves a share; 0 if none."""
        over = self._over_groups(n_prompts)
        saved = over[:-_PER_DOUBLING] - over[_PER_DOUBLING:]
        return self._last(saved + np.log1p(-gain))

    def best_rollouts_of(self, total_batch: float) -> xr.DataArray:
        """Return the group size that minimises S at a total batch (samples)."""
        over = np.stack([self.log_ratio(total_batch / g, g).values for g in self._sizes])
        best = np.clip(over.argmin(axis=0), 1, len(over) - 2)
        below, here, above = (np.take_along_axis(over, (best + k)[None], 0)[0] for k in (-1, 0, 1))
        bend = below - 2.0 * here + above
        with np.errstate(divide="ignore", invalid="ignore"):
            away = np.where(bend > 0, 0.5 * (below - above) / bend, 0.0)
        log_sizes = np.log(self._sizes)
        found = log_sizes[best] + np.clip(away, -1.0, 1.0) * (log_sizes[1] - log_sizes[0])
        return self._log_s_min.copy(data=np.exp(found))

    @cached_property
    def _sizes(self) -> np.ndarray:
        """A grid of group sizes from the least that the law knows."""
        least = 1.0 if self.law.plain else 2.0
        return least * 2.0 ** (np.arange(_PER_DOUBLING * _DOUBLINGS + 1) / _PER_DOUBLING)

    def _over_groups(self, n_prompts: float) -> np.ndarray:
        return np.stack([self.log_ratio(n_prompts, float(g)).values for g in self._sizes])

    def _last(self, above: np.ndarray) -> xr.DataArray:
        """Return where along the grid values (size, …) last fall through 0; 0 if never above."""
        inside = above[:-1] >= 0
        k = len(inside) - 1 - inside[::-1].argmax(axis=0)
        first, second = (np.take_along_axis(above, (k + j)[None], 0)[0] for j in (0, 1))
        fall = np.where(first > second, first - second, 1.0)
        log_sizes = np.log(self._sizes)
        found = np.exp(log_sizes[k] + np.clip(first / fall, 0.0, 1.0)
                       * (log_sizes[1] - log_sizes[0]))
        return self._log_s_min.copy(data=np.where(inside.any(axis=0), found, 0.0))

    def _at(self, n_rollouts: float) -> tuple[Surface, xr.DataArray]:
        if n_rollouts not in self._groups:
            self._groups[n_rollouts] = self._read(n_rollouts)
        return self._groups[n_rollouts]

    def _read(self, n_rollouts: float) -> tuple[Surface, xr.DataArray]:
        """Return S at one group size as a surface of its own, and where it never arrives."""
        posterior, s_min = self.posterior, self.posterior["S_min"]
        curve = posterior[CURVE].transpose(..., PROGRESS)
        grid = np.log(posterior[PROGRESS].values)
        draws = [dim for dim in curve.dims if dim != PROGRESS]
        foot = posterior[FOOT]
        wanted = foot + (posterior["threshold"] - foot) * np.exp(posterior[LOSS] / n_rollouts)
        wanted = wanted.transpose(*draws, ...)
        rows = curve.values.reshape(-1, len(grid))
        log_tau, beyond = _crossings(grid, rows, wanted.values.reshape(len(rows), -1))
        values = {"S_min": wanted.copy(data=np.exp(log_tau).reshape(wanted.shape))}
        weight = posterior[NODE_WEIGHT].values
        along = log_tau[..., None] + np.log(_node_shares(len(weight)))
        for name in self.law.scales:
            now = posterior[now_name(name)].transpose(*draws, PROGRESS).values
            path = np.exp(_along(grid, np.log(now.reshape(-1, len(grid))), along))
            path = path.reshape(*wanted.shape, len(weight))
            values[path_name(name)] = xr.DataArray(path, dims=(*wanted.dims, "node"))
            values[name] = wanted.copy(data=path @ weight)
        if self.law.alpha is None:
            values["alpha"] = posterior["alpha"]
        order = {name: value.transpose(*s_min.dims, *(d for d in ("node",) if d in value.dims))
                 for name, value in values.items() if name != "alpha"}
        read = xr.Dataset(values | order, coords={NODE_WEIGHT: ("node", weight)})
        never = wanted.copy(data=beyond.reshape(wanted.shape)).transpose(*s_min.dims)
        return Surface(self.law, read), never


def _node_shares(n: int) -> np.ndarray:
    """Return the nodes of progress up to a threshold, as shares of it, whose weights are kept."""
    return 0.5 * (np.polynomial.legendre.leggauss(n)[0] + 1.0)


def _crossings(
    grid: np.ndarray, rows: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where rows that do not fall, (draw, node), meet targets, (draw, target), on a grid.

    Beyond the rows' ends it is the grid's end, and whether it is beyond the last.
    """
    k = (rows[:, :, None] < targets[:, None, :]).sum(axis=1)
    right = np.clip(k, 1, len(grid) - 1)
    low, high = (np.take_along_axis(rows, at, axis=1) for at in (right - 1, right))
    rise = np.where(high > low, high - low, 1.0)
    share = np.clip((targets - low) / rise, 0.0, 1.0)
    return grid[right - 1] + share * (grid[right] - grid[right - 1]), k == len(grid)


def _along(grid: np.ndarray, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return rows, (draw, node), interpolated at places on the grid, (draw, …)."""
    right = np.clip(np.searchsorted(grid, at), 1, len(grid) - 1).reshape(len(rows), -1)
    share = np.clip((at.reshape(len(rows), -1) - grid[right - 1])
                    / (grid[right] - grid[right - 1]), 0.0, 1.0)
    low, high = (np.take_along_axis(rows, k, axis=1) for k in (right - 1, right))
    return (low + share * (high - low)).reshape(at.shape)
