"""One run from several logs: copies counted once, resumed attempts joined, orphans named.

verl writes one run to the console, a file and wandb at the same time; people keep a log under two
names. Copies agree in every evaluation that they share (to float32, which is what TensorBoard
keeps) and in what is known of batch and seed, even where one was cut short. Only the longest and
fullest goes on, with what only the others know of its settings.

A restarted verl job makes a second log with the same display name that begins after the last
checkpoint; its tail alone looks like a run that reached every target at once. Logs with the same
name and settings are attempts of one run if a later one begins where an earlier one had arrived;
logs that begin at the beginning are replicates and stay apart; a tail without its beginning is an
orphan: kept, but never fitted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from cbsbayes.logs.run_log import RUN_COLUMNS, RunLog, is_validation, validation_columns

__all__ = ["Run", "drop_copies", "join_attempts"]

_WHOLE = ("table", "crossings")  # sources that hold whole runs, never attempts
_PREFERRED = ("wandb", "wandb_file", "verl_jsonl", "verl_console", "tensorboard")
_DISTINCT = 4  # evaluations that make a curve too special to occur under two names
_HEAD = 2  # evaluations that copies must share; the one before training alone says nothing
_TOLD = ("n_prompts", "n_rollouts", "total_batch", "updates_per_step", "seed")
_SAME = (*_TOLD, "ppo_epochs", "learning_rate", "algorithm", "model", "dataset")
_REACH = 2.5  # steps: verl saves before it logs, and killed between no log has the saved step
_REGULAR = 0.8  # share of equal distances from which the others are holes


@dataclass(frozen=True)
class Run:
    """One run of the sweep to be: its log, its coordinates and what became of it.

    Attributes
    ----------
    log : RunLog
    coords : mapping
        Run coordinates by column (`cbsbayes.logs.run_log`); empty where no batch is known.
    attempts : int
    usable : bool
    remark : str
    """

    log: RunLog
    coords: Mapping[str, Any]
    attempts: int = 1
    usable: bool = True
    remark: str = ""


def drop_copies(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Drop logs that hold the same run again.

    Returns
    -------
    kept : list of Run
        In the order of `runs`.
    notes : list of str
    """
    curves = [_evaluations(run.log) for run in runs]
    alike: dict[Hashable, list[int]] = defaultdict(list)
    kept: dict[int, Run] = {}
    notes = []
    for k in sorted(range(len(runs)), key=lambda k: _rank(runs[k].log, curves[k])):
        run, curve = runs[k], curves[k]
        head = tuple(curve.items())[:_HEAD]
        group = alike[head if len(head) == _HEAD else (run.log.name, run.log.source)]
        of = next((j for j in group if _is_copy(run, kept[j], curve, curves[j])), None)
        if of is None:
            notes += [f"runs {runs[j].log.name} and {run.log.name} hold the same curve under "
                      "different seeds or batches; they count as two" for j in group[:1]
                      if len(curve) >= _DISTINCT and curve == curves[j]]
            group.append(k)
            kept[k] = run
            continue
        fuller = kept[of]
        notes.append(f"run {run.log.name}: the log {run.log.id} ({run.log.source}) is a copy of "
                     f"{fuller.log.id} ({fuller.log.source}); it is counted once")
        known = {key: value for key, value in fuller.coords.items()
                 if RUN_COLUMNS[key].known(value)}
        kept[of] = replace(fuller, coords={**fuller.coords, **run.coords, **known}, log=replace(
            fuller.log, settings=(*fuller.log.settings, *run.log.settings)))
    return [kept[k] for k in sorted(kept)], notes


def _evaluations(log: RunLog) -> dict[float, Hashable]:
    """Return what was measured at each evaluation, to float32."""
    columns = validation_columns(log.history.columns)
    curve = log.history[columns].dropna(how="all")
    with np.errstate(over="ignore"):
        values = curve.to_numpy(np.float32)
    return {step: (*columns, row.tobytes())
            for step, row in zip(curve.index, values, strict=True)}


def _rank(log: RunLog, curve: Mapping[float, Hashable]) -> tuple[int, bool, int, int]:
    place = (*_PREFERRED, log.source).index(log.source)
    return -len(curve), not log.settings, place, -log.history.size


def _is_copy(run: Run, other: Run, one: Mapping[float, Hashable], two: Mapping[float, Hashable]
             ) -> bool:
    for key in _TOLD:
        told = {of.coords[key] for of in (run, other) if RUN_COLUMNS[key].known(of.coords.get(key))}
        if len(told) > 1:
            return False
    if len(one) < _HEAD:  # no curve to compare: everything must agree
        if run.log.crossings is not None:
            table = other.log.crossings
            return table is not None and run.log.crossings.equals(table)
        return not run.log.history.empty and run.log.history.equals(other.log.history)
    shared = one.keys() & two.keys()
    if any(one[step] != two[step] for step in shared):
        return False
    same_name = run.log.name == other.log.name
    whole = one.keys() == two.keys() or run.log.source != other.log.source
    distinct = len({one[step] for step in shared})
    return distinct >= (_HEAD if same_name and whole else _DISTINCT) and (whole or same_name)


class _Span(NamedTuple):
    """Trainer steps that a log covers; `resumed` if it cannot have begun at the beginning."""

    first: float
    last: float
    interval: float
    resumed: bool


type _Attempt = tuple[Run, _Span]


def join_attempts(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Join resumed attempts, keep replicates apart and mark orphans as not usable.

    Parameters
    ----------
    runs : sequence of Run
        One per log; tables of curves or crossings hold whole runs and are not joined.

    Returns
    -------
    joined : list of Run
    notes : list of str
        Attempts joined, beginnings and steps that are missing.
    """
    groups: dict[Hashable, list[Run]] = defaultdict(list)
    for k, run in enumerate(runs):
        same = (run.log.name, *(str(run.coords.get(key)) for key in _SAME))
        groups[k if run.log.source in _WHOLE else same].append(run)
    joined = [_join(chain) for group in groups.values() for chain in _chains(group)]
    notes = [f"run {run.log.name}: {text}" for run, said in joined for text in said]
    return [run for run, _ in joined], notes


def _chains(runs: Sequence[Run]) -> list[list[_Attempt]]:
    """Split logs of one name and settings into runs, each a list of attempts in order."""
    dated = all(run.log.created for run in runs)
    chains: list[list[_Attempt]] = []
    for run, span in sorted(((run, _span(run.log)) for run in runs), key=lambda pair: (
            pair[0].log.created if dated else "", pair[1].first)):
        parents = [chain for chain in chains
                   if chain[-1][1].last >= span.first - _REACH * span.interval]
        if span.resumed and parents:
            # A finished run needs no resuming; among the rest the one that got least further.
            min(parents, key=lambda c: (c[-1][0].log.state == "finished", c[-1][1].last)
                ).append((run, span))
        else:
            chains.append([(run, span)])
    return chains


def _steps(log: RunLog) -> np.ndarray:
    """Return the trainer steps of a log, by its training metrics where it has any."""
    training = [str(c) for c in log.history.columns if not is_validation(str(c))]
    columns = ["training/global_step"] if "training/global_step" in training else training
    trained = log.history[columns].notna().any(axis=1).to_numpy()
    every = log.history.index.to_numpy(np.float64)
    return every[trained] if trained.any() else every


def _span(log: RunLog) -> _Span:
    steps = _steps(log)
    if not steps.size:
        return _Span(0.0, 0.0, 1.0, resumed=False)
    positive = steps[steps > 0]
    interval = float(np.median(np.diff(positive))) if positive.size > 1 else 1.0
    first, last = float(steps.min()), float(steps.max())
    resumed = first > 2 * interval and log.history.index.min() > 0 and log.source not in _WHOLE
    return _Span(first, last, interval, bool(resumed))


def _join(chain: Sequence[_Attempt]) -> tuple[Run, list[str]]:
    """Return one run, later attempts overruling from their first trained step on."""
    (run, begin), *later = chain
    said = []
    if later:
        history = run.log.history
        for attempt, span in later:
            history = history[history.index < span.first].combine_first(attempt.log.history)
        notes = dict.fromkeys(note for attempt, _ in chain for note in attempt.log.notes)
        run = replace(run, attempts=len(chain), log=replace(
            run.log, history=history, state=later[-1][0].log.state, notes=tuple(notes)))
        starts = ", ".join(f"{span.first:g}" for _, span in later)
        said.append(f"{len(chain)} attempts joined, resumed at trainer steps {starts}")
    if begin.resumed:
        said.append(f"begins at trainer step {begin.first:g} and no earlier attempt was found; "
                    "it is not fitted")
        run = replace(run, usable=False)
    said += _holes(run.log)
    return replace(run, remark="; ".join(filter(None, [run.remark, *said]))), said


def _holes(log: RunLog) -> list[str]:
    """Say where steps are missing from a log that is regular otherwise."""
    steps = _steps(log)
    gaps = np.diff(steps[steps > 0])
    usual = float(np.median(gaps)) if gaps.size else 0.0
    holes = np.flatnonzero(gaps >= 2 * usual)
    if not holes.size or np.isclose(gaps, usual).mean() < _REGULAR:
        return []
    after = steps[steps > 0][holes[0]]
    missing = round(float((gaps[holes] / usual - 1).sum()))
    return [f"steps missing: {missing}, places: {holes.size}, the first after trainer step "
            f"{after:g}"]
