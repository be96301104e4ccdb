"""Find the trajectory model's mode, and the shape of the posterior around it.

Between passes the runs are linearised anew, around where the last pass put them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from cbsbayes.inference.mode import find_mode, root_of_covariance
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
    position = flat.center
    for k in range(_PASSES):
        words = data_words(flat)
        position = find_mode(partial(kernel.log_density, words=words), flat.center, flat.sd,
                             position, _held(flat) if k == 0 else [])
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
    density = partial(kernel.log_density, words=words)
    return Laplace(flat, words, position, root_of_covariance(density, position, flat.sd))


def _held(flat: FlatTrajectory) -> list[int]:
    """Return the coordinates that wait for the second pass.

    Before runs are linearised where they are, serial noise of long memory would take over what is
    the runs' own speed.
    """
    return [flat.slices[name].start for name in _LATE]


def _deviations(flat: FlatTrajectory, position: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return every run's deviation in log updates at its evaluations, shape (evaluation,)."""
    mean = kernel.run_posteriors(position[None], words)[0][0]
    values, data = flat.parameters(position[None]), flat.data
    own = mean[data.run_of]
    wander = (ramps(np.log(data.steps), data.knots) * own[:, 1:-1]).sum(axis=1)
    return values["sigma_run"][0] * own[:, 0] + values["sigma_wander"][0] * wander
