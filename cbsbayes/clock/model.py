r"""How long a step takes: a sum of terms that cannot be negative, with a multiplicative spread.

For trainer steps of P prompts with G rollouts each,

.. math:: t(P, G) = t_0 + c_p P + c_r P G, \qquad
          \log y_i = \log t(P_i, G_i) + \sigma\,\varepsilon_i, \quad
          \varepsilon_i \sim \mathrm{Student}_\nu ,

with any other terms in the place of P and P·G. The heavy tails let slow runs or steps stand apart
without pulling the terms along. Priors have no unit: times are divided by their median, each term
by its geometric mean over the rows; then every coefficient is exponential with mean 1, so that the
terms' shares of a middle step are uniform on the simplex. What the rows do not tell apart (the two
terms, where only G or only P·G was varied) stays as wide as that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import gammaln

from cbsbayes.clock.walkers import walk
from cbsbayes.convergence import Convergence, convergence
from cbsbayes.errors import CBSDataError

__all__ = ["Clock", "fit_times"]

SIGMA_PRIOR = (0.1, 1.5)  # median and log-sd of the log-normal
NU_PRIOR = (2.0, 0.1)  # shape and rate of the gamma (Juárez & Steel 2010), cut at 1
_ENSEMBLES, _WALKERS = 4, 32
_TUNE, _KEEP, _THIN = 600, 100, 10
_LIMITS = (1.01, 400.0)  # r_hat at most, effective draws at least
_PRIOR_DRAWS = 4000


@dataclass(frozen=True, eq=False)
class Clock:
    """The posterior of a step-time model.

    Attributes
    ----------
    names : tuple of str
        Of the coefficients.
    coefficients : numpy.ndarray
        Seconds per unit of each term, shape (draw, term).
    sigma, nu : numpy.ndarray
        Spread of log times and its tails' degrees of freedom, shape (draw,).
    prior : numpy.ndarray
        Prior draws of the coefficients, shape (prior draw, term).
    checks : Convergence
        Of the coefficients, then log sigma and log nu.
    """

    names: tuple[str, ...]
    coefficients: np.ndarray
    sigma: np.ndarray
    nu: np.ndarray
    prior: np.ndarray
    checks: Convergence

    def typical(self, terms: np.ndarray) -> np.ndarray:
        """Return the median step time at rows of terms, seconds, shape (draw, row)."""
        return self.coefficients @ np.asarray(terms, dtype=float).T

    def new(self, terms: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the step time of one new run at each row, seconds, shape (draw, row)."""
        return self.typical(terms) * np.exp(self.spread(len(terms), rng))

    def spread(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return log deviations of new runs from a typical one, shape (draw, n)."""
        return rng.standard_t(self.nu[:, None], (len(self.nu), n)) * self.sigma[:, None]

    @cached_property
    def trusted(self) -> bool:
        """Whether the walkers agree with each other and are many enough."""
        worst_r, least = _LIMITS
        return bool(np.max(self.checks.r_hat) <= worst_r
                    and min(self.checks.ess_bulk.min(), self.checks.ess_tail.min()) >= least)


def fit_times(
    seconds: np.ndarray, terms: np.ndarray, names: tuple[str, ...], *,
    weights: np.ndarray | None = None, random_seed: int = 0,
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
    rng = np.random.default_rng(random_seed)
    posterior = _Posterior(np.log(y / unit), x / scale, w)
    draws = walk(posterior, posterior.start(rng), tune=_TUNE, keep=_KEEP, thin=_THIN, rng=rng)
    flat, n_terms = draws.reshape(-1, draws.shape[-1]), x.shape[1]
    prior = rng.exponential(size=(_PRIOR_DRAWS, n_terms))
    return Clock(names, flat[:, :n_terms] * unit / scale, np.exp(flat[:, -2]),
                 np.exp(flat[:, -1]), prior * unit / scale, _checks(draws))


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


class _Posterior:
    """The log posterior of scaled coefficients, log sigma and log nu."""

    def __init__(self, log_y: np.ndarray, x: np.ndarray, w: np.ndarray) -> None:
        self.log_y, self.x, self.w, self.total = log_y, x, w, float(w.sum())

    def __call__(self, at: np.ndarray) -> np.ndarray:
        coefficients, log_sigma, log_nu = at[..., :-2], at[..., -2], at[..., -1]
        allowed = (coefficients > 0).all(axis=-1) & (log_nu > 0) & (log_nu < 6)
        safe = np.where(allowed[..., None], coefficients, 1.0)
        log_nu = np.clip(log_nu, 0.0, 6.0)
        z = (self.log_y - np.log(safe @ self.x.T)) * np.exp(-log_sigma)[..., None]
        log_p = _student(z, np.exp(log_nu)) @ self.w - self.total * log_sigma
        log_p += _log_prior(safe, log_sigma, log_nu)
        return np.where(allowed, log_p, -np.inf)

    def start(self, rng: np.random.Generator) -> np.ndarray:
        """Return starting points around the middle of the rows, shares at random."""
        shape = (_ENSEMBLES, _WALKERS)
        shares = rng.dirichlet(np.ones(self.x.shape[1]), shape)
        level = np.exp(np.median(self.log_y - np.log(shares @ self.x.T), axis=-1))
        log_sigma = np.log(SIGMA_PRIOR[0]) + rng.normal(size=(*shape, 1))
        return np.concatenate([shares * level[..., None], log_sigma,
                               np.log(5.0) + 0.5 * rng.uniform(-1, 1, (*shape, 1))], axis=-1)


def _student(z: np.ndarray, nu: np.ndarray) -> np.ndarray:
    """Return the standard Student-t log density, shape of z; nu has one axis less."""
    constant = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi)
    return constant[..., None] - ((nu + 1) / 2)[..., None] * np.log1p(z**2 / nu[..., None])


def _log_prior(
    coefficients: np.ndarray, log_sigma: np.ndarray, log_nu: np.ndarray
) -> np.ndarray:
    center, sd = SIGMA_PRIOR
    shape, rate = NU_PRIOR
    return (-coefficients.sum(axis=-1) - 0.5 * ((log_sigma - np.log(center)) / sd) ** 2
            + shape * log_nu - rate * np.exp(log_nu))
