r"""Find the trajectory model's mode, and the shape of the posterior around it.

The posterior of the shared parameters is smooth and, but for a few bends, close to normal. Its
mode and the inverse Hessian there turn it into one that a sampler finds round:
:math:`x = m + L z`. Between passes the runs are linearised anew, around where the last pass put
them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cbsbayes.models import trajectory_kernel as kernel
from cbsbayes.models.trajectory_data import ramps
from cbsbayes.models.trajectory_flat import FlatTrajectory
from cbsbayes.models.trajectory_read import expected_accuracy, typical_curve
from cbsbayes.models.trajectory_words import data_words

__all__ = ["Laplace", "find_laplace"]

_PASSES = 5
_LATE = ("sigma_offset", "memory")
_FARTHEST = 0.7  # deviation in log updates that runs are linearised around at most
_SETTLED = 0.01  # change of a run's deviation in log updates below which passes stop
_STEPS = (0.02, 0.3)  # of the Hessian's differences: prior spreads, then posterior ones
_LEAST_CURVATURE = 0.2  # of the posterior's own, so that no direction runs off


@dataclass(frozen=True)
class Laplace:
    """A normal approximation.

    Attributes
    ----------
    flat : FlatTrajectory
        The model, linearised around the mode.
    words : numpy.ndarray
        The kernel's data for it.
    middle : numpy.ndarray
        The mode, shape (n_dim,).
    factor : numpy.ndarray
        Lower triangular root of the covariance, shape (n_dim, n_dim).
    """

    flat: FlatTrajectory
    words: np.ndarray
    middle: np.ndarray
    factor: np.ndarray


def find_laplace(flat: FlatTrajectory) -> Laplace:
    """Return the normal approximation of the posterior, runs linearised where the data put them."""
    z = np.zeros(flat.n_dim)
    for k in range(_PASSES):
        words = data_words(flat)
        z = _climb(flat, words, z, _held(flat) if k == 0 else [])
        position = flat.center + flat.sd * z
        if k == _PASSES - 1:
            break
        reference = np.clip(_deviations(flat, position, words), -_FARTHEST, _FARTHEST)
        moved = np.abs(reference - flat.data.reference).max()
        typical = typical_curve(flat, position) if k == 0 else flat.data.typical
        expected = expected_accuracy(flat, position) if k <= 1 else flat.data.expected
        flat = replace(flat, data=flat.data.around(reference, typical, expected))
        if moved < _SETTLED and k > 0:
            break
    words = data_words(flat)
    return Laplace(flat, words, position, _root_of_covariance(flat, words, position))


def _held(flat: FlatTrajectory) -> list[int]:
    """Return the coordinates that wait for the second pass.

    Before runs are linearised where they are, serial noise of long memory would take over what is
    the runs' own speed.
    """
    return [flat.slices[name].start for name in _LATE]


def _climb(
    flat: FlatTrajectory, words: np.ndarray, z: np.ndarray, held: list[int]
) -> np.ndarray:
    """Return the mode in prior spreads from the prior's centre; `held` coordinates stay."""
    from scipy.optimize import minimize

    def downhill(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = kernel.log_density(flat.center + flat.sd * z, words)
        if not np.isfinite(value):
            return 1e10, np.zeros_like(z)
        slope = -gradient * flat.sd
        slope[held] = 0.0
        return -value, slope

    return minimize(downhill, z, jac=True, method="L-BFGS-B",
                    options={"maxiter": 1000, "maxcor": 30, "maxfun": 2000}).x


def _deviations(flat: FlatTrajectory, position: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return every run's deviation in log updates at its evaluations, shape (evaluation,)."""
    mean = kernel.run_posteriors(position[None], words)[0][0]
    values, data = flat.parameters(position[None]), flat.data
    own = mean[data.run_of]
    wander = (ramps(np.log(data.steps), data.knots) * own[:, 1:-1]).sum(axis=1)
    return values["sigma_run"][0] * own[:, 0] + values["sigma_wander"][0] * wander


def _root_of_covariance(
    flat: FlatTrajectory, words: np.ndarray, position: np.ndarray
) -> np.ndarray:
    root = np.diag(flat.sd)
    for step, least in zip(_STEPS, (0.5, _LEAST_CURVATURE), strict=True):
        curvature, directions = np.linalg.eigh(-_hessian(words, position, root, step))
        curvature = np.maximum(curvature, least)
        covariance = root @ (directions / curvature) @ directions.T @ root.T
        root = np.linalg.cholesky((covariance + covariance.T) / 2)
    return root


def _hessian(
    words: np.ndarray, position: np.ndarray, root: np.ndarray, step: float
) -> np.ndarray:
    """Return the Hessian of the log density in the coordinates of `root`, by differences."""
    rows = []
    for direction in root.T:
        ahead = kernel.log_density(position + step * direction, words)[1]
        behind = kernel.log_density(position - step * direction, words)[1]
        rows.append((ahead - behind) @ root / (2 * step))
    hessian = np.array(rows)
    return (hessian + hessian.T) / 2
