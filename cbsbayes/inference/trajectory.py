r"""Sample the shared parameters of the trajectory model.

The mode is found first, and the shape of the posterior around it: between passes the runs are
linearised anew, around where the last pass put them. NUTS then moves in the coordinates that this
normal approximation makes nearly round. One of them is far from normal: the ceiling's logit falls
off a cliff where the data are and has a long tail above them. In its place the sampler has
:math:`\log(\mathrm{ceiling} - \mathrm{floor})`, with a floor below which the posterior has nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from scipy.special import expit, logit

from cbsbayes.errors import CBSDataError
from cbsbayes.inference.nuts import Density, SamplerSettings, find_mode, root_of_covariance, sample
from cbsbayes.models.trajectory import TrajectoryParameters
from cbsbayes.models.trajectory_curve import curve
from cbsbayes.models.trajectory_data import SATURATION, TypicalCurve
from cbsbayes.models.trajectory_runs import deviations

__all__ = ["Laplace", "TrajectoryDraws", "expected_accuracy", "find_laplace", "sample_around",
           "sample_curves"]

_PASSES = 5
_LATE = ("sigma_offset", "memory")
_FARTHEST = 0.7  # deviation in log updates that runs are linearised around at most
_SETTLED = 0.01  # change of a run's deviation in log updates below which passes stop
_BELOW_TOP, _BELOW_MODE = 1.0, 4.0  # the floor: logits below the data, and standard deviations


@dataclass(frozen=True)
class Laplace:
    """A normal approximation.

    Attributes
    ----------
    parameters : TrajectoryParameters
        The model, linearised around the mode.
    mode : numpy.ndarray
        Shape (n_dim,).
    root : numpy.ndarray
        Lower triangular root of the covariance, shape (n_dim, n_dim).
    """

    parameters: TrajectoryParameters
    mode: np.ndarray
    root: np.ndarray


@dataclass(frozen=True)
class TrajectoryDraws:
    """What the sampler left.

    Attributes
    ----------
    parameters : TrajectoryParameters
        The model as it was linearised.
    position : numpy.ndarray
        Draws of the shared parameters, shape (chain, draw, n_dim).
    run_effect : numpy.ndarray
        Draws of every run's effect given them, shape (chain, draw, run).
    stats : xarray.Dataset
        The sampler's own numbers.
    note : str
        Why draws were taken a second time; empty where they were not.
    """

    parameters: TrajectoryParameters
    position: np.ndarray
    run_effect: np.ndarray
    stats: xr.Dataset
    note: str


def find_laplace(parameters: TrajectoryParameters) -> Laplace:
    """Return the normal approximation of the posterior, runs linearised where the data put them."""
    position = parameters.center
    # Before runs are linearised where they are, serial noise of long memory would take over what is
    # the runs' own speed.
    held = [parameters.slices[name].start for name in _LATE]
    for k in range(_PASSES):
        position = find_mode(parameters.log_density, parameters.center, parameters.sd, position,
                             [] if k else held)
        if k == _PASSES - 1:
            break
        reference = np.clip(_deviations(parameters, position)[0], -_FARTHEST, _FARTHEST)
        moved = np.abs(reference - parameters.data.reference).max()
        parameters = _linearised(parameters, position, reference, k)
        if moved < _SETTLED and k > 0:
            break
    root = root_of_covariance(parameters.log_density, position, parameters.sd)
    return Laplace(parameters, position, root)


def sample_curves(parameters: TrajectoryParameters, settings: SamplerSettings) -> TrajectoryDraws:
    """Return draws from the posterior of the trajectory model.

    Parameters
    ----------
    parameters : TrajectoryParameters
        The model.
    settings : SamplerSettings
        How to sample.

    Raises
    ------
    CBSDataError
        If PyMC is to sample, which has no definition of this model.
    """
    if settings.sampler == "pymc":
        raise CBSDataError(f"sampler {settings.sampler!r} does not sample the trajectory model; "
                           "valid: nutpie, or --model crossing with any sampler")
    return sample_around(find_laplace(parameters), settings)


def sample_around(found: Laplace, settings: SamplerSettings) -> TrajectoryDraws:
    """Return draws from the posterior whose normal approximation was found."""
    parameters, mode, root = found.parameters, found.mode.copy(), found.root.copy()
    j = parameters.slices["ceiling_logit"].start
    floor = min(_top_logit(parameters) - _BELOW_TOP,
                mode[j] - _BELOW_MODE * float(np.hypot.reduce(root[j])))
    above = mode[j] - floor
    mode[j] = np.log(above)
    root[j] /= above
    draws = sample(_above_floor(parameters.log_density, j, floor), mode, root, settings)
    position = draws.position.copy()
    position[..., j] = floor + np.exp(position[..., j])
    effect = _run_effects(parameters, position.reshape(-1, parameters.n_dim),
                          settings.random_seed)
    return TrajectoryDraws(parameters, position, effect.reshape(*position.shape[:2], -1),
                           draws.stats, draws.note)


def expected_accuracy(parameters: TrajectoryParameters, position: np.ndarray) -> np.ndarray:
    """Return what each run's batch shows without deviations, shape (evaluation,).

    Parameters
    ----------
    parameters : TrajectoryParameters
        The model.
    position : numpy.ndarray
        One position of the flat vector, shape (n_dim,).
    """
    arrays, shared = parameters.arrays, parameters.shared(position)
    at = curve(shared, arrays._replace(reference=np.zeros_like(arrays.reference)))
    share = np.exp(-shared[SATURATION] * arrays.group_share)[parameters.data.run_of]
    return np.asarray(at.initial + share * (at.level - at.initial))


def _linearised(
    parameters: TrajectoryParameters, position: np.ndarray, reference: np.ndarray, k: int
) -> TrajectoryParameters:
    """Return the model around deviations; in early passes around the curve found as well.

    How noisy evaluations are, and where nodes lie, must not follow the curve for ever.
    """
    data = replace(parameters.data, reference=reference)
    if k <= 1:
        data = replace(data, expected=expected_accuracy(parameters, position))
    if k == 0:
        shown = parameters.curve(parameters.shared(position)).shown
        data = replace(data, typical=TypicalCurve(
            data.log_tau, np.maximum.accumulate(np.clip(shown, 0.0, 1.0))))
    return replace(parameters, data=data)


def _deviations(
    parameters: TrajectoryParameters, position: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shared = parameters.shared(position)
    return deviations(shared, parameters.arrays, parameters.curve(shared))


def _top_logit(parameters: TrajectoryParameters) -> float:
    """Return the logit share of the room above the start that the population gained."""
    start = float(expit(parameters.center[parameters.slices["start"].start]))
    share = (parameters.data.typical.accuracy.max() - start) / (1 - start)
    return float(logit(np.clip(share, 0.01, 0.99)))


def _above_floor(density: Density, j: int, floor: float) -> Density:
    """Return a density over log(x - floor) in place of coordinate j, Jacobian included."""
    def turned(position: np.ndarray) -> tuple[float, np.ndarray]:
        at, above = position.copy(), np.exp(min(position[j], 100.0))
        at[j] = floor + above
        value, slope = density(at)
        slope[j] = slope[j] * above + 1.0
        return value + position[j], slope

    return turned


def _run_effects(
    parameters: TrajectoryParameters, draws: np.ndarray, seed: int
) -> np.ndarray:
    """Return one draw of every run's effect per draw of the shared parameters, (draw, run)."""
    rng = np.random.default_rng(seed)
    mean, sd = (np.array(part) for part in zip(
        *(_deviations(parameters, position)[1:] for position in draws), strict=True))
    return mean + sd * rng.standard_normal(mean.shape)
