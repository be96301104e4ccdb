r"""How long a step takes: a floor and the work, which may overlap, with a multiplicative spread.

For trainer steps of P prompts with G rollouts each,

.. math:: t(P, G)^{1/\kappa} = t_0^{1/\kappa} + (c_p P + c_r P G)^{1/\kappa}, \qquad
          \log y_i = \log t(P_i, G_i) + \sigma\,\varepsilon_i, \quad
          \varepsilon_i \sim \mathrm{Student}_\nu .

At κ = 1 that is the sum t_0 + c_p P + c_r P G. Towards κ = 0 it is the larger of the two: a device
that is not filled takes as long for few samples as for more, and only then do steps grow with the
batch (the form of Pollux [1]_ for computing and synchronising). Which holds is not known
beforehand: :math:`\kappa = 1 - .9\,\Phi(-x)^2` with x standard normal, which puts a fifth of the
prior above κ = .96, so that the doubt is in the intervals. The sum alone was too sure of itself on
measured step times (``benchmarks/step_time_pollux.py``). The heavy tails let slow runs stand apart
without pulling the rest along.

Priors have no unit: times are divided by their geometric mean, each term by its own over the rows;
then every coefficient is gamma with shape 1/2 and rate 1, so that the terms' shares are Dirichlet
with 1/2 (uniform shares would push a cost of nothing away from 0 by too much). What the rows do not
tell apart (two terms, where only G or only P·G was varied) stays as wide as that.

A position holds what rows know well: the log of the time t at the terms' means, the logit of the
floor's share ω of :math:`t^{1/\kappa}` there, the logits of the shares of the work broken off one
after the other, :math:`\log(\sigma - \sigma_{least})`, :math:`\log(\nu - 1)` and x of κ. Floor and
work are then :math:`t \omega^\kappa` and :math:`t (1 - \omega)^\kappa`.

References
----------
.. [1] Qiao et al., "Pollux: Co-adaptive cluster scheduling for goodput-optimized deep learning",
   OSDI 2021, equation 11.
"""

from __future__ import annotations

from math import erfc, exp, lgamma, log, log1p, pi, sqrt
from typing import NamedTuple

import numpy as np
from scipy.special import expit, ndtr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.compiled import compiled

__all__ = ["StepTimeData", "StepTimeParameters", "log_density", "log_step_time", "parameters",
           "prior_parameters", "prior_scale", "step_time_data"]

LEAST_KAPPA = 0.1  # the larger of floor and work but for 7 %
SHARE_PRIOR = 0.5  # shape of the coefficients' gamma
SIGMA_PRIOR = (0.1, 1.5)  # median and log-sd of the log-normal above the least
LEAST_SIGMA = 0.003  # no clock is truer than that; rows that fit exactly would have no spread
NU_PRIOR = (2.0, 0.1)  # shape and rate of the gamma above 1 (Juárez & Steel 2010)


class StepTimeData(NamedTuple):
    """Step times without units.

    Attributes
    ----------
    log_time : numpy.ndarray
        Log of seconds over `unit`, shape (row,).
    terms : numpy.ndarray
        The distinct rows of terms over `scale`, shape (batch, term); the first is the floor's.
    batch : numpy.ndarray
        Which of them each row has, shape (row,).
    unit : float
        Geometric mean of the seconds.
    scale : numpy.ndarray
        Geometric mean of each term, shape (term,).
    """

    log_time: np.ndarray
    terms: np.ndarray
    batch: np.ndarray
    unit: float
    scale: np.ndarray


class StepTimeParameters(NamedTuple):
    """Parameters in the user's units; arrays may have leading dims.

    Attributes
    ----------
    coefficients : numpy.ndarray
        Seconds per unit of each term, shape (…, term).
    kappa, sigma, nu : numpy.ndarray
        How floor and work add up, spread of log times, degrees of freedom, shape (…).
    """

    coefficients: np.ndarray
    kappa: np.ndarray
    sigma: np.ndarray
    nu: np.ndarray


def step_time_data(seconds: np.ndarray, terms: np.ndarray) -> StepTimeData:
    """Return step times as the density takes them.

    Parameters
    ----------
    seconds : numpy.ndarray
        Observed step times, shape (row,); of runs (their typical step) or of single steps.
    terms : numpy.ndarray
        What each coefficient is multiplied by, shape (row, term): ones for t_0, then the work.

    Raises
    ------
    CBSDataError
        If they do not match, are not positive and finite, or are fewer than 3.
    """
    y, x = np.asarray(seconds, dtype=float), np.asarray(terms, dtype=float)
    if x.ndim != 2 or x.shape[1] < 2 or y.shape != x.shape[:1]:
        raise CBSDataError(f"step times of shape {y.shape} with terms of shape {x.shape}; valid: "
                           "(row,) and (row, term), two terms and more")
    if len(y) < 3:
        raise CBSDataError(f"{len(y)} step times are too few for a step-time model; valid: at "
                           "least 3")
    for what, values in (("a step time", y), ("a term", x)):
        wrong = ~(np.isfinite(values) & (values > 0))
        if wrong.any():
            raise CBSDataError(f"{what} is {values[wrong][0]:g}; valid: finite and positive")
    unit, scale = float(np.exp(np.log(y).mean())), np.exp(np.log(x).mean(axis=0))
    distinct, batch = np.unique(x / scale, axis=0, return_inverse=True)
    return StepTimeData(np.log(y / unit), distinct, batch.reshape(-1), unit, scale)


def log_step_time(
    coefficients: np.ndarray, kappa: np.ndarray, terms: np.ndarray
) -> np.ndarray:
    """Return the log of the step time of the model, shape (…, row).

    Parameters
    ----------
    coefficients : numpy.ndarray
        Shape (…, term); the first term is the floor.
    kappa : numpy.ndarray
        Shape (…).
    terms : numpy.ndarray
        Shape (row, term).
    """
    power = np.asarray(kappa)[..., None]
    floor = np.log(coefficients[..., :1] * terms[:, 0])
    work = np.log(coefficients[..., 1:] @ terms[:, 1:].T)
    return power * np.logaddexp(floor / power, work / power)


def prior_scale(data: StepTimeData) -> tuple[np.ndarray, np.ndarray]:
    """Return a centre and a spread of the prior's positions, shape (n_dim,) each."""
    n = data.terms.shape[1]
    center = np.concatenate([np.zeros(n), [np.log(SIGMA_PRIOR[0]), np.log(5.0), 0.0]])
    return center, np.concatenate([[1.0], np.full(n - 1, 2.0), [1.5, 1.0, 1.0]])


def parameters(position: np.ndarray, data: StepTimeData) -> StepTimeParameters:
    """Return the parameters at positions, shape (…, n_dim)."""
    kappa = 1.0 - (1.0 - LEAST_KAPPA) * ndtr(-position[..., -1]) ** 2
    time, share = np.exp(position[..., 0]), position[..., 1]
    parts = [time * expit(share) ** kappa]
    left = time * expit(-share) ** kappa
    for k in range(2, data.terms.shape[1]):
        parts.append(left * expit(position[..., k]))
        left = left * expit(-position[..., k])
    coefficients = np.stack([*parts, left], axis=-1) * data.unit / data.scale
    return StepTimeParameters(coefficients, kappa, LEAST_SIGMA + np.exp(position[..., -3]),
                              1.0 + np.exp(position[..., -2]))


def prior_parameters(
    data: StepTimeData, shape: tuple[int, ...], rng: np.random.Generator
) -> StepTimeParameters:
    """Return draws of the parameters from the prior, with leading dims of a shape."""
    coefficients = rng.gamma(SHARE_PRIOR, size=(*shape, data.terms.shape[1]))
    median, log_sd = SIGMA_PRIOR
    return StepTimeParameters(
        coefficients * data.unit / data.scale,
        1.0 - (1.0 - LEAST_KAPPA) * rng.random(shape) ** 2,
        LEAST_SIGMA + median * np.exp(log_sd * rng.standard_normal(shape)),
        1.0 + rng.gamma(NU_PRIOR[0], 1.0 / NU_PRIOR[1], shape))


@compiled
def log_density(position: np.ndarray, data: StepTimeData) -> tuple[float, np.ndarray]:
    """Return the log posterior density at a position, up to a constant, and its gradient.

    Parameters
    ----------
    position : numpy.ndarray
        Shape (n_dim,); see the module.
    data : StepTimeData
        The step times.
    """
    n = data.terms.shape[1]
    sigma, nu = LEAST_SIGMA + exp(position[n]), 1.0 + exp(position[n + 1])
    tail = 0.5 * erfc(position[n + 2] / sqrt(2.0))
    kappa = 1.0 - (1.0 - LEAST_KAPPA) * tail * tail
    taken = 1.0 / (1.0 + np.exp(-position[1:n]))
    coefficients = np.empty(n)
    coefficients[0] = exp(position[0] + kappa * log(taken[0]))
    left = exp(position[0] - kappa * log1p(exp(position[1])))
    for k in range(1, n):
        coefficients[k] = left * taken[k] if k < n - 1 else left
        left -= coefficients[k]
    value, gradient = 0.0, np.zeros(n + 3)

    log_time, pull = _log_times(coefficients, kappa, data.terms), np.zeros(len(data.terms))
    squares, explained = 0.0, 0.0
    for i in range(len(data.log_time)):
        z = (data.log_time[i] - log_time[data.batch[i]]) / sigma
        pull[data.batch[i]] += (nu + 1.0) * z / (nu + z * z) / sigma
        squares += log1p(z * z / nu)
        explained += (nu + 1.0) * z * z / (nu + z * z)
    rows = len(data.log_time)
    value += rows * (lgamma((nu + 1.0) / 2) - lgamma(nu / 2) - 0.5 * log(nu * pi) - log(sigma))
    value -= 0.5 * (nu + 1.0) * squares

    by_cost, by_kappa = _by_costs(coefficients, kappa, data.terms, pull)
    value += log(kappa)  # of the change from floor and work to time and share
    by_kappa += 1.0 / kappa
    for k in range(n):
        value += SHARE_PRIOR * log(coefficients[k]) - coefficients[k]
        by_cost[k] += SHARE_PRIOR - coefficients[k]
    after = by_cost[1:].sum()
    gradient[0] = by_cost[0] + after
    gradient[1] = kappa * (by_cost[0] * (1.0 - taken[0]) - after * taken[0])
    by_kappa += by_cost[0] * log(taken[0]) - after * log1p(exp(position[1]))
    for k in range(1, n - 1):  # a share takes from those broken off later
        after -= by_cost[k]
        gradient[1 + k] = by_cost[k] * (1.0 - taken[k]) - taken[k] * after
    off = (position[n] - log(SIGMA_PRIOR[0])) / SIGMA_PRIOR[1]
    value += NU_PRIOR[0] * position[n + 1] - NU_PRIOR[1] * (nu - 1.0)
    value -= 0.5 * (off * off + position[n + 2] ** 2)
    gradient[n] = (explained - rows) / sigma * (sigma - LEAST_SIGMA) - off / SIGMA_PRIOR[1]
    by_nu = rows * (_digamma((nu + 1.0) / 2) - _digamma(nu / 2) - 1.0 / nu) - squares
    by_nu = 0.5 * (by_nu + explained / nu) - NU_PRIOR[1]
    gradient[n + 1] = by_nu * (nu - 1.0) + NU_PRIOR[0]
    height = exp(-0.5 * position[n + 2] ** 2) / sqrt(2.0 * pi)
    gradient[n + 2] = by_kappa * 2.0 * (1.0 - LEAST_KAPPA) * tail * height - position[n + 2]
    return value, gradient


@compiled
def _log_times(coefficients: np.ndarray, kappa: float, terms: np.ndarray) -> np.ndarray:
    """Return what `log_step_time` does for one position, shape (batch,)."""
    out = np.empty(len(terms))
    for b in range(len(terms)):
        floor = log(coefficients[0] * terms[b, 0])
        work = log((coefficients[1:] * terms[b, 1:]).sum())
        out[b] = max(floor, work) + kappa * log1p(exp(-abs(floor - work) / kappa))
    return out


@compiled
def _by_costs(
    coefficients: np.ndarray, kappa: float, terms: np.ndarray, pull: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return the slopes by the log of each coefficient and by κ, from those by the log times."""
    by_cost, by_kappa = np.zeros(len(coefficients)), 0.0
    for b in range(len(terms)):
        costs = coefficients * terms[b]
        work = costs[1:].sum()
        apart = log(costs[0] / work) / kappa
        of_floor = 1.0 / (1.0 + exp(-apart))
        by_cost[0] += pull[b] * of_floor
        by_cost[1:] += pull[b] * (1.0 - of_floor) * costs[1:] / work
        by_kappa += pull[b] * (max(apart, 0.0) + log1p(exp(-abs(apart))) - of_floor * apart)
    return by_cost, by_kappa


@compiled
def _digamma(x: float) -> float:
    """Return the derivative of log Γ, by recurrence to its asymptotic series (10 digits)."""
    shift = 0.0
    while x < 8.0:
        shift -= 1.0 / x
        x += 1.0
    w = 1.0 / (x * x)
    return shift + log(x) - 0.5 / x - w * (1 / 12 - w * (1 / 120 - w * (1 / 252 - w / 240)))
