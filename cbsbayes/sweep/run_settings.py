"""Run coordinates from what a log knows of its settings and from the run's name.

Every origin of settings (`cbsbayes.logs.run_log.Origin`) is read into the dataset's own names; the
first that knows a coordinate wins: the user's table of runs, a table's own columns, the file beside
the log, what the log holds, ``--config``, the name. Where two disagree about a number, a note says
so and names the one used; ``read_from`` says of every coordinate where it was read. Labels (model,
dataset) never disagree: ``olmo1b`` in a name and ``OLMo-2-0425-1B-SFT`` in a configuration may be
one thing.

Within one of them, ``n_prompts`` means the prompts of a trainer step unless
``train_batch_prompts`` stands beside it. Each mini-batch is one optimizer update, so

    n_prompts        = min(train_batch_prompts, mini_batch_prompts)
    updates_per_step = ceil(train_batch_prompts / mini_batch_prompts) × ppo_epochs

unless the trainer's steps are updates themselves (``trainers.toml``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_config import dataset_label, lookup, model_label, package_version, trainer_of
from cbsbayes.logs.run_log import RUN_COLUMNS, STATED, Origin, RunLog
from cbsbayes.logs.run_name import parse_name

__all__ = ["run_settings"]

_LABELLERS = {"model": model_label, "dataset": dataset_label}
_COMPARED = ("train_batch_prompts", "n_rollouts", "mini_batch_prompts", "ppo_epochs",
             "learning_rate", "seed", "total_batch", "phase")
_DEFAULT_SEED = 42  # verl's samplers and loaders have it wherever nobody set one

type _Found = dict[str, dict[str, Any]]


def run_settings(log: RunLog) -> tuple[dict[str, Any], list[str]]:
    """Return the run coordinates of one log and what had to be decided.

    Parameters
    ----------
    log : RunLog
        Its `settings` and `name` are read.

    Returns
    -------
    coords : dict
        By column (`cbsbayes.logs.run_log`), defaults for what is unknown; empty where no
        batch can be found.
    notes : list of str
        Conflicts and values that could not be read, one sentence each.

    Raises
    ------
    CBSDataError
        If a number is impossible (a batch of zero, a negative learning rate) or total_batch
        is not n_prompts × n_rollouts.
    """
    notes: list[str] = []
    found: _Found = {}
    for origin in log.settings:
        values = _per_trainer_step(log, origin.name, _read(log, origin, notes))
        found[origin.name] = values | found.get(origin.name, {})
    found["name"] = _from_name(log.name)
    _drop_updates(found)
    notes += _conflicts(log.name, found)
    chosen = {key: value for values in reversed(found.values()) for key, value in values.items()}
    if chosen.get("seed") == _DEFAULT_SEED:
        chosen["seed"] = found["name"].get("seed", _DEFAULT_SEED)
    batch = _batch(log, chosen)
    if not batch:
        return {}, notes
    known = {key: chosen.get(key, RUN_COLUMNS[key].blank) for key in STATED}
    known["trainer_version"] = known["trainer_version"] or package_version(
        log.settings, known["trainer"])
    return {**known, **batch, "read_from": _origins(found)}, notes


def _read(log: RunLog, origin: Origin, notes: list[str]) -> dict[str, Any]:
    """Look every coordinate up under the trainer's key, then under the dataset's own name."""
    trainer = trainer_of(origin.values)
    found: dict[str, Any] = {"trainer": trainer.name} if trainer else {}
    for key in STATED:
        column = RUN_COLUMNS[key]
        value = trainer.value(key, origin.values) if trainer else None
        if key in _LABELLERS:
            value = _LABELLERS[key](value) or value
        if not column.known(value):
            value = lookup(origin.values, key)
        if isinstance(value, str) and "${" in value:
            notes.append(f"run {log.name}: {key} is the unresolved reference {value!r}; it is "
                         "taken as unknown")
        elif column.known(value):
            try:
                found[key] = column.read(value)
            except ValueError as error:
                raise CBSDataError(f"run {log.name} ({log.id}): {key} is {value!r} in its "
                                   f"{origin.name}; valid: {error}; correct it or leave the run "
                                   "out") from None
    if "algorithm" in found:  # an enumeration may be logged by its Python name
        found["algorithm"] = found["algorithm"].rpartition(".")[2].lower()
    return found


def _from_name(name: str) -> dict[str, Any]:
    parsed = parse_name(name)
    if parsed is None:
        return {}
    found = {key: value for key, value in asdict(parsed).items()
             if key in STATED and value not in (None, "")}
    return found | {"train_batch_prompts": found.pop("n_prompts")}


def _per_trainer_step(log: RunLog, origin: str, found: dict[str, Any]) -> dict[str, Any]:
    """Let n_prompts mean a trainer step's prompts, unless both counts are given and agree."""
    stated = found.pop("n_prompts", None)
    if stated is None:
        return found
    train = found.setdefault("train_batch_prompts", stated)
    update = min(train, found.get("mini_batch_prompts", train))
    if stated not in (train, update):
        raise CBSDataError(
            f"run {log.name}: n_prompts is {stated} in its {origin}, but train_batch_prompts "
            f"{train} with mini_batch_prompts {found.get('mini_batch_prompts', 'unknown')} makes "
            f"{update} per update; correct one of them")
    return found


def _drop_updates(found: _Found) -> None:
    """Drop a count of prompts that a lower origin's mini-batch shows to be an update's."""
    order = list(found.values())
    for i, values in enumerate(order):
        for low in order[i + 1:]:
            train, mini = low.get("train_batch_prompts"), low.get("mini_batch_prompts")
            if train and mini and values.get("train_batch_prompts") == min(train, mini):
                del values["train_batch_prompts"]


def _conflicts(name: str, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    notes = []
    order = list(found)
    for i, low in enumerate(order):
        for key in _COMPARED:
            high = next((h for h in order[:i] if key in found[h]), None)
            if high is None or key not in found[low]:
                continue
            used, other = found[high][key], found[low][key]
            if not _agree(key, used, other, found[high]):
                label = "n_prompts" if key == "train_batch_prompts" else key
                notes.append(f"run {name}: {low} says {label} {other}, {high} {used}; {high} is "
                             "used")
    return notes


def _agree(key: str, used: Any, other: Any, high: Mapping[str, Any]) -> bool:
    if key == "train_batch_prompts":
        return other in (used, min(used, high.get("mini_batch_prompts", used)))
    if key == "seed" and _DEFAULT_SEED in (used, other):
        return True
    return math.isclose(used, other, rel_tol=1e-9) if isinstance(used, float) else used == other


def _origins(found: _Found) -> str:
    """Return where each coordinate was read: ``configuration: n_prompts, seed; name: phase``."""
    told: set[str] = set()
    parts = []
    for origin, values in found.items():
        own = [key for key in values if key not in told]
        told |= set(own)
        shown = ["n_prompts" if key == "train_batch_prompts" else key for key in own]
        parts += [f"{origin}: {', '.join(shown)}"] if own else []
    return "; ".join(parts)


def _batch(log: RunLog, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the batch coordinates of one optimizer update; empty where it is unknown."""
    train, rollouts = chosen.get("train_batch_prompts"), chosen.get("n_rollouts")
    epochs, total = chosen.get("ppo_epochs", 1), chosen.get("total_batch")
    if train is None or rollouts is None:
        if total is None:
            return {}
        return {"n_prompts": -1, "n_rollouts": -1, "train_batch_prompts": -1,
                "mini_batch_prompts": -1, "updates_per_step": chosen.get("updates_per_step",
                                                                         epochs)}
    mini = chosen.get("mini_batch_prompts", train)
    prompts = min(train, mini)
    if total is not None and not math.isclose(total, prompts * rollouts):
        raise CBSDataError(f"run {log.name}: total_batch is {total:g}, but n_prompts {prompts} × "
                           f"n_rollouts {rollouts} = {prompts * rollouts}; correct or drop one")
    return {"n_prompts": prompts, "total_batch": float(prompts * rollouts),
            "updates_per_step": chosen.get("updates_per_step",
                                           math.ceil(train / mini) * epochs)}
