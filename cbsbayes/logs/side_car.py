"""Configurations that lie beside logs: a side-car file, or the one of the run's folder.

``<name>.config.yaml`` (``.yml``, ``.json``) beside a log is that log's. ``config.yaml``,
``experiment_config.json`` or Hydra's ``.hydra/config.yaml`` in a log's folder or above it is taken
where only one run lies below it. Values are data: YAML is read by the safe loader and of
OmegaConf's interpolations only plain references into the same file are followed
(`cbsbayes.logs.run_config.lookup`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_config import lookup
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.run_name import file_stem, is_generic, parse_name

__all__ = ["OF_FOLDER", "SIDE_CARS", "configure", "read_config"]

SIDE_CARS = (".config.yaml", ".config.yml", ".config.json")
OF_FOLDER = ("config.yaml", "config.yml", "config.json", "experiment_config.json",
              ".hydra/config.yaml")
_MAX_VALUES = 100_000  # verl's whole configuration has about 1,000; YAML aliases can multiply
_MAX_DEPTH = 64


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that reads ``1e-6`` as a number, as OmegaConf does."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leave merge keys alone: nested ones multiply without end, and no trainer writes them."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs
            if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


def configure(logs: Sequence[RunLog], root: Path) -> list[RunLog]:
    """Give logs of files the configurations that lie beside them.

    A side-car counts more than what the log printed, and that more than the folder's.

    Parameters
    ----------
    logs : sequence of RunLog
        All that were read below `root`; their ids are paths relative to it.
    root : Path
        The folder given by the user; nothing above it is looked at.

    Returns
    -------
    list of RunLog
        In the same order. A log whose file has a generic name takes its configuration's
        ``trainer.experiment_name``, unless its folder's name says more.
    """
    paths = {log.id: root / log.id.partition("#")[0] for log in logs}
    found = [_configured(log, paths[log.id], _folder_config(log, logs, paths, root))
             for log in logs]
    stated = [lookup(log.config, "trainer.experiment_name") for log in found]
    return [replace(log, name=name) if isinstance(name, str) and stated.count(name) == 1
            and is_generic(paths[log.id]) and parse_name(log.name) is None else log
            for log, name in zip(found, stated, strict=True)]


def _configured(log: RunLog, path: Path, of_folder: Path | None) -> RunLog:
    own = [path.parent / (file_stem(path) + suffix) for suffix in SIDE_CARS]
    side_car = next((file for file in own if file.is_file()), None)
    if side_car is None and (log.config or of_folder is None):
        return log
    printed = (("printed configuration", log.config),) if log.config else ()
    return replace(log, config=read_config(side_car or of_folder or path), further=printed)


def _folder_config(
    log: RunLog, logs: Sequence[RunLog], paths: Mapping[str, Path], root: Path
) -> Path | None:
    """Return the nearest folder's configuration, if it can only belong to this run."""
    path = paths[log.id]
    home = path if path.is_dir() else path.parent
    for folder in [home, *(p for p in home.parents if p.is_relative_to(root))]:
        files = [folder / name for name in OF_FOLDER if (folder / name).is_file()]
        if files:
            names = {one.name for one in logs if paths[one.id].is_relative_to(folder)}
            return files[0] if len(names) == 1 else None
    return None


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
        Where the file is no YAML or JSON, holds no mapping, or has more than 100,000 values or
        64 levels.
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
    if tree and all(isinstance(v, Mapping) and {"value"} <= set(v) <= {"value", "desc"}
                    for v in tree.values()):
        tree = {key: value["value"] for key, value in tree.items() if key != "_wandb"}
    if _size(tree) > _MAX_VALUES:
        raise CBSDataError(f"{path} has more than {_MAX_VALUES} values or {_MAX_DEPTH} levels; "
                           "give the trainer's resolved configuration")
    return dict(tree)


def _size(tree: Any, depth: int = 0, count: int = 0) -> int:
    """Count values no further than to the limit: aliases multiply them without end."""
    if depth > _MAX_DEPTH:
        return _MAX_VALUES + 1
    inner = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list) else ()
    count += 1
    for value in inner:
        if count > _MAX_VALUES:
            break
        count = _size(value, depth + 1, count)
    return count
