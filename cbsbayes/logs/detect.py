"""From what the user names to run logs: which reader a source needs, and what lies beside logs.

A source is ``wandb:ENTITY/PROJECT``, a file, or a folder searched recursively. Kinds are told
by file names first (``*.wandb``, ``events.out.tfevents*``, ``*.csv`` …) and by content where a
name says little (any text may be a console log; a table's columns say what it holds).

``<name>.config.yaml`` (``.yml``, ``.json``) beside a log is that log's configuration and counts
more than what the log printed; ``config.yaml``, ``experiment_config.json`` or Hydra's
``.hydra/config.yaml`` in a log's folder or above it is taken where the log has none and only one
run lies below it. ``requirements.txt`` beside a log (wandb writes one) tells the trainer's version.
"""

from __future__ import annotations

import lzma
import os
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cbsbayes.errors import CBSDataError, listed
from cbsbayes.logs.run_config import lookup, read_config, read_packages
from cbsbayes.logs.run_log import NoRunsError, Origin, RunLog
from cbsbayes.logs.run_name import file_stem, is_generic, parse_name
from cbsbayes.logs.tables import Table, logs_of, read_table
from cbsbayes.logs.tensorboard import EVENT_FILES, read_tensorboard
from cbsbayes.logs.text import open_bytes
from cbsbayes.logs.verl import read_records, read_trainer_state, read_verl
from cbsbayes.logs.wandb_offline import read_wandb_file

__all__ = ["Progress", "configure", "read_source", "read_sources"]

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)``."""

_VALID = ("wandb:ENTITY/PROJECT, a folder of logs, or one log: verl's *.jsonl or console output, "
          "*.wandb, TensorBoard files, trainer_state.json, *.csv, *.tsv or *.parquet")
_TABLES = (".csv", ".tsv", ".parquet")
_NO_LOGS = (".md", ".py", ".sh", ".yaml", ".yml", ".toml", ".nc", ".png", ".pdf", ".html", ".pt",
            ".safetensors", ".bin", ".npz", ".npy", ".lock", ".ipynb", "requirements.txt")
_SIDE_CARS = (".config.yaml", ".config.yml", ".config.json")
_OF_FOLDER = ("config.yaml", "config.yml", "config.json", "experiment_config.json",
              ".hydra/config.yaml")
_WANDB_OWN = ("debug.log", "debug-internal.log", "debug-core.log")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_MOST_MEMBERS, _MOST_BYTES = 100_000, 2**34
_PACKED = re.compile(r"(?:\.gz|\.\d{1,3})+$")
_WANDB = re.compile(r"wandb:(.*)|(?:https?://)?(?:www\.)?wandb\.ai/([^/?#]+/[^/?#]+).*", re.DOTALL)
_BARE = re.compile(r"[\w-]+/[\w-]+")

type Reading = tuple[list[RunLog], list[str]]
"""Runs in the order of their paths, and notes on files rather than runs."""


def read_sources(
    sources: Sequence[str], *, skip: Collection[str] = (), cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Reading:
    """Read every run of several sources, but those whose name or id is to be skipped.

    Returns
    -------
    logs : list of RunLog
        With ids that are unique; an id that two sources share gets its source in front.
    notes : list of str

    Raises
    ------
    CBSDataError
        As `read_source` does, and where a run comes in several tables.
    """
    readings = {source: read_source(source, skip=skip, cache_dir=cache_dir, progress=progress)
                for source in sources}
    placed = [(source, log) for source, (logs, _) in readings.items() for log in logs
              if log.name not in skip and log.id not in skip]
    count = Counter(log.id for _, log in placed)
    for source, log in placed:
        if log.source in ("table", "crossings") and count[log.id] > 1:
            raise CBSDataError(
                f"run {log.id!r} of {source} comes in several tables; "
                "put all rows of a run into one table, or give every run an id of its own")
    logs = [replace(log, id=f"{source}/{log.id} ({log.source})") if count[log.id] > 1 else log
            for source, log in placed]
    return logs, [note for _, notes in readings.values() for note in notes]


def read_source(
    source: str, *, skip: Collection[str] = (), cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Reading:
    """Read every run of one source.

    Parameters
    ----------
    source : str
        ``wandb:ENTITY/PROJECT``, its address at wandb.ai, a file, an archive or a folder; bare
        ``ENTITY/PROJECT`` where there is no such path.
    skip : collection of str
        Names and ids of runs of a wandb project that are not to be downloaded.
    cache_dir : Path, optional
        Where downloads from wandb are kept; by default the user's cache folder.
    progress : callable, optional
        Called as ``progress(done, total)`` while runs are downloaded or files read.

    Returns
    -------
    logs : list of RunLog
        At least one.
    notes : list of str

    Raises
    ------
    CBSDataError
        Where there is no such source, no reader knows it, or its content is at fault.
    OSError
        Where a file cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        return _read_folder(source, path, progress)
    if not path.exists():
        from cbsbayes.logs.wandb_service import read_wandb_api

        named = _WANDB.fullmatch(source)
        if named is None and (not _BARE.fullmatch(source) or path.parent.exists()):
            raise CBSDataError(f"there is no file or folder {source!r}; valid: {_VALID}")
        try:
            return read_wandb_api(named[1] or named[2] or "" if named else source, skip=skip,
                                  cache_dir=cache_dir, progress=progress), []
        except CBSDataError as error:
            raise error if named else CBSDataError(
                f"there is no file or folder {source!r}, and as a project: {error}") from None
    if path.name.lower().endswith(_ARCHIVES):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / file_stem(path)
            _unpack(path, root)
            return _read_folder(source, root, progress)
    root = path.parent
    logs, notes = _read(root if path.match(EVENT_FILES) else path, root)
    return configure(logs, root), notes


def _unpack(path: Path, folder: Path) -> None:
    """Unpack an archive; members outside of it are refused, and so is one without bounds."""
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as packed:
                _check_size(path, [member.file_size for member in packed.infolist()])
                packed.extractall(folder)
        else:
            with tarfile.open(path) as archive:
                _check_size(path, [member.size for member in archive])
                archive.extractall(folder, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, EOFError, zlib.error) as error:
        raise CBSDataError(f"{path} cannot be unpacked ({error}); unpack it by hand and give the "
                           "folder") from None


def _check_size(path: Path, sizes: Sequence[int]) -> None:
    if len(sizes) > _MOST_MEMBERS or sum(sizes) > _MOST_BYTES:
        raise CBSDataError(f"{path} holds {len(sizes)} files of {sum(sizes):,} bytes; at most "
                           f"{_MOST_MEMBERS} and {_MOST_BYTES:,} are unpacked; unpack it by hand "
                           "and give the folder")


def _read_folder(source: str, root: Path, progress: Progress | None) -> Reading:
    logs: list[RunLog] = []
    notes: list[str] = []
    reasons: dict[str, str] = {}
    paths = list(_units(root))
    for done, path in enumerate(paths):
        if progress is not None:
            progress(done, len(paths))
        try:
            found, said = _read(path, root)
        except NoRunsError as error:
            reasons[path.relative_to(root).as_posix()] = str(error)
        else:
            logs += found
            notes += said
    if not logs:
        held = f"files not recognised: {listed(reasons, 3)}" if reasons else "the folder is empty"
        reason = next((f"; {why}" for name, why in reasons.items()
                       if not name.endswith(_NO_LOGS)), "")
        raise CBSDataError(f"no run in {source} ({held}){reason}; valid sources: {_VALID}")
    if reasons:
        notes.append(f"{source}: files without runs, left out: {listed(reasons)}")
    wandb = [log for log in logs if log.source == "wandb_file"]
    rest = [log for log in logs if log.source != "wandb_file"]
    return sorted(wandb, key=lambda log: (log.created, log.id)) + configure(rest, root), notes


def _units(root: Path) -> Iterator[Path]:
    """Yield files, folders of event files, and the transaction logs of wandb runs."""
    for place, folders, names in os.walk(root):
        folder = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "fit.nc" in names:  # a fit's own folder
            folders.clear()
            continue
        logs = sorted(name for name in names if name.endswith(".wandb"))
        if logs:
            folders.clear()  # files/output.log in it is the same run once more
            yield from (folder / name for name in logs)
            continue
        events = [name for name in names if Path(name).match(EVENT_FILES)]
        if events:
            yield folder
        skipped = (*_OF_FOLDER, *(_WANDB_OWN if folder.name == "wandb" else ()), *events)
        yield from (folder / name for name in sorted(names) if name not in skipped
                    and not name.endswith(_SIDE_CARS) and not name.startswith("."))


def _read(path: Path, root: Path) -> Reading:
    """Return the runs of one file, or of one folder of event files, and notes on it."""
    name = _PACKED.sub("", path.name).lower()
    if path.is_dir():
        return [read_tensorboard(path, root)], []
    if name.endswith(_NO_LOGS) or (not path.is_file() and not path.is_symlink()):
        raise NoRunsError(f"{path} is no text, and no log that is known")
    if name.endswith(".wandb"):
        return [read_wandb_file(path, root)], []
    if name.endswith(_TABLES):
        return read_table(path, root)
    if name.endswith(".json"):
        rows = read_records(path)
        if "run" not in rows[0]:
            return read_trainer_state(path, root, rows), []
        return logs_of(Table(pd.DataFrame(rows, dtype=object), str(path)), path, root)
    with open_bytes(path) as file:
        if b"\0" in (head := file.read(4096)) and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise NoRunsError(f"{path} is no text, and no log that is known")
    return read_verl(path, root), []


def configure(logs: Sequence[RunLog], root: Path) -> list[RunLog]:
    """Give logs of files the settings that lie beside them.

    Parameters
    ----------
    logs : sequence of RunLog
        All that were read below `root`; their ids are paths relative to it.
    root : Path
        The folder given by the user; nothing above it is looked at.

    Returns
    -------
    list of RunLog
        In the same order. A log whose file has a generic name takes its configuration's
        ``trainer.experiment_name``, unless its folder's name says more.
    """
    paths = {log.id: root / log.id.partition("#")[0] for log in logs}
    runs_below: dict[Path, set[str]] = defaultdict(set)
    for log in logs:
        for folder in _folders(paths[log.id], root):
            runs_below[folder].add(log.name)
    found = []
    for log in logs:
        path = paths[log.id]
        beside = next((file for suffix in _SIDE_CARS if (
            file := path.parent / (file_stem(path) + suffix)).is_file()), None)
        if beside is None and not log.settings:
            nearest = next(((folder, file) for folder in _folders(path, root) for name in _OF_FOLDER
                            if (file := folder / name).is_file()), None)
            if nearest and len(runs_below[nearest[0]]) == 1:  # it can only belong to this run
                beside = nearest[1]
        origins = () if beside is None else (Origin(
            beside.relative_to(path.parent, walk_up=True).as_posix(), read_config(beside)),)
        found.append(replace(log, settings=(*origins, *log.settings, *read_packages(path.parent))))
    stated = [next((name for origin in log.settings if isinstance(
        name := lookup(origin.values, "trainer.experiment_name"), str)), None) for log in found]
    count = Counter(stated)
    return [replace(log, name=name) if name is not None and count[name] == 1
            and is_generic(paths[log.id]) and parse_name(log.name) is None else log
            for log, name in zip(found, stated, strict=True)]


def _folders(path: Path, root: Path) -> list[Path]:
    """Return the folders that a log lies in, the nearest first, up to the one given."""
    return [folder for folder in (path, *path.parents)
            if folder.is_relative_to(root) and folder.is_dir()]
