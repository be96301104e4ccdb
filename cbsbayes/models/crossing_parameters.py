"""The crossing model's unconstrained space as one flat vector: its blocks, and the way back.

Blocks stand in the order and under the transforms in which `cbsbayes.models.pymc_models` declares
its variables to PyMC: the logarithm of log-normal ones, the logit of the exponent's place in its
interval, everything else as it is. So every coordinate but the exponent has a normal prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from scipy.special import logit

from cbsbayes.models.batches import middle_batch
from cbsbayes.models.crossing_data import CrossingData
from cbsbayes.models.laws import Law
from cbsbayes.models.parameters import AlphaPrior, Block, FlatModel
from cbsbayes.models.priors import PRIORS, Priors

__all__ = ["CrossingParameters"]

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
            mean, _, lower, upper = priors.alpha
            place = logit((mean - lower) / (upper - lower))
            blocks.append(Block("alpha", place, 1.0, transform="interval"))
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
        return self.priors.alpha

    @cached_property
    def normal(self) -> np.ndarray:
        """Which coordinates have a normal prior, shape (n_dim,)."""
        normal = np.ones(self.n_dim, dtype=bool)
        for name in {"alpha", "log_noise"} & self.slices.keys():
            normal[self.slices[name]] = False
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
        dims |= {name: ("threshold",) for name in (*scales, "S_min")}
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

    def _log_s_min(self, scales: dict[str, np.ndarray], raw: dict[str, np.ndarray]) -> np.ndarray:
        """Return log S_min, shape (chain, draw, threshold)."""
        middle = len(self.data.threshold) // 2
        at_middle = {name: value[..., middle] for name, value in scales.items()}
        alpha = raw["alpha"][..., 0] if "alpha" in raw else None
        middle_axes = middle_batch(self.data.n_prompts, self.data.n_rollouts)
        law_ratio = self.law.log_ratio(*middle_axes, at_middle, alpha)
        base = raw["log_S_level"] + self.data.log_steps_scale - law_ratio[..., None]
        if len(self.data.threshold) == 1:
            return base
        climb = np.cumsum(np.exp(raw["log_growth"]), axis=-1)
        climb = np.concatenate([np.zeros_like(climb[..., :1]), climb], axis=-1)
        return base + climb - climb[..., middle, None]
