"""The priors of the crossing model, on scales that carry no unit.

S is measured in its geometric mean over all observed crossings, batches in the geometric middle
of those tried, thresholds by their logit; so the same priors serve every sweep.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

__all__ = ["NOISE_PRIORS", "PRIORS", "NoisePriors", "Priors"]


@dataclass(frozen=True)
class Priors:
    """Hyperparameters; every one is a log-scale spread unless said otherwise.

    Attributes
    ----------
    scale_level_sd : float
        log B: Normal(0, 2) around the middle batch; 90 % within a factor 27 either way.
    scale_trend_sd : float
        Change of log B per unit of threshold logit: Normal(0, 1).
    scale_deviation : float
        Sd of each threshold's deviation from the trend. Fixed: six thresholds cannot
        estimate it, and a free scale would put a funnel into the posterior.
    steps_level_sd : float
        log S at the middle batch and threshold: Normal(0, 1.5).
    growth, growth_sd : float
        log S_min grows by about 1 per unit of threshold logit (log-normal, sd 1.2: 90 % from .14
        to 7).
        An exponential approach to a ceiling grows by .3 to 1 in its middle, but by 3 and more
        near its start, as from .55 to .75 on GSM8K. A tighter prior pushes that growth into
        the noise scales wherever the batches do not tell them from S_min.
    alpha : tuple of float
        Mean, sd, lower and upper end of the exponent: Normal(.85, .3) cut to (.25, 1.5);
        1 is McCandlish's case, 1/2 a normalised update at one learning rate. The middle lies
        above that of the two because a smaller exponent goes with a larger noise scale in a
        long ridge, whose volume pulls down: so both are covered alike (`reports/validation`).
    sigma_run, sigma_run_sd : float
        Run effect: log-normal around .08. Half-normal scales give funnels.
    sigma_residual, sigma_residual_sd : float
        Residual: log-normal around .08.
    residual_trend_sd : float
        Change of the log residual scale per unit of threshold logit: Normal(0, .5).
    residual_length, residual_length_sd : float
        Distance in logit over which residuals stay alike: log-normal around .5, sd 1.
    """

    scale_level_sd: float = 2.0
    scale_trend_sd: float = 1.0
    scale_deviation: float = 0.15
    steps_level_sd: float = 1.5
    growth: float = 1.0
    growth_sd: float = 1.2
    alpha: tuple[float, float, float, float] = (0.85, 0.30, 0.25, 1.5)
    sigma_run: float = 0.08
    sigma_run_sd: float = 0.6
    sigma_residual: float = 0.08
    sigma_residual_sd: float = 0.7
    residual_trend_sd: float = 0.5
    residual_length: float = 0.5
    residual_length_sd: float = 1.0

    def at(self, n_thresholds: int) -> Priors:
        """Return the priors for a number of thresholds.

        At one threshold run effect and residual are the same thing, the spread between runs, and
        leaving both free makes a funnel: the run effect is then held near 0 and the residual's
        prior takes both.
        """
        if n_thresholds > 1:
            return self
        both = (self.sigma_run**2 + self.sigma_residual**2) ** 0.5
        return replace(self, sigma_run=0.01, sigma_run_sd=0.1, sigma_residual=both)

    def few_batches(self) -> Priors:
        """Return the priors for runs of one or two batches, which only measured noise lets fit.

        Their few seeds cannot tell their own scatter, and one that is taken too small makes every
        prediction too narrow: it is put nearer to that of the shipped sweeps (.17 and .22 in log
        S at one batch and threshold).
        """
        return replace(self, sigma_run=0.12, sigma_residual=0.12)

    def as_dict(self) -> dict[str, object]:
        """Return the hyperparameters as plain values for `fit.json`."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


PRIORS = Priors()


@dataclass(frozen=True)
class NoisePriors:
    """Hyperparameters of measured gradient noise as data, on the log scale.

    Attributes
    ----------
    offset_sd : float
        Measured over fitted noise, delta: Normal(0, 1). Geometry, optimizer and definition make
        the two equal in order of magnitude only (1 is a factor 2.7); published pairs lie within
        10 % and up to 20 apart. Tight enough that delta does not absorb every disagreement:
        beyond 1 it is a sign that curves and gradients disagree.
    scatter, scatter_sd : float
        What parts and accuracy ranges deviate beyond the offset: log-normal around .3, sd .5.
    length : float
        Distance in logit over which these deviations stay alike. A run's probes share
        its way through the parameters, so that more of them do not average it out.
    """

    offset_sd: float = 1.0
    scatter: float = 0.3
    scatter_sd: float = 0.5
    length: float = 1.0

    def as_dict(self) -> dict[str, object]:
        """Return the hyperparameters as plain values for `fit.json`."""
        return asdict(self)


NOISE_PRIORS = NoisePriors()
