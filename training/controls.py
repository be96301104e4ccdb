"""The controls of a sweep: what is held constant, read from ``controls.toml`` and checked.

Each section of the file is one frozen dataclass here; a phase file may replace single keys of a
section. A misspelt key would silently leave the default in force, so unknown keys are refused.
"""

from __future__ import annotations

import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from cbsbayes.errors import CBSDataError

__all__ = ["CONTROLS_FILE", "Checkpoint", "Controls", "Dataset", "GradientNoise", "Hardware",
           "Horizon", "Model", "Optimizer", "Sampling", "Seeds", "Validation", "read_section",
           "read_toml"]

CONTROLS_FILE = Path(__file__).with_name("controls.toml")


@dataclass(frozen=True)
class Optimizer:
    """Adam, reuse, KL term, clipping; `mini_batch` is ``"train_batch"`` or a number of prompts."""

    learning_rate: float
    warmup_updates: int
    betas: tuple[float, ...]
    ppo_epochs: int
    mini_batch: str | int
    kl_loss: bool
    kl_loss_coef: float
    kl_loss_type: str
    clip_ratio: float
    clip_ratio_c: float
    grad_clip: float
    weight_decay: float
    loss_aggregation: str
    advantage_over_sd: bool


@dataclass(frozen=True)
class Sampling:
    """Lengths in tokens and the temperature of the training rollouts."""

    prompt_tokens: int
    response_tokens: int
    temperature: float


@dataclass(frozen=True)
class Validation:
    """Evaluation every so many optimizer updates, greedy at temperature 0.

    They are further apart where a run would have more than about `evaluations`.
    """

    temperature: float
    every_updates: int
    evaluations: int
    before_training: bool


@dataclass(frozen=True)
class Horizon:
    """A run lasts ``updates + samples / total_batch`` optimizer updates.

    It stops before where every validation set has scored `stop_score` in the last
    `stop_evaluations` evaluations; 0 evaluations: never.
    """

    updates: int
    samples: int
    stop_score: float
    stop_evaluations: int


@dataclass(frozen=True)
class GradientNoise:
    """The probe in the actor: every so many updates (0 = off), from so many micro-batches."""

    every_updates: int
    micro_batches: int


@dataclass(frozen=True)
class Seeds:
    """Replicates; each is a data order that all batch sizes share."""

    replicates: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """Checkpoints every so many updates (0 = none); `keep` of them stay."""

    every_updates: int
    keep: int


@dataclass(frozen=True)
class Model:
    """A checkpoint: name on the hub, or a folder; its parameters, 0 where not given."""

    path: str
    parameters: float = 0.0


@dataclass(frozen=True)
class Dataset:
    """verl's parquet files and the file with the reward function ``compute_score``."""

    train: str
    validation: tuple[str, ...]
    reward: str


@dataclass(frozen=True)
class Hardware:
    """Machines, memory-bound sizes, environment and raw verl settings of one kind of machine.

    CPUs and memory (GB) are what a batch system is asked for per GPU. A GPU's peak (TFLOP/s) and
    the share of it that a run uses estimate GPU-hours before anything was measured; 0: no estimate.
    """

    device: str
    gpus_per_node: int
    nodes: int
    cpus_per_gpu: int
    memory_per_gpu: int
    micro_batch: int
    log_prob_micro_batch: int
    peak_tflops: float = 0.0
    utilisation: float = 0.0
    environment: Mapping[str, str] = field(default_factory=dict)
    verl: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_gpus(self) -> int:
        """GPUs of all nodes, each a data-parallel rank."""
        return self.gpus_per_node * self.nodes


@dataclass(frozen=True)
class Controls:
    """Every section of ``controls.toml`` that the runs of a phase share."""

    optimizer: Optimizer
    sampling: Sampling
    validation: Validation
    horizon: Horizon
    gradient_noise: GradientNoise
    seeds: Seeds
    checkpoint: Checkpoint


_POSITIVE = frozenset({"ppo_epochs", "learning_rate", "prompt_tokens", "response_tokens",
                       "micro_batches", "keep", "gpus_per_node", "nodes", "micro_batch",
                       "cpus_per_gpu", "memory_per_gpu", "evaluations",
                       "log_prob_micro_batch", "grad_clip"})


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    CBSDataError
        If the file is no TOML; the message names the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CBSDataError(f"{path.name} cannot be read as TOML: {error}") from None


def read_section[Section](cls: type[Section], table: Any, origin: str) -> Section:
    """Read one table of a definition into its dataclass.

    Parameters
    ----------
    cls : type
        A dataclass of this module.
    table : object
        What stands in the file.
    origin : str
        File and section, for messages.

    Returns
    -------
    object
        An instance of `cls`.

    Raises
    ------
    CBSDataError
        If it is no table, a key is unknown or missing, or a value is of the wrong kind or below
        what makes sense.
    """
    if not isinstance(table, Mapping):
        raise CBSDataError(f"{origin} is {table!r}; valid: a table of settings")
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise CBSDataError(f"{origin} has the unknown key {unknown[0]!r}; valid: "
                           f"{', '.join(known)}")
    missing = [name for name, f in known.items() if name not in table
               and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise CBSDataError(f"{origin} lacks the key {missing[0]!r}; add it")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _value(value, hints[name], f"{origin}: {name}")
                  for name, value in table.items()})


def _value(value: Any, hint: Any, origin: str) -> Any:
    """Return a value, as TOML gives it, as its field's type."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind is tuple:
        if not isinstance(value, list) or not value:
            raise CBSDataError(f"{origin} is {value!r}; valid: a list that is not empty")
        return tuple(_value(v, inner[0], origin) for v in value)
    options = inner if kind is types.UnionType else (dict if kind is Mapping else hint,)
    if type(value) is int and options == (float,):
        value = float(value)
    if type(value) not in options:
        names = " or ".join("table" if option is dict else option.__name__ for option in options)
        raise CBSDataError(f"{origin} is {value!r}; valid: {names}")
    return _checked(value, origin)


def _checked(value: Any, origin: str) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        least = origin.rpartition(": ")[2] in _POSITIVE
        if not math.isfinite(value) or value < 0 or (least and value == 0):
            kind = "a positive number" if least else "a number from 0"
            raise CBSDataError(f"{origin} is {value!r}; valid: {kind}")
    return value
