"""Cells as verl commands: every one composes under verl's own Hydra configuration."""

from __future__ import annotations

import dataclasses
import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeps import changed, needs_verl, tiny_cells

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_config import lookup, read_config
from training.compose import compose, config_text
from training.definitions import phase_names, read_phase
from training.verl_command import (
    Places,
    environment,
    hydra_value,
    identity,
    overrides,
    remote_overrides,
    shell_command,
)

PLACES = Places(Path("outputs/a folder"))
def as_mapping(texts):
    return dict(text.split("=", 1) for text in texts)


@pytest.mark.parametrize("phase", phase_names())
def test_the_cells_of_a_phase_compose_under_verl(phase):
    """Cells differ in values of the same keys; the first and the last are composed."""
    needs_verl()
    cells = read_phase(phase).cells
    assert len({tuple(as_mapping(overrides(cell, PLACES))) for cell in cells}) == 1
    for cell in (cells[0], cells[-1]):
        check_composed(cell, compose(overrides(cell, PLACES)))


def check_composed(cell, config):
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert config.data.train_batch_size == cell.n_prompts
    assert (rollout.n, actor.ppo_epochs) == (cell.n_rollouts, cell.ppo_epochs)
    assert actor.ppo_mini_batch_size == cell.mini_batch_prompts
    assert actor.optim.lr == cell.learning_rate
    assert config.algorithm.adv_estimator == cell.algorithm
    assert (config.data.seed, rollout.seed) == (cell.seed, cell.rollout_seed)
    assert actor.use_kl_loss == cell.controls.optimizer.kl_loss
    assert rollout.val_kwargs.temperature == 0
    assert list(config.trainer.logger) == ["console", "file"]
    assert config.trainer.experiment_name == cell.name
    assert config.trainer.total_training_steps == cell.steps
    assert config.phase == cell.phase
    rows = cell.total_batch // cell.hardware.n_gpus
    assert rows % actor.ppo_micro_batch_size_per_gpu == 0
    assert rows % rollout.log_prob_micro_batch_size_per_gpu == 0


@pytest.mark.filterwarnings("ignore")  # verl's imports warn of hardware and of backends
def test_verl_s_own_validation_accepts_the_ends_of_every_phase():
    needs_verl()
    pytest.importorskip("torch")
    from verl.utils.config import validate_config

    for phase in phase_names():
        for cell in (read_phase(phase).cells[0], read_phase(phase).cells[-1]):
            validate_config(compose(overrides(cell, PLACES)), use_critic=False,
                            use_reference_policy=cell.controls.optimizer.kl_loss)


CHANGED = {
    "optimizer": {"learning_rate": ("actor.optim.lr", 3e-4), "weight_decay": ("actor.optim", 0.3),
                  "warmup_updates": ("actor.optim.lr_warmup_steps", 7),
                  "betas": ("actor.optim", (0.8, 0.95)),
                  "grad_clip": ("actor.optim.clip_grad", 0.5), "clip_ratio": ("actor", 0.3),
                  "clip_ratio_c": ("actor", 5.0), "kl_loss": ("actor.use_kl_loss", True),
                  "kl_loss_coef": ("actor", 0.02), "kl_loss_type": ("actor", "kl"),
                  "loss_aggregation": ("actor.loss_agg_mode", "seq-mean-token-mean"),
                  "advantage_over_sd": ("algorithm.norm_adv_by_std_in_grpo", False)},
    "sampling": {"prompt_tokens": ("rollout.prompt_length", 99),
                 "response_tokens": ("rollout.response_length", 77),
                 "temperature": ("rollout", 0.6)},
    "validation": {"temperature": ("rollout.val_kwargs", 0.4)}}


@pytest.mark.filterwarnings("ignore")  # verl's imports warn of hardware and of backends
def test_every_control_acts_in_the_objects_that_verl_builds():
    needs_verl()
    pytest.importorskip("torch")
    from verl.utils.config import omega_conf_to_dataclass

    cell = changed(tiny_cells()[0], **{
        section: {name: value for name, (_, value) in controls.items()}
        for section, controls in CHANGED.items()})
    cell = dataclasses.replace(cell, learning_rate=CHANGED["optimizer"]["learning_rate"][1])
    config = compose(overrides(cell, PLACES))
    built = {"actor": omega_conf_to_dataclass(config.actor_rollout_ref.actor),
             "rollout": omega_conf_to_dataclass(config.actor_rollout_ref.rollout),
             "algorithm": omega_conf_to_dataclass(config.algorithm)}
    for section, controls in CHANGED.items():
        for name, (path, value) in controls.items():
            first, *parts = path.split(".")
            found = functools.reduce(getattr, parts, built[first])
            found = getattr(found, name) if hasattr(found, name) else found
            assert (tuple(found) if isinstance(value, tuple) else found) == value, (section, name)


def test_misspelt_key_is_refused_before_anything_starts():
    needs_verl()
    with pytest.raises(CBSDataError, match=r"verl's configuration refuses .*train_batch_sise"):
        compose(["data.train_batch_sise=3"])


def test_side_car_is_what_the_analysis_reads(tmp_path):
    needs_verl()
    cell = tiny_cells()[0]
    (tmp_path / f"{cell.name}.config.yaml").write_text(config_text(overrides(cell, PLACES)))
    config = read_config(tmp_path / f"{cell.name}.config.yaml")
    assert lookup(config, "data.train_batch_size") == cell.n_prompts
    assert lookup(config, "actor_rollout_ref.actor.optim.lr") == cell.learning_rate
    assert lookup(config, "phase") == cell.phase
    assert lookup(config, "cbs.updates_per_step") == 1
    path = tmp_path / "gpu.config.yaml"
    path.write_text(config_text(overrides(read_phase("p4_rpp").cells[0], PLACES)))
    assert lookup(read_config(path), "algorithm.adv_estimator") == "reinforce_plus_plus"


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"),
                              exclude_characters="$"), min_size=1, max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-10**9, 10**9)
    | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), inner, max_size=3),
    max_leaves=5)


def test_hydra_reads_back_every_value():
    needs_verl()
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()

    @given(VALUES)
    def check(value):
        assert plain(parser.parse_override(f"key={hydra_value(value)}").value()) == value

    check()


def plain(value):
    """Return Hydra's quoted strings, also inside lists and mappings, as plain text."""
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    return value


README = Path(__file__).parents[2] / "training" / "README.md"


def test_readme_s_table_names_what_is_set():
    table = README.read_text().split("## verl's keys")[1].split("##")[0]
    named = {key for line in table.splitlines() if line.startswith("| `")
             for key in re.findall(r"`([^`]+)`", line.split("|")[1])}
    assert len(named) > 20
    cell = tiny_cells()[0]
    known = {*as_mapping(overrides(cell, PLACES)), *environment(cell, PLACES)}
    known |= {key.rpartition(".")[2] for key in known}
    assert {key.lstrip("…") for key in named} <= known
    phases = README.read_text().split("## Phases")[1].split("##")[0]
    assert set(phase_names()) <= set(re.findall(r"`([^`]+)`", phases))


def test_printed_command_is_what_the_shell_would_run(tmp_path):
    cell = tiny_cells()[0]
    places = Places(tmp_path / "it's a folder")
    text = shell_command(cell, places, python="printf '%s\\n'")
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["-m", "verl.trainer.main_ppo", *overrides(cell, places)]


def test_environment_switches_probe_and_plug_in():
    assert "trainer.logger=[console,file,wandb]" in overrides(
        tiny_cells()[0], dataclasses.replace(PLACES, wandb=True))
    tiny, large = tiny_cells()[0], read_phase("p1").cells[0]
    assert environment(tiny, PLACES)["VERL_PLATFORM"] == "cpu"
    assert "VERL_PLATFORM" not in environment(large, PLACES)
    assert environment(large, PLACES)["CBS_GRAD_NOISE_EVERY"] == "20"
    assert environment(large, PLACES)["VERL_FILE_LOGGER_PATH"].endswith(
        f"a folder/logs/{large.name}.jsonl")


def test_checkpoints_decide_how_a_restart_goes_on():
    tiny = as_mapping(overrides(tiny_cells()[0], PLACES))
    large = as_mapping(overrides(read_phase("reuse").cells[0], PLACES))
    assert (tiny["trainer.save_freq"], tiny["trainer.resume_mode"]) == ("-1", "disable")
    assert (large["trainer.save_freq"], large["trainer.resume_mode"]) == ("25", "auto")


def test_remote_run_names_the_environment_and_starts_no_ray():
    needs_verl()
    cell = tiny_cells()[0]
    texts = remote_overrides(cell, PLACES)
    config = compose(texts)
    variables = config.ray_kwargs.ray_init.runtime_env.env_vars
    assert dict(variables) == environment(cell, PLACES)
    assert config.ray_kwargs.ray_init.num_cpus is None
    assert "num_gpus" not in config.ray_kwargs.ray_init


def test_identity_ignores_machines_and_places_but_not_the_design():
    cell = tiny_cells()[0]
    same = dataclasses.replace(
        cell, hardware=dataclasses.replace(cell.hardware, gpus_per_node=2, micro_batch=1))
    assert identity(same, Places(Path("elsewhere"))) == identity(cell, PLACES)
    other = dataclasses.replace(cell, learning_rate=3e-4)
    assert identity(other, PLACES) != identity(cell, PLACES)


def test_listing_imports_neither_torch_nor_verl():
    code = ("import sys, training.sweep; training.sweep.main(['p2c', '--dry-run']);"
            "assert not {'torch', 'verl', 'ray', 'hydra', 'pymc', 'arviz'} & set(sys.modules)")
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True,
                          check=True)
    assert done.stdout.count("verl.trainer.main_ppo") == len(read_phase("p2c").cells)
    assert shlex.split(done.stdout, comments=True)[0] == "env"
