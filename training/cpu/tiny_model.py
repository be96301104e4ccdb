"""The tiny language model: a Llama of some 87,000 parameters with a tokenizer of 18 tokens.

Reinforcement learning needs a start that is sometimes right. The base checkpoint is supervised
on demonstrations in which digit i of the answer is right with a probability that depends on the
question, logit p_i = SLIP · w_i·(digits − 4.5), and otherwise is the next digit: some questions
are easy, some hard, and the likeliest answer is mostly wrong.
"""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from training.cpu.task import CHARACTERS, DIGITS, answer, prompt

__all__ = ["build_model", "build_tokenizer", "encode", "greedy_accuracy", "pretrain"]

SLIP = 0.4
_SPECIAL = ["<pad>", "<s>", "</s>", "<user>", "<assistant>", "<system>"]
_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}")
_SIGNS = np.array([[1, 1, 1, 1, 1, 1], [1, -1, 1, -1, 1, -1], [1, 1, 1, -1, -1, -1]])


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per character and the chat template verl needs."""
    vocabulary = {token: i for i, token in enumerate([*_SPECIAL, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"<[a-z/]+>|."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=_SPECIAL[3:], chat_template=_TEMPLATE)


def build_model(seed: int) -> LlamaForCausalLM:
    """Return the untrained model."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(_SPECIAL) + len(CHARACTERS), hidden_size=64, intermediate_size=128,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        tie_word_embeddings=False, attn_implementation="eager"))


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Return token ids of texts of one length, dims (text, token)."""
    return torch.tensor(tokenizer(texts, add_special_tokens=False).input_ids)


def pretrain(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, pairs: np.ndarray, *,
             steps: int, seed: int, batch: int = 128, learning_rate: float = 2e-3) -> None:
    """Train the model on slipping demonstrations, in place.

    Parameters
    ----------
    model, tokenizer : the model and its tokenizer
    pairs : np.ndarray
        dims (item, operand): questions to draw from.
    steps : int
        Optimizer updates.
    seed : int
        Seed of the drawn questions and slips.
    batch : int
        Demonstrations per update.
    learning_rate : float
        Peak of a warm-up over 50 updates and a linear decay.
    """
    rng = np.random.default_rng(seed)
    questions = encode(tokenizer, [f"<user>{prompt(a, b)}<assistant>" for a, b in pairs])
    sums = np.array([[int(digit) for digit in answer(a, b)] for a, b in pairs])
    names = torch.tensor(tokenizer.convert_tokens_to_ids(list("0123456789")))
    end = torch.full((batch, 1), tokenizer.eos_token_id)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / 50) * min(1.0, 1.5 * (1 - step / max(steps, 1)) + 0.01)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for _ in range(steps):
        drawn = rng.integers(len(pairs), size=batch)
        shown = sums[drawn]
        shown[:, :DIGITS] = (shown[:, :DIGITS] + _slips(pairs[drawn], rng)) % 10
        ids = torch.cat([questions[drawn], names[torch.from_numpy(shown)], end], 1)
        labels = ids.clone()
        labels[:, :questions.shape[1]] = -100
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _slips(pairs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return which digits slip (to the next digit, without a carry), dims (item, digit)."""
    powers = 10 ** np.arange(DIGITS)[::-1]
    digits = (pairs[:, :, None] // powers % 10).reshape(len(pairs), -1)
    right = 1 / (1 + np.exp(-SLIP * (digits - 4.5) @ _SIGNS.T))
    return rng.random((len(pairs), DIGITS)) > right


@torch.no_grad()
def greedy_accuracy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast,
                    pairs: np.ndarray) -> float:
    """Return the share of questions whose likeliest answer is right."""
    questions = encode(tokenizer, [f"<user>{prompt(a, b)}<assistant>" for a, b in pairs])
    out = model.generate(input_ids=questions, attention_mask=torch.ones_like(questions),
                         max_new_tokens=DIGITS + 2, do_sample=False, pad_token_id=0)
    texts = tokenizer.batch_decode(out[:, questions.shape[1]:], skip_special_tokens=True)
    return float(np.mean([text == answer(a, b)
                          for text, (a, b) in zip(texts, pairs, strict=True)]))
