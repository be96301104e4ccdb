"""A run's record on disk: which configuration it is, its attempts, and history set aside whole.

verl's file logger opens its log with ``"wb"``: starting again would empty it. So an earlier log
is moved away first. Where the next attempt continues from a checkpoint, it goes to
``logs/earlier_K/`` under its own name and the analysis joins the two; where the next attempt begins
again, it goes to the run's folder with all that it continued, where the analysis does not look:
counted as well, the same seed would stand for two replicates.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from cbsbayes.errors import CBSDataError
from training.cells import Cell
from training.verl_command import Places, identity

__all__ = ["check_identity", "locked", "read_record", "set_aside", "software"]

_RECORD = "run.json"


def read_record(cell: Cell, places: Places) -> dict[str, Any]:
    """Return what the run's folder says of it; an empty record where it has not begun.

    Raises
    ------
    CBSDataError
        If the record cannot be read.
    """
    path = places.run(cell.name) / _RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"identity": dict(record["identity"]), "attempts": list(record["attempts"])}
    except FileNotFoundError:
        return {"identity": {}, "attempts": []}
    except (ValueError, KeyError, TypeError):
        raise CBSDataError(f"{path} is no record of a run; move the folder away or choose another "
                           "--output") from None


def check_identity(cell: Cell, places: Places) -> dict[str, Any]:
    """Return the run's record, if its folder belongs to the same configuration.

    Raises
    ------
    CBSDataError
        If it was made by another configuration; the message names the first difference.
    """
    record, own = read_record(cell, places), identity(cell, places)
    if not record["attempts"]:
        if places.log(cell.name).exists():
            raise CBSDataError(f"{places.log(cell.name)} exists, but no record says which "
                               "configuration made it; move it away or choose another --output")
        return {**record, "identity": own}
    before = record["identity"]
    for key in sorted(set(before) | set(own)):
        if before.get(key) != own.get(key):
            raise CBSDataError(f"{places.run(cell.name)} is of another configuration: {key} was "
                               f"{before.get(key)} and is {own.get(key)} now; choose another "
                               "--output or move the folder and its log away")
    return record


def set_aside(cell: Cell, places: Places, *, continued: bool) -> Path | None:
    """Move the logs of earlier attempts away with their side-cars, overwriting nothing.

    Parameters
    ----------
    cell, places : the run and where it is
    continued : bool
        Whether the next attempt goes on from a checkpoint. If not, those that had been continued
        before go with the last one.

    Returns
    -------
    Path or None
        Their folder; None where there was no log with content.
    """
    logs, log, side_car = places.output / "logs", places.log(cell.name), places.side_car(cell.name)
    earlier = [] if continued else sorted(logs.glob(f"earlier_*/{log.name}"))
    found = [path for path in (log, *earlier) if path.is_file() and path.stat().st_size]
    if not found:
        return None
    for number in itertools.count(1):
        home = (logs / f"earlier_{number}" if continued
                else places.run(cell.name) / f"begun_again_{number}")
        if not (home / log.name if continued else home).exists():
            break
    for path in found:
        goal = home / path.relative_to(logs)
        goal.parent.mkdir(parents=True, exist_ok=True)
        if (beside := path.with_name(side_car.name)).exists():
            beside.rename(goal.with_name(side_car.name))
        path.rename(goal)
    return home


@contextmanager
def locked(cell: Cell, places: Places) -> Iterator[int | None]:
    """Hold the run's lock, if no other process does; yields its descriptor, None if it is taken.

    The system frees the lock when the last process with the descriptor ends, however it ends: a
    trainer that was started with it keeps the lock where the sweep's own process is killed.
    """
    folder = places.run(cell.name)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield handle.fileno()


def software() -> dict[str, str]:
    """Return the commit of this checkout and the versions of the trainer's packages."""
    versions = {}
    for package in ("verl", "torch", "ray", "transformers", "vllm"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"commit": _commit(), **versions}


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True,
                              check=True, timeout=30).stdout.strip()
        dirty = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no", "."],
                               capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + (" with local changes" if dirty.strip() else "")
