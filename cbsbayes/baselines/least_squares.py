"""The usual least squares: S(B) = S_min (1 + B_noise/B) fitted to raw S by `curve_fit`.

It stands for the practice and keeps what is wrong with it: S is the first evaluation at or
above the threshold (rounded up to the evaluation grid), runs that never cross are left out,
large S dominate, the start value depends on the order of the runs, R² is the only measure.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from scipy.optimize import OptimizeWarning, curve_fit

from cbsbayes.baselines.result import NAN, BaselineFit
from cbsbayes.errors import CBSDataError

__all__ = ["least_squares", "r_squared", "read_points"]


def read_points(
    batch: npt.ArrayLike, steps: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return batches and updates of the runs that crossed, and the mask that picks them.

    Parameters
    ----------
    batch, steps : array_like, shape (run,)
        Batch sizes, and updates to the threshold (NaN or inf: never reached).

    Raises
    ------
    CBSDataError
        If the lengths differ or a batch or a step count is not positive.
    """
    batch, steps = np.asarray(batch, dtype=float), np.asarray(steps, dtype=float)
    if batch.ndim != 1 or batch.shape != steps.shape:
        raise CBSDataError(f"batch and steps have shapes {batch.shape} and {steps.shape}; "
                           "give one batch and one step count per run")
    used = np.isfinite(steps)
    for name, values in (("batch", batch), ("steps", steps[used])):
        bad = values[~(np.isfinite(values) & (values > 0))]
        if bad.size:
            raise CBSDataError(f"{name} holds {bad[0]:g}; only positive numbers are valid: "
                               "remove that run or correct it")
    return batch[used], steps[used], used


def _hyperbola(batch: np.ndarray, s_min: float, b_noise: float) -> np.ndarray:
    return s_min * (1 + b_noise / batch)


def _curve_fit(batch: np.ndarray, steps: np.ndarray) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # about pcov, which is not used
        (s_min, b_noise), _ = curve_fit(
            _hyperbola, batch, steps, p0=[steps.min(), batch[len(batch) // 2]],
            bounds=([0, 0], [np.inf, np.inf]), maxfev=10000)
    return float(s_min), float(b_noise)


def r_squared(observed: np.ndarray, predicted: np.ndarray) -> float:
    """Return one minus the residual share of the sum of squares; 0 where nothing varies."""
    total = np.sum((observed - observed.mean()) ** 2)
    return float(1 - np.sum((observed - predicted) ** 2) / total) if total > 0 else 0.0


def least_squares(
    batch: npt.ArrayLike, steps: npt.ArrayLike, *,
    threshold: float = NAN, axis: str = "total", at: str = "",
) -> BaselineFit | None:
    """Fit S = S_min (1 + B_noise/B) to raw S, as it is usually done.

    Runs with one rollout under a group estimator are kept, as the practice does. Updates are
    optimizer updates; where a trainer step is several updates the practice counted trainer
    steps.

    Parameters
    ----------
    batch : array_like, shape (run,)
        Batch sizes in any one unit, in the order in which the runs were read.
    steps : array_like, shape (run,)
        Updates at the first evaluation at or above the threshold; NaN or inf where never.
    threshold, axis, at
        Labels of the result, see `BaselineFit`.

    Returns
    -------
    BaselineFit or None
        None with fewer than three crossings. A fit that does not converge holds NaN and a note.

    Raises
    ------
    CBSDataError
        If the lengths differ or a batch or a step count is not positive.
    """
    batch, steps, used = read_points(batch, steps)
    n_dropped = int(np.sum(~used))
    if batch.size < 3:
        return None
    try:
        s_min, b_noise = _curve_fit(batch, steps)
    except RuntimeError:
        return BaselineFit.failed(
            "curve_fit did not converge in 10000 evaluations", threshold=threshold, axis=axis,
            at=at, method="least_squares", batch=batch, steps=steps, n_dropped=n_dropped)
    r2 = r_squared(steps, _hyperbola(batch, s_min, b_noise))
    return BaselineFit(threshold, axis, at, "least_squares", s_min, b_noise, NAN, NAN,
                       batch.size, n_dropped, r2, batch, steps, E_min=s_min * b_noise)
