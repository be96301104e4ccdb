"""The module verl loads on CPU, by its own variables.

    VERL_PLATFORM=cpu VERL_USE_EXTERNAL_MODULES=training.cpu.plugin

It registers, at verl's own extension points, the platform (``PlatformRegistry``), the engine
(``EngineRegistry``) and the rollout backend ``hf`` (``RolloutReplicaRegistry``). verl 0.9.1 has
no register function for the trainer's side of a rollout backend; one entry is written into its
table instead. Whole batches of rollouts are made by ``training.cpu.agent.BatchRollouts``, named
in ``rollout.agent.agent_loop_manager_class``.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["load_replica", "register"]


def load_replica() -> Any:
    """Return the replica class; it starts Ray's machinery and is imported on first use."""
    return importlib.import_module("training.cpu.rollout").HFReplica


def register() -> None:
    """Make verl know the CPU; the platform first, because other modules ask for it on import."""
    for module in ("platform", "engine"):
        importlib.import_module(f"training.cpu.{module}")
    from verl.workers.rollout import base
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    RolloutReplicaRegistry.register("hf", load_replica)
    base._ROLLOUT_REGISTRY["hf", "async"] = "training.cpu.rollout.HFServerAdapter"


register()
