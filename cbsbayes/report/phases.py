"""Planned runs as phase files of the training side, and the lines that start them.

A phase has one horizon and one list of seeds, so runs of one length and the same seeds share a
file. What is held constant is taken over from the phase that made the earlier runs, where it is
given; otherwise the head says what the sweep says, and the rest is the training side's controls.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.files import write_whole

__all__ = ["Head", "PhaseFile", "command_lines", "head_of", "phase_files",
           "read_like", "write_phases"]

_MARK = "# Planned by python -m cbsbayes.plan"
_HEAD = ("hardware", "model", "dataset", "algorithm")
_OWN = ("horizon", "seeds", "block", "title")
_RUNS = "p9"  # the phase in the runs' names, which read back only as p and digits
_LABEL = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class Head:
    """What planned runs share: labels, and sections as in a phase file.

    Attributes
    ----------
    labels : dict
        ``hardware, model, dataset, algorithm``.
    sections : dict
        Section to its keys.
    how : str
        Where it is from, in one sentence.
    """

    labels: dict[str, str]
    sections: dict[str, dict[str, Any]]
    how: str


@dataclass(frozen=True)
class PhaseFile:
    """One phase file: its name and its text."""

    name: str
    text: str


def read_like(path: Path) -> Head:
    """Return the head of an existing phase file.

    Raises
    ------
    CBSDataError
        If it is not one.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CBSDataError(f"{path} cannot be read as TOML: {error}") from None
    missing = [key for key in _HEAD if not isinstance(table.get(key), str)]
    if missing:
        raise CBSDataError(f"{path} is no phase file: it does not say its {missing[0]}; give one "
                           "of training/phases/")
    sections = {key: dict(value) for key, value in table.items()
                if isinstance(value, Mapping) and key not in _OWN}
    return Head({key: table[key] for key in _HEAD}, sections,
                f"Everything else is as in {path.name}.")


def head_of(runs: xr.Dataset) -> Head:
    """Return what the runs of a sweep say of themselves; hardware is taken to be ``gpu``."""
    labels = {"hardware": "gpu"}
    labels |= {key: _one(runs, key) for key in ("model", "dataset", "algorithm")}
    optimizer: dict[str, Any] = {}
    rate = float(runs["learning_rate"].values[0]) if "learning_rate" in runs.coords else math.nan
    if math.isfinite(rate):
        optimizer["learning_rate"] = rate
    epochs = int(runs["ppo_epochs"].values[0]) if "ppo_epochs" in runs.coords else 1
    if epochs > 1:
        optimizer["ppo_epochs"] = epochs
    return Head(labels, {"optimizer": optimizer} if optimizer else {},
                "Hardware gpu and the controls of training/controls.toml are assumed; give "
                "--like PHASE_FILE to take over those of the earlier runs.")


def _one(runs: xr.Dataset, name: str) -> str:
    values = {str(value) for value in runs[name].values} if name in runs.coords else {""}
    return next(iter(values)) if len(values) == 1 else ""


def phase_files(planned: pd.DataFrame, head: Head, every: float, name: str) -> list[PhaseFile]:
    """Return the phases of planned runs, in the order in which they are planned.

    Parameters
    ----------
    planned : pandas.DataFrame
        Columns ``n_prompts, n_rollouts, updates, seed``, in order.
    head : Head
        What they share.
    every : float
        Updates between evaluations.
    name : str
        Of the phase; numbered where there are several.

    Raises
    ------
    CBSDataError
        If the name is no label, or a batch is not a whole number.
    """
    if not _LABEL.fullmatch(name):
        raise CBSDataError(f"the phase is called {name!r}; valid: letters, digits and _")
    seeds: dict[tuple[int, int, int], list[int]] = {}
    for row in planned.to_dict("records"):
        cell = tuple(_whole(row[key], key) for key in ("updates", "n_prompts", "n_rollouts"))
        seeds.setdefault((cell[0], cell[1], cell[2]), []).append(int(row["seed"]))
    shared: dict[tuple[int, tuple[int, ...]], list[tuple[int, int]]] = {}
    for (updates, prompts, rollouts), numbers in seeds.items():
        shared.setdefault((updates, tuple(numbers)), []).append((prompts, rollouts))
    names = [name] if len(shared) == 1 else [f"{name}_{k}" for k in range(1, len(shared) + 1)]
    return [PhaseFile(label, _text(head, updates, numbers, batches, every))
            for label, ((updates, numbers), batches) in zip(names, shared.items(), strict=True)]


def _whole(value: float, name: str) -> int:
    if not float(value).is_integer():
        raise CBSDataError(f"{name} is {value:g}, which no training run can have; valid: whole "
                           "numbers")
    return int(value)


def _text(
    head: Head, updates: int, seeds: Sequence[int], batches: Sequence[tuple[int, int]],
    every: float,
) -> str:
    runs = ", ".join(f"{p} × {g}" for p, g in batches)
    lines = [_MARK, f'title = "planned: {runs}, {updates} updates"']
    lines += [f"{key} = {json.dumps(head.labels[key])}" for key in _HEAD]
    sections = {key: dict(value) for key, value in head.sections.items()}
    sections.setdefault("validation", {})["every_updates"] = max(1, round(every))
    sections |= {"horizon": {"updates": updates, "samples": 0},
                 "seeds": {"replicates": list(seeds)}}
    for section, keys in sections.items():
        lines += ["", f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in keys.items())]
    prompts, rollouts = zip(*batches, strict=True)
    lines += ["", "[[block]]", f'phase = "{_RUNS}"', 'combine = "pair"',
              f"n_prompts = {list(prompts)}", f"n_rollouts = {list(rollouts)}"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def write_phases(files: Sequence[PhaseFile], folder: Path) -> list[Path]:
    """Write phase files into a folder; only files planned before are replaced.

    Raises
    ------
    CBSDataError
        If a file of another origin has the name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = [folder / f"{file.name}.toml" for file in files]
    for place in places:
        if place.exists() and not place.read_text(encoding="utf-8").startswith(_MARK):
            raise CBSDataError(f"{place} exists and was not planned by this command; choose "
                               "another name with --write-phase")
    for place, file in zip(places, files, strict=True):
        write_whole(place, file.text)
    return places


def command_lines(places: Sequence[Path]) -> list[str]:
    """Return the lines that start the planned runs, from the repository's root.

    Parameters
    ----------
    places : sequence of Path
        The phase files, as written.
    """
    phases = Path("training/phases")  # named there; elsewhere by their path
    lines = [shlex.join(["python", "-m", "training.sweep",
                         place.stem if place.parent == phases else str(place), "--run"])
             for place in places]
    logs = " ".join(f"outputs/{place.stem}/logs" for place in places)
    return [*lines, f"python -m cbsbayes.ingest EARLIER_LOGS {logs} -o sweep.nc"]

