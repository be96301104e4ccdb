r"""Coordinates of the trajectory model in which walkers find its posterior rounder.

Two parts of the flat vector are far from normal, and only walkers see them changed:

- The ceiling's logit falls off a cliff where the data are and has a long tail above them. Walkers
  move in w, :math:`x = x_0 + c \log(1 + e^w)`, the floor :math:`x_0` one logit below the highest
  accuracy that the typical run reached, where the posterior has nothing.
- The data know the slope of log S along log batch, :math:`\alpha r/(1 + r)` at the middle batch
  with :math:`r = N/P`, far better than the exponent or the noise: the posterior is a narrow ridge
  from few prompts' noise and large exponents to the opposite, which can have a mode at each end.
  Walkers move across that ridge, :math:`v = v_0(\log r) + w e^{\lambda(\log r)}` in place of the
  exponent's coordinate v, where :math:`v_0` holds the slope at that of the mode and
  :math:`e^\lambda` turns a relative change of the slope into one of v.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import expit, log_expit, logit, logsumexp

from cbsbayes.hmc import Gradients
from cbsbayes.models.batches import batch_weights, middle_batch
from cbsbayes.models.trajectory_flat import FlatTrajectory

__all__ = ["WalkerCoordinates"]

_BELOW_TOP, _BELOW_MODE = 1.0, 0.5  # the floor of the ceiling's logit, at least
_LOG_RATIO = np.linspace(-12.0, 12.0, 241)  # nodes of log r
_INSIDE = (0.02, 0.9)  # shares of the exponent's range that the middle of the ridge keeps to
_CORNER = 0.05  # of the range: how softly it turns there


class WalkerCoordinates:
    """The map between walkers' positions y and flat vectors x.

    Parameters
    ----------
    flat : FlatTrajectory
        The model.
    mode : numpy.ndarray
        Its mode as a flat vector, shape (n_dim,).
    """

    def __init__(self, flat: FlatTrajectory, mode: np.ndarray) -> None:
        self._ceiling = flat.slices["ceiling_logit"].start
        self._floor = min(_top_logit(flat) - _BELOW_TOP, mode[self._ceiling] - _BELOW_MODE)
        self._unit = mode[self._ceiling] - self._floor
        self._alpha = -1
        if flat.law.alpha is None and flat.law.name != "power":
            self._follow_ridge(flat, mode)

    def _follow_ridge(self, flat: FlatTrajectory, mode: np.ndarray) -> None:
        self._alpha = flat.slices["alpha"].start
        self._levels = [flat.slices[f"{name}_level"].start for name in flat.law.scales]
        middle = [np.array([b]) for b in middle_batch(flat.data.n_prompts, flat.data.n_rollouts)]
        weights = batch_weights(flat.law, flat.data.log_batch_scale, *middle)
        self._log_weights = np.log(weights[:, 0])
        _, _, lower, upper = flat.alpha_prior
        width = upper - lower
        share = expit(mode[self._alpha])
        slope = np.log(lower + width * share) + log_expit(self._log_ratio(mode[None])[0][0])
        wanted = (np.exp(slope - log_expit(_LOG_RATIO)) - lower) / width
        held = _between(wanted, *_INSIDE)
        self._middle = CubicSpline(_LOG_RATIO, logit(held))
        self._log_scale = CubicSpline(
            _LOG_RATIO, np.log((lower + width * held) / (width * held * (1.0 - held))))

    def _log_ratio(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log r at the middle batch, shape (walker,), and its slopes by the levels."""
        parts = x[:, self._levels] + self._log_weights
        total = logsumexp(parts, axis=1)
        return np.clip(total, *_LOG_RATIO[[0, -1]]), np.exp(parts - total[:, None])

    def flat(self, y: np.ndarray) -> np.ndarray:
        """Return flat vectors of walkers' positions, shape (walker, n_dim) both."""
        x = y.copy()
        x[:, self._ceiling] = self._floor + self._unit * -log_expit(-y[:, self._ceiling])
        if self._alpha >= 0:
            ratio = self._log_ratio(y)[0]
            x[:, self._alpha] = (self._middle(ratio)
                                 + y[:, self._alpha] * np.exp(self._log_scale(ratio)))
        return x

    def walkers(self, x: np.ndarray) -> np.ndarray:
        """Return walkers' positions of flat vectors: the inverse of `flat`."""
        y = x.copy()
        away = (x[:, self._ceiling] - self._floor) / self._unit
        y[:, self._ceiling] = away + np.log(-np.expm1(-away))
        if self._alpha >= 0:
            ratio = self._log_ratio(x)[0]
            y[:, self._alpha] = ((x[:, self._alpha] - self._middle(ratio))
                                 * np.exp(-self._log_scale(ratio)))
        return y

    def factor(self, mode: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """Return a root of the covariance of y, given one of x, by the map's slopes at the mode."""
        y = self.walkers(mode[None])
        step = 1e-5 * np.eye(len(mode))
        slopes = (self.flat(y + step) - self.flat(y - step)).T / 2e-5
        return np.linalg.solve(slopes, factor)

    def gradients(self, gradients: Gradients) -> Gradients:
        """Return the density over y and its gradient, from those over x."""
        def turned(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with np.errstate(over="ignore", invalid="ignore"):
                value, slope = gradients(self.flat(y))
                w, j = y[:, self._ceiling], self._ceiling
                slope[:, j] = slope[:, j] * self._unit * expit(w) + expit(-w)
                value = value + np.log(self._unit) + log_expit(w)
                return (value + self._ridge(y, slope), slope) if self._alpha >= 0 else (value, slope)
        return turned

    def _ridge(self, y: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """Turn slopes by the exponent's coordinate; return the log Jacobian, shape (walker,)."""
        ratio, shares = self._log_ratio(y)
        log_scale, scale_slope = self._log_scale(ratio), self._log_scale(ratio, 1)
        by_alpha, scale = slope[:, self._alpha], np.exp(log_scale)
        along = self._middle(ratio, 1) + y[:, self._alpha] * scale * scale_slope
        slope[:, self._levels] += (by_alpha * along + scale_slope)[:, None] * shares
        slope[:, self._alpha] = by_alpha * scale
        return log_scale


def _between(value: np.ndarray, lower: float, upper: float) -> np.ndarray:
    """Return values kept between two bounds, with round corners."""
    above = lower + _CORNER * np.logaddexp(0.0, (value - lower) / _CORNER)
    return upper - _CORNER * np.logaddexp(0.0, (upper - above) / _CORNER)


def _top_logit(flat: FlatTrajectory) -> float:
    """Return the logit share of the room above the start that the typical run gained."""
    start = float(expit(flat.center[flat.slices["start"].start]))
    share = (flat.data.typical.accuracy.max() - start) / (1 - start)
    return float(logit(np.clip(share, 0.01, 0.99)))
