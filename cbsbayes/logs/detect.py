"""From what the user names to run logs: which reader a source needs.

A source is ``wandb:ENTITY/PROJECT``, a file, or a folder searched recursively. Kinds are told
by file names first (``*.wandb``, ``events.out.tfevents*``, ``*.jsonl``, ``*.csv`` …) and by content
where a name says little (any text may be a console log; a table's columns say what it holds).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.columns import load_table
from cbsbayes.logs.crossings_table import is_crossings, read_crossings
from cbsbayes.logs.history import NoRunsError, listed
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.table import read_curves
from cbsbayes.logs.tensorboard import EVENT_FILES, read_tensorboard
from cbsbayes.logs.verl_console import read_verl_console
from cbsbayes.logs.verl_jsonl import read_verl_jsonl

__all__ = ["Progress", "Reading", "read_source"]

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)``."""

_VALID = (
    "wandb:ENTITY/PROJECT, a folder of wandb runs or of TensorBoard files, verl's *.jsonl, "
    "its console output (*.log, *.txt, *.out), *.csv or *.parquet"
)
_ANY_TEXT = (".log", ".txt", ".out")  # console logs among them are told by their lines
_SIDECARS = (".config.yaml", ".config.yml", ".config.json")
_WANDB_OWN = ("debug.log", "debug-internal.log", "debug-core.log")


@dataclass
class Reading:
    """What one source gave.

    Attributes
    ----------
    source : str
        As the user named it.
    logs : list of RunLog
        The runs, in order of their paths.
    notes : list of str
        About files rather than runs: columns and files that nothing reads.
    """

    source: str
    logs: list[RunLog] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_source(
    source: str, *, cache_dir: Path | None = None, progress: Progress | None = None
) -> Reading:
    """Read every run of one source.

    Parameters
    ----------
    source : str
        ``wandb:ENTITY/PROJECT``, a file or a folder.
    cache_dir : Path, optional
        Where downloads from wandb are kept; by default the user's cache folder.
    progress : callable, optional
        Called as ``progress(done, total)`` while runs are downloaded or files read.

    Returns
    -------
    Reading
        At least one run.

    Raises
    ------
    CBSDataError
        Where there is no such source, no reader knows it, or its content is at fault.
    OSError
        Where a file cannot be read.
    """
    if source.startswith("wandb:"):
        from cbsbayes.logs.wandb_service import read_wandb_api

        project = source.removeprefix("wandb:")
        return Reading(source, read_wandb_api(project, cache_dir=cache_dir, progress=progress))
    path = Path(source)
    if path.is_dir():
        return _read_folder(source, path, progress)
    if not path.exists():
        raise CBSDataError(f"there is no file or folder {source!r}; valid: {_VALID}")
    reading = Reading(source)
    root = path.parent
    if path.match(EVENT_FILES):
        path = root
    _read_into(reading, path, root)
    return reading


def _read_folder(source: str, root: Path, progress: Progress | None) -> Reading:
    reading = Reading(source)
    units = list(_units(root))
    paths = [path for path in units if not _is_wandb_run(path)]
    if len(paths) < len(units):
        reading.logs += _wandb_runs(root, root)[0]
    unread: list[str] = []
    reasons: list[tuple[Path, str]] = []
    for done, path in enumerate(paths):
        if progress is not None:
            progress(done, len(paths))
        if not _may_be_read(path):
            unread.append(path.relative_to(root).as_posix())
            continue
        try:
            _read_into(reading, path, root)
        except NoRunsError as error:
            unread.append(path.relative_to(root).as_posix())
            reasons.append((path, str(error)))
    if not reading.logs:
        held = f"files not recognised: {listed(unread, 3)}" if unread else "the folder is empty"
        reason = f"; {reasons[0][1]}" if reasons else ""
        raise CBSDataError(f"no run in {source} ({held}){reason}; valid sources: {_VALID}")
    if unread:
        reading.notes.append(f"{source}: files without runs, left out: {listed(unread)}")
    reading.notes += [reason for path, reason in reasons if path.suffix not in _ANY_TEXT]
    return reading


def _units(root: Path) -> Iterator[Path]:
    """Yield files, folders of event files, and folders that belong to one wandb run."""
    for place, folders, names in os.walk(root):
        folder = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if any(name.endswith(".wandb") for name in names):
            folders.clear()  # files/output.log in it is the same run once more
            yield folder
            continue
        events = [name for name in names if Path(name).match(EVENT_FILES)]
        if events:
            yield folder
        skipped = _WANDB_OWN if folder.name == "wandb" else ()
        for name in sorted(names):
            ours = name in events or name.endswith(_SIDECARS) or name in skipped
            if not ours and not name.startswith("."):
                yield folder / name


def _is_wandb_run(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*.wandb"))


def _may_be_read(path: Path) -> bool:
    return path.is_dir() or path.suffix in _READERS


def _read_into(reading: Reading, path: Path, root: Path) -> None:
    """Add the runs of one file, or of one folder of event files."""
    reader = _events if path.is_dir() else _READERS.get(path.suffix, _console)
    logs, notes = reader(path, root)
    reading.logs += logs
    reading.notes += notes


_Read = tuple[list[RunLog], list[str]]


def _events(folder: Path, root: Path) -> _Read:
    return [read_tensorboard(folder, root)], []


def _wandb_runs(path: Path, root: Path) -> _Read:
    from cbsbayes.logs.wandb_offline import read_wandb_files

    return read_wandb_files(path), []


def _jsonl(path: Path, root: Path) -> _Read:
    return [read_verl_jsonl(path, root)], []


def _console(path: Path, root: Path) -> _Read:
    return [read_verl_console(path, root)], []


def _table(path: Path, root: Path) -> _Read:
    table = load_table(path)
    return read_crossings(table) if is_crossings(table) else read_curves(table)


_READERS: dict[str, Callable[[Path, Path], _Read]] = {
    ".wandb": _wandb_runs,
    ".jsonl": _jsonl,
    ".log": _console,
    ".txt": _console,
    ".out": _console,
    ".csv": _table,
    ".parquet": _table,
}
