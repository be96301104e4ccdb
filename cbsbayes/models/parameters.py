"""Priors, and a model's unconstrained space as one flat vector of named blocks.

The priors of the crossing model stand on scales that carry no unit: S is measured in its geometric
mean over all observed crossings, batches in the geometric middle of those tried, thresholds by
their logit; so the same priors serve every sweep.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import expit, logit, ndtr, ndtri

__all__ = ["CURVE", "INITIAL_ACCURACY", "NODE_WEIGHT", "NOISE_PRIORS", "PRIORS", "PROGRESS",
           "SATURATION", "AlphaPrior", "Block", "FlatModel", "NoisePriors", "Places", "Priors",
           "now_name", "path_name", "truncated_mass"]

NODE_WEIGHT = "node_weight"
"""Coordinate of the nodes of progress up to a threshold: their shares, summing to one."""

SATURATION = "ceiling_loss"
"""λ of the share exp(-λ/G) of endless groups' gain that groups of G can reach."""

CURVE, INITIAL_ACCURACY, PROGRESS = "curve", "curve_start", "progress"
"""Accuracy shown along progress, the accuracy before training, and the dimension."""


def path_name(scale: str) -> str:
    """Return the name of a noise scale along progress, dims (…, threshold, node)."""
    return f"{scale}_path"


def now_name(scale: str) -> str:
    """Return the name of a momentary noise scale, dims (…, progress)."""
    return f"{scale}_now"


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
    alpha_tuned : tuple of float
        The same where the learning rate is part of the law: Normal(1, .35) cut to (.25, 2.5).
        1 is the theory's, 1.4 to 1.8 was measured where rates decay with the horizon.
    gamma, gamma_sd : float
        Exponent of the best learning rate in 1 + N/P: Normal(.5, .2). Theory says 1/2, plain SGD
        1; .35 to .7 was measured.
    steepness, steepness_sd : float
        m, by which S rises beyond the best rate: log-normal around 1, sd .5; measured .6 to 2.3.
    slope_below, slope_below_sd : float
        k, by which S falls towards it: log-normal around 1, the theory's, sd .5; measured .5.
    rate_level_sd, rate_trend_sd : float
        Log of the best rate at the middle batch: Normal(0, 1.5) around the middle of the rates
        tried, and its change per unit of threshold logit: Normal(0, .5).
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
    alpha_tuned: tuple[float, float, float, float] = (1.0, 0.35, 0.25, 2.5)
    gamma: float = 0.5
    gamma_sd: float = 0.2
    steepness: float = 1.0
    steepness_sd: float = 0.5
    slope_below: float = 1.0
    slope_below_sd: float = 0.5
    rate_level_sd: float = 1.5
    rate_trend_sd: float = 0.5
    sigma_run: float = 0.08
    sigma_run_sd: float = 0.6
    sigma_residual: float = 0.08
    sigma_residual_sd: float = 0.7
    residual_trend_sd: float = 0.5
    residual_length: float = 0.5
    residual_length_sd: float = 1.0

    def exponent(self, *, tuned: bool) -> AlphaPrior:
        """Return the exponent's prior, another where the law knows learning rates."""
        return self.alpha_tuned if tuned else self.alpha

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


NOISE_PRIORS = NoisePriors()

AlphaPrior = tuple[float, float, float, float]
"""Mean, sd, lower and upper end of the exponent's truncated normal prior."""

_Map = dict[str, Callable[[np.ndarray], np.ndarray]]
_BACK: _Map = {"": np.asarray, "log": np.exp, "logit": expit, "probit": ndtr}
_FORTH: _Map = {"": np.asarray, "log": np.log, "logit": logit, "probit": ndtri}


@dataclass(frozen=True)
class Block:
    """A variable's part of the flat vector.

    Attributes
    ----------
    name : str
        The variable's name in the posterior.
    center, sd : float or numpy.ndarray
        Of its normal prior on the unconstrained scale; where the prior is not normal, of the
        normal that starting points are drawn from.
    dims : tuple of str
        Its dimension; empty for a single number.
    transform : {"", "log", "logit", "probit"}
        From the variable to the unconstrained scale.
    size : int
        Coordinates.
    truncated : AlphaPrior, optional
        The variable's own prior where it is a truncated normal; between its ends the variable's
        place is what is transformed.
    """

    name: str
    center: float | np.ndarray
    sd: float
    dims: tuple[str, ...] = ()
    transform: str = ""
    size: int = 1
    truncated: AlphaPrior | None = None

    def back(self, coordinate: np.ndarray) -> np.ndarray:
        """Return the variable from its unconstrained coordinates."""
        value = _BACK[self.transform](coordinate)
        if self.truncated is None:
            return value
        lower, upper = self.truncated[2:]
        return lower + (upper - lower) * value

    def forth(self, value: np.ndarray) -> np.ndarray:
        """Return the unconstrained coordinates from the variable."""
        if self.truncated is not None:
            lower, upper = self.truncated[2:]
            value = (value - lower) / (upper - lower)
        return _FORTH[self.transform](value)


class FlatModel:
    """What the flat vectors of all models share; a model gives its `blocks`."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Blocks in the order of the flat vector."""
        raise NotImplementedError

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Each block's place in the flat vector, by the variable's name."""
        ends = np.cumsum([block.size for block in self.blocks]).tolist()
        return {block.name: slice(end - block.size, end)
                for block, end in zip(self.blocks, ends, strict=True)}

    @property
    def n_dim(self) -> int:
        """Length of the flat vector."""
        return sum(block.size for block in self.blocks)

    @cached_property
    def center(self) -> np.ndarray:
        """Prior centre of every coordinate, shape (n_dim,)."""
        return np.concatenate([np.broadcast_to(np.asarray(block.center, dtype=float), block.size)
                               for block in self.blocks])

    @cached_property
    def sd(self) -> np.ndarray:
        """Prior spread of every coordinate, shape (n_dim,)."""
        return np.repeat([block.sd for block in self.blocks], [b.size for b in self.blocks])

    def prior_draws(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Return draws of the flat vector from the prior, shape (draw, n_dim)."""
        position = self.center + self.sd * rng.standard_normal((draws, self.n_dim))
        for block in self.blocks:
            if block.truncated is not None:
                alpha = _truncated_draws(block.truncated, draws, rng)
                position[:, self.slices[block.name]] = block.forth(alpha)[:, None]
        return position

    def variables(self, position: np.ndarray) -> dict[str, np.ndarray]:
        """Return every variable from flat vectors, shape (…, n_dim): shape (…) or (…, size)."""
        values = {b.name: b.back(position[..., self.slices[b.name]]) for b in self.blocks}
        return {b.name: values[b.name] if b.dims else values[b.name][..., 0] for b in self.blocks}

    def labelled(
        self, position: np.ndarray, derived: Mapping[str, tuple[tuple[str, ...], np.ndarray]],
        coords: Mapping[str, Any],
    ) -> xr.Dataset:
        """Return draws of every variable, and of what is derived from them.

        Parameters
        ----------
        position : numpy.ndarray
            Shape (chain, draw, n_dim).
        derived : mapping
            Name to the dims after chain and draw, and the values.
        coords : mapping
            Coordinates beside chain and draw.
        """
        variables = self.variables(position)
        named = {b.name: (b.dims, variables[b.name]) for b in self.blocks} | dict(derived)
        axes = {"chain": np.arange(position.shape[0]), "draw": np.arange(position.shape[1])}
        return xr.Dataset({name: (("chain", "draw", *dims), value)
                           for name, (dims, value) in named.items()}, coords={**coords, **axes})

    def pack(self, posterior: xr.Dataset) -> np.ndarray:
        """Return the flat vector of draws, shape (sample, n_dim): the way back from variables.

        Parameters
        ----------
        posterior : xarray.Dataset
            Dims (sample, …), of this model or of one with more variables.
        """
        columns = [block.forth(posterior[block.name].transpose("sample", ...).values)
                   for block in self.blocks]
        return np.concatenate([c.reshape(len(c), -1) for c in columns], axis=1)


Places = namedtuple("Places", [
    "alpha", "gamma", "steepness", "slope_below", "log_S_level", "log_growth", "sigma_run",
    "sigma_residual", "residual_trend", "residual_length", "noise_offset", "noise_scatter",
    "log_noise"])
"""Where the blocks of the crossing model begin in the position, for compiled code; -1 for one that
a model does not have."""


def truncated_mass(prior: AlphaPrior) -> float:
    """Return the probability of the untruncated normal between the ends."""
    mean, sd, lower, upper = prior
    return float(ndtr((upper - mean) / sd) - ndtr((lower - mean) / sd))


def _truncated_draws(prior: AlphaPrior, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return draws of a truncated normal, shape (draw,)."""
    mean, sd, lower, upper = prior
    kept = np.empty(0)
    while len(kept) < draws:
        drawn = rng.normal(mean, sd, 2 * draws)
        kept = np.concatenate([kept, drawn[(drawn > lower) & (drawn < upper)]])
    return kept[:draws]
