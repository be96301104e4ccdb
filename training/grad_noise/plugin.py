"""The module verl loads on NVIDIA GPUs: ``VERL_USE_EXTERNAL_MODULES=training.grad_noise.plugin``.

``EngineRegistry`` looks up (device, vendor) before the device alone, so an engine registered for
the vendor takes the place of verl's own. This module was not run on a GPU.
"""

from __future__ import annotations

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from training.grad_noise.mixin import GradNoiseMixin

__all__ = ["ProbedFSDPEngine"]


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda",
                         vendor="nvidia")
class ProbedFSDPEngine(GradNoiseMixin, FSDPEngineWithLMHead):
    """verl's FSDP engine with the probe."""
