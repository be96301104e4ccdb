"""What a model offers to be calibrated on its own prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import xarray as xr

__all__ = ["CalibratedModel", "PriorDraw"]


@dataclass(frozen=True)
class PriorDraw:
    """A sweep and the parameters it was drawn from.

    Attributes
    ----------
    sweep : xarray.Dataset
        Curves or a table of crossings.
    parameters : xarray.Dataset
        As a posterior of one draw: dims chain, draw (1 each) and threshold.
    """

    sweep: xr.Dataset
    parameters: xr.Dataset


class CalibratedModel(Protocol):
    """What a model must offer to be calibrated."""

    scalars: tuple[str, ...]
    """Further variables of prior and posterior to be ranked, without a threshold."""

    def prior_draw(self, random_seed: int) -> PriorDraw:
        """Return parameters drawn from the prior, and a sweep drawn from the parameters."""

    def posterior(self, sweep: xr.Dataset, random_seed: int) -> xr.Dataset:
        """Return posterior draws given a sweep, under the very prior of `prior_draw`."""
