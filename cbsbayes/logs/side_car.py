"""The configuration that lies beside a log: a side-car file or Hydra's own copy.

verl's file and console loggers do not store the run's configuration, so it is taken from
``<name>.config.yaml`` (``.yml``, ``.json``) beside the log, or from ``.hydra/config.yaml`` in
the log's folder or above it. Values are data: YAML is read by the safe loader and of OmegaConf's
interpolations only plain references into the same file are followed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.history import listed

__all__ = ["find_config", "read_config", "resolve", "run_name"]

_SUFFIXES = (".config.yaml", ".config.yml", ".config.json")
_REFERENCE = re.compile(r"\$\{(?:oc\.select:)?\s*(\w+(?:\.\w+)*)\s*(?:,(.*))?\}", re.DOTALL)
_MAX_VALUES = 100_000  # verl's whole configuration has about 1,000; YAML aliases can multiply
_MAX_DEPTH = 64


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that reads ``1e-6`` as a number, as OmegaConf does."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


def run_name(path: Path) -> str:
    """Return a run's name from its log: ``kl`` for ``kl.jsonl``, ``kl.console.log``, ``kl/``."""
    return path.name if path.is_dir() else path.stem.removesuffix(".console")


def find_config(log: Path, root: Path) -> tuple[dict[str, Any], list[str]]:
    """Find and read the configuration of one log.

    Parameters
    ----------
    log : Path
        The log file, or the folder that holds it.
    root : Path
        The folder given by the user; nothing above it is looked at.

    Returns
    -------
    config : dict
        Nested plain values, empty where no configuration lies near the log.
    notes : list of str
        What was left out of the configuration, or why one was not used.
    """
    beside = [log.parent / (run_name(log) + suffix) for suffix in _SUFFIXES]
    for candidate in beside:
        if candidate.is_file():
            return read_config(candidate)
    home = log if log.is_dir() else log.parent
    folders = [home, *(p for p in home.parents if p.is_relative_to(root))]
    for folder in folders:
        candidate = folder / ".hydra" / "config.yaml"
        if candidate.is_file():
            return _of_hydra(candidate, log)
    return {}, []


def _of_hydra(candidate: Path, log: Path) -> tuple[dict[str, Any], list[str]]:
    """Read Hydra's configuration where it can only belong to this log."""
    config, notes = read_config(candidate)
    home = candidate.parent.parent
    logs = [log] if log.is_dir() else [p for p in home.rglob(f"*{log.suffix}") if p.is_file()]
    trainer = config.get("trainer")
    stated = trainer.get("experiment_name") if isinstance(trainer, Mapping) else None
    if len(logs) > 1 and stated != run_name(log):
        reason = f"{len(logs)} logs lie under it and its experiment_name is {stated!r}"
        return {}, [f"{candidate} was not used for this log: {reason}"]
    return config, notes


def read_config(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read one configuration file as plain values with plain references resolved.

    Parameters
    ----------
    path : Path
        A YAML or JSON file with a mapping at its top.

    Returns
    -------
    config : dict
        Nested plain values.
    notes : list of str
        Names the values that could not be resolved and were left out.

    Raises
    ------
    CBSDataError
        Where the file is no YAML or JSON, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        tree = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_Loader)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise CBSDataError(
            f"{path} cannot be read as a configuration ({problem}); "
            "give a YAML or JSON file with the trainer's settings"
        ) from None
    if not isinstance(tree, Mapping):
        raise CBSDataError(
            f"{path} holds a {type(tree).__name__}, not a mapping of settings; "
            "give the trainer's resolved configuration"
        )
    config, unresolved = resolve(tree, str(path))
    if not unresolved:
        return config, []
    return config, [f"left out of its configuration, not resolved: {listed(unresolved, limit=3)}"]


def resolve(tree: Mapping[Any, Any], origin: str) -> tuple[dict[str, Any], list[str]]:
    """Resolve ``${a.b}`` and ``${oc.select:a.b,default}`` against the same tree.

    Parameters
    ----------
    tree : mapping
        Nested plain values as read from YAML or JSON.
    origin : str
        Where the tree came from, for messages.

    Returns
    -------
    config : dict
        The same nesting; values whose interpolation is of any other form are left out.
    unresolved : list of str
        Dotted paths of the values left out.

    Raises
    ------
    CBSDataError
        Where the tree has more than 100,000 values or is nested deeper than 64 levels.
    """
    walk = _Walk(tree, origin)
    return walk.plain(tree, "", frozenset()), walk.unresolved


class _Unresolved:
    """Marks a value whose interpolation was not followed."""


_UNRESOLVED = _Unresolved()


class _Walk:
    """One pass over a configuration, copying plain values and following references."""

    def __init__(self, tree: Mapping[Any, Any], origin: str) -> None:
        self.tree, self.origin = tree, origin
        self.unresolved: list[str] = []
        self.n_values = 0

    def plain(self, value: Any, place: str, seen: frozenset[str]) -> Any:
        self.n_values += 1  # counted because aliases and references can multiply values
        if self.n_values > _MAX_VALUES or place.count(".") > _MAX_DEPTH:
            raise CBSDataError(
                f"{self.origin} has more than {_MAX_VALUES} values or {_MAX_DEPTH} levels; "
                "give the trainer's resolved configuration"
            )
        if isinstance(value, Mapping):
            inner = {str(k): self.plain(v, f"{place}.{k}", seen) for k, v in value.items()}
            return {k: v for k, v in inner.items() if v is not _UNRESOLVED}
        if isinstance(value, list | tuple):
            items = [self.plain(v, f"{place}.{i}", seen) for i, v in enumerate(value)]
            return [v for v in items if v is not _UNRESOLVED]
        if not isinstance(value, str) or "${" not in value:
            return value
        target = _UNRESOLVED if value in seen else _target(self.tree, value)
        if target is _UNRESOLVED:
            self.unresolved.append(place.removeprefix("."))
            return _UNRESOLVED
        return self.plain(target, place, seen | {value})


def _target(tree: Mapping[Any, Any], value: str) -> Any:
    """Return what a plain reference points to."""
    reference = _REFERENCE.fullmatch(value.strip())
    if reference is None:
        return _UNRESOLVED
    target: Any = tree
    for part in reference[1].split("."):
        target = target.get(part, _UNRESOLVED) if isinstance(target, Mapping) else _UNRESOLVED
    return _default(value, reference[2]) if target is _UNRESOLVED else target


def _default(value: str, default: str | None) -> Any:
    if not value.strip().startswith("${oc.select:"):
        return _UNRESOLVED
    if default is None:
        return None
    if "${" in default:
        return _UNRESOLVED
    try:
        return yaml.load(default, Loader=_Loader)
    except yaml.YAMLError:
        return _UNRESOLVED
