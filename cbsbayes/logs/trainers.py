"""Where each trainer writes its batch: `trainers.toml`, the one table of units.

The reader of configurations and the README share it.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from cbsbayes.logs.run_config import lookup

__all__ = ["Trainer", "trainer_of", "trainers"]


@dataclass(frozen=True)
class Trainer:
    """One trainer's keys.

    Attributes
    ----------
    name : str
        As people call it.
    told_by : tuple of str
        Keys that are all there in its configuration, and not in an earlier trainer's.
    keys : mapping of str to tuple of str
        Keys, or products and quotients of keys, by the run's column.
    """

    name: str
    told_by: tuple[str, ...]
    keys: Mapping[str, tuple[str, ...]]

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
    entries = {entry["name"]: entry for entry in tomllib.loads(text)["trainer"]}
    found = []
    for name, entry in entries.items():
        merged = {**entries.get(entry.get("like"), {}), **entry}
        keys = {column: (value,) if isinstance(value, str) else tuple(value)
                for column, value in merged.items() if column not in ("name", "told_by", "like")}
        found.append(Trainer(name, tuple(entry["told_by"]), keys))
    return tuple(found)


def trainer_of(config: Mapping[str, Any]) -> Trainer | None:
    """Return the trainer that wrote a configuration, or None where no keys tell."""
    return next((trainer for trainer in trainers()
                 if all(lookup(config, key) is not None for key in trainer.told_by)), None)


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
