"""Configurations: files beside logs, values by dotted path, and each trainer's keys.

Loggers keep a nested configuration in three shapes: nested (wandb, side-car YAML), flat with dots
(wandb tables) and flat with slashes (MLflow); mixtures occur. Where each trainer writes its batch
stands in ``trainers.toml``, the one table of units; docs/logs.md shows the same. Values are data
and nothing in them is run: YAML is read by the safe loader, and of OmegaConf's interpolations only
plain references into the same configuration are followed.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_log import Origin

__all__ = ["Trainer", "dataset_label", "lookup", "model_label", "package_version", "read_config",
           "read_packages", "trainer_of", "trainers"]

_REFERENCE = re.compile(r"\$\{(oc\.select:)?\s*(\w+(?:\.\w+)*)\s*(?:,([\w.+\- ]*))?\}")
_MOST_HOPS = 8  # references may go in a circle
_NO_MODEL = re.compile(r"[0-9a-f]{40}|(?:global_step|checkpoint|step)[-_]?[0-9]+|snapshots|"
                       r"huggingface|actor|hf|/|\.\.?")
_SPLITS = frozenset({"train", "training", "data", "dataset"})
_MAX_VALUES = 100_000  # verl's whole configuration has about 1,000; YAML aliases can multiply
_MAX_DEPTH = 64


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that reads ``1e-6`` as a number, as OmegaConf does.

    A key given twice is refused; merge keys are left alone, for nested ones multiply without end
    and no trainer writes them.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        return _unique([(self.construct_object(key, deep=True),
                         self.construct_object(value, deep=deep)) for key, value in node.value])


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs
            if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float",
                              re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+"),
                              list("-+.0123456789"))


def _unique(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} is given twice")
        found[key] = value
    return found


def read_config(path: Path) -> dict[str, Any]:
    """Read one configuration file as plain values.

    Parameters
    ----------
    path : Path
        A YAML or JSON file with a mapping at its top; wandb's ``{desc, value}`` is unpacked.

    Returns
    -------
    dict
        Nested plain values.

    Raises
    ------
    CBSDataError
        Where the file is no YAML or JSON, is cut, holds no mapping, gives a key twice, or has
        more than 100,000 values or 64 levels.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        tree = (json.loads(text, object_pairs_hook=_unique) if path.suffix == ".json"
                else yaml.load(text, Loader=_Loader))
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise CBSDataError(f"{path} cannot be read as a configuration ({problem}); "
                           "give a YAML or JSON file with the trainer's settings") from None
    if not isinstance(tree, Mapping):
        raise CBSDataError(f"{path} holds a {type(tree).__name__}, not a mapping of settings; "
                           "give the trainer's resolved configuration")
    if path.suffix != ".json" and not text.endswith("\n"):
        raise CBSDataError(f"{path} ends within a line, as a file that was cut does; copy it "
                           "again, or end its last line if it is whole")
    if tree and all(isinstance(v, Mapping) and {"value"} <= set(v) <= {"value", "desc"}
                    for v in tree.values()):
        tree = {key: value["value"] for key, value in tree.items() if key != "_wandb"}
    if not _is_small(tree):
        raise CBSDataError(f"{path} has more than {_MAX_VALUES} values or {_MAX_DEPTH} levels; "
                           "give the trainer's resolved configuration")
    return dict(tree)


def _is_small(tree: Any) -> bool:
    """Count values no further than to the limit: aliases multiply them without end."""
    left, count = [(tree, 0)], 0
    while left:
        value, depth = left.pop()
        inner = value.values() if isinstance(value, Mapping) else (
            value if isinstance(value, list) else ())
        count += 1 + len(inner)
        if count > _MAX_VALUES or depth > _MAX_DEPTH:
            return False
        left += [(one, depth + 1) for one in inner]
    return True


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
    parts = PurePosixPath(path.strip().rstrip("/").replace("\\", "/")).parts
    named = (part for part in reversed(parts) if not _NO_MODEL.fullmatch(part))
    return next((part.rpartition("--")[2] for part in named), None)


def dataset_label(files: Any) -> str | None:
    """Return the training data's name from one path or several.

    A file called ``train.parquet`` is named by its folder; several files are joined by ``+``.
    """
    if isinstance(files, str):
        listed = files.strip().startswith("[")
        files = [part.strip(" '\"") for part in files.strip()[1:-1].split(",")] if listed else (
            [files])
    paths = files if isinstance(files, list | tuple) else []
    labels = {_file_label(path) for path in paths if isinstance(path, str) and "${" not in path}
    return "+".join(sorted(labels - {""})) or None


def _file_label(path: str) -> str:
    parts = [part for part in PurePosixPath(path.strip().replace("\\", "/")).parts
             if part not in ("/", ".", "..", "~")]
    names = [part.split(".")[0] for part in parts[-1:]] + parts[-2::-1]
    named = (name for name in names if re.split(r"[-_]", name)[0].lower() not in _SPLITS)
    return next(named, names[0] if names else "")


def read_packages(folder: Path) -> tuple[Origin, ...]:
    """Return the versions in the ``requirements.txt`` that wandb leaves beside a log."""
    file = folder / "requirements.txt"
    if not file.is_file():
        return ()
    lines = file.read_text(encoding="utf-8", errors="replace").lower().splitlines()
    pinned = dict(line.strip().split("==", 1) for line in lines if "==" in line)
    return (Origin(file.name, {"packages": pinned}),)


@dataclass(frozen=True)
class Trainer:
    """One trainer's keys.

    Attributes
    ----------
    name : str
        As people call it.
    package : str
        What it is installed as.
    told_by : sequence of str
        Keys that are all there in its configuration, and not in an earlier trainer's.
    keys : mapping of str to sequence of str
        Keys, or products and quotients of keys, by the run's column.
    """

    name: str
    package: str
    told_by: Sequence[str]
    keys: Mapping[str, Sequence[str]]

    def value(self, column: str, config: Mapping[str, Any]) -> Any:
        """Return a column's value as the configuration has it, or None where it has none."""
        found = [value for entry in self.keys.get(column, ())
                 if (value := _value(entry, config)) is not None]
        if column == "n_rollouts" and len(found) > 1:
            return max(found, key=lambda value: _number(value) or 0.0)
        return found[0] if found else None

    def missing(self, config: Mapping[str, Any]) -> list[str]:
        """Return the keys that the batch needs and the configuration does not hold."""
        return [key for column in ("train_batch_prompts", "n_rollouts")
                if self.value(column, config) is None
                for key in re.split(r" [*/] ", self.keys[column][-1])
                if not key.isdecimal() and lookup(config, key) is None]


@cache
def trainers() -> tuple[Trainer, ...]:
    """Return all known trainers, in the order in which they are told."""
    text = (resources.files("cbsbayes.logs") / "trainers.toml").read_text(encoding="utf-8")
    return tuple(Trainer(**entry) for entry in tomllib.loads(text)["trainer"])


def trainer_of(config: Mapping[str, Any]) -> Trainer | None:
    """Return the trainer that wrote a configuration, or None where no keys tell."""
    return next((trainer for trainer in trainers()
                 if all(lookup(config, key) is not None for key in trainer.told_by)), None)


def package_version(settings: Iterable[Origin], trainer: str) -> str:
    """Return the installed version of a trainer, ``""`` where no origin tells."""
    package = next((one.package for one in trainers() if one.name == trainer), "")
    versions = (lookup(origin.values, f"packages.{package}") for origin in settings)
    return next((str(version) for version in versions if package and version), "")


def _value(entry: str, config: Mapping[str, Any]) -> Any:
    first, *rest = re.split(r" ([*/]) ", entry)
    value: Any = int(first) if first.isdecimal() else lookup(config, first)
    if not rest:
        return value
    result = _number(value)
    for sign, key in zip(rest[::2], rest[1::2], strict=True):
        factor = _number(lookup(config, key))
        if result is None or not factor:
            return None
        result = result * factor if sign == "*" else result / factor
    return result


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
