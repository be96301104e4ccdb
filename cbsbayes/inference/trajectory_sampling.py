r"""Sample the trajectory model's shared parameters, and runs' own given them.

The runs' own parameters are integrated out in the kernel, so that thirty-odd coordinates are left
however many runs there are. They are turned by the posterior's normal approximation
(`cbsbayes.inference.laplace`) before a sampler sees them. One of them is far from normal: the
ceiling's logit falls off a cliff where the data are and has a long tail above them. The sampler
moves in :math:`\log(\mathrm{ceiling} - \mathrm{floor})` instead, the floor one logit below the
highest accuracy that the typical run reached, where the posterior has nothing.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr
from scipy.special import expit, logit

from cbsbayes.inference.laplace import Laplace, find_laplace
from cbsbayes.inference.loo import run_log_likelihoods
from cbsbayes.inference.mode import Density
from cbsbayes.inference.nuts import SamplerSettings, sample
from cbsbayes.inference.sampling import quiet_pymc
from cbsbayes.models import trajectory_kernel as kernel
from cbsbayes.models.trajectory_flat import FlatTrajectory
from cbsbayes.models.trajectory_read import read_thresholds

__all__ = ["sample_by_nuts", "sample_curves"]

_TARGET_ACCEPT = 0.97  # .85 is twice as fast, but draws diverge where the ceiling is near the data
_BELOW_TOP, _BELOW_MODE = 1.0, 0.5  # the floor of the ceiling's logit, at least
_CHUNK = 500  # draws at a time when runs' own parameters are drawn


def sample_curves(
    flat: FlatTrajectory, thresholds: np.ndarray, settings: SamplerSettings
) -> tuple[xr.DataTree, FlatTrajectory]:
    """Return the posterior of the trajectory model, and the model as it was linearised.

    Parameters
    ----------
    flat : FlatTrajectory
        The model.
    thresholds : numpy.ndarray
        Accuracies at which it is read, shape (threshold,).
    settings : SamplerSettings
        How to sample.

    Returns
    -------
    tuple
        A tree with groups ``posterior``, ``sample_stats`` and ``log_likelihood``, and the model.
    """
    approximation = find_laplace(flat)
    if settings.sampler == "pymc":
        position, stats = _sample_pymc(approximation, settings)
    else:
        position, stats = sample_by_nuts(approximation, settings)
    flat = approximation.flat
    posterior = read_thresholds(flat, position, thresholds, settings.random_seed)
    draws = position.reshape(-1, flat.n_dim)
    effect = _run_effects(flat, draws, approximation.words, settings.random_seed)
    shape = (*position.shape[:2], len(flat.data.run))
    posterior = posterior.assign_coords(run=flat.data.run)
    posterior["run_effect"] = (("chain", "draw", "run"), effect.reshape(shape))
    log_p = kernel.log_densities(draws, approximation.words)[1]
    tree = xr.DataTree.from_dict({
        "posterior": posterior, "sample_stats": stats,
        "log_likelihood": run_log_likelihoods(log_p, posterior, flat.data.run)})
    return tree, flat


def sample_by_nuts(
    approximation: Laplace, settings: SamplerSettings
) -> tuple[np.ndarray, xr.Dataset]:
    """Return draws of the flat vector and the sampler's numbers.

    Parameters
    ----------
    approximation : Laplace
        The model, and the normal approximation that standardises its coordinates.
    settings : SamplerSettings
        How to sample.

    Returns
    -------
    tuple
        Draws, shape (chain, draw, n_dim), and a Dataset of dims (chain, draw).
    """
    flat, words = approximation.flat, approximation.words
    j = flat.slices["ceiling_logit"].start
    floor = min(_top_logit(flat) - _BELOW_TOP, approximation.middle[j] - _BELOW_MODE)
    above = approximation.middle[j] - floor
    middle, factor = approximation.middle.copy(), approximation.factor.copy()
    middle[j] = np.log(above)
    factor[j] /= above
    draws = sample(_above_floor(partial(kernel.log_density, words=words), j, floor), middle, factor,
                   settings)
    position = draws.position.copy()
    position[..., j] = floor + np.exp(position[..., j])
    return position, draws.stats.assign_attrs(note=draws.note)


def _top_logit(flat: FlatTrajectory) -> float:
    """Return the logit share of the room above the start that the typical run gained."""
    start = float(expit(flat.center[flat.slices["start"].start]))
    share = (flat.data.typical.accuracy.max() - start) / (1 - start)
    return float(logit(np.clip(share, 0.01, 0.99)))


def _above_floor(density: Density, j: int, floor: float) -> Density:
    """Return a density over log(x - floor) in place of coordinate j, Jacobian included."""
    def transformed(position: np.ndarray) -> tuple[float, np.ndarray]:
        at = position.copy()
        above = np.exp(position[j])
        at[j] = floor + above
        value, slope = density(at)
        slope[j] = slope[j] * above + 1.0
        return value + position[j], slope

    return transformed


def _sample_pymc(
    approximation: Laplace, settings: SamplerSettings
) -> tuple[np.ndarray, xr.Dataset]:
    """Return the same by PyMC's own NUTS on the definition, with the mode's covariance."""
    import pymc as pm
    import pytensor

    from cbsbayes.models.trajectory import build_trajectory_model, position_of

    flat = approximation.flat
    mode = {name: value[0] for name, value in flat.parameters(approximation.middle[None]).items()}
    # PyTensor's default mode would compile a detour around the kernel, which is compiled already
    with pytensor.config.change_flags(mode="CVM"), build_trajectory_model(flat), quiet_pymc():
        step = pm.NUTS(scaling=approximation.factor @ approximation.factor.T, is_cov=True,
                       target_accept=_TARGET_ACCEPT)
        tree = pm.sample(
            step=step, initvals=mode,
            draws=settings.draws, tune=settings.tune, chains=settings.chains,
            cores=settings.cores, random_seed=settings.random_seed, progressbar=False,
            compute_convergence_checks=False)
    return (position_of(flat, tree["posterior"].to_dataset()),
            tree["sample_stats"].to_dataset())


def _run_effects(
    flat: FlatTrajectory, draws: np.ndarray, words: np.ndarray, seed: int
) -> np.ndarray:
    """Return one draw of every run's effect per draw of the shared parameters, (draw, run)."""
    rng = np.random.default_rng(seed)
    parts = []
    for first in range(0, len(draws), _CHUNK):
        mean, covariance = kernel.run_posteriors(draws[first:first + _CHUNK], words)
        sd = np.sqrt(covariance[:, :, 0, 0])
        parts.append(mean[:, :, 0] + sd * rng.standard_normal(sd.shape))
    return np.concatenate(parts) * flat.parameters(draws)["sigma_run"][:, None]
