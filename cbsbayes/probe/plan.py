"""When to probe, and which rollouts make up which gradient on which rank.

Every rank makes the same plan from the same gathered rows, because FSDP needs all ranks in every
backward pass. A prompt group may lie on several ranks. What goes into which half depends on what
the rollouts are, not on where they lie, so that one rank and two measure the same thing.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cbsbayes.errors import CBSDataError

__all__ = ["Half", "Plan", "ProbeSettings", "Row", "Unit", "make_plan"]

_PREFIX = "CBS_GRAD_NOISE_"

_SIGNAL = 0.01  # of the batch's largest advantage: below it a group's are rounding, not signal


@dataclass(frozen=True)
class ProbeSettings:
    """When and how finely to probe, by environment variables that reach verl's Ray workers.

    Attributes
    ----------
    every : int
        ``CBS_GRAD_NOISE_EVERY``: probe before every so many optimizer updates, the first
        included; 0: never.
    micro_batches : int
        ``CBS_GRAD_NOISE_MICRO_BATCHES``: micro-batches of whole prompt groups for the plain
        estimate; 0: none.
    prompts : int
        ``CBS_GRAD_NOISE_PROMPTS``: most prompt groups probed, drawn from the batch; 0: all.
    unit : int
        ``CBS_GRAD_NOISE_UNIT``: prompt groups per gradient; 0: one per rank, so that no rank
        waits for another.
    """

    every: int = 0
    micro_batches: int = 0
    prompts: int = 0
    unit: int = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> ProbeSettings:
        """Read the settings.

        Raises
        ------
        CBSDataError
            If a variable holds anything but a whole number of 0 or more.
        """
        return cls(**{name: _whole_number(_PREFIX + name.upper(), environment)
                      for name in cls.__dataclass_fields__})


def _whole_number(variable: str, environment: Mapping[str, str]) -> int:
    text = environment.get(variable, "0")
    if not (text.isascii() and text.isdigit()):
        raise CBSDataError(f"{variable} is {text!r}; a whole number of 0 or more is needed, "
                           "0 for the default")
    return int(text)


@dataclass(frozen=True)
class Row:
    """One rollout as its rank describes it.

    Attributes
    ----------
    uid : str
        verl's name of the prompt group.
    digest : str
        Fingerprint of its tokens and advantages: rollouts that share it are interchangeable.
    weight : float
        Share in the loss: tokens under ``token-mean``, 1 under ``seq-mean-*``.
    advantage : float
        Largest absolute advantage of its tokens.
    """

    uid: str
    digest: str
    weight: float
    advantage: float


@dataclass(frozen=True)
class Half:
    """The rollouts of one gradient: local rows by rank, their number and summed weight."""

    rows: list[list[int]]
    count: int
    weight: float


@dataclass(frozen=True)
class Unit:
    """One or more prompt groups whose gradient is taken together, in two halves."""

    prompts: int
    halves: tuple[Half, ...]


@dataclass(frozen=True)
class Plan:
    """Everything a probe does.

    Attributes
    ----------
    units : list of Unit
        Gradients to take, in this order on all ranks.
    half_rollouts : tuple of int
        Rollouts per prompt in either half.
    groups, left_out, without_signal : int
        Prompt groups in the batch; groups left out because their number of rollouts is not the
        usual one (a mini-batch can cut through a group); groups whose advantages are all zero.
    """

    units: list[Unit]
    half_rollouts: tuple[int, int]
    groups: int
    left_out: int
    without_signal: int

    @property
    def prompts(self) -> int:
        """Prompt groups probed."""
        return sum(unit.prompts for unit in self.units)

    @property
    def samples(self) -> int:
        """Rollouts probed."""
        return sum(half.count for unit in self.units for half in unit.halves)

    @property
    def weight(self) -> float:
        """Summed weight of the rollouts probed."""
        return sum(half.weight for unit in self.units for half in unit.halves)


@dataclass(frozen=True)
class _Member:
    rank: int
    index: int
    row: Row


_Group = list[_Member]


def make_plan(rows: Sequence[Sequence[Row]], *, update: int, prompts: int = 0,
              unit: int = 0) -> Plan:
    """Plan a probe.

    Parameters
    ----------
    rows : sequence of sequence of Row
        dims (rank, row), every rank's rows in their local order.
    update : int
        Number of the optimizer update; seeds the split of the rollouts.
    prompts : int
        Most prompt groups to probe, 0 for all.
    unit : int
        Prompt groups per gradient, 0 for as many as there are ranks.

    Returns
    -------
    Plan
    """
    groups: dict[str, _Group] = defaultdict(list)
    for rank, local in enumerate(rows):
        for index, row in enumerate(local):
            groups[row.uid].append(_Member(rank, index, row))
    sizes = Counter(map(len, groups.values()))
    rollouts = max(sizes, key=lambda size: (sizes[size] * size, size))
    whole = [_ordered(g) for g in groups.values() if len(g) == rollouts]
    chosen = sorted(whole, key=lambda g: _name(g, update))[:prompts or None]
    first = rollouts // 2 or 1
    per_unit = unit or len(rows)
    return Plan(units=[_unit(members, first, len(rows), update)
                       for members in _gather(chosen, per_unit, len(rows))],
                half_rollouts=(first, rollouts - first), groups=len(groups),
                left_out=len(groups) - len(whole), without_signal=_without_signal(groups))


def _ordered(group: _Group) -> _Group:
    return sorted(group, key=lambda member: member.row.digest)


def _name(group: _Group, update: int) -> str:
    """Return a fingerprint that orders groups at random but alike on any number of ranks."""
    text = "".join([str(update), *(member.row.digest for member in group)])
    return hashlib.sha256(text.encode()).hexdigest()


def _gather(groups: list[_Group], per_unit: int, ranks: int) -> list[list[_Group]]:
    """Put `per_unit` groups together, as far as possible from different ranks."""
    if per_unit > 1:
        queues: list[list[_Group]] = [[] for _ in range(ranks)]
        for group in groups:
            owner, _ = Counter(member.rank for member in group).most_common(1)[0]
            queues[owner].append(group)
        depth = max(map(len, queues), default=0)
        groups = [queue[i] for i in range(depth) for queue in queues if i < len(queue)]
    return [groups[i:i + per_unit] for i in range(0, len(groups), per_unit)]


def _unit(groups: list[_Group], first: int, ranks: int, update: int) -> Unit:
    halves: tuple[_Group, _Group] = ([], [])
    for group in groups:
        seed = int(_name(group, update)[:16], 16)
        drawn = np.random.default_rng(seed).permutation(len(group))
        for place, member in enumerate(drawn):
            halves[place >= first].append(group[member])
    return Unit(len(groups), tuple(_half(members, ranks) for members in halves if members))


def _half(members: _Group, ranks: int) -> Half:
    rows: list[list[int]] = [[] for _ in range(ranks)]
    for member in members:
        rows[member.rank].append(member.index)
    return Half(rows, len(members), sum(member.row.weight for member in members))


def _without_signal(groups: dict[str, _Group]) -> int:
    largest = [max(member.row.advantage for member in group) for group in groups.values()]
    return sum(value <= _SIGNAL * max(largest) for value in largest)
