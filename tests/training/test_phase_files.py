"""Phases as data: what the study names is there, and a wrong definition is a clear line."""

from __future__ import annotations

import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_name import parse_name
from training.cells import largest_divisor
from training.controls import CONTROLS_FILE
from training.definitions import PHASES_FOLDER, phase_names, read_phase, with_machines

HEAD = 'title = "t"\nhardware = "gpu"\nmodel = "olmo1b"\ndataset = "omi"\nalgorithm = "grpo"\n'
BLOCK = "[[block]]\nn_prompts = [32, 64]\nn_rollouts = 8\n"


def defined(tmp_path, text, controls=CONTROLS_FILE):
    (tmp_path / "p1.toml").write_text(text)
    return read_phase("p1", folder=tmp_path, controls=controls)


def grid(phase, *axes):
    return {tuple(getattr(cell, axis) for axis in axes) for cell in phase.cells}


@pytest.mark.parametrize(("name", "expected"), [
    ("p1", {(n, 8) for n in (32, 64, 128, 256, 512, 1024)}),
    ("p2a", {(n, 8) for n in (32, 64, 128, 256, 512, 1024)}),
    ("p2b", {(128, m) for m in (1, 2, 4, 8, 16, 32, 64)}),
    ("p2c", {(2048, 1), (1024, 2), (512, 4), (256, 8), (128, 16), (64, 32)}),
])
def test_designs_of_the_seed_study(name, expected):
    phase = read_phase(name)
    assert grid(phase, "n_prompts", "n_rollouts") == expected
    assert len(phase.cells) == len(expected) * 3


def test_variants_change_only_what_they_say():
    assert {cell.ppo_epochs for cell in read_phase("reuse").cells} == {2, 4, 8}
    assert {cell.data.train for cell in read_phase("p4_math").cells} == {
        "{data}/math/train.parquet"}
    assert {cell.algorithm for cell in read_phase("p4_rpp").cells} == {"reinforce_plus_plus"}
    assert {cell.learning_rate for cell in read_phase("lr").cells} == {3e-7, 3e-6}


@pytest.mark.parametrize("name", ["p1", "p2a", "p2b", "p2c", "reuse", "p4_math", "p4_rpp", "lr"])
def test_controls_are_the_seed_study_s(name):
    for cell in read_phase(name).cells:
        controls = cell.controls
        assert controls.optimizer.learning_rate == 1e-6
        assert (controls.optimizer.kl_loss, controls.optimizer.kl_loss_coef) == (True, 0.001)
        assert (controls.sampling.prompt_tokens, controls.sampling.response_tokens) == (1024, 2048)
        assert (controls.sampling.temperature, controls.validation.temperature) == (1.0, 0.0)
        assert controls.validation.before_training
        assert controls.gradient_noise.every_updates > 0
        assert cell.mini_batch_prompts == cell.n_prompts


@pytest.mark.parametrize("name", phase_names())
def test_names_are_unique_and_read_back_and_every_batch_has_its_share(name):
    cells = read_phase(name).cells
    assert len({cell.name for cell in cells}) == len(cells)
    assert len({cell.rollout_seed for cell in cells}) == len(cells)  # the data order is the seed's
    for cell in cells:
        parsed = parse_name(cell.name)
        assert (parsed.n_prompts, parsed.n_rollouts, parsed.seed) == (
            cell.n_prompts, cell.n_rollouts, cell.seed)
        assert (parsed.model, parsed.dataset) == (cell.model, cell.dataset)
        assert parsed.ppo_epochs == (cell.ppo_epochs if cell.ppo_epochs > 1 else None)
        assert parsed.learning_rate in (None, cell.learning_rate)
        updates, horizon = cell.steps * cell.updates_per_step, cell.controls.horizon
        wanted = horizon.updates + horizon.samples / cell.total_batch
        assert wanted <= updates < wanted + cell.updates_per_step
        assert cell.n_validations >= 3


def test_blocks_share_cells_take_pairs_and_follow_the_mini_batch_rule(tmp_path):
    text = HEAD + BLOCK + '[[block]]\nphase = "p2b"\nn_prompts = 32\nn_rollouts = [8, 16]\n'
    cells = defined(tmp_path, text).cells
    assert [(c.phase, c.n_prompts, c.n_rollouts) for c in cells if c.seed == 1] == [
        ("p1", 32, 8), ("p1", 64, 8), ("p2b", 32, 16)]
    phase = defined(tmp_path, HEAD + '[[block]]\ncombine = "pair"\nn_prompts = [32, 64]\n'
                    "n_rollouts = [16, 8]\nlearning_rate = 1e-5\n")
    assert grid(phase, "n_prompts", "n_rollouts", "learning_rate") == {(32, 16, 1e-5),
                                                                       (64, 8, 1e-5)}
    phase = defined(tmp_path, HEAD + "[optimizer]\nmini_batch = 256\n"
                    "[[block]]\nn_prompts = [128, 256, 1024]\nn_rollouts = 8\n")
    assert [(c.mini_batch_prompts, c.updates_per_step) for c in phase.cells[:3]] == [
        (128, 1), (256, 1), (256, 4)]
    assert "_mbs256_" in phase.cells[2].name


@pytest.mark.parametrize("name", ["p9", "../controls"])
def test_unknown_phase_lists_the_valid_ones(name):
    with pytest.raises(CBSDataError, match=r"unknown phase '.*'; valid: lr, p1, p2a"):
        read_phase(name)


@pytest.mark.parametrize(("text", "message"), [
    ("title = x", r"p1\.toml cannot be read as TOML: .*line 1"),
    (BLOCK, "title is None"),
    (HEAD, r"has no \[\[block\]\]"),
    ("colour = 1\n" + HEAD + BLOCK, "unknown key 'colour'; valid: title"),
    (HEAD.replace("grpo", "dpo") + BLOCK, "algorithm is 'dpo'; valid: grpo"),
    (HEAD.replace("olmo1b", "llama") + BLOCK, "'llama' is not among the models"),
    (HEAD + "[optimizer]\nlearning_rte = 1e-6\n" + BLOCK, "unknown key 'learning_rte'"),
    (HEAD + "[optimizer]\nlearning_rate = 0\n" + BLOCK, "learning_rate is 0.0; valid: a positive"),
    (HEAD + "[optimizer]\nkl_loss = 1\n" + BLOCK, "kl_loss is 1; valid: bool"),
    (HEAD + "[seeds]\nreplicates = [1.5]\n" + BLOCK, r"replicates is 1\.5; valid: int"),
    (HEAD + "optimizer = 3\n" + BLOCK, r"\[optimizer\] is 3; valid: a table"),
    (HEAD + "[[block]]\nn_prompts = 32\n", "lacks n_rollouts"),
    (HEAD + "[[block]]\nn_prompts = true\nn_rollouts = 8\n", "n_prompts holds True"),
    (HEAD + "[[block]]\nn_prompts = []\nn_rollouts = 8\n", "n_prompts is an empty list"),
    (HEAD + BLOCK + 'combine = "zip"\n', "combine is 'zip'; valid: product, pair"),
    (HEAD + '[[block]]\ncombine = "pair"\nn_prompts = [8, 16]\nn_rollouts = [8, 16, 32]\n',
     "n_prompts has 2 values beside 3"),
    (HEAD + BLOCK + 'phase = "q1"\n', "no run name says"),
    (HEAD + "[[block]]\nn_prompts = 128\nn_rollouts = 8\nmini_batch = 256\n",
     "mini-batch of 256 prompts is larger"),
    (HEAD + "[[block]]\nn_prompts = 384\nn_rollouts = 8\nmini_batch = 256\n",
     "do not divide the batch"),
    (HEAD + "[[block]]\nn_prompts = 3\nn_rollouts = 3\n",
     "9 samples per update do not divide over 8 GPUs; use fewer"),
])
def test_wrong_definition_is_one_clear_line(tmp_path, text, message):
    with pytest.raises(CBSDataError, match=message) as caught:
        defined(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_missing_control_is_named(tmp_path):
    text = CONTROLS_FILE.read_text().replace("grad_clip = 1.0\n", "")
    (tmp_path / "controls.toml").write_text(text)
    with pytest.raises(CBSDataError, match=r"\[optimizer\] lacks the key 'grad_clip'"):
        read_phase("p1", folder=PHASES_FOLDER, controls=tmp_path / "controls.toml")


def test_raw_settings_of_verl_replace_those_of_the_hardware(tmp_path):
    attention = "+actor_rollout_ref.model.override_config.attn_implementation"
    own = defined(tmp_path, HEAD + f'[verl]\n"{attention}" = "flash_attention_2"\n' + BLOCK)
    (changed,) = {cell.hardware.verl[attention] for cell in own.cells}
    assert changed == "flash_attention_2"
    same = dict(read_phase("p1").cells[0].hardware.verl) | {attention: changed}
    assert own.cells[0].hardware.verl == same


def test_other_machines():
    phase = with_machines(read_phase("p2b"), gpus=4, nodes=2)
    assert {cell.hardware.n_gpus for cell in phase.cells} == {8}


@pytest.mark.parametrize(("number", "most", "divisor"), [(128, 48, 32), (7, 4, 1), (64, 64, 64),
                                                         (96, 64, 48)])
def test_largest_divisor(number, most, divisor):
    assert largest_divisor(number, most) == divisor
