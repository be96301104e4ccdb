"""Rollouts of a whole batch at once: verl's ``rollout.agent.agent_loop_manager_class``.

verl's own agent loop treats every rollout as a conversation of its own: two Ray calls, a chat
template, five small tensors and a reward worker each, 5 ms a rollout on this kind of machine
where the tiny model needs 0.1 ms. This manager asks each server once per batch and scores the
answers where it stands, with the reward function of the configuration. One turn, text only.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
import torch
from omegaconf import DictConfig
from transformers import AutoTokenizer
from verl import DataProto
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.utils.model import compute_position_id_with_mask

from training.cpu.rollout import server_name
from training.cpu.sampling import Completion

__all__ = ["BatchRollouts"]


class BatchRollouts:
    """Takes the place of verl's ``AgentLoopManager`` in the v0 trainer.

    Parameters
    ----------
    config : DictConfig
        verl's whole configuration.
    """

    def __init__(self, config: DictConfig) -> None:
        self._rollout, self._score = config.actor_rollout_ref.rollout, get_custom_reward_fn(config)
        self._tokenizer = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path)
        count = config.trainer.n_gpus_per_node * config.trainer.nnodes
        self._servers = [ray.get_actor(server_name(rank)) for rank in range(count)]

    @classmethod
    def create(cls, config: DictConfig, **_: Any) -> BatchRollouts:
        """Build the manager as verl asks for it; its clients and reward workers are not needed."""
        return cls(config)

    def generate_sequences(self, prompts: DataProto) -> DataProto:
        """Complete and score a batch of prompts, already repeated ``rollout.n`` times.

        Parameters
        ----------
        prompts : DataProto
            ``raw_prompt`` (messages), ``data_source``, ``reward_model`` and ``extra_info``.

        Returns
        -------
        DataProto
            The fields of verl's own agent loop: padded tokens, masks, log-probabilities, and
            ``rm_scores`` at the last token.
        """
        began = time.perf_counter()
        greedy = prompts.meta_info.get("validate", False)
        sampling = self._rollout.val_kwargs if greedy else self._rollout
        questions = self._tokenizer.apply_chat_template(
            [list(messages) for messages in prompts.non_tensor_batch["raw_prompt"]],
            add_generation_prompt=True, tokenize=True, return_dict=False)
        answers = self._complete(questions, float(sampling.temperature))
        generated = time.perf_counter()
        scores, extra = self._scores(prompts, answers)
        output = self._pack(questions, answers, scores, extra)
        output.meta_info["timing"] = {
            "agent_loop/generate_sequences/mean": generated - began,
            "agent_loop/compute_score/mean": time.perf_counter() - generated}
        return output

    def _complete(self, questions: Sequence[Sequence[int]],
                  temperature: float) -> list[Completion]:
        seen: Counter[tuple[int, ...]] = Counter()
        repeats = []
        for question in map(tuple, questions):
            repeats.append(seen[question])
            seen[question] += 1
        parts = np.array_split(np.arange(len(questions)), len(self._servers))
        answers = ray.get([
            server.complete.remote([questions[i] for i in part], [repeats[i] for i in part],
                                   temperature)
            for server, part in zip(self._servers, parts, strict=True) if len(part)])
        return [answer for part in answers for answer in part]

    def _scores(self, prompts: DataProto, answers: Sequence[Completion],
                ) -> tuple[list[float], dict[str, np.ndarray]]:
        """Return scores and the reward function's further values, ``acc`` where it gives none."""
        texts = self._tokenizer.batch_decode([a.token_ids for a in answers],
                                             skip_special_tokens=True)
        fields = prompts.non_tensor_batch
        results = [self._score(data_source=source, solution_str=text,
                               ground_truth=model["ground_truth"], extra_info=info)
                   for source, text, model, info in zip(
                       fields["data_source"], texts, fields["reward_model"],
                       fields["extra_info"], strict=True)]
        details = [r if isinstance(r, dict) else {"score": r, "acc": r} for r in results]
        extra = {key: np.array([d[key] for d in details]) for key in details[0] if key != "score"}
        return [float(d["score"]) for d in details], extra

    def _pack(self, questions: Sequence[Sequence[int]], answers: Sequence[Completion],
              scores: Sequence[float], extra: dict[str, np.ndarray]) -> DataProto:
        pad, widths = self._tokenizer.pad_token_id, self._rollout
        prompt, prompt_mask = _padded(questions, widths.prompt_length, pad, left=True)
        response, response_mask = _padded([a.token_ids for a in answers],
                                          widths.response_length, pad)
        log_probs, _ = _padded([a.log_probs for a in answers], widths.response_length, 0.0)
        attention = torch.cat([prompt_mask, response_mask], 1)
        rewards = torch.zeros(response.shape)
        rewards[torch.arange(len(answers)), response_mask.sum(1) - 1] = torch.tensor(scores)
        turns = np.full(len(answers), 2, dtype=np.int32)
        media = np.array([{} for _ in answers], dtype=object)
        return DataProto.from_dict(
            tensors={"prompts": prompt, "responses": response, "response_mask": response_mask,
                     "input_ids": torch.cat([prompt, response], 1), "attention_mask": attention,
                     "position_ids": compute_position_id_with_mask(attention),
                     "rollout_log_probs": log_probs, "rm_scores": rewards},
            non_tensors={"__num_turns__": turns, "multi_modal_inputs": media, **extra},
            meta_info={"reward_extra_keys": list(extra)})


def _padded(rows: Sequence[Sequence[float]], width: int, fill: float, *,
            left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows padded to `width` and their mask, dims (row, token)."""
    values = torch.full((len(rows), width), fill)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        values[i, where], mask[i, where] = torch.tensor(row), 1
    return values, mask
