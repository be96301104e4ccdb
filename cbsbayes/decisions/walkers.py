r"""Sample a small posterior by walkers that learn their steps from each other.

Differential evolution [1]_ in two halves: a walker of one half moves along the difference of two
walkers of the other half,

.. math:: x_i' = x_i + \gamma (x_j - x_k) + e, \quad \gamma = 2.38/\sqrt{2 d},

so that steps have the posterior's own widths and correlations, with nothing to tune. It is exact
for densities with walls (parameters that cannot be negative) and along ridges (two parameters of
which only the sum is known), where a normal approximation is not. Every tenth step has γ near 1,
which lets walkers change sides. All ensembles move at once as arrays.

References
----------
.. [1] ter Braak, "A Markov chain Monte Carlo version of the genetic algorithm differential
   evolution", Statistics and Computing 16 (2006); the halves after Goodman & Weare (2010).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["walk"]

_JITTER = 1e-6  # so that steps are not confined to the ensemble's differences
_JUMP_EVERY, _JUMP = 10, 0.98
_RESCUES = 3  # times, in the first half of the warm-up, that stragglers are put back

LogDensity = Callable[[np.ndarray], np.ndarray]


def walk(
    log_density: LogDensity, start: np.ndarray, *, tune: int, keep: int, thin: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return draws of several independent ensembles, shape (ensemble, keep, walker, dim).

    Parameters
    ----------
    log_density : callable
        From positions of shape (…, dim) to log densities of shape (…); −inf where not allowed.
    start : numpy.ndarray
        Starting positions of finite density, shape (ensemble, walker, dim); walkers even in
        number.
    tune, keep, thin : int
        Steps discarded, draws kept of each walker, and steps between them.
    rng : numpy.random.Generator
        Source of randomness.
    """
    at, value = start.copy(), log_density(start)
    rescue_at = {tune * (k + 1) // (2 * _RESCUES) for k in range(_RESCUES)}
    for step in range(tune):
        _step(log_density, at, value, step, rng)
        if step in rescue_at:
            _rescue(at, value, rng)
    draws = np.empty((at.shape[0], keep, *at.shape[1:]))
    for step in range(keep * thin):
        _step(log_density, at, value, step, rng)
        if step % thin == thin - 1:
            draws[:, step // thin] = at
    return draws


def _step(
    log_density: LogDensity, at: np.ndarray, value: np.ndarray, step: int,
    rng: np.random.Generator,
) -> None:
    """Move both halves once, in place."""
    n, walkers, dim = at.shape
    half, ensemble = walkers // 2, np.arange(n)[:, None]
    gamma = _JUMP if step % _JUMP_EVERY == 0 else 2.38 / np.sqrt(2.0 * dim)
    for mine, others in ((slice(0, half), at[:, half:]), (slice(half, walkers), at[:, :half])):
        first = rng.integers(0, half, (n, half))
        second = (first + rng.integers(1, half, (n, half))) % half
        apart = others[ensemble, first] - others[ensemble, second]
        moved = at[:, mine] + gamma * apart + _JITTER * rng.standard_normal((n, half, dim))
        new = log_density(moved)
        yes = np.log(rng.random((n, half))) < new - value[:, mine]
        at[:, mine] = np.where(yes[..., None], moved, at[:, mine])
        value[:, mine] = np.where(yes, new, value[:, mine])


def _rescue(at: np.ndarray, value: np.ndarray, rng: np.random.Generator) -> None:
    """Put walkers far below the others' density where one of the better half stands, in place.

    A straggler in a flat tail would stretch everyone's steps; draws of the warm-up are not kept.
    """
    for ensemble in range(len(at)):
        order = np.argsort(-value[ensemble])
        better = order[: len(order) // 2]
        far = value[ensemble] < value[ensemble, better].min() - 5.0 * at.shape[2]
        chosen = rng.choice(better, far.sum())
        at[ensemble, far], value[ensemble, far] = at[ensemble, chosen], value[ensemble, chosen]
