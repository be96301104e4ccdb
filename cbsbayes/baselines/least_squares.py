"""Common practice: S(B) = S_min (1 + B_noise/B) fitted to raw S by `scipy.optimize.curve_fit`.

Its faults are kept: S is the first evaluation at or above the threshold (rounded up to the
evaluation grid), runs that never cross are left out, large S dominate, the start value depends on
the order of the runs, R² is the only measure of fit.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import OptimizeWarning, curve_fit

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law, get_law

__all__ = ["LEAST_CROSSINGS", "BaselineFit", "fit_raw_law", "least_squares", "r_squared",
           "read_points"]

LEAST_CROSSINGS = 3
NAN = float("nan")


@dataclass(frozen=True, eq=False)
class BaselineFit:
    """A hyperbola S = S_min (1 + B_noise/B) fitted by least squares at one threshold.

    Attributes
    ----------
    method : str
        ``least_squares`` or ``log_least_squares``.
    batch, steps : ndarray, shape (n_used,)
        What was fitted: the batch, in any one unit, and updates to the threshold.
    n_dropped : int
        Runs that did not enter.
    S_min, B_noise : float
        Updates, and the unit of the batch. B_noise 0 with the log fit: S is flat over the batches
        that were run; inf (then S_min is 0): S falls as 1/B throughout. NaN: no fit, see `note`.
    E_min : float
        S_min · B_noise, finite even where B_noise is inf.
    ci_lower, ci_upper : float
        Bootstrap percentile interval of B_noise; NaN where the method has none.
    r2 : float
        Coefficient of determination, of S (``least_squares``) or log S (``log_least_squares``).
    note : str
        Why there is no fit; empty otherwise.
    """

    method: str
    batch: np.ndarray
    steps: np.ndarray
    n_dropped: int
    S_min: float = NAN
    B_noise: float = NAN
    E_min: float = NAN
    ci_lower: float = NAN
    ci_upper: float = NAN
    r2: float = NAN
    note: str = ""

    @property
    def n_used(self) -> int:
        """Runs that entered."""
        return self.batch.size

    def predict(self, batch: npt.ArrayLike) -> np.ndarray:
        """Return fitted updates to the threshold at batches."""
        return self.S_min + self.E_min / np.asarray(batch, dtype=float)


def read_points(method: str, batch: npt.ArrayLike, steps: npt.ArrayLike
                ) -> tuple[BaselineFit, np.ndarray]:
    """Return a fit without values of the runs that crossed, and the mask that picks them.

    Parameters
    ----------
    method : str
        Name of the method.
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
    few = "" if used.sum() >= LEAST_CROSSINGS else (
        f"{used.sum()} of {used.size} runs have a crossing to fit; three are needed")
    return BaselineFit(method, batch[used], steps[used], int(np.sum(~used)), note=few), used


def r_squared(observed: np.ndarray, predicted: np.ndarray) -> float:
    """Return one minus the residual share of the sum of squares; 0 where nothing varies."""
    total = np.sum((observed - observed.mean()) ** 2)
    return float(1 - np.sum((observed - predicted) ** 2) / total) if total > 0 else 0.0


def fit_raw_law(
    law: Law, n_prompts: np.ndarray, n_rollouts: np.ndarray, steps: np.ndarray, start: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return S_min and the scales fitted to raw S, and their covariance.

    Parameters
    ----------
    law : Law
        The law; its exponent is 1 where it is free.
    n_prompts, n_rollouts, steps : ndarray, shape (run,)
        Batches, and updates to the threshold, finite.
    start : list of float
        S_min and the scales from which the search starts.

    Returns
    -------
    tuple of ndarray
        Shapes (1 + scale,) and (1 + scale, 1 + scale); NaN where the search does not converge.
    """
    def law_of(batch: np.ndarray, s_min: float, *scales: float) -> Any:
        named = dict(zip(law.scales, scales, strict=True))
        return s_min * np.exp(law.log_ratio(batch[0], batch[1], named, law.alpha or 1.0))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # an infinite covariance: no interval
        try:
            return curve_fit(law_of, np.stack([n_prompts, n_rollouts]), steps, p0=start,
                             bounds=(0, np.inf), maxfev=10000)
        except RuntimeError:  # no convergence
            return np.full(len(start), NAN), np.full((len(start), len(start)), NAN)


def least_squares(batch: npt.ArrayLike, steps: npt.ArrayLike) -> BaselineFit:
    """Fit S = S_min (1 + B_noise/B) to raw S, as is common practice.

    Runs with one rollout under a group estimator are kept, as in common practice. Updates are
    optimizer updates; where a trainer step is several updates common practice counts trainer
    steps.

    Parameters
    ----------
    batch : array_like, shape (run,)
        Batch sizes in any one unit, in the order in which the runs were read.
    steps : array_like, shape (run,)
        Updates at the first evaluation at or above the threshold; NaN or inf where never.

    Returns
    -------
    BaselineFit
        Without values, and with a note, where fewer than three runs crossed or the search does
        not converge.

    Raises
    ------
    CBSDataError
        If the lengths differ or a batch or a step count is not positive.
    """
    fit, _ = read_points("least_squares", batch, steps)
    if fit.note:
        return fit
    start = [fit.steps.min(), fit.batch[fit.n_used // 2]]
    found, _ = fit_raw_law(get_law("total"), fit.batch, np.ones(fit.n_used), fit.steps, start)
    s_min, b_noise = found.tolist()
    if np.isnan(s_min):
        return replace(fit, note="curve_fit did not converge in 10000 evaluations")
    fit = replace(fit, S_min=s_min, B_noise=b_noise, E_min=s_min * b_noise)
    return replace(fit, r2=r_squared(fit.steps, fit.predict(fit.batch)))
