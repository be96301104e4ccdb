"""Reading a trainer's configuration: values by dotted path, labels, and what makes it the same.

Loggers keep verl's nested configuration in three shapes: nested (wandb, side-car YAML), flat with
dots (wandb tables) and flat with slashes (MLflow); mixtures occur. Values are data and nothing
in them is run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

__all__ = ["config_key", "dataset_label", "lookup", "model_label"]

_VOLATILE = frozenset({
    "resume_mode", "resume_from_path", "default_local_dir", "default_hdfs_dir", "logger",
    "n_gpus_per_node", "nnodes", "n_nodes", "save_freq", "test_freq", "val_before_train",
    "val_only", "total_epochs", "total_training_steps", "device", "gpu_memory_utilization",
    "rollout_data_dir", "validation_data_dir", "log_val_generations", "del_local_ckpt_after_load",
    "max_actor_ckpt_to_keep", "max_critic_ckpt_to_keep", "ray_wait_register_center_timeout",
    "use_dynamic_bsz", "tensor_model_parallel_size", "ulysses_sequence_parallel_size",
    "dataloader_num_workers", "save_path", "balance_batch",
})
_VOLATILE_TOPS = frozenset({"_wandb", "hydra", "ray_kwargs", "ray_init", "global_profiler",
                            "transfer_queue"})
_VOLATILE_ENDS = ("_per_gpu", "max_token_len", "micro_batch_size")
_REFERENCE = re.compile(r"\$\{(oc\.select:)?\s*(\w+(?:\.\w+)*)\s*(?:,([\w.+\- ]*))?\}")
_MOST_HOPS = 8  # references may go in a circle
_COMMIT = re.compile(r"[0-9a-f]{40}")
_STEPS = re.compile(r"(?:global_step|checkpoint|step)[-_]?[0-9]+")
_SPLITS = frozenset({"train", "training", "data", "dataset"})


def lookup(config: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, whatever shape the configuration has.

    OmegaConf's plain references ``${a.b}`` and ``${oc.select:a.b,default}`` are followed.

    Parameters
    ----------
    config : mapping
        Nested, flat with dots, flat with slashes, or a mixture.
    path : str
        For instance ``data.train_batch_size``.

    Returns
    -------
    object
        The value, or None where there is none; a reference to nothing comes back as its text.
    """
    value = _at(config, path)
    for _ in range(_MOST_HOPS):
        reference = _REFERENCE.fullmatch(value.strip()) if isinstance(value, str) else None
        if reference is None:
            return value
        target = _at(config, reference[2])
        if target is None and not reference[1]:
            return value
        value = yaml.safe_load(reference[3] or "null") if target is None else target
    return value


def _at(config: Mapping[str, Any], path: str) -> Any:
    parts = path.split(".")
    for n in range(1, len(parts) + 1):
        for separator in "./" if n > 1 else ".":
            value = config.get(separator.join(parts[:n]))
            if n == len(parts) and value is not None:
                return value
            if isinstance(value, Mapping):
                inner = _at(value, ".".join(parts[n:]))
                if inner is not None:
                    return inner
    return None


def model_label(path: Any) -> str | None:
    """Return a model's name from its path: the last part that names it.

    Snapshot hashes and checkpoint numbers do not; ``models--allenai--OLMo-2-0425-1B`` of the
    Hugging Face cache does.
    """
    if not isinstance(path, str) or "${" in path:
        return None
    for part in reversed(PurePosixPath(path.strip().rstrip("/").replace("\\", "/")).parts):
        if _COMMIT.fullmatch(part) or _STEPS.fullmatch(part) or part in (
                "snapshots", "huggingface", "actor", "hf", "/", ".", ".."):
            continue
        return part.rpartition("--")[2]
    return None


def dataset_label(files: Any) -> str | None:
    """Return the training data's name from one path or several.

    A file called ``train.parquet`` is named by its folder; several files are joined by ``+``.
    """
    if isinstance(files, str) and files.strip().startswith("["):
        files = [part.strip(" '\"") for part in files.strip()[1:-1].split(",")]
    paths = [files] if isinstance(files, str) else files if isinstance(files, list | tuple) else []
    labels = [_file_label(path) for path in paths if isinstance(path, str) and "${" not in path]
    return "+".join(sorted({label for label in labels if label})) or None


def _file_label(path: str) -> str:
    parts = [part for part in PurePosixPath(path.strip().replace("\\", "/")).parts
             if part not in ("/", ".", "..", "~")]
    if not parts:
        return ""
    stem = parts[-1].split(".")[0]
    for part in [stem, *reversed(parts[:-1])]:
        if re.split(r"[-_]", part)[0].lower() not in _SPLITS:
            return part
    return stem


def config_key(config: Mapping[str, Any]) -> str:
    """Return a hash of what makes two configurations the same experiment.

    Paths, resuming, loggers, hardware and the length of the run do not count: a restart may
    change them.
    """
    kept: list[tuple[str, str]] = []
    _gather(config, "", kept)
    return hashlib.sha256(repr(sorted(kept)).encode(errors="backslashreplace")).hexdigest()


def _gather(config: Mapping[str, Any], prefix: str, kept: list[tuple[str, str]]) -> None:
    for key, value in config.items():
        path = f"{prefix}{key}".replace("/", ".")
        if isinstance(value, Mapping):
            _gather(value, f"{path}.", kept)
        elif _matters(path):
            kept.append((path, repr(value)))


def _matters(path: str) -> bool:
    top, last = path.partition(".")[0], path.rpartition(".")[2]
    return not (top in _VOLATILE_TOPS or last in _VOLATILE or last.endswith(_VOLATILE_ENDS))
