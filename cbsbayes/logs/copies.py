"""A run that was logged several times, counted once.

verl writes one run to the console, a file and wandb at the same time; people keep a log under two
names. Copies agree in every evaluation that they share (to float32, which is what TensorBoard
keeps) and in what is known of batch and seed, even where one was cut short. Only the longest and
fullest goes on, with what only the others know of its settings.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.logs.attempts import Run
from cbsbayes.logs.keys import validation_columns

__all__ = ["drop_copies"]

_PREFERRED = ("wandb", "wandb_file", "verl_jsonl", "verl_console", "tensorboard")
_DISTINCT = 4  # values that make a curve too special to occur under two names
_HEAD = 2  # evaluations that copies must share; the one before training alone says nothing
_TOLD = ("n_prompts", "n_rollouts", "total_batch", "updates_per_step", "seed")


def drop_copies(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Drop logs that hold the same run again.

    Parameters
    ----------
    runs : sequence of Run
        In any order.

    Returns
    -------
    kept : list of Run
        In the same order.
    notes : list of str
    """
    curves = [_evaluations(run) for run in runs]
    alike: dict[Hashable, list[int]] = defaultdict(list)
    kept: dict[int, Run] = {}
    notes = []
    for place in sorted(range(len(runs)), key=lambda k: _rank(runs[k], curves[k])):
        run, curve = runs[place], curves[place]
        group = alike[_head(run, curve)]
        of = next((k for k in group if _is_copy(run, kept[k], curve, curves[k])), None)
        if of is None:
            notes += [f"runs {runs[k].log.name} and {run.log.name} hold the same curve under "
                      "different seeds or batches; they count as two" for k in group[:1]
                      if len(curve) >= _DISTINCT and curve.equals(curves[k])]
            group.append(place)
            kept[place] = run
            continue
        notes.append(f"run {run.log.name}: the log {run.log.id} ({run.log.source}) is a copy of "
                     f"{kept[of].log.id} ({kept[of].log.source}); it is counted once")
        kept[of] = _completed(kept[of], run)
    return [kept[place] for place in sorted(kept)], notes


def _evaluations(run: Run) -> pd.DataFrame:
    history = run.log.history
    columns = validation_columns(history.columns)
    curve = history[columns].dropna(how="all")
    with np.errstate(over="ignore"):
        return curve.astype(np.float32)


def _rank(run: Run, curve: pd.DataFrame) -> tuple[int, bool, int, int]:
    place = _PREFERRED.index(run.log.source) if run.log.source in _PREFERRED else len(_PREFERRED)
    return -len(curve), not run.log.config, place, -run.log.history.size


def _head(run: Run, curve: pd.DataFrame) -> Hashable:
    """Return what copies have in common for sure, so that few pairs are compared in full."""
    if len(curve) < _HEAD:
        return run.log.name, run.log.source
    head = curve.iloc[:_HEAD]
    return (*head.columns, head.index.to_numpy().tobytes(), head.to_numpy().tobytes())


def _is_copy(run: Run, other: Run, one: pd.DataFrame, two: pd.DataFrame) -> bool:
    same_name = run.log.name == other.log.name
    if not _compatible(run.coords, other.coords):
        return False
    if len(one) < _HEAD:  # no curve to compare: everything must agree
        tables = run.log.crossings, other.log.crossings
        same = tables[0] is tables[1] is None or (
            tables[0] is not None and tables[1] is not None and tables[0].equals(tables[1]))
        empty = run.log.crossings is None and run.log.history.empty
        return same and not empty and run.log.history.equals(other.log.history)
    steps = one.index.intersection(two.index)
    if len(steps) < _HEAD or not one.loc[steps].equals(two.loc[steps]):
        return False
    telling = min(len(steps), np.unique(one.loc[steps]).size)
    whole = len(one) == len(two) == len(steps) or run.log.source != other.log.source
    return telling >= (_HEAD if same_name and whole else _DISTINCT) and (whole or same_name)


def _compatible(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    return all(one[key] == two[key] for key in _TOLD
               if _is_known(one.get(key)) and _is_known(two.get(key)))


def _is_known(value: Any) -> bool:
    return value not in (None, "", -1) and not (isinstance(value, float) and math.isnan(value))


def _completed(run: Run, copy: Run) -> Run:
    """Lend a run the configuration and the settings that only its copy has."""
    coords = {**copy.coords, **{k: v for k, v in run.coords.items() if _is_known(v)}}
    unknown = {k: v for k, v in run.coords.items() if k not in coords}
    config = run.log.config or copy.log.config
    return replace(run, coords={**unknown, **coords}, log=replace(run.log, config=config))
