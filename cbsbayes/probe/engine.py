"""The probe inside verl's engine: a mixin over ``train_batch``, once per optimizer update.

For verl's FSDP engines on any device. The probe takes gradients of parts of the mini-batch
through the engine's own ``forward_backward_batch`` and the trainer's own loss function, then
clears them; parameters, optimizer and random state are as before, and verl's update follows.
The trainer logs the statistics under ``actor/grad_noise/``.

Gradients are added up in three vectors of the model's size and a few inner products, of what a rank
holds: whole parameters, or the local shards of FSDP2. Inner products are local until
`Accumulator.sums`, which adds them over the ranks that hold the other shards.
"""

from __future__ import annotations

import functools
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from tensordict import TensorDict
from torch.distributed import ProcessGroup, all_reduce
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from verl.utils import tensordict_utils as tu

from cbsbayes.errors import CBSDataError
from cbsbayes.probe.estimators import HalfSums, pair_estimates, split_estimates
from cbsbayes.probe.plan import Half, Plan, ProbeSettings, Row, Unit, make_plan

if TYPE_CHECKING:
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead as _Engine
else:
    _Engine = object  # whichever engine of verl comes after the mixin

__all__ = ["Accumulator", "GradNoiseMixin", "local_gradients", "measure", "shard_groups"]

Vector = list[torch.Tensor]

_WEIGHTS = {"token-mean": "tokens", "seq-mean-token-sum": "rows", "seq-mean-token-mean": "rows"}


class GradNoiseMixin(_Engine):
    """Goes before an FSDP engine among the base classes of the registered engine."""

    _updates_seen = 0

    @functools.cached_property
    def _grad_noise(self) -> ProbeSettings:
        return ProbeSettings.from_environment()

    def train_batch(self, data: TensorDict, loss_function: Callable) -> dict[str, Any]:
        """Probe where one is due, then update as verl does."""
        every, update = self._grad_noise.every, self._updates_seen
        metrics = self.probe(data, loss_function) if every and update % every == 0 else {}
        self._updates_seen += 1
        outputs = super().train_batch(data, loss_function)
        if self.is_mp_src_rank_with_outputs():  # verl flattens lists over ranks
            outputs["metrics"].update({key: [value] for key, value in metrics.items()})
        return outputs

    def probe(self, data: TensorDict, loss_function: Any) -> dict[str, float]:
        """Measure gradient noise on a mini-batch without changing anything.

        Parameters
        ----------
        data : TensorDict
            This rank's rows of the mini-batch, as verl hands them to ``train_batch``.
        loss_function : callable
            verl's ``partial(ppo_loss, config=...)``.

        Returns
        -------
        dict
            ``grad_noise/...`` statistics, the same on all ranks; see `training/RUNS.md`.

        Raises
        ------
        CBSDataError
            If verl's loss averages in a way whose parts do not add up, or the model is sharded
            by FSDP1 or scaled for fp16.
        """
        began = time.perf_counter()
        parameters = self._parameters()
        settings = self._grad_noise
        plan = make_plan(self._gather_rows(data, loss_function), update=self._updates_seen,
                         prompts=settings.prompts, unit=settings.unit)
        device = parameters[0].device
        with torch.random.fork_rng([device] if device.type != "cpu" else [],
                                   device_type=device.type):
            sums, micro = measure(
                plan, lambda half: self._gradient(data, half, loss_function, parameters),
                settings.micro_batches, shard_groups(parameters))
        self.optimizer_zero_grad()
        rollouts = sum(plan.half_rollouts)
        statistics = split_estimates(sums) | _counts(plan) | {
            "micro/g_sq": micro[0], "micro/tr_sigma": rollouts * micro[1],
            "seconds": time.perf_counter() - began}
        return {f"grad_noise/{key}": float(value) for key, value in statistics.items()
                if math.isfinite(value)}

    def _parameters(self) -> list[torch.nn.Parameter]:
        if isinstance(self.module, FullyShardedDataParallel) and dist.get_world_size() > 1:
            raise CBSDataError("the gradient-noise probe reads FSDP2's shards and got FSDP1 on "
                               f"{dist.get_world_size()} ranks; use actor.strategy=fsdp2")
        if getattr(self, "scaler", None) is not None:
            raise CBSDataError("the gradient-noise probe got gradients scaled for fp16; use bf16 "
                               "or fp32 as fsdp_config.mixed_precision.param_dtype")
        return [p for p in self.module.parameters() if p.requires_grad]

    def _gather_rows(self, data: TensorDict, loss_function: Any) -> list[list[Row]]:
        """Return every data-parallel rank's rows, dims (rank, row)."""
        mode = loss_function.keywords["config"].loss_agg_mode
        if mode not in _WEIGHTS:
            raise CBSDataError(f"the gradient-noise probe cannot add up gradients under "
                               f"loss_agg_mode={mode}; valid are {', '.join(_WEIGHTS)}")
        local = _describe(data, by_tokens=_WEIGHTS[mode] == "tokens")
        group = self.get_data_parallel_group()
        gathered: list[list[Row]] = [[] for _ in range(self.get_data_parallel_size())]
        dist.all_gather_object(gathered, local, group=group)
        return gathered

    def _gradient(self, data: TensorDict, half: Half, loss_function: Any,
                  parameters: list[torch.nn.Parameter]) -> list[torch.Tensor]:
        """Return this rank's part of the gradient of verl's loss on a half.

        A rank with fewer rows than another fills up with rows that the loss masks out.
        """
        mine = half.rows[self.get_data_parallel_rank()]
        longest = max(map(len, half.rows))
        size = min(longest, tu.get(data, "micro_batch_size_per_gpu") or longest)
        filled = mine + [0] * (math.ceil(longest / size) * size - len(mine))
        part = tu.index_select_tensor_dict(data, filled)
        _mask_out(part, len(mine))
        tu.assign_non_tensor(part, global_batch_size=half.count, micro_batch_size_per_gpu=size)
        self.optimizer_zero_grad()
        self.forward_backward_batch(part, loss_function, forward_only=False)
        return local_gradients(parameters)


def _describe(data: TensorDict, *, by_tokens: bool) -> list[Row]:
    uids = [str(uid) for uid in tu.get(data, "uid")]
    columns = zip(uids, data["input_ids"].unbind(), data["loss_mask"].unbind(),
                  data["advantages"].unbind(), strict=True)
    rows = []
    for uid, ids, mask, advantage in columns:
        counted = advantage[mask.bool()]
        rows.append(Row(uid, _digest(ids, counted), float(mask.sum()) if by_tokens else 1.0,
                        float(counted.abs().max()) if len(counted) else 0.0))
    return rows


def _digest(*tensors: torch.Tensor) -> str:
    return hashlib.sha256(repr([tensor.tolist() for tensor in tensors]).encode()).hexdigest()


def _mask_out(part: TensorDict, first: int) -> None:
    """Take the rows from `first` on out of the loss."""
    if first == len(part):
        return
    for key in ("loss_mask", "response_mask"):
        mask = part[key]
        if mask.is_nested:
            values = mask.values().clone()
            values[int(mask.offsets()[first]):] = 0
            part[key] = torch.nested.nested_tensor_from_jagged(values, mask.offsets())
        else:
            part[key] = mask.clone()
            part[key][first:] = 0


def _counts(plan: Plan) -> dict[str, float]:
    return {"n_prompts": plan.prompts, "n_rollouts": sum(plan.half_rollouts),
            "n_samples": plan.samples, "n_units": len(plan.units), "loss_weight": plan.weight,
            "groups": plan.groups, "groups_left_out": plan.left_out,
            "groups_zero_advantage": plan.without_signal,
            "frac_zero_adv": plan.without_signal / plan.groups}


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
