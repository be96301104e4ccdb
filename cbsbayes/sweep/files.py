"""Files written whole or not at all, and sweeps and trees read back only if they are whole.

A netCDF writer that is killed leaves a file that opens with variables missing. So the bytes are
made in memory, written to a temporary file in the same folder, flushed to the disk, read back
and compared, and only then given the name (`os.replace`); the folder is flushed last.

The HDF5 library may search a damaged file without end, one with a zeroed block for instance. So a
netCDF file ends in a seal, the SHA-256 of all before it, which is looked at before the library sees
a byte; other programs read past it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any, Literal

import netCDF4
import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.schema import SCHEMA_VERSION, content_digest, digest, validate

__all__ = ["check_replaceable", "default_sweep_path", "kind_of", "read_sweep", "read_tree",
           "write_csv", "write_sweep", "write_tree", "write_whole"]

_ENGINE: Literal["netcdf4"] = "netcdf4"
_MAGIC = b"\x89HDF\r\n\x1a\n"
_SEAL = b"cbsbayes"  # and 32 bytes of SHA-256
_FORMULA = ("=", "+", "-", "@", "\t")
_COMPRESSED_FROM = 1000  # values; below, chunking costs more than compression saves


def write_whole(path: str | os.PathLike[str], content: str | bytes | memoryview) -> Path:
    """Write a file so that the name holds either the old content or all of the new.

    Parameters
    ----------
    path : path-like
        The file; its folder must exist. A link is followed.
    content : str or bytes
        Text is written as UTF-8.

    Returns
    -------
    pathlib.Path
        The path given.

    Raises
    ------
    CBSDataError
        If the folder does not exist, or the path is a folder.
    OSError
        If the disk is full or refuses; the old file is then untouched.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise CBSDataError(f"cannot write {Path(path)}: the folder {target.parent} does not "
                           "exist; create it or choose another place")
    if target.is_dir():
        raise CBSDataError(f"cannot write {Path(path)}: it is a folder; give a file name")
    data = content.encode("utf-8") if isinstance(content, str) else content
    _sweep_stale(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if temporary.read_bytes() != data:
            raise OSError(f"{temporary.name} did not read back as it was written")
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)
    return Path(path)


def write_csv(path: Path, table: pd.DataFrame, **options: Any) -> None:
    """Write a table as CSV, whole or not at all, with no cell that a spreadsheet would run.

    Text that begins like a formula gets an apostrophe in front, as spreadsheets mark text; a
    carriage return is written as an escape.

    Parameters
    ----------
    path : Path
        The file.
    table : pandas.DataFrame
        Written without its index.
    **options
        Of `pandas.DataFrame.to_csv`.
    """
    text = table.select_dtypes(exclude="number").map(_harmless)
    safe = table.assign(**text).rename(columns=_harmless)
    write_whole(path, safe.to_csv(index=False, **options))


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    cell = cell.replace("\r", r"\r")  # would begin a line, and with it a cell
    if not cell.startswith(_FORMULA):
        return cell
    with contextlib.suppress(ValueError):
        float(cell)
        return cell
    return f"'{cell}"


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Refuse to write a sweep over what is none: a device, a link to nothing, another's file.

    Raises
    ------
    CBSDataError
        If something is there that is no sweep.
    """
    file = Path(path)
    if not os.path.lexists(file):
        return
    with contextlib.suppress(CBSDataError):
        if kind_of(file) == "sweep":
            return
    raise CBSDataError(f"{file} is there and is no sweep; only sweeps are replaced (whole ones, of "
                       "this version): move it away or give another name")


def write_sweep(ds: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a sweep as netCDF, whole or not at all, with the digest of its content.

    Raises
    ------
    CBSDataError
        If `ds` breaks the schema, the file would not hold what `ds` holds, or what is there is no
        sweep.
    OSError
        If the disk refuses; the old file is then untouched.
    """
    check_replaceable(path)
    ds = validate(ds).assign_attrs(digest=digest(ds))
    packed = {name: {"zlib": True, "complevel": 4, "shuffle": True}
              for name, v in ds.variables.items()
              if v.dtype.kind in "fi" and v.size >= _COMPRESSED_FROM and name not in ds.dims}
    content = bytes(ds.drop_encoding().to_netcdf(engine=_ENGINE, encoding=packed))
    with xr.open_dataset(content, engine=_ENGINE) as again:
        if digest(again) != ds.attrs["digest"]:
            raise CBSDataError("the sweep does not survive netCDF unchanged (digests differ); "
                               "its variables hold something netCDF cannot, e.g. odd text")
    return write_whole(path, content + _seal(content))


def read_sweep(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read a sweep wholly into memory and check it.

    Raises
    ------
    CBSDataError
        If there is no such file, it is not netCDF as it was written, lacks variables or has
        another schema version.
    """
    file, content = _unsealed(path)
    ds = xr.load_dataset(content, engine=_ENGINE)
    if "schema_version" not in ds.attrs:
        raise CBSDataError(f"{file} is netCDF but no sweep (no schema_version); make one with "
                           "python -m cbsbayes.ingest")
    try:
        validate(ds)
    except CBSDataError as error:
        raise CBSDataError(f"{file}: {error}") from None
    ds.attrs["schema_version"] = SCHEMA_VERSION
    return ds.drop_encoding()


def write_tree(tree: xr.DataTree, path: str | os.PathLike[str]) -> Path:
    """Write a tree as netCDF, whole or not at all.

    Attributes must be text or numbers, as netCDF holds them.

    Raises
    ------
    CBSDataError
        If the file would not hold what `tree` holds.
    OSError
        If the disk refuses; the old file is then untouched.
    """
    bare = tree.map_over_datasets(xr.Dataset.drop_encoding)
    content = bytes(bare.to_netcdf(engine=_ENGINE))
    with xr.open_datatree(content, engine=_ENGINE) as again:
        if _tree_digest(again) != _tree_digest(bare):
            raise CBSDataError("the tree does not survive netCDF unchanged (digests differ); its "
                               "variables hold something netCDF cannot, e.g. odd text")
    return write_whole(path, content + _seal(content))


def read_tree(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read a tree wholly into memory.

    Raises
    ------
    CBSDataError
        If there is no such file, it is not netCDF as it was written, or holds a sweep.
    """
    file, content = _unsealed(path)
    with xr.open_datatree(content, engine=_ENGINE) as tree:
        tree.load()
    if "schema_version" in tree.attrs:
        raise CBSDataError(f"{file} is not a fit; give the folder or fit.nc that "
                           "python -m cbsbayes.fit wrote")
    return tree


def kind_of(path: str | os.PathLike[str]) -> str:
    """Return ``sweep`` or ``fit``.

    Raises
    ------
    CBSDataError
        If there is no such file, or it is not netCDF as it was written here.
    """
    file, content = _unsealed(path)
    with netCDF4.Dataset(str(file), memory=content) as found:
        return "sweep" if "schema_version" in found.ncattrs() else "fit"


def _tree_digest(tree: xr.DataTree) -> str:
    """Return the SHA-256 of all groups with their attributes, which hold a fit's tables."""
    head: dict[str, Any] = {}
    for node in tree.subtree:
        ds = node.to_dataset(inherit=False)
        attrs = {"": ds.attrs, **{str(k): v.attrs for k, v in ds.variables.items()}}
        head[node.path] = [content_digest(ds, {}), {
            name: {str(key): np.squeeze(value).tolist() for key, value in found.items()}
            for name, found in attrs.items()}]
    return content_digest(xr.Dataset(), head)


def _seal(content: bytes) -> bytes:
    return _SEAL + hashlib.sha256(content).digest()


def _unsealed(path: str | os.PathLike[str]) -> tuple[Path, bytes]:
    """Return a netCDF file and what it holds; raise where it is not as it was written."""
    file = Path(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise CBSDataError(f"{file} {what}; give a netCDF file made by cbsbayes")
    content = file.read_bytes()
    if not content.startswith(_MAGIC):
        raise CBSDataError(f"{file} is not netCDF (wrong first bytes); logs and tables are "
                           "turned into one by python -m cbsbayes.ingest")
    length = len(_seal(b""))
    content, seal = content[:-length], content[-length:]
    if seal != _seal(content):
        raise CBSDataError(f"{file}: the file is damaged, or was not written by this version of "
                           "cbsbayes; restore it, or make it again: a sweep with python -m "
                           "cbsbayes.ingest, a fit with python -m cbsbayes.fit (a sweep that was "
                           "edited is written by cbsbayes.sweep.files.write_sweep)")
    return file, content


def _sweep_stale(target: Path) -> None:
    """Remove temporaries of this file whose writing process no longer lives."""
    ours = re.compile(re.escape(f".{target.name}.") + r"(\d+)-[0-9a-f]{8}\.tmp")
    for entry in target.parent.iterdir():
        found = ours.fullmatch(entry.name)
        if found and not _alive(int(found[1])):
            entry.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError) as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def default_sweep_path() -> Path:
    """Return the shipped sweep: packaged with an installed wheel, or ``data/`` of a checkout.

    Raises
    ------
    CBSDataError
        If neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for path in (package / "shipped/verl_tiny.nc", package.parent / "data/verl_tiny/sweep.nc"):
        if path.is_file():
            return path
    raise CBSDataError("the shipped sweep is missing from this installation; give a sweep file, "
                       "or reinstall cbsbayes")
