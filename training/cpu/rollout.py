"""``rollout.name=hf``: the two classes verl asks of a rollout backend."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import ray
import torch
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica

from training.cpu.server import HFServer

__all__ = ["HFReplica", "HFServerAdapter", "server_name"]


def server_name(replica_rank: int) -> str:
    """Return the name under which Ray knows a replica's server."""
    return f"hf_server_{replica_rank}"


class HFReplica(RolloutReplica):
    """Starts the server of one replica."""

    async def launch_servers(self) -> None:
        """Start the server as a named Ray actor and wait until its model is loaded."""
        name = server_name(self.replica_rank)
        actor = ray.remote(HFServer).options(name=name, num_cpus=0)
        server = actor.remote(self.model_config["path"], self.config.seed,
                              self.config.response_length)
        await server.ready.remote()
        self.servers, self._server_handle, self._server_address = [server], server, name


class HFServerAdapter(BaseRollout):
    """The trainer's side: sends the actor's weights to the server through Ray's object store."""

    async def resume(self, tags: list[str]) -> None:
        """Do nothing: the server's model never left main memory."""

    async def release(self) -> None:
        """Do nothing: there is no accelerator memory to free."""

    async def update_weights(self, weights: Iterable[tuple[str, torch.Tensor]],
                             global_steps: int | None = None, **_: Any) -> None:
        """Send the full state dict and wait until the server has taken it over."""
        state = {name: tensor.detach().to("cpu", torch.float32).clone()
                 for name, tensor in weights}
        server = ray.get_actor(server_name(int(os.environ["RANK"])))
        await server.load_weights.remote(state, global_steps=global_steps)
