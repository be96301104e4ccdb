"""Run coordinates from what a source states, the trainer's configuration and the run's name.

Each of the three is read into the dataset's own names; the first that knows a coordinate
wins, in this order: stated by the source (a table's columns), configuration, name. Where two
disagree about a number, a note says so and names the one used. Labels (model, dataset) never
disagree: ``olmo1b`` in a name and ``OLMo-2-0425-1B-SFT`` in a configuration may be one thing.

Within one of the three, ``n_prompts`` means the prompts of a trainer step unless
``train_batch_prompts`` stands beside it. verl's ``ppo_mini_batch_size`` counts prompts, and
each mini-batch is one optimizer update, so

    n_prompts        = min(train_batch_prompts, mini_batch_prompts)
    updates_per_step = ceil(train_batch_prompts / mini_batch_prompts) × ppo_epochs

The seed is ``data.seed`` or the name's; only then verl's sampling and loader seeds, which are
42 wherever nobody set them and so say little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_config import dataset_label, lookup, model_label
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.run_name import parse_name
from cbsbayes.logs.side_car import resolve

__all__ = ["run_settings"]

_VERL = {
    "train_batch_prompts": "data.train_batch_size",
    "mini_batch_prompts": "actor_rollout_ref.actor.ppo_mini_batch_size",
    "n_rollouts": "actor_rollout_ref.rollout.n",
    "ppo_epochs": "actor_rollout_ref.actor.ppo_epochs",
    "learning_rate": "actor_rollout_ref.actor.optim.lr",
    "seed": "data.seed",
    "algorithm": "algorithm.adv_estimator",
    "model": "actor_rollout_ref.model.path",
    "dataset": "data.train_files",
}
_LABELLERS = {"model": model_label, "dataset": dataset_label}
_SEED_FALLBACKS = ("actor_rollout_ref.rollout.seed", "actor_rollout_ref.actor.fsdp_config.seed",
                   "actor_rollout_ref.actor.data_loader_seed")
_COUNTS = ("n_prompts", "n_rollouts", "train_batch_prompts", "mini_batch_prompts", "ppo_epochs")
_AMOUNTS = ("total_batch", "learning_rate")
_LABELS = ("phase", "model", "dataset", "algorithm")
_OWN = (*_COUNTS, *_AMOUNTS, *_LABELS, "seed")
_COMPARED = ("train_batch_prompts", "n_rollouts", "mini_batch_prompts", "ppo_epochs",
             "learning_rate", "seed", "total_batch", "phase")
_WORDS = {"stated": "source", "config": "configuration", "name": "name"}


def run_settings(log: RunLog) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the run coordinates of one log and what had to be decided.

    Parameters
    ----------
    log : RunLog
        Its `settings`, `config` and `name` are read.

    Returns
    -------
    coords : dict or None
        ``n_prompts, n_rollouts, total_batch, train_batch_prompts, mini_batch_prompts,
        ppo_epochs, updates_per_step, learning_rate, seed, phase, model, dataset, algorithm``
        under the sweep's conventions for what is unknown; None where no batch can be found.
    notes : list of str
        Conflicts and values that could not be read, one sentence each.

    Raises
    ------
    CBSDataError
        If a number is impossible (a batch of zero, a negative learning rate) or total_batch
        is not n_prompts × n_rollouts.
    """
    notes: list[str] = []
    found = {"stated": _from_mapping(log, "stated", log.settings, notes),
             "config": _from_config(log, notes), "name": _from_name(log.name)}
    notes += _conflicts(log.name, found)
    chosen = {**found["name"], **found["config"], **found["stated"]}
    if "seed" not in chosen and log.config:
        chosen |= _fallback_seed(log)
    batch = _batch(log, chosen)
    if batch is None:
        return None, notes
    unknown = {"seed": -1, "learning_rate": math.nan, **dict.fromkeys(_LABELS, "")}
    rest = {key: chosen.get(key, default) for key, default in unknown.items()}
    return {**rest, **batch}, notes


def _from_mapping(
    log: RunLog, origin: str, values: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    """Read coordinates given under the dataset's own names."""
    found: dict[str, Any] = {}
    one_axis = _is_known("total_batch", values.get("total_batch"))
    for key in _OWN:
        value = values.get(key)
        if isinstance(value, str) and "${" in value:
            notes.append(f"run {log.name}: {key} is the unresolved reference {value!r}; it is "
                         "taken as unknown")
        elif _is_known(key, value) and not (one_axis and value == -1):
            found[key] = _read(log.name, origin, key, value)
    return _per_trainer_step(log.name, origin, found)


def _from_config(log: RunLog, notes: list[str]) -> dict[str, Any]:
    values = _config_values(log.config)
    if any(isinstance(value, str) and "${" in value for value in values.values()):
        followed, _ = resolve(log.config, f"the configuration of run {log.name}")
        values |= _config_values(followed)
    return _from_mapping(log, "config", values, notes)


def _config_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Look every coordinate up under verl's key, then under the dataset's own name."""
    values = {}
    for key in _OWN:
        value = lookup(config, _VERL[key]) if key in _VERL else None
        if key in _LABELLERS:
            value = _LABELLERS[key](value) or value
        if not _is_known(key, value):
            value = lookup(config, key)
        if _is_known(key, value):
            values[key] = value
    return values


def _from_name(name: str) -> dict[str, Any]:
    parsed = parse_name(name)
    if parsed is None:
        return {}
    found = {"train_batch_prompts": parsed.n_prompts, "n_rollouts": parsed.n_rollouts,
             "mini_batch_prompts": parsed.mini_batch_prompts, "ppo_epochs": parsed.ppo_epochs,
             "learning_rate": parsed.learning_rate, "seed": parsed.seed, "phase": parsed.phase,
             "model": parsed.model or None, "dataset": parsed.dataset or None}
    return _some(found)


def _fallback_seed(log: RunLog) -> dict[str, int]:
    for path in _SEED_FALLBACKS:
        value = lookup(log.config, path)
        if _is_known("seed", value) and not isinstance(value, str):
            return {"seed": _read(log.name, "config", "seed", value)}
    return {}


def _some(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _is_known(key: str, value: Any) -> bool:
    """Tell a value from the ways of saying "unknown": none, blank, NaN, and -1 for a seed."""
    if value is None or isinstance(value, Mapping | list | tuple):
        return False
    if isinstance(value, str):
        return value.strip().lower() not in ("", "none", "null", "nan")
    if isinstance(value, float) and math.isnan(value):
        return False
    return not (key in ("seed", "mini_batch_prompts", "train_batch_prompts") and value == -1)


def _read(name: str, origin: str, key: str, value: Any) -> Any:
    if key in _LABELS:
        text = str(value).strip()
        # An enumeration logged by its Python name, as in AdvantageEstimator.GRPO.
        return text.rpartition(".")[2].lower() if key == "algorithm" else text
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    whole = key not in _AMOUNTS
    good = math.isfinite(number) and (number >= 0 if key == "seed" else number > 0)
    if not good or (whole and number != int(number)):
        kind = "a whole number from 0" if key == "seed" else (
            "a positive whole number" if whole else "a positive number")
        raise CBSDataError(f"run {name}: {key} is {value!r} in its {_WORDS[origin]}; valid: "
                           f"{kind}; correct it or leave the run out")
    return int(number) if whole else number


def _per_trainer_step(name: str, origin: str, found: dict[str, Any]) -> dict[str, Any]:
    """Let n_prompts mean a trainer step's prompts, unless both counts are given and agree."""
    stated = found.pop("n_prompts", None)
    if stated is None:
        return found
    train = found.setdefault("train_batch_prompts", stated)
    update = min(train, found.get("mini_batch_prompts", train))
    if stated not in (train, update):
        raise CBSDataError(
            f"run {name}: n_prompts is {stated} in its {_WORDS[origin]}, but train_batch_prompts "
            f"{train} with mini_batch_prompts {found.get('mini_batch_prompts', 'unknown')} makes "
            f"{update} per update; correct one of them")
    return found


def _conflicts(name: str, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    notes = []
    for low, highs in {"config": ["stated"], "name": ["stated", "config"]}.items():
        for key in _COMPARED:
            high = next((h for h in highs if key in found[h]), None)
            if high is None or key not in found[low]:
                continue
            used, other = found[high][key], found[low][key]
            if not _agree(key, used, other, found[high]):
                label = "n_prompts" if key == "train_batch_prompts" else key
                notes.append(f"run {name}: {_WORDS[low]} says {label} {other}, {_WORDS[high]} "
                             f"{used}; the {_WORDS[high]} is used")
    return notes


def _agree(key: str, used: Any, other: Any, high: Mapping[str, Any]) -> bool:
    if key == "train_batch_prompts":
        return other in (used, min(used, high.get("mini_batch_prompts", used)))
    return math.isclose(used, other, rel_tol=1e-9) if isinstance(used, float) else used == other


def _batch(log: RunLog, chosen: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the batch coordinates of one optimizer update, or None where it is unknown."""
    train, rollouts = chosen.get("train_batch_prompts"), chosen.get("n_rollouts")
    mini, epochs = chosen.get("mini_batch_prompts"), chosen.get("ppo_epochs", 1)
    total = chosen.get("total_batch")
    if train is None or rollouts is None:
        if total is None:
            return None
        return {"n_prompts": -1, "n_rollouts": -1, "total_batch": float(total),
                "train_batch_prompts": -1, "mini_batch_prompts": -1, "ppo_epochs": epochs,
                "updates_per_step": epochs}
    prompts = min(train, mini or train)
    if total is not None and not math.isclose(total, prompts * rollouts):
        raise CBSDataError(f"run {log.name}: total_batch is {total:g}, but n_prompts {prompts} × "
                           f"n_rollouts {rollouts} = {prompts * rollouts}; correct or drop one")
    return {"n_prompts": prompts, "n_rollouts": rollouts, "total_batch": float(prompts * rollouts),
            "train_batch_prompts": train, "mini_batch_prompts": mini or -1, "ppo_epochs": epochs,
            "updates_per_step": math.ceil(train / (mini or train)) * epochs}
