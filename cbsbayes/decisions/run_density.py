r"""How probable many runs of one batch are under every draw, their run effects integrated out.

The crossings of a run are independent given its effect u, each with probability
:math:`\sigma(b - pu) - \sigma(a - pu)` for bounds a < b in units of the logistic scale and p the
pull of one sd of the effect. With :math:`y = e^{pu - a}` and :math:`x = e^{pu - b}` that is

.. math:: \frac{y - x}{(1 + x)(1 + y)},

which cancels nothing, and on a grid of u common to all runs :math:`e^{pu}` is a table: no
exponential is left in the inner loop. `cbsbayes.models.crossing` says the same with nodes
laid around the peak, which a run far from the law needs; runs that were simulated from the draws
themselves do not.
"""

from __future__ import annotations

from math import exp, log, sqrt

import numpy as np

from cbsbayes.models.compiled import compiled
from cbsbayes.models.crossing_data import LOGISTIC_SCALE, CrossingData
from cbsbayes.posterior.predictive import Parameters

__all__ = ["log_likelihood_matrix"]

_REACH, _NODES = 5.0, 41  # a grid of a quarter sd, fine for peaks of a tenth and wider
_MOST = 300.0  # of an exponent: e^300 squared is still a number


def log_likelihood_matrix(draws: Parameters, data: CrossingData) -> np.ndarray:
    """Return log p(crossings) of every run under every draw, shape (run, draw).

    Parameters
    ----------
    draws : Parameters
        At the runs' common batch: ``log_steps`` of shape (draw, 1, threshold), on the scale of
        `data`.
    data : CrossingData
        The runs, all of one batch.
    """
    expected = np.ascontiguousarray(draws.log_steps[:, 0, :])
    last = np.where(data.informative, data.previous, -1).astype(np.int64)
    return _matrix(expected, draws.sigma_run, np.ascontiguousarray(draws.sd), draws.length,
                   data.log_lower, data.log_upper, data.midpoint, last, data.gap,
                   float(LOGISTIC_SCALE), _REACH, _NODES, _MOST)


@compiled
def _matrix(
    expected: np.ndarray, sigma_run: np.ndarray, sd: np.ndarray, length: np.ndarray,
    lower: np.ndarray, upper: np.ndarray, midpoint: np.ndarray, previous: np.ndarray,
    gap: np.ndarray, logistic: float, reach: float, n_nodes: int, most: float,
) -> np.ndarray:
    """Return the matrix; `previous` is -1 where a crossing says nothing of its own."""
    n_runs, n_thresholds = lower.shape
    n_draws = len(sigma_run)
    out = np.empty((n_runs, n_draws))
    step = 2.0 * reach / (n_nodes - 1)
    weight = np.empty(n_nodes)
    for j in range(n_nodes):
        weight[j] = exp(-0.5 * (step * j - reach) ** 2) * step / sqrt(2.0 * np.pi)
    total = np.empty(n_nodes)
    known = np.full(n_thresholds, -1.0)  # the pull whose powers are at hand
    powers = np.empty((n_thresholds, n_nodes))
    for m in range(n_draws):
        long = max(length[m], 1e-12)
        for i in range(n_runs):
            total[:] = weight
            for k in range(n_thresholds):
                before = previous[i, k]
                if before < 0:
                    continue
                rho = exp(-gap[i, k] / long)
                carried = rho * sd[m, k] / sd[m, before]
                scale = sd[m, k] * sqrt(1.0 - rho * rho) * logistic
                center = expected[m, k] + carried * (midpoint[i, before] - expected[m, before])
                pull = sigma_run[m] * (1.0 - carried) / scale
                if pull != known[k]:
                    known[k] = pull
                    for j in range(n_nodes):
                        powers[k, j] = exp(min(max(pull * (step * j - reach), -most), most))
                x0 = exp(min(max((center - upper[i, k]) / scale, -most), most))
                y0 = exp(min(max((center - lower[i, k]) / scale, -most), most))
                for j in range(n_nodes):
                    x = x0 * powers[k, j]
                    y = y0 * powers[k, j]
                    x = x if x < 1e150 else 1e150
                    y = y if y < 1e150 else 1e150
                    total[j] *= (y - x) / ((1.0 + x) * (1.0 + y))
            out[i, m] = log(max(total.sum(), 1e-300))
    return out
