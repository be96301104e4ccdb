"""What a least-squares fit returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from cbsbayes.baselines.bootstrap import percentile_interval
from cbsbayes.models.laws import group_divisor

__all__ = ["BaselineFit", "TwoAxisFit"]

NAN = float("nan")


@dataclass(frozen=True, eq=False)
class BaselineFit:
    """A hyperbola S = S_min (1 + B_noise/B) fitted by least squares at one threshold.

    Attributes
    ----------
    threshold : float
        Target accuracy (or loss).
    axis : str
        ``total``, ``prompts`` or ``rollouts``: what B counts.
    at : str
        What is held fixed, e.g. ``n_rollouts=8``; empty for the total batch.
    method : str
        ``least_squares`` or ``log_least_squares``.
    S_min, B_noise : float
        Updates, and the unit of `axis`. B_noise 0 with the log fit: S is flat over the batches
        tried; inf (then S_min is 0): S falls as 1/B throughout. NaN: no fit, see `note`.
    ci_lower, ci_upper : float
        Bootstrap percentile interval of B_noise; NaN where the method has none.
    n_used, n_dropped : int
        Runs that entered, and runs of this axis that did not.
    r2 : float
        Coefficient of determination, of S (``least_squares``) or log S (``log_least_squares``).
    batch, steps : ndarray, shape (n_used,)
        What was fitted: the batch on this axis, and updates to the threshold.
    E_min : float
        S_min · B_noise, finite even where B_noise is inf.
    ci_t_lower, ci_t_upper : float
        t-interval of B_noise from the Jacobian of the log fit; NaN at a limit (0 or inf).
    ci_prob : float
        Probability of both intervals; NaN where the method has none.
    note : str
        Why there is no fit; empty otherwise.
    """

    threshold: float
    axis: str
    at: str
    method: str
    S_min: float
    B_noise: float
    ci_lower: float
    ci_upper: float
    n_used: int
    n_dropped: int
    r2: float
    batch: np.ndarray
    steps: np.ndarray
    E_min: float = NAN
    ci_t_lower: float = NAN
    ci_t_upper: float = NAN
    ci_prob: float = NAN
    note: str = ""

    @classmethod
    def failed(
        cls, note: str, *, threshold: float, axis: str, at: str, method: str,
        batch: np.ndarray, steps: np.ndarray, n_dropped: int,
    ) -> BaselineFit:
        """Return a fit without values that says why there are none."""
        return cls(threshold, axis, at, method, NAN, NAN, NAN, NAN, batch.size, n_dropped, NAN,
                   batch, steps, note=note)

    def predict(self, batch: npt.ArrayLike) -> np.ndarray:
        """Return fitted updates to the threshold at batches in the unit of `axis`."""
        return self.S_min + self.E_min / np.asarray(batch, dtype=float)


@dataclass(frozen=True, eq=False)
class TwoAxisFit:
    """The two-axis law S_min (1 + N(G)/P)^alpha fitted to log S at one threshold.

    Attributes
    ----------
    S_min, B_prompt, B_rollout : float
        Updates, prompts, prompts x (rollouts - 1); 0 and inf are limits as in `BaselineFit`.
    alpha : float
        The exponent, fixed.
    plain : bool
        True for B_rollout/G in place of B_rollout/(G - 1).
    n_used, n_dropped : int
        Runs that entered, and runs that did not.
    r2 : float
        Coefficient of determination of log S.
    ci_prob : float
        Probability of the intervals.
    log_covariance : ndarray, shape (3, 3)
        Covariance of log S_min, log B_prompt, log B_rollout; NaN at a limit.
    draws : ndarray, shape (n_bootstrap, 3)
        S_min, B_prompt, B_rollout of every resample of the runs.
    note : str
        Why there is no fit; empty otherwise.
    """

    S_min: float
    B_prompt: float
    B_rollout: float
    alpha: float
    plain: bool
    n_used: int
    n_dropped: int
    r2: float
    ci_prob: float
    log_covariance: np.ndarray = field(default_factory=lambda: np.full((3, 3), NAN))
    draws: np.ndarray = field(default_factory=lambda: np.empty((0, 3)))
    note: str = ""

    def _gradient(self, quantity: str, n_rollouts: float | None) -> tuple[float, np.ndarray]:
        """Return the value and the derivatives of its log by the three log parameters."""
        if quantity == "noise":
            shares = np.array([0.0, self.B_prompt,
                               self.B_rollout / group_divisor(n_rollouts, plain=self.plain)])
            with np.errstate(invalid="ignore"):
                return float(shares.sum()), shares / shares.sum()
        names = ["S_min", "B_prompt", "B_rollout"]
        return getattr(self, quantity), np.eye(3)[names.index(quantity)]

    def t_interval(self, quantity: str, *, n_rollouts: float | None = None) -> tuple[float, float]:
        """Return the t-interval of a quantity, on the log scale, n - 3 degrees of freedom.

        Parameters
        ----------
        quantity : str
            ``S_min``, ``B_prompt``, ``B_rollout``, or ``noise`` for the noise scale in prompts
            N(G) at `n_rollouts` (delta method).
        n_rollouts : float, optional
            G, needed for ``noise``.

        Returns
        -------
        tuple of float
            NaN where the fit ended at a limit.
        """
        value, gradient = self._gradient(quantity, n_rollouts)
        spread = np.sqrt(gradient @ self.log_covariance @ gradient)
        half = stdtrit(max(self.n_used - 3, 1), 0.5 + self.ci_prob / 2) * spread
        return float(value * np.exp(-half)), float(value * np.exp(half))

    def bootstrap_interval(
        self, quantity: str, *, n_rollouts: float | None = None
    ) -> tuple[float, float]:
        """Return the bootstrap percentile interval of a quantity (names as in `t_interval`)."""
        if quantity == "noise":
            divisor = group_divisor(n_rollouts, plain=self.plain)
            values = self.draws[:, 1] + self.draws[:, 2] / divisor
        else:
            values = self.draws[:, ["S_min", "B_prompt", "B_rollout"].index(quantity)]
        return percentile_interval(values, self.ci_prob)
