r"""Time and cost to the target over a grid of batches: updates times seconds per update.

.. math:: T(P, G) = S(P, G; t)\; t(P, G) / 3600 \text{ hours}, \qquad
          \text{GPU-hours} = T \cdot \text{GPUs}, \qquad \text{price} = \text{GPU-hours} \cdot x

Draws of S come from the fit, draws of the clock from the step times of the same runs, each apart:
that a run with a slow step also needs more updates is not modelled. A typical run has neither a run
effect nor a slow machine; a new run has both drawn anew, as the fit's replicates have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cbsbayes.decisions.allocation import TYPICAL
from cbsbayes.decisions.hull import place_batches
from cbsbayes.decisions.step_times import SweepClock, clock_of
from cbsbayes.errors import CBSDataError

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit

__all__ = ["NEW", "TYPICAL", "Machine", "Times", "batch_grid", "quantiles", "times_of"]

NEW = "one new run"
_REPEATS = 4  # draws of the clock, and of a new run, for every draw of S


@dataclass(frozen=True)
class Machine:
    """What the runs were trained on, and what it costs.

    Attributes
    ----------
    gpus : tuple of int
        GPUs that the runs used, then other counts to predict for; empty where not known.
    price : float or None
        Per GPU-hour, in any currency.
    """

    gpus: tuple[int, ...] = ()
    price: float | None = None

    def __post_init__(self) -> None:
        """Refuse counts and prices that are not positive."""
        for count in self.gpus:
            if count < 1:
                raise CBSDataError(f"--gpus is {count}; valid: a whole number of at least 1")
        if self.price is not None and not (np.isfinite(self.price) and self.price > 0):
            raise CBSDataError(f"--price is {self.price:g} per GPU-hour; valid: a positive number")
        if self.price is not None and not self.gpus:
            raise CBSDataError("--price needs the number of GPUs the runs used; add --gpus N")

    @property
    def counts(self) -> tuple[int, ...]:
        """GPU counts without repetition; 1 stands for the machine as it is where not known."""
        return tuple(dict.fromkeys(self.gpus)) or (1,)


@dataclass(frozen=True, eq=False)
class Times:
    """Draws of the time to target.

    Attributes
    ----------
    machine : Machine
        GPU counts and price.
    thresholds : tuple of float
        Targets.
    batches : numpy.ndarray
        n_prompts and n_rollouts, shape (batch, 2); one-axis data give the total batch and 1.
    range : numpy.ndarray
        ``tried``, ``inside`` or ``extrapolated``, shape (batch,).
    steps, hours : dict
        By `TYPICAL` and `NEW`: updates, shape (draw, threshold, batch); hours, shape
        (draw, threshold, batch, gpus).
    seconds : numpy.ndarray
        A typical run's seconds per update, shape (draw, batch, gpus).
    """

    machine: Machine
    thresholds: tuple[float, ...]
    batches: np.ndarray
    range: np.ndarray
    steps: dict[str, np.ndarray]
    hours: dict[str, np.ndarray]
    seconds: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        """Batches that are no extrapolation, shape (batch,)."""
        return self.range != "extrapolated"

    def at(self, threshold: float) -> int:
        """Return the place of a threshold.

        Raises
        ------
        CBSDataError
            If there is no such threshold.
        """
        near = np.flatnonzero(np.isclose(self.thresholds, threshold))
        if near.size == 0:
            raise CBSDataError(f"threshold {threshold:g} has no times; there are: "
                               f"{', '.join(f'{t:g}' for t in self.thresholds)}")
        return int(near[0])

    def samples(self, applies_to: str) -> np.ndarray:
        """Return samples to the target, shape (draw, threshold, batch)."""
        return self.steps[applies_to] * self.batches.prod(axis=1)

    def gpu_hours(self, applies_to: str) -> np.ndarray:
        """Return GPU-hours to the target, shape (draw, threshold, batch, gpus)."""
        return self.hours[applies_to] * np.array(self.machine.counts)


def batch_grid(fit: Fit, sweep_clock: SweepClock) -> np.ndarray:
    """Return the batches to look at: every pair of values tried, and one doubling beyond.

    Shape (batch, 2), sorted; group laws have no batches of one rollout per prompt.
    """
    tried = _fitted_batches(fit)
    prompts = _with_ends(tried[:, 0])
    if sweep_clock.one_axis:
        return np.stack([prompts, np.ones(len(prompts))], axis=1)
    rollouts = _with_ends(tried[:, 1])
    rollouts = rollouts[rollouts >= (2 if fit.law.needs_baseline_group else 1)]
    return np.array([[p, g] for p in prompts for g in rollouts])


def _with_ends(values: np.ndarray) -> np.ndarray:
    values = np.unique(values)
    return np.unique([max(np.floor(values[0] / 2), 1.0), *values, 2 * values[-1]])


def _fitted_batches(fit: Fit) -> np.ndarray:
    runs = fit.crossings
    prompts, rollouts = (runs[name].values.astype(float) for name in ("n_prompts", "n_rollouts"))
    one_axis = prompts < 0
    total = runs["total_batch"].values
    return np.unique(np.stack([np.where(one_axis, total, prompts),
                               np.where(one_axis, 1.0, rollouts)], axis=1), axis=0)


def times_of(
    fit: Fit, machine: Machine | None = None, *, batches: np.ndarray | None = None,
    thresholds: Sequence[float] | None = None, random_seed: int = 0,
) -> Times:
    """Return draws of time to target.

    Parameters
    ----------
    fit : Fit
        A fit whose runs logged step times.
    machine : Machine, optional
        GPUs and price; without it time only.
    batches : numpy.ndarray, optional
        Shape (batch, 2); by default `batch_grid`.
    thresholds : sequence of float, optional
        Fitted ones; by default all.
    random_seed : int
        Pairs draws of S with draws of the clock, and draws new runs.

    Raises
    ------
    CBSDataError
        If fewer than three runs have a step time, a threshold was not fitted, or the law has no
        value at a batch.
    """
    machine = machine or Machine()
    sweep_clock = clock_of(fit)
    grid = batch_grid(fit, sweep_clock) if batches is None else np.asarray(batches, dtype=float)
    chosen = _chosen(fit, thresholds)
    rng = np.random.default_rng(random_seed)
    steps = _steps(fit, grid, chosen, rng)
    seconds, spread = _seconds(sweep_clock, grid, machine, len(steps[TYPICAL]), rng)
    hours = {TYPICAL: steps[TYPICAL][..., None] * seconds[:, None] / 3600,
             NEW: (steps[NEW] * np.exp(spread)[:, None])[..., None] * seconds[:, None] / 3600}
    return Times(machine, tuple(float(t) for t in fit.thresholds[chosen]), grid,
                 _range(fit, sweep_clock, grid), steps, hours, seconds)


def _chosen(fit: Fit, thresholds: Sequence[float] | None) -> np.ndarray:
    if thresholds is None:
        return np.arange(len(fit.thresholds))
    places = [np.flatnonzero(np.isclose(fit.thresholds, t)) for t in thresholds]
    for threshold, place in zip(thresholds, places, strict=True):
        if not place.size:
            raise CBSDataError(f"threshold {threshold:g} was not fitted; fitted: "
                               f"{', '.join(f'{t:g}' for t in fit.thresholds)}")
    return np.array([int(place[0]) for place in places])


def _range(fit: Fit, sweep_clock: SweepClock, grid: np.ndarray) -> np.ndarray:
    """Return where batches lie; beyond either the batches fitted or those timed is beyond."""
    fitted, timed = (place_batches(grid, tried)
                     for tried in (_fitted_batches(fit), sweep_clock.batches))
    return np.where(timed == "extrapolated", timed, fitted)


def _steps(
    fit: Fit, grid: np.ndarray, chosen: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return updates of a typical and of a new run, shape (draw, threshold, batch) each."""
    order = ("sample", "threshold", "batch")
    typical = np.exp(fit.log_steps(*grid.T).transpose(*order).values[:, chosen])
    new = [np.exp(fit.new_run(*grid.T, random_seed=int(seed)).transpose(*order).values[:, chosen])
           for seed in rng.integers(2**32, size=_REPEATS)]
    return {TYPICAL: np.concatenate([typical] * _REPEATS), NEW: np.concatenate(new)}


def _seconds(
    sweep_clock: SweepClock, grid: np.ndarray, machine: Machine, n_draws: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return seconds per update (draw, batch, gpus), and new runs' log deviations (draw, batch)."""
    counts = machine.counts
    picked = rng.permutation(np.arange(n_draws) % len(sweep_clock.clock.sigma))
    if len(sweep_clock.clock.sigma) > n_draws:
        picked = rng.choice(len(sweep_clock.clock.sigma), n_draws, replace=False)
    seconds = np.stack([sweep_clock.seconds_per_update(grid, count / counts[0])[picked]
                        for count in counts], axis=-1)
    return seconds, sweep_clock.clock.spread(len(grid), rng)[picked]


def quantiles(draws: np.ndarray, prob: float) -> np.ndarray:
    """Return median, lower and upper end along the first axis, shape (3, …).

    Draws that never reach the target are infinite, between which there is nothing to interpolate.
    """
    return np.quantile(draws, [0.5, (1 - prob) / 2, (1 + prob) / 2], axis=0, method="inverted_cdf")
