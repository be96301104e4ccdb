"""How long each stage of a command took, in seconds by the clock and of the processor.

A command tells what it does through one callable, ``stage("sampling two_axis")``. `Timings` is such
a callable: a stage ends where the next one begins.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Stage", "StageTime", "Timings", "peak_memory", "timings_table"]

Stage = Callable[[str], None]
"""Told what is being done."""


class StageTime(NamedTuple):
    """What one stage took.

    Attributes
    ----------
    stage : str
        What was done.
    seconds, cpu_seconds : float
        By the clock, and of the processor in all threads of this process.
    """

    stage: str
    seconds: float
    cpu_seconds: float


class Timings:
    """Record stages; of one name, several times over, the sum.

    Parameters
    ----------
    show : callable, optional
        Told the name of each stage as it begins, for a display.
    """

    def __init__(self, show: Callable[[str], None] = lambda text: None) -> None:
        self._show = show
        self._spent: dict[str, tuple[float, float]] = {}
        self._running: str | None = None
        self._since = _now()

    def __call__(self, text: str) -> None:
        """Begin a stage and end the one before."""
        self.stop()
        self._running = text
        self._show(text)

    def stop(self) -> None:
        """End the running stage, if there is one."""
        now = _now()
        if self._running is not None:
            before = self._spent.get(self._running, (0.0, 0.0))
            self._spent[self._running] = (before[0] + now[0] - self._since[0],
                                          before[1] + now[1] - self._since[1])
        self._running, self._since = None, now

    def rows(self) -> list[StageTime]:
        """Return the stages ended so far, in the order they began."""
        return [StageTime(name, *spent) for name, spent in self._spent.items()]


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def peak_memory() -> float | None:
    """Return the most memory held, MiB; None where the system cannot tell.

    The peak of this process and that of the largest it has started and seen end, added up: the
    two need not have been at the same time.
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1024 if sys.platform != "darwin" else 1024**2
    return sum(resource.getrusage(who).ru_maxrss
               for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / unit


def timings_table(rows: list[StageTime]) -> str:
    """Return stages as lines of text: by the clock, of the processor, and what was done."""
    total = StageTime("all stages", sum(r.seconds for r in rows), sum(r.cpu_seconds for r in rows))
    lines = [f"{'seconds':>8} {'CPU':>7}  stage"]
    lines += [f"{r.seconds:8.2f} {r.cpu_seconds:7.2f}  {r.stage}" for r in [*rows, total]]
    memory = peak_memory()
    return "\n".join(lines + ([] if memory is None else [f"{memory:8.0f} MiB      peak memory"]))
