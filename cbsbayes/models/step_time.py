r"""How long a step takes: a floor and the work, which may overlap, with a multiplicative spread.

For trainer steps of P prompts with G rollouts each,

.. math:: t(P, G)^{1/\kappa} = t_0^{1/\kappa} + (c_p P + c_r P G)^{1/\kappa}, \qquad
          \log y_i = \log t(P_i, G_i) + \sigma\,\varepsilon_i, \quad
          \varepsilon_i \sim \mathrm{Student}_\nu .

At κ = 1 that is the sum t_0 + c_p P + c_r P G. Towards κ = 0 it is the larger of the two: a device
that is not filled takes as long for few samples as for more, and only then do steps grow with the
batch (the form of Pollux [1]_ for computing and synchronising). Which holds is not known
beforehand: a quarter of the prior is on the sum, the rest is uniform below, so that the doubt is in
the intervals. The sum alone was too sure of itself on measured step times
(``benchmarks/step_time_pollux.py``). The heavy tails let slow runs or steps stand apart
without pulling the rest along. Priors have no unit: times are divided by their middle, each
term by its geometric mean over the rows; then every coefficient is gamma with shape 1/2 and rate 1,
so that the terms' shares are Dirichlet with 1/2 (uniform shares would push a cost of nothing away
from 0 by too much). What the rows do not tell apart (two terms, where only
G or only P·G was varied) stays as wide as that.

References
----------
.. [1] Qiao et al., "Pollux: Co-adaptive cluster scheduling for goodput-optimized deep learning",
   OSDI 2021, equation 11.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import gammaln

from cbsbayes.decisions.walkers import walk
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.diagnostics import Convergence, convergence

__all__ = ["Clock", "fit_times"]

SHARE_PRIOR = 0.5  # shape of the coefficients' gamma
SIGMA_PRIOR = (0.1, 1.5)  # median and log-sd of the log-normal
LEAST_SIGMA = 0.003  # no clock is truer than that; rows that fit exactly would have no spread
NU_PRIOR = (2.0, 0.1)  # shape and rate of the gamma (Juárez & Steel 2010), cut at 1
KAPPA = (0.1, 1.3)  # uniform; above 1 stands for 1, and .1 is the larger of the two but for 7 %
_LARGEST_LOG_NU = 6.0
_FARTHEST = 50.0  # log deviation of a new run: beyond, exp overflows
_ENSEMBLES, _WALKERS = 4, 32
_TUNE, _KEEP, _THIN = 600, 100, 15
_LONGER = 3  # times as many steps, once, where so many do not do
_LIMITS = (1.01, 200.0)  # r_hat at most, effective draws at least
_PRIOR_DRAWS = 4000


@dataclass(frozen=True, eq=False)
class Clock:
    """The posterior of a step-time model.

    Attributes
    ----------
    names : tuple of str
        Of the coefficients.
    floor : int
        The first so many terms are the floor, the others the work.
    coefficients : numpy.ndarray
        Seconds per unit of each term, shape (draw, term).
    kappa : numpy.ndarray
        How floor and work add up, shape (draw,): 1 the sum, near 0 the larger.
    sigma, nu : numpy.ndarray
        Spread of log times and its tails' degrees of freedom, shape (draw,).
    prior : numpy.ndarray
        Prior draws of the coefficients, shape (prior draw, term).
    checks : Convergence
        Of the coefficients, log sigma, log nu and, where it is free, kappa.
    """

    names: tuple[str, ...]
    floor: int
    coefficients: np.ndarray
    kappa: np.ndarray
    sigma: np.ndarray
    nu: np.ndarray
    prior: np.ndarray
    checks: Convergence

    def typical(self, terms: np.ndarray) -> np.ndarray:
        """Return the median step time at rows of terms, seconds, shape (draw, row)."""
        return np.exp(_log_time(self.coefficients, np.asarray(terms, dtype=float), self.floor,
                                self.kappa))

    def new(self, terms: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the step time of one new run at each row, seconds, shape (draw, row)."""
        return self.typical(terms) * np.exp(self.spread(len(terms), rng))

    def spread(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return log deviations of new runs from a typical one, shape (draw, n)."""
        off = rng.standard_t(self.nu[:, None], (len(self.nu), n)) * self.sigma[:, None]
        return np.clip(off, -_FARTHEST, _FARTHEST)

    @cached_property
    def trusted(self) -> bool:
        """Whether the ensembles agree with each other and the draws are many enough."""
        worst_r, least = _LIMITS
        return bool(np.max(self.checks.r_hat) <= worst_r
                    and min(self.checks.ess_bulk.min(), self.checks.ess_tail.min()) >= least)


def fit_times(
    seconds: np.ndarray, terms: np.ndarray, names: tuple[str, ...], *, floor: int = 1,
    overlap: bool = True, weights: np.ndarray | None = None, random_seed: int = 0,
) -> Clock:
    """Fit step times.

    Parameters
    ----------
    seconds : numpy.ndarray
        Observed step times, shape (row,); of runs (their typical step) or of single steps.
    terms : numpy.ndarray
        What each coefficient is multiplied by, shape (row, term), not negative; ones for t_0.
    names : tuple of str
        Of the coefficients.
    floor : int
        How many of the terms, from the first, make up the floor.
    overlap : bool
        False holds κ at 1: the sum.
    weights : numpy.ndarray, optional
        How many independent observations a row stands for, shape (row,); 1 by default. Steps of
        one run share what slows that run, so a run of a thousand steps is nearer to one than to a
        thousand.
    random_seed : int
        Same seed and version: same draws.

    Raises
    ------
    CBSDataError
        If rows are not positive and finite, fewer than 3, or a term is negative or always 0.
    """
    y, x, w = _checked(seconds, terms, names, weights)
    unit = float(np.exp(np.average(np.log(y), weights=w)))
    scale = np.array([np.exp(np.mean(np.log(column[column > 0]))) for column in x.T])
    rng, n = np.random.default_rng(random_seed), x.shape[1]
    posterior = _Posterior(np.log(y / unit), x / scale, w, floor, overlap)
    prior = rng.gamma(SHARE_PRIOR, size=(_PRIOR_DRAWS, n)) * unit / scale
    start = posterior.start(rng)
    for longer in (1, _LONGER):
        draws = walk(posterior, start, tune=longer * _TUNE, keep=_KEEP, thin=longer * _THIN,
                     rng=rng)
        flat = draws.reshape(-1, draws.shape[-1])
        kappa = np.minimum(flat[:, -1], 1.0) if overlap else np.ones(len(flat))
        clock = Clock(names, floor, flat[:, :n] * unit / scale, kappa, np.exp(flat[:, n]),
                      np.exp(flat[:, n + 1]), prior, _checks(draws))
        if clock.trusted:
            break
    return clock


def _checks(draws: np.ndarray) -> Convergence:
    """Return r_hat between independent ensembles, and effective draws along each walker."""
    ensembles, keep, walkers, dim = draws.shape
    together = convergence(draws.reshape(ensembles, keep * walkers, dim))
    each = convergence(draws.transpose(0, 2, 1, 3).reshape(ensembles * walkers, keep, dim))
    return each._replace(r_hat=together.r_hat)


def _checked(
    seconds: np.ndarray, terms: np.ndarray, names: tuple[str, ...], weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y, x = np.asarray(seconds, dtype=float), np.asarray(terms, dtype=float)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=float)
    if x.shape != (len(y), len(names)) or w.shape != y.shape:
        raise CBSDataError(f"step times of shape {y.shape} with terms {x.shape} and weights "
                           f"{w.shape}; valid: (row,), (row, {len(names)}) and (row,)")
    if len(y) < 3:
        raise CBSDataError(f"{len(y)} step times are too few for a step-time model; valid: at "
                           "least 3")
    for what, values, least in (("a step time", y, 1e-12), ("a weight", w, 1e-12),
                                ("a term", x, 0.0)):
        wrong = ~(np.isfinite(values) & (values >= least))
        if wrong.any():
            raise CBSDataError(f"{what} is {values[wrong][0]:g}; valid: finite and "
                               f"{'positive' if least else 'not negative'}")
    if not (x > 0).any(axis=0).all():
        raise CBSDataError(f"the term of {names[int(np.argmin((x > 0).any(axis=0)))]} is 0 in "
                           "every row; leave it out")
    return y, x, w


def _log_time(
    coefficients: np.ndarray, terms: np.ndarray, floor: int, kappa: np.ndarray | None
) -> np.ndarray:
    """Return log seconds, shape (…, row), of coefficients (…, term); without kappa, the sum."""
    if kappa is None:
        return np.log(coefficients @ terms.T)
    with np.errstate(divide="ignore"):  # a floor of terms that are all 0 in a row is none
        least = np.log(coefficients[..., :floor] @ terms[:, :floor].T)
        work = np.log(coefficients[..., floor:] @ terms[:, floor:].T)
    power, larger = kappa[..., None], np.maximum(least, work)
    return larger + power * np.log(1.0 + np.exp((np.minimum(least, work) - larger) / power))


class _Posterior:
    """The log posterior of scaled coefficients, log sigma, log nu and, where free, kappa."""

    def __init__(
        self, log_y: np.ndarray, x: np.ndarray, w: np.ndarray, floor: int, overlap: bool
    ) -> None:
        self.log_y, self.w, self.total = log_y, w, float(w.sum())
        self.x, self.place = np.unique(x, axis=0, return_inverse=True)  # runs share batches
        self.floor, self.overlap, self.n = floor, overlap, x.shape[1]

    def __call__(self, at: np.ndarray) -> np.ndarray:
        n, (low, high) = self.n, KAPPA
        coefficients, log_sigma, log_nu = at[..., :n], at[..., n], at[..., n + 1]
        allowed = (coefficients > 0).all(axis=-1) & (log_nu > 0) & (log_nu < _LARGEST_LOG_NU)
        allowed &= log_sigma > np.log(LEAST_SIGMA)
        kappa = None
        if self.overlap:
            allowed &= (at[..., -1] > low) & (at[..., -1] < high)
            kappa = np.clip(at[..., -1], low, 1.0)
        safe = np.where(allowed[..., None], coefficients, 1.0)
        log_nu = np.clip(log_nu, 0.0, _LARGEST_LOG_NU)
        off = self.log_y - _log_time(safe, self.x, self.floor, kappa)[..., self.place]
        log_p = _student(off * np.exp(-log_sigma)[..., None], np.exp(log_nu)) @ self.w
        log_p += _log_prior(safe, log_sigma, log_nu) - self.total * log_sigma
        return np.where(allowed, log_p, -np.inf)

    def start(self, rng: np.random.Generator) -> np.ndarray:
        """Return starting points around the middle of the rows, shares at random."""
        shape = (_ENSEMBLES, _WALKERS)
        shares = rng.dirichlet(np.ones(self.n), shape)
        kappa = rng.uniform(*KAPPA, shape) if self.overlap else None
        held = None if kappa is None else np.minimum(kappa, 1.0)
        log_time = _log_time(shares, self.x, self.floor, held)[..., self.place]
        level = np.exp(np.median(self.log_y - log_time, axis=-1))
        log_sigma = np.log(SIGMA_PRIOR[0]) + rng.uniform(-2, 2, (*shape, 1))
        log_nu = np.log(5.0) + 0.5 * rng.uniform(-1, 1, (*shape, 1))
        return np.concatenate([shares * level[..., None], log_sigma, log_nu,
                               *([] if kappa is None else [kappa[..., None]])], axis=-1)


def _student(z: np.ndarray, nu: np.ndarray) -> np.ndarray:
    """Return the standard Student-t log density, shape of z; nu has one axis less."""
    constant = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi)
    return constant[..., None] - ((nu + 1) / 2)[..., None] * np.log(1.0 + z**2 / nu[..., None])


def _log_prior(
    coefficients: np.ndarray, log_sigma: np.ndarray, log_nu: np.ndarray
) -> np.ndarray:
    center, sd = SIGMA_PRIOR
    shape, rate = NU_PRIOR
    shares = (SHARE_PRIOR - 1) * np.log(coefficients).sum(axis=-1) - coefficients.sum(axis=-1)
    return (shares - 0.5 * ((log_sigma - np.log(center)) / sd) ** 2
            + shape * log_nu - rate * np.exp(log_nu))
