"""The crossing model's variables: their priors, their flat vector, and what is derived from them.

The blocks are the one list of variables: `cbsbayes.models.pymc_models` declares them to PyMC, the
compiled density takes their centres, spreads and places. On the flat scale stand the logarithm of
log-normal ones, the normal quantile of the exponent's place in its interval, everything else as it
is. PyMC takes the exponent's logit: where the data leave it up to its upper end, that has a long
tail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import log, pi, sqrt
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from cbsbayes.models.crossing_data import LOGISTIC_SCALE, CrossingData
from cbsbayes.models.laws import Law, Tuning, batch_weights, middle_batch
from cbsbayes.models.noise_data import NoiseArrays
from cbsbayes.models.parameters import (
    NOISE_PRIORS,
    PRIORS,
    AlphaPrior,
    Block,
    FlatModel,
    Places,
    Priors,
    truncated_mass,
)

__all__ = ["CrossingArrays", "CrossingParameters", "crossing_arrays", "noise_arrays"]

_NOISE_SPREAD = 0.5  # of the starts of log noise around what was measured


@dataclass(frozen=True)
class CrossingParameters(FlatModel):
    """The parameters of one model.

    Attributes
    ----------
    data : CrossingData
        Crossings of the runs to be fitted.
    law : Law
        The law of S(P, G).
    priors : Priors
        Of the model.
    """

    data: CrossingData
    law: Law
    priors: Priors = PRIORS

    @property
    def alpha_prior(self) -> AlphaPrior:
        """The exponent's prior."""
        return self.priors.exponent(tuned=self.law.learning_rate)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks in their order."""
        p, x = self.priors, self.data.threshold_logit
        of_scale = [(Block(f"{name}_level", 0.0, p.scale_level_sd),
                     Block(f"{name}_trend", 0.0, p.scale_trend_sd),
                     Block(f"{name}_deviation", 0.0, 1.0, ("threshold",), size=len(x)))
                    for name in self.law.scales]
        growth = np.log(p.growth) + np.log(np.diff(x))
        blocks = (
            *chain.from_iterable(of_scale),
            Block("alpha", 0.0, 1.0, transform="probit", truncated=self.alpha_prior),
            Block("gamma", p.gamma, p.gamma_sd),
            _positive("steepness", p.steepness, p.steepness_sd),
            _positive("slope_below", p.slope_below, p.slope_below_sd),
            Block("rate_level", 0.0, p.rate_level_sd),
            Block("rate_trend", 0.0, p.rate_trend_sd),
            Block("log_S_level", 0.0, p.steps_level_sd),
            Block("log_growth", growth, p.growth_sd, ("log_growth_dim_0",), size=len(growth)),
            _positive("sigma_run", p.sigma_run, p.sigma_run_sd),
            _positive("sigma_residual", p.sigma_residual, p.sigma_residual_sd),
            Block("residual_trend", 0.0, p.residual_trend_sd),
            _positive("residual_length", p.residual_length, p.residual_length_sd),
            *self._noise_blocks())
        return tuple(block for block in blocks if block.name not in self._held())

    def _held(self) -> set[str]:
        """Return the names of what is not free under this law and with so many thresholds."""
        held = set() if self.law.alpha is None else {"alpha"}
        if not self.law.learning_rate:
            held |= {"gamma", "steepness", "slope_below", "rate_level", "rate_trend"}
        if len(self.data.threshold) == 1:
            held |= {"rate_trend", "log_growth", "residual_trend", "residual_length"}
            held |= {f"{name}_{of}" for name in self.law.scales for of in ("trend", "deviation")}
        return held

    def _noise_blocks(self) -> list[Block]:
        """Return the blocks of measured noise; the prior of log_noise is that of its deviations."""
        noise, p = self.data.noise, NOISE_PRIORS
        if noise is None:
            return []
        start = noise.start().reshape(-1)
        return [Block("noise_offset", 0.0, p.offset_sd),
                _positive("noise_scatter", p.scatter, p.scatter_sd),
                Block("log_noise", start, _NOISE_SPREAD, ("noise",), size=len(start))]

    @property
    def coords(self) -> dict[str, np.ndarray]:
        """Labels of runs, thresholds and momentary noise scales."""
        noise = self.data.noise
        coords = {"run": self.data.run, "threshold": self.data.threshold}
        return coords if noise is None else coords | {
            "noise": np.array(noise.labels(self.data.threshold))}

    def unpack(self, position: np.ndarray) -> xr.Dataset:
        """Return the posterior's variables from draws of the flat vector.

        Parameters
        ----------
        position : numpy.ndarray
            Draws, shape (chain, draw, n_dim).

        Returns
        -------
        xarray.Dataset
            Dims (chain, draw, run, threshold); the variables of the PyMC model under their
            names but for ``run_effect``.
        """
        derived = self.derived(self.variables(position))
        return self.labelled(position, {name: (("threshold",), np.exp(value))
                                        for name, value in derived.items()}, self.coords)

    def derived(self, variables: Mapping[str, Any], xp: Any = np) -> dict[str, Any]:
        """Return the logs of what variables say at every threshold, in the user's units.

        Parameters
        ----------
        variables : mapping
            Name of a block to its variable, shape (…) or (…, size).
        xp : module
            ``numpy`` or ``pytensor.tensor``.

        Returns
        -------
        dict
            The noise scales, ``S_min``, and ``rate_max`` where the law knows the learning rate;
            shape (…, threshold).
        """
        data, middle = self.data, len(self.data.threshold) // 2
        scales = {name: self._scale_line(name, variables, data.log_batch_scale[name])
                  for name in self.law.scales}
        at_middle = {name: xp.exp(value)[..., middle] for name, value in scales.items()}
        batch, out = middle_batch(data.n_prompts, data.n_rollouts), dict(scales)
        tuning: Tuning | None = None
        if self.law.learning_rate:
            log_noise = self.law.log_noise(*batch, at_middle, xp=xp)
            best = (self._rate_line(variables) + (variables["gamma"] * log_noise)[..., None]
                    + data.log_rate_scale)
            out["rate_max"] = best
            tuning = Tuning(data.log_rate_scale, best[..., middle], *(
                variables[name] for name in ("gamma", "steepness", "slope_below")))
        ratio = self.law.log_ratio(*batch, at_middle, variables.get("alpha"), tuning, xp=xp)
        out["S_min"] = (variables["log_S_level"] + data.log_steps_scale - ratio)[..., None]
        if len(data.threshold) > 1:
            climb = xp.cumsum(xp.exp(variables["log_growth"]), axis=-1)
            climb = xp.concatenate([xp.zeros_like(climb[..., :1]), climb], axis=-1)
            out["S_min"] = out["S_min"] + climb - climb[..., middle, None]
        return out

    def _scale_line(self, name: str, variables: Mapping[str, Any], origin: float) -> Any:
        """Return a log noise scale, shape (…, threshold): level, trend and deviations."""
        line = origin + variables[f"{name}_level"][..., None]
        if len(self.data.threshold) > 1:
            line = (line + variables[f"{name}_trend"][..., None] * self.data.threshold_logit
                    + self.priors.scale_deviation * variables[f"{name}_deviation"])
        return line

    def _rate_line(self, variables: Mapping[str, Any]) -> Any:
        """Return the log best rate at the middle batch, shape (…, threshold): level and trend."""
        line = variables["rate_level"][..., None]
        if len(self.data.threshold) > 1:
            line = line + variables["rate_trend"][..., None] * self.data.threshold_logit
        return line

    def log_scales(self) -> np.ndarray:
        """Return what log noise scales are times the position, (scale x threshold, n_dim)."""
        units = self.variables(np.eye(self.n_dim))
        rows = [self._scale_line(name, units, 0.0).T for name in self.law.scales]
        return np.ascontiguousarray(np.concatenate(rows))

    def log_best(self) -> np.ndarray:
        """Return the same for the log best rate at the middle batch, (threshold, n_dim)."""
        if not self.law.learning_rate:
            return np.zeros((len(self.data.threshold), self.n_dim))
        return np.ascontiguousarray(self._rate_line(self.variables(np.eye(self.n_dim))).T)


def _positive(name: str, median: float, sd: float) -> Block:
    """Return the block of a log-normal number."""
    return Block(name, np.log(median), sd, transform="log")


class CrossingArrays(NamedTuple):
    """What the compiled density is given.

    Attributes
    ----------
    center, precision : numpy.ndarray
        Of the normal priors, shape (n_dim,); precision 0 where the prior is another.
    constant : float
        Normalisers of all priors.
    at : Places
        Where the blocks begin in the position.
    alpha : float
        The exponent, where the law fixes it.
    alpha_prior : numpy.ndarray
        Lower and upper end, mean and precision of the exponent's truncated normal.
    power : bool
        Whether the law is ``power``.
    middle : int
        Index of the threshold at which the level of S is a coordinate.
    threshold_logit : numpy.ndarray
        Shape (threshold,).
    log_scales : numpy.ndarray
        Log noise scales are this times the position, shape (scale x threshold, n_dim).
    log_best : numpy.ndarray
        The same for the log of the best learning rate at the middle batch and at the noise of the
        middle threshold, shape (threshold, n_dim).
    log_rate : numpy.ndarray
        Log learning rate of each batch, shape (batch,); 0 at the middle one.
    weights : numpy.ndarray
        Shape (scale, batch): 1/batch in units of each noise scale; last the middle batch.
    batch : numpy.ndarray
        Index of a run's batch, shape (run,); runs of two learning rates have two.
    pair : numpy.ndarray
        Which of `pairs` a crossing's residual follows, shape (run, threshold); -1 where the
        crossing says nothing of its own.
    pairs : numpy.ndarray
        Index of a threshold and of the easier one before it, shape (pair, 2).
    gaps : numpy.ndarray
        Distance between the two in logit, shape (pair,).
    bounds : numpy.ndarray
        Lower, upper and middle of log S, shape (run, threshold, 3).
    logistic : float
        Scale of a logistic of standard deviation 1.
    """

    center: np.ndarray
    precision: np.ndarray
    constant: float
    at: Places
    alpha: float
    alpha_prior: np.ndarray
    power: bool
    middle: int
    threshold_logit: np.ndarray
    log_scales: np.ndarray
    log_best: np.ndarray
    log_rate: np.ndarray
    weights: np.ndarray
    batch: np.ndarray
    pair: np.ndarray
    pairs: np.ndarray
    gaps: np.ndarray
    bounds: np.ndarray
    logistic: float


def crossing_arrays(parameters: CrossingParameters) -> CrossingArrays:
    """Return the arrays of one model.

    Parameters
    ----------
    parameters : CrossingParameters
        The data, the law, the priors, and where each parameter stands in the position.
    """
    data, law = parameters.data, parameters.law
    middle = middle_batch(data.n_prompts, data.n_rollouts)
    batches, batch = np.unique(
        np.column_stack([data.n_prompts, data.n_rollouts, data.log_rate]), axis=0,
        return_inverse=True)
    batches = np.vstack([batches, (*middle, 0.0)])
    mean, sd, lower, upper = parameters.alpha_prior
    normal = np.ones(parameters.n_dim, dtype=bool)
    normal[parameters.slices.get("log_noise", slice(0))] = False
    constant = 0.0 if law.alpha is not None else log(
        (upper - lower) / (sd * sqrt(2 * pi) * truncated_mass(parameters.alpha_prior)))
    pair, pairs, gaps = _pairs(data)
    return CrossingArrays(
        center=parameters.center, precision=np.where(normal, parameters.sd**-2.0, 0.0),
        constant=(constant - float(np.log(parameters.sd[normal]).sum())
                  - 0.5 * normal.sum() * log(2 * pi)),
        at=_places(parameters),
        alpha=np.nan if law.alpha is None else float(law.alpha),
        alpha_prior=np.array([lower, upper, mean, sd**-2.0]),
        power=law.name == "power", middle=len(data.threshold) // 2,
        threshold_logit=data.threshold_logit, log_scales=parameters.log_scales(),
        log_best=parameters.log_best(), log_rate=batches[:, 2].copy(),
        weights=batch_weights(law, data.log_batch_scale, *batches[:, :2].T),
        batch=batch.reshape(-1).astype(np.int64), pair=pair, pairs=pairs, gaps=gaps,
        bounds=np.ascontiguousarray(  # one layout, compiled once
            np.stack([data.log_lower, data.log_upper, data.midpoint], axis=-1)),
        logistic=float(LOGISTIC_SCALE))


def noise_arrays(parameters: CrossingParameters) -> NoiseArrays | None:
    """Return the arrays of measured noise; None where none is data."""
    data, noise = parameters.data, parameters.data.noise
    if noise is None:
        return None
    unit = np.exp([data.log_batch_scale[name] for name in parameters.law.scales])
    return NoiseArrays(
        at=_places(parameters), log_scales=parameters.log_scales(), mix=noise.mix * unit,
        total=noise.total.astype(float), correlation=noise.correlation(data.threshold_logit),
        freedom=noise.freedom.astype(float),
        estimate=np.where(noise.known[:, None], noise.estimate, 0.0), precision=noise.precision())


def _places(parameters: CrossingParameters) -> Places:
    slices = parameters.slices
    return Places(*(slices[name].start if name in slices else -1 for name in Places._fields))


def _pairs(data: CrossingData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each crossing's pair of thresholds, the pairs, and the distances between them."""
    threshold = np.broadcast_to(np.arange(len(data.threshold)), data.previous.shape)
    known = data.informative
    found, inverse = np.unique(
        np.column_stack([threshold[known], data.previous[known], data.gap[known]]), axis=0,
        return_inverse=True)
    pair = np.full(data.previous.shape, -1, dtype=np.int64)
    pair[known] = inverse.reshape(-1)
    return pair, found[:, :2].astype(np.int64), np.ascontiguousarray(found[:, 2])
