"""Jobs side by side, none of which can hold the others or the process for ever."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

__all__ = ["run_bounded"]


def run_bounded[T](
    jobs: Mapping[str, Callable[[], T]],
    *,
    workers: int,
    seconds: float,
    done: Callable[[], None] = lambda: None,
) -> dict[str, T | Exception]:
    """Run jobs in threads and give each a bounded time.

    The threads are daemons, because a request that its client repeats without end cannot be
    broken off: an overdue job is given up, its thread is left behind and the next job begins.

    Parameters
    ----------
    jobs : mapping of str to callable
        The jobs, started in this order.
    workers : int
        Jobs under way at one time.
    seconds : float
        Wall time for one job.
    done : callable
        Called in the caller's thread after each job.

    Returns
    -------
    dict of str to result or Exception
        What each job returned or raised, in the order of `jobs`; TimeoutError if overdue.
    """
    waiting = deque(jobs)
    deadlines: dict[str, float] = {}
    outcomes: dict[str, T | Exception] = {}
    finished: queue.Queue[tuple[str, T | Exception]] = queue.Queue()
    while waiting or deadlines:
        while waiting and len(deadlines) < workers:
            key = waiting.popleft()
            deadlines[key] = time.monotonic() + seconds
            threading.Thread(target=_report, args=(key, jobs[key], finished), daemon=True).start()
        try:
            left = min(deadlines.values()) - time.monotonic()
            key, outcome = finished.get(timeout=max(left, 0.0))
        except queue.Empty:
            key = min(deadlines, key=deadlines.__getitem__)
            outcome = TimeoutError(f"not done after {seconds:g} s")
        if deadlines.pop(key, None) is not None:  # else it was overdue and given up before
            outcomes[key] = outcome
            done()
    return {key: outcomes[key] for key in jobs}


def _report[T](
    key: str, job: Callable[[], T], finished: queue.Queue[tuple[str, T | Exception]]
) -> None:
    try:
        finished.put((key, job()))
    except Exception as error:
        finished.put((key, error))
