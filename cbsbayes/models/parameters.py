"""A model's unconstrained space as one flat vector: blocks with normal priors, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit, logit

__all__ = ["AlphaPrior", "Block", "FlatModel"]

AlphaPrior = tuple[float, float, float, float]
"""Mean, sd, lower and upper end of the exponent's truncated normal prior."""


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
    dim : str
        Its dimension; empty for a single number.
    transform : {"", "log", "logodds", "interval"}
        From the variable to the unconstrained scale, by PyMC's names.
    size : int
        Coordinates.
    """

    name: str
    center: float | np.ndarray
    sd: float
    dim: str = ""
    transform: str = ""
    size: int = 1

    @property
    def value_name(self) -> str:
        """Name of the unconstrained variable in PyMC."""
        return f"{self.name}_{self.transform}__" if self.transform else self.name


class FlatModel:
    """What the flat vectors of all models share; a model gives `blocks` and `alpha_prior`."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Blocks in the order of the flat vector."""
        raise NotImplementedError

    @property
    def alpha_prior(self) -> AlphaPrior:
        """The exponent's prior, the only one that is not normal on the flat scale."""
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
        if "alpha" in self.slices:
            position[:, self.slices["alpha"]] = _alpha_draws(self.alpha_prior, draws, rng)[:, None]
        return position

    def back(self, block: Block, value: np.ndarray) -> np.ndarray:
        """Return a block's variable from its unconstrained coordinates."""
        if block.transform == "log":
            return np.exp(value)
        if block.transform == "logodds":
            return expit(value)
        if block.transform == "interval":
            lower, upper = self.alpha_prior[2:]
            return lower + (upper - lower) * expit(value)
        return value

    def forth(self, block: Block, value: np.ndarray) -> np.ndarray:
        """Return a block's unconstrained coordinates from its variable."""
        if block.transform == "log":
            return np.log(value)
        if block.transform == "logodds":
            return logit(value)
        if block.transform == "interval":
            lower, upper = self.alpha_prior[2:]
            return logit((value - lower) / (upper - lower))
        return value


def _alpha_draws(prior: AlphaPrior, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return draws of the exponent on the flat scale, shape (draw,)."""
    mean, sd, lower, upper = prior
    kept = np.empty(0)
    while len(kept) < draws:
        alpha = rng.normal(mean, sd, 2 * draws)
        kept = np.concatenate([kept, alpha[(alpha > lower) & (alpha < upper)]])
    return logit((kept[:draws] - lower) / (upper - lower))
