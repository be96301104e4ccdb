r"""Updates to target by batch and reuse, without a law: batch + reuse + what is left, shrunken.

For run i in cell (batch b, reuse k), at each threshold by itself:

.. math::

    \log S_i &= m + \beta_b + \gamma_k + \delta_{bk} + e_i, \quad e_i \sim N(0, \sigma) \\
    \gamma_{ref} &= \delta_{b,ref} = 0, \quad \delta_{bk} \sim N(0, \tau)

β and γ have wide normal priors, so that no form along the batch is assumed; δ, how a batch's answer
to reuse differs from that of the others, is shrunken as far as the data ask. At one threshold the
run effect and the residual are one error, σ, with the sum of their priors. S_i is known to lie in
an interval, open where the run was cut short.

Sampling is Gibbs by data augmentation: log S_i from its truncated normal, then (σ, τ) by a random
walk with all effects integrated out, then the effects from their normal. Every threshold and chain
is one system of a stack that is solved at once; nothing is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

__all__ = ["REUSE_PRIORS", "ReuseData", "ReuseDraws", "ReusePriors", "design_matrix",
           "sample_reuse"]

_TINY = 1e-300
_MOVES, _ACCEPTED = 2, 0.35
_WIDTHS = np.array([[0.5], [1.5]])  # of a step in log σ and in log τ


class ReusePriors(NamedTuple):
    """Priors on the log scale: sds of β and γ, scale of τ, median of σ and its log's sd."""

    batch_sd: float = 1.5
    reuse_sd: float = 1.0
    interaction: float = 0.2
    sigma: float = 0.11
    sigma_sd: float = 0.6


REUSE_PRIORS = ReusePriors()


@dataclass(frozen=True)
class ReuseData:
    """Crossings of the runs compared.

    Attributes
    ----------
    log_lower, log_upper : numpy.ndarray
        Bounds of log S, shape (threshold, run); infinite where open, both where nothing is known.
    batch, reuse : numpy.ndarray
        Places of each run's batch and reuse factor, shape (run,); reuse 0 is the reference.
    """

    log_lower: np.ndarray
    log_upper: np.ndarray
    batch: np.ndarray
    reuse: np.ndarray

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Cells (batch, reuse) that were run, sorted."""
        return sorted(set(zip(self.batch.tolist(), self.reuse.tolist(), strict=True)))


@dataclass(frozen=True)
class ReuseDraws:
    """Posterior draws.

    Attributes
    ----------
    effects : numpy.ndarray
        Shape (chain, draw, threshold, effect), in the order of `design_matrix`.
    sigma, tau : numpy.ndarray
        Shape (chain, draw, threshold).
    middle : numpy.ndarray
        m, shape (threshold,).
    data : ReuseData
        What was fitted.
    """

    effects: np.ndarray
    sigma: np.ndarray
    tau: np.ndarray
    middle: np.ndarray
    data: ReuseData

    def log_steps(self, batch: int, reuse: int) -> np.ndarray:
        """Return log S of a typical run in a cell, shape (chain, draw, threshold).

        In a cell that was not run δ is drawn anew only at reuse 0, where it is none: other cells
        are given by those that were.
        """
        row = design_matrix(self.data, np.array([batch]), np.array([reuse]))[0]
        return self.middle + self.effects @ row


def design_matrix(data: ReuseData, batch: np.ndarray, reuse: np.ndarray) -> np.ndarray:
    """Return the effects that make up each cell, shape (cell, effect): β, γ from 1 on, δ."""
    n_batches, n_reuse = int(data.batch.max()) + 1, int(data.reuse.max()) + 1
    inner = {cell: k for k, cell in enumerate(c for c in data.cells if c[1] > 0)}
    out = np.zeros((len(batch), n_batches + n_reuse - 1 + len(inner)))
    for row, (b, k) in enumerate(zip(batch.tolist(), reuse.tolist(), strict=True)):
        out[row, b] = 1.0
        if k > 0:
            out[row, n_batches + k - 1] = 1.0
            out[row, n_batches + n_reuse - 1 + inner[b, k]] = 1.0
    return out


@dataclass(frozen=True)
class _Stack:
    """All systems (threshold × chain) at once: precisions, products and densities."""

    x: np.ndarray  # (run, effect)
    fixed: np.ndarray  # precision of β and γ, 0 for δ, shape (effect,)
    inner: np.ndarray  # 1 for δ
    priors: ReusePriors

    def solve(
        self, z: np.ndarray, log_sigma: np.ndarray, log_tau: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return log density of (σ, τ) given z, Cholesky factor and mean of the effects."""
        precision = self.fixed + self.inner * np.exp(-2 * log_tau)[:, None]
        weight = np.exp(-2 * log_sigma)
        matrix = (self.x.T @ self.x) * weight[:, None, None]
        matrix[:, np.arange(self.x.shape[1]), np.arange(self.x.shape[1])] += precision
        factor = np.linalg.cholesky(matrix)
        right = (z @ self.x) * weight[:, None]
        mean = np.linalg.solve(matrix, right[..., None])[..., 0]
        fit = (z**2).sum(-1) * weight - (right * mean).sum(-1)
        log_det = np.log(np.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
        density = (-z.shape[-1] * log_sigma + 0.5 * np.log(precision).sum(-1) - log_det - 0.5 * fit)
        return density + self._prior(log_sigma, log_tau), factor, mean

    def _prior(self, log_sigma: np.ndarray, log_tau: np.ndarray) -> np.ndarray:
        away = (log_sigma - np.log(self.priors.sigma)) / self.priors.sigma_sd
        spread = np.exp(log_tau) / self.priors.interaction
        return -0.5 * away**2 - 0.5 * spread**2 + log_tau  # Jacobian of log τ


def sample_reuse(
    data: ReuseData, *, priors: ReusePriors = REUSE_PRIORS, draws: int = 1000, tune: int = 500,
    chains: int = 4, random_seed: int = 0,
) -> ReuseDraws:
    """Return posterior draws at every threshold.

    Parameters
    ----------
    data : ReuseData
        Crossings of the runs.
    priors : ReusePriors
        On the log scale.
    draws, tune, chains : int
        Kept draws of each chain, warm-up draws, chains.
    random_seed : int
        Of everything random.
    """
    rng = np.random.default_rng(random_seed)
    x = design_matrix(data, data.batch, data.reuse)
    plain = np.array([priors.batch_sd**-2] * (int(data.batch.max()) + 1)
                     + [priors.reuse_sd**-2] * int(data.reuse.max()))
    fixed = np.concatenate([plain, np.zeros(x.shape[1] - len(plain))])
    stack = _Stack(x, fixed, (fixed == 0).astype(float), priors)
    middle = _middles(data)
    low, high = (np.repeat(end - middle[:, None], chains, axis=0)
                 for end in (data.log_lower, data.log_upper))
    kept = list(_gibbs(stack, low, high, draws, tune, rng))
    shape = (draws, len(middle), chains)
    effects, sigma, tau = (np.stack([part[k] for part in kept]) for k in range(3))
    by_chain = (effects.reshape(*shape, -1).transpose(2, 0, 1, 3),
                sigma.reshape(shape).transpose(2, 0, 1), tau.reshape(shape).transpose(2, 0, 1))
    return ReuseDraws(*by_chain, middle, data)


def _middles(data: ReuseData) -> np.ndarray:
    """Return a typical log S per threshold, shape (threshold,)."""
    low = np.where(np.isfinite(data.log_lower), data.log_lower, np.nan)
    high = np.where(np.isfinite(data.log_upper), data.log_upper, np.nan)
    middle = np.where(np.isnan(low), high, np.where(np.isnan(high), low, 0.5 * (low + high)))
    return np.array([row[~np.isnan(row)].mean() if (~np.isnan(row)).any() else 0.0
                     for row in middle])


def _gibbs(
    stack: _Stack, low: np.ndarray, high: np.ndarray, draws: int, tune: int,
    rng: np.random.Generator,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (effects, σ, τ) of every system, kept draw by kept draw."""
    n = len(low)
    hyper = np.stack([np.log(stack.priors.sigma) + 0.3 * rng.standard_normal(n),
                      np.log(0.5 * stack.priors.interaction) + 0.5 * rng.standard_normal(n)])
    z, step = np.clip(0.0, low, high), np.full(n, 0.3)
    for k in range(tune + draws):
        hyper, factor, mean, taken = _walk(stack, z, hyper, step, rng)
        if k < tune:
            step = step * np.exp((taken - _ACCEPTED) / (1 + k) ** 0.6)
        noise = rng.standard_normal(mean.shape)
        effects = mean + np.linalg.solve(factor.transpose(0, 2, 1), noise[..., None])[..., 0]
        z = _truncated(effects @ stack.x.T, np.exp(hyper[0])[:, None], low, high, rng)
        if k >= tune:
            yield effects, np.exp(hyper[0]), np.exp(hyper[1])


def _walk(
    stack: _Stack, z: np.ndarray, hyper: np.ndarray, step: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (log σ, log τ) after a few Metropolis steps, factor and mean there, share taken."""
    now, factor, mean = stack.solve(z, *hyper)
    share = np.zeros(len(z))
    for _ in range(_MOVES):
        proposed = hyper + rng.standard_normal(hyper.shape) * step * _WIDTHS
        new, factor_new, mean_new = stack.solve(z, *proposed)
        taken = np.log(rng.random(len(z))) < new - now
        hyper, now = np.where(taken, proposed, hyper), np.where(taken, new, now)
        factor = np.where(taken[:, None, None], factor_new, factor)
        mean = np.where(taken[:, None], mean_new, mean)
        share += taken / _MOVES
    return hyper, factor, mean, share


def _truncated(mean: np.ndarray, sd: np.ndarray, low: np.ndarray, high: np.ndarray,
               rng: np.random.Generator) -> np.ndarray:
    """Return draws of normals between bounds, on the side of zero where tails keep their digits."""
    a, b = (low - mean) / sd, (high - mean) / sd
    flipped = a > 0
    a, b = np.where(flipped, -b, a), np.where(flipped, -a, b)
    below, above = ndtr(a), ndtr(b)
    u = below + (above - below) * rng.random(mean.shape)
    x = ndtri(np.maximum(u, _TINY))
    x = np.clip(x, a, b)  # so far out in a tail that nothing is left between the bounds
    return mean + sd * np.where(flipped, -x, x)
