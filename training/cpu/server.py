"""The rollout server: one Ray actor that samples whole batches with a ``transformers`` model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

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
    """

    def __init__(self, model_path: str, seed: int) -> None:
        torch.set_num_threads(1)
        tokenizer = AutoTokenizer.from_pretrained(model_path)
        self._ends = {"pad_id": tokenizer.pad_token_id, "eos_id": tokenizer.eos_token_id}
        model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
        self._model, self._seed, self._step = model.eval(), seed, 0

    async def ready(self) -> bool:
        """Answer once the model is loaded."""
        return True

    async def load_weights(self, weights: dict[str, torch.Tensor],
                           global_steps: int | None = None) -> None:
        """Take over the actor's weights after an update."""
        self._model.load_state_dict(weights, strict=True)
        self._step = global_steps

    async def complete(self, prompts: Sequence[Sequence[int]], repeats: Sequence[int],
                       temperature: float, max_tokens: int) -> list[Completion]:
        """Complete prompts.

        Parameters
        ----------
        prompts : sequence of token ids
            dims (rollout, token), ragged.
        repeats : sequence of int
            dims (rollout): how many-th rollout of its prompt in this batch.
        temperature : float
            0 takes the likeliest tokens.
        max_tokens : int
            Most tokens of a completion.

        Returns
        -------
        list of Completion
        """
        noise = None
        if temperature > 0:
            size = max_tokens, self._model.config.vocab_size
            noise = torch.stack([
                gumbel_noise((self._seed, self._step, tuple(prompt), repeat), *size)
                for prompt, repeat in zip(prompts, repeats, strict=True)])
        return sample(self._model, prompts, max_tokens=max_tokens, temperature=temperature,
                      noise=noise, **self._ends)

    async def _idle(self, **_: object) -> None:
        """Do nothing: a model in main memory neither sleeps nor keeps a cache."""

    sleep = wake_up = clear_kv_cache = release_kv_cache = resume_kv_cache = _idle
    abort_all_requests = resume_generation = start_profile = stop_profile = _idle
