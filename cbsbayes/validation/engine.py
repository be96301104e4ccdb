"""Studies: hundreds of fits of one kind, in processes or on a cluster, finished ones kept.

Both kinds of workers are `concurrent.futures` executors, so one loop serves them. A sweep that
fails is recorded with its reason and the others go on; a worker that dies stops the study, what is
finished being kept in the `Ledger`: the same command goes on from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import get_law
from cbsbayes.posterior.fit import versions
from cbsbayes.validation import calibration, coverage
from cbsbayes.validation.models import Settings

__all__ = ["LABELS", "Ledger", "Study", "Work", "calibration_study", "coverage_study", "executor",
           "rows_of", "run_study", "run_sweeps", "sampling_summary", "seeds_study"]

LABELS = {"coverage": "family", "sbc": "design", "seeds": "table"}
"""Kinds of studies, and the column that says on what data each was made."""

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
        content = self.path.read_bytes()
        header, *entries = map(_parsed, content.split(b"\n"))
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
        self.records = {entry["seed"]: entry for entry in entries
                        if isinstance(entry.get("seed"), int)}
        if not content.endswith(b"\n"):  # stopped while writing: that sweep is fitted again
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("\n")


def _parsed(line: bytes) -> dict[str, Any]:
    """Return the entry on a line, empty where it is damaged: that sweep is fitted again."""
    try:
        entry = json.loads(line.decode())
    except (ValueError, RecursionError):
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


@dataclass(frozen=True)
class Study:
    """What every sweep of a study shares.

    Attributes
    ----------
    kind : {"coverage", "sbc", "seeds"}
        What is done.
    data : str
        Family, design or name of the table.
    settings : Settings
        How sweeps are fitted.
    work : callable
        From a random seed to the record of a sweep.
    facts : mapping
        What else all sweeps share, such as a digest of the table.
    """

    kind: str
    data: str
    settings: Settings
    work: Work
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.kind}-{self.data}-{self.settings.law}-{self.model}"

    @property
    def model(self) -> str:
        """The model's name in tables and files, with ceilings by group size where it has them."""
        return self.settings.model + ("-ceilings" if self.settings.ceiling_by_group else "")

    def all_settings(self) -> dict[str, Any]:
        """Return everything that must agree between the sweeps of a table."""
        return {"kind": self.kind, "data": self.data, **self.settings.as_dict(),
                "model": self.model, **self.facts, "cbsbayes": versions()["cbsbayes"]}


def coverage_study(family: str, settings: Settings) -> Study:
    """Return the study of a family of simulated truth."""
    every = f"_every_{settings.eval_every}" if settings.eval_every else ""
    return Study("coverage", family + every, settings,
                 partial(coverage.simulated_sweep, family, settings), {"family": family}
                 if every else {})


def calibration_study(settings: Settings) -> Study:
    """Return the simulation-based calibration of a model under a law."""
    design = "all" if get_law(settings.law).two_axis else "batch"
    return Study("sbc", design, settings, partial(calibration.calibration_sweep, settings))


def seeds_study(ds: xr.Dataset, name: str, settings: Settings) -> Study:
    """Return the study of redrawn seeds of a table."""
    return Study("seeds", name, settings, partial(coverage.redrawn_sweep, ds, settings),
                 {"digest": str(ds.attrs["digest"])})


def run_study(
    study: Study, wanted: Sequence[int], folder: Path, pool: Executor,
    advance: Callable[[], object] = lambda: None,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Run what is missing of a study and return its table, and what that is made from.

    Parameters
    ----------
    study : Study
        What to run.
    wanted : sequence of int
        Random seeds of its sweeps; the table holds these, whatever else the ledger has.
    folder : Path
        Where ``sweeps/`` with the ledger is.
    pool : Executor
        Of `executor`.
    advance : callable
        Called for every sweep when it is there.

    Returns
    -------
    table : pandas.DataFrame
        Of `coverage.coverage_table` or `calibration.rank_table`.
    rows : pandas.DataFrame
        Of all finished sweeps, with a column ``sweep``.
    summary : dict
        Of `sampling_summary`.
    """
    ledger = Ledger(folder / "sweeps" / f"{study.name}.jsonl", study.all_settings())
    run_sweeps(study.work, wanted, ledger, pool, advance)
    records = [ledger.records[seed] for seed in wanted]
    columns, table = ((calibration.COLUMNS, calibration.rank_table) if study.kind == "sbc"
                      else (coverage.COLUMNS, coverage.coverage_table))
    rows = rows_of(records, columns)
    return table(rows), rows, sampling_summary(records)


def rows_of(records: Iterable[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    """Return the rows of finished sweeps as one table with a column ``sweep``."""
    rows = [[*row, record["seed"]] for record in records for row in record.get("rows", [])]
    return pd.DataFrame(rows, columns=[*columns, "sweep"])


def sampling_summary(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return how the sampling of all sweeps went, and which sweeps failed and why."""
    records = list(records)
    done = pd.DataFrame([record["sampling"] for record in records if "sampling" in record])
    worst = {"seconds_median": ("seconds", "median"), "seconds_max": ("seconds", "max"),
             "divergences": ("divergences", "sum"), "r_hat_worst": ("r_hat_max", "max"),
             "ess_bulk_worst": ("ess_bulk_min", "min"), "alarms": ("alarm", "sum"),
             "structure_alarms": ("structure_alarm", "sum")}
    failed = {str(record["seed"]): record["error"] for record in records if "error" in record}
    return {"sweeps": len(done), "failed": failed, **{
        name: round(float(done[column].agg(how)), 3)
        for name, (column, how) in worst.items() if column in done}}
