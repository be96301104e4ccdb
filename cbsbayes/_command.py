"""What all commands share: options, exit statuses, one-line errors, stages timed, answers shown."""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shlex
import signal
import sys
import threading
import time
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from cbsbayes.errors import CBSDataError, one_line

if TYPE_CHECKING:
    from cbsbayes.posterior.fit import Fit
    from cbsbayes.report.tables import Table

__all__ = ["EXIT_INPUT", "EXIT_OK", "EXIT_SAMPLING", "Stage", "StageTime", "Timings",
           "command_parser", "exit_status", "option_tables", "peak_memory", "print_result",
           "run_command", "run_main", "shown_stages", "timings_table"]

EXIT_OK = 0
EXIT_INPUT = 1  # the user's input is at fault; 2 is argparse's own status for usage
EXIT_SAMPLING = 3  # everything was written, but sampling checks were not passed
_NUMBERED = re.compile(r"(\d+) of (\d+)$")
_LEAST_MEMORY = 3 * 2**30  # bytes of address space; below, libraries abort while they are loaded


@cache
def option_tables(package: str = "cbsbayes") -> dict[str, Any]:
    """Return a package's ``options.toml``, a table per command among others."""
    return tomllib.loads((files(package) / "options.toml").read_text("utf-8"))


def command_parser(name: str, package: str = "cbsbayes") -> argparse.ArgumentParser:
    """Return the parser of a package's command, by its entry in ``options.toml``."""
    tables, about = option_tables(package), option_tables(package)[name]
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}.{name}", description=about["description"],
        epilog=(tables | about)["epilog"])
    exclusive: dict[str, Any] = defaultdict(parser.add_mutually_exclusive_group)
    for flags, given in about["options"].items():
        option = tables["shared"].get(flags, {}) | given
        holder = exclusive[option.pop("one_of")] if "one_of" in option else parser
        if "type" in option:
            option["type"] = _TYPES[option["type"]]
        if "default" in option:
            option["help"] += " (default: %(default)s)"
        holder.add_argument(*flags.split(), **option)
    return parser


def run_main(
    name: str, body: Callable[[argparse.Namespace], int], argv: Sequence[str] | None,
    package: str = "cbsbayes",
) -> int:
    """Run a command's body with its options, and return the exit status of `run_command`.

    Parameters
    ----------
    name : str
        The command; errors of usage end the process with status 2.
    body : callable
        The command's work; the options' ``command`` is the line as it was typed.
    argv : sequence of str, optional
        The arguments; those of the process unless given.
    package : str
        Whose command it is.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = command_parser(name, package).parse_args(arguments)
    options.command = shlex.join(["python", "-m", f"{package}.{name}", *arguments])
    return run_command(lambda: body(options), f"{package}.{name}")


def run_command(body: Callable[[], int], command: str) -> int:
    """Run a command's body and turn faults of the input into one line on stderr.

    Parameters
    ----------
    body : callable
        The command's work; returns its exit status.
    command : str
        Name shown before the message, e.g. ``"cbsbayes.fit"``.

    Returns
    -------
    int
        The body's status; 1 where the input was at fault, 130 after Ctrl-C, 143 after SIGTERM.
    """
    # matrices are small here: BLAS threads would wait for each other longer than they work
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        _check_memory_limit()
        with _sigterm_raises():
            return body()
    except CBSDataError as error:
        message = str(error)
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        message = f"{error.strerror or error}{place}"
    except RuntimeError as error:
        if "cannot cache function" not in str(error):
            raise
        message = ("compiled code can be kept nowhere; set NUMBA_CACHE_DIR to a folder that can be "
                   "written")
    except MemoryError as error:
        message = (f"out of memory ({str(error) or 'no detail'}); raise the limit (ulimit -v, a "
                   "batch system's --mem) or give fewer runs, thresholds or draws")
    except KeyboardInterrupt as stop:
        what, status = ("terminated", 143) if stop.args else ("interrupted", 130)
        print(f"{command}: {what}; every output is whole: as it was before, or finished",
              file=sys.stderr)
        return status
    print(f"{command}: {one_line(message)}", file=sys.stderr)
    return EXIT_INPUT


def _check_memory_limit() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if resource.RLIM_INFINITY != limit < _LEAST_MEMORY:
        raise CBSDataError(f"the limit on memory (ulimit -v) is {limit / 2**30:.1f} GiB of address "
                           f"space; valid: at least {_LEAST_MEMORY / 2**30:g} GiB")


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that it clears up; batch systems send it."""
    if (threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL):
        yield
        return

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _separated[T](read: Callable[[str], T], what: str) -> Callable[[str], list[T]]:
    """Return the type of an option that is a comma-separated list."""
    def read_all(text: str) -> list[T]:
        try:
            return [read(part) for part in text.split(",") if part.strip()]
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None

    return read_all


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return the type of an option that is a whole number from `least` to `most`."""
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            to = "" if most is None else f" to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}{to}")
        return int(text)

    return read


_TYPES: dict[str, Callable[[str], Any]] = {
    "Path": Path, "int": int, "float": float, "whole": _whole(0), "count": _whole(1),
    "seed": _whole(0, 2**32 - 1),
    "counts": _separated(int, "a whole number, or several like 8,16,32"),
    "numbers": _separated(float, "a list of numbers like 0.60,0.65,0.70")}
"""Types of options by their names in ``options.toml``."""


def exit_status(fits: Iterable[Fit]) -> int:
    """Return 0 where the sampling of all fits passed its checks, else 3."""
    passed = all(fit.verdict["sampling"]["passed"] for fit in fits)
    return EXIT_OK if passed else EXIT_SAMPLING


def print_result(
    options: argparse.Namespace, record: object, head: str, lines: Sequence[str],
    notes: Sequence[str], tables: Sequence[Table | None],
) -> None:
    """Print what a command answers, or with ``--json`` its record; with ``--quiet`` nothing.

    Parameters
    ----------
    options : Namespace
        Of a parser made by `command_parser`.
    record : object
        Plain values.
    head, lines, notes, tables
        As of `cbsbayes.report.page.print_answer`.
    """
    if options.json:
        print(json.dumps(record, allow_nan=False))
    elif not options.quiet:
        from cbsbayes.report.page import print_answer

        print_answer(head, lines, notes, tables, options.output / "index.html")


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


@contextmanager
def shown_stages(command: str, *, quiet: bool) -> Iterator[Stage]:
    """Show on stderr what is being done: a spinner on a terminal, a line per stage otherwise."""
    if quiet:
        yield lambda text: None
        return
    timed = _left()
    if not sys.stderr.isatty():
        yield lambda text: print(f"{command}: {timed(text)} …", file=sys.stderr, flush=True)
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield lambda text: status.update(f"{timed(text)} …")


def _left() -> Callable[[str], str]:
    """Return what adds the time left to numbered stages, by the mean time of those before."""
    began: list[float] = []

    def timed(text: str) -> str:
        found = _NUMBERED.search(text)
        if found is None or found[1] == "1":
            began[:] = [time.perf_counter()]
            return text
        done, total = int(found[1]) - 1, int(found[2])
        left = (time.perf_counter() - began[0]) / done * (total - done) if began else 0.0
        return f"{text}, {left:.0f} s left"

    return timed


def peak_memory() -> float:
    """Return the most memory held, MiB.

    The peak of this process and that of the largest it has started and seen end, added up: the
    two need not have been at the same time.
    """
    unit = 1024 if sys.platform != "darwin" else 1024**2
    return sum(resource.getrusage(who).ru_maxrss
               for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / unit


def timings_table(rows: list[StageTime]) -> str:
    """Return stages as lines of text: by the clock, of the processor, and what was done."""
    total = StageTime("all stages", sum(r.seconds for r in rows), sum(r.cpu_seconds for r in rows))
    lines = [f"{'seconds':>8} {'CPU':>7}  stage"]
    lines += [f"{r.seconds:8.2f} {r.cpu_seconds:7.2f}  {r.stage}" for r in [*rows, total]]
    return "\n".join([*lines, f"{peak_memory():8.0f} MiB      peak memory"])
