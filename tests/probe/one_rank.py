"""One rank of verl's FSDP2 engine on CPU with the probe; run by test_probe_engine.py.

verl imports Ray and warns at import, so it runs in processes of its own. Arguments: output folder,
model folder, rank, world size, port. Every rank writes ``rank{r}of{w}.npz``.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

out, model_path, rank, world, port = (Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
os.environ |= {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "training.cpu.plugin",
               "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
               "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WG_BACKEND": "ray",
               "OMP_NUM_THREADS": "1"}

import numpy as np  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
import verl  # noqa: E402, F401
from transformers import AutoModelForCausalLM  # noqa: E402
from verl.trainer.config import CheckpointConfig  # noqa: E402
from verl.utils import tensordict_utils as tu  # noqa: E402
from verl.utils.distributed import initialize_global_process_group_ray  # noqa: E402
from verl.workers.config import (  # noqa: E402
    FSDPActorConfig,
    FSDPEngineConfig,
    FSDPOptimizerConfig,
    HFModelConfig,
)
from verl.workers.engine import EngineRegistry  # noqa: E402
from verl.workers.utils.losses import ppo_loss  # noqa: E402

from cbsbayes.probe.plan import ProbeSettings, make_plan  # noqa: E402

PROMPTS, ROLLOUTS = 6, 5
FP32 = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}


def make_engine():
    initialize_global_process_group_ray()
    engine_config = FSDPEngineConfig(strategy="fsdp2", use_torch_compile=False, model_dtype="fp32",
                                     mixed_precision=FP32)
    model_config = HFModelConfig(path=model_path, use_remove_padding=False,
                                 enable_gradient_checkpointing=False,
                                 override_config={"attn_implementation": "eager"})
    optimizer = FSDPOptimizerConfig(lr=1e-3, total_training_steps=10)
    engine = EngineRegistry.new(
        model_type="language_model", backend="fsdp2", model_config=model_config,
        engine_config=engine_config, optimizer_config=optimizer,
        checkpoint_config=CheckpointConfig())
    engine.initialize()
    actor = FSDPActorConfig(rollout_n=ROLLOUTS, ppo_micro_batch_size_per_gpu=3,
                            fsdp_config=engine_config, ppo_mini_batch_size=PROMPTS)
    return engine, actor


def make_rollouts():
    """Return prompts × rollouts as dicts; one group has no signal, lengths differ."""
    rng = np.random.default_rng(3)
    rollouts = []
    for p in range(PROMPTS):
        prompt = rng.integers(6, 18, rng.integers(4, 8))
        rewards = rng.integers(0, 2, ROLLOUTS).astype(float)
        rewards[:2] = [0, 1] if p else [1, 1]
        rewards = rewards if p else np.ones(ROLLOUTS)
        advantages = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
        for r in range(ROLLOUTS):
            response = rng.integers(6, 18, rng.integers(2, 6))
            if r == 1:
                response = rollouts[-1]["response"]  # answers repeat
            rollouts.append({"prompt": prompt, "response": response, "uid": f"u{p}",
                             "advantage": advantages[r]})
    return rollouts


def explicit_gradients(rollouts):
    """Return ∇ Σ_t −A log p_t of every rollout by plain autograd, and its tokens' log p."""
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32,
                                                 attn_implementation="eager")
    gradients = []
    for rollout in rollouts:
        ids = torch.tensor(np.concatenate([rollout["prompt"], rollout["response"]]))[None]
        log_p = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        log_p = log_p.gather(1, ids[0, 1:, None])[len(rollout["prompt"]) - 1:, 0]
        rollout["log_p"] = log_p.detach()
        model.zero_grad()
        (-rollout["advantage"] * log_p).sum().backward()
        gradients.append(torch.cat([p.grad.reshape(-1) for p in model.parameters()]).numpy())
    return np.array(gradients)


def batch_of(rollouts, padded=False):
    """Return a batch as verl's v1 trainer hands it to a worker, or padded as v0 does."""
    def ragged(values):
        return torch.nested.as_nested_tensor(values, layout=torch.jagged)

    n_tokens = [len(r["response"]) for r in rollouts]
    whole = [torch.tensor(np.concatenate([r["prompt"], r["response"]])) for r in rollouts]
    ones = [torch.ones(n, dtype=torch.int64) for n in n_tokens]
    tensors = {
        "input_ids": ragged(whole),
        "position_ids": ragged([torch.arange(len(ids)) for ids in whole]),
        "prompts": ragged([torch.tensor(r["prompt"]) for r in rollouts]),
        "responses": ragged([torch.tensor(r["response"]) for r in rollouts]),
        "response_mask": ragged(ones), "loss_mask": ragged(ones),
        "old_log_probs": ragged([r["log_p"] for r in rollouts]),
        "advantages": ragged([torch.full((len(r["response"]),), r["advantage"],
                                         dtype=torch.float32) for r in rollouts]),
        "uid": [r["uid"] for r in rollouts]}
    extra = {"temperature": 1.0, "global_batch_size": PROMPTS * ROLLOUTS,
             "calculate_entropy": False, "use_remove_padding": False, "use_dynamic_bsz": False,
             "use_fused_kernels": False, "micro_batch_size_per_gpu": 3}
    if padded:
        for key in ("prompts", "responses", "response_mask", "loss_mask", "old_log_probs",
                    "advantages"):
            tensors[key] = tensors[key].to_padded_tensor(0)
        lengths = torch.tensor([[len(r["prompt"])] for r in rollouts])
        reached = torch.arange(tensors["prompts"].shape[1])[None] < lengths
        tensors["attention_mask"] = torch.cat([reached, tensors["loss_mask"] > 0], 1)
    return tu.get_tensordict(tensors, extra)


def mine(rollouts):
    """Deal rollouts to ranks by length, as verl balances them: groups straddle ranks."""
    return [rollouts[i] for i in by_length(rollouts)[rank::world]]


def by_length(rollouts):
    return np.argsort([len(r["response"]) for r in rollouts], kind="stable")


def whole_vector(tensors):
    return torch.cat([(t.full_tensor() if hasattr(t, "full_tensor") else t).reshape(-1)
                      for t in tensors]).detach().clone().numpy()


def main():
    engine, actor = make_engine()
    rollouts = make_rollouts()
    explicit = explicit_gradients(rollouts)
    data, padded = batch_of(mine(rollouts)), batch_of(mine(rollouts), padded=True)
    loss = partial(ppo_loss, config=actor)
    parameters = list(engine.module.parameters())
    found = {"explicit": explicit, "order": by_length(rollouts)}
    with engine.train_mode():
        before, state = whole_vector(parameters), torch.get_rng_state()
        for name, settings in {"unit1": ProbeSettings(1, 3, 0, 1),
                               "auto": ProbeSettings(1, 3, 0, 0),
                               "capped": ProbeSettings(1, 0, 3, 1)}.items():
            engine.__dict__["_grad_noise"] = settings
            found[name] = json.dumps(engine.probe(data, loss))
        engine.__dict__["_grad_noise"] = ProbeSettings(1, 3, 0, 1)
        found["padded"] = json.dumps(engine.probe(padded, loss))
        dynamic = batch_of(mine(rollouts))
        tu.assign_non_tensor(dynamic, use_dynamic_bsz=True, max_token_len_per_gpu=24)
        found["dynamic"] = json.dumps(engine.probe(dynamic, loss))
        found["unchanged"] = np.array_equal(before, whole_vector(parameters))
        found["random_state_kept"] = bool((state == torch.get_rng_state()).all())
        found["gradients_cleared"] = all(p.grad is None for p in parameters)
        for mode in ("token-mean", "seq-mean-token-mean"):
            found[f"parts {mode}"], found[f"full {mode}"] = recombine(
                engine, data, partial(ppo_loss, config=replace(actor, loss_agg_mode=mode)))
        found["rows"] = json.dumps([[vars(row) for row in rows]
                                    for rows in engine._gather_rows(data, loss)])
        engine.__dict__["_grad_noise"] = ProbeSettings(2, 3, 0, 1)
        seen = []
        for _ in range(3):
            tu.assign_non_tensor(data, global_batch_size=len(rollouts))
            metrics = engine.train_batch(data, loss)["metrics"]
            seen.append({"grad_norm": metrics["grad_norm"],
                         **{k: v for k, v in metrics.items() if k.startswith("grad_noise/")}})
        found["updates"] = json.dumps(seen)
        found["moved"] = not np.array_equal(before, whole_vector(parameters))
    np.savez(out / f"rank{rank}of{world}.npz", **found)


def recombine(engine, data, loss):
    """Return Σ w_h g_h / Σ w_h over the plan's halves, and the gradient of the whole batch."""
    plan = make_plan(engine._gather_rows(data, loss), update=0, unit=1)
    parameters, total = engine._parameters(), 0.0
    for half in (half for unit in plan.units for half in unit.halves):
        engine._gradient(data, half, loss, parameters)
        total = total + half.weight * whole_vector([p.grad for p in parameters])
    engine.optimizer_zero_grad()
    tu.assign_non_tensor(data, global_batch_size=plan.samples)
    engine.forward_backward_batch(data, loss)
    full = whole_vector([p.grad for p in parameters])
    engine.optimizer_zero_grad()
    return total / plan.weight, full


main()
