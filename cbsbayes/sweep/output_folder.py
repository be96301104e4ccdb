"""A command's output folder: made beside the old one, put in its place when it is whole.

``manifest.json``, written last, names every file with its SHA-256. An earlier folder is replaced
only where its manifest says that the same command wrote it and none of its files was changed since;
files that the user added move along. What a killed command left beside is removed by the next.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.files import write_whole

__all__ = ["MANIFEST", "growing_folder", "named_files", "output_folder"]

MANIFEST = "manifest.json"


@contextmanager
def output_folder(target: Path, command: str) -> Iterator[Path]:
    """Yield a new folder that takes the place of `target` when the block ends without an error.

    Parameters
    ----------
    target : Path
        What is to be written; a link is followed, missing parents are made.
    command : str
        Who writes, e.g. ``"cbsbayes.fit"``; only its own folders are replaced.

    Raises
    ------
    CBSDataError
        Before the block, if the target is not ours to replace, is being written by another command
        or cannot be written; at its end, if the disk refuses or files got into the way meanwhile.
        The old folder is then as it was.
    """
    with _locked(target) as place:
        _files_added(place, command)
        new = _beside(place, "new")
        try:
            new.mkdir()
            yield new
            _write_manifest(new, command)
            _take_along(place, new, _files_added(place, command))
            if place.exists():
                shutil.copymode(place, new)
                place.rename(_beside(place, "old"))
            new.rename(place)
        finally:
            with suppress(OSError):
                _remove_leftovers(place)


@contextmanager
def growing_folder(target: Path, command: str) -> Iterator[Path]:
    """Yield a folder that the same command goes on with, locked; name its files at the end.

    While the block runs the manifest names none, so that an interrupted command can be repeated.

    Raises
    ------
    CBSDataError
        As `output_folder`.
    """
    with _locked(target) as place:
        added = _files_added(place, command)
        place.mkdir(exist_ok=True)
        _write_manifest(place, command, without=_files(place))
        yield place
        _write_manifest(place, command, without=added)


def named_files(folder: Path) -> list[str] | None:
    """Return the names that a folder's manifest holds, with forward slashes; None without one.

    Raises
    ------
    CBSDataError
        If the manifest is damaged.
    """
    manifest = _manifest(folder)
    return None if manifest is None else list(manifest[1])


@contextmanager
def _locked(target: Path) -> Iterator[Path]:
    """Yield where a link leads to, while no other command may write there."""
    place = Path(os.path.realpath(target))
    if os.path.ismount(place):
        raise CBSDataError(f"{target} is the root of a file system, which cannot be replaced; "
                           f"give a folder in it: -o {target / 'out'}")
    missing: list[Path] = []
    try:
        for part in (place, *place.parents):
            if part.exists() and not part.is_dir():
                raise CBSDataError(f"cannot write into {target}: {part} is a file; give a folder")
        missing += [parent for parent in place.parents if not parent.exists()]
        place.parent.mkdir(parents=True, exist_ok=True)
        with _lock_file(_beside(place, "lock"), target):
            _remove_leftovers(place)
            yield place
    except OSError as error:
        raise CBSDataError(f"cannot write into {target}: {error.strerror or error}; free space "
                           "there or give another folder with -o") from error
    finally:
        for parent in missing:  # made for nothing, unless something is in them
            with suppress(OSError):
                parent.rmdir()


@contextmanager
def _lock_file(lock: Path, target: Path) -> Iterator[None]:
    with os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(handle.fileno()), lock.stat())  # else removed since
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            raise CBSDataError(f"another command is writing {target}; wait for its end or give "
                               "another folder with -o")
        try:
            yield
        finally:
            lock.unlink()


def _beside(place: Path, what: str) -> Path:
    return place.with_name(f".{place.name}.cbsbayes-{what}")


def _remove_leftovers(place: Path) -> None:
    """Remove what a command left beside, or put the old folder back where none has its place."""
    new, old = _beside(place, "new"), _beside(place, "old")
    if old.exists() and not place.exists():
        old.rename(place)
    for left in (new, old):
        if left.exists():
            shutil.rmtree(left)


def _files(folder: Path) -> set[str]:
    """Return all that a folder holds but folders, as names with forward slashes."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")
            if path.is_symlink() or not path.is_dir()}


def _files_added(place: Path, command: str) -> set[str]:
    """Return the files in a folder of ours that we did not write; refuse any other folder."""
    first = next(place.iterdir(), None) if place.exists() else None
    if first is None:
        return set()
    manifest = _manifest(place)
    if manifest is None:
        raise CBSDataError(f"cannot write into {place}: it holds what cbsbayes did not write "
                           f"({first.name}); empty it or give another folder with -o")
    writer, named = manifest
    if writer != command:
        raise CBSDataError(f"cannot write into {place}: it holds what {writer} wrote; "
                           "give another folder with -o")
    found = _files(place)
    for name in sorted(found & named.keys()):
        if _digest(place / name) != named[name]:
            raise CBSDataError(f"cannot write into {place}: {name} was changed after cbsbayes "
                               "wrote it; move it away or give another folder with -o")
    return found - named.keys() - {MANIFEST}


def _manifest(folder: Path) -> tuple[str, dict[str, str]] | None:
    """Return who wrote a folder and the digests of its files by name; None without a manifest."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        command, files = found["command"], dict(found["files"])
        if not isinstance(command, str) or any(
                Path(name).is_absolute() or ".." in Path(name).parts for name in files):
            raise ValueError
        return command, files
    except (ValueError, TypeError, KeyError, RecursionError):
        raise CBSDataError(f"{path} is damaged or not of cbsbayes, so that nobody can tell which "
                           "files may be replaced; give another folder, or remove it") from None


def _write_manifest(folder: Path, command: str, without: Collection[str] = ()) -> None:
    names = sorted(_files(folder) - set(without) - {MANIFEST})
    found = {"command": command, "files": {name: _digest(folder / name) for name in names}}
    write_whole(folder / MANIFEST, json.dumps(found, indent=1) + "\n")


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _take_along(place: Path, new: Path, added: Collection[str]) -> None:
    """Link the user's files into the new folder: at no time are they in neither."""
    for name in sorted(added):
        target = new / name
        if os.path.lexists(target):
            raise CBSDataError(f"cannot replace {place}: {name}, which cbsbayes did not write, has "
                               "the name of a new file; move it away or give another folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(place / name, target, follow_symlinks=False)
        except OSError:  # file systems without links
            shutil.copy2(place / name, target, follow_symlinks=False)
