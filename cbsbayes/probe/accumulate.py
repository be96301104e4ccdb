"""Adding up gradients: three vectors of the model's size and a few inner products.

Works on what a rank holds: whole parameters, or the local shards of FSDP2. Inner products are
local until `Accumulator.sums`, which adds them over the ranks that hold the other shards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.distributed import ProcessGroup, all_reduce
from torch.distributed.tensor import DTensor

from cbsbayes.errors import CBSDataError
from cbsbayes.probe.estimators import HalfSums, pair_estimates
from cbsbayes.probe.plan import Half, Plan, Unit

__all__ = ["Accumulator", "local_gradients", "measure", "shard_groups"]

Vector = list[torch.Tensor]


def local_gradients(parameters: Sequence[torch.nn.Parameter]) -> Vector:
    """Return what this rank holds of every parameter's gradient; zeros where there is none."""
    return [_local(torch.zeros_like(p) if p.grad is None else p.grad).detach()
            for p in parameters]


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_groups(parameters: Sequence[torch.nn.Parameter]) -> list[ProcessGroup]:
    """Return the process groups over which inner products of local shards must be added.

    Parameters
    ----------
    parameters : sequence of torch.nn.Parameter
        Trainable parameters, sharded by FSDP2 (also with replicas) or whole.

    Returns
    -------
    list of ProcessGroup
        Empty where every rank holds whole gradients.

    Raises
    ------
    CBSDataError
        If parameters are sharded in different ways.
    """
    layouts = {(p.device_mesh, tuple(dim for dim, place in enumerate(p.placements)
                                     if place.is_shard()))
               if isinstance(p, DTensor) else None for p in parameters}
    if len(layouts) > 1:
        raise CBSDataError(f"the parameters are sharded in {len(layouts)} different ways; the "
                           "gradient-noise probe needs one: wrap the whole model by FSDP2")
    layout = layouts.pop()
    return [] if layout is None else [layout[0].get_group(dim) for dim in layout[1]]


def _dot(a: Vector, b: Vector) -> torch.Tensor:
    return torch.stack([(x * y).sum(dtype=torch.float64) for x, y in zip(a, b, strict=True)]).sum()


def _add(into: Vector, vector: Vector) -> Vector:
    """Add in place; the first time keep a copy."""
    if not into:
        return [x.clone() for x in vector]
    torch._foreach_add_(into, vector)
    return into


class Accumulator:
    """Takes the halves of one unit after the other and keeps sums.

    Parameters
    ----------
    n_micro : int
        Micro-batches to close over the whole plan, 0 for none.
    n_units : int
        Units to come.
    """

    def __init__(self, n_micro: int, n_units: int) -> None:
        self._closes = {round((i + 1) * n_units / n_micro) for i in range(n_micro)}
        self._total: Vector = []
        self._micro: Vector = []
        self._micro_prompts = 0
        self._units: list[torch.Tensor] = []
        self._prompts: list[int] = []
        self._micro_squares: list[torch.Tensor] = []
        self._micro_sizes: list[int] = []

    def add(self, prompts: int, halves: Sequence[Vector]) -> None:
        """Take one unit: its prompt groups and the summed contributions of its halves."""
        first, *rest = halves
        second = rest[0] if rest else [torch.zeros_like(x) for x in first]
        self._units.append(torch.stack([_dot(first, first), _dot(second, second),
                                        _dot(first, second)]))
        self._prompts.append(prompts)
        torch._foreach_add_(first, second)
        self._total = _add(self._total, first)
        if self._closes:
            self._add_micro(prompts, first)

    def _add_micro(self, prompts: int, vector: Vector) -> None:
        self._micro = _add(self._micro, vector)
        self._micro_prompts += prompts
        if len(self._prompts) in self._closes:
            self._micro_squares.append(_dot(self._micro, self._micro))
            self._micro_sizes.append(self._micro_prompts)
            self._micro, self._micro_prompts = [], 0

    def sums(self, half_rollouts: tuple[int, int], groups: Sequence[ProcessGroup],
             ) -> tuple[HalfSums, np.ndarray, np.ndarray]:
        """Return the inner products over all shards.

        Parameters
        ----------
        half_rollouts : tuple of int
            Rollouts per prompt in either half.
        groups : sequence of ProcessGroup
            Groups over which local inner products are added.

        Returns
        -------
        HalfSums
            Sums over units.
        np.ndarray
            dims (micro-batch): squared norms of summed contributions.
        np.ndarray
            dims (micro-batch): prompt groups.
        """
        flat = torch.cat([*self._units, torch.stack([_dot(self._total, self._total),
                                                     *self._micro_squares])])
        for group in groups:
            all_reduce(flat, group=group)
        n = 3 * len(self._units)
        units, tail = flat[:n].view(-1, 3).cpu().numpy(), flat[n:].cpu().numpy()
        sums = HalfSums(np.array(self._prompts), units[:, :2], units[:, 2], float(tail[0]),
                        half_rollouts)
        return sums, tail[1:], np.array(self._micro_sizes)


def measure(plan: Plan, gradient: Callable[[Half], Vector], n_micro: int,
            groups: Sequence[ProcessGroup]) -> tuple[HalfSums, tuple[float, float]]:
    """Take every gradient of a plan.

    Parameters
    ----------
    plan : Plan
        What to take.
    gradient : callable
        Returns the gradient of the loss *averaged* over a half, as this rank holds it; may
        hand out the same memory again and again.
    n_micro : int
        Micro-batches K, at most the units of the plan; 0 for none.
    groups : sequence of ProcessGroup
        See `shard_groups`.

    Returns
    -------
    HalfSums
        Input of `estimators.split_estimates`.
    tuple of float
        |G|² and V from the K micro-batches alone, NaN without them.
    """
    accumulator = Accumulator(min(n_micro, len(plan.units)), len(plan.units))
    for unit in plan.units:
        accumulator.add(unit.prompts, _contributions(unit, plan, gradient))
    sums, squares, sizes = accumulator.sums(plan.half_rollouts, groups)
    scale = sum(plan.half_rollouts) ** 2
    return sums, pair_estimates(sums.total_square / scale, squares / scale, sizes)


def _contributions(unit: Unit, plan: Plan, gradient: Callable[[Half], Vector]) -> list[Vector]:
    """Return Σ x over each half: the half's mean gradient times its weight times n / W."""
    scale = plan.samples / plan.weight
    return [[x * (scale * half.weight) for x in gradient(half)] for half in unit.halves]
