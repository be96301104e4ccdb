r"""Rank-normalised split r_hat and effective sample sizes of many quantities at once.

What `arviz_stats` computes column by column, after Vehtari et al. (2021) [1]_: chains are cut in
two; ranks of all draws become normal scores z; r_hat is the larger of that of z and of the scores
of \|x - median\|; the effective sample size divides the draws by

.. math:: \tau = -1 + 2 \sum_k \min_{j \le k} P_j, \quad P_k = \rho_{2k} + \rho_{2k+1},

summed while the pairs stay positive (Geyer's monotone sequence), of z for the bulk, of being
below the 5 % or the 95 % quantile, whichever is worse, for the tails. The mean autocovariance of
the chains is one inverse transform of their mean power spectrum.

References
----------
.. [1] Vehtari, Gelman, Simpson, Carpenter & Bürkner, "Rank-normalization, folding, and
   localization: an improved R-hat", Bayesian Analysis 16 (2021), arXiv:1903.08008.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtri
from scipy.stats import rankdata

__all__ = ["Convergence", "convergence"]

_TAILS = (0.05, 0.95)
_LEAST = 4  # draws of a chain
_CHUNK = 32  # columns at once: 1 MB of 4 chains of 1,000 draws, which stays in the cache


class Convergence(NamedTuple):
    """Diagnostics, shape (column,) each; NaN where a draw is NaN or there are too few.

    Attributes
    ----------
    r_hat : numpy.ndarray
        Rank-normalised split r_hat, bulk and tails.
    ess_bulk, ess_tail : numpy.ndarray
        Effective draws.
    """

    r_hat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray


def convergence(draws: np.ndarray) -> Convergence:
    """Return the diagnostics of each column of draws.

    Parameters
    ----------
    draws : numpy.ndarray
        Shape (chain, draw, column); two chains and more for r_hat.
    """
    columns = np.moveaxis(np.asarray(draws, dtype=float), 2, 0)
    parts = [_chunk(columns[k:k + _CHUNK]) for k in range(0, len(columns), _CHUNK)]
    return Convergence(*np.concatenate(parts, axis=1)) if parts else Convergence(*np.empty((3, 0)))


def _chunk(columns: np.ndarray) -> np.ndarray:
    """Return r_hat, bulk and tail ESS of columns of shape (column, chain, draw)."""
    out = np.full((3, len(columns)), np.nan)
    known = ~np.isnan(columns).any(axis=(1, 2))
    if columns.shape[2] < _LEAST or not known.any():
        return out
    with np.errstate(divide="ignore", invalid="ignore"):  # draws that never move, or are infinite
        out[:, known] = _diagnostics(columns[known])
    return out


def _diagnostics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    halves = _halves(values)
    scores = _normal_scores(halves)
    middle = np.median(halves, axis=(1, 2), keepdims=True)
    bulk, tails = _r_hat(scores), _r_hat(_normal_scores(np.abs(halves - middle)))
    r_hat = np.where(tails > bulk, tails, bulk)
    ends = np.quantile(values, _TAILS, axis=(1, 2))[:, :, None, None]
    below, above = (_ess((halves <= end).astype(float)) for end in ends)
    return (r_hat if values.shape[1] > 1 else np.full(len(values), np.nan), _ess(scores),
            np.minimum(below, above))


def _halves(values: np.ndarray) -> np.ndarray:
    half = values.shape[2] // 2
    return np.concatenate([values[:, :, :half], values[:, :, -half:]], axis=1)


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Return the normal scores of the ranks of all draws of a column (Blom's)."""
    ranks = rankdata(values.reshape(len(values), -1), axis=1)
    return ndtri((ranks - 0.375) / (ranks.shape[1] + 0.25)).reshape(values.shape)


def _r_hat(values: np.ndarray) -> np.ndarray:
    n = values.shape[2]
    between = n * values.mean(axis=2).var(axis=1, ddof=1)
    within = values.var(axis=2, ddof=1).mean(axis=1)
    return np.sqrt((between / within + n - 1) / n)


def _ess(values: np.ndarray) -> np.ndarray:
    n_chains, n = values.shape[1:]
    total = n_chains * n
    still = np.ptp(values, axis=(1, 2)) < np.finfo(float).resolution
    covariance = _mean_autocovariance(values)
    variance = covariance[:, :1] * n / (n - 1)
    spread = values.mean(axis=2).var(axis=1, ddof=1) if n_chains > 1 else 0.0
    rho = 1.0 - (variance - covariance) / (covariance[:, 0] + spread)[:, None]
    rho[:, 0] = 1.0
    rho[still] = 0.0
    tau = np.maximum(_tau(rho), 1 / np.log10(total))
    return np.where(still, float(total), total / tau)


def _mean_autocovariance(values: np.ndarray) -> np.ndarray:
    """Return the chains' mean autocovariance by lag, shape (column, lag)."""
    n = values.shape[2]
    size = next_fast_len(2 * n, real=True)
    spectrum = rfft(values - values.mean(axis=2, keepdims=True), n=size, axis=2)
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=1)
    return irfft(power, n=size, axis=1)[:, :n] / n


def _tau(rho: np.ndarray) -> np.ndarray:
    """Return Geyer's sum: pairs while they are positive, made monotone, and one lag more."""
    n = rho.shape[1]
    last = max((n - 3) // 2, 0)  # the last pair looked at
    pairs = rho[:, 0:2 * last + 2:2] + rho[:, 1:2 * last + 2:2]
    ended = pairs <= 0
    ended[:, last] = True
    stop = ended.argmax(axis=1)
    summed = np.where(np.arange(last + 1) < stop[:, None], np.minimum.accumulate(pairs, axis=1), 0)
    row = np.arange(len(rho))
    more = np.where(pairs[row, stop] >= 0, rho[row, 2 * stop], np.maximum(rho[row, 2 * stop], 0))
    return -1.0 + 2.0 * summed.sum(axis=1) + more
