"""Hundreds of fits: in processes on this machine or on a cluster through Dask, finished ones kept.

Both kinds of workers are `concurrent.futures` executors, so one loop serves them. A sweep that
fails is recorded with its reason and the others go on; a worker that dies stops the study, what is
finished being kept in the `Ledger`: the same command goes on from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from cbsbayes.errors import CBSDataError

__all__ = ["Ledger", "Work", "executor", "run_sweeps"]

Work = Callable[[int], dict[str, Any]]
"""From a random seed to the record of its sweep; picklable."""

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
               "RAYON_NUM_THREADS")
_PATIENCE = 20  # seconds for a scheduler to answer and have a worker


class Ledger:
    """The finished sweeps of one study, one line of JSON each in a file that only grows.

    The first line holds the settings; other settings are refused, not mixed in. Sweeps in the file
    are not fitted again, failed ones are.

    Parameters
    ----------
    path : Path
        The file; made with its folder if it does not exist.
    settings : mapping
        Plain values that every sweep in it shares.

    Attributes
    ----------
    records : dict
        Random seed to its record; of a seed tried twice, the last.

    Raises
    ------
    CBSDataError
        If the file was made with other settings, or is no ledger.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.records: dict[int, dict[str, Any]] = {}
        if path.exists() and path.stat().st_size:
            self._read(settings)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append({"settings": dict(settings)})

    @property
    def finished(self) -> set[int]:
        """The seeds that need no further fit."""
        return {seed for seed, record in self.records.items() if "error" not in record}

    def add(self, random_seed: int, record: Mapping[str, Any]) -> None:
        """Keep the record of one sweep: ``rows`` and ``sampling``, or ``error``."""
        self.records[random_seed] = {"seed": random_seed, **record}
        self._append(self.records[random_seed])

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def _read(self, settings: Mapping[str, Any]) -> None:
        text = self.path.read_text(encoding="utf-8")
        header, *entries = map(_parsed, text.split("\n"))
        kept = header.get("settings")
        if kept is None:
            raise CBSDataError(f"{self.path} does not begin with the settings of a study; it is "
                               "not a file of cbsbayes.validate: remove it or choose another -o")
        for name in {**kept, **settings}:
            if kept.get(name) != settings.get(name):
                raise CBSDataError(
                    f"{self.path} holds sweeps made with {name} = {kept.get(name)!r}, now {name} "
                    f"is {settings.get(name)!r}; use the same settings to go on, or choose "
                    "another -o")
        self.records = {int(entry["seed"]): entry for entry in entries if "seed" in entry}
        if not text.endswith("\n"):  # stopped while writing: that sweep is fitted again
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("\n")


def _parsed(line: str) -> dict[str, Any]:
    """Return the entry on a line, empty where it was cut off while being written."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


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
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"),
                             initializer=_start_worker) as pool:
        yield pool


def _start_worker() -> None:
    """Give a worker one thread, and have it end when the command does, killed or not."""
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))  # read when it loads numpy

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
                           f"({error}); start one with 'dask scheduler' and "
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
        Called for every sweep that is finished, those of the ledger too.

    Raises
    ------
    CBSDataError
        If a worker died.
    """
    waiting = {pool.submit(work, seed): seed for seed in seeds if seed not in ledger.finished}
    for _ in range(len(seeds) - len(waiting)):
        advance()
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
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())}
