"""Hundreds of fits: in processes on this machine, or on a cluster through Dask.

Both speak `concurrent.futures`, so one loop serves them. A sweep that fails is recorded with its
reason and the others go on; a worker that dies stops the study, what is finished being kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any

from cbsbayes._command import one_line
from cbsbayes.errors import CBSDataError
from cbsbayes.validation.ledger import Ledger

__all__ = ["Work", "executor", "run_sweeps"]

Work = Callable[[int], dict[str, Any]]
"""From a random seed to the record of its sweep; picklable."""

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
               "RAYON_NUM_THREADS")
_PATIENCE = 20  # seconds for a scheduler to answer and have a worker


@contextmanager
def executor(workers: int, scheduler: str | None = None) -> Iterator[Executor]:
    """Give an executor: local processes of one thread each, or the workers of a cluster.

    Parameters
    ----------
    workers : int
        Local processes.
    scheduler : str, optional
        Address of a Dask scheduler, whose workers have cbsbayes installed; none is local.

    Raises
    ------
    CBSDataError
        If ``distributed`` is missing, the scheduler does not answer or has no worker.
    """
    if scheduler is not None:
        with _cluster(scheduler) as pool:
            yield pool
        return
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))  # read when a new process loads numpy
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"),
                                 initializer=_end_with_the_command) as pool:
            yield pool
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _end_with_the_command() -> None:
    """Have a worker end when the command does, killed or not: alone it would wait for ever."""
    def wait() -> None:
        if command is not None:
            command.join()
            os._exit(1)

    command = parent_process()
    Thread(target=wait, daemon=True).start()


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise CBSDataError("--scheduler needs Dask's distributed; install it with pip install "
                           "'cbsbayes[cluster]'") from None
    try:
        client = Client(address, timeout=_PATIENCE)
        client.wait_for_workers(1, timeout=_PATIENCE)
    except (OSError, ValueError) as error:  # a timeout is an OSError
        raise CBSDataError(f"no Dask scheduler with a worker at {address!r} "
                           f"({one_line(error)}); start one with 'dask scheduler' and "
                           "'dask worker ADDRESS --nthreads 1'") from None
    with client:
        yield client.get_executor(pure=False, retries=1)


def run_sweeps(
    work: Work, seeds: Sequence[int], ledger: Ledger, pool: Executor,
    advance: Callable[[], object] = lambda: None,
) -> None:
    """Fit the sweeps that the ledger does not hold yet and add them to it as they finish.

    Parameters
    ----------
    work : callable
        One sweep.
    seeds : sequence of int
        Random seeds wanted.
    ledger : Ledger
        What is finished.
    pool : Executor
        Of `executor`.
    advance : callable
        Called when a sweep is finished.

    Raises
    ------
    CBSDataError
        If a worker died.
    """
    waiting = {pool.submit(work, seed): seed for seed in seeds if seed not in ledger.finished}
    try:
        for future in as_completed(waiting):
            ledger.add(waiting[future], _record(future))
            advance()
    except BrokenProcessPool:
        done = len(ledger.finished & set(seeds))
        raise CBSDataError(f"a worker process died, out of memory perhaps; {done} of {len(seeds)} "
                           "sweeps are kept: run the same command again, with fewer --workers"
                           ) from None
    finally:
        for future in waiting:
            future.cancel()


def _record(future: Future[dict[str, Any]]) -> dict[str, Any]:
    try:
        return future.result()
    except BrokenProcessPool:
        raise
    except Exception as error:
        return {"error": one_line(f"{type(error).__name__}: {error}")}
