"""Where a batch lies: among those tried, between them, or beyond.

Beyond means outside the convex hull of the tried batches on log axes: a batch of many prompts and
many rollouts is an extrapolation where each was only tried with few of the other.
"""

from __future__ import annotations

import numpy as np

__all__ = ["inside_hull", "place_batches"]

_TOLERANCE = 1e-9


def place_batches(batches: np.ndarray, tried: np.ndarray) -> np.ndarray:
    """Return ``tried``, ``inside`` or ``extrapolated`` for each batch.

    Parameters
    ----------
    batches, tried : numpy.ndarray
        n_prompts and n_rollouts, shape (batch, 2); one-axis data give the total batch and 1.
    """
    known = (np.asarray(batches)[:, None, :] == np.asarray(tried)[None, :, :]).all(-1).any(1)
    between = inside_hull(np.log(batches), np.log(tried))
    return np.where(known, "tried", np.where(between, "inside", "extrapolated"))


def inside_hull(points: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Return whether points of the plane lie in the convex hull of others, shape (point,).

    A hull that is a line or one point holds what lies on it. A point is outside if and only if
    all of the others lie on one side of a line through it; the directions to look at are those
    across the lines between two of them, and along.
    """
    points, of = np.atleast_2d(points), np.unique(np.atleast_2d(of), axis=0)
    normals = _normals(of)
    heights, reach = points @ normals.T, of @ normals.T
    inside = (heights <= reach.max(axis=0) + _TOLERANCE).all(axis=1)
    return np.asarray(inside & (heights >= reach.min(axis=0) - _TOLERANCE).all(axis=1))


def _normals(of: np.ndarray) -> np.ndarray:
    """Return directions across and along every line between two points, and both axes."""
    first, second = np.triu_indices(len(of), k=1)
    along = of[first] - of[second]
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    return np.concatenate([np.eye(2), along, across])
