r"""The mode of a smooth posterior, and a root of its covariance there.

Coordinates with normal priors make the posterior of the models here smooth and, but for a few
bends, close to normal. Its mode and the inverse Hessian there turn it into one that a sampler
finds round: :math:`x = m + L z`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["Density", "find_mode", "root_of_covariance"]

Density = Callable[[np.ndarray], tuple[float, np.ndarray]]

_STEPS = (0.02, 0.3)  # of the Hessian's differences: prior spreads, then posterior ones
_LEAST_CURVATURE = (0.5, 0.2)  # of the prior's and the posterior's own: no direction runs off


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
    for step, least in zip(_STEPS, _LEAST_CURVATURE, strict=True):
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
