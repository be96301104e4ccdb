r"""Progress at a threshold where the group size decides how high training gets.

A run of group size G shows :math:`h_0 + f(G) (h - h_0)` where endless groups show h, with
:math:`f(G) = e^{-\lambda/G}` (`cbsbayes.models.trajectory`). It shows the
threshold t where endless groups show

.. math:: t'(G) = h_0 + (t - h_0)/f(G),

so that S(P, G; t) is the integral of `cbsbayes.posterior.surface` up to progress τ(t'(G)), and
infinite where the curve never gets to t'.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from cbsbayes.models.laws import Law
from cbsbayes.models.variables import (
    CURVE,
    INITIAL_ACCURACY,
    PROGRESS,
    SATURATION,
    now_name,
)

__all__ = ["Ceilings", "Level"]


class Level(NamedTuple):
    """What S at a threshold is made of, for every draw.

    Attributes
    ----------
    log_s_min : numpy.ndarray
        Log of S_min (updates), shape (row,); infinite where the threshold is never reached.
    scales : list of numpy.ndarray
        The law's noise scales at nodes of progress up to there, shape (row, node) each.
    """

    log_s_min: np.ndarray
    scales: list[np.ndarray]


class Ceilings:
    """A ceiling for every group size, read off each draw's curve.

    Parameters
    ----------
    law : Law
        The law that was fitted, of two axes.
    posterior : xarray.Dataset
        Draws of the saturation λ, curves and momentary noise along progress.
    like : xarray.DataArray
        Of the dims and order of the rows, threshold last.
    weight : numpy.ndarray
        Weights of the nodes of progress, shape (node,); one where noise is averaged.
    along : bool
        Whether noise is wanted at the nodes, not averaged over them.
    """

    def __init__(
        self, law: Law, posterior: xr.Dataset, like: xr.DataArray, weight: np.ndarray, *,
        along: bool,
    ) -> None:
        self.posterior = posterior
        draws = [dim for dim in like.dims if dim != "threshold"]
        n = like.sizes.get("threshold", 1)
        self._draw = np.repeat(np.arange(like.size // n), n)
        self._target = np.tile(np.atleast_1d(posterior["threshold"].values), like.size // n)
        self._grid = np.log(posterior[PROGRESS].values)
        self._curve, *now = (
            posterior[name].transpose(*draws, PROGRESS).values.reshape(-1, len(self._grid))
            for name in (CURVE, *map(now_name, law.scales)))
        self._log_now = np.log(np.stack(now, axis=-1))
        self._initial, self._saturation = (posterior[name].transpose(*draws).values.ravel()
                                           for name in (INITIAL_ACCURACY, SATURATION))
        nodes = len(posterior["node"]) if "node" in posterior.dims else len(weight)
        x, w = np.polynomial.legendre.leggauss(nodes)
        self._share, self._average = 0.5 * (x + 1.0), None if along else 0.5 * w
        self._known: dict[float, Level] = {}

    def attainable(self, n_rollouts: float) -> xr.DataArray:
        """Return f(G): the share of endless groups' gain that a group size can reach."""
        saturation = self.posterior[SATURATION]
        return saturation.copy(data=np.exp(-saturation.values / n_rollouts))

    def ceiling(self, n_rollouts: float) -> xr.DataArray:
        """Return the accuracy that a group size can reach."""
        top = self.posterior[CURVE].isel({PROGRESS: -1}, drop=True)
        initial = self.posterior[INITIAL_ACCURACY]
        return initial + (top - initial) * self.attainable(n_rollouts)

    def level(self, n_rollouts: Any) -> Level:
        """Return what S is made of at a group size, one for all rows or one for each."""
        if isinstance(n_rollouts, np.ndarray):
            return self._read(n_rollouts)
        if n_rollouts not in self._known:
            self._known[n_rollouts] = self._read(n_rollouts)
        return self._known[n_rollouts]

    def _read(self, n_rollouts: Any) -> Level:
        initial = self._initial[self._draw]
        gain = (self._target - initial) * np.exp(self._saturation[self._draw] / n_rollouts)
        log_tau, reached = self._crossings(initial + gain)
        at = log_tau[:, None] + np.log(self._share)
        paths = np.exp(self._noise(at))
        if self._average is not None:
            paths = np.tensordot(paths, self._average, axes=(1, 0))[:, None]
        return Level(np.where(reached, log_tau, np.inf), list(np.moveaxis(paths, -1, 0)))

    def _crossings(self, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log progress at which every row's curve meets its target, and whether it does."""
        by_draw = target.reshape(len(self._curve), -1, 1)
        k = (self._curve[:, None, :] < by_draw).sum(axis=-1).ravel()
        right = np.clip(k, 1, len(self._grid) - 1)
        low, high = (self._curve[self._draw, at] for at in (right - 1, right))
        share = np.clip((target - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
        first, last = self._grid[right - 1], self._grid[right]
        return first + share * (last - first), k < len(self._grid)

    def _noise(self, at: np.ndarray) -> np.ndarray:
        """Return log momentary noise at log progress, shape (row, place, scale)."""
        right = np.clip(np.searchsorted(self._grid, at), 1, len(self._grid) - 1)
        first, last = self._grid[right - 1], self._grid[right]
        low, high = (self._log_now[self._draw[:, None], k] for k in (right - 1, right))
        return low + np.clip((at - first) / (last - first), 0.0, 1.0)[..., None] * (high - low)
