"""What verl asks of "the accelerator", answered by a CPU (verl ships CUDA, ROCm and NPU)."""

from __future__ import annotations

import os
import types
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

__all__ = ["PlatformCPU"]


def _nothing(*_args: object, **_kwargs: object) -> None:
    """Do nothing: memory and device calls have no meaning here."""


def _zero(*_args: object, **_kwargs: object) -> int:
    return 0


class _Device(types.ModuleType):
    """``torch.cpu`` plus the calls verl makes on ``torch.<device>``."""

    def __getattr__(self, name: str) -> object:
        return getattr(torch.cpu, name)

    empty_cache = ipc_collect = reset_peak_memory_stats = set_device = staticmethod(_nothing)
    memory_allocated = memory_reserved = staticmethod(_zero)
    max_memory_allocated = max_memory_reserved = staticmethod(_zero)
    mem_get_info = staticmethod(lambda *_: (0, 0))
    get_device_name = staticmethod(lambda *_: "cpu")
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)
    get_rng_state = staticmethod(torch.get_rng_state)
    set_rng_state = staticmethod(torch.set_rng_state)


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """A CPU as verl's platform; ``GPU`` stays Ray's name for the logical resource it books."""

    device_name = vendor_name = "cpu"
    device_module = _Device("verl_cpu_device")

    def is_available(self) -> bool:
        """Return True: there always is a CPU."""
        return True

    def current_device(self) -> torch.device:
        """Return the one device there is."""
        return torch.device("cpu")

    def device_count(self) -> int:
        """Return 1, whatever the number of cores."""
        return 1

    def manual_seed(self, seed: int) -> None:
        """Seed torch's generator."""
        torch.manual_seed(seed)

    manual_seed_all = manual_seed
    set_device = synchronize = set_allocator_settings = empty_cache = _nothing
    profiler_start = profiler_stop = cudart = _nothing

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        """Return nothing: compute capabilities are CUDA's."""
        return None, None

    def communication_backend_name(self) -> str:
        """Return ``gloo``; in a Ray worker, make the process group as well.

        verl is about to ask for ``cpu:gloo,cpu:<this>``, which torch refuses because it names
        the CPU twice. verl makes no group where there is one already.
        """
        if os.environ.get("WG_BACKEND") == "ray" and not dist.is_initialized():
            rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            dist.init_process_group("gloo", rank=rank, world_size=world)
        return "gloo"

    def visible_devices_envvar(self) -> str:
        """Return the variable Ray sets for the resource ``GPU``."""
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        """Mark nothing: there is no profiler."""
        yield

    def ray_resource_name(self) -> str:
        """Return the resource verl books; logical, no hardware is needed."""
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        """Return no variable: there are no visible devices to keep."""
        return []

    def is_ipc_supported(self) -> bool:
        """Return False: weights travel through Ray's object store."""
        return False
