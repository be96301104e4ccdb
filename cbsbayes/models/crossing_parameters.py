"""The crossing model's unconstrained space as one flat vector: its blocks, and the way back.

Blocks stand in the order and under the transforms in which `cbsbayes.models.pymc_models` declares
its variables to PyMC: the logarithm of log-normal ones, the normal quantile of the exponent's place
in its interval, everything else as it is. PyMC takes the exponent's logit: where the data leave it
up to its upper end, that has a long tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log, pi, sqrt
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.special import ndtr

from cbsbayes.models.crossing_data import LOGISTIC_SCALE, CrossingData
from cbsbayes.models.laws import Law, Tuning, batch_weights, middle_batch
from cbsbayes.models.noise_data import NoiseArrays
from cbsbayes.models.parameters import PRIORS, AlphaPrior, Block, FlatModel, Priors

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

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks in their order."""
        priors, n_thresholds = self.priors, len(self.data.threshold)
        several = n_thresholds > 1
        blocks = [block for name in self.law.scales for block in self._scale_blocks(name)]
        if self.law.alpha is None:
            blocks.append(Block("alpha", 0.0, 1.0, transform="probit"))
        if self.law.learning_rate:
            blocks += self._rate_blocks(several=several)
        blocks.append(Block("log_S_level", 0.0, priors.steps_level_sd))
        if several:
            growth = np.log(priors.growth) + np.log(np.diff(self.data.threshold_logit))
            blocks.append(Block("log_growth", growth, priors.growth_sd, "log_growth_dim_0",
                                size=n_thresholds - 1))
        blocks += [
            Block("sigma_run", np.log(priors.sigma_run), priors.sigma_run_sd, transform="log"),
            Block("sigma_residual", np.log(priors.sigma_residual), priors.sigma_residual_sd,
                  transform="log"),
        ]
        if several:
            blocks += [Block("residual_trend", 0.0, priors.residual_trend_sd),
                       Block("residual_length", np.log(priors.residual_length),
                             priors.residual_length_sd, transform="log")]
        return (*blocks, *self._noise_blocks())

    def _rate_blocks(self, *, several: bool) -> list[Block]:
        priors = self.priors
        trend = [Block("rate_trend", 0.0, priors.rate_trend_sd)] if several else []
        return [Block("gamma", priors.gamma, priors.gamma_sd),
                Block("steepness", np.log(priors.steepness), priors.steepness_sd, transform="log"),
                Block("slope_below", np.log(priors.slope_below), priors.slope_below_sd,
                      transform="log"),
                Block("rate_level", 0.0, priors.rate_level_sd), *trend]

    def _noise_blocks(self) -> list[Block]:
        """Return the blocks of measured noise; the prior of log_noise is that of its deviations."""
        noise = self.data.noise
        if noise is None:
            return []
        start = noise.start().reshape(-1)
        return [Block("noise_offset", 0.0, noise.priors.offset_sd),
                Block("noise_scatter", np.log(noise.priors.scatter), noise.priors.scatter_sd,
                      transform="log"),
                Block("log_noise", start, _NOISE_SPREAD, "noise", size=len(start))]

    def _scale_blocks(self, name: str) -> list[Block]:
        level = Block(f"{name}_level", 0.0, self.priors.scale_level_sd)
        if len(self.data.threshold) == 1:
            return [level]
        return [level, Block(f"{name}_trend", 0.0, self.priors.scale_trend_sd),
                Block(f"{name}_deviation", 0.0, 1.0, "threshold", size=len(self.data.threshold))]

    @property
    def alpha_prior(self) -> AlphaPrior:
        """The exponent's prior."""
        return self.priors.exponent(tuned=self.law.learning_rate)

    @cached_property
    def normal(self) -> np.ndarray:
        """Which coordinates have a normal factor in their prior, shape (n_dim,)."""
        normal = np.ones(self.n_dim, dtype=bool)
        if "log_noise" in self.slices:
            normal[self.slices["log_noise"]] = False
        return normal

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
        raw = {b.name: self.back(b, position[..., self.slices[b.name]])
               for b in self.blocks}
        dims = {b.name: (b.dim,) if b.dim else () for b in self.blocks}
        values = {name: v if dims[name] else v[..., 0] for name, v in raw.items()}
        scales = {name: np.exp(self._log_scale(name, raw)) for name in self.law.scales}
        values |= scales | {"S_min": np.exp(self._log_s_min(scales, raw))}
        if self.law.learning_rate:
            values["rate_max"] = np.exp(self._log_rate_max(scales, raw))
        dims |= {name: ("threshold",) for name in (*scales, "S_min", "rate_max")}
        coords = {"run": self.data.run, "threshold": self.data.threshold,
                  "chain": np.arange(position.shape[0]), "draw": np.arange(position.shape[1])}
        if self.data.noise is not None:
            coords["noise"] = np.array(self.data.noise.labels(self.data.threshold))
        return xr.Dataset({name: (("chain", "draw", *dims[name]), v)
                           for name, v in values.items()}, coords=coords)

    def pack(self, posterior: xr.Dataset) -> np.ndarray:
        """Return the flat vector of draws, shape (sample, n_dim): the way back from `unpack`.

        Parameters
        ----------
        posterior : xarray.Dataset
            Dims (sample, threshold, …), of this model or of one with run effects beside.
        """
        columns = [self.forth(block, posterior[block.name].transpose("sample", ...).values)
                   for block in self.blocks]
        return np.concatenate([c.reshape(len(c), -1) for c in columns], axis=1)

    def _log_scale(self, name: str, raw: dict[str, np.ndarray]) -> np.ndarray:
        """Return the log noise scale, shape (chain, draw, threshold)."""
        log_scale = self.data.log_batch_scale[name] + raw[f"{name}_level"]
        if len(self.data.threshold) > 1:
            log_scale = (log_scale + raw[f"{name}_trend"] * self.data.threshold_logit
                         + self.priors.scale_deviation * raw[f"{name}_deviation"])
        return log_scale

    def _log_rate_max(
        self, scales: dict[str, np.ndarray], raw: dict[str, np.ndarray]
    ) -> np.ndarray:
        """Return the log best rate of an endless batch, (chain, draw, threshold)."""
        log_noise = self.law.log_noise(*self._middle_batch, self._at_middle(scales))
        return (raw["rate_level"] + raw.get("rate_trend", 0.0) * self.data.threshold_logit
                + raw["gamma"] * log_noise[..., None] + self.data.log_rate_scale)

    @property
    def _middle_batch(self) -> tuple[float, float]:
        return middle_batch(self.data.n_prompts, self.data.n_rollouts)

    def _at_middle(self, scales: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        middle = len(self.data.threshold) // 2
        return {name: value[..., middle] for name, value in scales.items()}

    def _log_s_min(self, scales: dict[str, np.ndarray], raw: dict[str, np.ndarray]) -> np.ndarray:
        """Return log S_min, shape (chain, draw, threshold)."""
        middle = len(self.data.threshold) // 2
        alpha = raw["alpha"][..., 0] if "alpha" in raw else None
        tuning = Tuning(self.data.log_rate_scale, self._log_rate_max(scales, raw)[..., middle],
                        *(raw[name][..., 0] for name in ("gamma", "steepness", "slope_below"))
                        ) if self.law.learning_rate else None
        law_ratio = self.law.log_ratio(*self._middle_batch, self._at_middle(scales), alpha, tuning)
        base = raw["log_S_level"] + self.data.log_steps_scale - law_ratio[..., None]
        if len(self.data.threshold) == 1:
            return base
        climb = np.cumsum(np.exp(raw["log_growth"]), axis=-1)
        climb = np.concatenate([np.zeros_like(climb[..., :1]), climb], axis=-1)
        return base + climb - climb[..., middle, None]


class CrossingArrays(NamedTuple):
    """What the compiled density is given.

    Attributes
    ----------
    center, precision : numpy.ndarray
        Of the normal priors, shape (n_dim,); precision 0 where the prior is another.
    constant : float
        Normalisers of all priors.
    alpha_at, gamma_at, steepness_at, slope_below_at, level_at, growth_at, sigma_run_at, sigma_at, \
    trend_at, length_at : int
        Where a block of the position begins; -1 for one that this model does not have.
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
    alpha_at: int
    gamma_at: int
    steepness_at: int
    slope_below_at: int
    level_at: int
    growth_at: int
    sigma_run_at: int
    sigma_at: int
    trend_at: int
    length_at: int
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
    start = {name: where.start for name, where in parameters.slices.items()}
    normal = parameters.normal
    batches, batch = np.unique(
        np.column_stack([data.n_prompts, data.n_rollouts, data.log_rate]), axis=0,
        return_inverse=True)
    batches = np.vstack([batches, (*middle_batch(data.n_prompts, data.n_rollouts), 0.0)])
    mean, sd, lower, upper = parameters.alpha_prior
    pair, pairs, gaps = _pairs(data)
    return CrossingArrays(
        center=parameters.center,
        precision=np.where(normal, parameters.sd**-2.0, 0.0),
        constant=_log_constant(parameters),
        alpha_at=start.get("alpha", -1), gamma_at=start.get("gamma", -1),
        steepness_at=start.get("steepness", -1), slope_below_at=start.get("slope_below", -1),
        level_at=start["log_S_level"],
        growth_at=start.get("log_growth", -1), sigma_run_at=start["sigma_run"],
        sigma_at=start["sigma_residual"], trend_at=start.get("residual_trend", -1),
        length_at=start.get("residual_length", -1),
        alpha=np.nan if law.alpha is None else float(law.alpha),
        alpha_prior=np.array([lower, upper, mean, sd**-2.0]),
        power=law.name == "power", middle=len(data.threshold) // 2,
        threshold_logit=data.threshold_logit, log_scales=_log_scales(parameters),
        log_best=_log_best(parameters), log_rate=batches[:, 2].copy(),
        weights=batch_weights(law, data.log_batch_scale, *batches[:, :2].T),
        batch=batch.reshape(-1).astype(np.int64), pair=pair, pairs=pairs, gaps=gaps,
        bounds=np.stack([data.log_lower, data.log_upper, data.midpoint], axis=-1),
        logistic=float(LOGISTIC_SCALE))


def noise_arrays(parameters: CrossingParameters) -> NoiseArrays | None:
    """Return the arrays of measured noise; None where none is data."""
    data, noise = parameters.data, parameters.data.noise
    if noise is None:
        return None
    start = {name: where.start for name, where in parameters.slices.items()}
    unit = np.exp([data.log_batch_scale[name] for name in parameters.law.scales])
    return NoiseArrays(
        growth_at=start.get("log_growth", -1), offset_at=start["noise_offset"],
        scatter_at=start["noise_scatter"], noise_at=start["log_noise"],
        log_scales=_log_scales(parameters), mix=noise.mix * unit, total=noise.total.astype(float),
        correlation=noise.correlation(data.threshold_logit), freedom=noise.freedom.astype(float),
        estimate=np.where(noise.known[:, None], noise.estimate, 0.0), precision=noise.precision())


def _log_scales(parameters: CrossingParameters) -> np.ndarray:
    """Return level, trend and deviations of every scale as rows over the position."""
    data, n = parameters.data, len(parameters.data.threshold)
    rows = np.zeros((len(parameters.law.scales), n, parameters.n_dim))
    for row, name in zip(rows, parameters.law.scales, strict=True):
        row[:, parameters.slices[f"{name}_level"].start] = 1.0
        if n > 1:
            row[:, parameters.slices[f"{name}_trend"].start] = data.threshold_logit
            deviation = parameters.slices[f"{name}_deviation"]
            row[:, deviation] = parameters.priors.scale_deviation * np.eye(n)
    return rows.reshape(-1, parameters.n_dim)


def _log_best(parameters: CrossingParameters) -> np.ndarray:
    """Return level and trend of the best learning rate as rows over the position."""
    rows = np.zeros((len(parameters.data.threshold), parameters.n_dim))
    if parameters.law.learning_rate:
        rows[:, parameters.slices["rate_level"].start] = 1.0
        if "rate_trend" in parameters.slices:
            rows[:, parameters.slices["rate_trend"].start] = parameters.data.threshold_logit
    return rows


def _log_constant(parameters: CrossingParameters) -> float:
    """Return the normalisers of all priors."""
    normal = parameters.normal
    constant = 0.0 if parameters.law.alpha is not None else _exponent_constant(
        parameters.alpha_prior)
    return constant - float(np.log(parameters.sd[normal]).sum()) - 0.5 * normal.sum() * log(2 * pi)


def _exponent_constant(prior: AlphaPrior) -> float:
    """Return log of (upper - lower) over the normaliser of the truncated normal."""
    mean, sd, lower, upper = prior
    inside = ndtr((upper - mean) / sd) - ndtr((lower - mean) / sd)
    return log((upper - lower) / (sd * sqrt(2 * pi) * inside))


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
