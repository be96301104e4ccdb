r"""NUTS on a density with its gradient, in coordinates where the posterior is nearly round.

The sampler is nutpie's, through `nutpie.compiled_pyfunc.from_pyfunc`. It moves in z, with
:math:`x = m + L z` from the mode m of the density and a root L of the inverse Hessian there:
coordinates with normal priors make the posteriors here smooth and, but for a few bends, close to
normal. Trajectories have at most 2^6 - 1 steps, so that a fit ends on any input: where draws are
not good enough, twice as many are taken once more, with smaller steps, in coordinates where the
first ones are round, and the note says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import xarray as xr

from cbsbayes.errors import CBSDataError

__all__ = ["MAX_R_HAT", "MIN_ESS", "SAMPLERS", "SHORT", "Convergence", "Density", "Draws",
           "SamplerSettings", "convergence", "find_mode", "root_of_covariance", "sample",
           "sample_density"]

Density = Callable[[np.ndarray], tuple[float, np.ndarray]]

SAMPLERS = ("nutpie", "pymc")
MAX_R_HAT = 1.01  # Vehtari et al. 2021
MIN_ESS = 400
_MAX_DEPTH = 6  # of a trajectory's tree; 7 steps are usual, 15 on heavy-tailed sweeps
_TAILS = (0.05, 0.95)
_R_HAT_NOISE = 20.0  # over the number of draws: what r_hat is above 1 by chance
_R_HAT_OF_COORDINATES, _ESS_OF_COORDINATES = 1.008, 500  # what is made of them is a little worse
_LEAST_SHARE = 1 / 6  # of draws that are effective, where few were asked for
SHORT = 1e-4  # seconds of a call, below which chains only wait for each other
_START = 0.5  # spread of the chains' starts in posterior standard deviations
_ADAPTATION = "draw_diag"  # gradients, which "diag" uses too, say little of long tails
_TARGET_ACCEPT = 0.85
_TARGET_ACCEPT_AGAIN = 0.95
_HESSIAN_STEPS = (0.02, 0.3)  # of differences: prior spreads, then posterior ones
_LEAST_CURVATURE = (0.5, 0.2)  # of the prior's and the posterior's own: no direction runs off


@dataclass(frozen=True)
class SamplerSettings:
    """How to sample.

    Attributes
    ----------
    sampler : {"nutpie", "pymc"}
        nutpie on the compiled density, or PyMC's own NUTS on the PyMC model: the same posterior,
        much slower.
    draws, tune, chains : int
        Kept and discarded draws of each chain, and chains; twice as many are kept where the first
        are not good enough.
    random_seed : int
        Same seed, same sampler and versions: same draws.
    cores : int
        Chains at once, at most; one after the other where a call of the density takes less than
        100 microseconds, since calls take turns at the interpreter's lock.
    """

    sampler: str = "nutpie"
    draws: int = 750
    tune: int = 250
    chains: int = 4
    random_seed: int = 0
    cores: int = 2

    def __post_init__(self) -> None:
        """Refuse settings that cannot be sampled with."""
        if self.sampler not in SAMPLERS:
            raise CBSDataError(f"unknown sampler {self.sampler!r}; valid: {', '.join(SAMPLERS)}")
        for name, least in (("draws", 50), ("tune", 100), ("chains", 2)):
            if getattr(self, name) < least:
                raise CBSDataError(f"{name} is {getattr(self, name)}; valid: at least {least}, "
                                   "r_hat and ESS need them")


def find_mode(
    density: Density, center: np.ndarray, sd: np.ndarray, start: np.ndarray | None = None,
    held: Sequence[int] = (),
) -> np.ndarray:
    """Return the position of highest density.

    Parameters
    ----------
    density : callable
        From a position to its log density and gradient.
    center, sd : numpy.ndarray
        Of the prior, shape (n_dim,): the scale on which steps are taken.
    start : numpy.ndarray, optional
        Where to start; the prior's centre unless given.
    held : sequence of int
        Coordinates that stay where they start.
    """
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    held = list(held)

    def downhill(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = density(center + sd * z)
        if not np.isfinite(value):
            return 1e10, np.zeros_like(z)
        slope = -gradient * sd
        slope[held] = 0.0
        return -value, slope

    z = np.zeros_like(center) if start is None else (start - center) / sd
    with threadpool_limits(1, user_api="blas"):  # threads wait for each other for a second here
        return center + sd * minimize(downhill, z, jac=True, method="L-BFGS-B", options={
            "maxiter": 1000, "maxcor": 10, "maxfun": 2000}).x


def root_of_covariance(density: Density, mode: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Return the lower triangular root of the inverse Hessian, shape (n_dim, n_dim).

    The Hessian is taken by differences twice: over steps of the prior's spread, then over wider
    ones of the posterior's, which see its shape and not only its top.
    """
    root = np.diag(sd)
    for step, least in zip(_HESSIAN_STEPS, _LEAST_CURVATURE, strict=True):
        curvature, directions = np.linalg.eigh(-_hessian(density, mode, root, step))
        curvature = np.maximum(curvature, least)
        covariance = root @ (directions / curvature) @ directions.T @ root.T
        root = np.linalg.cholesky((covariance + covariance.T) / 2)
    return root


def _hessian(density: Density, position: np.ndarray, root: np.ndarray, step: float) -> np.ndarray:
    """Return the Hessian of the log density in the coordinates of `root`, by differences."""
    rows = []
    for direction in root.T:
        ahead = density(position + step * direction)[1]
        behind = density(position - step * direction)[1]
        rows.append((ahead - behind) @ root / (2 * step))
    hessian = np.array(rows)
    return (hessian + hessian.T) / 2


class Draws(NamedTuple):
    """What the sampler left.

    Attributes
    ----------
    position : numpy.ndarray
        Shape (chain, draw, n_dim).
    stats : xarray.Dataset
        The sampler's own numbers, dims (chain, draw): ``diverging, n_steps, energy`` and more.
    note : str
        Why draws were taken a second time; empty where they were not.
    """

    position: np.ndarray
    stats: xr.Dataset
    note: str


def sample(
    density: Density, mode: np.ndarray, root: np.ndarray, settings: SamplerSettings
) -> Draws:
    """Return draws from a density.

    Parameters
    ----------
    density : callable
        From a position, shape (n_dim,), to its log density and gradient; called from several
        threads at once.
    mode, root : numpy.ndarray
        Mean and lower triangular root of the covariance of a normal approximation, shapes
        (n_dim,) and (n_dim, n_dim).
    settings : SamplerSettings
        How to sample; `sampler` is not looked at.

    Raises
    ------
    KeyboardInterrupt
        At once when interrupted; the sampler's threads are ended.
    """
    if _seconds(density, mode) < SHORT:
        settings = replace(settings, cores=1)
    position, stats = _sample_once(density, mode, root, settings, _TARGET_ACCEPT)
    shortfall = _shortfall(position, stats)
    if not shortfall:
        return Draws(position, stats, "")
    twice = replace(settings, draws=2 * settings.draws)
    position, stats = _sample_once(
        density, *_moments(position, mode, root), twice, _TARGET_ACCEPT_AGAIN)
    return Draws(position, stats, "sampled again with the first draws' covariance, twice as many "
                                  f"draws and smaller steps, because {shortfall}")


def _moments(
    position: np.ndarray, mode: np.ndarray, root: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and root of the covariance of draws, shrunk towards the normal approximation's.

    It has the weight of one draw per dimension: few draws leave no direction without spread.
    """
    flat = position.reshape(-1, len(mode))
    z = np.linalg.solve(root, (flat - mode).T)
    covariance = (len(flat) * np.cov(z) + len(mode) * np.eye(len(mode))) / (len(flat) + len(mode))
    return flat.mean(axis=0), root @ np.linalg.cholesky(covariance)


def _seconds(density: Density, position: np.ndarray, n_calls: int = 20) -> float:
    """Return how long a call of a density takes; the first may compile it and is not counted."""
    density(position)
    begin = time.perf_counter()
    for _ in range(n_calls):
        density(position)
    return (time.perf_counter() - begin) / n_calls


def sample_density(
    density: Density, center: np.ndarray, sd: np.ndarray, settings: SamplerSettings
) -> Draws:
    """Return draws from a density, its normal approximation found from a prior's centre and sd."""
    mode = find_mode(density, center, sd)
    return sample(density, mode, root_of_covariance(density, mode, sd), settings)


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
    """Return the diagnostics of each column of draws, by `arviz_stats`' array interface.

    Parameters
    ----------
    draws : numpy.ndarray
        Shape (chain, draw, column); two chains and more for r_hat.
    """
    from arviz_stats.base import array_stats

    values, axes = np.asarray(draws, dtype=float), {"chain_axis": 0, "draw_axis": 1}
    with np.errstate(divide="ignore", invalid="ignore"):  # draws that never move, or are infinite
        return Convergence(array_stats.rhat(values, **axes),
                           array_stats.ess(values, method="bulk", **axes),
                           array_stats.ess(values, method="tail", prob=_TAILS, **axes))


def _shortfall(position: np.ndarray, stats: xr.Dataset) -> str:
    """Return what the draws lack, in words; empty where nothing."""
    if divergences := int(stats["diverging"].sum()):
        return f"{divergences} draws diverged"
    found, n_draws = convergence(position), position.shape[0] * position.shape[1]
    most = max(_R_HAT_OF_COORDINATES, 1.0 + _R_HAT_NOISE / n_draws)
    if not found.r_hat.max() <= most:
        return f"r_hat reached {found.r_hat.max():.4f}, above {most:.4f}"
    least = min(_ESS_OF_COORDINATES, _LEAST_SHARE * n_draws)
    if not found.ess_bulk.min() >= least:
        return f"only {found.ess_bulk.min():.0f} draws were effective, below {least:.0f}"
    return ""


def _sample_once(
    density: Density, mode: np.ndarray, root: np.ndarray, settings: SamplerSettings,
    target_accept: float,
) -> tuple[np.ndarray, xr.Dataset]:
    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    n_dim = len(mode)
    model = from_pyfunc(
        ndim=n_dim, make_logp_fn=lambda: _standardised(density, mode, root),
        make_expand_fn=lambda *seeds: lambda z: {"z": z},
        expanded_dtypes=[np.dtype("float64")], expanded_shapes=[(n_dim,)], expanded_names=["z"],
        make_initial_point_fn=lambda seed: _START * np.random.default_rng(seed).standard_normal(
            n_dim))
    running = nutpie.sample(
        model, draws=settings.draws, tune=settings.tune, chains=settings.chains,
        cores=settings.cores, seed=settings.random_seed, maxdepth=_MAX_DEPTH, save_warmup=False,
        adaptation=_ADAPTATION, target_accept=target_accept, progress_bar=False, blocking=False)
    try:
        tree = running.wait()
    except BaseException:  # an interrupt too must not leave threads that go on sampling
        running.cancel()
        raise
    stats = tree["sample_stats"].to_dataset().drop_attrs()
    numbers = [name for name, value in stats.data_vars.items() if value.dtype.kind in "biuf"]
    return mode + tree["posterior"]["z"].values @ root.T, stats[numbers]


def _standardised(
    density: Density, mode: np.ndarray, root: np.ndarray
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    def log_density(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = density(mode + root @ z)
        with np.errstate(invalid="ignore"):  # a trial step so far out that slopes overflow
            return float(value), gradient @ root

    return log_density
