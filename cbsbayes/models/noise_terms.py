r"""Measured gradient noise in the crossing model, in PyMC: latent noise, offset, discrepancy.

.. math::

    M_{q,k} &= \sum_{i \le k} \frac{S_{min}(t_i) - S_{min}(t_{i-1})}{S_{min}(t_k)}\, m_{q,i} \\
    \log M_{q,k} &= \log B_q(t_k) + \delta + D_{q,k}, \qquad
    D_{q,k} \sim N(\rho_k D_{q,k-1},\; s \sqrt{1 - \rho_k^2})

The fitted scale B_q(t) is an average over the way to t; so the momentary noise m of the accuracy
ranges is averaged over the same progress. With Δ the growth of log S_min between two thresholds

.. math:: M_{q,k} = e^{-\Delta_k} M_{q,k-1} + (1 - e^{-\Delta_k})\, m_{q,k}.

δ is one number for all parts and ranges. D is what measurement and fit differ in beyond it: of sd
s, alike at neighbouring thresholds, apart for prompts and rollouts. log m is what is sampled, so
the density of D carries the Jacobian of M; what the probes say of m is `NoiseData`'s likelihood.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from cbsbayes.models.noise_data import NoiseData

__all__ = ["add_noise_terms"]


def add_noise_terms(
    noise: NoiseData, hardness: np.ndarray, target: Any, log_growth: Any
) -> None:
    """Add measured noise to the model of the current context.

    Parameters
    ----------
    noise : NoiseData
        What was measured.
    hardness : numpy.ndarray
        Of the thresholds.
    target : tensor
        The law's noise scales, shape (scale, threshold).
    log_growth : tensor
        Log of the growth of log S_min, shape (threshold - 1,).
    """
    priors, n = noise.priors, noise.n_ranges
    offset = pm.Normal("noise_offset", 0.0, priors.offset_sd)
    scatter = pm.LogNormal("noise_scatter", np.log(priors.scatter), priors.scatter_sd)
    log_noise = pm.Flat("log_noise", dims="noise")
    moment = pt.reshape(log_noise, (len(noise.parts), n))
    growth = pt.exp(log_growth[: n - 1])
    log_average, log_jacobian = _averages(moment, growth, n)
    expected = pt.log(pt.dot(noise.mix, target[:, :n]))
    deviation = log_average - expected - offset
    pm.Potential("noise_deviation", _log_prior(deviation, scatter, noise.correlation(hardness)))
    pm.Potential("noise_jacobian", pt.sum(log_jacobian))
    pm.Potential("noise_probes", _log_likelihood(noise, pt.exp(moment)))


def _averages(moment: Any, growth: Any, n: int) -> tuple[Any, Any]:
    """Return log averages over progress, (part, range), and the log Jacobian's terms."""
    average, logs = pt.exp(moment[:, 0]), []
    jacobian = [pt.zeros_like(average)]
    logs.append(pt.log(average))
    for k in range(1, n):
        kept = pt.exp(-growth[k - 1])
        average = kept * average + (1.0 - kept) * pt.exp(moment[:, k])
        logs.append(pt.log(average))
        jacobian.append(pt.log1p(-kept) + moment[:, k] - logs[-1])
    return pt.stack(logs, axis=1), pt.stack(jacobian, axis=1)


def _log_prior(deviation: Any, scatter: Any, correlation: np.ndarray) -> Any:
    """Return the log density of the autoregression along the ranges, summed."""
    before = pt.concatenate([pt.zeros_like(deviation[:, :1]), deviation[:, :-1]], axis=1)
    sd = scatter * np.sqrt(1.0 - correlation**2)[None, :]
    return pt.sum(pm.logp(pm.Normal.dist(correlation[None, :] * before, sd), deviation))


def _log_likelihood(noise: NoiseData, moment: Any) -> Any:
    precision, d = noise.precision(), len(noise.parts)
    log_p = []
    for k in np.flatnonzero(noise.known):
        z, w, freedom = noise.estimate[k], precision[k], noise.freedom[k]
        h = pt.concatenate([moment[:, k], [1.0]])
        along = pt.dot(h, pt.dot(w, h))
        misfit = float(z @ w @ z) - pt.dot(h, w @ z) ** 2 / along
        log_p.append(pt.log(pt.dot(noise.total, moment[:, k])) - 0.5 * pt.log(along)
                     - 0.5 * (freedom + d) * pt.log1p(misfit / freedom))
    return pt.sum(pt.stack(log_p))
