"""CPU seconds of a process and all it started, ended or not, as Linux counts them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["cpu_seconds"]

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds() -> float:
    """Return user and system seconds so far of this process and its descendants."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return own + sum(_living(int(child)) for child in _children(os.getpid()))


def _living(pid: int) -> float:
    """Return seconds of a living process, of its ended children and of its living ones."""
    with contextlib.suppress(OSError):  # it may end in between
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (sum(map(int, fields[11:15])) / _TICK
                + sum(_living(int(child)) for child in _children(pid)))
    return 0.0


def _children(pid: int) -> list[str]:
    found: list[str] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += task.read_text().split()
    return found
