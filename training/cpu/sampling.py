"""Sampling from a causal language model, every rollout with a random stream of its own.

Tokens are drawn by the Gumbel trick, argmax(log p + g), with g from a generator seeded by
what the rollout *is* (seed, update, prompt, how many-th rollout of it), so that what is sampled
does not depend on how requests were put together in batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["Completion", "gumbel_noise", "sample"]


@dataclass(frozen=True)
class Completion:
    """One completion: its token ids and their log-probabilities (nats) at the temperature."""

    token_ids: list[int]
    log_probs: list[float]


def gumbel_noise(identity: Sequence[object], length: int, vocabulary: int) -> torch.Tensor:
    """Return standard Gumbel noise that is a function of `identity`.

    Parameters
    ----------
    identity : sequence
        What makes the rollout this rollout; its ``repr`` seeds the stream.
    length, vocabulary : int
        Tokens to draw and size of the vocabulary.

    Returns
    -------
    torch.Tensor
        dims (token, vocabulary).
    """
    key = hashlib.sha256(repr(tuple(identity)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
    uniform = torch.rand(length, vocabulary, generator=generator).clamp(1e-9, 1 - 1e-7)
    return -torch.log(-torch.log(uniform))


@torch.no_grad()
def sample(model: torch.nn.Module, prompts: Sequence[Sequence[int]], *, max_tokens: int,
           pad_id: int, eos_id: int, temperature: float = 0.0,
           noise: torch.Tensor | None = None) -> list[Completion]:
    """Complete every prompt until the end token.

    Parameters
    ----------
    model : torch.nn.Module
        Causal language model of ``transformers`` with a key-value cache.
    prompts : sequence of token ids
        dims (rollout, token), ragged.
    max_tokens : int
        Most tokens of a completion.
    pad_id, eos_id : int
        Padding token; token that ends a completion and belongs to it.
    temperature : float
        0 takes the likeliest token.
    noise : torch.Tensor, optional
        dims (rollout, token, vocabulary): Gumbel noise, needed above temperature 0.

    Returns
    -------
    list of Completion
    """
    width = max(map(len, prompts))
    x = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    position = (mask.cumsum(1) - 1).clamp(min=0)
    done = torch.zeros(len(x), dtype=torch.bool)
    cache, tokens, log_probs, lengths = None, [], [], torch.zeros(len(x), dtype=torch.long)
    for t in range(max_tokens):
        out = model(input_ids=x, attention_mask=mask, position_ids=position,
                    past_key_values=cache, use_cache=True)
        cache, logits = out.past_key_values, out.logits[:, -1].float()
        log_p = torch.log_softmax(logits / temperature if temperature > 0 else logits, -1)
        chosen = (log_p if noise is None else log_p + noise[:, t]).argmax(-1)
        tokens.append(chosen)
        log_probs.append(log_p.gather(1, chosen[:, None])[:, 0])
        lengths += ~done
        done |= chosen == eos_id
        if done.all():
            break
        x = chosen[:, None]
        mask = torch.cat([mask, torch.ones_like(x)], 1)
        position = position[:, -1:] + 1
    rows = zip(torch.stack(tokens, 1).tolist(), torch.stack(log_probs, 1).tolist(),
               lengths.tolist(), strict=True)
    return [Completion(ids[:n], lps[:n]) for ids, lps, n in rows]
