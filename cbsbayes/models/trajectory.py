r"""The trajectory model: whole curves of all runs, and its density over shared parameters.

.. math::

    d\tau/ds &= e^{-u_i - w_i(s)} (1 + N(h; G_i)/P_i)^{-\alpha}, \quad
        \log b(h) = \beta_0 + \beta_1 x + \beta_2 x^2,\ x = \mathrm{logit}\,h - x_0 \\
    h(\tau) &= a_0 + (c - a_0)(1 - 2^{-(\tau/\tau_{1/2})^\kappa}) + \sum_k z_k \psi_k \\
    y_{ie} &= h(\tau_i(s_e)) + o_i + \epsilon_{ie}

Progress τ counts the updates an infinite batch would have needed. u is a run's own speed, w how it
wanders along the way (a random walk in log s), o an offset in accuracy after the start; ε is white
noise and a serially correlated part, for greedy answers to the same items change slowly. The bend ψ
is that of the validation set and of training itself (`cbsbayes.models.trajectory_curve`). u, w and
o act to first order around where the data put them and are integrated out in closed form, so that
the vector holds shared parameters only, however many runs there are.

Where small groups may saturate lower, a run of group size G shows
:math:`h_0 + f(G) (h(\tau) - h_0)` in place of h, with :math:`f(G) = e^{-\lambda/G}` and h_0 what is
shown before training: endless groups show the curve itself. The momentary noise goes with progress.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log, pi

import numpy as np
from scipy.special import expit, logit

from cbsbayes.models import trajectory_curve, trajectory_runs
from cbsbayes.models.laws import Law, batch_weights, middle_batch
from cbsbayes.models.parameters import Block, FlatModel, truncated_mass
from cbsbayes.models.trajectory_curve import Curve
from cbsbayes.models.trajectory_data import ALPHA, TrajectoryArrays, TrajectoryData

__all__ = ["TRAJECTORY_PRIORS", "TrajectoryParameters", "TrajectoryPriors"]

_SPREADS = ("sigma_run", "sigma_wander", "sigma_offset", "sigma_noise", "sigma_serial", "memory")


@dataclass(frozen=True)
class TrajectoryPriors:
    """Hyperparameters; pairs are centre and spread of a normal on the scale named.

    Attributes
    ----------
    start_sd : float
        Logit accuracy before training, around the accuracy seen there.
    ceiling : tuple of float
        Logit share of the room above the start that training can gain.
    ceiling_loss_sd : float
        By how much the log of the gain that a group can reach falls with 1/n_rollouts, around 0;
        only where asked for.
    level_sd : float
        Log updates at half the gain at the middle batch.
    shape : tuple of float
        Log κ of the stretched exponential: 1 is an exponential approach, more a delayed one.
    scale_level_sd : float
        Log momentary noise scale at the middle accuracy, around the middle batch.
    scale_trend_sd : float
        Its change per unit of logit accuracy.
    curvature_sd : float
        Change of that trend per two units of logit accuracy, common to the scales.
    alpha : tuple of float
        Mean, sd, lower and upper end of the exponent, as in `cbsbayes.models.parameters`.
    sigma_run : tuple of float
        Log sd of the run effect on log S.
    sigma_wander : tuple of float
        Log sd of the change of a run's own speed, per half a natural unit of log updates.
    sigma_offset : tuple of float
        Log sd of a run's constant offset in accuracy after its start.
    sigma_noise : tuple of float
        Log of an evaluation's white noise over binomial noise; fixed items jitter below 1.
    sigma_serial : tuple of float
        Log sd of the serially correlated noise of accuracy, at accuracy 1/2.
    memory : tuple of float
        Log memory of that noise in spacings of the evaluations.
    noise_trend : tuple of float
        How much faster than binomial noise both fall towards accuracy 0 and 1, as a power.
    """

    start_sd: float = 0.5
    ceiling: tuple[float, float] = (0.0, 1.5)
    ceiling_loss_sd: float = 0.5
    level_sd: float = 1.5
    shape: tuple[float, float] = (0.0, 0.4)
    scale_level_sd: float = 2.0
    scale_trend_sd: float = 1.5
    curvature_sd: float = 0.25
    alpha: tuple[float, float, float, float] = (0.85, 0.30, 0.25, 1.5)
    sigma_run: tuple[float, float] = (-2.526, 0.6)  # log .08
    sigma_wander: tuple[float, float] = (-2.659, 0.8)  # log .07
    sigma_offset: tuple[float, float] = (-5.298, 0.5)  # log .005
    sigma_noise: tuple[float, float] = (-0.3, 0.8)
    sigma_serial: tuple[float, float] = (-4.6, 1.0)  # log .01
    memory: tuple[float, float] = (1.3, 0.7)
    noise_trend: tuple[float, float] = (0.0, 0.5)


TRAJECTORY_PRIORS = TrajectoryPriors()
"""The defaults."""


@dataclass(frozen=True)
class TrajectoryParameters(FlatModel):
    """Where the shared parameters stand in a position, and the density of a position.

    Attributes
    ----------
    data : TrajectoryData
        The curves.
    law : Law
        The law.
    priors : TrajectoryPriors
        Of the model.
    ceiling_by_group : bool
        Whether small groups may saturate lower, or higher.
    """

    data: TrajectoryData
    law: Law
    priors: TrajectoryPriors = TRAJECTORY_PRIORS
    ceiling_by_group: bool = False

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Blocks in the order of the flat vector."""
        return tuple(block for block in self._shared_blocks if block.name not in self._held)

    @cached_property
    def _shared_blocks(self) -> list[Block]:
        """Return all blocks in the order of the shared parameters."""
        p = self.priors
        mean, sd, lower, upper = p.alpha
        share = (mean - lower) / (upper - lower)
        alpha_sd = sd / ((upper - lower) * share * (1 - share))
        return [Block("start", self._start(), p.start_sd, transform="logit"),
                Block("ceiling_logit", *p.ceiling),
                Block("ceiling_loss", 0.0, p.ceiling_loss_sd),
                Block("log_half_level", 0.0, p.level_sd),
                Block("kappa", *p.shape, transform="log"),
                Block("noise_curvature", 0.0, p.curvature_sd),
                Block("alpha", float(logit(share)), alpha_sd, transform="logit",
                      truncated=p.alpha),
                *(Block(name, center, spread, transform="log")
                  for name, (center, spread) in ((name, getattr(p, name)) for name in _SPREADS)),
                Block("noise_trend", *p.noise_trend),
                *(Block(f"{name}_{what}", 0.0, sd) for name in self.law.scales
                  for what, sd in (("level", p.scale_level_sd), ("trend", p.scale_trend_sd))),
                Block("item_set", 0.0, 1.0, ("term",), size=self.data.n_terms)]

    @cached_property
    def _held(self) -> set[str]:
        """Return the names of what is not free under this law and these options."""
        return ({"alpha"} if self.law.alpha is not None else set()) | (
            set() if self.ceiling_by_group else {"ceiling_loss"})

    def _start(self) -> float:
        """Return the logit of the accuracy before training, or of the lowest seen."""
        start, n = self.data.start, self.data.n_items
        seen = np.nanmean(start) if np.isfinite(start).any() else self.data.typical.accuracy[0]
        return float(logit(np.clip(seen, 0.5 / n, 1 - 0.5 / n)))

    @cached_property
    def arrays(self) -> TrajectoryArrays:
        """What the likelihood is given."""
        data, (batches, batch) = self.data, self.data.batches
        log_step = np.log(data.steps)
        return self.curve_arrays(data.log_tau, batches)._replace(
            run_start=data.run_start, start=data.start_terms, group_share=1.0 / data.n_rollouts,
            batch=batch[data.run_of], log_step=log_step,
            time=data.steps / data.spacing, reference=data.reference, accuracy=data.accuracy,
            binomial=data.variance / (data.n_items * data.count),
            log_spread=np.log(2.0 * np.sqrt(data.variance)), ramps=data.ramps(log_step))

    def curve_arrays(self, log_tau: np.ndarray, batches: np.ndarray) -> TrajectoryArrays:
        """Return the arrays of the shared curve alone, at nodes and batches of one's own.

        Parameters
        ----------
        log_tau : numpy.ndarray
            Nodes of log progress, shape (node,).
        batches : numpy.ndarray
            n_prompts and n_rollouts, shape (batch, 2).
        """
        data = self.data
        with_middle = np.vstack([batches, middle_batch(data.n_prompts, data.n_rollouts)])
        weights = batch_weights(self.law, data.log_batch_scale, *with_middle.T)
        low, high = data.accuracy_range
        none, places = np.empty(0), np.empty(0, dtype=np.int64)
        return TrajectoryArrays(
            weights=weights, power=self.law.name == "power", middle=data.middle, log_tau=log_tau,
            lowest=low, length=high - low, wave_sizes=data.wave_sizes(data.n_terms),
            run_start=places, start=np.empty((0, 3)), group_share=none, batch=places,
            log_step=none, time=none, reference=none, accuracy=none, binomial=none,
            log_spread=none, ramps=np.empty((0, 0)))

    def log_density(self, position: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the log density of a position, shape (n_dim,), and its gradient."""
        shared = self.shared(position)
        at = self.curve(shared)
        by_run, slope, *bars = trajectory_runs.log_likelihoods(shared, self.arrays, at)
        slope += trajectory_curve.slopes(shared, self.arrays, at, *bars)
        gradient = slope[self._places]
        if "alpha" in self.slices:
            gradient[self.slices["alpha"]] *= self._alpha_slope(position[self.slices["alpha"]])
        value, prior_slope = self._log_prior(position)
        return value + float(by_run.sum()), gradient + prior_slope

    def run_log_likelihoods(self, position: np.ndarray) -> np.ndarray:
        """Return log p(curve of a run) at many positions, shape (draw, run).

        Parameters
        ----------
        position : numpy.ndarray
            Shape (draw, n_dim).
        """
        return np.array([trajectory_runs.log_likelihoods(
            shared, self.arrays, self.curve(shared))[0] for shared in self.shared(position)])

    def curve(self, shared: np.ndarray) -> Curve:
        """Return the shared curve of one vector of `shared` parameters."""
        return trajectory_curve.curve(shared, self.arrays)

    def shared(self, position: np.ndarray) -> np.ndarray:
        """Return the shared parameters in their places, shape (..., parameter)."""
        shared = np.zeros((*position.shape[:-1], sum(b.size for b in self._shared_blocks)))
        shared[..., ALPHA] = np.nan if self.law.alpha is None else self.law.alpha
        shared[..., self._places] = position
        if "alpha" in self.slices:
            lower, upper = self.priors.alpha[2:]
            shared[..., ALPHA] = lower + (upper - lower) * expit(shared[..., ALPHA])
        return shared

    @cached_property
    def _places(self) -> np.ndarray:
        """Return each coordinate's place among the shared parameters, shape (n_dim,)."""
        kept = [np.full(b.size, b.name not in self._held) for b in self._shared_blocks]
        return np.flatnonzero(np.concatenate(kept))

    def _alpha_slope(self, value: np.ndarray) -> np.ndarray:
        lower, upper = self.priors.alpha[2:]
        return np.asarray((upper - lower) * expit(value) * expit(-value))

    def _log_prior(self, position: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the log density of the prior and its gradient."""
        away = (position - self.center) / self.sd
        log_p = -0.5 * away**2 - np.log(self.sd) - 0.5 * log(2 * pi)
        gradient = -away / self.sd
        if "alpha" in self.slices:
            at, (mean, sd, lower, upper) = self.slices["alpha"], self.priors.alpha
            value = position[at]
            alpha, slope = lower + (upper - lower) * expit(value), self._alpha_slope(value)
            inside = truncated_mass(self.priors.alpha)
            log_p[at] = (-0.5 * ((alpha - mean) / sd)**2 - log(sd * inside) - 0.5 * log(2 * pi)
                         + np.log(slope))
            gradient[at] = 1.0 - 2.0 * expit(value) - (alpha - mean) / sd**2 * slope
        return float(log_p.sum()), gradient
