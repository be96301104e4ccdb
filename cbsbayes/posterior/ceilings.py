r"""Small groups that saturate lower: S where they do, and whether the runs say that they do.

A run of group size G shows :math:`h_0 + f(G) (h - h_0)` where endless groups show h, with
:math:`f(G) = e^{-\lambda/G}` (`cbsbayes.models.trajectory`). It shows the
threshold t where endless groups show

.. math:: t'(G) = h_0 + (t - h_0)/f(G),

so that S(P, G; t) is the integral of `cbsbayes.posterior.surface` up to progress τ(t'(G)), and
infinite where the curve never gets to t'.

A fit without ceilings asks its curves all the same, as the model that has ceilings would: a normal
approximation of that model's posterior gives λ and its spread, and a caution is raised where λ is
positive by so many spreads that it hardly happens by chance. It takes no sampling. Runs of one
n_prompts are not asked: there a lower ceiling and a larger noise scale look alike. Of those, and of
a table of crossings, all that can be said is who never arrived.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from cbsbayes.crossings.intervals import RIGHT
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.trajectory import find_laplace
from cbsbayes.models.laws import Law
from cbsbayes.models.parameters import CURVE, INITIAL_ACCURACY, PROGRESS, SATURATION, now_name
from cbsbayes.models.trajectory import TrajectoryParameters
from cbsbayes.models.trajectory_data import trajectory_data
from cbsbayes.posterior import sentence

__all__ = ["ALARM", "OPTION", "Ceilings", "Level", "ceiling_loss", "check_ceilings",
           "small_group_caution"]

OPTION = "--ceiling-by-group"
ALARM = 2.0  # spreads of λ above 0; what it misses and what it raises falsely was counted


def check_ceilings(model: str, law: Law, n_rollouts: np.ndarray | None = None) -> None:
    """Refuse what cannot have a ceiling for every group size.

    Parameters
    ----------
    model : str
        Name of the model.
    law : Law
        The law to be fitted.
    n_rollouts : numpy.ndarray, optional
        Group sizes of the runs to be fitted, where they are known already.

    Raises
    ------
    CBSDataError
        If the model has no curves, the law no group size, or all runs one group size.
    """
    if model != "trajectory":
        raise CBSDataError(f"{OPTION} was given with --model {model}, which knows no curves and so "
                           "no ceilings; use --model trajectory, or leave it out")
    if not law.two_axis:
        raise CBSDataError(f"{OPTION} was given with the law {law.name}, which has no group size; "
                           "use a two-axis law, such as --law two_axis_free, or leave it out")
    if n_rollouts is not None and len(np.unique(n_rollouts)) < 2:
        raise CBSDataError(f"{OPTION} was given, but all runs fitted have n_rollouts = "
                           f"{n_rollouts[0]:g}: one group size cannot be told from another; add "
                           "runs with other n_rollouts, or leave it out")


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
        self._initial, self._saturation = (
            posterior[name].transpose(*draws).values.ravel()[self._draw]
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
        gain = (self._target - self._initial) * np.exp(self._saturation / n_rollouts)
        log_tau, reached = self._crossings(self._initial + gain)
        paths = np.exp(self._noise(log_tau[:, None] + np.log(self._share)))
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


def ceiling_loss(fitted: xr.Dataset, law: Law, metric: str | None) -> tuple[float, float] | None:
    """Return λ and its spread; None where the runs have nothing to say about it.

    Parameters
    ----------
    fitted : xarray.Dataset
        The runs fitted, and only those.
    law : Law
        The law fitted.
    metric : str or None
        Validation set.
    """
    if not law.two_axis or any(len(np.unique(fitted[axis].values)) < 2
                               for axis in ("n_prompts", "n_rollouts")):
        return None
    try:
        data = trajectory_data(fitted, law, metric)
        found = find_laplace(TrajectoryParameters(data, law, ceiling_by_group=True))
    except (CBSDataError, np.linalg.LinAlgError):  # no curves, or none that the model can follow
        return None
    j = found.parameters.slices[SATURATION].start
    return float(found.mode[j]), float(np.hypot.reduce(found.root[j]))


def small_group_caution(
    fitted: xr.Dataset, law: Law, metric: str | None, crossings: xr.Dataset | None = None
) -> list[str]:
    """Return one sentence where small groups seem to saturate lower, else none.

    Parameters
    ----------
    fitted, law, metric
        As of `ceiling_loss`.
    crossings : xarray.Dataset, optional
        The runs' crossings, which are asked where curves have nothing to say: there a sentence
        tells if only small groups fail the hardest threshold.
    """
    found = ceiling_loss(fitted, law, metric)
    if found is None and crossings is not None:
        return _unreached(crossings)
    if found is None or found[0] < ALARM * found[1]:
        return []
    smallest = int(fitted["n_rollouts"].values.min())
    return [sentence("small_groups", n=smallest, share=np.exp(-found[0] / smallest), loss=found[0],
                     spread=found[1], option=OPTION)]


def _unreached(crossings: xr.Dataset) -> list[str]:
    """Return one sentence where only small groups fail the hardest threshold, else none."""
    rollouts = crossings["n_rollouts"].values
    hardest = 0 if crossings.attrs.get("direction") == "decreasing" else -1
    failed = crossings["status"].isel(threshold=hardest).values == RIGHT
    if (rollouts < 1).any() or not failed.any() or rollouts[failed].max() >= np.median(rollouts):
        return []
    return [sentence("small_groups_unreached", n=rollouts[failed].max())]
