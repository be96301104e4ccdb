"""Sweep definitions: one readable TOML file per phase in ``training/phases`` → a list of cells.

A phase says its ``title``, ``hardware``, ``model``, ``dataset``, ``algorithm`` and one or more
``[[block]]``; a block gives ``n_prompts`` and ``n_rollouts`` and may give ``ppo_epochs``,
``learning_rate`` and ``mini_batch``, each a value or a list. Lists are combined in every way
(``combine = "product"``) or side by side (``"pair"``). Sections called like those of
``controls.toml`` replace single keys there, ``[verl]`` raw settings of its hardware.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from cbsbayes.errors import CBSDataError
from training.cells import Cell, check_cell
from training.controls import (
    CONTROLS_FILE,
    Controls,
    Dataset,
    Hardware,
    Model,
    read_section,
    read_toml,
)

__all__ = ["PHASES_FOLDER", "Phase", "phase_names", "read_phase", "with_machines"]

PHASES_FOLDER = Path(__file__).with_name("phases")

_AXES = ("n_prompts", "n_rollouts", "ppo_epochs", "learning_rate", "mini_batch")
_HEAD = ("title", "hardware", "model", "dataset", "algorithm")
_BLOCK = (*_AXES, "phase", "combine")
_SECTIONS = tuple(f.name for f in fields(Controls))
_ESTIMATORS = ("grpo", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "rloo", "opo")
_LABEL = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class Phase:
    """One phase of the study: what it asks and its runs, in a fixed order."""

    name: str
    title: str
    hardware: str
    cells: tuple[Cell, ...]
    file: Path


def phase_names(folder: Path = PHASES_FOLDER) -> list[str]:
    """Return the names of the phases that are defined, sorted."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def read_phase(
    name: str, *, folder: Path = PHASES_FOLDER, controls: Path = CONTROLS_FILE
) -> Phase:
    """Read a phase's definition and lay out its runs.

    Parameters
    ----------
    name : str
        A phase, e.g. ``p2c``, or the path of a definition that lies elsewhere, e.g. of
        ``outputs/plan/phases/planned.toml``.
    folder : Path
        Where the phases are defined.
    controls : Path
        The file with the controls held constant.

    Returns
    -------
    Phase
        Replicates of one seed together, so that an interrupted sweep has whole replicates.

    Raises
    ------
    CBSDataError
        If there is no such phase, a definition says something that is unknown, impossible or
        missing, or a cell is one that verl would refuse.
    """
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        name = path.stem
    elif name in phase_names(folder):
        path = folder / f"{name}.toml"
    else:
        raise CBSDataError(f"unknown phase {name!r}; valid: {', '.join(phase_names(folder))}, or "
                           "the path of a .toml file")
    table, shared = read_toml(path), read_toml(controls)
    _only(table, (*_HEAD, *_SECTIONS, "verl", "block"), path.name)
    head = {key: _text(table, key, path.name) for key in _HEAD}
    if head["algorithm"] not in _ESTIMATORS:
        raise CBSDataError(f"{path.name}: algorithm is {head['algorithm']!r}; valid: "
                           f"{', '.join(_ESTIMATORS)}")
    common = _common(shared, table, head, path.name)
    blocks = table.get("block")
    if not isinstance(blocks, list) or not blocks:
        raise CBSDataError(f"{path.name} has no [[block]]; add one with n_prompts and n_rollouts")
    points = [point for k, block in enumerate(blocks)
              for point in _points(block, name, f"{path.name}: block {k + 1}")]
    cells = [_cell(point, seed, head, common) for seed in common["controls"].seeds.replicates
             for point in points]
    return Phase(name, head["title"], head["hardware"], tuple(_once(cells, path.name)), path)


def with_machines(phase: Phase, gpus: int | None, nodes: int | None) -> Phase:
    """Return the phase on another number of machines.

    Raises
    ------
    CBSDataError
        If a cell does not divide over them.
    """
    changes = {key: value for key, value in (("gpus_per_node", gpus), ("nodes", nodes))
               if value is not None}
    cells = tuple(replace(cell, hardware=replace(cell.hardware, **changes))
                  for cell in phase.cells)
    for cell in cells:
        check_cell(cell)
    return replace(phase, cells=cells)


def _common(
    shared: Mapping[str, Any], table: Mapping[str, Any], head: Mapping[str, str], origin: str
) -> dict[str, Any]:
    """Read what all cells share: controls, machine, model and data."""
    sections = {}
    for name, cls in get_type_hints(Controls).items():
        own = {**shared.get(name, {}), **_table(table, name, origin)}
        sections[name] = read_section(cls, own, f"{origin}: [{name}]")
    hardware = _entry(Hardware, shared, "hardware", head["hardware"], origin)
    return {
        "controls": Controls(**sections),
        "hardware": replace(hardware, verl={**hardware.verl, **_table(table, "verl", origin)}),
        "checkpoint": _entry(Model, shared, "models", head["model"], origin),
        "data": _entry(Dataset, shared, "datasets", head["dataset"], origin),
    }


def _entry(cls: type, shared: Mapping[str, Any], group: str, label: str, origin: str) -> Any:
    entries = shared.get(group, {})
    if label not in entries:
        raise CBSDataError(f"{origin}: {label!r} is not among the {group} of controls.toml; "
                           f"valid: {', '.join(entries)}")
    return read_section(cls, entries[label], f"controls.toml: [{group}.{label}]")


def _points(block: Any, phase: str, origin: str) -> Iterator[dict[str, Any]]:
    """Yield the batches of one block."""
    if not isinstance(block, Mapping):
        raise CBSDataError(f"{origin} is {block!r}; valid: a table")
    _only(block, _BLOCK, origin)
    for axis in ("n_prompts", "n_rollouts"):
        if axis not in block:
            raise CBSDataError(f"{origin} lacks {axis}; give a number or a list")
    axes = {axis: _values(block[axis], axis, origin) for axis in _AXES if axis in block}
    label = block.get("phase", phase)
    if not isinstance(label, str) or not _LABEL.fullmatch(label):
        raise CBSDataError(f"{origin}: phase is {label!r}; valid: a label like p2b")
    for values in _combined(axes, block.get("combine", "product"), origin):
        yield {"phase": label, **dict(zip(axes, values, strict=True))}


def _combined(
    axes: Mapping[str, Sequence[Any]], how: Any, origin: str
) -> Iterator[tuple[Any, ...]]:
    if how == "product":
        return itertools.product(*axes.values())
    if how != "pair":
        raise CBSDataError(f"{origin}: combine is {how!r}; valid: product, pair")
    longest = max(len(values) for values in axes.values())
    uneven = [axis for axis, values in axes.items() if len(values) not in (1, longest)]
    if uneven:
        raise CBSDataError(f"{origin}: {uneven[0]} has {len(axes[uneven[0]])} values beside "
                           f"{longest}; lists that are paired have the same length")
    return zip(*(list(values) * (longest if len(values) == 1 else 1) for values in axes.values()),
               strict=True)


def _values(given: Any, axis: str, origin: str) -> list[Any]:
    values = given if isinstance(given, list) else [given]
    number = (int, float) if axis == "learning_rate" else int
    for value in values:
        named = axis == "mini_batch" and value == "train_batch"
        if not named and (isinstance(value, bool) or not isinstance(value, number) or value <= 0):
            kind = "a positive number" if axis == "learning_rate" else "a positive whole number"
            raise CBSDataError(f"{origin}: {axis} holds {value!r}; valid: {kind}")
    if not values:
        raise CBSDataError(f"{origin}: {axis} is an empty list; give at least one value")
    return values


def _cell(
    point: Mapping[str, Any], seed: int, head: Mapping[str, str], common: Mapping[str, Any]
) -> Cell:
    optimizer, prompts = common["controls"].optimizer, point["n_prompts"]
    cell = Cell(
        phase=point["phase"], model=head["model"], dataset=head["dataset"],
        algorithm=head["algorithm"], n_prompts=prompts, n_rollouts=point["n_rollouts"],
        ppo_epochs=point.get("ppo_epochs", optimizer.ppo_epochs),
        learning_rate=float(point.get("learning_rate", optimizer.learning_rate)),
        mini_batch_prompts=_mini_batch(point, prompts, optimizer.mini_batch), seed=seed,
        name_learning_rate="learning_rate" in point, **common)
    check_cell(cell)
    return cell


def _mini_batch(point: Mapping[str, Any], prompts: int, rule: str | int) -> int:
    """Return the prompts per update: a block's own number as it is, the rule's bounded."""
    own = point.get("mini_batch", "train_batch" if rule == "train_batch" else None)
    if own is not None:
        return prompts if own == "train_batch" else own
    if not isinstance(rule, int) or rule < 1:
        raise CBSDataError(f"[optimizer]: mini_batch is {rule!r}; valid: \"train_batch\" or a "
                           "positive number of prompts")
    return min(rule, prompts)


def _once(cells: Sequence[Cell], origin: str) -> Iterator[Cell]:
    """Let a cell that several blocks share run once, under its first block's phase."""
    seen: dict[tuple[Any, ...], Cell] = {}
    names: set[str] = set()
    for cell in cells:
        key = (cell.n_prompts, cell.n_rollouts, cell.ppo_epochs, cell.learning_rate,
               cell.mini_batch_prompts, cell.seed)
        if key in seen:
            continue
        seen[key] = cell
        if cell.name in names:
            raise CBSDataError(f"{origin}: two different cells are both called {cell.name}; give "
                               "the learning rate in all blocks or in none")
        names.add(cell.name)
        yield cell


def _only(table: Mapping[str, Any], valid: Sequence[str], origin: str) -> None:
    unknown = sorted(set(table) - set(valid))
    if unknown:
        raise CBSDataError(f"{origin} has the unknown key {unknown[0]!r}; valid: "
                           f"{', '.join(valid)}")


def _table(table: Mapping[str, Any], key: str, origin: str) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise CBSDataError(f"{origin}: [{key}] is {value!r}; valid: a table")
    return value


def _text(table: Mapping[str, Any], key: str, origin: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise CBSDataError(f"{origin}: {key} is {value!r}; valid: a text")
    return value
