r"""Hamiltonian Monte Carlo by many short walkers at once, for smooth posteriors.

Walkers start from a normal approximation :math:`x = m + L z` and move in z, where the posterior is
nearly round, so that a trajectory of fixed length reaches an almost independent point in three or
four evaluations of the gradient. All walkers move together as arrays and share the size of the
steps, which they learn in a few dozen moves, and the posterior's shape, which they learn twice on
the way: its covariance, and how far each coordinate is skewed (`cbsbayes.inference.skew`), so that
:math:`x = h(m + L z)`. Lengths and steps are jittered, so that no trajectory comes back to where it
began.

A chain is several walkers after one another. All of them start near the mode, so that agreeing
with each other is no proof of having arrived: what they did before draws are kept must be many
times as long as draws stay correlated. Where it is not, all moves so far become warm-up, the shape
is learned from them, and they go on; should that not do, draws are taken more moves apart. The same
as soon as one diverges, with smaller steps from there on. A walker that began where the density is
so steep that it refuses every step would stay there for good, and r_hat would hardly see one of
forty: it is put where another is, before draws are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from cbsbayes.inference.diagnostics import convergence
from cbsbayes.inference.skew import skew_of, unbent

__all__ = ["WARM_UP", "Gradients", "Walk", "walk", "what_failed"]

Gradients = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

_LENGTH = 2.2  # of a trajectory in standard deviations: past a quarter of a turn, for slow ones
_FIRST_STEP = 0.6
_JITTER = 0.15
_START = 1.2  # spread of the walkers' starts in posterior spreads
WARM_UP = 24
"""Moves in three equal parts; the shape is learned after the first and the second."""

_TRUST = 100  # draws that the covariance known before counts for when it is learned
_TOGETHER = 4  # draws of a walker that go together count for one
_STUCK = 0.2  # of trajectories accepted, below which a walker is stuck
_WALKER_DRAWS = 50  # of one walker at least
_MOST_WALKERS = 10  # of one chain
_ARRIVED = 6.0  # times its autocorrelation time that a walker must have moved before its draws
_ROUNDS, _THINNER = 4, 2  # of going on, and by how much farther apart draws are then
_DIVERGED = 1000.0  # error of the energy
_MAX_R_HAT, _LEAST_SHARE = 1.05, 0.02  # of effective draws in draws: beyond, walkers failed


@dataclass(frozen=True)
class Walk:
    """What the walkers left.

    Attributes
    ----------
    position : numpy.ndarray
        Shape (chain, draw, n_dim).
    stats : dict
        ``diverging, acceptance_rate, energy, lp, n_steps`` and ``step_size``, shape (chain, draw)
        each, by the names that PyMC and nutpie use.
    failed : str
        Why the draws should not be used; empty where they may.
    """

    position: np.ndarray
    stats: dict[str, np.ndarray]
    failed: str

    def dataset(self) -> xr.Dataset:
        """Return the numbers with dims chain and draw, as group ``sample_stats`` has them."""
        chains, draws = self.position.shape[:2]
        return xr.Dataset({name: (("chain", "draw"), value) for name, value in self.stats.items()},
                          coords={"chain": np.arange(chains), "draw": np.arange(draws)})


def walk(
    gradients: Gradients, middle: np.ndarray, factor: np.ndarray, *, chains: int, draws: int,
    cores: int, random_seed: int, target_accept: Sequence[float] = (0.8,),
    warm_up: int = WARM_UP,
) -> Walk:
    """Return draws from a density.

    Parameters
    ----------
    gradients : callable
        From positions of shape (walker, n_dim) to their log densities, shape (walker,), and
        gradients, shape (walker, n_dim); called from several threads at once.
    middle, factor : numpy.ndarray
        Mean and lower triangular root of the covariance of a normal approximation, shapes
        (n_dim,) and (n_dim, n_dim).
    chains, draws : int
        Chains, and draws kept of each.
    cores : int
        Threads.
    random_seed : int
        Same seed and versions, whatever the number of threads: same draws.
    target_accept : sequence of float
        Shares of trajectories accepted that the size of steps is learned for: the next once one
        diverges. .8 was the fastest; more where the posterior has narrow places.
    warm_up : int
        Moves before draws are kept. More saves going on where draws are known to stay correlated
        for long.
    """
    each = max(1, min(_MOST_WALKERS, draws // _WALKER_DRAWS))
    first, *smaller = target_accept
    with ThreadPoolExecutor(cores) as pool:
        walkers = _Walkers(_in_threads(gradients, pool, cores), middle, factor, chains * each,
                           first, np.random.default_rng(random_seed))
        walkers.warm_up(warm_up)
        return _arrive(walkers, chains, draws, smaller, warm_up)


def _arrive(
    walkers: _Walkers, chains: int, draws: int, smaller: list[float], warm_up: int
) -> Walk:
    """Draw until draws have nothing of where they began and none diverged, or nothing helps."""
    n_moves = -(-chains * draws // len(walkers.z))
    thin = 1
    for k in range(_ROUNDS):
        moved, kept = walkers.moved, list[dict[str, np.ndarray]]()
        while len(kept) < n_moves:
            kept.append(walkers.moves(thin))
            if smaller and kept[-1]["diverging"].any():
                walkers.target_accept, *smaller = smaller
                walkers.learn_again(warm_up)
                moved = walkers.moved
                kept.clear()
        found = _by_chain(kept, chains, draws)
        correlated = thin * chains * draws / convergence(found.position).ess_bulk.min()
        stuck = np.mean([each["acceptance_rate"] for each in kept], axis=0).min() < _STUCK
        arrived = moved >= _ARRIVED * correlated or found.stats["diverging"].any()
        if arrived and not stuck:
            return found
        walkers.learn_again(warm_up)
        thin *= _THINNER if k and not stuck else 1
    return replace(found, failed="a walker never moved on" if stuck else
                   "draws stayed correlated for too long")


def _by_chain(kept: list[dict[str, np.ndarray]], chains: int, draws: int) -> Walk:
    def together(name: str) -> np.ndarray:
        values = np.stack([move[name] for move in kept], axis=1)  # (walker, move, …)
        return values.reshape(chains, -1, *values.shape[2:])[:, :draws]

    position = together("position")
    stats = {name: together(name) for name in kept[0] if name != "position"}
    return Walk(position, stats, what_failed(position, stats["diverging"]))


def what_failed(position: np.ndarray, diverging: np.ndarray) -> str:
    """Return why draws should not be used; empty where they may.

    Parameters
    ----------
    position : numpy.ndarray
        Draws, shape (chain, draw, n_dim).
    diverging : numpy.ndarray
        Which diverged, shape (chain, draw).
    """
    found, least = convergence(position), _LEAST_SHARE * diverging.size
    if diverging.any():
        return f"{int(diverging.sum())} draws diverged"
    if not found.r_hat.max() <= _MAX_R_HAT:
        return f"r_hat reached {found.r_hat.max():.3f}, above {_MAX_R_HAT}"
    if not found.ess_bulk.min() >= least:
        return f"only {found.ess_bulk.min():.0f} draws were effective, below {least:.0f}"
    return ""


def _in_threads(gradients: Gradients, pool: ThreadPoolExecutor, cores: int) -> Gradients:
    if cores == 1:
        return gradients

    def together(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = pool.map(gradients, np.array_split(positions, min(cores, len(positions))))
        values, slopes = zip(*parts, strict=True)
        return np.concatenate(values), np.concatenate(slopes)

    return together


class _Walkers:
    """Walkers in the standardised coordinates z, and how they move.

    The density is that of y = middle + factor z, of which the skew makes the position.
    """

    def __init__(
        self, gradients: Gradients, middle: np.ndarray, factor: np.ndarray, n_walkers: int,
        target_accept: float, rng: np.random.Generator,
    ) -> None:
        self.gradients, self.rng, self.target_accept = gradients, rng, target_accept
        self.middle, self.factor, self.skew = middle, factor, unbent(len(middle))
        self.log_step = np.log(_FIRST_STEP)
        self.seen, self.accepted = list[np.ndarray](), list[np.ndarray]()
        self.z = _START * rng.standard_normal((n_walkers, len(middle)))
        self.value, self.slope = self._density(self.z)

    def warm_up(self, warm_up: int) -> None:
        """Learn the size of the steps, and the shape from the moves of the first two parts.

        A wrong shape costs speed only: any gives the same posterior.
        """
        part = -(-warm_up // 3)
        self._learn_steps(range(part))
        for start in (part, 2 * part):
            self._turn()
            self._learn_steps(range(start, start + part))

    def learn_again(self, moves: int) -> None:
        """Learn the shape from what was seen since, then the size of the steps in some moves."""
        self._turn()
        self._learn_steps(range(moves))

    @property
    def moved(self) -> int:
        """How many moves were made."""
        return len(self.seen)

    def moves(self, n: int) -> dict[str, np.ndarray]:
        """Move `n` times; return the last, and whether any of them diverged."""
        made = [self.move() for _ in range(n)]
        return made[-1] | {"diverging": np.any([each["diverging"] for each in made], axis=0)}

    def move(self) -> dict[str, np.ndarray]:
        """Move every walker along one trajectory; return where they are and how it went."""
        step = np.exp(self.log_step) * self.rng.uniform(1 - _JITTER, 1 + _JITTER)
        length = _LENGTH * self.rng.uniform(1 - _JITTER, 1 + _JITTER)
        n_steps = max(1, round(length / step))
        momentum = self.rng.standard_normal(self.z.shape)
        before = 0.5 * (momentum**2).sum(axis=1) - self.value
        z, value, slope, momentum = self._leap(momentum, step, n_steps)
        with np.errstate(over="ignore", invalid="ignore"):
            rise = 0.5 * (momentum**2).sum(axis=1) - value - before
        rise = np.where(np.isnan(rise), np.inf, rise)
        accept = np.exp(-np.maximum(rise, 0.0))
        taken = self.rng.uniform(size=len(accept)) < accept
        self.z = np.where(taken[:, None], z, self.z)
        self.slope = np.where(taken[:, None], slope, self.slope)
        self.value = np.where(taken, value, self.value)
        everywhere = np.ones(len(accept))
        y = self._y()
        log_stretch = np.log(self.skew.stretch(y)).sum(axis=1)
        self.seen.append(self.skew.bent(y))
        self.accepted.append(accept)
        return {"position": self.seen[-1], "diverging": rise > _DIVERGED,
                "acceptance_rate": accept, "energy": before, "lp": self.value - log_stretch,
                "n_steps": n_steps * everywhere, "step_size": step * everywhere}

    def _leap(
        self, momentum: np.ndarray, step: float, n_steps: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        z, value, slope = self.z, self.value, self.slope
        with np.errstate(over="ignore", invalid="ignore"):
            momentum = momentum + 0.5 * step * slope
            for k in range(n_steps):
                z = z + step * momentum
                value, slope = self._density(z)
                momentum = momentum + (step if k < n_steps - 1 else 0.5 * step) * slope
        return z, value, slope, momentum

    def _density(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = self.middle + z @ self.factor.T
        stretch = self.skew.stretch(y)
        value, gradient = self.gradients(self.skew.bent(y))
        slope = gradient * stretch + self.skew.change(y) / stretch
        return value + np.log(stretch).sum(axis=1), slope @ self.factor

    def _y(self) -> np.ndarray:
        return self.middle + self.z @ self.factor.T

    def _learn_steps(self, moves: range) -> None:
        """Move, and learn the size of the steps, later moves counting for less."""
        for move in moves:
            accept = self.move()["acceptance_rate"].mean()
            self.log_step += (accept - self.target_accept) / (1 + move / 5) ** 0.6

    def _turn(self) -> None:
        """Standardise anew by the later half of all moves, what was known before beside.

        Walkers that were stuck in it tell nothing and begin anew where others are.
        """
        half = len(self.seen) // 2
        free = np.mean(self.accepted[half:], axis=0) >= _STUCK
        free |= not free.any()
        place = np.where(free, np.arange(len(free)),
                         self.rng.choice(np.flatnonzero(free), len(free)))
        seen = np.concatenate([position[free] for position in self.seen[half:]])
        count = len(seen) / _TOGETHER
        here, top = self.skew.bent(self._y())[place], self.skew.bent(self.middle)
        old, self.skew = self.skew.stretch(self.middle), skew_of(seen, count)
        self.middle = self.skew.straight(top)
        known = self.factor * (old / self.skew.stretch(self.middle))[:, None]
        away = np.linalg.solve(known, (self.skew.straight(seen) - self.middle).T)
        weight = count / (count + _TRUST)
        covariance = weight * np.cov(away) + (1 - weight) * np.eye(len(known))
        self.middle = self.middle + known @ (weight * away.mean(axis=1))
        self.factor = known @ np.linalg.cholesky(np.atleast_2d(covariance))
        self.z = np.linalg.solve(self.factor, (self.skew.straight(here) - self.middle).T).T
        self.value, self.slope = self._density(self.z)
