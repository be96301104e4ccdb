"""Run cells on this machine, one after the other, so that it can be stopped and started again.

What is on disk decides: a run whose log reaches its last step and was validated there is finished
and skipped; any other is started (or continued from its checkpoint), with earlier history set
aside whole; the checkpoints of a finished run are removed. Two processes never run the same cell:
each run has a lock.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cbsbayes.sweep.files import write_whole
from training import checkpoints
from training.attempts import check_identity, locked, set_aside, software
from training.cells import Cell
from training.checks import training_rows, validation_items
from training.compose import config_text
from training.logs import RunProgress, has_passed, read_progress
from training.verl_command import MODULE, Places, environment, overrides, remote_overrides

__all__ = ["Outcome", "is_finished", "run_cells", "run_sentence"]

Say = Callable[[str], None]
_GRACE = 60.0  # seconds that Ray gets to stop its workers
_LOOK = 5.0  # seconds between looks at what a run has scored
_CAUSE = re.compile(r"^(\S+ )?([\w.]*(Error|Exception|Interrupt)\b|.*\b(out of memory|Killed)\b)")


@dataclass(frozen=True)
class Outcome:
    """How many runs ended how.

    Attributes
    ----------
    finished, skipped, busy, failed : int
        Finished now; finished before; run by another process at this moment; not finished.
    """

    finished: int = 0
    skipped: int = 0
    busy: int = 0
    failed: int = 0


def is_finished(cell: Cell, places: Places) -> bool:
    """Return whether a log reaches its run's last validation, or the score where it stops."""
    progress = read_progress(places.log(cell.name))
    return ((progress.last_step >= cell.steps and progress.validated >= cell.steps)
            or _may_stop(cell, places))


def _may_stop(cell: Cell, places: Places) -> bool:
    horizon = cell.controls.horizon
    return has_passed(places.log(cell.name), horizon.stop_score, horizon.stop_evaluations)


def run_cells(
    cells: Sequence[Cell], places: Places, *, tries: int = 2,
    trainer: Sequence[str] = (sys.executable, "-m", MODULE), say: Say = print,
) -> Outcome:
    """Run every cell that is not finished.

    Parameters
    ----------
    cells : sequence of Cell
        The runs, in order.
    places : Places
        Where they read and write.
    tries : int
        Attempts per run before the next run's turn.
    trainer : sequence of str
        The command that takes verl's overrides.
    say : callable
        Takes one line about each run.

    Returns
    -------
    Outcome

    Raises
    ------
    CBSDataError
        If a run's folder belongs to another configuration or its checkpoint to another number of
        GPUs (found before the first run starts), or verl refuses a configuration.
    """
    for cell in cells:
        check_identity(cell, places)
        if not is_finished(cell, places):
            checkpoints.last_whole(cell, places)
    counts = dict.fromkeys(("finished", "skipped", "busy", "failed"), 0)
    for number, cell in enumerate(cells, start=1):
        mark = f"[{number:>{len(str(len(cells)))}}/{len(cells)}] {cell.name}:"
        with locked(cell, places) as lock:
            if lock is not None:
                how = _run_one(cell, places, tries, trainer, lock, _marked(mark, say))
            else:
                how = "busy"
                say(f"{mark} another process runs it at this moment; left to it")
        counts[how] += 1
    return Outcome(**counts)


def _marked(mark: str, say: Say) -> Say:
    return lambda text: say(f"{mark} {text}")


def _run_one(
    cell: Cell, places: Places, tries: int, trainer: Sequence[str], lock: int, say: Say
) -> str:
    """Run one cell while its lock is held; returns how it ended."""
    if is_finished(cell, places):
        last = read_progress(places.log(cell.name)).last_step
        checkpoints.clear(cell, places)
        say(f"finished before ({last} steps), skipped")
        return "skipped"
    configuration = config_text(overrides(cell, places), validation_items(cell, places))
    for attempt in range(1, tries + 1):
        step = checkpoints.settle(cell, places)
        aside = set_aside(cell, places, continued=bool(step))
        note = f"; earlier log kept in {aside.relative_to(places.output)}" if aside else ""
        begun = f"continued from step {step} of {cell.steps}" if step else (
            f"started, {cell.steps} steps")
        say(begun + note)
        places.log(cell.name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(places.side_car(cell.name), configuration)
        status, seconds, console = _attempt(cell, places, trainer, lock)
        progress = read_progress(places.log(cell.name))
        if is_finished(cell, places):
            checkpoints.clear(cell, places)
            say(run_sentence(cell, progress, seconds))
            return "finished"
        where = console.relative_to(places.output)
        say(f"FAILED at step {progress.last_step} of {cell.steps} with exit status {status}: "
            f"{_last_words(console)} (all of it: {where}); attempt {attempt} of {tries}")
    return "failed"


def _attempt(
    cell: Cell, places: Places, trainer: Sequence[str], lock: int
) -> tuple[int, float, Path]:
    """Run the trainer once, with its record; returns exit status, seconds and console file."""
    folder = places.run(cell.name)
    record = check_identity(cell, places)
    number = len(record["attempts"]) + 1
    console = folder / f"console.{number}.log"
    written = remote_overrides if os.environ.get("RAY_ADDRESS") else _with_allocation
    command = [*trainer, *written(cell, places)]
    entry: dict[str, Any] = {"started": _now(), "command": command, **software(),
                             "environment": environment(cell, places)}
    record["attempts"].append(entry)
    _write_record(folder, record)
    begin = time.monotonic()
    status = -1
    try:
        status = _call(command, _environment(cell, places), folder, console, lock,
                       lambda: _may_stop(cell, places))
    finally:
        entry |= {"ended": _now(), "exit_status": status}
        entry |= {"stopped_at_score": True} if _may_stop(cell, places) else {}
        if prompts := training_rows(cell, places):
            used = read_progress(places.log(cell.name)).last_step * cell.n_prompts
            entry |= {"epochs_over_prompts": round(used / prompts, 4)}
        _write_record(folder, record)
    return status, time.monotonic() - begin, console


def _with_allocation(cell: Cell, places: Places) -> list[str]:
    """Return the overrides with the CPUs that Slurm gave: Ray would count those of the machine."""
    cpus = os.environ.get("SLURM_CPUS_PER_TASK", "")
    known = cell.hardware.device != "cpu" and cpus.isdecimal()
    return overrides(cell, places) + ([f"ray_kwargs.ray_init.num_cpus={cpus}"] if known else [])


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    write_whole(folder / "run.json", json.dumps(record, indent=1) + "\n")


def _environment(cell: Cell, places: Places) -> dict[str, str]:
    """Return this process's environment with the run's own on top."""
    own = environment(cell, places)
    if os.environ.get("PYTHONPATH"):
        own["PYTHONPATH"] += os.pathsep + os.environ["PYTHONPATH"]
    return {**os.environ, **own}


def _call(
    command: Sequence[str], variables: Mapping[str, str], folder: Path, console: Path, lock: int,
    may_stop: Callable[[], bool],
) -> int:
    """Run a command in a session of its own with the run's lock; what stops us stops it as well."""
    with console.open("wb") as output:
        process = subprocess.Popen(command, env=variables, cwd=folder, stdout=output,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   start_new_session=True, pass_fds=(lock,))
        try:
            with _termination_interrupts():
                while (status := _wait(process)) is None:
                    if may_stop():
                        _stop(process)
                return status
        except BaseException:
            _stop(process)
            raise


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(timeout=_LOOK)
    except subprocess.TimeoutExpired:
        return None


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Treat SIGTERM, which Slurm sends before it kills, and a lost terminal like Ctrl-C."""
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    caught = [number for number in (signal.SIGTERM, signal.SIGHUP)
              if signal.getsignal(number) is not signal.SIG_IGN]  # nohup's wish
    before = {number: signal.signal(number, interrupt) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=_GRACE)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
        return


def run_sentence(cell: Cell, progress: RunProgress, seconds: float) -> str:
    """Say in one line how a finished run went."""
    scores = ", ".join(f"{key.removeprefix('val-core/').rpartition('/')[0]} {value:.3f}"
                       for key, value in sorted(progress.scores.items()))
    pace = "" if progress.step_seconds != progress.step_seconds else (
        f", {progress.step_seconds:.3g} s a step")
    early = "" if progress.last_step >= cell.steps else f" of {cell.steps}, its score reached,"
    return (f"finished, {progress.last_step} steps{early} in {seconds / 60:.1f} min{pace}; "
            f"{scores}")


def _last_words(console: Path, n_bytes: int = 65536) -> str:
    """Return the last line of a console that names an error, else the last that says anything."""
    with console.open("rb") as handle:
        handle.seek(max(0, console.stat().st_size - n_bytes))
        lines = handle.read().decode(errors="replace").splitlines()
    words = [" ".join(line.split()) for line in lines if line.strip()]
    causes = [line for line in words if _CAUSE.search(line)]
    return (causes or words or ["it printed nothing"])[-1][:200]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
