"""What the probe is told, by environment variables: they reach verl's Ray workers unchanged.

=============================  ==============================================================
``CBS_GRAD_NOISE_EVERY``       probe before every M-th optimizer update, the first included;
                               0 (default): never
``CBS_GRAD_NOISE_MICRO_BATCHES``  K, micro-batches of whole prompt groups, 0 (default): none
``CBS_GRAD_NOISE_PROMPTS``     prompt groups probed, drawn from the batch; 0 (default): all
``CBS_GRAD_NOISE_UNIT``        prompt groups per gradient; 0 (default): one per rank, so that
                               no rank waits for another
=============================  ==============================================================
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cbsbayes.errors import CBSDataError

__all__ = ["GradNoiseSettings"]

_PREFIX = "CBS_GRAD_NOISE_"


@dataclass(frozen=True)
class GradNoiseSettings:
    """When and how finely to probe; 0 has the meaning given above.

    Attributes
    ----------
    every : int
        Optimizer updates between two probes.
    micro_batches : int
        Micro-batches K of the plain estimate.
    prompts : int
        Most prompt groups probed.
    unit : int
        Prompt groups per gradient.
    """

    every: int = 0
    micro_batches: int = 0
    prompts: int = 0
    unit: int = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> GradNoiseSettings:
        """Read the settings.

        Raises
        ------
        CBSDataError
            If a variable holds anything but a whole number of 0 or more.
        """
        return cls(**{name: _whole_number(_PREFIX + name.upper(), environment)
                      for name in cls.__dataclass_fields__})


def _whole_number(variable: str, environment: Mapping[str, str]) -> int:
    text = environment.get(variable, "0")
    if not (text.isascii() and text.isdigit()):
        raise CBSDataError(f"{variable} is {text!r}; a whole number of 0 or more is needed, "
                           "0 for the default")
    return int(text)
