"""The rollout server: one Ray actor that samples whole batches with a ``transformers`` model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.workers.rollout.replica import TokenOutput

from training.cpu.sampling import Completion, gumbel_noise, sample

__all__ = ["HFServer"]


class HFServer:
    """Holds a copy of the actor's model in main memory and completes prompts with it.

    Parameters
    ----------
    model_path : str
        Folder of the model and its tokenizer.
    seed : int
        Seed of the rollouts, verl's ``rollout.seed``.
    max_tokens : int
        Most tokens of a completion, verl's ``rollout.response_length``.
    """

    def __init__(self, model_path: str, seed: int, max_tokens: int) -> None:
        torch.set_num_threads(1)
        tokenizer = AutoTokenizer.from_pretrained(model_path)
        self._ends = {"pad_id": tokenizer.pad_token_id, "eos_id": tokenizer.eos_token_id}
        model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
        self._model, self._seed, self._step = model.eval(), seed, 0
        self._max_tokens, self._seen = max_tokens, Counter[tuple[int, ...]]()

    async def ready(self) -> bool:
        """Answer once the model is loaded."""
        return True

    async def load_weights(self, weights: dict[str, torch.Tensor],
                           global_steps: int | None = None) -> None:
        """Take over the actor's weights after an update."""
        self._model.load_state_dict(weights, strict=True)
        self._step = global_steps
        self._seen.clear()

    async def generate(self, request_id: str, *, prompt_ids: list[int],
                       sampling_params: dict[str, Any], **_: object) -> TokenOutput:
        """Complete one prompt, as verl's own agent loop asks; repeats count since the update."""
        temperature, prompt = float(sampling_params["temperature"]), tuple(prompt_ids)
        repeat = self._seen[prompt]
        self._seen[prompt] += temperature > 0
        (answer,) = await self.complete([prompt], [repeat], temperature)
        return TokenOutput(token_ids=answer.token_ids, log_probs=answer.log_probs,
                           stop_reason="completed", extra_fields={"global_steps": self._step})

    async def complete(self, prompts: Sequence[Sequence[int]], repeats: Sequence[int],
                       temperature: float) -> list[Completion]:
        """Complete prompts.

        Parameters
        ----------
        prompts : sequence of token ids
            dims (rollout, token), ragged.
        repeats : sequence of int
            dims (rollout): how many-th rollout of its prompt in this batch.
        temperature : float
            0 takes the likeliest tokens.

        Returns
        -------
        list of Completion
        """
        noise = None
        if temperature > 0:
            size = self._max_tokens, self._model.config.vocab_size
            noise = torch.stack([
                gumbel_noise((self._seed, self._step, tuple(prompt), repeat), *size)
                for prompt, repeat in zip(prompts, repeats, strict=True)])
        return sample(self._model, prompts, max_tokens=self._max_tokens, temperature=temperature,
                      noise=noise, **self._ends)

    async def _idle(self, **_: object) -> None:
        """Do nothing: a model in main memory neither sleeps nor keeps a cache."""

    sleep = wake_up = clear_kv_cache = release_kv_cache = resume_kv_cache = _idle
    abort_all_requests = resume_generation = start_profile = stop_profile = _idle
