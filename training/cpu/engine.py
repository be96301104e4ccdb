"""verl's FSDP engine, with the gradient-noise probe, admitted on the device ``cpu``."""

from __future__ import annotations

import torch
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from cbsbayes.errors import CBSDataError
from cbsbayes.probe.engine import GradNoiseMixin

__all__ = ["CPUEngine"]


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")
class CPUEngine(GradNoiseMixin, FSDPEngineWithLMHead):
    """FSDP2 over gloo as verl builds it; one process may also run the model unwrapped."""

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        """Wrap the trained model by FSDP2; leave it as it is under ``strategy=fsdp``.

        FSDP1 refuses CPU modules, and verl gives the frozen reference policy pinned memory,
        which needs an accelerator: both run unwrapped, which only a single process can.
        """
        if self.engine_config.strategy == "fsdp2" and not self.engine_config.forward_only:
            return super()._build_fsdp_module(module)
        world = torch.distributed.get_world_size()
        if world > 1:
            what = "a reference policy" if self.engine_config.forward_only else "strategy=fsdp"
            raise CBSDataError(f"{what} on CPU runs in one process and got {world}; use "
                               "actor.strategy=fsdp2 without KL loss, or trainer.n_gpus_per_node=1")
        self.scaler, self._autocast_dtype = None, torch.float32
        return module
