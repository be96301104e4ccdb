"""One run from several attempts: resumed attempts joined, orphans named.

A restarted verl job makes a second log with the same display name that begins after the last
checkpoint; its tail alone looks like a run that reached every target at once. Logs with the same
name and the same configuration (`cbsbayes.logs.run_config.config_key`) are attempts of one run if a
later one begins where an earlier one had arrived; logs that begin at the beginning are
replicates and stay apart; a tail without its beginning is an orphan: kept, but never fitted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.logs.keys import is_validation
from cbsbayes.logs.run_config import config_key
from cbsbayes.logs.run_log import RunLog

__all__ = ["WHOLE", "Run", "join_attempts"]

WHOLE = ("table", "crossings")
"""Sources that hold whole runs, never attempts."""


@dataclass(frozen=True)
class Run:
    """One run of the sweep to be: its log, its coordinates and what became of it.

    Attributes
    ----------
    log : RunLog
    coords : mapping
        Run coordinates by column (`cbsbayes.logs.run_columns`); empty where no batch is known.
    attempts : int
    usable : bool
    remark : str
    """

    log: RunLog
    coords: Mapping[str, Any]
    attempts: int = 1
    usable: bool = True
    remark: str = ""


@dataclass(frozen=True)
class _Span:
    """Trainer steps that a log covers; `resumed` if it cannot have begun at the beginning."""

    first: float
    last: float
    interval: float
    resumed: bool


def join_attempts(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Join resumed attempts, keep replicates apart and mark orphans as not usable.

    Parameters
    ----------
    runs : sequence of Run
        One per log; tables of curves or crossings hold whole runs and pass unchanged.

    Returns
    -------
    joined : list of Run
        In the order of first appearance.
    notes : list of str
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for place, run in enumerate(runs):
        groups[place if run.log.source in WHOLE else (run.log.name,)].append(place)
    joined: dict[int, Run] = {}
    notes: list[str] = []
    for places in groups.values():
        for chain in _chains([runs[place] for place in places]):
            run, said = _join(chain)
            joined[next(p for p in places if runs[p] is chain[0])] = run
            notes += said
    return [joined[place] for place in sorted(joined)], notes


def _chains(runs: Sequence[Run]) -> list[list[Run]]:
    """Split logs of one name into runs, each a list of attempts in order."""
    if len(runs) == 1:
        return [list(runs)]
    by_config = defaultdict(list)
    for run in runs:
        by_config[config_key(run.log.config), config_key(run.log.settings)].append(run)
    return [chain for same in by_config.values() for chain in _same_experiment(same)]


def _same_experiment(runs: Sequence[Run]) -> list[list[Run]]:
    spans = {id(run): _span(run.log) for run in runs}
    dated = all(run.log.created for run in runs)
    order = sorted(runs, key=lambda r: (r.log.created if dated else "", spans[id(r)].first))
    chains: list[list[Run]] = []
    for run in order:
        span = spans[id(run)]
        parents = [chain for chain in chains
                   if spans[id(chain[-1])].last >= span.first - 1.5 * span.interval]
        if span.resumed and parents:
            # A finished run needs no resuming; among the rest the one that got least further.
            min(parents, key=lambda c: (c[-1].log.state == "finished",
                                        spans[id(c[-1])].last)).append(run)
        else:
            chains.append([run])
    return chains


def _span(log: RunLog) -> _Span:
    """Find the trainer steps of a log, by its training metrics where it has any."""
    training = [str(c) for c in log.history.columns if not is_validation(str(c))]
    columns = ["training/global_step"] if "training/global_step" in training else training
    trained = log.history[columns].notna().any(axis=1).to_numpy()
    every = log.history.index.to_numpy(np.float64)
    steps = every[trained] if trained.any() else every
    if not steps.size:
        return _Span(0.0, 0.0, 1.0, resumed=False)
    positive = steps[steps > 0]
    interval = float(np.median(np.diff(positive))) if positive.size > 1 else 1.0
    first, last = float(steps.min()), float(steps.max())
    resumed = bool(first > 2 * interval and every.min() > 0 and log.source not in WHOLE)
    return _Span(first, last, interval, resumed)


def _join(chain: Sequence[Run]) -> tuple[Run, list[str]]:
    first, spans = chain[0], [_span(run.log) for run in chain]
    run, said = first, []
    if len(chain) > 1:
        starts = ", ".join(f"{span.first:g}" for span in spans[1:])
        said.append(f"{len(chain)} attempts joined, resumed at trainer steps {starts}")
        run = replace(first, log=_joined_log(chain, spans), attempts=len(chain))
    if spans[0].resumed:
        said.append(f"begins at trainer step {spans[0].first:g} and no earlier attempt was found; "
                    "it is not fitted")
        run = replace(run, usable=False)
    remark = "; ".join([*filter(None, [first.remark]), *said])
    return replace(run, remark=remark), [f"run {first.log.name}: {text}" for text in said]


def _joined_log(chain: Sequence[Run], spans: Sequence[_Span]) -> RunLog:
    """Let each attempt overrule the earlier ones from its first trained step on."""
    history = chain[0].log.history
    for run, span in zip(chain[1:], spans[1:], strict=True):
        own = run.log.history
        before = own.index < span.first
        old = history[history.index < span.first].combine_first(own[before])
        history = pd.concat([old, own[~before]]).sort_index()
    logs = [run.log for run in chain]
    config = next((log.config for log in logs if log.config), {})
    notes = tuple(dict.fromkeys(note for log in logs for note in log.notes))
    return replace(logs[0], history=history, config=config, state=logs[-1].state, notes=notes)
