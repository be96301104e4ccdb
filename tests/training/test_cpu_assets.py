"""The CPU twin's task, model and sampler, without verl."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.errors import CBSDataError
from training.cpu.assets import AssetSettings, build_assets
from training.cpu.task import answer, compute_score, draw, prompt, rows

OPERAND = st.integers(0, 999)


@given(a=OPERAND, b=OPERAND)
def test_answers_are_sums_with_the_lowest_digit_first(a, b):
    assert len(prompt(a, b)) == 8
    assert sum(int(d) * 10**i for i, d in enumerate(answer(a, b))) == a + b
    assert len(answer(a, b)) == 4


@given(a=OPERAND, b=OPERAND, c=OPERAND)
def test_only_the_exact_answer_scores(a, b, c):
    truth = answer(a, b)
    assert compute_score("tiny/add3", f" {truth}\n", truth) == 1
    assert compute_score("tiny/add3", answer(a, c), truth) == float(b == c)
    assert compute_score("tiny/add3", truth[:-1], truth) == 0


def test_training_and_validation_share_no_item():
    train, validation = draw(5000, 500, seed=1)
    pairs = {tuple(pair) for pair in np.concatenate([train, validation]).tolist()}
    assert len(pairs) == 5500
    assert np.array_equal(train, draw(5000, 500, seed=1)[0])
    assert not np.array_equal(train, draw(5000, 500, seed=2)[0])
    first = rows(validation, "test")[0]
    a, b = validation[0]
    assert first["prompt"] == [{"role": "user", "content": prompt(a, b)}]
    assert first["reward_model"]["ground_truth"] == answer(a, b)


def test_a_folder_with_other_content_is_kept(tmp_path):
    (tmp_path / "assets.json").write_text('{"settings": {"steps": 1}}')
    with pytest.raises(CBSDataError, match="was not made with AssetSettings"):
        build_assets(tmp_path, AssetSettings(1600, 16384, 512, seed=0))
    assert (tmp_path / "assets.json").read_text() == '{"settings": {"steps": 1}}'


# torch warns when it is imported beside pytest's strict filters: it runs in a process of its own
MODEL = """
import json, sys
import torch
from training.cpu.sampling import gumbel_noise, sample
from training.cpu.task import draw, prompt
from training.cpu.tiny_model import build_model, build_tokenizer, pretrain

torch.set_num_threads(1)
tokenizer, model = build_tokenizer(), build_model(0)
pairs, _ = draw(64, 8, 0)
pretrain(model, tokenizer, pairs, steps=20, seed=0)
model.eval()
ask = [{"role": "user", "content": prompt(12, 345)}]
ids = tokenizer.apply_chat_template(ask, add_generation_prompt=True, return_dict=False)
prompts = [ids, ids, ids[:6], ids[:4]]
ends = {"max_tokens": 6, "pad_id": 0, "eos_id": 2}
noise = torch.stack([gumbel_noise((7, 0, tuple(p), k), 6, 18) for k, p in enumerate(prompts)])
draws = noise.exp().reciprocal()  # of a standard exponential, where the noise is Gumbel
together = sample(model, prompts, temperature=1.0, noise=noise, **ends)
alone = [sample(model, [p], temperature=1.0, noise=noise[i:i + 1], **ends)[0]
         for i, p in enumerate(prompts)]
greedy = sample(model, prompts[:1], **ends)[0]
theirs = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)),
                        max_new_tokens=6, do_sample=False, pad_token_id=0)[0, len(ids):]
full = torch.tensor([ids + together[0].token_ids])
log_p = model(input_ids=full).logits[0, len(ids) - 1:-1].log_softmax(-1)
log_p = log_p.gather(1, full[0, len(ids):, None])[:, 0]
print(json.dumps({
    "text": tokenizer.decode(ids), "together": [c.token_ids for c in together],
    "alone": [c.token_ids for c in alone], "greedy": greedy.token_ids, "theirs": theirs.tolist(),
    "error": float((log_p - torch.tensor(together[0].log_probs)).abs().max()),
    "mean": float(draws.mean())}))
"""


def test_the_sampler_is_the_model_s_and_depends_on_nothing_beside_it(root):
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (extra: training)")
    done = subprocess.run([sys.executable, "-c", MODEL], cwd=root, text=True, check=True,
                          capture_output=True, timeout=900,
                          env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"})
    sampled = json.loads(done.stdout.splitlines()[-1])
    assert sampled["text"] == "<user>012+345=<assistant>"
    assert sampled["together"] == sampled["alone"]
    assert sampled["together"][0] != sampled["together"][1]  # another rollout of the same prompt
    assert sampled["greedy"] == sampled["theirs"]
    assert sampled["error"] < 1e-5
    assert sampled["mean"] == pytest.approx(1, abs=0.2)  # 432 draws of mean 1 and variance 1
