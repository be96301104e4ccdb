r"""One batch axis of a posterior as numpy: f = S/S_min over the batch, and where it is met.

With x the log of the batch, log f is convex and falls, and so is x + log f (the log of samples to
target) convex: logs of sums of exponentials of convex functions. Newton's method started where the
function is not below its target comes down to the root from one side; started beyond it, as from
the closed form with averaged noise, it first steps over the root and then does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from cbsbayes.models.laws import Law, group_divisor
from cbsbayes.posterior.ceilings import surface_of
from cbsbayes.posterior.fit import stacked
from cbsbayes.posterior.quantities import TriedBatches
from cbsbayes.posterior.surface import NODE_WEIGHT, Surface, path_name

__all__ = ["Line", "lines_of"]

_STEPS, _CLOSE = 60, 1e-8


@dataclass(frozen=True)
class Line:
    """S/S_min along one batch axis, for every draw and threshold.

    Attributes
    ----------
    at, unit, symbol : str
        What is held fixed, as in ``cbs.csv``; prompts (P) or samples (B).
    smallest, largest : float
        Of the batches tried along the axis.
    noise : numpy.ndarray
        Noise scale in `unit`, shape (draw, threshold, node).
    weight : numpy.ndarray
        Shares of progress of the nodes, shape (node,), summing to one.
    alpha : numpy.ndarray
        Exponent, shape (draw, 1, 1) or (1, 1, 1).
    power : bool
        Whether f is 1 + (noise/batch)^alpha instead of (1 + noise/batch)^alpha.
    surface : Surface
        What the line was cut from.
    n_rollouts : int or None
        The group size held; None along the total batch.
    """

    at: str
    unit: str
    symbol: str
    smallest: float
    largest: float
    noise: np.ndarray
    weight: np.ndarray
    alpha: np.ndarray
    power: bool
    surface: Surface
    n_rollouts: int | None

    def log_ratio(self, log_batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log f and its slope at log batches, shape (draw, threshold)."""
        over = self.noise * np.exp(-log_batch)[..., None]
        if self.power:
            raised = over**self.alpha
            factor, slope = 1.0 + raised, -self.alpha * raised
        else:
            factor = np.exp(self.alpha * np.log1p(over))
            slope = -self.alpha * factor * over / (1.0 + over)
        total = factor @ self.weight
        return np.log(total), (slope @ self.weight) / total

    def ratio_at(self, batch: np.ndarray) -> np.ndarray:
        """Return S/S_min at batches; infinite where a batch is zero."""
        positive = batch > 0
        ratio = np.exp(self.log_ratio(np.log(np.where(positive, batch, 1.0)))[0])
        return np.where(positive, ratio, np.inf)

    def at_overhead(self, epsilon: float) -> np.ndarray:
        """Return the batch at which S = (1 + ε) S_min."""
        averaged, alpha = self.noise @ self.weight, self.alpha[..., 0]
        if self.power:
            start = averaged * epsilon ** (-1.0 / alpha)
        else:
            start = averaged / ((1.0 + epsilon) ** (1.0 / alpha) - 1.0)
        if len(self.weight) == 1:
            return start
        return _descend(self.log_ratio, np.log(start), np.log1p(epsilon))

    def at_linear_excess(self, excess: float) -> np.ndarray:
        """Return the largest batch whose samples exceed those of the smallest tried by a share."""
        anchor = np.full(self.noise.shape[:2], np.log(self.smallest))
        target = np.log1p(excess) + anchor + self.log_ratio(anchor)[0]
        return _descend(self._log_samples, target, target)  # f ≥ 1, so x = target is beyond it

    def at_least_excess(self, excess: float) -> np.ndarray:
        """Return the batch whose samples exceed the least possible by a share (α = 1 alone)."""
        return excess * (self.noise @ self.weight)

    def at_gain(self, gain: float) -> np.ndarray:
        """Return the largest batch at which doubling still saves a share of the updates."""
        if self.n_rollouts is None:
            solved = self.surface.total_at_gain(gain)
        else:
            solved = self.surface.prompts_at_gain(gain, self.n_rollouts)
        return _flat(solved)

    def _log_samples(self, log_batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ratio, slope = self.log_ratio(log_batch)
        return log_batch + ratio, 1.0 + slope


def _descend(
    function: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], start: np.ndarray,
    target: Any,
) -> np.ndarray:
    """Return exp of the root of a convex function by Newton's method."""
    x = np.broadcast_to(start, start.shape).copy()
    for _ in range(_STEPS):
        value, slope = function(x)
        step = (value - target) / slope
        x -= step
        if np.abs(step).max() < _CLOSE:
            break
    return np.exp(x)


def _flat(values: xr.DataArray) -> np.ndarray:
    """Return draws with chain and draw as one, shape (draw, threshold)."""
    flat = values.stack(sample=("chain", "draw"), create_index=False)
    return flat.transpose("sample", "threshold").values


def lines_of(law: Law, posterior: xr.Dataset, tried: TriedBatches) -> Iterator[Line]:
    """Yield the line along the total batch, or one along prompts for every group size of note.

    Parameters
    ----------
    law : Law
        The law that was fitted.
    posterior : xarray.Dataset
        Draws, as `cbsbayes.posterior.surface.Surface` takes them.
    tried : TriedBatches
        The batches of the runs fitted.
    """
    surface = surface_of(law, posterior)
    if not law.two_axis:
        line, scales = _cut(surface)
        yield line("", "samples", "B", min(tried.total), max(tried.total), scales[0],
                   n_rollouts=None)
        return
    for g in tried.groups:
        line, scales = _cut(surface.along_prompts(g))
        prompts = [p for p, rollouts in tried.cells if rollouts == g]
        noise = scales[0] + scales[1] / group_divisor(g, plain=law.plain)
        yield line(f"n_rollouts={g}", "prompts", "P", min(prompts), max(prompts), noise,
                   n_rollouts=g)


def _cut(surface: Surface) -> tuple[Callable[..., Line], list[np.ndarray]]:
    """Return a maker of lines along a surface, and its noise scales, (draw, threshold, node)."""
    law, posterior = surface.law, surface.posterior
    names = [path_name(name) if surface.bends else name for name in law.scales]
    kept = [*names, *(["alpha"] if law.alpha is None else [])]
    draws = stacked(posterior[kept])
    alpha = draws["alpha"].values[:, None, None] if law.alpha is None else np.full(
        (1, 1, 1), law.alpha)
    scales = [draws[name].values if surface.bends else draws[name].values[..., None]
              for name in names]
    weight = np.asarray(posterior[NODE_WEIGHT].values) if surface.bends else np.ones(1)
    return partial(Line, weight=weight, alpha=alpha, power=law.name == "power",
                   surface=surface), scales
