"""The priors of the trajectory model, on scales that carry no unit.

Updates are measured in the geometric mean at which runs pass the middle accuracy, batches in the
geometric middle of those tried, noise on the scale of binomial noise or of accuracy itself; so the
same priors serve every sweep.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["TRAJECTORY_PRIORS", "TrajectoryPriors"]


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
        Mean, sd, lower and upper end of the exponent, as in `cbsbayes.models.priors`.
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

    def as_dict(self) -> dict[str, object]:
        """Return the hyperparameters as plain values for `fit.json`."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


TRAJECTORY_PRIORS = TrajectoryPriors()
