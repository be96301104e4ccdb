"""The probe inside verl's engine: a mixin over ``train_batch``, once per optimizer update.

For verl's FSDP engines on any device. The probe takes gradients of parts of the mini-batch
through the engine's own ``forward_backward_batch`` and the trainer's own loss function, then
clears them; parameters, optimizer and random state are as before, and verl's update follows.
The trainer logs the statistics under ``actor/grad_noise/``.
"""

from __future__ import annotations

import functools
import hashlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from tensordict import TensorDict
from torch.distributed.fsdp import FullyShardedDataParallel
from verl.utils import tensordict_utils as tu

from cbsbayes.errors import CBSDataError
from cbsbayes.probe.accumulate import local_gradients, measure, shard_groups
from cbsbayes.probe.estimators import split_estimates
from cbsbayes.probe.plan import Half, Plan, ProbeSettings, Row, make_plan

if TYPE_CHECKING:
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead as _Engine
else:
    _Engine = object  # whichever engine of verl comes after the mixin

__all__ = ["GradNoiseMixin"]

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
