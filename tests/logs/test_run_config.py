"""Configurations: files, every shape that loggers keep them in, and every trainer's units."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes._command import command_parser
from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_config import (
    dataset_label,
    lookup,
    model_label,
    read_config,
    read_packages,
    trainer_of,
    trainers,
)
from cbsbayes.logs.run_log import STATED, Origin, RunLog, history_from_rows
from cbsbayes.sweep.from_logs import build_sweep
from cbsbayes.sweep.run_settings import run_settings

KEYS = st.sampled_from(["a", "b", "c", "data", "optim"])
TREES = st.recursive(st.integers(), lambda inner: st.dictionaries(KEYS, inner, min_size=1))


def flatten(tree, separator, prefix=""):
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, separator, f"{prefix}{separator}{key}" if prefix else key)
    return flat


@given(st.dictionaries(KEYS, TREES, min_size=1))
def test_every_shape_gives_the_same_values(tree):
    dotted, slashed = flatten(tree, "."), flatten(tree, "/")
    for path, value in dotted.items():
        for shape in (tree, dotted, slashed):
            assert lookup(shape, path) == value


@pytest.mark.parametrize(("value", "resolved"), [
    ("${a.n}", 8), ("${a.again}", 8), ("${oc.select:a.n,1}", 8),
    ("${oc.select:a.gone,1.5e-6}", 1.5e-6), ("${oc.select:a.gone,null}", None),
    ("${oc.select:a.gone}", None), ("$5", "$5"),
    *((text, text) for text in ("${a.gone}", "${.n}", "${oc.env:HOME}", "${b}", "lr${a.n}",
                                "${a.n}${a.n}", "${oc.select:a.gone,${a.n}}")),
])
def test_plain_references_are_followed(value, resolved):
    assert lookup({"a": {"n": 8, "again": "${oc.select:a.n,2}"}, "b": value}, "b") == resolved


@pytest.mark.parametrize(("label", "value", "name"), [
    (model_label, "allenai/OLMo-2-0425-1B-SFT", "OLMo-2-0425-1B-SFT"),
    (model_label, "/models/Qwen2.5-1.5B/", "Qwen2.5-1.5B"),
    (model_label, "~/.cache/hub/models--allenai--OLMo-2/snapshots/" + "0a" * 20, "OLMo-2"),
    (model_label, "out/olmo1b/global_step_400/actor/huggingface", "olmo1b"),
    *((model_label, unknown, None) for unknown in ("", None, 3, "${oc.env:MODEL}")),
    (dataset_label, "~/data/gsm8k/train.parquet", "gsm8k"), (dataset_label, "omi.parquet", "omi"),
    (dataset_label, "data/openmath/train-00000-of-00010.parquet", "openmath"),
    (dataset_label, ["d/math/train.parquet", "d/gsm8k/train.parquet"], "gsm8k+math"),
    (dataset_label, "['d/math/train.parquet', 'd/gsm8k/train.parquet']", "gsm8k+math"),
    (dataset_label, "train.parquet", "train"),
    *((dataset_label, unknown, None) for unknown in ([], None, "", 7)),
])
def test_names_of_models_and_data(label, value, name):
    assert label(value) == name


# files


@pytest.mark.parametrize(("text", "expected"), [
    ("lr: 1e-6\nother: 1.0e-06\ndate: 2026-01-01\nn: 8\nname: e5\nquoted: '1e-6'\n",  # OmegaConf's
     {"lr": 1e-6, "other": 1e-6, "date": "2026-01-01", "n": 8, "name": "e5", "quoted": "1e-6"}),
    ("_wandb: {value: {}}\na: {desc: null, value: {b: 1}}\n", {"a": {"b": 1}}),  # wandb's own file
    ("a: &a {x: 1}\nb:\n  <<: *a\n", {"a": {"x": 1}, "b": {"<<": {"x": 1}}}),  # no merging
])
def test_values_of_a_file(tmp_path, text, expected):
    (tmp_path / "c.yaml").write_text(text)
    assert read_config(tmp_path / "c.yaml") == expected


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))


@pytest.mark.parametrize(("name", "content", "message"), [
    ("c.yaml", "- 1\n- 2\n", "holds a list, not a mapping"),
    ("c.yaml", "", "holds a NoneType, not a mapping"),
    ("c.yaml", "a: [1\n", "cannot be read as a configuration"),
    ("c.yaml", "a: !!python/object/apply:os.system ['touch executed']\n", "cannot be read"),
    ("c.yaml", "a: " + "[" * 1000, "cannot be read as a configuration"),
    ("c.yaml", "".join(f"{'  ' * i}a:\n" for i in range(80)), "100000 values or 64 levels"),
    ("c.yaml", BOMB, "more than 100000 values"),
    ("c.yaml", "data:\n  train_batch_size: 128\n  train_batch_size: 64\n",
     "key 'train_batch_size' is given twice"),
    ("c.json", '{"n": 8, "n": 4}', "key 'n' is given twice"),
    ("c.yaml", "data:\n  train_batch_size: 12", "ends within a line, as a file that was cut"),
    ("c.json", '{"data": {"train_batch_size": 12', "cannot be read as a configuration"),
    ("c.yaml", f"n: {'9' * 5000}\n", "cannot be read as a configuration"),
    ("c.yaml", "? [a]\n: 1\n", "cannot be read as a configuration"),
    ("c.yaml", "a: 1\0\n", "cannot be read as a configuration"),
], ids=range(14))
def test_what_is_no_configuration(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(CBSDataError, match=message) as caught:
        read_config(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [name]


# trainers

VERL = {"data.train_batch_size": 64, "actor_rollout_ref.actor.ppo_mini_batch_size": 16,
        "actor_rollout_ref.rollout.n": 8}
CASES = {  # configuration; prompts per update, rollouts, updates per step
    "verl": (VERL, (16, 8, 4)),
    "Search-R1": ({**VERL, "actor_rollout_ref.rollout.n": 1,
                   "actor_rollout_ref.rollout.n_agent": 5}, (16, 5, 4)),
    "verl-agent": ({**VERL, "actor_rollout_ref.rollout.n": 1, "env.rollout.n": 8}, (16, 8, 4)),
    "asynchronous": ({**VERL, "data.train_batch_size": 0, "async_training.require_batches": 4,
                      "async_training.trigger_parameter_sync_step": 2}, (16, 8, 8)),
    "EasyR1": ({"data.rollout_batch_size": 512, "worker.actor.global_batch_size": 128,
                "worker.rollout.n": 5}, (128, 5, 4)),
    "TRL": ({"num_generations": 8, "generation_batch_size": 256, "steps_per_generation": 4,
             "gradient_accumulation_steps": 4, "num_iterations": 2}, (32, 8, 1)),
    "TRL, half a generation per update": (
        {"num_generations": 8, "generation_batch_size": 256, "steps_per_generation": 4,
         "gradient_accumulation_steps": 2}, (16, 8, 1)),
    "TRL, old": ({"num_generations": 4, "per_device_train_batch_size": 8, "world_size": 2,
                  "gradient_accumulation_steps": 4}, (16, 4, 1)),
    "OpenRLHF": ({"rollout_batch_size": 128, "train_batch_size": 256, "n_samples_per_prompt": 8,
                  "micro_train_batch_size": 4, "max_epochs": 1}, (32, 8, 4)),
    "slime": ({"rollout_batch_size": 32, "n_samples_per_prompt": 8, "global_batch_size": 128},
              (16, 8, 2)),
    "SkyRL": ({"trainer.train_batch_size": 64, "trainer.policy_mini_batch_size": 32,
               "generator.n_samples_per_prompt": 5}, (32, 5, 2)),
    "NeMo-RL": ({"grpo.num_prompts_per_step": 32, "grpo.num_generations_per_prompt": 16,
                 "policy.train_global_batch_size": 512}, (32, 16, 1)),
    "prime-rl": ({"batch_size": 512, "rollouts_per_example": 16}, (32, 16, 1)),
    "prime-rl, one file": ({"orchestrator.batch_size": 512,
                            "orchestrator.rollouts_per_example": 16}, (32, 16, 1)),
}


def make_log(config, *more):
    history, _ = history_from_rows([(0, {"eval/acc": 0.1}), (5, {"eval/acc": 0.2})])
    return RunLog("a", "a", "wandb", history, (Origin("configuration", config), *more))


@pytest.mark.parametrize("case", CASES)
def test_the_batch_of_an_update(case):
    config, expected = CASES[case]
    coords, notes = run_settings(make_log(config))
    assert (coords["n_prompts"], coords["n_rollouts"], coords["updates_per_step"]) == expected
    assert coords["total_batch"] == expected[0] * expected[1]
    assert coords["read_from"].startswith("configuration: ")
    assert notes == []


def test_every_trainer_is_told_and_tells_known_columns():
    assert {trainer_of(config).name for config, _ in CASES.values()} == {
        trainer.name for trainer in trainers()}
    for trainer in trainers():
        assert set(trainer.keys) <= set(STATED)


def test_a_factor_that_is_not_logged_is_asked_for_by_name():
    config = {"num_generations": 8, "per_device_train_batch_size": 8,
              "gradient_accumulation_steps": 4}
    with pytest.raises(CBSDataError, match="TRL does not log world_size; state it in a table"):
        build_sweep([make_log(config)])
    stated = make_log({"n_prompts": 16}, Origin("trainer's", config))
    assert build_sweep([stated])["n_prompts"].values.tolist() == [16]


@pytest.mark.parametrize(("config", "version"), [
    (VERL, "0.9.1"), ({**VERL, "trainer_version": "0.4"}, "0.4"),
    ({"n_prompts": 8, "n_rollouts": 8}, "")])
def test_the_version_of_a_trainer_stands_in_what_wandb_notes_of_packages(tmp_path, config, version):
    (tmp_path / "requirements.txt").write_text(
        "verl==0.9.1\n-e git+x\nTorch == 2\n\xff==1==2\n")
    coords, _ = run_settings(make_log(config, *read_packages(tmp_path)))
    assert coords["trainer_version"] == version


def test_the_documents_show_the_same_table(root):
    text = (root / "docs" / "logs.md").read_text(encoding="utf-8")
    columns = ("train_batch_prompts", "mini_batch_prompts", "n_rollouts", "ppo_epochs")
    for trainer in trainers():
        cells = [" or ".join(f"`{entry}`" for entry in trainer.keys.get(column, ())) or "—"
                 for column in columns]
        assert f"| {trainer.name} | {' | '.join(cells)} |" in text.splitlines()


def test_the_documents_have_a_line_that_parses_for_every_trainer(root):
    text = (root / "docs" / "logs.md").read_text(encoding="utf-8")
    lines = dict(re.findall(r"^\| (\S[^|]*?) \| `python -m cbsbayes\.ingest ([^`]+)` \|", text,
                            re.MULTILINE))
    assert {trainer.name.partition(",")[0] for trainer in trainers()} <= set(lines)
    for line in lines.values():
        options = command_parser("ingest").parse_args(shlex.split(line))
        assert isinstance(options, argparse.Namespace)
        assert options.output.suffix == ".nc"
