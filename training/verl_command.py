"""From a cell to the exact verl command: Hydra overrides and environment, nothing implied.

Everything that decides the run is an override, also where it repeats verl's default: defaults
move between releases, and the configuration that verl logs then says it all. The table in
``training/README.md`` gives each key's meaning.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.cells import Cell

__all__ = ["MODULE", "Places", "environment", "fill", "hydra_value", "identity", "overrides",
           "remote_overrides", "shell_command"]

MODULE = "verl.trainer.main_ppo"
_ROOT = Path(__file__).resolve().parent.parent
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_WORDS = frozenset({"true", "false", "null", "none", "nan", "inf", "yes", "no", "on", "off"})


@dataclass(frozen=True)
class Places:
    """Where a sweep reads and writes.

    Attributes
    ----------
    output : Path
        The sweep's folder: ``logs/`` for what the analysis reads, ``runs/`` for the rest.
    data : Path
        Prepared data, ``{data}`` in the definitions.
    assets : Path
        The CPU twin's model and data, ``{assets}``.
    model : str
        Another checkpoint than the definition's, or ``""``.
    wandb : bool
        Whether runs also log to wandb.
    project : str
        verl's ``project_name``.
    """

    output: Path
    data: Path = _ROOT / "outputs" / "data"
    assets: Path = _ROOT / "outputs" / "add3"
    model: str = ""
    wandb: bool = False
    project: str = "cbs_rlvr"

    def log(self, name: str) -> Path:
        """Return where verl's file logger writes."""
        return self.output / "logs" / f"{name}.jsonl"

    def side_car(self, name: str) -> Path:
        """Return the place of the resolved configuration, found by the analysis beside the log."""
        return self.output / "logs" / f"{name}.config.yaml"

    def run(self, name: str) -> Path:
        """Return the run's own folder: console, checkpoints, Hydra's and wandb's files."""
        return self.output / "runs" / name


def fill(text: str, places: Places) -> str:
    """Replace ``{data}``, ``{assets}`` and ``{training}`` in a path of a definition."""
    for key, folder in (("data", places.data), ("assets", places.assets),
                        ("training", _ROOT / "training")):
        text = text.replace(f"{{{key}}}", str(folder.absolute()))
    return text


def overrides(cell: Cell, places: Places) -> list[str]:
    """Return verl's command-line overrides for one run.

    Parameters
    ----------
    cell : Cell
        The run.
    places : Places
        Where it reads and writes.

    Returns
    -------
    list of str
        ``key=value`` in Hydra's grammar, in a fixed order.
    """
    settings = {**_batch(cell), **_controls(cell), **_inputs(cell, places),
                **_machine(cell), **_trainer(cell, places), **_record(cell)}
    return [f"{key}={hydra_value(value)}" for key, value in settings.items()]


def identity(cell: Cell, places: Places) -> dict[str, str]:
    """Return the settings that make a run this run and no other, as Hydra writes them.

    Machines, memory-bound sizes, the horizon and where files go do not count: a restart may
    change them.
    """
    settings = {**_batch(cell), **_controls(cell), **_inputs(cell, places), **_record(cell)}
    return {key: hydra_value(value) for key, value in settings.items()}


def _batch(cell: Cell) -> dict[str, Any]:
    """Return the design: what a phase varies."""
    return {
        "algorithm.adv_estimator": cell.algorithm,
        "data.train_batch_size": cell.n_prompts,
        "actor_rollout_ref.rollout.n": cell.n_rollouts,
        "actor_rollout_ref.actor.ppo_mini_batch_size": cell.mini_batch_prompts,
        "actor_rollout_ref.actor.ppo_epochs": cell.ppo_epochs,
        "actor_rollout_ref.actor.optim.lr": cell.learning_rate,
        "data.seed": cell.seed,
        "actor_rollout_ref.actor.data_loader_seed": cell.seed,
        "actor_rollout_ref.rollout.seed": cell.rollout_seed,
    }


def _controls(cell: Cell) -> dict[str, Any]:
    """Return what is held constant."""
    optimizer, sampling = cell.controls.optimizer, cell.controls.sampling
    actor, warmup = "actor_rollout_ref.actor", optimizer.warmup_updates
    return {
        f"{actor}.optim.lr_scheduler_type": "constant",
        f"{actor}.optim.lr_warmup_steps": cell.in_steps(warmup) if warmup else 0,
        f"{actor}.optim.betas": optimizer.betas,
        f"{actor}.optim.weight_decay": optimizer.weight_decay,
        f"{actor}.optim.clip_grad": optimizer.grad_clip,  # the engine reads no actor.grad_clip
        f"{actor}.clip_ratio": optimizer.clip_ratio,
        f"{actor}.clip_ratio_low": optimizer.clip_ratio,
        f"{actor}.clip_ratio_high": optimizer.clip_ratio,
        f"{actor}.clip_ratio_c": optimizer.clip_ratio_c,
        f"{actor}.loss_agg_mode": optimizer.loss_aggregation,
        f"{actor}.use_kl_loss": optimizer.kl_loss,
        f"{actor}.kl_loss_coef": optimizer.kl_loss_coef,
        f"{actor}.kl_loss_type": optimizer.kl_loss_type,
        f"{actor}.entropy_coeff": 0,
        "algorithm.use_kl_in_reward": False,
        "algorithm.norm_adv_by_std_in_grpo": optimizer.advantage_over_sd,
        "data.shuffle": True,
        "data.max_prompt_length": sampling.prompt_tokens,
        "data.max_response_length": sampling.response_tokens,
        "actor_rollout_ref.rollout.temperature": sampling.temperature,
        "actor_rollout_ref.rollout.val_kwargs.temperature": cell.controls.validation.temperature,
        "actor_rollout_ref.rollout.val_kwargs.n": 1,
    }


def _inputs(cell: Cell, places: Places) -> dict[str, Any]:
    return {
        "actor_rollout_ref.model.path": places.model or fill(cell.checkpoint.path, places),
        "data.train_files": [fill(cell.data.train, places)],
        "data.val_files": [fill(path, places) for path in cell.data.validation],
        "reward.custom_reward_function.path": fill(cell.data.reward, places),
        "reward.custom_reward_function.name": "compute_score",
    }


def _machine(cell: Cell) -> dict[str, Any]:
    """Return sizes bound by memory; micro-batches do not change the gradient."""
    hardware, rows = cell.hardware, cell.samples_per_step
    log_prob = cell.micro_batch(hardware.log_prob_micro_batch, rows)
    return {
        "trainer.device": hardware.device,
        "trainer.n_gpus_per_node": hardware.gpus_per_node,
        "trainer.nnodes": hardware.nodes,
        "actor_rollout_ref.actor.use_dynamic_bsz": False,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu":
            cell.micro_batch(hardware.micro_batch, cell.total_batch),
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": log_prob,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": log_prob,
        **hardware.verl,
    }


def _trainer(cell: Cell, places: Places) -> dict[str, Any]:
    checkpoint, validation = cell.controls.checkpoint, cell.controls.validation
    home = places.run(cell.name).absolute()
    return {
        "trainer.project_name": places.project,
        "trainer.experiment_name": cell.name,
        "trainer.logger": ["console", "file", *(["wandb"] if places.wandb else [])],
        "trainer.total_training_steps": cell.steps,
        "trainer.total_epochs": cell.steps,  # an epoch has at least one step: never the bound
        "trainer.test_freq": cell.validation_steps,
        "trainer.val_before_train": validation.before_training,
        "trainer.save_freq": (cell.in_steps(checkpoint.every_updates)
                              if checkpoint.every_updates else -1),
        "trainer.max_actor_ckpt_to_keep": checkpoint.keep,
        "trainer.resume_mode": "auto" if checkpoint.every_updates else "disable",
        "trainer.default_local_dir": str(home / "checkpoints"),
        "hydra.run.dir": str(home / "hydra"),
    }


def _record(cell: Cell) -> dict[str, Any]:
    """Return what verl has no key for, so that configuration and wandb hold it as well."""
    noise = cell.controls.gradient_noise
    return {"+phase": cell.phase,
            "+cbs": {"updates_per_step": cell.updates_per_step,
                     "gradient_noise_every_updates": noise.every_updates,
                     "gradient_noise_micro_batches": noise.micro_batches}}


def environment(cell: Cell, places: Places) -> dict[str, str]:
    """Return the environment variables of one run, those that Ray's workers need included.

    The probe is switched by variables because verl's actor configuration refuses unknown keys.
    """
    noise = cell.controls.gradient_noise
    own = {
        "VERL_FILE_LOGGER_PATH": str(places.log(cell.name).absolute()),
        "WANDB_DIR": str(places.run(cell.name).absolute()),
        "PYTHONPATH": str(_ROOT),
        "CBS_GRAD_NOISE_EVERY": str(noise.every_updates),
        "CBS_GRAD_NOISE_MICRO_BATCHES": str(noise.micro_batches),
    }
    return {**cell.hardware.environment, **own}


def remote_overrides(cell: Cell, places: Places) -> list[str]:
    """Return the overrides of a run in a Ray cluster that is up already.

    What starts a Ray of one's own is left out (Ray refuses it there), and the environment is
    named for Ray: on one machine its workers inherit it, on other nodes they do not.
    """
    start = ("ray_kwargs.ray_init.", "+ray_kwargs.ray_init.")
    variables = [f"+ray_kwargs.ray_init.runtime_env.env_vars.{key}={_quoted(value)}"
                 for key, value in environment(cell, places).items()]
    return [text for text in overrides(cell, places) if not text.startswith(start)] + variables


def shell_command(cell: Cell, places: Places, python: str = "python") -> str:
    """Return the command as one could paste it into a shell, an override a line."""
    variables = [f"{key}={shlex.quote(value)}" for key, value in environment(cell, places).items()]
    lines = [f"# {cell.name}", "env " + " ".join(variables), f"{python} -m {MODULE}",
             *(shlex.quote(text) for text in overrides(cell, places))]
    return lines[0] + "\n" + " \\\n  ".join(lines[1:])


def hydra_value(value: Any) -> str:
    """Write a value in the grammar of Hydra's overrides.

    Parameters
    ----------
    value : object
        None, a bool, a number, a text, or a list or mapping of them.

    Returns
    -------
    str
        Texts are quoted wherever Hydra would read anything else than that text.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        inner = ",".join(f"{key}:{hydra_value(v)}" for key, v in value.items())
        return f"{{{inner}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(hydra_value(v) for v in value)}]"
    return _hydra_text(str(value))


def _hydra_text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS and not _number_like(text):
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    # Backslashes escape only right before a quote or at the end, in Hydra's grammar.
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + (r"\"" if m[2] else ""), text)
    return f'"{escaped}"'


def _number_like(text: str) -> bool:
    try:
        float(text.replace("_", ""))
    except ValueError:
        return False
    return True
