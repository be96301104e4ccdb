"""Run names: ``cbs_{phase}_{model}_{dataset}_np{n_prompts}_nr{n_rollouts}`` and their suffixes.

A name is read from both ends. It starts with ``cbs_`` and a phase (known phases first, the
longest first, because ``p4_math`` is one phase); the batch begins at the first part that is
``np`` or ``nr`` and digits; from there on every part must be one of

==========  ==================================================================
``np128``   prompts per trainer step (verl's ``train_batch_size``)
``nr8``     rollouts per prompt
``ep4``     PPO epochs
``lr1e-6``  learning rate
``mbs128``  prompts per optimizer update (verl's ``ppo_mini_batch_size``)
``cr0.2``   clip ratio
``s3``      seed, also written ``seed3``
==========  ==================================================================

in any order and each at most once. What lies between is empty (the short form) or model and
dataset: the last underscore-part is the dataset and everything before it the model, so
``olmo_1b_omi`` is model ``olmo_1b`` on dataset ``omi``. Anything else is no such name.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbsbayes.errors import CBSDataError

__all__ = ["PHASES", "RunName", "build_name", "file_stem", "is_generic", "parse_name", "run_name"]

PHASES = ("p4_math", "p4_rpp", "reuse", "p2a", "p2b", "p2c", "p1", "p2", "p4", "lr")
"""Known phases, the longest first; any other ``p``, digits and at most one letter passes too."""

_BATCH = r"(?:np|nr)[0-9]{1,9}(?=_|$)"
_PART = rf"(?!{_BATCH})[^\s_/]+"
_NAME = re.compile(
    rf"cbs_(?P<phase>{'|'.join(PHASES)}|p[0-9]+[a-z]?)"
    rf"(?:_(?P<model>{_PART}(?:_{_PART})*)_(?P<dataset>{_PART}))?_(?P<tokens>{_BATCH}.*)", re.ASCII)
_FLOAT = r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,3})?"
_TOKEN = re.compile(rf"(np|nr|ep|mbs|seed|s)([0-9]{{1,9}})|(lr|cr)({_FLOAT})")
_FIELDS = {"np": "n_prompts", "nr": "n_rollouts", "ep": "ppo_epochs", "lr": "learning_rate",
           "mbs": "mini_batch_prompts", "cr": "clip_ratio", "s": "seed"}

_SUFFIX = re.compile(r"\.(?:gz|log|txt|out|err|jsonl?|csv|tsv|parquet|console)(?:\.[0-9]{1,3})?",
                     re.IGNORECASE)
_LONGEST = 1000  # characters of a name
_GENERIC = re.compile(
    r"(?:train(?:ing|er)?|metrics?|output|logs?|main(?:_ppo)?|std(?:out|err)|console|history|"
    r"progress|files|experiment_log|verl_file_logger|trainer_(?:state|log)|checkpoint[-_][0-9]+)",
    re.IGNORECASE)


@dataclass(frozen=True)
class RunName:
    """What a run name says; ``None`` or ``""`` where it says nothing.

    Attributes
    ----------
    phase, model, dataset : str
        Labels; model and dataset are empty in the short form.
    n_prompts : int
        Prompts per trainer step.
    n_rollouts : int
        Rollouts per prompt.
    ppo_epochs, mini_batch_prompts, seed : int or None
        Passes over a batch, prompts per optimizer update, seed.
    learning_rate, clip_ratio : float or None
        Learning rate and PPO's clip ratio.
    """

    phase: str
    n_prompts: int
    n_rollouts: int
    model: str = ""
    dataset: str = ""
    ppo_epochs: int | None = None
    learning_rate: float | None = None
    mini_batch_prompts: int | None = None
    clip_ratio: float | None = None
    seed: int | None = None


def file_stem(path: Path) -> str:
    """Return a log's name without suffixes: ``kl`` for ``kl.jsonl`` and ``kl.console.log``."""
    name = path.name
    while not path.is_dir() and (found := re.search(rf"{_SUFFIX.pattern}$", name, re.IGNORECASE)):
        if not found.start():
            break
        name = name[: found.start()]
    return name


def is_generic(path: Path) -> bool:
    """Return whether a log's name says nothing of its run: ``train.log``, ``metrics.jsonl``."""
    return _GENERIC.fullmatch(file_stem(path)) is not None


def run_name(path: Path, root: Path) -> str:
    """Return a run's name from its log, or from the log's folder where the log's is generic.

    Parameters
    ----------
    path : Path
        The log, or the folder of event files.
    root : Path
        The folder given by the user; folders above it say nothing.
    """
    folders = [folder for folder in path.resolve().parents if folder.is_relative_to(root.resolve())]
    named = (place.name for place in folders if place.name and not _GENERIC.fullmatch(place.name))
    return next(named, root.resolve().name) if is_generic(path) else file_stem(path)


def parse_name(name: str) -> RunName | None:
    """Return what `name` says, or None where it does not follow the pattern.

    A batch axis of zero, a suffix given twice and an unknown suffix make it no such name.

    Parameters
    ----------
    name : str
        Display name of a run.

    Returns
    -------
    RunName or None
    """
    found = _NAME.fullmatch(name) if len(name) <= _LONGEST else None
    if found is None:
        return None
    values: dict[str, Any] = {}
    for token in found["tokens"].split("_"):
        part = _TOKEN.fullmatch(token)
        if part is None:
            return None
        field = _FIELDS[(part[1] or part[3]).replace("seed", "s")]
        value: float = int(part[2]) if part[1] else float(part[4])
        sensible = value > 0 or field in ("seed", "clip_ratio")
        if field in values or not (sensible and math.isfinite(value)):
            return None
        values[field] = value
    if not {"n_prompts", "n_rollouts"} <= set(values):
        return None
    return RunName(phase=found["phase"], model=found["model"] or "",
                   dataset=found["dataset"] or "", **values)


def build_name(parts: RunName) -> str:
    """Return the run name that `parse_name` reads back as `parts`.

    Parameters
    ----------
    parts : RunName
        What the name must say.

    Returns
    -------
    str

    Raises
    ------
    CBSDataError
        If no name can say it, for instance with a dataset that holds an underscore.
    """
    labels = [parts.model, parts.dataset] if parts.model or parts.dataset else []
    values = {prefix: getattr(parts, field) for prefix, field in _FIELDS.items()}
    tokens = [prefix + re.sub(r"e([+-])0*", r"e\1", repr(value))  # 1e-6 rather than 1e-06
              for prefix, value in values.items() if value is not None]
    name = "_".join(["cbs", parts.phase, *labels, *tokens])
    if parse_name(name) != parts:
        raise CBSDataError(f"no run name says {parts}: {name!r} reads back as {parse_name(name)}; "
                           "use labels without spaces, slashes and underscores (a model may "
                           "hold underscores) and positive batch sizes")
    return name
